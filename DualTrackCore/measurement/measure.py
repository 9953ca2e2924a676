"""Measuring between points of a volume, with how far the result may be off."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.measurement import quantities
from DualTrackCore.measurement.draws import drawing_motions
from DualTrackCore.measurement.quantities import Kind, Quantity
from DualTrackCore.measurement.ties import FramePlanes, Ties
from DualTrackCore.path_error import (
    AS_MODEL_SAYS,
    BY_RULE,
    DRIFT_BY_RULE,
    MOST_STATED,
    MOST_USABLE,
    TOLD,
    drift_percent,
    trust_with,
)
from DualTrackCore.progress import finished
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory
from DualTrackCore.uncertainty import freedom_in

#: Paths that are drawn around the estimate.
DRAWS = 200
#: Corners of triangles and points of lines, of all draws, that are measured at a time: a few milliseconds.
_TOGETHER = 50_000
#: What a band rests on.
MODEL, RULE, SPACING = AS_MODEL_SAYS, BY_RULE, "pixel spacing alone"
Level = Literal["measure", "rough", "do not measure"]
_LEVELS: dict[str, Level] = {"usable": "measure", "rough guide": "rough", "do not measure": "do not measure"}


@dataclass(frozen=True)
class Measured:
    """A length, an area or a volume.

    Attributes:
        kind: which of them.
        value: mm, mm2 or mm3.
        unit: "mm", "mm2" or "mm3".
        band_68, band_95: smallest and largest value of the interval that holds so many of 100 true values; None where
            the error of the path between the points is not known.
        basis: what the bands rest on: "as the model says", "by rule of thumb" or "pixel spacing alone".
        level: what the value is good for: "measure"; "rough": its figures are coarse; "do not measure".
        reason: why, one sentence.
    """

    kind: Kind
    value: float
    unit: str
    band_68: tuple[float, float] | None
    band_95: tuple[float, float] | None
    basis: str
    level: Level
    reason: str

    @property
    def trust(self) -> str:
        """One line for people: level and reason."""
        return f"{self.level}: {self.reason}"

    @property
    def text(self) -> str:
        """Such as "12.3 mm (95 %: 11.0 to 13.9 mm)", for people."""
        return f"{self.value:.1f} {self.unit} (95 %: {self.band_text(self.band_95)})"

    def band_text(self, band: tuple[float, float] | None) -> str:
        """One of the bands, for people."""
        return "not known" if band is None else f"{band[0]:.1f} to {band[1]:.1f} {self.unit}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values: the fields and :attr:`trust`."""
        return {**vars(self), "trust": self.trust}


