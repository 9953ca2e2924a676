"""How long calls report progress and how callers stop them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from DualTrackCore.errors import Cancelled

_Value = TypeVar("_Value")


class Stage(str, Enum):
    """What is being done; the value is the name that a process passes to another."""

    STARTING = "starting"
    READING = "reading"
    SENDING = "sending frames"
    QUEUED = "waiting for the server"
    RECEIVING = "receiving the result"
    COMPARING = "looking for repeated frames"
    LOADING_MODEL = "loading model"
    PREPARING = "preparing the engine (once per computer)"
    NETWORK = "network"
    ATTENTION = "attention"
    RECONSTRUCTING = "reconstructing"
    FILLING_HOLES = "filling holes"
    MEASURING = "measuring errors"
    WRITING = "writing frames"
    WRITING_VOLUME = "writing the volume"
    DOWNLOADING = "downloading"
    SIMULATING = "simulating"
    CHECKING = "checking"
    CONVERTING = "converting"
    SWEEPS = "sweeps"
    SPECKLE = "speckle"
    IMAGES = "resizing frames"
    TOKENS = "class tokens"
    TRAINING = "training"
    PICTURES = "pictures"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    Attributes:
        stage: what is being done.
        done, total: finished units and all units of the stage; frames unless the stage says otherwise.
        detail: which of several like stages this is ("mirrored", a sweep, a method); empty where there is one.
    """

    stage: Stage
    done: int
    total: int
    detail: str = ""

    @property
    def fraction(self) -> float:
        """Finished part of the stage, 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def text(self) -> str:
        """Stage and detail for people: "Network, mirrored"."""
        return ", ".join(part for part in (str(self.stage).capitalize(), self.detail) if part)


ProgressCallback = Callable[[Progress], None]
CancelledCallback = Callable[[], bool]


class Reporter:
    """Both callbacks of a long call in one object, so that inner loops need no `if progress is not None`.

    :meth:`report` raises :class:`~DualTrackCore.errors.Cancelled` once the caller wants to stop.

    Args:
        progress: receives each report.
        cancelled: asked before each report.
        detail: put into each report that has none.
    """

    def __init__(
        self,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
        detail: str = "",
    ) -> None:
        self._progress = progress
        self._cancelled = cancelled
        self._detail = detail

    def report(self, stage: Stage, done: int, total: int, detail: str = "") -> None:
        """Raise if the caller cancelled, then pass the report on."""
        self.check()
        if self._progress is not None:
            self._progress(Progress(stage, done, total, detail or self._detail))

    def forward(self, report: Progress) -> None:
        """Pass on a report of another call, this detail before its own; fits as a :data:`ProgressCallback`."""
        detail = ", ".join(part for part in (self._detail, report.detail) if part)
        self.report(report.stage, report.done, report.total, detail)

    def finished(self, pieces: Generator[Progress, None, _Value]) -> _Value:
        """What work in pieces gives that yields its reports, which are passed on."""
        while True:
            try:
                self.forward(next(pieces))
            except StopIteration as end:
                return end.value

    def cancelled(self) -> bool:
        """Whether the caller wants to stop; fits as a :data:`CancelledCallback`."""
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Raise :class:`Cancelled` if the caller wants to stop."""
        if self.cancelled():
            raise Cancelled("Cancelled; nothing was written.")

    def with_detail(self, detail: str) -> Reporter:
        """A reporter to the same callbacks whose reports carry a detail."""
        return Reporter(self._progress, self._cancelled, detail)


def finished(pieces: Generator[object, None, _Value]) -> _Value:
    """What work in pieces gives, done at once."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
