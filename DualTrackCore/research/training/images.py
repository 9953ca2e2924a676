"""Frames of a sweep to what the network sees in training: shifted crops, flipped and resized whole frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import Preprocessor


class SweepImages:
    """Images of one sweep for one network, the same as :class:`Preprocessor` makes, with flips and shifted crops.

    Args:
        sweep: spacing known.
        card: gives the spacing and the normalisation of whole frames.
        crop_size, global_size: the network's.
    """

    def __init__(self, sweep: Sweep, card: ModelCard, crop_size: int, global_size: int) -> None:
        self._frames = sweep.frames
        spacing = sweep.require_spacing()
        self._prepared = Preprocessor(
            sweep.frame_size, spacing, card.spacing_mm, crop_size, global_size, card.global_mean, card.global_std
        )

    @property
    def shift_limits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least and greatest shift of the crop from its central place, for rows and for columns."""
        return self._prepared.shift_limits

    def local(self, frames: np.ndarray, flipped: bool, shift: tuple[int, int]) -> Tensor:
        """Crops [n, crop, crop] of frames given by index; uint8 where nothing is resampled, else float32 in 0 to 1."""
        return self._prepared.crops(self._images(frames, flipped), shift).contiguous()

    def whole(self, frames: np.ndarray, flipped: bool) -> Tensor:
        """Whole frames [n, global_size, global_size] float32, normalised."""
        return self._prepared.global_image(self._images(frames, flipped))

    def _images(self, frames: np.ndarray, flipped: bool) -> Tensor:
        pixels = self._read(frames)
        return torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1] if flipped else pixels))

    def _read(self, frames: np.ndarray) -> np.ndarray:
        """Frames by index, in runs of neighbours where they lie in a file."""
        if isinstance(self._frames, np.ndarray):
            return self._frames[frames]
        low, high = int(frames.min()), int(frames.max()) + 1
        if high - low <= 2 * len(frames):
            return np.asarray(self._frames[low:high])[frames - low]
        return np.concatenate([np.asarray(self._frames[i : i + 1]) for i in frames.tolist()])
