"""Whether a sweep is of the kind that the weights were trained on: sentences for what is not."""

from __future__ import annotations

import numpy as np

from DualTrackCore.network.model import Model
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import Preprocessor

#: Frame rates and fields of view that differ from the training data by more than this factor are worth a sentence.
TOLERATED_RATIO = 1.5


def scope_warnings(sweep: Sweep, model: Model, preprocessor: Preprocessor) -> list[str]:
    """One sentence for each way in which the sweep lies outside what the model card describes."""
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
    ratios = rows / card.frame_size[0], columns / card.frame_size[1]
    if max(*ratios, *(1 / r for r in ratios)) > TOLERATED_RATIO:
        own = _millimetres((columns, rows), card.spacing_mm)
        trained = _millimetres(card.frame_size[::-1], card.spacing_mm)
        messages.append(f"The frames show {own} mm; the model was trained on {trained} mm (width x depth).")
    rate = sweep.frame_rate_hz
    if rate and card.frame_rate_hz and max(rate / card.frame_rate_hz, card.frame_rate_hz / rate) > TOLERATED_RATIO:
        messages.append(
            f"The sweep has {rate:.3g} frames/s; the model was trained at {card.frame_rate_hz:.3g} frames/s."
        )
    if missing := int(np.count_nonzero(~sweep.frame_valid)):
        messages.append(f"{missing} of {frames} frames hold no image; the motion around them is unreliable.")
    if abs(sweep.skew_deg) > 1:
        skew = f"{abs(sweep.skew_deg):.1f} degrees"
        messages.append(f"The pixel axes are {skew} off a right angle; the model assumes a right angle.")
    return messages


def _millimetres(size: tuple[int, int], spacing_mm: tuple[float, float]) -> str:
    return " x ".join(f"{pixels * spacing:.0f}" for pixels, spacing in zip(size, spacing_mm, strict=True))
