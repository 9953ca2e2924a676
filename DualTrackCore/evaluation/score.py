"""The score of the TUS-REC 2025 challenge: errors of a sweep against those of an estimate without motion."""

from __future__ import annotations

import math
from collections.abc import Mapping

_PIXELS, _LANDMARKS = ("gpe_mm", "lpe_mm"), ("gle_mm", "lle_mm")


def scores(metrics: Mapping[str, float], identity: Mapping[str, float]) -> dict[str, float]:
    """Scores of one sweep: 1 for no error, 0 for what no motion gives, negative for worse.

    Args:
        metrics, identity: `gpe_mm`, `lpe_mm`, `gle_mm` and `lle_mm` of the estimate and of no motion at all.

    Returns:
        `tus_rec_score`, the mean of 1 - E / E_identity over the four, NaN where one of them is unknown (no landmarks)
        or no motion has no error; `pixel_score`, the same over the first two, which is not the challenge's score.
    """

    def mean_over(names: tuple[str, ...]) -> float:
        if any(not identity[name] > 0 for name in names):
            return math.nan
        return sum(1 - metrics[name] / identity[name] for name in names) / len(names)

    return {"tus_rec_score": mean_over(_PIXELS + _LANDMARKS), "pixel_score": mean_over(_PIXELS)}
