"""How sure a trajectory is of its length and of where each frame lies, by the errors of its motions or by a rule, and
what its millimetres are good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from DualTrackCore.direction import UNSURE
from DualTrackCore.trajectory import PoseOrigin, Trajectory
from DualTrackCore.uncertainty import length_errors, position_covariances

#: Key of a provenance, and name in files: the percentage of the rule, so that a file says the same as the run.
DRIFT_BY_RULE = "drift_percent_by_rule"
#: Final drift in percent of the path, as it was found of weights that say nothing themselves, by what their training
#: saw (Docs/uncertainty.md). Recorded sweeps: users of the published weights report over 20 % on other probes and
#: phantoms. Simulated sweeps alone: `mini` 1 had 7 % on simulated sweeps that it had not seen; on recorded ones 46 and
#: 61 % on two legs, and 63 % on average on six sweeps of five other scanners. Untrained: as good as no motion at all.
_RECORDED, _SIMULATED, _SIMULATED_ONLY, _UNTRAINED = 20.0, 10.0, 60.0, 100.0
#: Standard deviations on either side that hold 95 % of a normal distribution.
TIMES_95 = 1.959964
#: Key of a provenance: what of the sweep lies outside of what the model was trained on, some of the words below.
OUTSIDE = "outside_training"
FIELD_OF_VIEW, FRAME_RATE, LONG_STEPS, SHORT_STEPS = "field of view", "frame rate", "long steps", "short steps"
#: Parts of the length that its 95 % error may reach: for a usable path, for one that a model states the error of, and
#: for one of which the rule of thumb knows it.
MOST_USABLE, MOST_STATED, MOST_BY_RULE = 0.2, 0.6, 1.0
TrustLevel = Literal["usable", "rough guide", "do not measure"]
USABLE, ROUGH, UNUSABLE = "usable", "rough guide", "do not measure"


@dataclass(frozen=True, eq=False)
class PathError:
    """The error that is to be expected of a trajectory of N frames.

    Attributes:
        length_mm: [N] standard deviation of the length of the path up to each frame.
        covariance_mm2: [N, 3, 3] of the position of each frame's centre in frame0, relative to the first valid frame.
        end_length_mm: standard deviation of the length of the whole path.
        rule_percent: where nothing is known of these poses but a rule of thumb: the standard deviation of the end, in
            percent of the path. None where the model itself says how sure it is.

    All is NaN where a pose is invalid, and from the first motion on of which the error is not known.
    """

    length_mm: np.ndarray
    covariance_mm2: np.ndarray
    end_length_mm: float
    rule_percent: float | None = None

    @property
    def axes_mm(self) -> np.ndarray:
        """[N, 3] standard deviation of each frame's position along the axes of frame0."""
        return np.sqrt(np.maximum(np.einsum("nii->ni", self.covariance_mm2), 0))

    @property
    def basis(self) -> str:
        """What the figures rest on, in words: "by rule of thumb", or "as the model says"."""
        return "as the model says" if self.rule_percent is None else "by rule of thumb"

    def radius_mm(self, share: float = 0.95) -> np.ndarray:
        """[N] radius of the ball around each frame's centre that holds the true one with probability `share`."""
        from scipy.special import ndtri

        # Squares of normal numbers along the three axes, evenly spread: multiples of the generalised golden ratio.
        squares = ndtri(np.arange(1, 2049)[:, None] * 1.2207440846 ** -np.arange(1, 4) % 1) ** 2
        radius = np.full(len(self.covariance_mm2), np.nan)
        known = np.flatnonzero(np.isfinite(self.covariance_mm2).all(axis=(1, 2)))
        for frame, variances in zip(known, np.linalg.eigvalsh(self.covariance_mm2[known]), strict=True):
            radius[frame] = np.sqrt(np.quantile(squares @ np.maximum(variances, 0), share))
        return radius

    @property
    def text(self) -> str:
        """Such as "+- 4.1 mm (95 %)", for people, after a length; says where it is a rule of thumb, or not known."""
        if not np.isfinite(self.end_length_mm):
            return "error not known"
        rule = "" if self.rule_percent is None else f", {self.basis}"
        return f"+- {TIMES_95 * self.end_length_mm:.1f} mm (95 %{rule})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report: the figures at the end of the path, in mm, what they rest on, and :attr:`text`."""
        return {
            "text": self.text,
            "basis": "model" if self.rule_percent is None else "rule of thumb",
            "rule_percent": self.rule_percent,
            "length_sd_mm": self.end_length_mm,
            "length_95_mm": TIMES_95 * self.end_length_mm,
            "largest_radius_95_mm": float(np.nanmax(self.radius_mm(), initial=0.0)),
        }


