"""Where results come from, as attributes of their nodes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from DualTrackCore.jobs import JobResult


def provenance_attributes(result: JobResult) -> dict[str, str]:
    """Node attributes that say how a result was made; what the result does not tell is left out.

    DualTrack.Model, .ModelSha256, .Spacing (mm across columns and down rows), .Precision, .Chunk (frames), .Device,
    .Version, .Date (ISO 8601) and .Settings (all settings as JSON). Poses that a tracker measured have no model.
    """
    told, trajectory = result.provenance, result.provenance.get("trajectory") or {}
    spacing = (told.get("sweep") or {}).get("spacing_mm")
    values = {
        "DualTrack.Model": trajectory.get("model"),
        "DualTrack.ModelSha256": trajectory.get("weights_sha256"),
        "DualTrack.Spacing": None if spacing is None else " ".join(f"{value:.9g}" for value in spacing),
        "DualTrack.Precision": trajectory.get("precision"),
        "DualTrack.Chunk": trajectory.get("chunk_frames"),
        "DualTrack.Device": trajectory.get("device"),
        "DualTrack.Version": told.get("dualtrack_version"),
        "DualTrack.Date": told.get("created"),
        "DualTrack.Settings": json.dumps(told.get("settings", {}), sort_keys=True),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def mark(nodes: Iterable[slicer.vtkMRMLNode], attributes: dict[str, str]) -> None:
    """Write the attributes to every node."""
    for node in nodes:
        for name, value in attributes.items():
            node.SetAttribute(name, value)
