"""Frames of a sweep to what the network sees in training: shifted crops, flipped and resized whole frames."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from DualTrackCore.network.card import ModelCard
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import Preprocessor, crop_margins, resampling_matrix, unit_grey


class SweepImages:
    """Images of one sweep for one network, the same as :class:`Preprocessor` makes, with flips and shifted crops.

    Args:
        sweep: spacing known.
        card: gives the spacing and the normalisation of whole frames.
        crop_size, global_size: the network's.
    """

    def __init__(self, sweep: Sweep, card: ModelCard, crop_size: int, global_size: int) -> None:
        self._frames, self._count = sweep.frames, len(sweep)
        spacing = sweep.require_spacing()
        self._prepared = Preprocessor(
            sweep.frame_size, spacing, card.spacing_mm, crop_size, global_size, card.global_mean, card.global_std
        )
        self._crop = crop_size
        self._rows = self._columns = None
        if self._prepared.resamples:
            rows, columns = sweep.frame_size
            self._rows = torch.from_numpy(resampling_matrix(rows, card.spacing_mm[1] / spacing[1]))
            self._columns = torch.from_numpy(resampling_matrix(columns, card.spacing_mm[0] / spacing[0]))
        self._margins = [crop_margins(size, crop_size) for size in self._prepared.model_frame_size]

    @property
    def shift_limits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least and greatest shift of the crop from its central place, for rows and for columns."""
        sizes = self._prepared.model_frame_size
        return tuple(
            (-first, max(size - self._crop, 0) - first)
            for (_, _, first), size in zip(self._margins, sizes, strict=True)
        )

    def local(self, frames: np.ndarray, flipped: bool, shift: tuple[int, int]) -> Tensor:
        """Crops [n, crop, crop] of frames given by index; uint8 where nothing is resampled, else float32 in 0 to 1."""
        places = []
        for (_, _, first), size, offset in zip(self._margins, self._prepared.model_frame_size, shift, strict=True):
            start = first + offset
            places.append(slice(start, start + min(self._crop, size)))
        pixels = self._read(frames)
        if self._rows is None:
            view = (pixels[:, :, ::-1] if flipped else pixels)[:, places[0], places[1]]
            crops = torch.from_numpy(np.ascontiguousarray(view))
        else:
            whole = self._rows @ (unit_grey(torch.from_numpy(pixels)) @ self._columns.T)
            crops = (whole.flip(2) if flipped else whole)[:, places[0], places[1]]
        (top, bottom, _), (left, right, _) = self._margins
        return F.pad(crops, (left, right, top, bottom))

    def whole(self, frames: np.ndarray, flipped: bool) -> Tensor:
        """Whole frames [n, global_size, global_size] float32, normalised."""
        pixels = self._read(frames)
        return self._prepared.whole(torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1] if flipped else pixels)))

    def _read(self, frames: np.ndarray) -> np.ndarray:
        """Frames by index, in runs of neighbours where they lie in a file."""
        if isinstance(self._frames, np.ndarray):
            return self._frames[frames]
        low, high = int(frames.min()), int(frames.max()) + 1
        if high - low <= 2 * len(frames):
            return np.asarray(self._frames[low:high])[frames - low]
        return np.concatenate([np.asarray(self._frames[i : i + 1]) for i in frames.tolist()])


def as_grey(images: Tensor) -> Tensor:
    """uint8 to 0 to 1; float images as they are."""
    return unit_grey(images) if images.dtype == torch.uint8 else images
