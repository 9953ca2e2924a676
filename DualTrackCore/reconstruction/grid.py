"""The voxel grid of a volume: place, spacing and memory, how it is chosen for a sweep, and how threads share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.memory import available_memory_bytes, format_bytes
from DualTrackCore.path_error import IMAGE_MIRROR
from DualTrackCore.reconstruction import Fan, Rectangle, finite_numbers, resolved_area, select_pixels
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Peak of the arrays of a reconstruction, bytes a voxel: 8 accumulator + 4 coverage + 1 grey value + 1 filled flag.
BYTES_A_VOXEL = 14
#: Largest departure of the axes from orthonormality: six-digit matrices from files pass.
AXES_TOLERANCE = 1e-5
#: Part of the available memory that a volume may take.
DEFAULT_FRACTION = 0.5
#: Automatic spacing makes no larger volumes than this, whatever the memory: 512 voxels cubed.
AUTOMATIC_VOXELS = 512**3
#: An extent of fewer voxels than this is rounding: the sweep lies in one plane.
_FLAT = 1e-6
#: Columns and rows of the raster of pixels that stands for a frame when the grid is cut into slabs.
_RASTER = 24
#: How far outside the outermost voxel centres rounding may place a pixel that lies on them, voxels.
EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A regular grid of voxels.

    The grid lies in frame0, or in the tracker's reference world where `reference_from_frame0` is given. "mm" in the
    names below means millimetres in that frame; a voxel index is (i, j, k) along the three axes
    and an array of the grid has the shape [nz, ny, nx].

    Attributes:
        origin_mm: [3] float64, centre of voxel (0, 0, 0), mm in the frame of the grid.
        spacing_mm: distance of neighbouring voxel centres along the three axes, mm.
        size: (nx, ny, nz) voxels.
        axes: [3, 3] float64, columns are the directions of the grid axes; orthonormal and right-handed.
        reference_from_frame0: [4, 4] float64 for a grid in the reference world, None for a grid in frame0.
        note: what planning had to change, a sentence for the user, or empty.
    """

    origin_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    axes: np.ndarray | None = None
    reference_from_frame0: np.ndarray | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin_mm", _finite_array(self.origin_mm, (3,), "grid origin"))
        object.__setattr__(self, "spacing_mm", validated_voxel_spacing(self.spacing_mm))
        size = np.asarray(self.size)
        if size.shape != (3,) or not np.issubdtype(size.dtype, np.integer) or (size < 1).any():
            raise InputError(f"The grid size {self.size!r} is not three whole numbers of at least 1.")
        object.__setattr__(self, "size", tuple(size.tolist()))
        axes = _finite_array(np.eye(3) if self.axes is None else self.axes, (3, 3), "matrix of grid axes")
        error = np.abs(axes.T @ axes - np.eye(3)).max()
        if error > AXES_TOLERANCE or np.linalg.det(axes) < 0:
            raise InputError(
                f"The grid axes are not a rotation (they depart by {error:.3g}, the limit is {AXES_TOLERANCE}, "
                "and a mirrored set is refused too)."
            )
        object.__setattr__(self, "axes", axes)
        if self.reference_from_frame0 is not None:
            matrix = _finite_array(self.reference_from_frame0, (4, 4), "reference_from_frame0")
            object.__setattr__(self, "reference_from_frame0", matrix)

    @property
    def frame(self) -> str:
        """Name of the frame of reference that the grid lies in: "frame0" or "reference"."""
        return "frame0" if self.reference_from_frame0 is None else "reference"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx), the shape of an array of this grid."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def bytes_needed(self) -> int:
        """Peak memory of the arrays of a reconstruction, bytes; frames that are being inserted add some megabytes."""
        return self.voxels * BYTES_A_VOXEL

    @property
    def mm_from_voxel(self) -> np.ndarray:
        """[4, 4] float64: voxel index (i, j, k, 1) to mm in the frame of the grid."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def voxel_from_mm(self) -> np.ndarray:
        """[4, 4] float64: mm in the frame of the grid to (fractional) voxel index."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.linalg.inv(self.axes) / np.asarray(self.spacing_mm)[:, None]
        matrix[:3, 3] = -matrix[:3, :3] @ self.origin_mm
        return matrix

    @property
    def frame0_from_voxel(self) -> np.ndarray:
        """[4, 4] float64: voxel index to frame0 mm, whichever frame the grid lies in."""
        if self.reference_from_frame0 is None:
            return self.mm_from_voxel
        return np.linalg.inv(self.reference_from_frame0) @ self.mm_from_voxel

    @property
    def voxel_from_frame0(self) -> np.ndarray:
        """[4, 4] float64: frame0 mm to (fractional) voxel index, whichever frame the grid lies in."""
        if self.reference_from_frame0 is None:
            return self.voxel_from_mm
        return self.voxel_from_mm @ self.reference_from_frame0

    def turned_over(self) -> VoxelGrid:
        """The mirror image of the grid at the image plane of frame0, counted from its other end along the third axis.

        So a mirrored set of axes stays right-handed, and arrays of the grid are read backwards along their first axis.
        """
        mirror, axes = IMAGE_MIRROR, self.axes * [1.0, 1.0, -1.0]
        if self.reference_from_frame0 is not None:
            mirror = self.reference_from_frame0 @ mirror @ np.linalg.inv(self.reference_from_frame0)
        last = self.origin_mm + self.axes[:, 2] * (self.size[2] - 1) * self.spacing_mm[2]
        return replace(self, origin_mm=mirror[:3, :3] @ last + mirror[:3, 3], axes=mirror[:3, :3] @ axes)

    def __repr__(self) -> str:
        return f"VoxelGrid({self.describe(memory=False)})"

    def describe(self, memory: bool = True) -> str:
        """Return one sentence with size, spacing, extent, memory if asked, and what planning changed."""
        size = " x ".join(map(str, self.size))
        spacing = " x ".join(f"{value:.3g}" for value in self.spacing_mm)
        extent = " x ".join(f"{n * value:.3g}" for n, value in zip(self.size, self.spacing_mm, strict=True))
        note = f"; {self.note}" if self.note else ""
        needed = f", about {format_bytes(self.bytes_needed)} of memory" if memory else ""
        return f"{size} voxels of {spacing} mm ({extent} mm) in {self.frame}{needed}{note}" + ("." if memory else "")


