"""The images of training items: parts of the frames of one sweep, flipped and shifted."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.io.hdf5_frames import Hdf5Frames
from DualTrackCore.memory import available_memory_bytes
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.network.statistics import PLAIN
from DualTrackCore.pixels import WindowSource
from DualTrackCore.research.training.acquired import Scan
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import Preprocessor

#: All rows or columns.
_ALL = slice(None)


class SweepImages:
    """Network inputs from one sweep, as of :class:`Preprocessor`, with flips and shifted crops.

    Args:
        sweep: its spacing must be known.
        card: gives the spacing and the normalisation of whole frames.
        crop_size, global_size: the network's.
        image_file: of the resized whole frames, or None.
    """

    def __init__(
        self, sweep: Sweep, card: ModelCard, crop_size: int, global_size: int, image_file: Path | None = None
    ) -> None:
        self._frames, self._spacing, self._image_file = sweep.frames, sweep.require_spacing(), image_file
        if isinstance(self._frames, Hdf5Frames):
            self._frames = self._frames.kept_open()
        self._prepared = Preprocessor(
            sweep.frame_size, self._spacing, card.spacing_mm, crop_size, global_size, *(card.normalisation or PLAIN)
        )

    def drawn_shift(self, random: np.random.Generator) -> tuple[int, int]:
        """A random shift (rows, columns) of the crop from the centre that stays inside the frame, pixels."""
        return tuple(int(random.integers(low, high + 1)) for low, high in self._prepared.shift_limits)

    def local(self, frames: np.ndarray, flipped: bool, shift: tuple[int, int], scan: Scan | None = None) -> Tensor:
        """Crops [n, crop, crop] of frames given by index; uint8 where nothing is resampled, else float32 in 0 to 1."""
        if scan is None and self._prepared.resamples:
            return self._prepared.crops(self._images(frames, flipped), shift).contiguous()
        rows, columns = self._prepared.crop_place(shift)
        if scan is None:
            return self._prepared.padded(self._images(frames, flipped, rows, columns)).contiguous()
        images = self._images(frames, flipped)
        levels = torch.cat([self._images(scan.before, flipped), images])[:, rows, columns]
        return self._prepared.padded(scan.shown(levels, self._spacing, rows.start, images.shape[1])).contiguous()

    def whole(self, frames: np.ndarray, flipped: bool, scan: Scan | None = None) -> Tensor:
        """Whole frames [n, global_size, global_size]: float32 and normalised, or uint8 where they are stored."""
        if self._image_file is not None:
            images = np.load(self._image_file, mmap_mode="r")[frames]
            return torch.from_numpy(np.ascontiguousarray(images[:, :, ::-1] if flipped else images))
        images = self._images(frames, flipped)
        if scan is not None:
            images = scan.pictures(images, self._spacing)
        return self._prepared.global_image(images)

    def held(self) -> SweepImages:
        """The same with the frames in memory, if they take at most half of what is free."""
        size = math.prod(self._frames.shape)
        if isinstance(self._frames, np.ndarray) or size > available_memory_bytes() / 2:
            return self
        held = copy.copy(self)
        held._frames = np.ascontiguousarray(self._frames[:])
        return held

    def _images(self, frames: np.ndarray, flipped: bool, rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
        """Rows and columns of the images [n, h, w] uint8, after the flip, of frames by index.

        Frames of a file that are close together are read at once.
        """
        width = self._frames.shape[2]
        first, last, _ = columns.indices(width)
        columns = slice(width - last, width - first) if flipped else slice(first, last)

        def part(start: int, stop: int) -> np.ndarray:
            if isinstance(self._frames, WindowSource):
                return self._frames.part(start, stop, rows, columns)
            return np.asarray(self._frames[start:stop])[:, rows, columns]

        low, high = (int(frames.min()), int(frames.max()) + 1) if len(frames) else (0, 0)
        if isinstance(self._frames, np.ndarray):
            pixels = self._frames[:, rows, columns][frames]
        elif high - low <= 2 * len(frames):
            pixels = part(low, high)[frames - low]
        else:
            pixels = np.concatenate([part(i, i + 1) for i in frames.tolist()])
        return torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1] if flipped else pixels))
