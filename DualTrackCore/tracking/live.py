"""Tracking during acquisition: frames in, provisional poses out, and at the end the offline trajectory."""

from __future__ import annotations

import bisect
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.errors import InputError
from DualTrackCore.network.model import Model
from DualTrackCore.path_error import Direction, direction_warnings, mirrored_poses
from DualTrackCore.progress import CancelledCallback, Reporter
from DualTrackCore.repeats import RepeatFinder, Repeats
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import Estimate, directed, engine, estimate_in_windows, require_direction
from DualTrackCore.tracking.device import Precision, choose_chunk
from DualTrackCore.tracking.preprocessing import MOST_FRAMES, examined_on, note_steps
from DualTrackCore.tracking.provisional import ProvisionalPath
from DualTrackCore.trajectory import Trajectory

#: Frames through the trunk at a time: enough to keep two cores busy, few enough for a short delay.
LIVE_CHUNK = 4
#: Longest attention window by default: every update computes a whole window.
LIVE_WINDOW = 256


@dataclass(frozen=True, eq=False)
class ProvisionalPose:
    """Pose of a frame, which may still change.

    Attributes:
        frame: index in the order of pushing.
        frame0_from_image: [4, 4] float64, rigid, mm.
    """

    frame: int
    frame0_from_image: np.ndarray