def validated_voxel_spacing(spacing_mm: object) -> tuple[float, float, float]:
    """Return a voxel spacing as three floats; one number stands for cubic voxels.

    Raises InputError: not one or three finite numbers above 0.
    """
    try:
        values = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
    except (TypeError, ValueError):
        raise InputError(f"The voxel spacing {spacing_mm!r} is not one or three numbers in mm.") from None
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"The voxel spacing {spacing_mm!r} is out of range; it must be finite and above 0 mm.")
    return float(values[0]), float(values[1]), float(values[2])


def _finite_array(values: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"The {what} is not an array of numbers.") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"The {what} has shape {array.shape}; expected {shape} finite numbers.")
    array.flags.writeable = False
    return array


def usable_frames(sweep: Sweep, trajectory: Trajectory) -> np.ndarray:
    """Return the indices of the frames that have both an image and a pose.

    Raises InputError: no images, unknown spacing, numbers of frames and poses differ, or no usable frame.
    """
    sweep.require_images()
    sweep.require_spacing()
    if len(sweep) != len(trajectory):
        raise InputError(
            f"The sweep has {len(sweep)} frames and the trajectory {len(trajectory)} poses; the numbers must be equal."
        )
    usable = np.flatnonzero(trajectory.valid & sweep.frame_valid)
    if len(usable) == 0:
        raise InputError(
            f"None of the {len(sweep)} frames has both a valid image and a valid pose, so no frame can be placed; "
            "use a sweep with tracking, or estimate the trajectory."
        )
    return usable


