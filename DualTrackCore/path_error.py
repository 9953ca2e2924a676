"""The error of a trajectory: its direction along the sweep, the errors of its length and positions (from the errors of
its motions, or by a rule of thumb), and what its millimetres are good for.

Speckle gives the elevational distance between two frames, without its sign. A sweep that runs the other way is mirrored
at the image plane: tz, rx and ry of every motion change sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from DualTrackCore.errors import InputError, named
from DualTrackCore.trajectory import PoseOrigin, Trajectory
from DualTrackCore.uncertainty import freedom_in, length_errors, position_covariances, times_holding

#: Choices: from the direction head of the weights, as the motions are without that head, or mirrored.
Direction = Literal["auto", "as-found", "other-way"]
#: Values of `direction` in the provenance of a trajectory; the last one for weights without a direction head.
SURE, UNSURE, TOLD, AS_WEIGHTS_SAY = "sure", "unsure", "told by the user", "as the weights say"
#: [4, 4] mirror at the image plane.
IMAGE_MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
#: [6] signs of the parameters of a motion under that mirror.
OTHER_WAY_SIGNS = np.array([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
#: [7] signs of `Trajectory.path_covariance` under it: xz and yz change sign.
_COVARIANCE_SIGNS = np.array([1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
for _constant in (IMAGE_MIRROR, OTHER_WAY_SIGNS):
    _constant.flags.writeable = False
#: Key of a provenance, and name in files: the percentage of the rule of thumb that the run used.
DRIFT_BY_RULE = "drift_percent_by_rule"
#: Final drift in percent of the path for weights that state no errors, by their training data (Docs/uncertainty.md).
#: Recorded sweeps: users of the published weights report over 20 % on other probes and phantoms. Simulated sweeps only:
#: `mini` 1 had 7 % on new simulated sweeps; on recorded ones 46 and 61 % (two legs) and 63 % on average (six sweeps of
#: five other scanners). Untrained: no better than no motion at all.
_RECORDED, _SIMULATED, _SIMULATED_ONLY, _UNTRAINED = 20.0, 10.0, 60.0, 100.0
#: [3, 3] index into `Trajectory.path_covariance` of each entry of the symmetric covariance of a position.
_SYMMETRIC = np.array([[1, 2, 3], [2, 4, 5], [3, 5, 6]])
#: Key of a provenance: what in the sweep differs from the model's training data, a list of the words below.
OUTSIDE = "outside_training"
FIELD_OF_VIEW, FRAME_RATE, LONG_STEPS, SHORT_STEPS = "field of view", "frame rate", "long steps", "short steps"
#: Largest 95 % error as a part of the length: of a usable path; of a path to look at, if the model states the error; of
#: such a path if the error is by rule of thumb.
MOST_USABLE, MOST_STATED, MOST_BY_RULE = 0.2, 0.6, 1.0
TrustLevel = Literal["usable", "rough guide", "do not measure"]
USABLE, ROUGH, UNUSABLE = "usable", "rough guide", "do not measure"
#: Key of a provenance, and name in files: :attr:`Trust.text`, one line that goes with every result made from a path.
TRUST = "trust"
#: Key of a provenance, and name in files: one mapping for each correction of the path, in their order
#: (:mod:`DualTrackCore.corrections`): "kind", "given", its effect, and a sentence, "text".
CORRECTIONS = "corrections"
AS_MODEL_SAYS, BY_RULE = "as the model says", "by rule of thumb"


@dataclass(frozen=True, eq=False)
class PathError:
    """The expected error of a trajectory of N frames.

    Attributes:
        length_mm: [N] standard deviation of the length of the path up to each frame.
        covariance_mm2: [N, 3, 3] of the position of each frame's centre in frame0, relative to the first valid frame.
        end_length_mm: standard deviation of the length of the whole path.
        rule_percent: standard deviation of the end in percent of the path, if the errors are by rule of thumb. None if
            the model states errors.
        freedom: degrees of freedom of the errors (:mod:`~DualTrackCore.uncertainty`); None if they are normal.

    Values are NaN where a pose is invalid, and after the first motion whose error is not known.
    """

    length_mm: np.ndarray
    covariance_mm2: np.ndarray
    end_length_mm: float
    rule_percent: float | None = None
    freedom: float | None = None

    @property
    def times_95(self) -> float:
        """Standard deviations on either side that hold 95 % of the errors."""
        return times_holding(0.95, self.freedom)

    @property
    def axes_mm(self) -> np.ndarray:
        """[N, 3] standard deviation of each frame's position along the axes of frame0."""
        return np.sqrt(np.maximum(np.einsum("nii->ni", self.covariance_mm2), 0))

    @property
    def basis(self) -> str:
        """Source of the errors, in words: "by rule of thumb" or "as the model says"."""
        return AS_MODEL_SAYS if self.rule_percent is None else BY_RULE

    def radius_mm(self, share: float = 0.95) -> np.ndarray:
        """[N] radius of the ball around each frame's centre that holds the true one with probability `share`."""
        squares = _squared_errors(self.freedom)
        radius = np.full(len(self.covariance_mm2), np.nan)
        known = np.flatnonzero(np.isfinite(self.covariance_mm2).all(axis=(1, 2)))
        for frames in np.split(known, range(128, len(known), 128)):
            variances = np.maximum(np.linalg.eigvalsh(self.covariance_mm2[frames]), 0)
            # One product per frame: one product of matrices would round differently.
            sums = np.array([squares @ of_frame for of_frame in variances]).reshape(-1, len(squares))
            radius[frames] = np.sqrt(np.quantile(sums, share, axis=1, overwrite_input=True))
        return radius

    @property
    def text(self) -> str:
        """Text after a length, such as "+- 4.1 mm (95 %)"; also says if it is by rule of thumb, or not known."""
        if not np.isfinite(self.end_length_mm):
            return "error not known"
        rule = "" if self.rule_percent is None else f", {self.basis}"
        return f"+- {self.times_95 * self.end_length_mm:.1f} mm (95 %{rule})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report: errors at the end of the path, mm, their source, and :attr:`text`."""
        return {
            "text": self.text,
            "basis": "model" if self.rule_percent is None else "rule of thumb",
            "rule_percent": self.rule_percent,
            "length_sd_mm": self.end_length_mm,
            "length_95_mm": self.times_95 * self.end_length_mm,
            "largest_radius_95_mm": float(np.nanmax(self.radius_mm(), initial=0.0)),
        }


