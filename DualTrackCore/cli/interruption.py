"""Ctrl-C and SIGTERM: the work stops cleanly at its next report of progress."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from DualTrackCore.cli.console import Console

#: Time that work without a report may continue after a signal, s.
GRACE_S = 5.0


@contextlib.contextmanager
def signals_as_interrupt(console: Console) -> Iterator[None]:
    """Turn both signals into a KeyboardInterrupt, raised by the console at the next report of progress.

    An exception raised in a signal handler can occur anywhere. Inside a library that calls back into Python, such as a
    compiler, it is lost or ends the process without clean-up. It is therefore raised at once only while a question to
    the user is open, at the second signal, or after `GRACE_S` without a report. Work that has seen the cancellation
    gets the time that its clean-up needs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    impatience = threading.Timer(GRACE_S, lambda: console.cancellation_seen or _signal_main_thread())
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
