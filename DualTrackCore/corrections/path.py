"""A trajectory and what is known of it, to the corrected trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from DualTrackCore.corrections import entries
from DualTrackCore.corrections.knowledge import (
    Knowledge,
    KnownLength,
    KnownPoses,
    KnownScale,
    Limits,
    SamePlace,
    SamePoint,
)
from DualTrackCore.corrections.limits import STOP, beyond, cut, never_back
from DualTrackCore.corrections.observations import Observations, of_places, of_points, of_poses
from DualTrackCore.corrections.scale import factor_for, scaled, with_spread
from DualTrackCore.corrections.solver import Distance, Prior, Solution, path_of, solve
from DualTrackCore.errors import InputError, about
from DualTrackCore.path_error import CORRECTIONS, DRIFT_BY_RULE, drift_percent
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory
from DualTrackCore.uncertainty import common_signs

#: By the rule of thumb: which part of it is the error of each way, and of the turn over the whole path in radians; and
#: which share of the variance all motions have in common, about the mean of those measured (Docs/uncertainty.md).
_WAYS, _TURN, _SHARE = np.array([0.5, 0.5, 1.0]), 0.5, 0.5
#: mm and degrees below which a motion is none.
_STILL = 1e-9
#: Turn of one motion about y beyond which its angles lose their meaning, degrees.
_SHARPEST_DEG = 75
#: How often motions that pass a limit are cut, and the rest corrected again.
_MOST_ROUNDS = 20


def correct(trajectory: Trajectory, knowledge: Sequence[Knowledge], first_frame: int = 0) -> Trajectory:
    """The most probable path with what is known of it.

    The estimated motions err as `sigma` says, or the rule of thumb where nothing says it; a scanner profile and a known
    length scale them first. Without knowledge the trajectory itself comes back.

    Args:
        trajectory: N poses that were estimated, or are of unknown origin.
        knowledge: frames count from the first of the trajectory; one known length, one scale and one of Limits at most.
        first_frame: number in the clip of its first frame, for what is said.

    Returns:
        Poses in the same frame0 (invalid ones as they were), with `sigma` and `path_covariance` after the correction,
        and an entry for each piece of knowledge in the provenance (:data:`~DualTrackCore.path_error.CORRECTIONS`).

    Raises InputError: the poses are measured or simulated, a frame is not in the path, or knowledge contradicts it.
    """
    if not knowledge:
        return trajectory
    if trajectory.origin.is_truth:
        raise InputError(
            f"The poses are {trajectory.origin_text} and are not corrected; only estimated ones are. Leave the "
            "corrections out."
        )
    try:
        return _Correction.of(trajectory, knowledge, first_frame).corrected()
    except np.linalg.LinAlgError:
        raise InputError(
            "What is known of the sweep and its path cannot be brought together; look at the path for jumps, and leave "
            "out what is least sure."
        ) from None


def prior_errors(trajectory: Trajectory, motions: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
    """How motions [n - 1, 6] between all frames of a trajectory without invalid ones err.

    Returns:
        sigma [n - 1, 6] mm and degrees, the share [6] of its variance that all have in common, and the percentage of
        the rule of thumb where that says it. By that rule the length of a path across the images errs as
        :func:`~DualTrackCore.path_error.path_error` says it.
    """
    percent = trajectory.provenance.get(DRIFT_BY_RULE)
    known = trajectory.sigma is not None
    rule = drift_percent(trajectory.provenance)
    moves = np.abs(motions).max(axis=1) >= _STILL  # other pictures were shown again
    steps = np.linalg.norm(motions[:, :3], axis=1)
    steps = np.where(moves, (steps + steps.sum() / max(moves.sum(), 1)) / 2, 0)  # what was found too short errs as well
    total = max(float(steps.sum()), 1e-9)
    by_rule = np.concatenate([steps[:, None] * _WAYS, np.rad2deg(steps / total * _TURN)[:, None] * np.ones(3)], axis=1)
    by_rule *= rule / 100 / np.sqrt(_SHARE)
    if not known:
        return by_rule, np.full(6, _SHARE), rule
    return np.where(np.isnan(trajectory.sigma), by_rule, trajectory.sigma), trajectory.step_error_correlation, percent


@dataclass(eq=False)
class _Correction:
    """A path on its way to being corrected.

    Attributes:
        given: the trajectory; its valid frames are `frames` [n], which are the `nodes` [N] of the path that is solved
            for: frames without motion between them are one node.
        motions, sigma: [m - 1, 6] of the nodes.
        fixed: [m - 1] motions that are not scaled any more.
    """

    given: Trajectory
    knowledge: Sequence[Knowledge]
    first_frame: int
    nodes: np.ndarray
    first: np.ndarray
    motions: np.ndarray
    sigma: np.ndarray
    correlation: np.ndarray
    rule_percent: float | None
    fixed: np.ndarray
    stopped: np.ndarray
    named: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Trajectory, knowledge: Sequence[Knowledge], first_frame: int) -> _Correction:
        """Take a path apart."""
        frames = np.flatnonzero(given.valid)
        if len(frames) < 2:
            raise InputError("The path has fewer than two valid poses; there is nothing to correct.")
        knowledge = [_with_poses(known, given) for known in knowledge]
        _require_frames(given, knowledge, first_frame)
        chosen = given.chosen(frames)
        motions = chosen.parameters
        sharp = np.flatnonzero(np.abs(motions[:, 4]) > _SHARPEST_DEG)
        if len(sharp):
            angle, frame = abs(motions[sharp[0], 4]), frames[sharp[0] + 1] + first_frame
            raise InputError(
                f"The path turns by {angle:.0f} degrees at frame {frame}, and at most {_SHARPEST_DEG} can be "
                "corrected; use the frames on one side of it."
            )
        sigma, correlation, percent = prior_errors(chosen, motions)
        still = np.zeros(len(motions), bool)
        for known in knowledge:
            for first, last in known.stops if isinstance(known, Limits) else ():
                still |= (frames[:-1] >= first) & (frames[1:] <= last)
        same = still | ((np.abs(motions).max(axis=1) < _STILL) & (sigma.max(axis=1) == 0))
        if same.all():
            raise InputError("The path does not move at all; there is nothing to correct.")
        nodes = np.full(len(given), -1)
        nodes[frames] = np.concatenate([[0], np.cumsum(~same)])
        fixed = np.zeros(int((~same).sum()), bool)
        parts = motions[~same], sigma[~same], correlation, percent, fixed, frames[1:][still]
        return cls(given, knowledge, first_frame, nodes, given.poses[frames[0]], *parts)

    def kind(self, kind: type) -> list[Any]:
        """The pieces of knowledge of one kind."""
        return [known for known in self.knowledge if isinstance(known, kind)]

    def corrected(self) -> Trajectory:
        """The trajectory with all that is known."""
        limits, before = (self.kind(Limits) or [Limits()])[0], self.motions
        self._name(STOP, np.zeros(0, bool))
        if limits.monotone:
            self.motions, back = never_back(self.motions)
            self._name("moved back", back)
        for _ in range(_MOST_ROUNDS):
            factor, motions, sigma, correlation, distances = self._scaled()
            groups = self._groups()
            path = path_of(self.first, motions)
            prior = Prior.of(self.first, motions, sigma, correlation, common_signs(path))
            solution = solve(prior, [group for _, group in groups], distances)
            passed = beyond(solution.motions, limits)
            found = np.zeros(len(motions), bool)
            for name, which in passed.items():
                which &= ~self.fixed
                self._name(name, which)
                found |= which
            if not found.any():
                break
            self.motions, self.sigma = self.motions.copy(), self.sigma.copy()
            self.motions[found], self.sigma[found] = cut(solution.motions, limits)[found], 0
            self.fixed |= found
        said = self._entries(path_of(self.first, before), path, solution, groups, distances, factor)
        return self._trajectory(solution, said, factor)

    def _name(self, limit: str, motions: np.ndarray) -> None:
        """Keep the frames, in the clip, that motions of the nodes [m - 1] lead to."""
        reached = self.stopped if limit == STOP else np.flatnonzero(np.isin(self.nodes, np.flatnonzero(motions) + 1))
        if limit != STOP:  # of frames at one place the first
            reached = [np.flatnonzero(self.nodes == node)[0] for node in np.unique(self.nodes[reached])]
        self.named.setdefault(limit, set()).update(int(frame) + self.first_frame for frame in reached)

    def _scaled(self) -> tuple[float | None, np.ndarray, np.ndarray, np.ndarray, list[Distance]]:
        """Factor of the known length; motions, errors and what these have in common by it and by a profile; the length
        as an observation."""
        known, motions, sigma, correlation = self.kind(KnownLength), self.motions, self.sigma, self.correlation
        for scale in self.kind(KnownScale):
            motions, sigma = (scaled(values, scale.factor, "elevational", self.fixed) for values in (motions, sigma))
            sigma, correlation = with_spread(motions, sigma, correlation, scale.spread)
        if not known:
            return None, motions, sigma, correlation, []
        ends = None if known[0].frames is None else tuple(int(self.nodes[frame]) for frame in known[0].frames)
        distance = Distance(known[0].length_mm, known[0].accuracy_mm, ends)
        with about("known_length_mm"):
            factor = factor_for(distance, motions, known[0].scale, self.fixed)
        both = (scaled(values, factor, known[0].scale, self.fixed) for values in (motions, sigma))
        return factor, *both, correlation, [distance]

    def _groups(self) -> list[tuple[Any, Observations]]:
        """What is observed, with the knowledge that it is from."""
        found: list[tuple[Any, Observations]] = []
        points, places = self.kind(SamePoint), self.kind(SamePlace)
        if points:
            found.append((points, of_points(points, self.nodes, self.first_frame)))
        if places:
            found.append((places, of_places(places, self.nodes, self.first_frame)))
        return found + [(known, of_poses(known, self.nodes, self.first_frame)) for known in self.kind(KnownPoses)]

    def _entries(
        self,
        start: np.ndarray,
        path: np.ndarray,
        solution: Solution,
        groups: list[tuple[Any, Observations]],
        distances: list[Distance],
        factor: float | None,
    ) -> list[dict[str, Any]]:
        """What goes into the provenance."""
        said = [entries.of_limits(limits, self.named) for limits in self.kind(Limits)]
        said += [entries.of_scale(known) for known in self.kind(KnownScale)]
        for known, distance in zip(self.kind(KnownLength), distances, strict=True):
            lengths = distance.measured(start), distance.measured(solution.path)
            said.append(entries.of_length(known, factor, *lengths, self.first_frame))
        for (known, group), world in zip(groups, solution.worlds, strict=True):
            said.append(entries.of_observations(known, group, path, solution.path, world))
        return said

    def _trajectory(self, solution: Solution, said: list[dict[str, Any]], factor: float | None) -> Trajectory:
        """The given trajectory with the path of the nodes."""
        given, valid = self.given, self.given.valid
        nodes = self.nodes[valid]
        poses = given.poses.copy()
        poses[valid] = solution.path[nodes]
        sigma, frames = np.full((len(given) - 1, 6), np.nan), np.flatnonzero(valid)
        beside = np.diff(frames) == 1
        motions = np.vstack([np.zeros(6), solution.sigma])[np.where(np.diff(nodes) > 0, nodes[1:], 0)]
        sigma[frames[:-1][beside]] = motions[beside]
        covariance = np.full((len(given), 7), np.nan)
        rows, columns = np.triu_indices(3)
        covariance[valid, 0] = solution.length_mm[nodes] ** 2
        covariance[valid, 1:] = solution.covariance_mm2[nodes][:, rows, columns]
        provenance = dict(given.provenance)
        provenance[CORRECTIONS] = [*provenance.get(CORRECTIONS, ()), *said]
        provenance[STEP_ERROR_CORRELATION] = solution.correlation.tolist()
        if self.rule_percent is not None:
            provenance[DRIFT_BY_RULE] = self.rule_percent
        if warnings := entries.warnings(said):
            provenance["warnings"] = [*provenance.get("warnings", ()), *warnings]
        return replace(given, poses=poses, sigma=sigma, path_covariance=covariance, provenance=provenance)


def _with_poses(known: Knowledge, given: Trajectory) -> Knowledge:
    """Knowledge of poses without that of frames that have none in the path."""
    if not isinstance(known, KnownPoses):
        return known
    kept = np.array([0 <= frame < len(given) and bool(given.valid[frame]) for frame in known.frames])
    return known if kept.all() else replace(known, frames=known.frames[kept], poses=known.poses[kept])


def _require_frames(given: Trajectory, knowledge: Sequence[Knowledge], first_frame: int) -> None:
    """Refuse knowledge of frames that have no pose, and two known lengths."""
    for kind, what in ((KnownLength, "known length"), (KnownScale, "scanner profile"), (Limits, "set of limits")):
        if sum(isinstance(known, kind) for known in knowledge) > 1:
            raise InputError(f"More than one {what} is given; give one.")
    for known in knowledge:
        frames = known.stops if isinstance(known, Limits) else getattr(known, "frames", None)
        frames = np.ravel(() if frames is None else frames)
        lost = [int(frame) for frame in frames if not 0 <= frame < len(given) or not given.valid[int(frame)]]
        if lost:
            last = len(given) - 1 + first_frame
            raise InputError(
                f"Something is known of frame {lost[0] + first_frame}, which has no pose: the path has the frames "
                f"{first_frame} to {last}; name other frames."
            )
