"""Three slices of a volume and its projection along the sweep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.pictures import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from DualTrackCore.reconstruction import Reconstruction, VoxelGrid

_GRID_AXES = ("grid x", "grid y", "grid z")


def write_slices(reconstruction: Reconstruction, path: str | os.PathLike) -> Path:
    """Three orthogonal slices through the middle of what was seen, and the maximum projection along the sweep.

    Voxels that have no value, because no frame crossed them and none was filled in, have a tint. The scale bars are
    exact; the thin lines show where the other slices lie.

    Args:
        reconstruction: volume, coverage and filled voxels [nz, ny, nx] and their grid.
        path: PNG file to write, replaced as a whole.

    Returns:
        The path.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    volume, grid = reconstruction.volume, reconstruction.grid
    seen = (reconstruction.coverage > 0) | reconstruction.filled
    names, extent = _axis_names(grid), np.asarray(grid.size) * grid.spacing_mm
    centre = seen_centre(seen)
    at_mm = (np.asarray(centre) + 0.5) * grid.spacing_mm
    # Panels as (across, down) axes: the frame; along the sweep; seen from the probe; all frames on one another. A
    # projection along depth would show nothing but the bright skin line.
    from_probe = (2, 0) if extent[2] > extent[0] else (0, 2)
    panels = ((0, 1), (2, 1), from_probe, (0, 1))
    rows = _row_heights(extent, panels)
    figure = drawing.new_figure(sum(rows) + 2.6, drawing.DARK)
    layout = figure.add_gridspec(2, 2, height_ratios=rows)
    for number, (across, down) in enumerate(panels):
        through = 3 - across - down
        axes = figure.add_subplot(layout[number // 2, number % 2])
        if number < 3:
            grey, known = (_plane(array, through, centre[through]) for array in (volume, seen))
            position = f"{names[through]} = {_voxel_mm(grid, centre)[through]:.1f} mm"
            title, lines = f"slice at {position}", (at_mm[across], at_mm[down])
        else:
            # Voxels without a value hold 0, so the plain maximum is the maximum over those with one.
            grey, known = volume.max(axis=2 - through), seen.any(axis=2 - through)
            title, lines = f"maximum along {names[through]}", None
        _draw_plane(axes, _oriented(grey, across, down), _oriented(known, across, down), extent[[across, down]], lines)
        _label_plane(axes, title, names[across], names[down])
    _title_slices(figure, grid, float(seen.mean()), float(reconstruction.filled.mean()))
    return drawing.save(figure, path)


def seen_centre(seen: np.ndarray) -> tuple[int, int, int]:
    """Voxel (i, j, k) in the middle of what was seen: on each axis the median; the centre if none."""
    centre = []
    for axis in (2, 1, 0):
        profile = np.count_nonzero(seen, axis=tuple(a for a in range(3) if a != axis))
        total = profile.sum()
        middle = int(np.searchsorted(np.cumsum(profile), (total + 1) // 2)) if total else seen.shape[axis] // 2
        centre.append(middle)
    return centre[0], centre[1], centre[2]


def _axis_names(grid: VoxelGrid) -> tuple[str, str, str]:
    """The anatomy of the axes is known only where they are those of frame0."""
    in_frame0 = getattr(grid, "reference_from_frame0", None) is None and np.allclose(grid.axes, np.eye(3), atol=1e-3)
    return drawing.FRAME0_AXES if in_frame0 else _GRID_AXES


def _voxel_mm(grid: VoxelGrid, voxel: tuple[int, int, int]) -> np.ndarray:
    """Distance of a voxel from the origin of the frame along each grid axis, mm."""
    return np.asarray(grid.axes).T @ np.asarray(grid.origin_mm) + np.asarray(voxel) * grid.spacing_mm


def _plane(array: np.ndarray, through: int, index: int) -> np.ndarray:
    return np.take(array, index, axis=2 - through)


def _oriented(plane: np.ndarray, across: int, down: int) -> np.ndarray:
    """A plane as [down, across]; planes of a [nz, ny, nx] array have the higher axis first."""
    return plane.T if across > down else plane


def _row_heights(extent_mm: np.ndarray, panels: tuple[tuple[int, int], ...]) -> list[float]:
    """Height of the two rows of panels, inches, so that the larger panel of a row fills its width or 6.2 inches."""
    panel_width = drawing.WIDTH_INCHES * 0.46
    ratios = [extent_mm[down] / extent_mm[across] for across, down in panels]
    return [min(max(ratios[i], ratios[i + 1], 0.2) * panel_width, 6.2) for i in (0, 2)]


def _draw_plane(
    axes: Axes, grey: np.ndarray, known: np.ndarray, extent_mm: np.ndarray, lines: tuple[float, float] | None
) -> None:
    width, height = float(extent_mm[0]), float(extent_mm[1])
    axes.imshow(drawing.tinted(grey, known), extent=(0, width, height, 0), interpolation="antialiased")
    if lines is not None:
        axes.axvline(lines[0], color=drawing.LIGHT, lw=0.7, alpha=0.35)
        axes.axhline(lines[1], color=drawing.LIGHT, lw=0.7, alpha=0.35)
    bar = drawing.scale_bar_mm(width)
    margin = 0.03 * max(width, height)
    across, down = (margin, margin + bar), (height - margin, height - margin)
    axes.plot(across, down, color="black", lw=6.5, solid_capstyle="butt", alpha=0.6)
    axes.plot(across, down, color="white", lw=3.5, solid_capstyle="butt", gid="scale bar")
    text = axes.text(margin + bar / 2, height - 1.4 * margin, f"{bar:g} mm", color="white", fontsize=12)
    text.set(ha="center", va="bottom")
    text.set_path_effects([drawing.outline_effect()])


def _label_plane(axes: Axes, title: str, across: str, down: str) -> None:
    axes.set_title(title, color=drawing.LIGHT, fontsize=14, loc="left", pad=8)
    axes.set_xlabel(f"{across} →", color=drawing.FAINT, fontsize=12)
    axes.set_ylabel(f"← {down}", color=drawing.FAINT, fontsize=12)
    axes.set(xticks=[], yticks=[], facecolor=drawing.DARK, anchor="NW")
    for spine in axes.spines.values():
        spine.set_visible(False)


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
    # hspace is in units of the mean row: always 0.9 inch.
    space = {"wspace": 0.08, "hspace": 0.9 / ((height - 2.6) / 2)}
    figure.subplots_adjust(left=0.035, right=0.975, top=1 - 1.2 / height, bottom=0.5 / height, **space)
