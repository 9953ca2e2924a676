"""A comparison as files and as text: one row per figure, one column per method."""

from __future__ import annotations

import csv
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from DualTrackCore import __version__
from DualTrackCore.evaluation import COMPONENTS
from DualTrackCore.files import json_text
from DualTrackCore.research.comparison.summaries import (
    SHOWN,
    SIGNIFICANT,
    Comparison,
    Pair,
    Row,
    Spread,
    Summary,
    heading,
    least_sweeps,
)
from DualTrackCore.settings import short_list

#: Shown with every figure on simulated sweeps.
SIMULATED_NOTICE = "Accuracy on simulated sweeps says nothing about patients."
#: Of evaluation.json; 1 had no list of files.
SCHEMA_VERSION = 2
#: Shown with every evaluation.
NOTICE = "Research use only; not for diagnosis."
#: Characters of a line of text, of the name of a figure, and of a method's column.
_LINE, _LABEL, _COLUMN = 120, 28, 15


def write_tables(comparison: Comparison, pairs: Sequence[Pair], folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Write sweeps.csv, summary.csv, pairs.csv, table.md and evaluation.json into a folder that exists.

    Args:
        comparison: what to write.
        pairs: of its methods; empty where they were not tested.
        about: plain values for the JSON file and the head of the table: what was run on what.

    Returns:
        The names of the files.
    """
    names = ["evaluation.json", "pairs.csv", "summary.csv", "sweeps.csv", "table.md"]
    sweeps, summaries = [_flat_row(row) for row in comparison.rows], [_flat(s) for s in comparison.summaries]
    _write_csv(folder / "sweeps.csv", sweeps)
    _write_csv(folder / "summary.csv", summaries)
    _write_csv(folder / "pairs.csv", [asdict(pair) for pair in pairs], list(Pair.__dataclass_fields__))
    (folder / "table.md").write_text(markdown(comparison, about), encoding="utf-8")
    values = {
        "schema_version": SCHEMA_VERSION,
        "dualtrack_version": __version__,
        "notice": NOTICE,
        "files": sorted({*names, *(path.name for path in folder.iterdir() if path.is_file())}),
        **about,
        "true_poses": comparison.truths,
        "methods": [
            {**row, "failed_on": s.failed, "model": s.model or None, "trust": s.trust, "warnings": s.warnings}
            for row, s in zip(summaries, comparison.summaries, strict=True)
        ],
        "skipped": comparison.skipped,
        "common_sweeps": comparison.common,
        "pairs": pairs,
        "sweeps": sweeps,
    }
    (folder / "evaluation.json").write_text(json_text(values), encoding="utf-8")
    return names


def text_table(comparison: Comparison) -> str:
    """The summary for a terminal of 120 columns; more methods than fit beside each other go into further blocks."""
    fit = (_LINE - _LABEL) // _COLUMN
    blocks = []
    for start in range(0, len(comparison.summaries), fit):
        part = comparison.summaries[start : start + fit]
        rows = [("", [s.method for s in part]), *_cells(comparison, part)]
        blocks.append("\n".join(line for title, cells in rows for line in _lines(title, cells)))
    lines = "\n\n".join(remarks(comparison)).splitlines()
    return "\n".join(["\n\n".join(blocks), *([""] if lines else []), *(textwrap.fill(line, _LINE) for line in lines)])


def markdown(comparison: Comparison, about: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, with what the sweeps are, the failures and the notice."""
    facts = {**about, "true_poses": truths_text(comparison)}
    lines = ["# Methods compared", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines.append("| | " + " | ".join(s.method for s in comparison.summaries) + " |")
    lines.append("| --- |" + " ---: |" * len(comparison.summaries))
    lines += [f"| {title} | " + " | ".join(cells) + " |" for title, cells in _cells(comparison, comparison.summaries)]
    lines += [
        "",
        "Means over sweeps; intervals hold 95 % of the means of sweeps drawn with replacement. Pooled: over all steps "
        "of all sweeps together; it shows whether the sign is right.",
    ]
    lines += [f"\n{text}" for text in remarks(comparison)]
    return "\n".join([*lines, "", NOTICE, ""])


def remarks(comparison: Comparison) -> list[str]:
    """Return which sweeps and methods have no figures and why, and which figures are those of guesses; may be empty."""
    texts = [*guesses(comparison), *trusts(comparison), *warned(comparison), *too_few(comparison)]
    if comparison.skipped:
        lines = [f"- {name}: {reason}" for name, reason in comparison.skipped.items()]
        texts.append("Sweeps that cannot be used, and are in no figure:\n" + "\n".join(lines))
    if comparison.failures:
        lines = [f"- {row.method} on {row.sweep}: {row.error}" for row in comparison.failures]
        texts.append("Failed, and in none of the means:\n" + "\n".join(lines))
        for summary in comparison.summaries:
            if summary.failed:
                sweeps = f"{sweeps_text(summary)} sweeps, without {short_list(summary.failed)}"
                texts.append(f"The means of {summary.method} are over {sweeps}.")
        if comparison.common:
            texts.append(
                f"Means of methods that failed on different sweeps compare only over the {len(comparison.common)} "
                "sweeps on which none failed: the rows 'on common sweeps'."
            )
    return texts


def guesses(comparison: Comparison) -> list[str]:
    """A sentence for each method whose model never saw sweeps of the kind."""
    return [
        f"{s.method} only guesses on {s.guesses} of {s.sweeps} sweeps: its model never saw such ones."
        for s in comparison.summaries
        if s.guesses
    ]


def trusts(comparison: Comparison) -> list[str]:
    """For each method with a model what its estimates are good for, and why no better."""
    return [f"Trust in {s.method}: {s.trust_text}." for s in comparison.summaries if s.trust]


def warned(comparison: Comparison) -> list[str]:
    """For each method what its estimates warned of, with the number of sweeps."""
    return [
        f"Warning of {s.method} on {count} of {s.sweeps} sweeps: {text}"
        for s in comparison.summaries
        for text, count in s.warnings.items()
    ]


def too_few(comparison: Comparison) -> list[str]:
    """A sentence where no difference between methods can be significant, whatever they do; else nothing."""
    methods, sweeps = sum(summary.sweeps > 0 for summary in comparison.summaries), len(comparison.sweeps)
    pairs = methods * (methods - 1) // 2
    if not pairs or sweeps >= (least := least_sweeps(pairs)):
        return []
    return [
        f"No difference can be significant here: with {sweeps} sweeps no p of the signed-rank test is below "
        f"{min(2 / 2**sweeps, 1):.3g}, and Holm's method multiplies the smallest by the number of pairs, {pairs}. At "
        f"least {least} sweeps are needed for p < {SIGNIFICANT:g}."
    ]


def truths_text(comparison: Comparison) -> str:
    """Where the true poses are from: "measured (20 sweeps), simulated (8)"."""
    return ", ".join(f"{origin} ({count} sweeps)" for origin, count in comparison.truths.items()) or "unknown"


def figure_text(value: float) -> str:
    """Four digits and at most three after the point; "-" where undefined."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def short_text(value: float) -> str:
    """The same with three digits and at most three after the point."""
    if not math.isfinite(value):
        return "-"
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return f"{value:.{places}f}"


def sweeps_text(summary: Summary) -> str:
    """Number of sweeps that the figures come from: "8", or "7 of 8" where the method failed."""
    return f"{summary.sweeps} of {summary.sweeps + len(summary.failed)}" if summary.failed else str(summary.sweeps)


class _NameWrapper(textwrap.TextWrapper):
    wordsep_re = re.compile(r"(?<=[\s:/_-])")


def name_lines(name: str, width: int) -> list[str]:
    """A name in lines of at most so many characters, broken after a space or one of : / _ - where that is possible."""
    return [line.rstrip() for line in _NameWrapper(width).wrap(name)]


def _lines(title: str, cells: Sequence[str]) -> list[str]:
    """One row of the text table; long cells take several lines."""
    wrapped = [name_lines(cell, _COLUMN - 1) for cell in cells]
    height = max(len(cell) for cell in wrapped)
    padded = [[""] * (height - len(cell)) + cell for cell in wrapped]
    titles = [""] * (height - 1) + [title]
    return [f"{titles[i]:<{_LABEL}}" + "".join(f"{cell[i]:>{_COLUMN}}" for cell in padded) for i in range(height)]


def _cells(comparison: Comparison, summaries: Sequence[Summary]) -> Iterable[tuple[str, list[str]]]:
    """Title and texts of every line below the methods' names; figures that no method has are left out."""
    yield "uses", [s.uses for s in summaries]
    yield "sweeps", [sweeps_text(s) for s in summaries]
    for name in comparison.shown:
        spreads = [s.figures[name] for s in summaries]
        yield heading(name), [figure_text(spread.mean) for spread in spreads]
        if name in ("gpe_mm", "lpe_mm"):
            yield "  95 % interval", [interval_text(spread) for spread in spreads]
            yield "  median", [figure_text(spread.median) for spread in spreads]
            if comparison.failures:
                yield "  on common sweeps", [figure_text(s.common[name]) for s in summaries]
    for name in COMPONENTS:
        yield f"r({name}), pooled", [figure_text(s.pooled[name]) for s in summaries]
    yield "ms a frame", [figure_text(1000 * s.figures["seconds_per_frame"].mean) for s in summaries]
    if any(s.parameter_count is not None for s in comparison.summaries):
        yield "parameters", ["-" if s.parameter_count is None else f"{s.parameter_count:,}" for s in summaries]


def interval_text(spread: Spread) -> str:
    """Both ends of the interval; "-" where undefined."""
    return f"{short_text(spread.low)} to {short_text(spread.high)}" if math.isfinite(spread.low) else "-"


def _flat(summary: Summary) -> dict[str, Any]:
    """One line of summary.csv: every figure with its mean, median, interval and the number of sweeps it is over."""
    values: dict[str, Any] = {
        "method": summary.method,
        "uses": summary.uses,
        "sweeps": summary.sweeps,
        "failed": len(summary.failed),
        "guesses": summary.guesses,
        "parameters": math.nan if summary.parameter_count is None else summary.parameter_count,
    }
    for name, spread in summary.figures.items():
        values |= {
            name: spread.mean,
            f"{name}_median": spread.median,
            f"{name}_low": spread.low,
            f"{name}_high": spread.high,
            f"{name}_sweeps": spread.count,
            f"{name}_on_common_sweeps": summary.common[name],
        }
    return values | {f"pooled_correlation_{name}": value for name, value in summary.pooled.items()}


def _flat_row(row: Row) -> dict[str, Any]:
    facts = {name: getattr(row, name) for name in ("sweep", "method", "frames", "frames_used")}
    facts |= {"true_poses": row.truth, "guess": row.is_guess, "trust": row.trust, "error": row.error or ""}
    facts["warnings"] = " | ".join(row.warnings)
    facts |= {name: getattr(row, name) for name in ("seconds_per_frame", "peak_mebibytes")}
    return {**facts, **dict.fromkeys(SHOWN, math.nan), **row.metrics}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> None:
    # pandas writes the same bytes in 1.5 times the time, for 4 lines less and 84 MB more to install.
    names = list(dict.fromkeys([*names, *(name for row in rows for name in row)]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(
            {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows
        )
