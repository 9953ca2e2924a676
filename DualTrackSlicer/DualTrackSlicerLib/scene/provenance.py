"""Where results come from, as attributes of their nodes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


def provenance_attributes(result: RunResult) -> dict[str, str]:
    """Node attributes that say how a result was made; what the result does not tell is left out.

    DualTrack.Model, .ModelSha256, .Spacing (mm across columns and down rows), .Precision, .Chunk (frames), .Device,
    .Version, .Date (ISO 8601) and .Settings (all settings as JSON). Poses that a tracker measured have no model.
    """
    report = result.report
    spacing, source = report.sweep.get("spacing_mm"), report.trajectory["source"]
    values = {
        "DualTrack.Model": source.get("model"),
        "DualTrack.ModelSha256": source.get("weights_sha256"),
        "DualTrack.Spacing": None if spacing is None else " ".join(f"{value:.9g}" for value in spacing),
        "DualTrack.Precision": source.get("precision"),
        "DualTrack.Chunk": source.get("chunk_frames"),
        "DualTrack.Device": source.get("device"),
        "DualTrack.Version": report.dualtrack_version,
        "DualTrack.Date": report.created,
        "DualTrack.Settings": json.dumps(report.settings, sort_keys=True),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def mark(nodes: Iterable[slicer.vtkMRMLNode], attributes: dict[str, str]) -> None:
    """Write the attributes to every node."""
    for node in nodes:
        for name, value in attributes.items():
            node.SetAttribute(name, value)
