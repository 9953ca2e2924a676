"""What the sections of the panel share: controls that say why they are disabled, and calls from Qt's event loop."""

from __future__ import annotations

from collections.abc import Callable

import qt

#: Property of a widget that keeps the tool tip of the form.
_TIP = "DualTrackTip"
INTERVAL_MS = 100


def enable(reason: str, *widgets: object) -> None:
    """Enable controls, with the tool tips of the form; a reason disables them and takes the place of their tips."""
    for widget in widgets:
        if widget.property(_TIP) is None:
            widget.setProperty(_TIP, widget.toolTip)
        widget.enabled = not reason
        widget.toolTip = reason or widget.property(_TIP)


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
