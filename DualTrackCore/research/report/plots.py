"""Order and colours of the methods, and the pictures of the report: errors, their growth, and single sweeps."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.pictures import drawing
from DualTrackCore.research.comparison import Comparison
from DualTrackCore.research.comparison.result_files import Item
from DualTrackCore.research.comparison.summaries import Spread, Summary
from DualTrackCore.research.comparison.table_files import name_lines
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that differ for all kinds of colour vision (Okabe and Ito 2008), and dashes for more methods.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#20242c")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
#: Most methods whose cases are shown.
_SHOWN = 3


def ranked(comparison: Comparison) -> list[Summary]:
    """Methods by mean GPE, the smallest first; those without figures last."""
    return sorted(comparison.summaries, key=lambda s: (math.isnan(s.figures["gpe_mm"].mean), s.figures["gpe_mm"].mean))


def styles(comparison: Comparison) -> dict[str, tuple[str, object]]:
    """Colour and dashes of each method, the same in every picture."""
    looks = [(colour, dashes) for dashes in _DASHES for colour in _COLOURS]
    return {summary.method: looks[i % len(looks)] for i, summary in enumerate(ranked(comparison))}


def leaders(comparison: Comparison) -> list[Summary]:
    """The best methods that use images only; without any, the best of all."""
    good = [s for s in ranked(comparison) if s.sweeps]
    looking = [s for s in good if s.uses == "images"]
    return (looking or good)[:_SHOWN]


def family_of(sweep: str) -> str | None:
    """The family of paths in the name of a sweep, as in TUS-REC: Par_L_DtP for "050/RH_Par_L_DtP"; None without."""
    words = re.sub(r"[^a-z0-9]+", "_", sweep.lower())
    matches = [family for family in FAMILIES if re.search(rf"(^|_){family.lower()}(_|$)", words)]
    return max(matches, key=len, default=None)


def families(sweeps: Sequence[str]) -> dict[str, list[str]]:
    """Sweeps by family, in the order of the families; empty if the names contain fewer than two families."""
    grouped: dict[str, list[str]] = {}
    for name in sweeps:
        if (family := family_of(name)) is not None:
            grouped.setdefault(family, []).append(name)
    return {family: grouped[family] for family in FAMILIES if family in grouped} if len(grouped) > 1 else {}


#: Number of points of a curve along the path, and the ratio of errors from which an axis is logarithmic.
_PLACES, _LOGARITHMIC = 80, 30.0


def write_errors(comparison: Comparison, path: str | os.PathLike) -> Path:
    """Draw GPE and LPE of every sweep by method, with quartiles, mean and its interval; the best method on top.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    methods = [s for s in ranked(comparison) if s.sweeps]
    look = styles(comparison)
    labels = [_label(s, 24) for s in methods]
    lines = max((label.count("\n") + 1 for label in labels), default=1)
    height = 1.6 + max(0.52, 0.25 * lines) * len(methods)
    figure = drawing.new_figure(height, "white")
    room = 2.9 / drawing.WIDTH_INCHES
    width = (1 - room - 0.06) / 2
    for number, (name, title) in enumerate((("gpe_mm", "GPE"), ("lpe_mm", "LPE"))):
        left = room + number * (width + 0.04)
        axes = figure.add_axes((left, 0.8 / height, width, 1 - 1.35 / height))
        values = []
        for row, summary in enumerate(methods):
            errors = np.array([of_sweep.figure(name) for of_sweep in comparison.of(summary.method).values()])
            values.append(errors[np.isfinite(errors)])
            _draw_strip(axes, row, values[-1], summary.figures[name], look[summary.method][0])
        drawing.style_plot(axes, f"{title}, mm", "")
        axes.set_title(f"{title} of each sweep", loc="left", color=drawing.INK, fontsize=15, weight="bold")
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_yticks(range(len(methods)), labels if number == 0 else [""] * len(methods), fontsize=13)
        axes.tick_params(axis="y", length=0)
        _scale(axes, values)
    return drawing.save(figure, path)