def plan_grid(
    sweep: Sweep,
    trajectory: Trajectory,
    *,
    spacing_mm: Literal["auto"] | float | tuple[float, float, float] = "auto",
    axes: Literal["frame0", "principal"] = "frame0",
    frame: Literal["frame0", "reference"] = "frame0",
    region: tuple[object, object] | None = None,
    clip: tuple[int, int, int, int] | None = None,
    fan: Fan | Literal["auto"] | None = None,
    max_bytes: int | None = None,
) -> VoxelGrid:
    """Return the grid that contains every selected pixel of the frames with an image and a pose.

    The extent is that of IGSIO since 2024: the origin is the componentwise minimum of the corner pixels' centres, and
    an axis has round(extent / spacing) + 1 voxels.

    Automatic spacing is the geometric mean of the longer pixel side and the median step between frames, never finer
    than the longer pixel side: a dense sweep keeps its in-plane detail, and a sparse one loses some of it for smaller
    gaps. It is rounded up to 0.01 mm, and coarsened until the volume fits `max_bytes` and 512 cubed voxels; the note
    of the grid says when that happened. A given spacing is never changed.

    Args:
        sweep: frames with known spacing.
        trajectory: one pose a frame; frames whose pose or image is invalid are left out.
        spacing_mm: "auto", or the side of a cubic voxel, or (x, y, z), mm.
        axes: "frame0" leaves the axes parallel to those of `frame`; "principal" turns them to the principal axes of
            the sweep where that makes the box smaller, as it does for oblique sweeps.
        frame: "frame0", or "reference" for a volume in the world of the tracker.
        region: ((x, y, z) minimum, (x, y, z) maximum), mm in `frame`: only this box is reconstructed. With principal
            axes it is the box around the region along those axes.
        clip: (x, y, width, height) in pixels; None is the whole frame.
        fan: the sector of a curvilinear probe, "auto" to find the image area from the frames, or None.
        max_bytes: most memory that the reconstruction may take; None is half of what is available.

    Raises:
        InputError: nothing can be placed, the region misses the sweep, or the volume would be too large; the last
            message names the spacing that fits.
    """
    usable = usable_frames(sweep, trajectory)
    clip, fan = resolved_area(sweep, clip, fan)
    rectangle = select_pixels(sweep.frame_size, clip, fan).rectangle
    limit = int(DEFAULT_FRACTION * available_memory_bytes()) if max_bytes is None else max_bytes
    if not limit >= BYTES_A_VOXEL:
        raise InputError(f"The memory limit of {limit} bytes is below the {BYTES_A_VOXEL} bytes of one voxel.")
    reference_from_frame0 = _reference(trajectory, frame)
    # [frames, 4, 3]: centres of the corner pixels, mm in frame0.
    corners = (trajectory.poses[usable] @ sweep.image_from_pixel @ rectangle.corners.T).swapaxes(1, 2)[..., :3]
    steps_mm = np.linalg.norm(np.diff(corners, axis=0), axis=2).mean(axis=1)
    if reference_from_frame0 is not None:
        corners = corners @ reference_from_frame0[:3, :3].T + reference_from_frame0[:3, 3]
    rotation = _rotation(corners, axes)
    low, high = _restricted(corners.reshape(-1, 3) @ rotation, region, rotation)
    spacing, note = _spacing(spacing_mm, max(sweep.require_spacing()), steps_mm, high - low, limit)
    size = _size(high - low, spacing).astype(int)
    return VoxelGrid(rotation @ low, spacing, size, rotation, reference_from_frame0, note)


