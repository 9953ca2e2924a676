"""What drives the module without threads: signals between its parts, and work in pieces from Qt's event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import qt

#: Longest time that a piece of work holds the application up, s.
PIECE_S = 0.03


class Signal:
    """Tells whoever asked with :meth:`then`; `emit` passes on what it is given."""

    def __init__(self) -> None:
        self._slots: list[Callable] = []

    def then(self, slot: Callable) -> None:
        """Call `slot` at every :meth:`emit`."""
        self._slots.append(slot)

    def emit(self, *values: object) -> None:
        """Call all slots in the order in which they came."""
        for slot in self._slots:
            slot(*values)


class Clock:
    """Calls a function again and again; see :meth:`stop`."""

    def __init__(self, interval_s: float, function: Callable[[], None]) -> None:
        self._function = function
        self._timer = qt.QTimer()
        self._timer.interval = round(1000 * interval_s)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def stop(self) -> None:
        """Call it no more."""
        if self._function is not None:
            self._timer.stop()
            self._timer.disconnect("timeout()", self._tick)
            self._function = None

    def _tick(self) -> None:
        self._function()


class Pieces:
    """Work that is done piece by piece while the application stays alive.

    Args:
        work: does a piece at each step; what it raises or returns is for itself to handle.
    """

    def __init__(self, work: Iterator[object]) -> None:
        self._work: Iterator[object] | None = work
        self._clock = Clock(0, self._go_on)

    def stop(self) -> None:
        """Do no more of it."""
        self._clock.stop()
        self._work = None

    def _go_on(self) -> None:
        end = time.monotonic() + PIECE_S
        while self._work is not None:
            try:
                next(self._work)
            except StopIteration:
                self.stop()
            except BaseException:
                self.stop()
                raise
            if time.monotonic() >= end:
                return


def soon(function: Callable[[], None]) -> None:
    """Call a function once, when the application has done what it is at."""
    qt.QTimer.singleShot(0, function)
