"""One run, from frames to trajectory and volume: what the worker process does, and scripts may do in their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from DualTrackCore.errors import InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.jobs import JobResult, RunSettings, plain_values
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.reconstruction import Reconstruction, plan_grid, reconstruct_volume
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.version import __version__

if TYPE_CHECKING:
    from DualTrackCore.network import Model

#: Gives the model that settings name.
ModelSource = Callable[[RunSettings], "Model"]


def run_job(
    sweep: Sweep,
    settings: RunSettings | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> JobResult:
    """Estimate (or take) the trajectory of a sweep, reconstruct its volume, measure the error where it is tracked.

    This computes in the calling process; :class:`~DualTrackCore.worker_client.WorkerClient` does the same in another.

    Args:
        sweep: frames with known spacing.
        settings: the defaults where None.
        progress: receives the stages of the work, :class:`~DualTrackCore.progress.Stage`.
        cancelled: asked between pieces of work.

    Raises:
        InputError: settings, sweep or model cannot be used as they are.
        OutOfMemoryError: the device has too little memory.
        Cancelled: the caller asked to stop.
    """
    settings = settings or RunSettings()
    start, stop = settings.frame_range(len(sweep))
    part = sweep if (start, stop) == (0, len(sweep)) else sweep.slice(start, stop)
    return run_selected(part, settings, progress, cancelled)


def load_settings_model(settings: RunSettings) -> Model:
    """The model that settings name, loaded now."""
    from DualTrackCore.network import load_model

    return load_model(settings.model, card=settings.card)


def run_selected(
    sweep: Sweep,
    settings: RunSettings,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
    models: ModelSource = load_settings_model,
) -> JobResult:
    """:func:`run_job` of frames that are already those of the settings' range; `models` may keep models loaded."""
    seconds: dict[str, float] = {}
    callbacks = _Callbacks(progress, cancelled)
    with _timed(seconds, "total"):
        trajectory = _trajectory(sweep, settings, models, callbacks, seconds)
        volume = None
        if settings.reconstruct:
            with _timed(seconds, "volume"):
                volume = _volume(sweep, trajectory, settings, callbacks)
        evaluation = None
        if _measurable(sweep, trajectory):
            with _timed(seconds, "evaluation"):
                evaluation = evaluate(trajectory, sweep, **callbacks._asdict()).as_dict()
    return JobResult(
        trajectory=trajectory,
        first_frame=settings.first_frame,
        volume=None if volume is None else volume.volume,
        coverage=None if volume is None else volume.coverage,
        grid=None if volume is None else volume.grid,
        evaluation=evaluation,
        warnings=_warnings(trajectory, volume),
        provenance=_provenance(sweep, settings, trajectory, volume),
        seconds=seconds,
    )


class _Callbacks(NamedTuple):
    progress: ProgressCallback | None
    cancelled: CancelledCallback | None


def _trajectory(
    sweep: Sweep, settings: RunSettings, models: ModelSource, callbacks: _Callbacks, seconds: dict[str, float]
) -> Trajectory:
    if settings.poses == "tracked":
        if sweep.tracked is None:
            reason = sweep.provenance.get("tracking") or "The sweep holds no tracking."
            raise InputError(f"{reason} Let the poses be estimated from the images instead.")
        return sweep.tracked
    # Before the model, which takes longest to load: what is wrong with the sweep is said at once.
    sweep.require_images()
    sweep.require_spacing()
    reporter = Reporter(*callbacks)
    reporter.report(Stage.LOADING_MODEL, 0, 1)
    with _timed(seconds, "model"):
        model = models(settings)
    reporter.report(Stage.LOADING_MODEL, 1, 1)
    from DualTrackCore.tracking import estimate_trajectory

    options = {"device": settings.device, "precision": settings.precision, "chunk_frames": settings.chunk_frames}
    with _timed(seconds, "trajectory"):
        return estimate_trajectory(sweep, model, views=settings.views, **options, **callbacks._asdict())


def _volume(sweep: Sweep, trajectory: Trajectory, settings: RunSettings, callbacks: _Callbacks) -> Reconstruction:
    fan = None if settings.fan == "none" else settings.fan  # a Fan, or "auto"
    spacing = "auto" if settings.voxel_mm is None else settings.voxel_mm
    grid = plan_grid(sweep, trajectory, spacing_mm=spacing, clip=settings.clip, fan=fan)
    return reconstruct_volume(
        sweep,
        trajectory,
        grid,
        interpolation=settings.interpolation,
        compounding=settings.compounding,
        clip=settings.clip,
        fan=fan,
        hole_filling=settings.hole_filling,
        **callbacks._asdict(),
    )


def _measurable(sweep: Sweep, trajectory: Trajectory) -> bool:
    """Whether a tracker measured the sweep; poses of an earlier estimate are nothing to measure an estimate by."""
    tracked = sweep.tracked
    if tracked is None or tracked is trajectory or tracked.estimated_by is not None:
        return False
    return int((tracked.valid & trajectory.valid).sum()) >= 2


def _warnings(trajectory: Trajectory, volume: Reconstruction | None) -> list[str]:
    messages = [str(message) for message in trajectory.provenance.get("warnings", ())]
    if volume is not None and volume.grid.note:
        messages.append(f"The voxels were {volume.grid.note}.")
    if volume is not None and volume.frames_skipped:
        total = volume.frames_used + volume.frames_skipped
        messages.append(f"{volume.frames_skipped} of {total} frames have no valid image or pose and left no trace.")
    return messages


def _provenance(
    sweep: Sweep, settings: RunSettings, trajectory: Trajectory, volume: Reconstruction | None
) -> dict[str, Any]:
    return plain_values(
        {
            "dualtrack_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": settings.as_dict(),
            "sweep": {
                "frames": len(sweep),
                "frame_size": sweep.frame_size,
                "spacing_mm": sweep.spacing_mm,
                "source": dict(sweep.provenance),
            },
            "trajectory": {
                **trajectory.provenance,
                "frames": len(trajectory),
                "valid_frames": int(trajectory.valid.sum()),
                "path_length_mm": trajectory.path_length_mm,
            },
            "volume": None if volume is None else _volume_facts(volume),
        }
    )


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


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
