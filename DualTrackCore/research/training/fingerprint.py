"""What the sweeps of a training are like, in numbers: sizes, spacings, rates and motions, kept in the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from DualTrackCore.evaluation.definitions import COMPONENTS
from DualTrackCore.network import ModelCard
from DualTrackCore.sweep import Sweep

#: How much larger or smaller than the network's the pixels of the data may be before it is said.
_SPACING_FACTOR = 2.0


def fingerprint(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """Plain values on tracked sweeps, at least one; reads poses and no image.

    Returns:
        Numbers of `sweeps` and `frames`; [least, middle, greatest] of `frames_per_sweep`, `spacing_mm` (columns, then
        rows), `frame_rate_hz` and `path_mm`; `frame_sizes`: "rows x columns" with the number of sweeps, the most
        frequent first; of the motions from frame to frame, frame i + 1 in frame i, `step_mm` (5, 50 and 95 % of the
        lengths), and for each component, tx to rz in mm and degrees, `motion_mean` and `motion_deviation`. What no
        sweep states is None.
    """
    motions = np.concatenate([sweep.tracked.parameters for sweep in sweeps])
    motions = motions[np.isfinite(motions).all(axis=1)]
    steps = np.linalg.norm(motions[:, :3], axis=1)
    spacings = np.array([sweep.require_spacing() for sweep in sweeps])
    sizes = Counter("{} x {}".format(*sweep.frame_size) for sweep in sweeps)
    return {
        "sweeps": len(sweeps),
        "frames": sum(map(len, sweeps)),
        "frames_per_sweep": _spread(map(len, sweeps)),
        "frame_sizes": dict(sizes.most_common()),
        "spacing_mm": [_spread(spacings[:, 0]), _spread(spacings[:, 1])],
        "frame_rate_hz": _spread(rate for sweep in sweeps if (rate := sweep.frame_rate_hz) is not None),
        "path_mm": _spread(sweep.tracked.path_length_mm for sweep in sweeps),
        "step_mm": None if not len(steps) else _rounded(np.quantile(steps, [0.05, 0.5, 0.95])),
        "motion_mean": _by_component(motions, np.mean),
        "motion_deviation": _by_component(motions, np.std),
    }


def fingerprint_text(found: dict[str, Any]) -> str:
    """The sentence on a fingerprint for people."""
    (columns, rows), steps, frames = found["spacing_mm"], found["step_mm"], found["frames_per_sweep"][1]
    rate = "" if found["frame_rate_hz"] is None else f", {found['frame_rate_hz'][1]:g} Hz"
    motion = "no motion is known" if steps is None else f"steps of {steps[1]:g} mm ({steps[0]:g} to {steps[2]:g})"
    return (
        f"Data: {found['sweeps']} sweeps of {frames:g} frames, {next(iter(found['frame_sizes']))} pixels of "
        f"{columns[1]:g} x {rows[1]:g} mm{rate}, {motion}."
    )


def unlike(found: dict[str, Any], card: ModelCard, positions: int) -> list[str]:
    """Sentences on data that a network was not laid out for.

    Args:
        found: :func:`fingerprint` of the data.
        card: gives the spacing of the network's pixels.
        positions: the longest sequence of frames that the network takes.
    """
    told = []
    for name, (_, middle, _), own in zip(("wide", "high"), found["spacing_mm"], card.spacing_mm, strict=True):
        if not own / _SPACING_FACTOR <= middle <= own * _SPACING_FACTOR:
            told.append(
                f"The pixels of the data are {middle:g} mm {name}, those of the network {own:g} mm: frames are "
                "resampled to them; card.spacing_mm in the recipe changes it."
            )
    longest = found["frames_per_sweep"][2]
    if longest > positions:
        told.append(
            f"The longest sweep has {longest:g} frames and the network takes {positions} at a time: longer sweeps are "
            "cut at random places; model.positions in the recipe changes it."
        )
    return told


def _spread(values: Iterable[float]) -> list[float] | None:
    """[least, middle, greatest]; None without values."""
    listed = np.fromiter(values, np.float64)
    return None if not len(listed) else _rounded([listed.min(), np.median(listed), listed.max()])


def _by_component(motions: np.ndarray, statistic: Any) -> dict[str, float] | None:
    return None if not len(motions) else dict(zip(COMPONENTS, _rounded(statistic(motions, axis=0)), strict=True))


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
