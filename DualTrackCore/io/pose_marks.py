"""The few texts beside poses by which every format says where they are from, how sure they are, what corrected them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import plain_values
from DualTrackCore.io.sequence_parts import FrameFields, numbers
from DualTrackCore.path_error import CORRECTIONS, DRIFT_BY_RULE, TRUST, Trust, drift_percent, with_trust
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, PoseOrigin, Trajectory

#: What is said of poses: origin, model, its checksum, warnings of the run; whether a guess, and what the card expects.
ORIGIN, ESTIMATED_BY, WEIGHTS, WARNINGS = "origin", "estimated_by", "weights_sha256", "warnings"
GUESS, EXPECTED_ERROR = "guess", "expected_error"
#: How sure an estimate is: what its motions' errors have in common (6 numbers), or the percentage of the rule of thumb.
CORRELATION, BY_RULE = STEP_ERROR_CORRELATION, DRIFT_BY_RULE
#: Names of the header fields of sequence metafiles, and of the attributes of Slicer's nodes.
FIELDS = {
    ORIGIN: "DualTrackPosesOrigin",
    ESTIMATED_BY: "DualTrackPosesEstimatedBy",
    WEIGHTS: "DualTrackPosesWeightsSha256",
    GUESS: "DualTrackPosesGuess",
    EXPECTED_ERROR: "DualTrackPosesExpectedError",
    WARNINGS: "DualTrackPosesWarnings",
    TRUST: "DualTrackPosesTrust",
    CORRELATION: "DualTrackPosesStepErrorCorrelation",
    BY_RULE: "DualTrackPosesDriftPercentByRuleOfThumb",
    CORRECTIONS: "DualTrackPosesCorrections",
}
#: Field of a frame: standard deviations (6, mm and degrees) of the motion to it from the frame before.
SIGMA_FIELD = "DualTrackMotionSigma"
#: Field of a frame: `Trajectory.path_covariance` (7, mm squared).
COVARIANCE_FIELD = "DualTrackPathCovariance"
#: Longest text that is written or believed, in characters; of the corrections, which are JSON.
_LONGEST, _LONGEST_CORRECTIONS = 2000, 6000


def origin_marks(trajectory: Trajectory) -> dict[str, str]:
    """The texts that go beside poses into a file: each one line; what is not known is left out."""
    marks = _marks(with_trust(trajectory).provenance, trajectory.origin.value)
    if trajectory.sigma is not None:
        marks[CORRELATION] = " ".join(f"{value:.17g}" for value in trajectory.step_error_correlation)
    if (
        trajectory.sigma is None and trajectory.origin is PoseOrigin.ESTIMATED
    ) or DRIFT_BY_RULE in trajectory.provenance:
        marks[BY_RULE] = f"{drift_percent(trajectory.provenance):.17g}"
    return marks


def _marks(source: Mapping[str, Any], origin: str) -> dict[str, str]:
    warnings = source.get("warnings") or ()
    marks = {
        ORIGIN: origin,
        ESTIMATED_BY: source.get("model"),
        WEIGHTS: source.get("weights_sha256"),
        GUESS: str(True) if source.get("guess") is True else None,
        EXPECTED_ERROR: source.get("model_expected_error"),
        WARNINGS: " ".join(map(str, [warnings] if isinstance(warnings, str) else warnings)),
        TRUST: source.get(TRUST),
    }
    found = {name: _one_line(value) for name, value in marks.items() if value}
    if entries := plain_values(source.get(CORRECTIONS) or ()):
        text = json.dumps(entries)
        if len(text) > _LONGEST_CORRECTIONS:
            text = json.dumps([{"kind": entry["kind"], "text": entry["text"][:400]} for entry in entries[-8:]])
        found[CORRECTIONS] = text
    return found


def header_marks(trajectory: Trajectory | None) -> dict[str, str]:
    """The same under the names of :data:`FIELDS`; empty for no poses."""
    return {} if trajectory is None else {FIELDS[name]: text for name, text in origin_marks(trajectory).items()}


def header_marks_of(source: Mapping[str, Any], origin: str) -> dict[str, str]:
    """:func:`header_marks` of poses with this provenance and the text of their origin, but for how sure they are."""
    return {FIELDS[name]: text for name, text in _marks(source, origin).items()}


def errors_in(fields: FrameFields, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What the fields of frames say of the errors of poses: sigma [count - 1, 6] and covariance [count, 7]."""
    sigma = fields.table(SIGMA_FIELD, count, 6)
    return None if sigma is None else sigma[1:], fields.table(COVARIANCE_FIELD, count, 7)


