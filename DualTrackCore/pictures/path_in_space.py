"""Preview picture of one run: the path of the probe in 3D, with some of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.path_error import path_error
from DualTrackCore.pictures import drawing
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most frames that are drawn as outlines, and most rings of the error that are drawn around the path.
_OUTLINES, _RINGS = 28, 6
#: Room around the box in which the path lies: left, bottom, right, top, and the least width of the picture, inches.
_ROOM_INCHES, _LEAST_INCHES = (1.2, 1.6, 3.2, 1.4), 14.0
#: From axes to their numbers and names, points: what matplotlib adds itself, and how much there is to be.
_ADDED_POINTS, _TICK_POINTS, _NAME_POINTS = (8.0, 21.0), 12.0, 40.0


def write_trajectory(
    trajectory: Trajectory,
    sweep: Sweep,
    path: str | os.PathLike,
    truth: Trajectory | None = None,
) -> Path:
    """Draw the path of the image centre in frame0 and outlines of some frames, coloured from the first to the last.

    Depth points down; the axes have one scale and are right-handed, so a mirrored sweep looks mirrored.

    Args:
        trajectory: poses to draw; invalid ones are left out.
        sweep: gives the size of the outlines; without images or spacing only the path is drawn.
        truth: measured or simulated poses in the same frame0, drawn as a grey line.
    """
    figure = drawing.new_figure(10.5, "white")
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    frames = np.flatnonzero(trajectory.valid)
    colours = _time_colours(len(trajectory))
    outlines = list(_outlines(trajectory, sweep, frames))
    points = [trajectory.centres_mm[frames], *(corners for _, corners in outlines)]
    if truth is not None:
        points.append(truth.centres_mm[truth.valid])
        axes.plot(*_plotted(truth.centres_mm).T, color=drawing.GREY, lw=3.0, zorder=1, label=truth.origin.value)
    for number, (frame, corners) in enumerate(outlines):
        width, alpha = (2.0, 1.0) if number in (0, len(outlines) - 1) else (1.0, 0.55)
        axes.plot(*_plotted(corners).T, color=colours[frame], lw=width, alpha=alpha)
    error = path_error(trajectory)
    # A rule of thumb looks measured as a drawing, and an error as large as the sweep hides it.
    radius = np.empty(0) if error is None or error.rule_percent is not None else error.radius_mm()
    has_rings = 0 < np.nanmax(radius, initial=0.0) < np.ptp(np.concatenate(points), axis=0).max() / 2
    if has_rings:
        _draw_rings(axes, trajectory, radius, colours)
    _draw_path(axes, trajectory.centres_mm, colours)
    _fill_space(axes, _equal_axes(axes, np.concatenate(points)))
    _time_bar(figure, len(trajectory), sweep.duration_s)
    counted = len(frames) if len(frames) == len(trajectory) else f"{len(frames)} of {len(trajectory)}"
    title = f"{counted} frames, path of {trajectory.path_length_mm:.1f} mm"
    if error is not None:
        title += f", {error.text}".replace("+-", "±")
    if truth is not None:
        title += f"; grey: {truth.origin.value}, {truth.path_length_mm:.1f} mm"
    figure.text(0.03, 0.955, title, color=drawing.INK, fontsize=19, weight="bold")
    drawing.say_origin_of(trajectory, figure, 0.03, 0.72)
    if has_rings:
        text = f"Dashed rings: the true image centre lies within them in 95 of 100 sweeps, {error.basis}"
        figure.text(0.03, 1 - 1.0 / 10.5, text, color=drawing.FAINT, fontsize=14, va="center")
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

    Two axes change sign, which is a rotation and mirrors nothing.
    """
    return points_mm[..., [2, 0, 1]] * [1.0, -1.0, -1.0]


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


def _draw_rings(axes: Any, trajectory: Trajectory, radius_mm: np.ndarray, colours: np.ndarray) -> None:
    """Rings of the 95 % error around the path, at right angles to it, at some of the frames."""
    frames = np.flatnonzero(np.isfinite(radius_mm) & (radius_mm > 0))
    turns = np.linspace(0, 2 * np.pi, 49)
    for frame in frames[np.unique(np.linspace(0, len(frames) - 1, min(_RINGS, len(frames))).round().astype(int))]:
        ring = np.array([np.cos(turns), np.sin(turns), 0 * turns]) * radius_mm[frame]
        points = trajectory.poses[frame, :3, :3] @ ring + trajectory.poses[frame, :3, 3:]
        axes.plot(*_plotted(points.T).T, color=colours[frame], lw=1.2, ls=(0, (4, 3)))


def _equal_axes(axes: Any, points_mm: np.ndarray) -> np.ndarray:
    """Show all points, at one scale; returns half the lengths of the box around them [3], mm."""
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
        getattr(axes, f"set_{axis}label")(f"{drawing.FRAME0_AXES[name]}, mm", color=drawing.INK, fontsize=13)
    axes.tick_params(labelsize=11, colors=drawing.INK)
    axes.view_init(elev=22, azim=-58)
    return half


def _fill_space(axes: Any, half_mm: np.ndarray) -> None:
    """Let the box fill the picture, whatever its shape: zoomed and moved by where its corners are seen."""
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    figure, (left, bottom, right, top) = axes.figure, _ROOM_INCHES
    high = figure.get_figheight() - bottom - top
    # A square that reaches beyond the picture, as what leaves it is cut off.
    side, corner, zoom = 20.0, np.zeros(2), 1.0
    ends = np.array(np.meshgrid(*(getattr(axes, f"get_{axis}lim")() for axis in "xyz"))).reshape(3, -1)
    for _ in range(4):  # perspective: a nearer box grows more than it is zoomed
        size = np.array([figure.get_figwidth(), figure.get_figheight()])
        axes.set_position((*(corner / size), *(side / size)))
        axes.set_box_aspect(half_mm, zoom=zoom)
        axes.apply_aspect()
        across, up, _ = proj_transform(*ends, axes.get_proj())
        seen = axes.transData.transform(np.column_stack([across, up])) / figure.dpi
        wide, tall = np.ptp(seen, axis=0)
        grow = min(high / tall, (drawing.WIDTH_INCHES - left - right) / wide)
        figure.set_figwidth(max(_LEAST_INCHES, grow * wide + left + right))
        middle = np.array([(left + figure.get_figwidth() - right) / 2, bottom + high / 2])
        corner, zoom = corner + middle - (seen.min(axis=0) + seen.max(axis=0)) / 2, zoom * grow
    # Matplotlib takes the distances of numbers and names for those of a box that fills its square.
    to_ticks, to_names = np.array([_TICK_POINTS, _NAME_POINTS]) / zoom - _ADDED_POINTS
    axes.tick_params(pad=to_ticks)
    for name in "xyz":
        getattr(axes, f"{name}axis").labelpad = to_names


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
