"""From 8-bit frames to the inputs of the network (local crop and resized global image), and warnings about sweeps that
differ from the training data.

At the model's pixel spacing this is exactly the published preprocessing. A sweep of another spacing is first resampled
to it, about the image centre, so that a pixel has the same size in mm as in training.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.network.model import Model
from DualTrackCore.network.statistics import PLAIN, Normalisation, check_input, has_statistics
from DualTrackCore.path_error import FIELD_OF_VIEW, FRAME_RATE, LONG_STEPS, OUTSIDE, SHORT_STEPS
from DualTrackCore.sweep import Sweep

#: Spacings that differ by less than this part count as equal: below a pixel over 640 columns.
SPACING_TOLERANCE = 1e-3


def crop_margins(size: int, crop: int) -> tuple[int, int, int]:
    """Place of a crop of `crop` pixels on an axis of `size` pixels: (zeros before, zeros after, first pixel).

    A short axis is padded, with the odd pixel at its end. A long axis is cropped about its centre; the offset is
    rounded half to even, as in the published preprocessing.
    """
    before, after = max(crop - size, 0) // 2, (max(crop - size, 0) + 1) // 2
    return before, after, round((size + before + after - crop) / 2)


def resampling_matrix(inputs: int, scale: float) -> np.ndarray:
    """Weights that resample an axis about its centre: linear interpolation, wider for fewer pixels against aliasing.

    Args:
        inputs: pixels of the axis.
        scale: input pixels per output pixel.

    Returns:
        [round(inputs / scale), inputs] float32; rows sum to one.
    """
    outputs = max(1, round(inputs / scale))
    radius = max(scale, 1.0)
    centres = inputs / 2 + (np.arange(outputs) + 0.5 - outputs / 2) * scale
    distance = np.abs(np.arange(inputs) + 0.5 - np.clip(centres, 0.5, inputs - 0.5)[:, None])
    weights = np.maximum(0.0, 1.0 - distance / radius)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class Preprocessor:
    """Prepares the frames of one sweep for one model.

    Args:
        frame_size: (rows, columns) of the sweep.
        spacing_mm: pixel spacing of the sweep, (columns, rows).
        model_spacing_mm: pixel spacing of the training data.
        crop_size: pixels a side of the local crop.
        global_size: pixels a side of the resized whole frame.
        global_mean, global_std: normalisation of the resized frame.
    """

    def __init__(
        self,
        frame_size: tuple[int, int],
        spacing_mm: tuple[float, float],
        model_spacing_mm: tuple[float, float],
        crop_size: int,
        global_size: int,
        global_mean: float = 0.0,
        global_std: float = 1.0,
    ) -> None:
        scales = [model / own for own, model in zip(spacing_mm, model_spacing_mm, strict=True)]
        self.resamples = any(not math.isclose(scale, 1.0, rel_tol=SPACING_TOLERANCE) for scale in scales)
        self.global_size, self.global_mean, self.global_std = global_size, global_mean, global_std
        self._crop_size = crop_size
        self._columns = self._rows = None
        if self.resamples:
            self._columns = torch.from_numpy(resampling_matrix(frame_size[1], scales[0]))
            self._rows = torch.from_numpy(resampling_matrix(frame_size[0], scales[1]))
            frame_size = (len(self._rows), len(self._columns))
        #: (rows, columns) of the sweep at the model's spacing.
        self.model_frame_size = frame_size
        self._margins = [crop_margins(size, crop_size) for size in frame_size]

    @classmethod
    def for_model(cls, model: Model, sweep: Sweep, normalisation: Normalisation | None = None) -> Preprocessor:
        """The preprocessing of a sweep for a model, or with another normalisation than the model's.

        A network without a global encoder gets no global images.

        Raises InputError: the spacing of the sweep is unknown.
        """
        card, network = model.card, model.network
        return cls(
            sweep.frame_size,
            sweep.require_spacing(),
            card.spacing_mm,
            network.crop_size,
            getattr(network, "global_size", 1),
            *(normalisation or model.normalisation),
        )

    @property
    def pads(self) -> bool:
        """Whether the frames are smaller than the crop, so that it has black borders."""
        return min(self.model_frame_size) < self._crop_size

    @property
    def shift_limits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Smallest and largest shift of the crop from the centre that stays in the image: rows, columns; pixels."""
        return tuple(
            (-first, max(size - self._crop_size, 0) - first)
            for (_, _, first), size in zip(self._margins, self.model_frame_size, strict=True)
        )

    def local(self, frames: Tensor) -> Tensor:
        """Crops [n, crop, crop] float32 in 0 to 1 of frames [n, H, W] uint8."""
        return as_grey(self.crops(frames))

    def crops(self, frames: Tensor, shift: tuple[int, int] = (0, 0)) -> Tensor:
        """Crops [n, crop, crop] of frames [n, H, W] uint8, moved by `shift` (rows, columns) from the central place.

        They are uint8 if nothing is resampled, else float32 in 0 to 1; :func:`as_grey` makes both float32.
        """
        rows, columns = self.crop_place(shift)
        return self.padded(self._resample(frames, rows, columns) if self.resamples else frames[:, rows, columns])

    def crop_place(self, shift: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Rows and columns of the sweep, at the model's spacing, that a crop takes."""
        rows, columns = (
            slice(first + offset, first + offset + min(self._crop_size, size))
            for (_, _, first), size, offset in zip(self._margins, self.model_frame_size, shift, strict=True)
        )
        return rows, columns

    def padded(self, crops: Tensor) -> Tensor:
        """Crops [n, crop, crop]: the parts inside the frames, padded with zeros."""
        (top, bottom, _), (left, right, _) = self._margins
        return F.pad(crops, (left, right, top, bottom))

    def global_image(self, frames: Tensor) -> Tensor:
        """Whole frames resized to [n, global_size, global_size] float32, normalised, of frames [n, H, W] uint8."""
        images = self._resample(frames, slice(None), slice(None)) if self.resamples else unit_grey(frames)
        size = (self.global_size, self.global_size)
        images = F.interpolate(images[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]
        if self.global_mean == 0.0 and self.global_std == 1.0:
            return images
        return (images - self.global_mean) / self.global_std

    def _resample(self, frames: Tensor, rows: slice, columns: slice) -> Tensor:
        row_weights = self._rows[rows].to(frames.device)
        column_weights = self._columns[columns].to(frames.device)
        with torch.autocast(frames.device.type, enabled=False):  # else products have 8 or 11 bits only
            return row_weights @ (unit_grey(frames) @ column_weights.T)


def unit_grey(frames: Tensor) -> Tensor:
    """Grey value / 255 in float32, one exact division a pixel."""
    # The divisor is a tensor on the device: CUDA turns division by a plain number into multiplication by its rounded
    # reciprocal, which differs in the last bit.
    return frames.to(torch.float32) / torch.full((), 255.0, device=frames.device)


def as_grey(images: Tensor) -> Tensor:
    """uint8 images as :func:`unit_grey` has them; float images as they are."""
    return unit_grey(images) if images.dtype == torch.uint8 else images


#: Frame rates and fields of view that differ from the training data by more than this factor get a warning.
TOLERATED_RATIO = 1.5


def is_guess(sweep: Sweep, model: Model) -> bool:
    """Whether the weights are untrained, or trained on simulated sweeps only and the sweep is recorded."""
    return not model.card.trained or (model.card.simulated_only and not sweep.is_simulated)


def scope_warnings(sweep: Sweep, model: Model, preprocessor: Preprocessor) -> list[str]:
    """One sentence for each difference between the sweep and the data that the model card describes."""
    card, network = model.card, model.network
    frames, (rows, columns) = len(sweep), preprocessor.model_frame_size
    messages = []
    if not card.trained:
        messages.append(
            "The weights are untrained: the trajectory means nothing and only shows that the software runs."
        )
    if card.simulated_only and not sweep.is_simulated:
        messages.append(
            f"The model {card.name} has only ever seen simulated sweeps; on this sweep its motion is a guess. Fetch "
            "published weights: dualtrack models fetch dualtrack-tusrec2024."
        )
    if card.trained and model.check is not None:
        messages += model.check.warnings()
    if frames > network.positions:
        messages.append(
            f"The sweep has {frames} frames, more than the {network.positions} that the model takes at a time: it was "
            "tracked in overlapping windows, and motion was averaged where they overlap."
        )
    if preprocessor.pads:
        messages.append(
            f"At the model's pixel spacing the frames are {columns} x {rows} pixels, smaller than its "
            f"{network.crop_size} x {network.crop_size} crop: black borders were added, which it was not trained on."
        )
    messages += _field_of_view(card, rows, columns) + _frame_rate(card, sweep.frame_rate_hz)
    if missing := int(np.count_nonzero(~sweep.frame_valid)):
        messages.append(f"{missing} of {frames} frames hold no image; the motion around them is unreliable.")
    if abs(sweep.skew_deg) > 1:
        skew = f"{abs(sweep.skew_deg):.1f} degrees"
        messages.append(f"The pixel axes are {skew} off a right angle; the model assumes a right angle.")
    return messages


def outside_training(sweep: Sweep, card: ModelCard, preprocessor: Preprocessor) -> list[str]:
    """Differences between the sweep and the data of the model card, as words of :mod:`DualTrackCore.path_error`."""
    warnings = {
        FIELD_OF_VIEW: _field_of_view(card, *preprocessor.model_frame_size),
        FRAME_RATE: _frame_rate(card, sweep.frame_rate_hz),
    }
    return [word for word, sentences in warnings.items() if sentences]


def _field_of_view(card: ModelCard, rows: int, columns: int) -> list[str]:
    """Warnings about the size of the frames, in pixels at the model's spacing."""
    if card.trained_ranges is None:
        ratios = rows / card.frame_size[0], columns / card.frame_size[1]
        if max(*ratios, *(1 / r for r in ratios)) <= TOLERATED_RATIO:
            return []
        own = _millimetres((columns, rows), card.spacing_mm)
        trained = _millimetres(card.frame_size[::-1], card.spacing_mm)
        return [f"The frames show {own} mm; the model was trained on {trained} mm (width x depth)."]
    messages = []
    sides = ("wide", "view.width_mm", columns, card.spacing_mm[0]), ("deep", "view.depth_mm", rows, card.spacing_mm[1])
    for word, name, pixels, spacing in sides:
        low, high = card.trained_ranges.get(name, (0, math.inf))
        if not low / TOLERATED_RATIO <= pixels * spacing <= high * TOLERATED_RATIO:
            messages.append(
                f"The frames are {pixels * spacing:.0f} mm {word}; the model was trained on {low:.0f} to {high:.0f} mm."
            )
    return messages


def _frame_rate(card: ModelCard, rate: float | None) -> list[str]:
    """Warnings about the frame rate, Hz; none if the card states the steps between frames instead."""
    trained = card.frame_rate_hz
    if card.trained_ranges is not None or not rate or not trained:
        return []
    if max(rate / trained, trained / rate) <= TOLERATED_RATIO:
        return []
    return [f"The sweep has {rate:.3g} frames/s; the model was trained at {trained:.3g} frames/s."]


def note_steps(provenance: dict[str, Any], card: ModelCard, motions: np.ndarray) -> None:
    """Add to a provenance if the mean step of motions [n, 6] is outside the range of the training sweeps."""
    if sentences := step_warnings(card, motions):
        too_long = _mean_step(motions) > card.trained_ranges["motion.step_mm"][1]
        provenance["warnings"] += sentences
        provenance[OUTSIDE].append(LONG_STEPS if too_long else SHORT_STEPS)


def _mean_step(motions: np.ndarray) -> float:
    return float(np.linalg.norm(motions[:, :3], axis=1).mean())


def step_warnings(card: ModelCard, motions: np.ndarray) -> list[str]:
    """A sentence if the mean step of motions [n, 6], mm, is outside the range of the training sweeps."""
    low, high = (card.trained_ranges or {}).get("motion.step_mm", (0, math.inf))
    step = _mean_step(motions)
    if low <= step <= high:
        return []
    remedy = "move the probe more slowly, or record more frames a second" if step > high else "move the probe faster"
    return [
        f"The probe moved by {step:.2g} mm from frame to frame on average; the model was trained on {low:g} to "
        f"{high:g} mm: {remedy}."
    ]


def _millimetres(size: tuple[int, int], spacing_mm: tuple[float, float]) -> str:
    return " x ".join(f"{pixels * spacing:.0f}" for pixels, spacing in zip(size, spacing_mm, strict=True))


#: Most frames of a sweep to compare with the training images.
MOST_FRAMES = 16


def examined(model: Model, sweep: Sweep) -> Model:
    """The model with its :attr:`~DualTrackCore.network.model.Model.check` on a sweep; unchanged if it has one.

    Compares at most 16 of the global encoder's frames, evenly over the sweep; none if the weights hold no statistics.

    Raises InputError: no images, or unknown spacing.
    """
    if model.check is not None:
        return model
    if not has_statistics(model.network):
        return replace(model, check=check_input(model.network, None, None, model.card.normalisation))
    sweep.require_images()
    chosen = [i for i in frames_to_look_at(len(sweep), model.network.global_every) if sweep.frame_valid[i]]
    if not chosen:
        return model
    return examined_on(model, sweep, np.concatenate([sweep.window(i, i + 1) for i in chosen]))


def examined_on(model: Model, sweep: Sweep, frames: np.ndarray, tracked: bool = False) -> Model:
    """:func:`examined` on frames [k, H, W] uint8.

    Args:
        model: without a check.
        sweep: gives the spacing.
        frames: of that sweep.
        tracked: whether tracking is done already, so that the normalisation cannot change any more.
    """
    images = torch.from_numpy(np.ascontiguousarray(frames))
    prepared = Preprocessor.for_model(model, sweep, PLAIN)
    whole, crops = prepared.global_image(images), prepared.local(images)
    card = model.card
    check = check_input(model.network, whole, crops, card.normalisation, tracked, card.input_limits)
    return replace(model, check=check)


def frames_to_look_at(frames: int, every: int) -> range:
    """Every `every`-th frame of a sweep, or every second, fourth, ... of these, so that at most 16 remain."""
    while -(-frames // every) > MOST_FRAMES:
        every *= 2
    return range(0, frames, every)
