"""A volume that grows with the frames that come in."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.reconstruction.mask import Fan, PixelSelection, select_pixels

INTERPOLATIONS = ("nearest", "linear")
COMPOUNDINGS = ("mean", "maximum", "latest")


class Compounding(Protocol):
    """What the voxels have received so far."""

    def insert(self, frames: np.ndarray, voxel_from_pixel: np.ndarray, threads: int) -> None:
        """Put frames [n, H, W] uint8, placed by [n, 4, 4] float64, in, on `threads` threads."""

    def finish(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """(grey values [voxels] uint8, coverage [voxels] float32) so far; what comes later may change them."""


class VolumeBuilder:
    """Compounds frames as they arrive, and shows the volume at any time.

    However the frames are divided among calls of :meth:`add`, the volume is, to the last bit, that of
    :func:`~DualTrackCore.reconstruction.reconstruct_volume` on the same grid (which uses this class). Not for several
    threads at once.

    Args:
        grid: where the voxels lie; it cannot change later, and pixels outside are left out.
        frame_size: (H, W) of every frame.
        image_from_pixel: [4, 4] float64, as :attr:`Sweep.image_from_pixel`.
        interpolation, compounding, clip, reject_below: as in `reconstruct_volume`.
        fan: the sector of a curvilinear probe, or None.

    Raises:
        InputError: an option is unknown or out of range, or no pixel is selected.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        frame_size: tuple[int, int],
        image_from_pixel: np.ndarray,
        *,
        interpolation: Literal["linear", "nearest"] = "linear",
        compounding: Literal["mean", "maximum", "latest"] = "mean",
        clip: tuple[int, int, int, int] | None = None,
        fan: Fan | None = None,
        reject_below: int = 0,
    ) -> None:
        _require_choice("interpolation", interpolation, INTERPOLATIONS)
        _require_choice("compounding", compounding, COMPOUNDINGS)
        threshold = _validated_threshold(reject_below)
        self.grid = grid
        self.frames_used = 0
        self._frame_size, self._image_from_pixel = tuple(frame_size), image_from_pixel
        self._selection = select_pixels(frame_size, clip, fan)
        self._compounding = compounding_for(
            grid.shape, self._selection, interpolation == "linear", compounding, threshold
        )
        self._options = {"interpolation": interpolation, "compounding": compounding, "reject_below": threshold}

    @property
    def settings(self) -> dict[str, Any]:
        """Options and selected pixels as plain values, for reports."""
        box = self._selection.rectangle
        return {
            **self._options,
            "pixel_rectangle": [box.left, box.top, box.right, box.bottom],
            "pixels_a_frame": self._selection.pixels,
        }

    def add(self, frames: np.ndarray, poses: np.ndarray) -> None:
        """Insert frames; returns when they are in.

        Args:
            frames: [n, H, W] uint8, or one frame [H, W].
            poses: [n, 4, 4] float64, frame0_from_image, or one [4, 4]; all finite.

        Raises:
            InputError: the shapes or types do not fit, or a pose is not finite.
        """
        import torch

        frames, poses = np.asarray(frames), np.asarray(poses, dtype=np.float64)
        if frames.ndim == 2 and poses.ndim == 2:
            frames, poses = frames[None], poses[None]
        if frames.shape[1:] != self._frame_size or frames.ndim != 3 or frames.dtype != np.uint8:
            height, width = self._frame_size
            raise InputError(f"Frames are {frames.dtype} {frames.shape}; expected uint8 [n, {height}, {width}].")
        if poses.shape != (len(frames), 4, 4) or not np.isfinite(poses).all():
            raise InputError(f"Poses have shape {poses.shape}; expected ({len(frames)}, 4, 4) finite numbers.")
        if len(frames):
            voxel_from_pixel = self.grid.voxel_from_frame0 @ (poses @ self._image_from_pixel)
            self._compounding.insert(frames, voxel_from_pixel, torch.get_num_threads())
            self.frames_used += len(frames)

    def snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """(grey values uint8, coverage float32), both [nz, ny, nx], of the frames so far; new arrays."""
        volume, coverage = self.finish()
        if self._options["compounding"] == "mean":
            return volume, coverage
        return volume.copy(), coverage.copy()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`snapshot`, but the arrays may be those that the builder goes on filling: for the last call."""
        import torch

        volume, coverage = self._compounding.finish(torch.get_num_threads())
        return volume.reshape(self.grid.shape), coverage.reshape(self.grid.shape)


def compounding_for(
    shape: tuple[int, int, int], selection: PixelSelection, linear: bool, compounding: str, reject_below: int
) -> Compounding:
    """Compiled loops where numba is there and works, torch otherwise; the arguments are those of both."""
    from DualTrackCore.reconstruction.compound import BlockCompounding

    try:
        from DualTrackCore.reconstruction.compiled import CompiledCompounding
    except ImportError:  # not installed, or not for this version of numpy
        return BlockCompounding(shape, selection, linear, compounding, reject_below)
    try:
        return CompiledCompounding(shape, selection, linear, compounding, reject_below)
    except OSError:  # the compiled loops cannot be kept, as on a full disk
        return BlockCompounding(shape, selection, linear, compounding, reject_below)


def _require_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {what} {value!r} is unknown; choose one of {', '.join(choices)}.")


def _validated_threshold(reject_below: object) -> int:
    if isinstance(reject_below, bool) or reject_below not in range(256):
        raise InputError(f"The rejection threshold {reject_below!r} must be a whole grey value from 0 to 255.")
    return int(reject_below)
