"""Where poses are from, as every format that carries poses says it: a few texts beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from DualTrackCore.trajectory import PoseOrigin, Trajectory

#: What is said of poses: their origin, the model, its checksum, whether they are a guess, what the model's card says of
#: the error, and the warnings of the run.
ORIGIN, ESTIMATED_BY, WEIGHTS, WARNINGS = "origin", "estimated_by", "weights_sha256", "warnings"
GUESS, EXPECTED_ERROR = "guess", "expected_error"
#: Names of the header fields of sequence metafiles, and of the attributes of Slicer's nodes.
FIELDS = {
    ORIGIN: "DualTrackPosesOrigin",
    ESTIMATED_BY: "DualTrackPosesEstimatedBy",
    WEIGHTS: "DualTrackPosesWeightsSha256",
    GUESS: "DualTrackPosesGuess",
    EXPECTED_ERROR: "DualTrackPosesExpectedError",
    WARNINGS: "DualTrackPosesWarnings",
}
#: Longest text that is written or believed, in characters.
_LONGEST = 2000


def origin_marks(trajectory: Trajectory) -> dict[str, str]:
    """The texts that go beside poses into a file: each one line; what is not known is left out."""
    return _marks(trajectory.provenance, trajectory.origin.value)


def _marks(source: Mapping[str, Any], origin: str) -> dict[str, str]:
    warnings = source.get("warnings") or ()
    marks = {
        ORIGIN: origin,
        ESTIMATED_BY: source.get("model"),
        WEIGHTS: source.get("weights_sha256"),
        GUESS: str(True) if source.get("guess") is True else None,
        EXPECTED_ERROR: source.get("model_expected_error"),
        WARNINGS: " ".join(map(str, [warnings] if isinstance(warnings, str) else warnings)),
    }
    return {name: _one_line(value) for name, value in marks.items() if value}


def header_marks(trajectory: Trajectory | None) -> dict[str, str]:
    """The same under the names of :data:`FIELDS`; empty for no poses."""
    return {} if trajectory is None else header_marks_of(trajectory.provenance, trajectory.origin.value)


def header_marks_of(source: Mapping[str, Any], origin: str) -> dict[str, str]:
    """:func:`header_marks` of poses with this provenance and the text of their origin."""
    return {FIELDS[name]: text for name, text in _marks(source, origin).items()}


def marked(
    trajectory: Trajectory | None, marks: Mapping[str, object], unmarked: PoseOrigin
) -> tuple[Trajectory | None, list[str]]:
    """The trajectory with what a file says of where its poses are from, and sentences for poses that are no truth.

    Args:
        trajectory: as read; None for a file without poses.
        marks: as :func:`origin_marks` gives them; None or nothing for what the file does not say.
        unmarked: what poses are by the nature of the format where the file says nothing.
    """
    if trajectory is None:
        return None, []
    said = {name: _one_line(value) for name, value in marks.items() if value is not None}
    names = {"model": ESTIMATED_BY, "weights_sha256": WEIGHTS, "model_expected_error": EXPECTED_ERROR}
    facts = {name: said.get(mark) for name, mark in names.items()} | {"guess": said.get(GUESS) == str(True)}
    provenance = {**trajectory.provenance, **{name: value for name, value in facts.items() if value}}
    notes = []
    if said.get(WARNINGS):
        provenance["warnings"] = list(dict.fromkeys([*provenance.get("warnings", ()), said[WARNINGS]]))
    origin = PoseOrigin.worst([said[ORIGIN]]) if ORIGIN in said else unmarked
    found = replace(trajectory, provenance=provenance, origin=origin)
    if not found.origin.is_truth:
        notes.append(f"The poses are {found.origin_text}; they are no truth to measure errors against.")
    return found, notes


def _one_line(value: object) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.split())[:_LONGEST]
