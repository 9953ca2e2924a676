"""The path of the probe in 3D."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.pictures import drawing
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most frames that are drawn as outlines.
_OUTLINES = 28


def write_trajectory(
    trajectory: Trajectory, sweep: Sweep, path: str | os.PathLike, truth: Trajectory | None = None
) -> Path:
    """The path of the image centre in frame0, with outlines of some frames, coloured from the first to the last frame.

    Depth points down; the axes have one scale and are right-handed, so a mirrored sweep looks mirrored.

    Args:
        trajectory: poses to draw; invalid ones are left out.
        sweep: gives the size of the outlines; without images or spacing only the path is drawn.
        path: PNG file to write, replaced as a whole.
        truth: tracked poses in the same frame0, drawn as a grey line.

    Returns:
        The path.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    figure = drawing.new_figure(10.5, "white")
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    axes.set_position((0.0, 0.02, 0.86, 0.93))
    frames = np.flatnonzero(trajectory.valid)
    colours = _time_colours(len(trajectory))
    outlines = list(_outlines(trajectory, sweep, frames))
    points = [trajectory.centres_mm[frames], *(corners for _, corners in outlines)]
    if truth is not None:
        points.append(truth.centres_mm[truth.valid])
        axes.plot(*_plotted(truth.centres_mm).T, color=drawing.GREY, lw=3.0, zorder=1, label="tracked")
    _draw_outlines(axes, outlines, colours)
    _draw_path(axes, trajectory.centres_mm, colours)
    _equal_axes(axes, np.concatenate(points))
    _time_bar(figure, len(trajectory), sweep.duration_s)
    counted = len(frames) if len(frames) == len(trajectory) else f"{len(frames)} of {len(trajectory)}"
    title = f"{counted} frames, path of {trajectory.path_length_mm:.1f} mm"
    if truth is not None:
        title += f"; grey: tracked, {truth.path_length_mm:.1f} mm"
    figure.text(0.03, 0.955, title, color=drawing.INK, fontsize=19, weight="bold")
    return drawing.save(figure, path)


def _time_colours(count: int) -> np.ndarray:
    """[count, 4] RGBA from the first frame to the last; the pale end of the map is left out on white."""
    from matplotlib import colormaps

    return colormaps["plasma"](np.linspace(0.0, 0.87, count))


def _outlines(trajectory: Trajectory, sweep: Sweep, frames: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(frame, closed outline [5, 3] mm in frame0) of evenly spaced frames, the first and the last among them."""
    if not sweep.has_images or sweep.spacing_mm is None or len(frames) == 0:
        return
    height, width = sweep.frame_size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1], [0, 0]])
    image = sweep.image_from_pixel @ np.column_stack([corners, np.zeros(5), np.ones(5)]).T
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(_OUTLINES, len(frames))).round().astype(int))
    for frame in frames[chosen]:
        yield int(frame), (trajectory.poses[frame] @ image)[:3].T


def _plotted(points_mm: np.ndarray) -> np.ndarray:
    """frame0 points [..., 3] as the (x, y, z) of the plot: along the sweep, across it, and up.

    Two axes change their sign, which is a rotation: nothing is mirrored.
    """
    return points_mm[..., [2, 0, 1]] * [1.0, -1.0, -1.0]


def _draw_outlines(axes: Any, outlines: list[tuple[int, np.ndarray]], colours: np.ndarray) -> None:
    for number, (frame, corners) in enumerate(outlines):
        is_end = number in (0, len(outlines) - 1)
        axes.plot(*_plotted(corners).T, color=colours[frame], lw=2.0 if is_end else 1.0, alpha=1.0 if is_end else 0.55)


def _draw_path(axes: Any, centres_mm: np.ndarray, colours: np.ndarray) -> None:
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    points = _plotted(centres_mm)
    steps = np.stack([points[:-1], points[1:]], axis=1)
    whole = np.isfinite(steps).all(axis=(1, 2))
    axes.add_collection3d(
        Line3DCollection(steps[whole], colors=colours[:-1][whole], linewidths=3.5, zorder=3), autolim=False
    )
    first = points[np.isfinite(points).all(axis=1)][:1]
    axes.scatter(*first.T, s=70, color=colours[0], edgecolor="white", zorder=4, depthshade=False)


def _equal_axes(axes: Any, points_mm: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    points = _plotted(points_mm) if len(points_mm) else np.zeros((1, 3))
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.maximum(high - low, 0.15 * (high - low).max() + 1e-3) * 0.53
    middle = (low + high) / 2
    for axis, centre, reach, sign, name in zip("xyz", middle, half, (1, -1, -1), (2, 0, 1), strict=True):
        getattr(axes, f"set_{axis}lim")(centre - reach, centre + reach)
        ticks = getattr(axes, f"{axis}axis")
        ticks.set_major_locator(MaxNLocator(max(2, int(6 * reach / half.max()))))
        ticks.set_major_formatter(FuncFormatter(lambda value, _, sign=sign: f"{sign * value + 0.0:g}"))
        ticks.set_pane_color((0.965, 0.968, 0.975))
        getattr(axes, f"set_{axis}label")(
            f"{drawing.FRAME0_AXES[name]}, mm", color=drawing.INK, fontsize=13, labelpad=12
        )
    axes.tick_params(labelsize=11, colors=drawing.INK)
    axes.set_box_aspect(half, zoom=0.95)
    axes.view_init(elev=22, azim=-58)


def _time_bar(figure: Figure, count: int, duration_s: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_axes((0.9, 0.2, 0.018, 0.6))
    axes.imshow(_time_colours(256)[:, None, :], aspect="auto", extent=(0, 1, count - 1, 0))
    axes.set(xticks=[])
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=11, colors=drawing.INK)
    label = "frame" if duration_s is None else f"frame ({duration_s:.1f} s)"
    axes.set_title(label, fontsize=13, color=drawing.INK, pad=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
