"""Ctrl-C and a polite end of the process (SIGTERM): the work stops at its next report, where it can be left cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from DualTrackCore.cli.console import Console

#: How long work that reports nothing may go on, s.
GRACE_S = 5.0


@contextlib.contextmanager
def signals_as_interrupt(console: Console) -> Iterator[None]:
    """Turn both signals into a KeyboardInterrupt, raised by the console at the next report of progress.

    An exception out of a signal's handler strikes wherever the program happens to be. Inside a library that calls back
    into Python, as a compiler does, it is lost or ends the process without any cleaning up. It is therefore raised at
    once only where the user is asked something, at the second signal, or when `GRACE_S` have passed without a report.
    Work that has heard of it takes the time that it needs to leave things in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return
    impatience = threading.Timer(GRACE_S, lambda: console.heard or _signal_main_thread())
    impatience.daemon = True

    def interrupt(*_: object) -> None:
        again, console.interrupted = console.interrupted, True
        if again or console.asking:
            raise KeyboardInterrupt
        impatience.start()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        impatience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # ends a wait in the system, too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
