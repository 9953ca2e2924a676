"""The classical method: in-plane motion by matching speckle, elevational motion by how much speckle has changed.

After Gee et al. 2006 (Med. Image Anal. 10: 137) and Laporte and Arbel 2008: patches over the frame, their likeness
after in-plane alignment, distances off the plane by calibrated decorrelation curves, a plane through them for
elevational motion, tilt and yaw, and several frame lags against each other. Distances have no sign: the probe is taken
to go one way throughout, and which way that is cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.speckle.curves import DecorrelationCurves
from DualTrackCore.research.speckle.likeness import SweepLikeness, sweep_likeness
from DualTrackCore.research.speckle.steps import elevational_direction, elevational_steps, in_plane_steps
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


class Decorrelation:
    """Speckle decorrelation with curves from calibration sweeps.

    Args:
        curves: distance from likeness.
        gain: [3] what elevational motion, tilt and yaw as measured are multiplied with; below 1 where they are mostly
            noise, which would bend the path.
        direction: sign of the elevational motion of a whole sweep: 1 or -1, assumed of every sweep, or "told": that of
            the sweep's own tracking, which is then needed for this one bit.

    Attributes:
        name: in tables.
        uses: what it is given beyond the images.
    """

    def __init__(
        self, curves: DecorrelationCurves, gain: np.ndarray | None = None, direction: Literal[1, -1, "told"] = 1
    ) -> None:
        if direction not in (1, -1, "told"):
            raise InputError(f"The direction is {direction!r}; it must be 1, -1 or 'told'.")
        self.curves, self.direction = curves, direction
        self.gain = np.ones(3) if gain is None else np.asarray(gain, dtype=np.float64)
        self.name = "decorrelation (direction told)" if direction == "told" else "decorrelation"
        self.uses = "images, true direction" if direction == "told" else "images"

    @classmethod
    def calibrated(
        cls,
        sweeps: Iterable[Sweep],
        direction: Literal[1, -1, "told"] = 1,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Decorrelation:
        """Fit the curves to tracked sweeps of one frame size, taken one at a time.

        Raises:
            InputError: no sweeps, one without tracking or spacing, different frame sizes, or no speckle that tells.
            Cancelled: the caller asked to stop.
        """
        reporter, seen = Reporter(progress, cancelled), []
        for sweep in sweeps:
            if sweep.tracked is None:
                raise InputError("A calibration sweep has no tracking; decorrelation curves need the true distances.")
            seen.append((sweep_likeness(sweep, reporter), sweep.tracked))
            if len(seen[-1][0].grid.x_mm) != len(seen[0][0].grid.x_mm):
                raise InputError("The calibration sweeps differ in frame size; calibrate with sweeps of one size.")
        if not seen:
            raise InputError("Decorrelation needs at least one calibration sweep.")
        curves = DecorrelationCurves.fitted(seen)
        return cls(curves, _gain(curves, seen), direction)

    def told(self) -> Decorrelation:
        """The same calibration with the direction of each sweep taken from its tracking."""
        return Decorrelation(self.curves, self.gain, "told")

    def estimate(
        self,
        sweep: Sweep,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Trajectory:
        """Trajectory of a sweep.

        Raises:
            InputError: fewer than two frames, no images, unknown spacing, frames too small for patches, or no tracking
                where the direction is to be told.
            Cancelled: the caller asked to stop.
        """
        sign = self._sign(sweep)
        seen = sweep_likeness(sweep, Reporter(progress, cancelled))
        parameters = np.zeros((len(sweep) - 1, 6))
        parameters[:, [0, 1, 5]] = in_plane_steps(seen)
        parameters[:, 2:5] = sign * self.gain * elevational_steps(self.curves, seen)
        return Trajectory.from_parameters(parameters, {"method": self.name, "uses": self.uses})

    def _sign(self, sweep: Sweep) -> float:
        if self.direction != "told":
            return float(self.direction)
        if sweep.tracked is None:
            raise InputError("The sweep has no tracking to tell the direction from; choose direction 1 or -1.")
        return elevational_direction(sweep.tracked)


def _gain(curves: DecorrelationCurves, sweeps: Sequence[tuple[SweepLikeness, Trajectory]]) -> np.ndarray:
    """[3] factors that bring what is measured nearest to the truth, by least squares over all steps."""
    product, square = np.zeros(3), np.full(3, 1e-12)
    for seen, tracked in sweeps:
        true = tracked.parameters[:, 2:5] * elevational_direction(tracked)
        known = np.isfinite(true).all(axis=1)
        measured = elevational_steps(curves, seen)[known]
        product += (measured * true[known]).sum(axis=0)
        square += (measured**2).sum(axis=0)
    return product / square