def marked_by(
    header: Mapping[str, str], trajectory: Trajectory | None, fields: FrameFields, count: int, unmarked: PoseOrigin
) -> tuple[Trajectory | None, list[str], dict[str, str]]:
    """:func:`marked` by the header and the fields of frames of a sequence, and facts for the provenance of its frames.

    A volume has no poses and says how far the path of its frames can be trusted.
    """
    marks = {name: header.get(field) for name, field in FIELDS.items()}
    facts = {TRUST: marks[TRUST]} if trajectory is None and Trust.from_text(marks[TRUST]) else {}
    return *marked(trajectory, marks, unmarked, *errors_in(fields, count)), facts


def marked(
    trajectory: Trajectory | None,
    marks: Mapping[str, object],
    unmarked: PoseOrigin,
    sigma: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
) -> tuple[Trajectory | None, list[str]]:
    """The trajectory with what a file says of where its poses are from, and sentences for poses that are no truth.

    Args:
        trajectory: as read; None for a file without poses.
        marks: as :func:`origin_marks` gives them; None or nothing for what the file does not say.
        unmarked: what poses are by the nature of the format where the file says nothing.
        sigma: the errors of the motions as the file has them; what are none is left out and said.
        covariance: `Trajectory.path_covariance`; likewise.
    """
    if trajectory is None:
        return None, []
    corrections = _corrections(marks.get(CORRECTIONS))
    said = {name: _one_line(value) for name, value in marks.items() if value is not None}
    names = {"model": ESTIMATED_BY, "weights_sha256": WEIGHTS, "model_expected_error": EXPECTED_ERROR}
    facts = {name: said.get(mark) for name, mark in names.items()} | {"guess": said.get(GUESS) == str(True)}
    facts[CORRELATION] = _limited(said.get(CORRELATION, ""), 6, 1)
    facts[BY_RULE] = _limited(said.get(BY_RULE, ""), 1, 1000)
    facts[TRUST] = said.get(TRUST) if Trust.from_text(said.get(TRUST)) else None
    facts[CORRECTIONS] = corrections
    provenance = {**trajectory.provenance, **{name: value for name, value in facts.items() if value}}
    notes = []
    try:
        trajectory = replace(trajectory, sigma=sigma, path_covariance=covariance)
    except InputError as error:
        notes.append(f"The errors of the motions in the file are left out. {error}")
    if said.get(WARNINGS):
        provenance["warnings"] = list(dict.fromkeys([*provenance.get("warnings", ()), said[WARNINGS]]))
    origin = PoseOrigin.worst([said[ORIGIN]]) if ORIGIN in said else unmarked
    found = replace(trajectory, provenance=provenance, origin=origin)
    if not found.origin.is_truth:
        notes.append(f"The poses are {found.origin_text}; they are no truth to measure errors against.")
    return found, notes


def _corrections(text: object) -> list[dict[str, Any]]:
    """The entries in a text; none where it is no list of them."""
    try:
        entries = json.loads(text.decode("utf-8") if isinstance(text, bytes) else str(text))
    except (ValueError, RecursionError):
        return []
    entries = entries if isinstance(entries, list) else []
    return [one for one in entries if isinstance(one, dict) and {type(one.get("kind")), type(one.get("text"))} == {str}]


def _limited(text: str, count: int, most: float) -> list[float] | float | None:
    """The `count` numbers from 0 to `most` in a text, a single one by itself; None for anything else."""
    values = numbers(text, count)
    if values is None or not all(0 <= value <= most for value in values):
        return None
    return list(values) if count > 1 else values[0]


def _one_line(value: object) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.split())[:_LONGEST]
