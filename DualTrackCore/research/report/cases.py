"""Single sweeps worth a look: the median and the worst of the best methods, with path, error and frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.pictures import drawing
from DualTrackCore.research.comparison import Comparison
from DualTrackCore.research.comparison.items import Item, read_item
from DualTrackCore.research.report.leaders import leaders, ranked, styles
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Frames that are shown of a sweep.
_FRAMES = 6


@dataclass(frozen=True)
class Case:
    """A sweep on which one method is looked at.

    Attributes:
        method, sweep: their names.
        kind: "median" or "worst" by GPE.
        gpe_mm: of the method there.
    """

    method: str
    sweep: str
    kind: str
    gpe_mm: float


def choose_cases(comparison: Comparison) -> list[Case]:
    """Median and worst sweep by GPE of each of the best methods; one case where there is one sweep."""
    cases = []
    for summary in leaders(comparison):
        rows = [row for row in comparison.of(summary.method).values() if row.error is None]
        rows.sort(key=lambda row: row.metrics["gpe_mm"])
        chosen = [("median", rows[(len(rows) - 1) // 2]), ("worst", rows[-1])][0 if len(rows) > 1 else 1 :]
        cases += [Case(summary.method, row.sweep, kind, row.metrics["gpe_mm"]) for kind, row in chosen]
    return cases


def write_case(comparison: Comparison, case: Case, sweep: Sweep, path: str | os.PathLike) -> Path:
    """The paths of truth and estimate from two sides, the error over the frames, and some frames of the sweep.

    The other methods among the best are drawn finely, for comparison.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    figure = drawing.new_figure(8.6, "white")
    look = styles([summary.method for summary in ranked(comparison)])
    names = [case.method, *(s.method for s in leaders(comparison) if s.method != case.method)]
    items = {name: item for name in names if (item := _item(comparison, name, case.sweep)) is not None}
    for column, (across, down, title) in enumerate(
        ((2, 0, "Paths of the image centre, seen from the probe"), (2, 1, "The same from the side"))
    ):
        axes = figure.add_axes((0.045 + column * 0.325, 0.47, 0.27, 0.44))
        _draw_paths(axes, items, sweep.tracked, (across, down), look)
        axes.set_title(title, loc="left", color=drawing.INK, fontsize=13, weight="bold")
    axes = figure.add_axes((0.71, 0.47, 0.275, 0.44))
    _draw_errors(axes, items, look)
    _draw_frames(figure, sweep, items[case.method])
    return drawing.save(figure, path)


def _item(comparison: Comparison, method: str, sweep: str) -> Item | None:
    row = comparison.of(method).get(sweep)
    return None if row is None or row.path is None else read_item(row.path)


def _draw_paths(
    axes: Axes, items: dict[str, Item], truth: Trajectory, sides: tuple[int, int], look: dict[str, tuple]
) -> None:
    across, down = sides
    centres = truth.centres_mm[truth.valid]
    axes.plot(centres[:, across], centres[:, down], color=drawing.GREY, lw=5, label="true", solid_capstyle="round")
    axes.plot(*centres[-1:, [across, down]].T, "o", color=drawing.GREY, ms=9)
    for number, (name, item) in reversed(list(enumerate(items.items()))):
        trajectory = item.trajectory()
        points = trajectory.centres_mm[trajectory.valid]
        colour = look[name][0]
        main = number == 0
        axes.plot(points[:, across], points[:, down], color=colour, lw=2.6 if main else 1.1, alpha=1 if main else 0.7)
        axes.plot(*points[-1:, [across, down]].T, "o", color=colour, ms=7 if main else 4)
    drawing.style_plot(axes, f"{drawing.FRAME0_AXES[across]}, mm", f"{drawing.FRAME0_AXES[down]}, mm")
    axes.margins(0.06, 0.2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()


def _draw_errors(axes: Axes, items: dict[str, Item], look: dict[str, tuple]) -> None:
    for number, (name, item) in reversed(list(enumerate(items.items()))):
        main = number == 0
        axes.plot(item.error_mm, color=look[name][0], lw=2.6 if main else 1.1, alpha=1 if main else 0.7, label=name)
    drawing.style_plot(axes, "frame", "mm")
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=11, loc="lower right")
    axes.set_title("Error, mean of all pixels", loc="left", color=drawing.INK, fontsize=13, weight="bold")


def _draw_frames(figure: Figure, sweep: Sweep, item: Item) -> None:
    """Frames evenly over the sweep, in their true proportions, each with its error."""
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
