"""What the network finds in a sweep, and the way in which it is taken to run.

Weights with a direction head give the motions of a sweep that is taken as running towards +z of the image frame, and
the log-odds that it does. One that runs the other way is mirrored (:mod:`~DualTrackCore.direction`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from DualTrackCore.direction import AS_WEIGHTS_SAY, OTHER_WAY_SIGNS, SURE, TOLD, UNSURE, Direction
from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Estimate:
    """Motions of a sweep of N frames, with what the weights say of them.

    Attributes:
        motions: [N - 1, 6] float64, mm and degrees, frame i + 1 in frame i.
        variance: [N - 1, 6] float64 of each component, mm^2 and degrees^2; None for weights without that head.
        log_odds: that the sweep runs as the motions say, and not the other way; None for weights without that head.
    """

    motions: np.ndarray
    variance: np.ndarray | None = None
    log_odds: float | None = None

    @classmethod
    def mean(cls, estimates: Sequence[Estimate]) -> Estimate:
        """The mean of several estimates of one sweep; their errors are taken as one, so variances do not shrink."""
        first = estimates[0]
        return cls(
            np.mean([one.motions for one in estimates], axis=0),
            None if first.variance is None else np.mean([one.variance for one in estimates], axis=0),
            None if first.log_odds is None else float(np.mean([one.log_odds for one in estimates])),
        )

    def mirrored(self) -> Estimate:
        """The same sweep running the other way."""
        log_odds = None if self.log_odds is None else -self.log_odds
        return replace(self, motions=self.motions * OTHER_WAY_SIGNS, log_odds=log_odds)


def require_direction(direction: Direction) -> Direction:
    """The direction, where it is one. Raises InputError: it is none."""
    if direction not in get_args(Direction):
        raise InputError(f"The direction is {direction!r}; choose {', '.join(get_args(Direction))}.")
    return direction


def directed(
    found: Estimate, direction: Direction, sure_log_odds: float | None, provenance: Mapping[str, Any]
) -> Trajectory:
    """The trajectory of an estimate in the direction that was asked for.

    Args:
        found: by the network.
        direction: "auto" turns the estimate over where its log-odds are below zero, "other-way" always.
        sure_log_odds: from which, to either side, the weights are sure; None where that is unknown, so never.
        provenance: of the trajectory.

    Returns:
        A trajectory whose provenance has, beside the one given, `direction` (:data:`~DualTrackCore.direction.SURE` or
        another of these), `direction_mirrored`, whether the estimate was turned over, and `direction_log_odds` that
        the sweep runs as the trajectory does, None for weights without that head.

    Raises:
        InputError: no direction.
    """
    told = require_direction(direction) != "auto"
    mirrored = direction == "other-way" if told else (found.log_odds or 0) < 0
    if mirrored:
        found = found.mirrored()
    if told or found.log_odds is None:
        said = TOLD if told else AS_WEIGHTS_SAY
    else:
        said = SURE if sure_log_odds is not None and found.log_odds >= sure_log_odds else UNSURE
    facts = {"direction": said, "direction_mirrored": mirrored, "direction_log_odds": found.log_odds}
    sigma = None if found.variance is None else np.sqrt(found.variance)
    return Trajectory.from_parameters(found.motions, {**provenance, **facts}, sigma=sigma)
