"""A comparison as files and as text: one row a figure, one column a method."""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from DualTrackCore.comparison.table import COMPONENTS, METRICS, Comparison, Summary
from DualTrackCore.version import __version__

NOTICE = "Accuracy on simulated sweeps says nothing about patients."
#: Characters of a line of text, of the name of a figure, and of a method's column.
_LINE, _LABEL, _COLUMN = 120, 30, 14
_TITLES = {
    "gpe_mm": "GPE, all pixels (mm)",
    "lpe_mm": "LPE, all pixels (mm)",
    "gpe_five_point_mm": "GPE, five points (mm)",
    "lpe_five_point_mm": "LPE, five points (mm)",
    "fdr_percent": "FDR, straight (%)",
    "fdr_path_percent": "FDR, path (%)",
    "max_drift_mm": "max drift (mm)",
    **{f"correlation_{name}": f"correlation {name}, mean" for name in COMPONENTS},
}


def write_comparison(comparison: Comparison, folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Write sweeps.csv, summary.csv, table.md and comparison.json into a folder that exists; returns their names.

    Args:
        about: plain values for the JSON file and the head of the table: what the sweeps are.
    """
    _write_csv(folder / "sweeps.csv", _sweep_rows(comparison))
    _write_csv(folder / "summary.csv", [_flat(summary) for summary in comparison.summaries])
    (folder / "table.md").write_text(markdown(comparison, about), encoding="utf-8")
    values = {
        "dualtrack_version": __version__,
        "notice": NOTICE,
        **about,
        "methods": [_flat(summary) for summary in comparison.summaries],
        "sweeps": _sweep_rows(comparison),
    }
    text = json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
    return ["comparison.json", "summary.csv", "sweeps.csv", "table.md"]


def text_table(comparison: Comparison) -> str:
    """The summary for a terminal of 120 columns; more methods than fit beside each other go into further blocks."""
    fit = (_LINE - _LABEL) // _COLUMN
    blocks = []
    for start in range(0, len(comparison.summaries), fit):
        part = comparison.summaries[start : start + fit]
        rows = [("", [s.method for s in part]), *_cells(part)]
        blocks.append("\n".join(line for title, cells in rows for line in _lines(title, cells)))
    return "\n\n".join(blocks + failures_text(comparison))


def _lines(title: str, cells: Sequence[str]) -> list[str]:
    """One row of the text table; long cells take several lines."""
    wrapped = [textwrap.wrap(cell, _COLUMN - 1) for cell in cells]
    height = max(len(cell) for cell in wrapped)
    padded = [[""] * (height - len(cell)) + cell for cell in wrapped]
    titles = [""] * (height - 1) + [title]
    return [f"{titles[i]:<{_LABEL}}" + "".join(f"{cell[i]:>{_COLUMN}}" for cell in padded) for i in range(height)]


def markdown(comparison: Comparison, about: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, with what the sweeps are, the failures and the notice."""
    lines = ["# Methods compared", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    lines.append("| | " + " | ".join(s.method for s in comparison.summaries) + " |")
    lines.append("| --- |" + " ---: |" * len(comparison.summaries))
    lines += [f"| {title} | " + " | ".join(cells) + " |" for title, cells in _cells(comparison.summaries)]
    lines += [
        "",
        "Means over sweeps. Pooled: over all steps of all sweeps together; it shows whether the sign is found.",
    ]
    lines += [f"\n{text}" for text in failures_text(comparison)]
    return "\n".join([*lines, "", NOTICE, ""])


def failures_text(comparison: Comparison) -> list[str]:
    """The methods that failed, each with sweep and reason; nothing where none did."""
    if not comparison.failures:
        return []
    lines = [f"- {row.method} on {row.sweep}: {row.error}" for row in comparison.failures]
    return ["Failed, and in none of the means:\n" + "\n".join(lines)]


def _cells(summaries: Sequence[Summary]) -> Iterable[tuple[str, list[str]]]:
    """Title and texts of every line below the methods' names."""
    yield "uses", [s.uses for s in summaries]
    yield "sweeps", [str(s.sweeps) if not s.failed else f"{s.sweeps} of {s.sweeps + s.failed}" for s in summaries]
    for name in METRICS:
        yield _TITLES[name], [_figure(s.means[name]) for s in summaries]
    for name in COMPONENTS:
        yield f"correlation {name}, pooled", [_figure(s.pooled[name]) for s in summaries]
    yield "ms a frame", [_figure(1000 * s.means["seconds_per_frame"]) for s in summaries]


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _flat(summary: Summary) -> dict[str, Any]:
    return {
        "method": summary.method,
        "uses": summary.uses,
        "sweeps": summary.sweeps,
        "failed": summary.failed,
        **summary.means,
        **{f"pooled_correlation_{name}": value for name, value in summary.pooled.items()},
        **{f"sweeps_with_{name}": count for name, count in summary.defined.items() if count != summary.sweeps},
    }


def _sweep_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "sweep": row.sweep,
            "method": row.method,
            "frames": row.frames,
            "error": row.error or "",
            "seconds_per_frame": row.seconds_per_frame,
            **row.metrics,
        }
        for row in comparison.rows
    ]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(
            {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows
        )


def _plain(value: Any) -> Any:
    """The same with null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
