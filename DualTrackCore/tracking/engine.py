"""From a sweep to its trajectory: runs the network in bounded memory.

First the sweep is searched for repeats, in windows, and at most 16 frames are compared with the training images. Then
frames are read once, in chunks. Each chunk goes through the local trunk as a stream (nothing is computed twice, only
compact features are kept), and its frames for the global encoder through the global backbone. Then attention runs over
the features of the whole sweep, in overlapping windows if the sweep is longer than the position table.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

import numpy as np
import torch
from torch import Tensor

from DualTrackCore import __version__
from DualTrackCore.errors import InputError, OutOfMemoryError, TrackingWarning, named
from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.network.model import Model
from DualTrackCore.network.session import InferenceSession, TokenStream, release_others
from DualTrackCore.path_error import OUTSIDE, Direction, direction_warnings
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.repeats import Repeats, find_repeats
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import Estimate, directed, estimate_in_windows
from DualTrackCore.tracking.device import (
    CHECKED_FRAMES,
    Precision,
    choose_chunk,
    choose_device,
    choose_precision,
    frames_ahead,
    release_memory,
)
from DualTrackCore.tracking.preprocessing import (
    Preprocessor,
    examined,
    is_guess,
    note_steps,
    outside_training,
    scope_warnings,
)
from DualTrackCore.trajectory import Trajectory


@dataclass(frozen=True)
class EngineRun:
    """Where and how one trajectory is computed: `local` and `global_frames` select the features; the notes give the
    reasons for device and precision."""

    model: Model
    session: InferenceSession
    device: torch.device
    precision: str
    preprocessor: Preprocessor
    global_frames: np.ndarray
    local: bool = True
    device_note: str = ""
    precision_note: str = ""

    def warnings(self, sweep: Sweep) -> list[str]:
        """Sentences for the user about the device and the sweep."""
        own = [self.device_note] if self.device_note else []
        return own + scope_warnings(sweep, self.model, self.preprocessor)


#: Maps the session, class tokens [N, C] of all frames, pooled features [K, F] of the global frames and a reporter to an
#: estimate.
Head = Callable[[InferenceSession, Tensor, Tensor, Reporter], Estimate]


def estimate_trajectory(
    sweep: Sweep,
    model: Model,
    *,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    chunk_frames: int | str = "auto",
    test_time_augmentation: int = 1,
    direction: Direction = "auto",
    repeats: Repeats | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Trajectory:
    """Estimate where each frame of a sweep lies, from the images alone.

    Repeated frames do not go through the network; each gets the pose of the picture that it repeats.

    Args:
        sweep: at least two frames, spacing known; its tracking is ignored.
        model: from :func:`~DualTrackCore.network.load_model`.
        device: a torch device, or "auto": CUDA or MPS, after a check against the CPU, else the CPU; or the address of a
            server (`https://host:port`), which computes with its model of that name, the weights being the same
            (:class:`~DualTrackCore.remote.Server`); frames are sent there.
        precision: of the convolutional trunks: "fp32", "tf32" (CUDA alone), "bf16", "fp16" or "auto". "auto" is fp16
            on CUDA, bf16 on a CPU with instructions for it and without the compiled kernels, each if it is precise
            enough by the model card or a check on the first 64 frames of a longer sweep (once per model and computer);
            else fp32.
        chunk_frames: frames through the trunk at a time; changes the result by rounding only. If the device runs out
            of memory, the sweep starts again with half as many.
        test_time_augmentation: number of runs of the network: 1, the sweep as it is; 2, also mirrored left to right; 4,
            also both backwards. Motions are means of the views that do not contradict each other
            (:func:`~DualTrackCore.tracking.test_time_augmentation.agreement`), which cancels part of the random error.
        direction: along the sweep: "auto" from the direction head, "as-views" as the motions are without that head,
            "other-way" mirrored at the image plane (:func:`~DualTrackCore.tracking.directed`).
        repeats: of the sweep, if known; `Repeats.none` takes every frame, None searches for repeats.
        progress: receives `Stage.COMPARING` and `Stage.NETWORK` (frames), and `Stage.ATTENTION` (windows); the detail
            is the name of the augmentation.
        cancelled: asked between chunks.

    Returns:
        Trajectory of all frames, frame0_from_image in mm, accumulated in float64. Its provenance holds the model, the
        device, the settings, the direction and a list of warnings; after test-time augmentation also the views, those
        left out and their mean distance (`views_apart_mm`). Its sigma comes from the variance head, if there is one.

    Raises:
        InputError: no images, fewer than two frames, unknown spacing, an option out of range.
        OutOfMemoryError: one frame at a time is still too much for the device.
        ServerError: the server cannot be reached, was lost or failed.
        Cancelled: the caller asked to stop.
    """
    choices = {"precision": precision, "chunk_frames": chunk_frames, "direction": direction}
    if "://" in str(device):
        from DualTrackCore.remote import RemoteModel, Server

        remote = RemoteModel.at(Server.at(str(device)), model.card.name, model.sha256)
        choices |= {"test_time_augmentation": test_time_augmentation, "repeats": repeats}
        return remote.estimate_trajectory(sweep, **choices, progress=progress, cancelled=cancelled)
    reporter = Reporter(progress, cancelled)
    sweep.require_images()
    repeats = find_repeats(sweep, reporter) if repeats is None else repeats
    sweep = repeats.pictures(sweep)
    options = {"device": device, "precision": precision, "chunk_frames": chunk_frames}
    names, views, provenance = estimates_of_views(sweep, model, test_time_augmentation, reporter, **options)
    if len(names) > 1:
        from DualTrackCore.tracking.test_time_augmentation import agreement, contradiction

        agrees, apart_mm = agreement(np.array([view.motions for view in views]), sweep)
        left_out = [name for name, kept in zip(names, agrees, strict=True) if not kept]
        facts = {"test_time_augmentation": names, "views_left_out": left_out, "views_apart_mm": apart_mm}
        messages = [contradiction(left_out, len(names), apart_mm)] if left_out else []
        provenance = {**provenance, **facts, "warnings": [*messages, *provenance["warnings"]]}
        views = [view for view, kept in zip(views, agrees, strict=True) if kept]
    estimate = Estimate.mean(views)
    note_steps(provenance, model.card, estimate.motions)
    trajectory = directed(estimate, direction, model.card, provenance)
    for message in [*trajectory.provenance["warnings"], *direction_warnings(trajectory.provenance)]:
        warnings.warn(message, TrackingWarning, stacklevel=2)
    return repeats.shown_again(trajectory)


def estimates_of_views(
    sweep: Sweep, model: Model, count: int, reporter: Reporter, **options: object
) -> tuple[list[str], list[Estimate], dict[str, object]]:
    """The estimate of the network for each view of a sweep.

    Args:
        sweep, model: as in :func:`estimate_trajectory`.
        count: of views: its `test_time_augmentation`.
        reporter: receives `Stage.NETWORK` (frames) and `Stage.ATTENTION` (windows), with the name of the view.
        options: device, precision and chunk_frames, as there.

    Returns:
        Names of the views, the first is the sweep as it is; for each view the estimate, of the sweep itself; and the
        provenance of the first.

    Raises InputError, OutOfMemoryError, Cancelled: as in :func:`estimate_trajectory`.
    """
    others = ()
    if count != 1 or isinstance(count, bool):
        from DualTrackCore.tracking.test_time_augmentation import augmentations

        others = augmentations(count)
    model, head = examined(model, sweep), estimate_in_windows  # once, for all views
    options["global_frames"] = model.network.global_frames(len(sweep))
    own, provenance = run_network(sweep, model, head, reporter=reporter, **options)
    options |= {key: provenance[key] for key in ("device", "precision")}  # one choice for all views
    estimates = [own]
    for view in others:
        estimate, _ = run_network(view.apply(sweep), model, head, reporter=reporter.with_detail(view.name), **options)
        estimates.append(view.undone(estimate))
    return ["as it is", *(view.name for view in others)], estimates, provenance


def run_network(
    sweep: Sweep,
    model: Model,
    head: Head,
    *,
    global_frames: Sequence[int],
    local: bool = True,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    chunk_frames: int | str = "auto",
    reporter: Reporter,
) -> tuple[Estimate, dict[str, object]]:
    """Compute the features of a sweep in bounded memory, and the estimate of a head from them.

    Args:
        sweep, model, device, precision, chunk_frames: as in :func:`estimate_trajectory`.
        head: from features to an estimate; runs on the device, without gradients.
        global_frames: rising indices of the frames that go through the global backbone.
        local: whether frames go through the local trunk; if not, there are 0 class tokens.
        reporter: receives `Stage.NETWORK` (frames); passed on to the head.

    Returns:
        The estimate of the head, and the provenance of its trajectory with the warnings.

    Raises InputError, OutOfMemoryError, Cancelled: as in :func:`estimate_trajectory`.
    """
    sweep.require_images()
    if len(sweep) < 2:
        raise InputError("The sweep has one frame; a trajectory needs at least two.")
    model = examined(model, sweep)
    measure = partial(_precision_change, sweep, model, device, chunk_frames, reporter)
    run = prepare(sweep, model, device, precision, global_frames, measure if len(sweep) > CHECKED_FRAMES else None)
    run = replace(run, local=local)
    chunk = choose_chunk(chunk_frames, model.network, run.device, run.precision, len(sweep))
    with torch.inference_mode(), naming_out_of_memory(run.device):
        while (features := _features(run, sweep, chunk, reporter)) is None:
            chunk //= 2
            release_others(run.session)
            release_memory(run.device)
        estimate = head(run.session, *features, reporter)
    return estimate, provenance_of(run, chunk, sweep, run.warnings(sweep))


def prepare(
    sweep: Sweep,
    model: Model,
    device: str | torch.device,
    precision: Precision,
    global_frames: Sequence[int],
    measure: Callable[[str], float] | None = None,
) -> EngineRun:
    """Check the options and choose device and precision.

    Args:
        sweep: gives frame size and spacing.
        model, device, precision, global_frames: as for :func:`run_network`.
        measure: as for :func:`~DualTrackCore.tracking.device.choose_precision`.
    """
    chosen, device_note = choose_device(device)
    preprocessor = Preprocessor.for_model(model, sweep)
    precision, precision_note = choose_precision(precision, chosen, model, measure)
    frames = np.asarray(global_frames, dtype=np.int64)
    notes = {"device_note": device_note, "precision_note": precision_note}
    return EngineRun(model, model.session(chosen, precision), chosen, precision, preprocessor, frames, **notes)


def _precision_change(
    sweep: Sweep, model: Model, device: str | torch.device, chunk_frames: int | str, reporter: Reporter, precision: str
) -> float:
    """Largest change of a motion, mm or degrees, by a reduced precision on the first frames of a sweep."""
    first, reporter = sweep.slice(0, CHECKED_FRAMES), reporter.with_detail(f"check of {precision}")
    options = {"device": device, "chunk_frames": chunk_frames, "reporter": reporter}
    options |= {"global_frames": model.network.global_frames(CHECKED_FRAMES)}
    head = estimate_in_windows
    motions = [run_network(first, model, head, precision=name, **options)[0].motions for name in ("fp32", precision)]
    model.release()  # two precisions; one of them goes on
    return float(np.abs(motions[0] - motions[1]).max())


def _features(run: EngineRun, sweep: Sweep, chunk: int, reporter: Reporter) -> tuple[Tensor, Tensor] | None:
    """Class tokens [N, C] of all frames, pooled features [K, F] of the global ones; None if fewer frames may fit."""
    local_parts, global_parts, start = [], [], 0
    reporter.report(Stage.NETWORK, 0, len(sweep))
    try:
        stream = run.session.stream() if run.local else None
        with contextlib.closing(frames_ahead(sweep, run.device, chunk)) as pieces:
            for images in pieces:
                stop = start + len(images)
                tokens, pooled = chunk_features(run, stream, images, start, stop == len(sweep))
                local_parts.append(tokens)
                global_parts.extend(pooled)
                start = stop
                reporter.report(Stage.NETWORK, start, len(sweep))
    except (RuntimeError, MemoryError) as error:
        if chunk == 1 or not is_out_of_memory(error):
            raise
        return None
    nothing = torch.empty(0, device=run.device)
    return torch.cat(local_parts), torch.cat(global_parts) if global_parts else nothing


def chunk_features(
    run: EngineRun, stream: TokenStream | None, images: Tensor, start: int, last: bool
) -> tuple[Tensor, list[Tensor]]:
    """Class tokens that are complete after this chunk, and features of its frames for the global encoder."""
    here = run.global_frames[(run.global_frames >= start) & (run.global_frames < start + len(images))] - start
    global_images = images[torch.from_numpy(here).to(images.device)]
    pooled = []
    if len(global_images):
        with run.session.exact():
            prepared = run.preprocessor.global_image(global_images)
        pooled.append(run.session.pooled(prepared))
    if stream is None:
        return torch.empty(0, device=run.device), pooled
    with run.session.exact():
        crops = run.preprocessor.local(images)
    return stream.push(crops, last), pooled


@contextlib.contextmanager
def naming_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise :class:`OutOfMemoryError` in place of torch's own errors."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(device) from None


def out_of_memory(device: torch.device) -> OutOfMemoryError:
    """The error if the memory of a device is too small for a single frame."""
    remedy = "close other programs" if device.type == "cpu" else f"close other programs or use {named('device', 'cpu')}"
    return OutOfMemoryError(f"{device} has too little memory for this sweep, even one frame at a time; {remedy}.")


def provenance_of(run: EngineRun, chunk: int, sweep: Sweep, messages: list[str]) -> dict[str, object]:
    """Plain values on how a trajectory was made; `chunk` in frames, `messages` are its warnings."""
    return {
        **run.model.provenance(),
        "device": str(run.device),
        "precision": run.precision,
        **({"precision_note": run.precision_note} if run.precision_note else {}),
        "chunk_frames": chunk,
        "model_spacing_mm": list(run.model.card.spacing_mm),
        "resampled": run.preprocessor.resamples,
        "guess": is_guess(sweep, run.model),
        OUTSIDE: outside_training(sweep, run.model.card, run.preprocessor),
        "warnings": messages,
        "dualtrack_version": __version__,
        "torch_version": torch.__version__,
        "estimated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
