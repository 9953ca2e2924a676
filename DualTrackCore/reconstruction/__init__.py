"""Frames and poses to a volume: planning the grid, compounding, filling holes, coverage.

Here are the pixels of a frame that hold ultrasound: the clip rectangle, the fan of a curvilinear probe, their place.
numpy is imported where it computes: settings, and with them `--help`, need the names alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from DualTrackCore import lazy_exports
from DualTrackCore.errors import InputError, named

if TYPE_CHECKING:
    import numpy as np

    from DualTrackCore.reconstruction.builder import (
        Reconstruction as Reconstruction,
    )
    from DualTrackCore.reconstruction.builder import (
        VolumeBuilder as VolumeBuilder,
    )
    from DualTrackCore.reconstruction.builder import (
        reconstruct_volume as reconstruct_volume,
    )
    from DualTrackCore.reconstruction.detect import ImageArea as ImageArea
    from DualTrackCore.reconstruction.detect import detect_fan as detect_fan
    from DualTrackCore.reconstruction.grid import VoxelGrid as VoxelGrid
    from DualTrackCore.reconstruction.grid import plan_grid as plan_grid
    from DualTrackCore.reconstruction.holes import HoleFilling as HoleFilling
    from DualTrackCore.sweep import Sweep

__getattr__, __dir__, _lazy = lazy_exports(
    __name__,
    {
        "builder": ["Reconstruction", "VolumeBuilder", "reconstruct_volume"],
        "detect": ["ImageArea", "detect_fan"],
        "grid": ["VoxelGrid", "plan_grid"],
        "holes": ["HoleFilling"],
    },
)
__all__ = ["Fan", *_lazy]


#: Bytes of a volume that are worked on before somebody else gets a turn.
_SLAB_BYTES = 1 << 21


@dataclass(frozen=True)
class Rectangle:
    """Columns `left` to `right` and rows `top` to `bottom` of a frame, both ends included, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def corners(self) -> np.ndarray:
        """[4, 4] float64: homogeneous pixel coordinates (column, row, 0, 1) of the corner pixels' centres."""
        import numpy as np

        return np.array(
            [[u, v, 0.0, 1.0] for v in (self.top, self.bottom) for u in (self.left, self.right)], dtype=np.float64
        )

    def intersect(self, other: Rectangle) -> Rectangle:
        """Return the part common to both; InputError where there is none."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        common = Rectangle(left, top, min(self.right, other.right), min(self.bottom, other.bottom))
        if common.left > common.right or common.top > common.bottom:
            raise InputError(
                f"The clip rectangle (columns {self.left}-{self.right}, rows {self.top}-{self.bottom}) and the image "
                f"area (columns {other.left}-{other.right}, rows {other.top}-{other.bottom}) do not meet."
            )
        return common


@dataclass(frozen=True)
class Fan:
    """The sector of a curvilinear or phased-array probe, described as in PLUS configurations.

    Attributes:
        origin_pixel: (column, row) where the beams meet; may lie outside the frame.
        angles_deg: smallest and largest angle from straight down, positive to the right, within -90 to 90.
        radii_pixel: distances from the origin at which the image starts and stops, in pixels (columns).
        aspect: height of a pixel over its width; rows are multiplied by it before distances and angles are taken.
            1 in PLUS configurations.
    """

    origin_pixel: tuple[float, float]
    angles_deg: tuple[float, float]
    radii_pixel: tuple[float, float]
    aspect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("origin_pixel", "angles_deg", "radii_pixel"):
            values = getattr(self, name)
            pair = finite_numbers(values, (2,), f"The fan's {name} {values!r} is not two finite numbers.")
            object.__setattr__(self, name, tuple(pair.tolist()))
        low, high = self.angles_deg
        if not -90 < low < high < 90:
            raise InputError(f"The fan angles {low:g} to {high:g} degrees must rise and lie between -90 and 90.")
        start, stop = self.radii_pixel
        if not 0 <= start < stop:
            raise InputError(f"The fan radii {start:g} to {stop:g} pixels must rise from 0 or more.")
        if not 0.1 <= self.aspect <= 10:
            raise InputError(f"The fan's pixel aspect {self.aspect:g} is out of range; it must lie in 0.1 to 10.")

    def mask(self, frame_size: tuple[int, int]) -> np.ndarray:
        """Return [H, W] bool: the pixels whose centres lie in the sector, its border included."""
        import numpy as np

        height, width = frame_size
        right = np.arange(width) - self.origin_pixel[0]
        down = (np.arange(height)[:, None] - self.origin_pixel[1]) * self.aspect
        low, high = np.tan(np.deg2rad(self.angles_deg))
        distance = np.hypot(right, down)
        inside = (down >= 0) & (right >= low * down) & (right <= high * down)
        return inside & (distance >= self.radii_pixel[0]) & (distance <= self.radii_pixel[1])


@dataclass(frozen=True, eq=False)
class PixelSelection:
    """The pixels of a frame that are compounded.

    Attributes:
        rectangle: the smallest rectangle that contains them.
        keep: [rows, columns] bool within the rectangle, or None where all of it is kept.
    """

    rectangle: Rectangle
    keep: np.ndarray | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], frame_size: tuple[int, int]) -> PixelSelection:
        """The pixels that :attr:`VolumeBuilder.settings` tell of, in a frame of (H, W)."""
        box, fan = Rectangle(*settings["pixel_rectangle"]), settings["fan"]
        keep = fan and Fan(**fan).mask(frame_size)[box.top : box.bottom + 1, box.left : box.right + 1]
        return cls(box, keep)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int((self.runs[:, 2] - self.runs[:, 1]).sum())

    @property
    def runs(self) -> np.ndarray:
        """[r, 3] int64: (row, first column, column after the last) of the selected pixels, row by row."""
        import numpy as np

        box = self.rectangle
        if self.keep is None:
            rows = np.arange(box.top, box.bottom + 1)
            return np.stack([rows, np.full_like(rows, box.left), np.full_like(rows, box.right + 1)], axis=1)
        edges = np.diff(np.pad(self.keep.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        rows, starts = np.nonzero(edges == 1)
        stops = np.nonzero(edges == -1)[1]
        return np.stack([rows + box.top, starts + box.left, stops + box.left], axis=1)


class PlacedFrames(NamedTuple):
    """The frames that a volume was made from.

    Attributes:
        numbers: [n] int64, in the sweep, from 0, in the order in which they were inserted.
        frame0_from_pixel: [n, 4, 4] float64, pixel (column, row, 0, 1) to mm.
        runs: [r, 3] int64, (row, first column, column after the last) of the pixels that count, as in the kernels.
    """

    numbers: np.ndarray
    frame0_from_pixel: np.ndarray
    runs: np.ndarray


def clip_rectangle(clip: object, frame_size: tuple[int, int]) -> Rectangle:
    """Return the rectangle of `clip` = (x, y, width, height), pixels, in a frame of (H, W); None is the whole frame.

    As in PLUS, the upper bound x + width is included, and what lies beyond the frame is cut off.

    Raises InputError: not four finite whole numbers, no extent, or nothing of it lies in the frame.
    """
    height, width = frame_size
    if clip is None:
        return Rectangle(0, 0, width - 1, height - 1)
    not_whole = f"The clip rectangle {clip!r} is not four whole numbers: x, y, width, height in pixels."
    values = finite_numbers(clip, (4,), not_whole)
    if (values != values.round()).any():
        raise InputError(not_whole)
    x, y, columns, rows = (int(value) for value in values)
    if columns < 1 or rows < 1:
        raise InputError(f"The clip rectangle {clip!r} has no extent; its width and height must be at least 1 pixel.")
    if x < 0 or y < 0 or x >= width or y >= height:
        raise InputError(
            f"The clip rectangle {clip!r} starts outside the frame of {width} x {height} pixels; "
            f"x must lie in 0 to {width - 1} and y in 0 to {height - 1}."
        )
    return Rectangle(x, y, min(width - 1, x + columns), min(height - 1, y + rows))


def select_pixels(frame_size: tuple[int, int], clip: object = None, fan: Fan | None = None) -> PixelSelection:
    """Return the pixels inside both the clip rectangle and the fan.

    Raises InputError: the clip rectangle is unusable, or no pixel is left.
    """
    rectangle = clip_rectangle(clip, frame_size)
    if fan is None:
        return PixelSelection(rectangle)
    mask = fan.mask(frame_size)
    mask[: rectangle.top] = mask[rectangle.bottom + 1 :] = False
    mask[:, : rectangle.left] = mask[:, rectangle.right + 1 :] = False
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    if len(rows) == 0:
        raise InputError(
            f"No pixel of the {frame_size[1]} x {frame_size[0]} frame lies in both the clip rectangle and {fan}."
        )
    box = Rectangle(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    keep = mask[box.top : box.bottom + 1, box.left : box.right + 1]
    return PixelSelection(box, None if keep.all() else keep)


def no_fan_text(fan: object, settings: Mapping[str, Any]) -> str:
    """What to say of a volume whose fan was to be found, with its :attr:`VolumeBuilder.settings`; else empty."""
    if fan != "auto" or settings["fan"] is not None:
        return ""
    left, top, right, bottom = settings["pixel_rectangle"]
    return (
        f"No fan was found in the pictures, so the volume takes columns {left} to {right} and rows {top} to {bottom}; "
        f"if they show a fan, give its origin, angles and radii ({named('fan')})."
    )


def resolved_area(sweep: Sweep, clip: object, fan: object) -> tuple[tuple[int, int, int, int] | None, Fan | None]:
    """Return the clip rectangle and the fan to use, where `fan` may be "auto".

    Raises InputError: `fan` is something else, or `clip` and the detected area do not meet.
    """
    if fan is None or isinstance(fan, Fan):
        return clip, fan
    if not isinstance(fan, str) or fan != "auto":
        raise InputError(f"The fan {fan!r} is neither a Fan, 'auto' nor None.")
    from DualTrackCore.reconstruction.detect import detect_fan

    area = detect_fan(sweep)
    if clip is None:
        return area.clip, area.fan
    box = clip_rectangle(clip, sweep.frame_size).intersect(clip_rectangle(area.clip, sweep.frame_size))
    return (box.left, box.top, box.right - box.left, box.bottom - box.top), area.fan


def slabs(array: np.ndarray) -> list[slice]:
    """Parts of the first axis of a volume, each small enough to be worked on in a few milliseconds."""
    step = max(1, _SLAB_BYTES // array[:1].nbytes)
    return [slice(start, start + step) for start in range(0, len(array), step)]


def seen_text(covered: float, filled: float) -> str:
    """How much of a volume shows something, for people, the same wherever it is said; parts of its voxels, 0 to 1."""
    seen, filled_in = (round(100 * part) for part in (covered, filled))
    return f"{seen} % of it seen, {filled_in} % filled in, {max(0, 100 - seen - filled_in)} % neither"


def spacing_text(spacing_mm: Sequence[float]) -> str:
    """Size of a voxel for people: one number where it is a cube."""
    sides = [f"{side:.3g}" for side in spacing_mm]
    return f"{' x '.join(sides if len(set(sides)) > 1 else sides[:1])} mm"


def finite_numbers(values: object, shape: tuple[int, ...], complaint: str) -> np.ndarray:
    """Return the values as float64 of this shape; InputError with the complaint where they are not finite numbers."""
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(complaint)
    return array
