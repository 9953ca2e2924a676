"""Preview pictures of one run: slices of the volume, the path of the probe in 3D, the motion from frame to frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.path_error import TRUST, PathError, path_error, trust_line
from DualTrackCore.pictures import drawing
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from DualTrackCore.reconstruction import Reconstruction, VoxelGrid

#: Width of the title of a panel of slices, and the tallest panel, inches.
_TITLE_INCHES, _TALLEST_INCHES = 3.3, 6.2
_GRID_AXES = ("grid x", "grid y", "grid z")
#: Most frames that are drawn as outlines.
_OUTLINES = 28
#: Most rings of the error that are drawn around the path.
_RINGS = 6
_MOTIONS = tuple(
    [(name, "mm a frame") for name in drawing.FRAME0_AXES]
    + [(f"rotation about {axis}", "degrees a frame") for axis in "xyz"]
)


def write_slices(reconstruction: Reconstruction, path: str | os.PathLike) -> Path:
    """Draw three orthogonal slices through the middle of the seen voxels, and the maximum projection along the sweep.

    Voxels without a value, neither seen nor filled in, have a tint. All four have one scale, and its bar is
    exact; thin lines show where the other slices lie.

    Args:
        reconstruction: volume, coverage and filled voxels [nz, ny, nx] and their grid.
    """
    volume, grid = reconstruction.volume, reconstruction.grid
    seen = (reconstruction.coverage > 0) | reconstruction.filled
    in_frame0 = getattr(grid, "reference_from_frame0", None) is None and np.allclose(grid.axes, np.eye(3), atol=1e-3)
    names, extent = drawing.FRAME0_AXES if in_frame0 else _GRID_AXES, np.asarray(grid.size) * grid.spacing_mm
    centre = seen_centre(seen)
    at_mm = (np.asarray(centre) + 0.5) * grid.spacing_mm
    # Panels as (across, down) axes: the frame; along the sweep; seen from the probe; all frames on one another. A
    # projection along depth would show nothing but the bright skin line.
    panels = ((0, 1), (2, 1), (2, 0), (0, 1))
    figure, places = _one_scale(extent)
    for number, (across, down) in enumerate(panels):
        through = 3 - across - down
        axes = figure.add_axes(places[number])
        if number < 3:
            planes = [np.take(array, centre[through], axis=2 - through) for array in (volume, seen)]
            position = grid.axes[:, through] @ grid.origin_mm + centre[through] * grid.spacing_mm[through]
            title, lines = f"slice at {names[through]} = {position:.1f} mm", (at_mm[across], at_mm[down])
        else:
            # Voxels without a value hold 0, so they do not change the maximum.
            planes = [volume.max(axis=2 - through), seen.any(axis=2 - through)]
            title, lines = f"maximum along {names[through]}", None
        if across > down:  # planes of a [nz, ny, nx] array have the higher axis first
            planes = [plane.T for plane in planes]
        _draw_plane(axes, *planes, extent[[across, down]], lines)
        if number == 0:
            _draw_scale_bar(axes, *extent[[across, down]])
        axes.set_title(title, color=drawing.LIGHT, fontsize=14, loc="left", pad=8)
        axes.set_xlabel(f"{names[across]} →", color=drawing.FAINT, fontsize=12)
        axes.set_ylabel(f"← {names[down]}", color=drawing.FAINT, fontsize=12)
    _title_slices(figure, grid, float(seen.mean()), float(reconstruction.filled.mean()))
    made = reconstruction.provenance
    path_said = made.get("trajectory", {})
    is_guess, text = path_said.get("guess") is True, f"Poses: {made.get('poses_text', 'of unknown origin')}"
    source = str(made.get("sweep", {}).get("source") or "Slices")
    shown = f"{source if len(source) <= 40 else '…' + source[-39:]}, all at one scale."
    drawing.say_origin(figure, 0.035, 0.92, f"{shown} {text}", is_guess, path_said.get(TRUST, ""))
    return drawing.save(figure, path)


def _origin(trajectory: Trajectory) -> tuple[str, bool, str]:
    """What :func:`drawing.say_origin` says of poses."""
    return f"Poses: {trajectory.origin_text}", trajectory.is_guess, trust_line(trajectory)


def seen_centre(seen: np.ndarray) -> tuple[int, int, int]:
    """Return the middle (i, j, k) of the seen voxels: the median on each axis; the centre of the grid if none is."""
    centre = []
    for axis, others in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
        profile = np.count_nonzero(seen, axis=others)
        total = profile.sum()
        centre.append(int(np.searchsorted(np.cumsum(profile), (total + 1) // 2)) if total else seen.shape[axis] // 2)
    return tuple(centre)


def _one_scale(extent_mm: np.ndarray) -> tuple[Figure, list[list[float]]]:
    """A figure for four panels at one scale, and the place of each: left, bottom, width, height as parts of the figure.

    The frame is above the projection, the view along the sweep above the one from the probe: rows and columns of panels
    show the same millimetres.

    Args:
        extent_mm: [3] of the volume: x, y, z.
    """
    across, down = (extent_mm[0], extent_mm[2]), (extent_mm[1], max(extent_mm[0], extent_mm[1]))
    left, gap, usable = 0.56, 0.7, drawing.WIDTH_INCHES - 1.9
    # Inches a mm; a panel never gets narrower than its title.
    scale = min(usable / sum(across), (usable - _TITLE_INCHES) / max(across), _TALLEST_INCHES / max(down))
    widths, heights = [scale * value for value in across], [max(scale * value, 0.1) for value in down]
    figure = drawing.new_figure(sum(heights) + 3.4, drawing.DARK)
    size = np.array([figure.get_figwidth(), figure.get_figheight()] * 2)
    second = left + max(widths[0], _TITLE_INCHES) + gap
    places = []
    for column, row, tall in ((0, 0, extent_mm[1]), (1, 0, extent_mm[1]), (1, 1, extent_mm[0]), (0, 1, extent_mm[1])):
        top = size[1] - 1.5 - row * (heights[0] + 1.1)
        place = [(left, second)[column], top - scale * tall, widths[column], scale * tall]
        places.append(list(np.array(place) / size))
    return figure, places


def _draw_plane(
    axes: Axes, grey: np.ndarray, known: np.ndarray, extent_mm: np.ndarray, lines: tuple[float, float] | None
) -> None:
    width, height = float(extent_mm[0]), float(extent_mm[1])
    axes.imshow(drawing.tinted(grey, known), extent=(0, width, height, 0), interpolation="antialiased")
    if lines is not None:
        axes.axvline(lines[0], color=drawing.LIGHT, lw=0.7, alpha=0.35)
        axes.axhline(lines[1], color=drawing.LIGHT, lw=0.7, alpha=0.35)
    axes.set(xticks=[], yticks=[], facecolor=drawing.DARK, anchor="NW")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_scale_bar(axes: Axes, width: float, height: float) -> None:
    from matplotlib.patheffects import withStroke

    bar, margin = drawing.scale_bar_mm(width), 0.03 * max(width, height)
    across, down = (margin, margin + bar), (height - margin, height - margin)
    axes.plot(across, down, color="black", lw=6.5, solid_capstyle="butt", alpha=0.6)
    axes.plot(across, down, color="white", lw=3.5, solid_capstyle="butt", gid="scale bar")
    text = axes.text(margin + bar / 2, height - 1.4 * margin, f"{bar:g} mm", color="white", fontsize=12)
    text.set(ha="center", va="bottom")
    text.set_path_effects([withStroke(linewidth=2.5, foreground=(0, 0, 0, 0.7))])  # a rim: readable on any grey


def _title_slices(figure: Figure, grid: VoxelGrid, seen_part: float, filled_part: float) -> None:
    height = figure.get_figheight()
    size = " × ".join(str(n) for n in grid.size)
    spacing = " × ".join(f"{value:.3g}" for value in grid.spacing_mm)
    filled = f", {filled_part:.1%} filled in" if filled_part else ""
    title = f"{size} voxels of {spacing} mm{filled}"
    top = 1 - 0.55 / height
    figure.text(0.035, top, title, color=drawing.LIGHT, fontsize=19, weight="bold", va="center")
    if seen_part < 1:
        legend = f"■  nothing seen ({1 - seen_part:.0%} of the grid)"
        text = figure.text(0.965, top, legend, color=[min(1, v * 2.3 / 255) for v in drawing.UNSEEN_RGB], fontsize=14)
        text.set(va="center", ha="right")


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
    axes.set_position((0.0, 0.02, 0.86, 0.93))
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
    _equal_axes(axes, np.concatenate(points))
    _time_bar(figure, len(trajectory), sweep.duration_s)
    counted = len(frames) if len(frames) == len(trajectory) else f"{len(frames)} of {len(trajectory)}"
    title = f"{counted} frames, path of {trajectory.path_length_mm:.1f} mm"
    if error is not None:
        title += f", {error.text}".replace("+-", "±")
    if truth is not None:
        title += f"; grey: {truth.origin.value}, {truth.path_length_mm:.1f} mm"
    figure.text(0.03, 0.955, title, color=drawing.INK, fontsize=19, weight="bold")
    drawing.say_origin(figure, 0.03, 0.72, *_origin(trajectory))
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


def write_motion(
    trajectory: Trajectory,
    path: str | os.PathLike,
    truth: Trajectory | None = None,
    timestamps_s: np.ndarray | None = None,
) -> Path:
    """Draw the six components of the motion from each frame to the next, each with its mean as a thin line.

    A band shows where 95 of 100 true motions lie, where the model says how sure it is. Below stands the length of the
    path up to each frame, with its band; that one may be a rule of thumb, and says so.

    Args:
        trajectory: poses of N frames; motions from or to an invalid pose are gaps.
        truth: measured or simulated poses of the same frames, drawn in grey.
        timestamps_s: [N] seconds for the axis across; frame numbers without.
    """
    error = path_error(trajectory)
    height = 8.8 if error is None else 11.8
    figure = drawing.new_figure(height, "white")
    layout = figure.add_gridspec(2 if error is None else 3, 3)
    across, unit = np.arange(1, len(trajectory)), "frame"
    if timestamps_s is not None:
        across, unit = np.asarray(timestamps_s)[1:] - timestamps_s[0], "time, s"
    motions = trajectory.parameters
    true_motions = None if truth is None else truth.parameters
    for component, (name, motion_unit) in enumerate(_MOTIONS):
        axes = figure.add_subplot(layout[component // 3, component % 3])
        if trajectory.sigma is not None and error is not None:
            _draw_band(axes, across, motions[:, component], error.times_95 * trajectory.sigma[:, component])
        if true_motions is not None:
            axes.plot(across, true_motions[:, component], color=drawing.GREY, lw=2.2, label=truth.origin.value)
        axes.plot(across, motions[:, component], color=drawing.BLUE, lw=1.0, label="this trajectory")
        values = motions[np.isfinite(motions[:, component]), component]
        mean = f"mean {values.mean():+.3f}".replace("-", "−") if len(values) else "no valid motion"
        if len(values):
            axes.axhline(values.mean(), color=drawing.INK, lw=0.8, ls=(0, (6, 4)))
        drawing.set_title(axes, name)
        axes.set_title(mean, loc="right", color=drawing.INK, fontsize=12)
        last = component >= 3 and error is None
        drawing.style_plot(axes, unit if last else "", motion_unit if component % 3 == 0 else "")
    if truth is not None or trajectory.sigma is not None:
        # Above the panels, where it covers no curve.
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=13, ncols=3, loc="upper right")
    if error is not None:
        _draw_length(figure.add_subplot(layout[2, :]), trajectory, truth, error, np.append(0.0, across), unit)
    title = f"Motion from frame to frame, {len(trajectory)} frames"
    figure.text(0.05, 1 - 0.43 / height, title, color=drawing.INK, fontsize=19, weight="bold")
    drawing.say_origin(figure, 0.05, 0.6, *_origin(trajectory))
    figure.text(0.05, 0.2 / height, _motion_caption(trajectory, error), color=drawing.FAINT, fontsize=12, gid="caption")
    space = {"top": 1 - 1.1 / height, "bottom": 1.02 / height, "wspace": 0.2, "hspace": 0.3}
    figure.subplots_adjust(left=0.06, right=0.985, **space)
    return drawing.save(figure, path)


def _motion_caption(trajectory: Trajectory, error: PathError | None) -> str:
    """What the curves show, and what the bands rest on."""
    kind = "estimated" if trajectory.origin is PoseOrigin.ESTIMATED else "given"
    caption = f"Blue: the {kind} motion of each frame, in the coordinates of the frame before it. Dashed: its mean. "
    if error is None:
        return caption + "Nothing says how far it may be off."
    bands = "The bands hold" if trajectory.sigma is not None else "The band of the length holds"
    return f"{caption}{bands} 95 of 100 true values, {error.basis}."


def _draw_band(axes: Axes, across: np.ndarray, middle: np.ndarray, half: np.ndarray) -> None:
    axes.fill_between(across, middle - half, middle + half, color=drawing.BLUE, alpha=0.2, lw=0, label="95 % band")


def _draw_length(
    axes: Axes, trajectory: Trajectory, truth: Trajectory | None, error: PathError, across: np.ndarray, unit: str
) -> None:
    """The length of the path up to each frame, and the band of its error."""
    if truth is not None:
        axes.plot(across, truth.lengths_mm, color=drawing.GREY, lw=2.2)
    lengths = trajectory.lengths_mm
    _draw_band(axes, across, lengths, error.times_95 * error.length_mm)
    axes.plot(across, lengths, color=drawing.BLUE, lw=1.4)
    axes.set_ylim(bottom=0)
    drawing.set_title(axes, "length of the path so far")
    text = f"{trajectory.path_length_mm:.1f} mm, {error.text}".replace("+-", "±")
    axes.set_title(text, loc="right", color=drawing.INK, fontsize=14)
    drawing.style_plot(axes, unit, "mm")
