"""An estimate beside the truth: the same slices of both volumes, both paths, and how the error grows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.path_error import trust_line
from DualTrackCore.pictures import drawing
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from DualTrackCore.reconstruction import Reconstruction, VoxelGrid

#: Height of the title, of the tallest row of slices, of the room between two rows, and of the row of curves, inches.
_TITLE_INCHES, _TALLEST_ROW, _GAP_INCHES, _CURVES_INCHES = 1.35, 5.5, 1.15, 4.0


def write_comparison(
    estimated: Reconstruction,
    true: Reconstruction,
    trajectory: Trajectory,
    truth: Trajectory,
    evaluation: Mapping[str, Any],
    path: str | os.PathLike,
) -> Path:
    """Draw volumes from estimated and from true poses side by side, both paths, and the error over the frames.

    The slices lie at the same places of frame0 and have one scale: one along the sweep, one as seen from the probe,
    each where the true volume has most contrast.

    Args:
        estimated, true: volumes of one sweep whose grids have the axes of frame0.
        trajectory, truth: the poses that they were made with, in one frame0.
        evaluation: `Evaluation.as_dict()` of `trajectory` against `truth`.
    """
    # Corners of the box around both grids, mm in frame0.
    boxes = [_box(volume.grid) for volume in (estimated, true)]
    low, high = np.min(boxes, axis=0)[0], np.max(boxes, axis=0)[1]
    size = high - low
    widest = (drawing.WIDTH_INCHES - 2.2) / 2
    # (axis through which the slice is taken, axis down); the sweep's axis z runs across.
    rows = [(0, 1), (1, 0)]
    heights = [min(widest * size[down] / size[2], _TALLEST_ROW) for _, down in rows]
    total = _TITLE_INCHES + sum(heights) + 2 * _GAP_INCHES + _CURVES_INCHES
    figure = drawing.new_figure(total, "white")
    top = total - _TITLE_INCHES
    for (through, down), height in zip(rows, heights, strict=True):
        at_mm = _place_of_most_contrast(true, through)
        width = height * size[2] / size[down]
        for column, (volume, name) in enumerate(((estimated, "Estimated"), (true, "True"))):
            axes = _placed(figure, 0.9 + column * (widest + 0.7), top - height, width, height)
            _draw_slice(axes, volume, through, down, at_mm, (low, high))
            drawing.set_title(axes, f"{name} poses, {drawing.FRAME0_AXES[through]} = {at_mm:.1f} mm")
        top -= height + _GAP_INCHES
    bottom, height = 1.1, _CURVES_INCHES - 1.1
    _draw_paths(_placed(figure, 0.9, bottom, widest, height), trajectory, truth)
    _draw_errors(_placed(figure, 1.6 + widest, bottom, widest, height), evaluation["per_frame"])
    title = "The same frames, placed by estimated and by true poses"
    figure.text(0.9 / drawing.WIDTH_INCHES, 1 - 0.5 / total, title, color=drawing.INK, fontsize=19, weight="bold")
    text = f"True poses: {truth.origin_text}. Poses: {trajectory.origin_text}"
    drawing.say_origin(figure, 0.9 / drawing.WIDTH_INCHES, 0.82, text, trajectory.is_guess, trust_line(trajectory))
    return drawing.save(figure, path)


def _placed(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    across, up = drawing.WIDTH_INCHES, figure.get_figheight()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _box(grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a grid, mm in frame0."""
    low = grid.origin_mm - np.asarray(grid.spacing_mm) / 2
    return low, low + np.asarray(grid.size) * grid.spacing_mm


def _place_of_most_contrast(reconstruction: Reconstruction, through: int) -> float:
    """Place on an axis of frame0, mm, of the plane with most contrast among those that were seen almost whole."""
    grid, seen = reconstruction.grid, reconstruction.coverage > 0
    others = tuple(axis for axis in range(3) if axis != 2 - through)
    counts = seen.sum(axis=others)
    sums = [np.where(seen, reconstruction.volume.astype(np.float64) ** power, 0).sum(axis=others) for power in (1, 2)]
    mean, square = (total / np.maximum(counts, 1) for total in sums)
    contrast = np.where(counts >= 0.8 * counts.max(), square - mean**2, -1.0)
    return float(grid.origin_mm[through] + int(np.argmax(contrast)) * grid.spacing_mm[through])


def _draw_slice(
    axes: Axes, reconstruction: Reconstruction, through: int, down: int, at_mm: float, box: Sequence[np.ndarray]
) -> None:
    grid, (low, high) = reconstruction.grid, box
    origin, spacing = grid.origin_mm, np.asarray(grid.spacing_mm)
    index = int(np.clip(round((at_mm - origin[through]) / spacing[through]), 0, grid.size[through] - 1))
    has_value = (reconstruction.coverage > 0) | reconstruction.filled
    # Volumes are [z, y, x]: without one of x and y, a plane is [z, down].
    grey, valued = (np.take(array, index, axis=2 - through).T for array in (reconstruction.volume, has_value))
    first, last = origin - spacing / 2, origin + (np.asarray(grid.size) - 0.5) * spacing
    extent = (first[2], last[2], last[down], first[down])
    axes.imshow(drawing.tinted(grey, valued), extent=extent, interpolation="antialiased")
    axes.set(xlim=(low[2], high[2]), ylim=(high[down], low[down]))
    axes.set_facecolor([value / 255 for value in drawing.UNSEEN_RGB])
    drawing.label_axes(axes, f"{drawing.FRAME0_AXES[2]}, mm", f"{drawing.FRAME0_AXES[down]}, mm")


def _draw_paths(axes: Axes, trajectory: Trajectory, truth: Trajectory) -> None:
    """Both paths of the image centre, seen from the probe: one scale for both axes."""
    for poses, colour, width, name in (
        (truth, drawing.GREY, 4.0, "true path"),
        (trajectory, drawing.BLUE, 1.8, "estimated path"),
    ):
        centres = poses.centres_mm[poses.valid]
        axes.plot(centres[:, 2], centres[:, 0], color=colour, lw=width, label=name, solid_capstyle="round")
        axes.plot(*centres[-1:, [2, 0]].T, "o", color=colour, ms=7)
    drawing.style_plot(axes, f"{drawing.FRAME0_AXES[2]}, mm", f"{drawing.FRAME0_AXES[0]}, mm")
    axes.margins(0.06, 0.25)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()
    _legend_above(axes)
    drawing.set_title(axes, "Paths seen from the probe")


def _draw_errors(axes: Axes, errors: Mapping[str, Any]) -> None:
    pixels, centre = (np.array(errors[name], dtype=np.float64) for name in ("global_error_mm", "drift_mm"))
    frames = np.arange(len(pixels))
    axes.plot(frames, pixels, color=drawing.BLUE, lw=1.8, label="mean of all pixels")
    axes.plot(frames, centre, color=drawing.INK, lw=1.2, ls=(0, (5, 3)), label="image centre")
    drawing.style_plot(axes, "frame", "mm")
    axes.set_ylim(bottom=0)
    _legend_above(axes)
    drawing.set_title(axes, "Distance from the truth")


def _legend_above(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=12, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
