"""Small helpers around widgets: enable with a reason, copy text, call again from Qt's event loop."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer


def enable(widget: object, reason: str, tip: str) -> None:
    """Enable a control, or disable it where there is a reason, which becomes its tooltip."""
    widget.enabled = not reason
    widget.toolTip = reason or tip


def copyText(text: str) -> None:
    """To the clipboard."""
    slicer.app.clipboard().setText(text)


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