class LiveTracker:
    """Track a sweep while its frames arrive::

        with LiveTracker(model, (480, 640), 0.2) as tracker:
            for frame in source:
                for pose in tracker.push(frame[None]):
                    show(pose.frame, pose.frame0_from_image)
            trajectory = tracker.finish()

    The network runs in a thread of its own: :meth:`push` takes frames in and returns new poses. A frame's pose appears
    when the trunk has seen its receptive field (17 frames for the published network) and that chunk is full; on CUDA
    with its own chunk, from what was seen so far. It changes until the attention window has moved past it. Memory grows
    by a class token and a pose per frame, below a kilobyte for the present networks. If the network is slower than the
    source, :attr:`behind_frames` grows up to `max_lag_frames`, and then :meth:`push` waits. A source that cannot wait
    should check it and drop frames.

    Repeated frames (the source is faster than the scanner, or frozen) do not go through the network; each gets the pose
    of the picture that it repeats. The noise of lossy coding is learned while frames arrive, so the first frames may be
    judged differently than offline.

    The constructor sends black frames through the network, so that everything is loaded for the first frame; in a new
    process this takes some seconds. Call :meth:`push` from one thread only. Others may use the model meanwhile.

    Args:
        model: from :func:`~DualTrackCore.network.load_model`.
        frame_size: (rows, columns) of all frames.
        spacing_mm: pixel spacing in mm, one number or (across columns, down rows).
        device, precision: as in :func:`~DualTrackCore.tracking.estimate_trajectory`; "auto" takes a reduced precision
            only if it was checked before, as there are no frames yet.
        chunk_frames: frames through the trunk at a time; few give a short delay, many a high speed.
        window_frames: frames of attention for provisional poses; None: as many as the model takes, at most 256.
        max_lag_frames: frames that may wait for the network.
        direction: as in :func:`~DualTrackCore.tracking.estimate_trajectory`; with "auto", provisional poses are as
            found, and the direction is decided at the end.
        repeats: "drop" leaves out repeated frames, "keep" tracks them.
        simulated: whether the frames come from the simulation, as in the provenance of a
            :class:`~DualTrackCore.sweep.Sweep`.
        cancelled: asked before every chunk.

    Raises:
        InputError: an option out of range, or an unknown spacing.
        Cancelled: the caller asked to stop.
        OutOfMemoryError: the device has too little memory for a chunk.
    """

    def __init__(
        self,
        model: Model,
        frame_size: tuple[int, int],
        spacing_mm: float | Sequence[float] | None,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        chunk_frames: int = LIVE_CHUNK,
        window_frames: int | None = None,
        max_lag_frames: int = 64,
        direction: Direction = "auto",
        repeats: Literal["drop", "keep"] = "drop",
        simulated: bool = False,
        cancelled: CancelledCallback | None = None,
    ) -> None:
        self._template = _sweep_without_pixels(1, frame_size, spacing_mm, simulated)
        self._template.require_images()
        self._run = engine.prepare(self._template, model, device, precision, global_frames=())
        self._chunk = choose_chunk(chunk_frames, model.network, self._run.device, self._run.precision)
        if isinstance(max_lag_frames, bool) or not isinstance(max_lag_frames, int) or max_lag_frames < self._chunk:
            raise InputError(
                f"max_lag_frames is {max_lag_frames!r}; it must be a whole number of frames, at least one chunk "
                f"({self._chunk})."
            )
        self._max_lag_frames, self._direction = max_lag_frames, require_direction(direction)
        network = model.network
        window = min(network.positions, LIVE_WINDOW) if window_frames is None else window_frames
        self._path = ProvisionalPath(self._run.session, window)
        self._reporter = Reporter(None, cancelled)
        self._local: list[Tensor] = []
        self._pooled: list[Tensor] = []
        self._waiting = np.empty((0, *self._template.frame_size), np.uint8)  # fewer than a chunk, and the frame after
        self._finder = RepeatFinder() if repeats == "drop" else None
        self._kept: list[int] = []  # frames that show a new picture; only these go to the network
        self._shown: list[int] = []  # of each frame pushed: which of those pictures it shows
        self._poses: list[np.ndarray] = []  # of the pictures, as returned last
        self._returned = 0  # frames pushed before poses were returned last
        self._submitted = self._done = 0
        self._examined: list[np.ndarray] = []  # every n-th frame, as offline; at most 16
        self._examine_every = network.global_every
        self._closed = False
        self._jobs: deque[Future] = deque()
        self._news: deque[tuple[int, np.ndarray]] = deque()  # (first frame, poses) of updates not yet returned
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dualtrack-live")
        self._warm_up()
        self._stream = self._run.session.stream()

    def __enter__(self) -> LiveTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Frames pushed so far."""
        return len(self._shown)

    @property
    def behind_frames(self) -> int:
        """Frames that wait for the network; stays near `chunk_frames` if the network is fast enough."""
        return self._submitted - self._done

    def push(self, frames: np.ndarray) -> list[ProvisionalPose]:
        """Take the next frames.

        Args:
            frames: [n, H, W] uint8, n may be 0; copied.

        Returns:
            Poses that are new or have changed since the last call, in the order of frames.

        Raises:
            InputError: frames of another size or kind, or after :meth:`finish` or :meth:`close`.
            Cancelled: the caller asked to stop.
            OutOfMemoryError: the device has too little memory for a chunk.
        """
        self._require_open()
        frames = np.asarray(frames)
        rows, columns = self._template.frame_size
        if frames.ndim != 3 or frames.shape[1:] != (rows, columns):
            raise InputError(f"Frames have shape {frames.shape}; this tracker takes [n, {rows}, {columns}].")
        if frames.dtype != np.uint8:
            raise InputError(f"Frames are {frames.dtype}; the tracker takes 8-bit grey frames (uint8).")
        waiting = np.concatenate([self._waiting, frames[self._new_pictures(frames)]])
        # The last frame waits for `finish`: the end of a sweep must come with a frame, so chunks are as offline.
        while len(waiting) > self._chunk:
            self._submit(waiting[: self._chunk], last=False)
            waiting = waiting[self._chunk :]
        self._waiting = waiting.copy()
        return self._changed_poses(self._max_lag_frames)

    def wait(self) -> list[ProvisionalPose]:
        """Wait until the network has taken all full chunks; returns and raises as :meth:`push`."""
        self._require_open()
        return self._changed_poses(0)

    def finish(self, timestamps_s: np.ndarray | None = None) -> Trajectory:
        """End the sweep; the result is that of :func:`~DualTrackCore.tracking.estimate_trajectory` for the same frames.

        With the same `chunk_frames` and precision it is equal bit for bit, else equal to rounding.

        Args:
            timestamps_s: [N] times of all frames, s, if known, for the warning about the frame rate.

        Returns:
            Trajectory of all frames with the provenance of the offline one.

        Raises:
            InputError: fewer than two frames, times that do not fit them, or a second call; otherwise as :meth:`push`.
        """
        self._require_open()
        if len(self) < 2:
            raise InputError(f"The sweep has {len(self)} frames; a trajectory needs at least two.")
        size, spacing = self._template.frame_size, self._template.spacing_mm
        sweep = _sweep_without_pixels(len(self), size, spacing, self._template.is_simulated)
        repeats = Repeats(np.array(self._kept)[self._shown])
        sweep = repeats.pictures(replace(sweep, timestamps_s=timestamps_s))
        try:
            self._submit(self._waiting, last=True)
            self._settle(0)
            estimate = self._thread.submit(self._guarded, self._estimate).result()
        finally:
            self.close()
        model = examined_on(self._run.model, sweep, np.stack(self._examined), tracked=True)
        run = replace(self._run, model=model)
        provenance = engine.provenance_of(run, self._chunk, sweep, run.warnings(sweep))
        note_steps(provenance, model.card, estimate.motions)
        trajectory = directed(estimate, self._direction, model.card, provenance)
        for message in [*trajectory.provenance["warnings"], *direction_warnings(trajectory.provenance)]:
            warnings.warn(message, engine.TrackingWarning, stacklevel=2)
        return repeats.shown_again(trajectory)

    def close(self) -> None:
        """Stop without a result; waits for the chunk that is computed now. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _warm_up(self) -> None:
        """Send black frames through the network once, so that kernels and weights are loaded for the first frame.

        Loading the compiled kernels takes seconds in a new process: dozens of frames of a live source.
        """
        session, every = self._run.session, self._run.model.network.global_every
        frames = max(self._chunk, 2)  # one frame has no motion and does not run the transformers
        run = replace(self._run, global_frames=np.arange(0, frames, every))
        path = ProvisionalPath(session, self._path.window_frames)

        def work() -> None:
            black = torch.zeros((frames, *self._template.frame_size), dtype=torch.uint8, device=run.device)
            path.add(*engine.chunk_features(run, session.stream(), black, 0, last=True))
            path.update()

        try:
            self._thread.submit(self._guarded, work).result()
        except BaseException:
            self.close()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise InputError("This tracker has finished or was closed; make a new one for the next sweep.")

    def _submit(self, frames: np.ndarray, last: bool) -> None:
        start = self._submitted
        self._submitted += len(frames)
        self._examined += [frame.copy() for frame in frames[-start % self._examine_every :: self._examine_every]]
        while len(self._examined) > MOST_FRAMES:
            self._examined, self._examine_every = self._examined[::2], 2 * self._examine_every
        self._jobs.append(self._thread.submit(self._guarded, self._take, frames.copy(), start, last))
        self._settle(self._max_lag_frames)

    def _settle(self, most: int) -> None:
        """Wait until at most `most` frames wait for the network; raises the errors of the thread."""
        while self._jobs and (self._jobs[0].done() or self.behind_frames > most):
            try:
                self._jobs[0].result()
            except BaseException:
                self.close()
                raise
            self._jobs.popleft()

    def _new_pictures(self, frames: np.ndarray) -> list[int]:
        """Indices into the next frames [n, H, W] of those with a new picture."""
        first = len(self)
        for number, frame in enumerate(frames, first):
            if self._finder is None or self._finder.push(frame.copy()) == number:
                self._kept.append(number)
            self._shown.append(len(self._kept) - 1)
        return [number - first for number in self._kept[bisect.bisect_left(self._kept, first) :]]

    def _changed_poses(self, most_behind: int) -> list[ProvisionalPose]:
        self._settle(most_behind)
        changed = len(self._poses)
        while self._news:
            first, poses = self._news.popleft()
            self._poses[first:] = poses
            changed = min(changed, first)
        # Also new frames that repeat a picture whose pose was returned before.
        start, self._returned = self._returned, len(self)
        if changed < len(self._poses):
            start = min(start, self._kept[changed])
        shown = enumerate(self._shown[start:], start)
        return [ProvisionalPose(frame, self._poses[number]) for frame, number in shown if number < len(self._poses)]

    def _guarded(self, work: Callable[..., object], *arguments: object) -> object:
        """Run a piece of work in the thread; raises OutOfMemoryError in place of torch's error."""
        self._reporter.check()
        with torch.inference_mode(), engine.naming_out_of_memory(self._run.device):
            return work(*arguments)

    def _take(self, frames: np.ndarray, start: int, last: bool) -> None:
        stop, every = start + len(frames), self._run.model.network.global_every
        run = replace(self._run, global_frames=np.arange(-(-start // every) * every, stop, every))
        images = torch.from_numpy(frames).to(run.device)
        tokens, pooled = engine.chunk_features(run, self._stream, images, start, last)
        self._local.append(tokens)
        self._pooled.extend(pooled)
        self._path.add(tokens, pooled)
        self._done = stop
        # A slow computer updates poses only at every fourth chunk: it catches up, and the display still moves.
        if not last and (self.behind_frames == 0 or (stop // self._chunk) % 4 == 0):
            first = self._path.update(self._stream.tail)
            poses = self._path.poses(first)
            self._news.append((first, mirrored_poses(poses) if self._direction == "other-way" else poses))

    def _estimate(self) -> Estimate:
        features = torch.cat(self._local), torch.cat(self._pooled)
        return estimate_in_windows(self._run.session, *features, self._reporter)


def _sweep_without_pixels(
    frames: int, frame_size: tuple[int, int], spacing_mm: float | Sequence[float] | None, simulated: bool
) -> Sweep:
    """A sweep of N black frames that takes no memory, for all but the grey values."""
    pixels = np.broadcast_to(np.uint8(0), (frames, *frame_size))
    return Sweep(pixels, spacing_mm, provenance={"simulated": True} if simulated else {})
