"""The report of an evaluation: one HTML file with embedded pictures, which needs no network."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore import __version__
from DualTrackCore.evaluation import COMPONENTS, METRICS
from DualTrackCore.files import replacing
from DualTrackCore.memory import importing
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.comparison import Comparison, table_files
from DualTrackCore.research.comparison.summaries import SIGNIFICANT, TESTED, Pair, heading
from DualTrackCore.research.report import plots

if TYPE_CHECKING:
    from DualTrackCore.research.datasets import Dataset

#: Figures of the first table, after GPE.
_MAIN = ("lpe_mm", "fdr_percent", "max_drift_mm", "tus_rec_score", "pixel_score")


def write_report(
    comparison: Comparison,
    pairs: Sequence[Pair],
    dataset: Dataset,
    folder: Path,
    about: Mapping[str, Any],
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> list[str]:
    """Write report.html with embedded pictures, and the pictures of all methods as separate files.

    Args:
        comparison: result of :func:`~DualTrackCore.research.comparison.run_methods`; its item files must exist.
        pairs: tests between its methods; empty without tests.
        dataset: the one that the methods were run on; the sweeps of the cases are opened again.
        folder: an existing folder.
        about: plain values about the run, such as methods and data set.

    Returns:
        Names of the files: report.html, errors.png, growth.png.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop.
    """
    reporter = Reporter(progress, cancelled)
    template = _template()
    plots.write_errors(comparison, folder / "errors.png")
    plots.write_growth(comparison, folder / "growth.png")
    gpe_mm = [s.figures["gpe_mm"].mean for s in comparison.summaries if s.figures["gpe_mm"].count]
    values = {
        "about": {name.replace("_", " "): value for name, value in about.items()},
        "truths": table_files.truths_text(comparison),
        "guesses": table_files.guesses(comparison),
        "trusts": table_files.trusts(comparison),
        "warned": table_files.warned(comparison),
        "too_few": table_files.too_few(comparison),
        "notice": table_files.NOTICE,
        "version": __version__,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "methods": plots.ranked(comparison),
        "styles": plots.styles(comparison),
        "largest_gpe_mm": max(gpe_mm, default=0.0) or 1.0,
        "main": [name for name in _MAIN if name in comparison.shown],
        "comparison": comparison,
        "errors": _embedded(folder / "errors.png"),
        "growth": _embedded(folder / "growth.png"),
        "tests": [_tests(comparison, pairs, metric) for metric in TESTED] if pairs else [],
        "families": _families(comparison),
        "cases": _cases(comparison, dataset, reporter),
        "components": COMPONENTS,
        "definitions": {heading(name): metric.definition for name, metric in METRICS.items()},
    }
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(template.render(values), encoding="utf-8")
    return ["report.html", "errors.png", "growth.png"]


def _template() -> Any:
    with importing("The package jinja2, which the report needs,", 'install it: pip install "dualtrack[report]"'):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    loader = FileSystemLoader(Path(__file__).resolve().parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"heading": heading, "short": table_files.short_text, "interval": table_files.interval_text}
    environment.filters |= {"sweeps": table_files.sweeps_text, "parameters": _parameters}
    return environment.get_template("page.html.j2")


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _parameters(count: int | None) -> str:
    """ "4.7 M", "12 k"; "-" where unknown."""
    if count is None:
        return "-"
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e3 else str(count)


def _tests(comparison: Comparison, pairs: Sequence[Pair], metric: str) -> dict[str, Any]:
    """Tests between all methods in one metric: rows against columns, the best first."""
    names = [s.method for s in plots.ranked(comparison) if s.sweeps]
    by_names = {(pair.one, pair.other): pair for pair in pairs if pair.metric == metric}
    rows = [{"name": one, "cells": [_test_cell(by_names, one, other) for other in names]} for one in names]
    counts = [pair.count for pair in by_names.values()]
    span = f"{min(counts)}" if min(counts, default=0) == max(counts, default=0) else f"{min(counts)} to {max(counts)}"
    return {"title": heading(metric), "names": names, "rows": rows, "sweeps": span, "pairs": len(by_names)}


def _test_cell(by_names: Mapping[tuple[str, str], Pair], one: str, other: str) -> dict[str, str]:
    pair = by_names.get((one, other)) or by_names.get((other, one))
    if pair is None:
        return {"kind": "none", "text": "", "hint": ""}
    difference = pair.median_difference if pair.one == one else -pair.median_difference
    if not math.isfinite(pair.p_holm):
        return {"kind": "none", "text": "-", "hint": "no sweep in common"}
    hint = f"{one} less {other}: median {difference:+.3g} over {pair.count} sweeps, p = {pair.p:.2g} before correction"
    text = "p < .001" if pair.p_holm < 0.001 else f"p = {pair.p_holm:.3f}".replace("0.", ".", 1)
    if pair.p_holm >= SIGNIFICANT or difference == 0:
        return {"kind": "same", "text": text, "hint": hint}
    return {"kind": "better" if difference < 0 else "worse", "text": text, "hint": hint}


def _families(comparison: Comparison) -> dict[str, Any] | None:
    """Mean GPE by family of paths and method; None if the sweeps' names contain no families."""
    grouped = plots.families(comparison.sweeps)
    if not grouped:
        return None
    names = [s.method for s in plots.ranked(comparison) if s.sweeps]
    rows_of = {name: comparison.of(name) for name in names}
    table = np.full((len(grouped), len(names)), np.nan)
    for i, sweeps in enumerate(grouped.values()):
        for j, name in enumerate(names):
            rows = [rows_of[name][sweep] for sweep in sweeps]
            if values := [row.metrics["gpe_mm"] for row in rows if row.error is None]:
                table[i, j] = np.mean(values)
    finite = table[np.isfinite(table)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    shades = np.nan_to_num(0.6 * (table - low) / (high - low if high > low else math.inf)).round(3)
    rows = []
    for (family, sweeps), values, depths in zip(grouped.items(), table, shades, strict=True):
        texts = [f"{value:.1f}" if math.isfinite(value) else "-" for value in values]
        rows.append({"family": family, "sweeps": len(sweeps), "cells": zip(texts, depths, strict=True)})
    return {"names": names, "rows": rows}


def _cases(comparison: Comparison, dataset: Dataset, reporter: Reporter) -> list[tuple[plots.Case, str]]:
    """The cases, each with its embedded picture."""
    chosen, shown = plots.choose_cases(comparison), []
    with tempfile.TemporaryDirectory(prefix="dualtrack-") as place:
        for number, case in enumerate(chosen):
            reporter.report(Stage.PICTURES, number, len(chosen))
            picture = plots.write_case(comparison, case, dataset.load(case.sweep), Path(place) / "case.png")
            shown.append((case, _embedded(picture)))
    reporter.report(Stage.PICTURES, len(chosen), len(chosen))
    return shown