class Measurements:
    """Measures between points of one sweep.

    A point belongs to the frame that shows it, and moves with it in each of the paths that are drawn
    (:mod:`~DualTrackCore.measurement.draws`): from the errors that the model states, else from those of the rule of
    thumb. How finely a point can be placed, half a pixel to either side, is added. The path does not matter between
    points of one picture.

    Args:
        trajectory: N poses, with what is known of their errors.
        sweep: the N frames; their pictures are not read.
        draws: how many paths; the bands of 200 are themselves sure to about a tenth of their width.
        seed: the same one gives the same bands.

    Raises InputError: no frame can be placed, or the pixel spacing is unknown.
    """

    def __init__(self, trajectory: Trajectory, sweep: Sweep, *, draws: int = DRAWS, seed: int = 0) -> None:
        if draws < 40:
            raise InputError(f"{draws} paths are too few for a band of 95 %; draw at least 40.")
        self.planes = FramePlanes(sweep, trajectory)
        self._trajectory, self._spacing_mm = trajectory, np.array(sweep.require_spacing())
        # Frames without a pose are left out, as the errors beside them are not known.
        self._kept = np.flatnonzero(trajectory.valid)
        self._known = trajectory.chosen(self._kept)
        self._draws, self._seed = draws, seed

    def distance(self, first_mm: object, second_mm: object, *, frames: object = None) -> Measured:
        """The straight distance of two points; arguments and errors as for :meth:`length`."""
        return self.length(np.stack([_points(first_mm, 1), _points(second_mm, 1)]), frames=frames)

    def length(self, points_mm: object, *, closed: bool = False, frames: object = None) -> Measured:
        """The length of the line through points.

        Args:
            points_mm: [K, 3], mm in frame0 (LPS, Docs/frames.md).
            closed: whether it goes back to the first point.
            frames: [K] frames that the points were marked in; else each belongs to the frame nearest to it.

        Raises InputError: fewer than two points, all in one place, not finite, or away from every frame.
        """
        return finished(self.measuring(quantities.length(closed), points_mm, frames))

    def area(self, points_mm: object, triangles: object) -> Measured:
        """The area of a surface.

        Args:
            points_mm: [K, 3] as for :meth:`length`.
            triangles: [T, 3] whole numbers, which points are the corners of each.

        Raises InputError: as for :meth:`length`, or triangles between other points.
        """
        points = _points(points_mm, 2)
        return finished(self.measuring(quantities.area(_triangles(triangles, len(points))), points))

    def volume(self, points_mm: object, triangles: object) -> Measured:
        """The volume inside a closed surface; arguments and errors as for :meth:`area`, and the surface has holes."""
        points = _points(points_mm, 2)
        return finished(self.measuring(quantities.volume(_triangles(triangles, len(points))), points))

    def measuring(
        self, quantity: Quantity, points_mm: object, frames: object = None
    ) -> Generator[None, None, Measured]:
        """Measure a quantity in pieces of some milliseconds, for programs that must not wait.

        Args:
            quantity: of :mod:`~DualTrackCore.measurement.quantities`.
            points_mm, frames: as for :meth:`length`.

        Raises InputError: as there.
        """
        points_mm = _points(points_mm, 2)
        if quantity.kind == "length" and not np.ptp(points_mm, axis=0).any():
            raise InputError("All points lie in one place, which has no length; give at least two different points.")
        ties = yield from self.planes.tying(points_mm, frames)
        value = float(quantity.of(points_mm))
        values = np.full(self._draws, value)
        basis, sigma, correlation = SPACING, None, np.ones(6)
        if not ties.in_one_frame:
            basis, sigma, correlation = self._errors()
        if sigma is not None:
            values = yield from self._drawn(quantity, ties, basis, sigma, correlation)
        values = np.maximum(values + (yield from self._placing(quantity, ties)), 0)
        bands = [_band(values, share) for share in (0.68, 0.95)]
        level, reason = self._trust(quantity.kind, value, bands[1], basis, ties.in_one_frame)
        return Measured(quantity.kind, value, quantity.unit, *bands, basis, level, reason)

    def _errors(self) -> tuple[str, np.ndarray | None, np.ndarray]:
        """Basis, standard deviations of the motions (None where nobody says them), and what they have in common."""
        path = self._known
        if path.sigma is not None:
            # Errors that a correction found from those of the rule still rest on it.
            by_rule = path.path_covariance is not None and DRIFT_BY_RULE in path.provenance
            return RULE if by_rule else MODEL, path.sigma, path.step_error_correlation
        if path.origin is not PoseOrigin.ESTIMATED:
            return SPACING, None, np.ones(6)
        # Along any direction the part of the path that the rule has; all of it common to the steps.
        motions = path.parameters
        sigma = np.zeros_like(motions)
        sigma[:, :3] = drift_percent(path.provenance) / 100 * np.linalg.norm(motions[:, :3], axis=1)[:, None]
        return RULE, sigma, np.ones(6)

    def _drawn(
        self, quantity: Quantity, ties: Ties, basis: str, sigma: np.ndarray, correlation: np.ndarray
    ) -> Generator[None, None, np.ndarray]:
        """[draws] values between the points as they lie on each of the drawn paths."""
        frames, places = np.unique(np.searchsorted(self._kept, ties.frames), return_inverse=True)
        corrected = self._known.path_covariance
        lengths = None if corrected is None else corrected[:, 0]
        path = self._known.poses, sigma, correlation
        freedom = freedom_in(self._known.provenance) if basis == MODEL else None
        motions = yield from drawing_motions(*path, frames, self._draws, self._seed, lengths, freedom)
        places, share = places.reshape(-1, 2), ties.share[:, None]
        flat = np.concatenate([ties.points_mm, np.ones((len(share), 1))], axis=1)[:, :, None]
        values = np.empty(self._draws)
        size = max(1, _TOGETHER // (3 * len(flat)))
        for start in range(0, self._draws, size):
            yield
            part = slice(start, start + size)
            near, beyond = ((motions[places[:, side], part, :3] @ flat[:, None])[..., 0] for side in (0, 1))
            points = near + share[:, None] * (beyond - near)
            values[part] = quantity.of(np.swapaxes(points, 0, 1))
        return values

    def _placing(self, quantity: Quantity, ties: Ties) -> Generator[None, None, np.ndarray]:
        """[draws] what it does to the value that a point stands for its whole pixel; to first order."""
        axes = self._trajectory.poses[ties.frames[:, 0], :3, :2]
        grown = np.einsum("ki,kij->kj", quantity.slope(ties.points_mm), axes) * self._spacing_mm
        grown = grown[np.lexsort(ties.points_mm.T)].ravel()  # whichever point is named first
        rng, values = np.random.default_rng(self._seed + 1), np.empty(self._draws)
        size = max(1, 10 * _TOGETHER // len(grown))
        for start in range(0, self._draws, size):
            yield
            part = values[start : start + size]
            part[:] = rng.uniform(-0.5, 0.5, (len(part), len(grown))) @ grown
        return values

    def _trust(
        self, kind: Kind, value: float, band: tuple[float, float] | None, basis: str, in_one_frame: bool
    ) -> tuple[Level, str]:
        """Level and reason, by the value's own band and by what speaks against the path."""
        share = None
        if band is not None:
            share = max(band[1] - value, value - band[0]) / value if value > 0 else np.inf
        path, by_rule = self._trajectory, basis == RULE
        if basis == SPACING:
            if share > MOST_USABLE:
                level = "do not measure" if share > MOST_STATED else "rough"
                return level, f"The {kind} may be off by {share:.0%}, as the points lie only few pixels apart."
            return _without_path(path, in_one_frame)
        # A sweep that runs the other way gives the mirror image, in which all is as long.
        path = replace(path, provenance={**path.provenance, "direction": TOLD})
        trust = trust_with(path, share, by_rule, what=kind)
        if trust.reasons:
            return _LEVELS[trust.level], trust.reasons[0]
        return "measure", f"95 of 100 true values differ by no more than {share:.0%} ({basis})."


def _without_path(path: Trajectory, in_one_frame: bool) -> tuple[Level, str]:
    """Level and reason where the error of the path does not count, or nobody knows it."""
    if in_one_frame:
        return "measure", "All points lie in one picture, so the path does not matter."
    if path.origin.is_truth:
        return "measure", f"The poses are {path.origin_text}; errors of theirs are not in the band."
    return "rough", "Where the poses are from is not known, so errors of theirs are not in the band."


def _band(values: np.ndarray, share: float) -> tuple[float, float] | None:
    if np.isnan(values).any():
        return None
    # With these quantiles another draw falls between them in as many cases as they say.
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2], method="weibull")
    return float(low), float(high)


def _points(points_mm: object, dimensions: int) -> np.ndarray:
    """Points [3] or [K, 3] as finite numbers."""
    try:
        points = np.array(points_mm, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != dimensions or points.shape[-1:] != (3,) or not np.isfinite(points).all() or not points.size:
        raise InputError("A point is not three finite numbers x, y, z in mm; correct the points.")
    return points


def _triangles(triangles: object, points: int) -> np.ndarray:
    array = np.asarray(triangles)
    if array.ndim != 2 or array.shape[1] != 3 or not np.issubdtype(array.dtype, np.integer) or not len(array):
        raise InputError(f"Triangles have shape {array.shape}; expected [triangles, 3] whole numbers.")
    if array.min() < 0 or array.max() >= points:
        raise InputError(f"A triangle names the point {array.max()}; there are the points 0 to {points - 1}.")
    return array