def path_error(trajectory: Trajectory) -> PathError | None:
    """The error of a trajectory along its path; None for poses that nobody estimated and that state no errors.

    Errors of the motions (`Trajectory.sigma`) are carried along the path with the correlation that was measured for the
    model. Where an estimate has none, the rule of thumb stands: the standard deviation of each position and length is
    a percentage of the path up to there (:func:`drift_percent`).
    """
    frames = np.flatnonzero(trajectory.valid)
    if not len(frames) or (trajectory.sigma is None and trajectory.origin is not PoseOrigin.ESTIMATED):
        return None
    known = trajectory.chosen(frames)
    length, covariance = np.full(len(trajectory), np.nan), np.full((len(trajectory), 3, 3), np.nan)
    percent = None
    if known.sigma is not None:
        model = known.poses, known.sigma, known.step_error_correlation
        length[frames], covariance[frames] = length_errors(*model), position_covariances(*model)
    else:
        percent = drift_percent(trajectory.provenance)
        length[frames] = percent / 100 * known.lengths_mm
        covariance[frames] = (length[frames] ** 2)[:, None, None] * np.eye(3) / 3
    return PathError(length, covariance, float(length[frames[-1]]), percent)


def drift_percent(provenance: Mapping[str, Any]) -> float:
    """The percentage of the rule of thumb for poses with this provenance; the larger one where it does not tell."""
    if (said := provenance.get(DRIFT_BY_RULE)) is not None:
        return float(said)
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
        level: "usable"; "rough guide": to look at, its millimetres are coarse; "do not measure".
        reasons: short sentences, the gravest first; empty for a usable path.
    """

    level: TrustLevel
    reasons: tuple[str, ...] = ()

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
    """How far the millimetres of an estimated path can be trusted; None for poses that nobody estimated.

    The worst rule decides (Docs/uncertainty.md).

    Args:
        trajectory: its provenance holds what tracking found out; poses of a file may come without that.
        turns: frames at which the pictures run back.
        evaluation: `Evaluation.as_dict()` against true poses; None where they are not known.
    """
    if trajectory.origin is not PoseOrigin.ESTIMATED:
        return None
    unusable, rough = _grave_reasons(trajectory.provenance, evaluation), _lesser_reasons(trajectory.provenance, turns)
    error, length = path_error(trajectory), trajectory.path_length_mm
    if error is not None and length > 0 and np.isfinite(error.end_length_mm):
        share, most = (
            TIMES_95 * error.end_length_mm / length,
            MOST_STATED if error.rule_percent is None else MOST_BY_RULE,
        )
        if share > MOST_USABLE:
            (unusable if share > most else rough).append(f"The length may be off by {share:.0%} ({error.basis}).")
    else:
        rough.append("How far the length is off is not known.")
    return Trust(UNUSABLE if unusable else ROUGH if rough else USABLE, (*unusable, *rough))


def _grave_reasons(said: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[str]:
    """Why nothing may be measured, by the provenance and the true poses."""
    own = still = None
    if evaluation is not None:
        own, still = evaluation["metrics"]["gpe_mm"], evaluation["baselines"]["identity"]["gpe_mm"]
    rules = (
        (said.get("model_trained") is False, "The weights are untrained."),
        ((said.get("model_input") or {}).get("far"), "The images are unlike those that the model was trained on."),
        (LONG_STEPS in (said.get(OUTSIDE) or ()), "The probe moved faster than in the training of the model."),
        (None not in (own, still) and not own < still, "The path is no better than no motion at all."),
    )
    return [sentence for applies, sentence in rules if applies]


def _lesser_reasons(said: Mapping[str, Any], turns: Sequence[int]) -> list[str]:
    """Why a path is no more than a rough guide, by the provenance and the frames at which the pictures run back."""
    outside = said.get(OUTSIDE)
    rules = (
        (outside is None, "The poses come without what was found when they were estimated."),
        (said.get("guess") and said.get("model_trained") is not False, "The model has only seen simulated sweeps."),
        (FIELD_OF_VIEW in (outside or ()), "The field of view is not one that the model was trained on."),
        (FRAME_RATE in (outside or ()), "The frame rate is not the one that the model was trained on."),
        (said.get("direction") == UNSURE, "It is unsure which way the sweep runs."),
        (said.get("views_left_out"), "Views of test-time augmentation disagree."),
        (len(turns) > 0, "The pictures run back."),
    )
    return [sentence for applies, sentence in rules if applies]
