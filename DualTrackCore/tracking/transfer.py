"""Frames from a sweep to the device, read and copied while the device is busy with those before.

A thread reads the next frames. On CUDA it also copies them, from pinned memory on a stream of its own, which the stream
that computes waits for before it looks at them.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.sweep import Sweep


class FramesAhead:
    """The frames of a sweep in order, each read once.

    Use as a context manager: leaving it ends the thread.

    Args:
        sweep: with images.
        device: where the frames are wanted.
    """

    def __init__(self, sweep: Sweep, device: torch.device) -> None:
        self._sweep, self._device = sweep, device
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dualtrack-frames")
        self._next: Future[Tensor] | None = None
        self._held = torch.empty(0)
        self._start = self._read = 0

    def __enter__(self) -> FramesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self, start: int, count: int) -> Tensor:
        """Frames [n, H, W] uint8 on the device, from `start`; n is `count` or what is left of what was read at once.

        `start` never goes back behind the frames taken last; taking them again in smaller pieces reads nothing again.
        """
        while start >= self._start + len(self._held):
            arrived = self._arrived(count)
            self._start, self._held = self._start + len(self._held), arrived
            self._next = self._thread.submit(self._fetch, count) if self._read < len(self._sweep) else None
        first = start - self._start
        return self._held[first : first + count]

    def _arrived(self, count: int) -> Tensor:
        waiting, self._next = self._next, None  # what has failed is read again when it is asked for again
        frames = self._fetch(count) if waiting is None else waiting.result()
        if self._copying is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._copying)
            frames.record_stream(computing)
        return frames

    def _fetch(self, count: int) -> Tensor:
        stop = min(self._read + count, len(self._sweep))
        frames = torch.from_numpy(np.ascontiguousarray(self._sweep.window(self._read, stop)))
        if self._copying is None:
            frames = frames.to(self._device)
        else:
            with torch.cuda.stream(self._copying):
                frames = frames.pin_memory().to(self._device, non_blocking=True)
        self._read = stop
        return frames