@cache
def _squared_errors(freedom: float | None) -> np.ndarray:
    """[n, 3] squares of errors of variance 1 along three axes, evenly over their distribution."""
    from scipy.special import gammaincinv, ndtri

    # Quasi-random: multiples of powers of the generalised golden ratio, of as many dimensions.
    if freedom is None:
        return ndtri(np.arange(1, 2049)[:, None] * 1.2207440846 ** -np.arange(1, 4) % 1) ** 2
    evenly = np.arange(1, 4097)[:, None] * 1.1673039783 ** -np.arange(1, 5) % 1
    chi_squared = 2 * gammaincinv(freedom / 2, evenly[:, 3:])
    return ndtri(evenly[:, :3]) ** 2 * (freedom - 2) / chi_squared


def path_error(trajectory: Trajectory) -> PathError | None:
    """The error of a trajectory along its path; None for poses that are not estimated and state no errors.

    Errors of the motions (`Trajectory.sigma`) are propagated along the path with the correlation measured for the
    model. An estimate without them uses the rule of thumb: the standard deviation of each position and length is a
    percentage of the path up to there (:func:`drift_percent`). A corrected path has the covariances of its correction;
    these are by rule of thumb if the errors before were.
    """
    frames = np.flatnonzero(trajectory.valid)
    if not len(frames) or (trajectory.sigma is None and trajectory.origin is not PoseOrigin.ESTIMATED):
        return None
    tracked = trajectory.chosen(frames)
    length, covariance = np.full(len(trajectory), np.nan), np.full((len(trajectory), 3, 3), np.nan)
    percent = trajectory.provenance.get(DRIFT_BY_RULE)
    if tracked.path_covariance is not None:
        length[frames] = np.sqrt(tracked.path_covariance[:, 0])
        covariance[frames] = tracked.path_covariance[:, _SYMMETRIC]
    elif tracked.sigma is not None:
        model = tracked.poses, tracked.sigma, tracked.step_error_correlation
        length[frames], covariance[frames] = length_errors(*model), position_covariances(*model)
    else:
        percent = drift_percent(trajectory.provenance)
        length[frames] = percent / 100 * tracked.lengths_mm
        covariance[frames] = (length[frames] ** 2)[:, None, None] * np.eye(3) / 3
    freedom = None if percent is not None else freedom_in(trajectory.provenance)
    return PathError(length, covariance, float(length[frames[-1]]), percent, freedom)


