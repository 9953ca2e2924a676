"""Preview pictures of one run: slices of the volume, and the motion from frame to frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.path_error import TRUST, PathError, path_error
from DualTrackCore.pictures import drawing
from DualTrackCore.reconstruction import seen_text, spacing_text
from DualTrackCore.trajectory import PoseOrigin, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from DualTrackCore.reconstruction import Reconstruction

#: Width of the title of a panel of slices, and the tallest panel, inches.
_TITLE_INCHES, _TALLEST_INCHES = 3.3, 6.2
#: Of a picture of slices: room left of the panels, and the least width, inches.
_LEFT_INCHES, _LEAST_INCHES = 0.56, 12.8
_GRID_AXES = ("grid x", "grid y", "grid z")
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
    left = _LEFT_INCHES / figure.get_figwidth()
    _title_slices(figure, left, reconstruction)
    made = reconstruction.provenance
    path_said = made.get("trajectory", {})
    is_guess, text = path_said.get("guess") is True, f"Poses: {made.get('poses_text', 'of unknown origin')}"
    source = str(made.get("sweep", {}).get("source") or "Slices")
    shown = f"{source if len(source) <= 40 else '…' + source[-39:]}, all at one scale."
    drawing.say_origin(figure, left, 0.92, f"{shown} {text}", is_guess, path_said.get(TRUST, ""))
    return drawing.save(figure, path)


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
    left, gap, usable = _LEFT_INCHES, 0.7, drawing.WIDTH_INCHES - 1.9
    # Inches a mm; a panel never gets narrower than its title.
    scale = min(usable / sum(across), (usable - _TITLE_INCHES) / max(across), _TALLEST_INCHES / max(down))
    widths, heights = [scale * value for value in across], [max(scale * value, 0.1) for value in down]
    figure = drawing.new_figure(sum(heights) + 3.6, drawing.DARK)
    second = left + max(widths[0], _TITLE_INCHES) + gap
    # No wider than its panels, as far as title and legend have room above them.
    figure.set_figwidth(max(_LEAST_INCHES, second + max(widths[1], _TITLE_INCHES) + 0.6))
    size = np.array([figure.get_figwidth(), figure.get_figheight()] * 2)
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


def _title_slices(figure: Figure, left: float, reconstruction: Reconstruction) -> None:
    grid, top = reconstruction.grid, 1 - 0.55 / figure.get_figheight()
    title = f"{' × '.join(map(str, grid.size))} voxels of {spacing_text(grid.spacing_mm).replace('x', '×')}"
    figure.text(left, top, title, color=drawing.LIGHT, fontsize=19, weight="bold", va="center")
    seen, filled = (float(np.mean(part)) for part in (reconstruction.coverage > 0, reconstruction.filled))
    has_tint = seen + filled < 1
    legend = seen_text(seen, filled) + " ■" * has_tint
    tint = [min(1, v * 2.3 / 255) for v in drawing.UNSEEN_RGB] if has_tint else drawing.FAINT
    figure.text(0.97, top, legend, color=tint, fontsize=14, va="center", ha="right", gid="seen")


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
    height = 9.2 if error is None else 12.2
    figure = drawing.new_figure(height, "white")
    layout = figure.add_gridspec(2 if error is None else 3, 3)
    across, unit = np.arange(1, len(trajectory)), "frame"
    if timestamps_s is not None:
        across, unit = np.asarray(timestamps_s)[1:] - timestamps_s[0], "time, s"
    motions, kind = trajectory.parameters, _kind(trajectory)
    true_motions = None if truth is None else truth.parameters
    for component, (name, motion_unit) in enumerate(_MOTIONS):
        axes = figure.add_subplot(layout[component // 3, component % 3])
        if trajectory.sigma is not None and error is not None:
            _draw_band(axes, across, motions[:, component], error.times_95 * trajectory.sigma[:, component])
        if true_motions is not None:
            axes.plot(across, true_motions[:, component], color=drawing.GREY, lw=2.2, label=truth.origin.value)
        axes.plot(
            across,
            motions[:, component],
            color=drawing.BLUE,
            lw=1.0,
            label=kind,
        )
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
    drawing.say_origin_of(trajectory, figure, 0.05, 0.75)
    figure.text(0.05, 0.5 / height, _motion_caption(trajectory, error), color=drawing.FAINT, fontsize=12, gid="caption")
    space = {"top": 1 - 1.25 / height, "bottom": 1.3 / height, "wspace": 0.2, "hspace": 0.3}
    figure.subplots_adjust(left=0.06, right=0.985, **space)
    return drawing.save(figure, path)


def _kind(trajectory: Trajectory) -> str:
    return "estimated" if trajectory.origin is PoseOrigin.ESTIMATED else "given"


def _motion_caption(trajectory: Trajectory, error: PathError | None) -> str:
    """What the curves show, and what the bands rest on."""
    shown = f"the {_kind(trajectory)} motion of each frame, in the coordinates of the frame before it"
    caption = f"Blue: {shown}. Dashed: its mean. "
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
