"""The two pictures of all methods: errors sweep by sweep, and how the error grows along the sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.pictures import drawing
from DualTrackCore.research.comparison import Comparison
from DualTrackCore.research.comparison.items import read_item
from DualTrackCore.research.comparison.table import Summary
from DualTrackCore.research.report.leaders import ranked, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Places along the path at which curves are drawn, and the ratio of errors from which a logarithmic axis is used.
_PLACES, _LOGARITHMIC = 80, 30.0


def write_errors(comparison: Comparison, path: str | os.PathLike) -> Path:
    """GPE and LPE of every sweep by method, with quartiles, mean and its interval; the best method on top.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    methods = [s for s in ranked(comparison) if s.sweeps]
    colours = styles([s.method for s in ranked(comparison)])
    height = 1.6 + 0.52 * len(methods)
    figure = drawing.new_figure(height, "white")
    room = 2.9 / drawing.WIDTH_INCHES
    width = (1 - room - 0.06) / 2
    for number, (name, title) in enumerate((("gpe_mm", "GPE, mm"), ("lpe_mm", "LPE, mm"))):
        left = room + number * (width + 0.04)
        axes = figure.add_axes((left, 0.8 / height, width, 1 - 1.35 / height))
        values = [_known(comparison, s.method, name) for s in methods]
        for row, (summary, errors) in enumerate(zip(methods, values, strict=True)):
            _draw_strip(axes, row, errors, summary, name, colours[summary.method][0])
        drawing.style_plot(axes, title, "")
        axes.set_title(
            f"{title.split(',')[0]} of each sweep", loc="left", color=drawing.INK, fontsize=15, weight="bold"
        )
        axes.set_ylim(len(methods) - 0.5, -0.5)
        labels = [_short(s.method) for s in methods] if number == 0 else [""] * len(methods)
        axes.set_yticks(range(len(methods)), labels, fontsize=13)
        axes.tick_params(axis="y", length=0)
        _scale(axes, values)
    return drawing.save(figure, path)


def _draw_strip(axes: Axes, row: int, errors: np.ndarray, summary: Summary, name: str, colour: str) -> None:
    if not len(errors):
        return
    quarter, median, three = np.quantile(errors, [0.25, 0.5, 0.75])
    axes.barh(row, three - quarter, 0.5, left=quarter, color=colour, alpha=0.18, lw=0)
    axes.plot([median, median], [row - 0.25, row + 0.25], color=colour, lw=2.5, solid_capstyle="butt")
    # Neighbours in size lie at different heights, the same at every drawing.
    heights = row + 0.19 * np.tile([-1.0, 0.3, -0.35, 1.0, 0.0], len(errors) // 5 + 1)[: len(errors)]
    axes.plot(np.sort(errors), heights, "o", color=colour, ms=4.5, alpha=0.65, mew=0)
    spread = summary.figures[name]
    if np.isfinite(spread.low):
        axes.plot([spread.low, spread.high], [row + 0.36] * 2, color=drawing.INK, lw=1.6)
    axes.plot(spread.mean, row + 0.36, "D", color=drawing.INK, ms=5.5)


def _scale(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """A logarithmic axis where the errors span decades, else one from 0."""
    positive = np.concatenate([v[v > 0] for v in values]) if values else np.zeros(0)
    if len(positive) and np.quantile(positive, 0.95) > _LOGARITHMIC * np.quantile(positive, 0.05):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(positive.min() * 0.8, positive.max() * 1.2)
    else:
        axes.set_xlim(left=0)


def write_growth(comparison: Comparison, path: str | os.PathLike) -> Path:
    """Median over sweeps of the error against the part of the true path that is done, with quartiles of the best.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    methods = [s.method for s in ranked(comparison) if s.sweeps]
    look = styles([s.method for s in ranked(comparison)])
    figure = drawing.new_figure(6.4, "white")
    axes = figure.add_axes((0.055, 0.12, 0.69, 0.80))
    parts = np.linspace(0, 1, _PLACES)
    for number, method in enumerate(methods):
        quarter, median, three = np.quantile(growth(comparison, method, parts), [0.25, 0.5, 0.75], axis=0)
        colour, dashes = look[method]
        axes.plot(100 * parts, median, color=colour, ls=dashes, lw=2.6 if number == 0 else 1.8, label=_short(method))
        if number == 0:
            axes.fill_between(100 * parts, quarter, three, color=colour, alpha=0.15, lw=0)
    length = f", of {_median_length_mm(comparison):.0f} mm in the median" if methods else ""
    drawing.style_plot(axes, f"part of the true path so far, %{length}", "error of a frame, all pixels, mm")
    axes.set_ylim(bottom=0)
    axes.set_title("Median over sweeps", loc="left", color=drawing.INK, fontsize=15, weight="bold")
    axes.legend(frameon=False, fontsize=12, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return drawing.save(figure, path)


def growth(comparison: Comparison, method: str, parts: np.ndarray) -> np.ndarray:
    """[sweeps, parts] error in mm where these parts of the true path, 0 to 1, are done; no rows for failures.

    Between frames the error is interpolated; at the reference it is 0. In a sweep that does not move at all the frames
    stand for the path.
    """
    curves = []
    for row in comparison.of(method).values():
        item = None if row.path is None else read_item(row.path)
        if item is None:
            continue
        known = np.isfinite(item.path_mm) & np.isfinite(item.error_mm)
        lengths = np.concatenate([[0.0], item.path_mm[known]])
        if lengths[-1] <= 0:
            lengths = np.arange(len(lengths), dtype=np.float64)
        errors = np.concatenate([[0.0], item.error_mm[known]])
        curves.append(np.interp(parts, lengths / lengths[-1], errors))
    return np.array(curves).reshape(-1, len(parts))


def _median_length_mm(comparison: Comparison) -> float:
    """Of the true paths of the sweeps."""
    lengths = {row.sweep: row.metrics["path_length_mm"] for row in comparison.rows if row.error is None}
    return float(np.median(list(lengths.values())))


def _known(comparison: Comparison, method: str, name: str) -> np.ndarray:
    values = np.array([row.metrics.get(name, np.nan) for row in comparison.of(method).values()])
    return values[np.isfinite(values)]


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:14]}...{name[-13:]}"
