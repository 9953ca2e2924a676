"""How long calls report and how they are stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from DualTrackCore.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One report: in `stage`, `done` of `total` units (frames unless the stage says otherwise) are finished."""

    stage: str
    done: int
    total: int

    @property
    def fraction(self) -> float:
        """Finished part of the stage, 0 to 1."""
        return self.done / self.total if self.total else 1.0


ProgressCallback = Callable[[Progress], None]
CancelledCallback = Callable[[], bool]


class Reporter:
    """The two callbacks of a long call in one object, so that inner loops need no `if progress is not None`.

    Raises :class:`~DualTrackCore.errors.Cancelled` from :meth:`report` when the caller wants to stop.
    """

    def __init__(self, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None) -> None:
        self._progress = progress
        self._cancelled = cancelled

    def report(self, stage: str, done: int, total: int) -> None:
        """Raise if the caller cancelled, then tell it where the work stands."""
        self.check()
        if self._progress is not None:
            self._progress(Progress(stage, done, total))

    def check(self) -> None:
        """Raise :class:`Cancelled` if the caller wants to stop."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("Cancelled; nothing was written.")