def _draw_strip(axes: Axes, row: int, errors: np.ndarray, spread: Spread, colour: str) -> None:
    if not len(errors):
        return
    quarter, median, three = np.quantile(errors, [0.25, 0.5, 0.75])
    axes.barh(row, three - quarter, 0.5, left=quarter, color=colour, alpha=0.18, lw=0)
    axes.plot([median, median], [row - 0.25, row + 0.25], color=colour, lw=2.5, solid_capstyle="butt")
    # Errors of similar size get different heights, the same in every drawing.
    heights = row + 0.19 * np.tile([-1.0, 0.3, -0.35, 1.0, 0.0], len(errors) // 5 + 1)[: len(errors)]
    axes.plot(np.sort(errors), heights, "o", color=colour, ms=4.5, alpha=0.65, mew=0)
    if np.isfinite(spread.low):
        axes.plot([spread.low, spread.high], [row + 0.36] * 2, color=drawing.INK, lw=1.6)
    axes.plot(spread.mean, row + 0.36, "D", color=drawing.INK, ms=5.5)


def _scale(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """Set a logarithmic axis if the errors span decades, else one from 0."""
    positive = np.concatenate([v[v > 0] for v in values]) if values else np.zeros(0)
    if len(positive) and np.quantile(positive, 0.95) > _LOGARITHMIC * np.quantile(positive, 0.05):
        axes.set_xscale("log")
        axes.set_xlabel(f"{axes.get_xlabel()} (logarithmic)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(positive.min() * 0.8, positive.max() * 1.2)
    else:
        axes.set_xlim(left=0)


def write_growth(comparison: Comparison, path: str | os.PathLike) -> Path:
    """Draw the median error over sweeps against the part of the true path, with quartiles of the best method.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    methods = [s for s in ranked(comparison) if s.sweeps]
    look = styles(comparison)
    labels = [_label(s, 32) for s in methods]
    height = max(6.4, 1.2 + 0.27 * sum(label.count("\n") + 1 for label in labels))
    figure = drawing.new_figure(height, "white")
    axes = figure.add_axes((0.055, 0.77 / height, 0.69, 1 - 1.28 / height))
    parts = np.linspace(0, 1, _PLACES)
    for number, method in enumerate(methods):
        quarter, median, three = np.quantile(growth(comparison, method.method, parts), [0.25, 0.5, 0.75], axis=0)
        colour, dashes = look[method.method]
        axes.plot(100 * parts, median, color=colour, ls=dashes, lw=2.6 if number == 0 else 1.8, label=labels[number])
        if number == 0:
            axes.fill_between(100 * parts, quarter, three, color=colour, alpha=0.15, lw=0)
    lengths = {row.sweep: row.metrics["path_length_mm"] for row in comparison.rows if row.error is None}
    length = f", of {np.median(list(lengths.values())):.0f} mm in the median" if methods else ""
    drawing.style_plot(axes, f"part of the true path so far, %{length}", "error of a frame, all pixels, mm")
    axes.set_ylim(bottom=0)
    axes.set_title("Median over sweeps", loc="left", color=drawing.INK, fontsize=15, weight="bold")
    axes.legend(frameon=False, fontsize=12, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return drawing.save(figure, path)


def growth(comparison: Comparison, method: str, parts: np.ndarray) -> np.ndarray:
    """[sweeps, parts] error in mm after these parts of the true path, 0 to 1; no rows for failures.

    The error is interpolated between frames and 0 at the reference. In a sweep without motion, frame numbers replace
    the path.
    """
    curves = []
    for row in comparison.of(method).values():
        if (item := row.item()) is None:
            continue
        defined = np.isfinite(item.path_mm) & np.isfinite(item.error_mm)
        lengths = np.concatenate([[0.0], item.path_mm[defined]])
        if lengths[-1] <= 0:
            lengths = np.arange(len(lengths), dtype=np.float64)
        errors = np.concatenate([[0.0], item.error_mm[defined]])
        curves.append(np.interp(parts, lengths / lengths[-1], errors))
    return np.array(curves).reshape(-1, len(parts))


def _label(summary: Summary, width: int) -> str:
    """Name of a method in lines of so many characters, and below it the worst trust level of its estimates."""
    return "\n".join([*name_lines(summary.method, width), *([summary.worst_trust] if summary.trust else [])])


#: Frames that are shown of a sweep.
_FRAMES = 6


@dataclass(frozen=True)
class Case:
    """A sweep that is shown for one method.

    Attributes:
        method, sweep: their names.
        kind: "median" or "worst" by GPE.
        gpe_mm: of the method on this sweep.
        trust: line on what its estimate is good for, or empty.
    """

    method: str
    sweep: str
    kind: str
    gpe_mm: float
    trust: str = ""


def choose_cases(comparison: Comparison) -> list[Case]:
    """Median and worst sweep by GPE of each of the best methods; one case if there is one sweep."""
    cases = []
    for summary in leaders(comparison):
        rows = [row for row in comparison.of(summary.method).values() if row.error is None]
        rows.sort(key=lambda row: row.metrics["gpe_mm"])
        chosen = [("median", rows[(len(rows) - 1) // 2]), ("worst", rows[-1])][0 if len(rows) > 1 else 1 :]
        cases += [Case(summary.method, row.sweep, kind, row.metrics["gpe_mm"], row.trust) for kind, row in chosen]
    return cases


def write_case(comparison: Comparison, case: Case, sweep: Sweep, path: str | os.PathLike) -> Path:
    """Draw true and estimated paths from two sides, the error over the frames, and some frames of the sweep.

    The other leading methods are drawn with thin lines, for comparison.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    figure = drawing.new_figure(8.6, "white")
    names = dict.fromkeys([case.method, *(summary.method for summary in leaders(comparison))])
    items = {name: item for name in names if (item := comparison.of(name)[case.sweep].item()) is not None}
    look = {}
    for name, (colour, _) in styles(comparison).items():
        main = name == case.method
        look[name] = {"color": colour, "lw": 2.6 if main else 1.1, "alpha": 1 if main else 0.7}
    for down, title in enumerate(("Paths of the image centre, seen from the probe", "The same from the side")):
        axes = figure.add_axes((0.045 + down * 0.325, 0.47, 0.27, 0.44))
        _draw_paths(axes, items, sweep.tracked, down, look)
        axes.set_title(title, loc="left", color=drawing.INK, fontsize=13, weight="bold")
    axes = figure.add_axes((0.71, 0.47, 0.275, 0.44))
    _draw_errors(axes, items, look)
    _draw_frames(figure, sweep, items[case.method])
    drawing.stamp_trust(figure, 0.2, case.trust)
    return drawing.save(figure, path)


def _draw_paths(
    axes: Axes, items: dict[str, Item], truth: Trajectory, down: int, look: dict[str, dict[str, Any]]
) -> None:
    """Draw paths: z of frame0 (elevational) to the right, its axis `down` (0 x, 1 y) downwards."""
    across = 2
    centres = truth.centres_mm[truth.valid]
    axes.plot(centres[:, across], centres[:, down], color=drawing.GREY, lw=5, label="true", solid_capstyle="round")
    axes.plot(*centres[-1:, [across, down]].T, "o", color=drawing.GREY, ms=9)
    for name, item in reversed(items.items()):
        trajectory = item.trajectory()
        points = trajectory.centres_mm[trajectory.valid]
        axes.plot(points[:, across], points[:, down], **look[name])
        axes.plot(*points[-1:, [across, down]].T, "o", color=look[name]["color"], ms=7 if look[name]["lw"] > 2 else 4)
    drawing.style_plot(axes, f"{drawing.FRAME0_AXES[across]}, mm", f"{drawing.FRAME0_AXES[down]}, mm")
    axes.margins(0.06, 0.2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()


def _draw_errors(axes: Axes, items: dict[str, Item], look: dict[str, dict[str, Any]]) -> None:
    for name, item in reversed(items.items()):
        axes.plot(item.error_mm, label="\n".join(name_lines(name, 32)), **look[name])
    drawing.style_plot(axes, "frame", "mm")
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=11, loc="lower right")
    axes.set_title("Error, mean of all pixels", loc="left", color=drawing.INK, fontsize=13, weight="bold")


def _draw_frames(figure: Figure, sweep: Sweep, item: Item) -> None:
    """Draw frames, evenly over the sweep, with their true aspect ratio and error."""
    height, width = sweep.frame_size
    across, down = sweep.require_spacing()
    chosen = np.unique(np.linspace(0, len(sweep) - 1, min(_FRAMES, len(sweep))).round().astype(int))
    room = 0.97 / _FRAMES
    for column, frame in enumerate(chosen):
        axes = figure.add_axes((0.02 + column * room, 0.02, room - 0.012, 0.32))
        axes.imshow(sweep.window(frame, frame + 1)[0], cmap="gray", vmin=0, vmax=255, aspect=down / across)
        error = item.error_mm[frame]
        text = f"frame {frame}" + (f", {error:.1f} mm off" if np.isfinite(error) else "")
        axes.set_title(text, fontsize=12, color=drawing.INK, loc="left")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
