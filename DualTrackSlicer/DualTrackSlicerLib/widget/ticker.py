"""Calling a function from Qt's event loop until it is done."""

from __future__ import annotations

from collections.abc import Callable

import qt

INTERVAL_MS = 100


class QtTicker:
    """Calls functions every tenth of a second until each of them returns false."""

    def __init__(self) -> None:
        self._timers = []

    def __call__(self, function: Callable[[], bool]) -> None:
        """Call `function` until it returns false or raises."""
        timer = qt.QTimer()
        timer.interval = INTERVAL_MS

        def tick() -> None:
            goes_on = False
            try:
                goes_on = bool(function())
            finally:
                if not goes_on:
                    timer.stop()
                    self._timers.remove(timer)

        timer.connect("timeout()", tick)
        self._timers.append(timer)
        timer.start()

    def stop(self) -> None:
        """Call nothing any more."""
        for timer in self._timers:
            timer.stop()
        self._timers.clear()