def drift_percent(provenance: Mapping[str, Any]) -> float:
    """The percentage of the rule of thumb for poses with this provenance; the larger one if that is unclear."""
    if (percent := provenance.get(DRIFT_BY_RULE)) is not None:
        return float(percent)
    if provenance.get("model_trained") is False:
        return _UNTRAINED
    simulated_only = provenance.get("model_simulated_only")
    if simulated_only is False:
        return _RECORDED
    return _SIMULATED if simulated_only and provenance.get("guess") is False else _SIMULATED_ONLY


@dataclass(frozen=True)
class Trust:
    """What an estimated path is good for.

    Attributes:
        level: "usable"; "rough guide" (to look at; millimetres are coarse); "do not measure".
        reasons: short sentences, the gravest first; empty for a usable path.
    """

    level: TrustLevel
    reasons: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: object) -> Trust | None:
        """The inverse of :attr:`text`; the worst of several levels, None for a text without a level."""
        worst = next((level for level in (UNUSABLE, ROUGH, USABLE) if level in str(text)), None)
        reasons = re.split(r"(?<=\.) (?=[A-Z])", str(text).partition(": ")[2])
        return None if worst is None else cls(worst, tuple(filter(None, reasons)))

    @property
    def text(self) -> str:
        """One line for people, such as "do not measure: The weights are untrained."."""
        return f"{self.level}: {' '.join(self.reasons)}" if self.reasons else self.level

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report; the fields and :attr:`text`."""
        return {"level": self.level, "reasons": list(self.reasons), "text": self.text}


def trust_in(
    trajectory: Trajectory, turns: Sequence[int] = (), evaluation: Mapping[str, Any] | None = None
) -> Trust | None:
    """How far the millimetres of an estimated path can be trusted; None for poses that are not estimated.

    The worst rule decides (Docs/uncertainty.md). A rule that cannot be checked now keeps its result in the provenance.

    Args:
        trajectory: its provenance holds the results of tracking, or the line of a file (:data:`TRUST`).
        turns: frames at which the pictures run back.
        evaluation: `Evaluation.as_dict()` against true poses; None if they are not known.
    """
    if trajectory.origin is not PoseOrigin.ESTIMATED:
        return None
    error, length = path_error(trajectory), trajectory.path_length_mm
    if error is None or not (length > 0 and np.isfinite(error.end_length_mm)):
        return trust_with(trajectory, None, False, turns, evaluation)
    share = error.times_95 * error.end_length_mm / length
    return trust_with(trajectory, share, error.rule_percent is not None, turns, evaluation)


def trust_with(
    trajectory: Trajectory,
    share: float | None,
    by_rule: bool,
    turns: Sequence[int] = (),
    evaluation: Mapping[str, Any] | None = None,
    what: str = "length",
) -> Trust:
    """:func:`trust_in` of an estimate, for another figure than the length of the path.

    Args:
        trajectory, turns, evaluation: as for `trust_in`.
        share: 95 % error as a part of the figure; None if it is not known.
        by_rule: whether the error is by rule of thumb.
        what: name of the figure, one word.
    """
    old = Trust.from_text(trajectory.provenance.get(TRUST)) or Trust(USABLE)
    rules = _grave_rules(trajectory.provenance, evaluation), _lesser_rules(trajectory.provenance, turns)
    unusable, rough = (
        [sentence for applies, sentence in part if (sentence in old.reasons if applies is None else applies)]
        for part in rules
    )
    ours = (*_off_by("length"), *(sentence for part in rules for _, sentence in part))
    (unusable if old.level == UNUSABLE else rough).extend(text for text in old.reasons if not text.startswith(ours))
    if share is None:
        rough.append(_off_by(what)[1])
    elif share > MOST_USABLE:
        most, basis = (MOST_BY_RULE, BY_RULE) if by_rule else (MOST_STATED, AS_MODEL_SAYS)
        (unusable if share > most else rough).append(f"{_off_by(what)[0]} {share:.0%} ({basis}).")
    return Trust(UNUSABLE if unusable else ROUGH if rough else USABLE, (*unusable, *rough))


def _off_by(what: str) -> tuple[str, str]:
    """Begin of the sentence on the error of a figure, and the sentence if that error is not known."""
    return f"The {what} may be off by", f"How far the {what} is off is not known."


def trust_line(trajectory: Trajectory) -> str:
    """The line of :class:`Trust` in the provenance, or a new one; empty for poses that are not estimated."""
    if trajectory.origin is not PoseOrigin.ESTIMATED:
        return ""
    return str(trajectory.provenance.get(TRUST) or trust_in(trajectory).text)


def with_trust(trajectory: Trajectory, line: str = "") -> Trajectory:
    """Poses with `line` (or their :func:`trust_line`) in the provenance; unchanged if they are not estimated."""
    line = line or trust_line(trajectory)
    return replace(trajectory, provenance={**trajectory.provenance, TRUST: line}) if line else trajectory


#: Whether a rule applies (None if that is not known), and its sentence.
_Rules = tuple[tuple[bool | None, str], ...]


def _grave_rules(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> _Rules:
    """Rules after which nothing may be measured, from the provenance and the true poses."""
    outside, trained = facts.get(OUTSIDE), facts.get("model_trained")
    gpe_mm = identity_gpe_mm = None
    if evaluation is not None:
        gpe_mm, identity_gpe_mm = evaluation["metrics"]["gpe_mm"], evaluation["baselines"]["identity"]["gpe_mm"]
    not_better = None if None in (gpe_mm, identity_gpe_mm) else not gpe_mm < identity_gpe_mm
    return (
        (None if trained is None else not trained, "The weights are untrained."),
        ((facts.get("model_input") or {}).get("far"), "The images are unlike those that the model was trained on."),
        (
            None if outside is None else LONG_STEPS in outside,
            "The probe moved faster than in the training of the model.",
        ),
        (not_better, "The path is no better than no motion at all."),
    )


def _lesser_rules(facts: Mapping[str, Any], turns: Sequence[int]) -> _Rules:
    """Rules after which a path is only a rough guide, from the provenance and the frames of turns."""
    outside, trained, direction = facts.get(OUTSIDE), facts.get("model_trained"), facts.get("direction")
    carries = TRUST in facts
    return (
        (None if carries else outside is None, "The poses come without what was found when they were estimated."),
        (
            None if carries and trained is None else facts.get("guess") is True and trained is not False,
            "The model has only seen simulated sweeps.",
        ),
        (
            None if outside is None else FIELD_OF_VIEW in outside,
            "The field of view is not one that the model was trained on.",
        ),
        (
            None if outside is None else FRAME_RATE in outside,
            "The frame rate is not the one that the model was trained on.",
        ),
        (None if direction is None else direction == UNSURE, "It is unsure which way the sweep runs."),
        (facts.get("views_left_out"), "Views of test-time augmentation disagree."),
        (True if len(turns) else None, "The pictures run back."),
    )


def turned_over(trajectory: Trajectory) -> Trajectory:
    """The path of the same sweep running the other way: mirrored at the image plane of frame0, which does not move.

    In its provenance, `direction` says that the user chose it, and `turned_over` keeps the value before; turning it
    over again gives the first trajectory bit for bit.

    Raises InputError: the poses are measured or simulated, so their direction is known.
    """
    if trajectory.origin.is_truth:
        raise InputError(
            f"The poses are {trajectory.origin_text} and cannot be turned over; only estimated ones can run the other "
            f"way. Leave {named('direction')} out."
        )
    covariance = trajectory.path_covariance
    if covariance is not None:
        covariance = covariance * _COVARIANCE_SIGNS
    facts = turned_provenance(trajectory.provenance)
    return replace(trajectory, poses=mirrored_poses(trajectory.poses), path_covariance=covariance, provenance=facts)


def turned_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of a trajectory that was turned over, from that of the trajectory."""
    facts = dict(provenance)
    if facts.get("direction_log_odds") is not None:
        facts["direction_log_odds"] = -facts["direction_log_odds"]
    if "turned_over" in facts:
        former = {"direction": facts.pop("turned_over")}
    else:
        former = {"turned_over": facts.get("direction"), "direction": TOLD}
    facts |= former | {"direction_mirrored": not facts.get("direction_mirrored", False)}
    if facts["direction"] is None:
        del facts["direction"], facts["direction_mirrored"]
    return facts


def mirrored_poses(poses: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] in frame0, or from frame to frame, of the same sweep running the other way; exact."""
    signs = np.diag(IMAGE_MIRROR)
    return poses * np.outer(signs, signs)


def direction_of(provenance: Mapping[str, Any]) -> Direction:
    """The setting with which a run gives the same direction as a trajectory of this provenance."""
    if provenance.get("direction") != TOLD:
        return "auto"
    return "other-way" if provenance.get("direction_mirrored") else "as-found"


def direction_warnings(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for the user if the direction of the trajectory is unsure."""
    if provenance.get("direction") != UNSURE:
        return []
    return [
        "It is unsure which way along the sweep the probe moved. If the volume is a mirror image, turn it over: run "
        "with the direction other-way, or press “Runs the other way” in Slicer."
    ]