def _reference(trajectory: Trajectory, frame: str) -> np.ndarray | None:
    if frame == "frame0":
        return None
    if frame != "reference":
        raise InputError(f"The frame {frame!r} of the grid is unknown; choose 'frame0' or 'reference'.")
    if trajectory.reference_from_frame0 is None:
        raise InputError(
            "The trajectory has no reference world, because no tracker measured it or it came from a .csv; "
            "choose the frame 'frame0'."
        )
    return trajectory.reference_from_frame0


def _rotation(corners_mm: np.ndarray, axes: str) -> np.ndarray:
    if axes == "frame0":
        return np.eye(3)
    if axes != "principal":
        raise InputError(f"The axes {axes!r} of the grid are unknown; choose 'frame0' or 'principal'.")
    points = corners_mm.reshape(-1, 3)
    vectors = np.linalg.eigh(np.cov(points, rowvar=False))[1]
    # Order and signs are free: choose those closest to the identity, so that x, y, z stay close to their axes.
    order = max(permutations(range(3)), key=lambda p: sum(abs(vectors[i, p[i]]) for i in range(3)))
    vectors = vectors[:, order]
    vectors = vectors * np.where(np.diag(vectors) < 0, -1.0, 1.0)
    if np.linalg.det(vectors) < 0:
        vectors[:, np.argmin(np.diag(vectors))] *= -1
    # With equal variances the directions are arbitrary, and the box may even grow.
    smaller = np.prod(np.ptp(points @ vectors, axis=0)) < np.prod(np.ptp(points, axis=0))
    return vectors if smaller else np.eye(3)


