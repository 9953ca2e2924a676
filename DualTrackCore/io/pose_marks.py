"""Marks: short texts beside poses in every format, on their origin, their errors and their corrections."""

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
from DualTrackCore.uncertainty import STEP_ERROR_FREEDOM, freedom_in

#: Origin of poses, model, its checksum, warnings of the run; whether they are a guess, the card's expected error.
ORIGIN, ESTIMATED_BY, WEIGHTS, WARNINGS = "origin", "estimated_by", "weights_sha256", "warnings"
GUESS, EXPECTED_ERROR = "guess", "expected_error"
#: Errors of an estimate: correlation between the errors of its motions (6 numbers), their degrees of freedom, or
#: percentage of the rule of thumb.
CORRELATION, FREEDOM, BY_RULE = STEP_ERROR_CORRELATION, STEP_ERROR_FREEDOM, DRIFT_BY_RULE
#: Names of the marks in headers of sequence metafiles, and in attributes of Slicer's nodes.
FIELDS = {
    ORIGIN: "DualTrackPosesOrigin",
    ESTIMATED_BY: "DualTrackPosesEstimatedBy",
    WEIGHTS: "DualTrackPosesWeightsSha256",
    GUESS: "DualTrackPosesGuess",
    EXPECTED_ERROR: "DualTrackPosesExpectedError",
    WARNINGS: "DualTrackPosesWarnings",
    TRUST: "DualTrackPosesTrust",
    CORRELATION: "DualTrackPosesStepErrorCorrelation",
    FREEDOM: "DualTrackPosesStepErrorFreedom",
    BY_RULE: "DualTrackPosesDriftPercentByRuleOfThumb",
    CORRECTIONS: "DualTrackPosesCorrections",
}
#: Header field of sequences with poses and of volumes, and what it says by the frame of reference that they lie in.
AXES_FIELD = "DualTrackAxes"
AXES = {
    "frame0": "left, posterior and superior are those of frame 0, not of the patient",
    "reference": "right, anterior and superior are those of the tracker's reference, not of the patient",
}
#: Field of a frame: standard deviations (6, mm and degrees) of the motion from the frame before.
SIGMA_FIELD = "DualTrackMotionSigma"
#: Field of a frame: `Trajectory.path_covariance` (7, mm squared).
COVARIANCE_FIELD = "DualTrackPathCovariance"
#: Longest text that is written or read, in characters; and of the corrections, which are JSON.
_LONGEST, _LONGEST_CORRECTIONS = 2000, 6000


def origin_marks(trajectory: Trajectory) -> dict[str, str]:
    """The marks of poses in a file, one line each, without unknown ones."""
    marks = _marks(with_trust(trajectory).provenance, trajectory.origin.value)
    if trajectory.sigma is not None:
        marks[CORRELATION] = " ".join(f"{value:.17g}" for value in trajectory.step_error_correlation)
        if (freedom := freedom_in(trajectory.provenance)) is not None:
            marks[FREEDOM] = f"{freedom:.17g}"
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
    texts = {name: _one_line(value) for name, value in marks.items() if value}
    if entries := plain_values(source.get(CORRECTIONS) or ()):
        text = json.dumps(entries)
        if len(text) > _LONGEST_CORRECTIONS:
            text = json.dumps([{"kind": entry["kind"], "text": entry["text"][:400]} for entry in entries[-8:]])
        texts[CORRECTIONS] = text
    return texts


def header_marks(trajectory: Trajectory | None) -> dict[str, str]:
    """:func:`origin_marks` with the names of :data:`FIELDS`; empty for None."""
    return {} if trajectory is None else {FIELDS[name]: text for name, text in origin_marks(trajectory).items()}


def header_marks_of(source: Mapping[str, Any], origin: str) -> dict[str, str]:
    """:func:`header_marks` from a provenance and the text of an origin, without the errors."""
    return {FIELDS[name]: text for name, text in _marks(source, origin).items()}


def errors_in(fields: FrameFields, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Errors of poses in the fields of frames: sigma [count - 1, 6] and covariance [count, 7], each or None."""
    sigma = fields.table(SIGMA_FIELD, count, 6)
    return None if sigma is None else sigma[1:], fields.table(COVARIANCE_FIELD, count, 7)


def marked_by(
    header: Mapping[str, str], trajectory: Trajectory | None, fields: FrameFields, count: int, unmarked: PoseOrigin
) -> tuple[Trajectory | None, list[str], dict[str, str]]:
    """:func:`marked` from the header and the frame fields of a sequence, and facts for the provenance of its frames.

    A volume has no poses, but the trust of the path that it was made with.
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
    """The trajectory with the marks of a file, and sentences for poses that are no ground truth.

    Args:
        trajectory: as read; None for a file without poses.
        marks: as from :func:`origin_marks`; None or missing if the file does not state one.
        unmarked: origin of poses in this format if the file does not state it.
        sigma: [N - 1, 6] errors of the motions in the file; invalid ones are left out with a note.
        covariance: [N, 7] `Trajectory.path_covariance`; likewise.
    """
    if trajectory is None:
        return None, []
    corrections = _corrections(marks.get(CORRECTIONS))
    texts = {name: _one_line(value) for name, value in marks.items() if value is not None}
    names = {"model": ESTIMATED_BY, "weights_sha256": WEIGHTS, "model_expected_error": EXPECTED_ERROR}
    facts = {name: texts.get(mark) for name, mark in names.items()} | {"guess": texts.get(GUESS) == str(True)}
    facts[CORRELATION] = _limited(texts.get(CORRELATION, ""), 6, 1)
    freedom = _limited(texts.get(FREEDOM, ""), 1, 1e6)
    facts[FREEDOM] = freedom if freedom is not None and freedom > 2 else None
    facts[BY_RULE] = _limited(texts.get(BY_RULE, ""), 1, 1000)
    facts[TRUST] = texts.get(TRUST) if Trust.from_text(texts.get(TRUST)) else None
    facts[CORRECTIONS] = corrections
    provenance = {**trajectory.provenance, **{name: value for name, value in facts.items() if value}}
    notes = []
    try:
        trajectory = replace(trajectory, sigma=sigma, path_covariance=covariance)
    except InputError as error:
        notes.append(f"The errors of the motions in the file are left out. {error}")
    if texts.get(WARNINGS):
        provenance["warnings"] = list(dict.fromkeys([*provenance.get("warnings", ()), texts[WARNINGS]]))
    origin = PoseOrigin.worst([texts[ORIGIN]]) if ORIGIN in texts else unmarked
    result = replace(trajectory, provenance=provenance, origin=origin)
    if not result.origin.is_truth:
        notes.append(f"The poses are {result.origin_text}, so errors cannot be measured against them.")
    return result, notes


def _corrections(text: object) -> list[dict[str, Any]]:
    """The corrections in a JSON text; none if it is not a list of them."""
    try:
        entries = json.loads(text.decode("utf-8") if isinstance(text, bytes) else str(text))
    except (ValueError, RecursionError):
        return []
    entries = entries if isinstance(entries, list) else []
    return [one for one in entries if isinstance(one, dict) and {type(one.get("kind")), type(one.get("text"))} == {str}]


def _limited(text: str, count: int, most: float) -> list[float] | float | None:
    """The `count` numbers from 0 to `most` in a text, a single one as a float; None for anything else."""
    values = numbers(text, count)
    if values is None or not all(0 <= value <= most for value in values):
        return None
    return list(values) if count > 1 else values[0]


def _one_line(value: object) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.split())[:_LONGEST]
