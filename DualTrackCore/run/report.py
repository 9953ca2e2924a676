"""What a run says of itself: the content of report.json, one schema with a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from DualTrackCore.errors import InputError
from DualTrackCore.plain import json_text, plain_values
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.version import __version__

if TYPE_CHECKING:
    from DualTrackCore.evaluation import Evaluation
    from DualTrackCore.reconstruction import Reconstruction
    from DualTrackCore.run.settings import RunSettings

NOTICE = "Research use only; not for diagnosis. Millimetres are estimates."
#: Of the schema below; 1 had no settings and no frame range.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class RunReport:
    """The facts and figures of one run, as plain values.

    Attributes:
        sweep: the frames used: `sweep_facts`, with "first_frame", the index in the whole sweep of the first of them.
        trajectory: "poses", "valid_poses", "path_length_mm", and "source": the provenance of the poses (model,
            weights_sha256, device, precision, chunk_frames, warnings, ...).
        settings: `RunSettings.as_dict()`, files named from the root.
        volume: "size", "spacing_mm", "origin_mm", "description", "covered_fraction", "filled_fraction", "frames_used",
            "frames_skipped" and "settings" of the reconstruction; None without a volume.
        evaluation: `Evaluation.as_dict()` against the tracking; None where a tracker measured nothing.
        warnings: sentences for the user.
        files: names of the files beside the report; empty until they are written.
        about: a sentence on what the figures mean; empty for most runs.
        created: when the run ended, ISO 8601, UTC.
        dualtrack_version: of the program.
        notice: what the result must not be used for.
        schema_version: of these fields.
    """

    settings: Mapping[str, Any]
    sweep: Mapping[str, Any]
    trajectory: Mapping[str, Any]
    volume: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    about: str = ""
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    dualtrack_version: str = __version__
    notice: str = NOTICE
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        return plain_values(self)

    def to_json(self) -> str:
        """The text of report.json."""
        return json_text(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunReport:
        """A report from :meth:`as_dict`.

        Raises:
            InputError: a report of another schema.
        """
        known = {f.name for f in fields(cls)}
        if values.get("schema_version") != SCHEMA_VERSION or not known >= set(values):
            version = values.get("schema_version", 1)
            raise InputError(f"The report has schema version {version}; this version reads {SCHEMA_VERSION}.")
        return cls(**values)


def run_report(
    settings: RunSettings,
    sweep: Sweep,
    trajectory: Trajectory,
    reconstruction: Reconstruction | None,
    evaluation: Evaluation | None,
) -> RunReport:
    """The report of a run; `sweep` holds the frames used."""
    return RunReport(
        settings=settings.as_dict(),
        sweep=plain_values({"first_frame": settings.first_frame, **sweep_facts(sweep)}),
        trajectory=plain_values(
            {
                "poses": len(trajectory),
                "valid_poses": int(trajectory.valid.sum()),
                "path_length_mm": trajectory.path_length_mm,
                "source": trajectory.provenance,
            }
        ),
        volume=None if reconstruction is None else plain_values(_volume_facts(reconstruction)),
        evaluation=None if evaluation is None else plain_values(evaluation.as_dict()),
        warnings=_warnings(trajectory, reconstruction),
    )


def sweep_facts(sweep: Sweep) -> dict[str, object]:
    """What is known about a sweep, as plain values."""
    tracked = sweep.tracked
    return {
        "frames": len(sweep),
        "frame_size": list(sweep.frame_size),
        "frames_without_image": int((~sweep.frame_valid).sum()),
        "spacing_mm": None if sweep.spacing_mm is None else list(sweep.spacing_mm),
        "skew_deg": sweep.skew_deg,
        "duration_s": sweep.duration_s,
        "frame_rate_hz": sweep.frame_rate_hz,
        "tracked_frames": None if tracked is None else int(tracked.valid.sum()),
        "path_length_mm": None if tracked is None else tracked.path_length_mm,
        "provenance": dict(sweep.provenance),
    }


def _volume_facts(volume: Reconstruction) -> dict[str, Any]:
    return {
        "size": volume.grid.size,
        "spacing_mm": volume.grid.spacing_mm,
        "origin_mm": volume.grid.origin_mm,
        "description": volume.grid.describe(),
        "covered_fraction": volume.covered_fraction,
        "filled_fraction": volume.filled_fraction,
        "frames_used": volume.frames_used,
        "frames_skipped": volume.frames_skipped,
        "settings": {k: v for k, v in volume.provenance.items() if k not in ("sweep", "trajectory")},
    }


def _warnings(trajectory: Trajectory, volume: Reconstruction | None) -> list[str]:
    messages = [str(message) for message in trajectory.provenance.get("warnings", ())]
    if volume is not None and volume.grid.note:
        messages.append(f"The voxels were {volume.grid.note}.")
    if volume is not None and volume.frames_skipped:
        total = volume.frames_used + volume.frames_skipped
        messages.append(f"{volume.frames_skipped} of {total} frames have no valid image or pose and were left out.")
    return messages