def _restricted(points_mm: np.ndarray, region: object, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of the points (along the grid axes), cut to the region (given along the frame's axes)."""
    low, high = points_mm.min(axis=0), points_mm.max(axis=0)
    if region is None:
        return low, high
    no_box = f"The region {region!r} is not a box: give the smallest and the largest x, y, z in mm, smallest first."
    box = finite_numbers(region, (2, 3), no_box)
    if (box[0] > box[1]).any():
        raise InputError(no_box)
    corners = np.array([[x, y, z] for x in box[:, 0] for y in box[:, 1] for z in box[:, 2]]) @ rotation
    cut_low, cut_high = np.maximum(low, corners.min(axis=0)), np.minimum(high, corners.max(axis=0))
    if (cut_low > cut_high).any():
        raise InputError(
            f"The region {_box_text(box[0], box[1])} lies outside the sweep, which covers {_box_text(low, high)} "
            "along the axes of the grid."
        )
    return cut_low, cut_high


def _box_text(low: np.ndarray, high: np.ndarray) -> str:
    return ", ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=True)) + " mm"


def _size(extent_mm: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    # As floats, so that the counts of a far too fine spacing do not overflow before they are refused.
    extent = extent_mm / np.asarray(spacing_mm)
    # With linear interpolation one layer takes only pixels in its plane, so an extent needs two.
    return np.maximum(np.floor(extent + 0.5) + 1, np.where(extent > _FLAT, 2, 1))


def _bytes(extent_mm: np.ndarray, spacing_mm: Sequence[float]) -> float:
    return float(np.prod(_size(extent_mm, spacing_mm))) * BYTES_A_VOXEL


def _spacing(
    wanted: object, pixel_mm: float, steps_mm: np.ndarray, extent_mm: np.ndarray, limit: float
) -> tuple[tuple[float, float, float], str]:
    """(spacing, what had to be changed), from the longer pixel side and the steps from frame to frame."""
    if not isinstance(wanted, str):
        spacing = validated_voxel_spacing(wanted)
        needed = _bytes(extent_mm, spacing)
        if needed <= limit:
            return spacing, ""
        fitting = " x ".join(f"{value:.3g}" for value in _fitting(spacing, extent_mm, limit))
        size = " x ".join(f"{count:.0f}" for count in _size(extent_mm, spacing))
        raise InputError(
            f"A volume of {size} voxels needs {format_bytes(needed)} of memory, and the limit is "
            f"{format_bytes(limit)}; a spacing of {fitting} mm would fit, or restrict the region."
        )
    if wanted != "auto":
        raise InputError(f"The voxel spacing {wanted!r} is neither a number in mm nor 'auto'.")
    step_mm = np.median(steps_mm) if len(steps_mm) else 0.0
    suitable = np.ceil(max(pixel_mm, np.sqrt(pixel_mm * step_mm)) * 100 - 1e-6) / 100
    allowed = min(limit, AUTOMATIC_VOXELS * BYTES_A_VOXEL)
    spacing = _fitting((suitable,) * 3, extent_mm, allowed)
    if spacing[0] == suitable:
        return spacing, ""
    return spacing, (
        f"coarsened from the {suitable:.3g} mm that suit the sweep, "
        f"so that the volume stays below {format_bytes(allowed)}"
    )


def _fitting(spacing_mm: tuple[float, float, float], extent_mm: np.ndarray, limit: float) -> tuple[float, float, float]:
    """The spacing, coarsened by one factor and to three digits until the volume fits."""
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    while (needed := _bytes(extent_mm, spacing)) > limit:
        spacing = spacing * max(1.005, (needed / limit) ** (1 / 3) * 0.999)
        digits = 10.0 ** (np.floor(np.log10(spacing)) - 2)
        spacing = np.ceil(spacing / digits - 1e-9) * digits
    return tuple(spacing.tolist())


def cut_grid(
    voxel_from_pixel: np.ndarray, rectangle: Rectangle, size: tuple[int, int, int], count: int
) -> list[tuple[int, int, int]]:
    """Cut a grid into at most `count` slabs (axis, first voxel, voxel after the last) that share no voxel.

    The axis is the one along which the rows of a frame follow each other fastest, so that whole rows fall into one
    slab; every slab receives about as many pixels. `voxel_from_pixel` [n, 4, 4] places the frames to come, `rectangle`
    holds their pixels that count, and `size` is (nx, ny, nz) of the grid.
    """
    axis = int(np.argmax(np.abs(voxel_from_pixel[:, :3, 1]).mean(axis=0) * (np.asarray(size) >= 2 * count)))
    if count == 1 or size[axis] < 2 * count:
        return [(axis, 0, size[axis])]
    columns = np.linspace(rectangle.left, rectangle.right, _RASTER)
    rows = np.linspace(rectangle.top, rectangle.bottom, _RASTER)
    u, v = (part.ravel() for part in np.meshgrid(columns, rows))
    pixels = np.stack([u, v, np.zeros_like(u), np.ones_like(u)])
    positions = voxel_from_pixel[:, :3] @ pixels
    inside = ((positions >= 0) & (positions <= np.array(size)[:, None] - 1)).all(axis=1)
    along = positions[:, axis][inside]
    if len(along) == 0:
        return [(axis, 0, size[axis])]
    cuts = np.round(np.quantile(along, np.arange(1, count) / count)).astype(int)
    # Two voxels at the end at least: the kernels give the last cell to one slab.
    edges = [0, *sorted({int(cut) for cut in cuts if 0 < cut < size[axis] - 1}), size[axis]]
    return [(axis, first, stop) for first, stop in pairwise(edges)]


def slab_box(slab: tuple[int, int, int], size: tuple[int, int, int], linear: bool) -> np.ndarray:
    """[3, 2] float64: where the pixels of a slab lie along x, y, z; the first is included, the second is not.

    With the shift of the nearest voxel; `linear` takes pixels that reach in from the cell before, too.
    """
    axis, first, stop = slab
    edges = [[-EDGE_TOLERANCE, np.nextafter(n - 1 + EDGE_TOLERANCE, np.inf)] if linear else [0.0, n] for n in size]
    box = np.array(edges, np.float64)
    if first > 0:
        box[axis, 0] = first - 1 if linear else first
    if stop < size[axis]:
        box[axis, 1] = stop
    return box
