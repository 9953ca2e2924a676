"""The steps of one run, from a clip to its trajectory, volume and report."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from DualTrackCore.corrections import AUTO, CLIP
from DualTrackCore.errors import InputError, SweepWarning, named
from DualTrackCore.files import require_apart
from DualTrackCore.memory import memory_limit
from DualTrackCore.path_error import Direction, turned_over
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.repeats import Repeats, find_repeats, find_turns
from DualTrackCore.run.preparation import cropped_area, prepare
from DualTrackCore.run.results import RunResult, run_report
from DualTrackCore.run.settings import ESTIMATE, TRACKED, RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory

if TYPE_CHECKING:
    from DualTrackCore.corrections import Knowledge
    from DualTrackCore.corrections.knowledge import KnownScale
    from DualTrackCore.evaluation import Evaluation
    from DualTrackCore.network import Model
    from DualTrackCore.reconstruction import Reconstruction
    from DualTrackCore.remote import RemoteModel, Server

#: Gives the model that settings name.
ModelSource = Callable[[RunSettings], "Model | RemoteModel"]


def settings_model(settings: RunSettings, server: Server | None = None) -> Model | RemoteModel:
    """The model that settings name, loaded now; where their device is a server, its model of that name.

    Args:
        settings: of the run.
        server: the one at that address, with its key; None for the key in the environment.
    """
    if settings.server:
        from DualTrackCore.remote import RemoteModel, Server

        if settings.card is not None:
            raise InputError(f"A server has its own model cards; leave out {named('card')}.")
        return RemoteModel.at(server or Server.at(settings.server), settings.model)
    from DualTrackCore.network import load_model

    return load_model(settings.model, card=settings.card)


def run(
    source: Sweep | str | os.PathLike,
    settings: RunSettings | None = None,
    reporter: Reporter | None = None,
    *,
    models: ModelSource = settings_model,
    outputs: Iterable[str | os.PathLike] = (),
) -> RunResult:
    """Estimate (or take) the trajectory of a sweep, reconstruct its volume, measure the error where it is tracked.

    Args:
        source: a sweep, or a file or folder of frames that :func:`~DualTrackCore.io.load_sweep` reads.
        settings: every choice; the defaults where None.
        reporter: receives progress, and says whether to stop.
        models: gives the model; for callers that keep models loaded.
        outputs: what the caller will write, refused before the work starts where it is an input.

    Returns:
        Trajectory, volume and report; :meth:`RunResult.write` writes them into a folder.

    Raises:
        InputError: settings, sweep or model cannot be used as they are.
        OutOfMemoryError: the device has too little memory.
        Cancelled: the caller asked to stop.
    """
    settings, reporter = (settings or RunSettings()).with_whole_paths(), reporter or Reporter()
    reporter.report(Stage.READING, 0, 2)
    if isinstance(source, Sweep):
        sweep = with_spacing(source, settings)
    else:
        from DualTrackCore.io import load_sweep

        with memory_limit(settings.memory_gb):
            sweep = load_sweep(source, **settings.reading)
    require_apart(outputs, [*sweep.files, *settings.files])
    reporter.report(Stage.READING, 1, 2)
    with memory_limit(settings.memory_gb):
        sweep = prepare(sweep, settings).sweep
    reporter.report(Stage.READING, 2, 2)
    return run_frames(sweep, settings, reporter, models)


def run_frames(
    sweep: Sweep,
    settings: RunSettings,
    reporter: Reporter | None = None,
    models: ModelSource = settings_model,
    path: Trajectory | None = None,
    repeats: Repeats | None = None,
) -> RunResult:
    """:func:`run` of a sweep that is prepared as the settings say: it holds the frames used, its spacing is final.

    With a `path`, which an earlier run of the same frames gave, nothing is tracked: what is known now corrects that.
    With `repeats` the sweep has been searched by whoever asks; here neither repeats nor turns are sought again.
    """
    reporter = reporter or Reporter()
    if sweep.tracked is not None and settings.poses in (ESTIMATE, TRACKED):
        sweep = replace(sweep, tracked=with_said_origin(sweep.tracked, settings.poses_are, "The sweep"))
    seconds: dict[str, float] = {}
    with _timed(seconds, "total"), memory_limit(settings.memory_gb):
        is_searched = repeats is not None
        found = repeats if is_searched else find_repeats(sweep, reporter)
        repeats = found if settings.repeats == "drop" else Repeats.none(len(sweep))
        known = _knowledge(sweep, settings)  # before the path is estimated: what is wrong with it is said at once
        turns = []
        if settings.poses == ESTIMATE and not is_searched:
            turns = repeats.kept[find_turns(repeats.left_out(sweep), reporter)].tolist()
        trajectory, scale = path, []
        if path is None:
            trajectory, scale = _trajectory(sweep, repeats, settings, models, reporter, seconds)
        if known := [*scale, *known]:
            trajectory = _corrected(trajectory, known, settings.first_frame)
        reconstruction = _reconstruction(sweep, repeats, trajectory, settings, reporter, seconds)
        evaluation = _evaluation(sweep, trajectory, settings, reporter, seconds)
        report = run_report(settings, sweep, trajectory, reconstruction, evaluation, found, turns)
    return RunResult(sweep, trajectory, reconstruction, report, seconds)


def _knowledge(sweep: Sweep, settings: RunSettings) -> Sequence[Knowledge]:
    """What the settings say of the frames used; their files are read now."""
    if not settings.corrections:
        return ()
    from DualTrackCore.corrections.reading import knowledge_of

    return knowledge_of(settings.corrections, sweep, settings.first_frame, (settings.crop or (0, 0))[:2])


def _corrected(trajectory: Trajectory, known: Sequence[Knowledge], first_frame: int) -> Trajectory:
    """The path with what is known of it; what is doubtful about that is warned of."""
    from DualTrackCore.corrections.path import correct

    found, before = correct(trajectory, known, first_frame), trajectory.provenance.get("warnings", ())
    for doubt in found.provenance.get("warnings", ())[len(before) :]:
        warnings.warn(doubt, SweepWarning, stacklevel=3)
    return found


def _profile(sweep: Sweep, settings: RunSettings, source: Mapping[str, Any]) -> tuple[list[KnownScale], list[str]]:
    """What a scanner profile says of the path by the model that a provenance names, and what is to be warned of."""
    if settings.names_profile or (settings.profile == AUTO and settings.poses == ESTIMATE):
        from DualTrackCore.network.catalogue import profile_paths

        if settings.names_profile or profile_paths():
            from DualTrackCore.corrections.profile import profile_for

            profile, notes = profile_for(settings.profile, sweep, source)
            for note in notes:
                warnings.warn(note, SweepWarning, stacklevel=4)
            return [] if profile is None else [profile.scale], notes
    return [], []


def known_poses(sweep: Sweep, poses: str, poses_are: str | None = None, direction: Direction = "auto") -> Trajectory:
    """The poses that a sweep was tracked with, or those of a trajectory .csv.

    Args:
        sweep: the frames.
        poses: "tracked" or a file.
        poses_are: as in :func:`with_said_origin`.
        direction: "other-way" turns them over; otherwise they stay as they are.

    Raises:
        InputError: no tracking, a table that cannot be read, another number of poses than frames, poses of another
            origin than `poses_are` says, or measured ones that are to be turned over.
    """
    given = _given_poses(sweep, poses, poses_are)
    return turned_over(given) if direction == "other-way" else given


def _given_poses(sweep: Sweep, poses: str, poses_are: str | None) -> Trajectory:
    if poses == TRACKED:
        if sweep.tracked is None:
            reason = sweep.provenance.get("tracking") or "The sweep holds no tracking."
            raise InputError(f"{reason} Give a trajectory .csv as poses, or estimate them from the images.")
        return with_said_origin(sweep.tracked, poses_are, "The sweep")
    from DualTrackCore.io import read_trajectory_csv

    trajectory = with_said_origin(read_trajectory_csv(poses), poses_are, poses)
    if len(trajectory) != len(sweep):
        raise InputError(f"{poses} has {len(trajectory)} poses and the sweep {len(sweep)} frames; they must be equal.")
    return trajectory


def with_said_origin(trajectory: Trajectory, poses_are: str | None, where: str) -> Trajectory:
    """Poses of unknown origin with the origin that the user gives them.

    Args:
        trajectory: as its file says it.
        poses_are: text of a :class:`~DualTrackCore.trajectory.PoseOrigin`, or None where the user says nothing.
        where: what the poses are of, for the message.

    Raises InputError: the file says something else.
    """
    if poses_are is None or trajectory.origin == poses_are:
        return trajectory
    if trajectory.origin is not PoseOrigin.UNKNOWN:
        raise InputError(
            f"{where} says that its poses are {trajectory.origin_text}, so they cannot be taken as {poses_are}; "
            f"leave {named('poses_are')} out."
        )
    return replace(trajectory, origin=PoseOrigin(poses_are))


def with_spacing(sweep: Sweep, settings: RunSettings) -> Sweep:
    """A sweep in memory with the pixel spacing of the settings, where they give one.

    Raises InputError: the settings have a calibration, which only the readers of files can use.
    """
    for name in ("calibration", "probe"):
        if getattr(settings, name) is not None:
            raise InputError(f"The setting {name} is for files; give it to load_sweep instead.")
    if settings.spacing_mm is None:
        return sweep
    return replace(sweep, spacing_mm=settings.spacing_mm, provenance={**sweep.provenance, "spacing_source": "user"})


def _trajectory(
    sweep: Sweep,
    repeats: Repeats,
    settings: RunSettings,
    models: ModelSource,
    reporter: Reporter,
    seconds: dict[str, float],
) -> tuple[Trajectory, list[KnownScale]]:
    """The poses, and how the motion of the model that estimated them is scaled for this scanner."""
    if settings.poses != ESTIMATE:
        given = known_poses(sweep, settings.poses, settings.poses_are, settings.direction)
        scale, notes = _profile(sweep, settings, given.provenance)
        return _warned(given, notes), scale
    # Before the model, which takes longest to load: what is wrong with the sweep is said at once.
    sweep.require_images()
    sweep.require_spacing()
    reporter.report(Stage.LOADING_MODEL, 0, 2)
    with _timed(seconds, "model"):
        model = models(settings)
    reporter.report(Stage.LOADING_MODEL, 1, 2)
    scale, notes = _profile(sweep, settings, model.provenance())
    options = settings.chosen("precision", "chunk_frames", "test_time_augmentation", "direction")
    options |= {"repeats": repeats, "progress": reporter.forward, "cancelled": reporter.cancelled}
    estimate = model.estimate_trajectory if settings.server else _here(settings, model, reporter)
    reporter.report(Stage.LOADING_MODEL, 2, 2)
    with _timed(seconds, "trajectory"):
        found = estimate(sweep, **options)
    return _warned(found, notes), scale


def _here(settings: RunSettings, model: Model, reporter: Reporter) -> Callable[..., Trajectory]:
    """The estimate by this computer, once its engine is prepared."""
    from DualTrackCore.network.fast import prepare_engine
    from DualTrackCore.tracking import estimate_trajectory
    from DualTrackCore.tracking.device import choose_device

    if choose_device(settings.device)[0].type == "cpu":
        prepare_engine(reporter)
    return partial(estimate_trajectory, model=model, device=settings.device)


def _warned(trajectory: Trajectory, notes: Sequence[str]) -> Trajectory:
    said = trajectory.provenance
    more = {"warnings": [*said.get("warnings", ()), *notes]}
    return replace(trajectory, provenance={**said, **more}) if notes else trajectory


def _reconstruction(
    sweep: Sweep,
    repeats: Repeats,
    trajectory: Trajectory,
    settings: RunSettings,
    reporter: Reporter,
    seconds: dict[str, float],
) -> Reconstruction | None:
    if not settings.reconstruct:
        return None
    # A picture counts once, where it was first seen: a tracked probe may have moved on while it was shown again.
    sweep, trajectory = repeats.left_out(sweep), trajectory.chosen(repeats.kept) if repeats else trajectory
    from DualTrackCore.reconstruction import no_fan_text, plan_grid, reconstruct_volume, resolved_area

    clip, fan = cropped_area(settings.crop, settings.clip, settings.fan)
    area = dict(zip(("clip", "fan"), resolved_area(sweep, clip, None if fan == "none" else fan), strict=True))
    options = settings.chosen("interpolation", "compounding", "reject_below", "hole_filling") | area
    options["device"] = _card(settings)
    spacing = "auto" if settings.voxel_mm is None else settings.voxel_mm
    with _timed(seconds, "volume"):
        grid = plan_grid(sweep, trajectory, spacing_mm=spacing, axes=settings.axes, frame=settings.frame, **area)
        volume = reconstruct_volume(
            sweep, trajectory, grid, **options, progress=reporter.forward, cancelled=reporter.cancelled
        )
    if note := no_fan_text(settings.fan, volume.provenance):
        warnings.warn(note, SweepWarning, stacklevel=3)
    return replace(volume, placed=volume.placed._replace(numbers=repeats.kept[volume.placed.numbers]))


def _card(settings: RunSettings) -> str:
    """The graphics card of the settings, where this computer has one that volumes are computed on; else "cpu"."""
    if settings.server or not settings.device.startswith(("auto", "cuda")):
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    from DualTrackCore.tracking.device import choose_device

    return str(choose_device(settings.device)[0])


def _evaluation(
    sweep: Sweep, trajectory: Trajectory, settings: RunSettings, reporter: Reporter, seconds: dict[str, float]
) -> Evaluation | None:
    """The error where the true poses are known; poses of unknown origin and earlier estimates measure nothing."""
    tracked = sweep.truth
    # Poses that the path was fitted to do not measure it.
    is_truth = tracked is not None and tracked is not trajectory and settings.corrections.tracker != CLIP
    if not (settings.evaluate and is_truth and (tracked.valid & trajectory.valid).sum() >= 2):
        return None
    from DualTrackCore.evaluation import evaluate

    with _timed(seconds, "evaluation"):
        return evaluate(trajectory, sweep, progress=reporter.forward, cancelled=reporter.cancelled)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
