"""What the command line prints: sentences for people, one JSON object for machines, progress bars on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from DualTrackCore.cli import watchdog
from DualTrackCore.files import json_text
from DualTrackCore.progress import Progress, Stage

#: Of the objects that --json prints: another number where a field goes or changes its meaning; new ones may come.
JSON_VERSION = 1
#: Time that work without a report may continue after Ctrl-C and after SIGTERM, s; the watchdog waits longer.
GRACE_S, GRACE_TERM_S = 5.0, 1.0
#: Seconds between two lines on how far long work is, where no bar can be shown: in a log.
LOG_EVERY_S = 300.0


class Console:
    """Everything a command says goes through here.

    Args:
        json_output: one JSON object on stdout at the end, instead of sentences.
        quiet: no progress bars, and no lines in their place.
        arguments: of the command, without the program's name.

    Attributes:
        arguments: as given.
        command: the name of the command, for its object.
    """

    def __init__(self, json_output: bool, quiet: bool, arguments: Sequence[str] = ()) -> None:
        self.arguments = arguments
        self._json, self._quiet, self._mute = json_output, quiet, False
        self.command = "dualtrack"
        self._interrupted = self._cancellation_seen = self._asking = False
        self._tell: Callable[[int], None] = lambda told: None
        self._bar = None
        self._waiting = ""
        self._stage: tuple[Stage, str] | None = None
        self._logged = time.monotonic()

    def mute(self) -> None:
        """Say nothing more: another process of the same work speaks for all."""
        self._mute = self._quiet = True

    def start(self) -> None:
        """Say at once that there is something to wait for, where stderr is a terminal; the first words replace it."""
        if sys.stderr.isatty() and not (self._quiet or self._json):
            self._waiting = "Starting …"
            print(self._waiting, end="\r", file=sys.stderr, flush=True)

    def say(self, text: str = "") -> None:
        """A line for people; nothing with --json."""
        if not (self._json or self._mute):
            self.close()
            print(text)

    def result(self, values: Mapping[str, Any], schema: str = "") -> None:
        """The result for machines, named and versioned (Docs/json.md); nothing without --json.

        Numbers that are not finite become null: JSON has no others.
        """
        if self._json and not self._mute:
            named = {"schema": f"{schema or self.command}/{JSON_VERSION}", **values}
            print(json_text(named), end="")

    def warn(self, text: str) -> None:
        """A sentence on stderr that does not stop the work."""
        if not self._mute:
            self.close()
            print(f"Note: {text}", file=sys.stderr)

    def fail(self, text: str, lines: str = "") -> None:
        """The sentence that ends the command, after the lines of a traceback.

        One of several processes leaves both to the one that started them (a file that torchrun names).
        """
        self.close()
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            now = time.time_ns()
            told = {"message": lines + text, "timestamp": now // 10**9, "time_ns": now}
            Path(path).write_text(json_text(told), encoding="utf-8")
            return
        print(f"{lines}dualtrack: {text}", file=sys.stderr)
        self.result({"error": text}, "dualtrack error")

    def confirm(self, question: str) -> bool:
        """Ask yes or no at the terminal; no where nobody can answer."""
        if self._json or not sys.stdin.isatty():
            return False
        self.close()
        self._asking = True
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        finally:
            self._asking = False

    def cancelled(self) -> bool:
        """Whether the user cancelled; for work that polls instead of reporting progress."""
        if self._interrupted and not self._cancellation_seen:
            self._cancellation_seen = True
            self._tell(watchdog.HEARD)
        return self._interrupted

    def progress(self, report: Progress) -> None:
        """Progress callback: one bar a stage, with the time left, or a line every five minutes in a log."""
        if self.cancelled():
            raise KeyboardInterrupt
        if self._quiet:
            return
        if not sys.stderr.isatty():  # a hidden bar starts a thread, and shares a lock with forked processes
            if time.monotonic() - self._logged >= LOG_EVERY_S:
                self._logged = time.monotonic()
                print(f"{report.text}: {report.done} of {report.total}", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm

        if (report.stage, report.detail) != self._stage:
            self.close()
            self._stage = report.stage, report.detail
            self._bar = tqdm(
                total=report.total,
                desc=report.text,
                unit="B" if report.stage is Stage.DOWNLOADING else "",
                unit_scale=report.stage is Stage.DOWNLOADING,
                leave=False,
            )
        self._bar.total = report.total
        self._bar.update(report.done - self._bar.n)

    def close(self) -> None:
        """End the bar, or what else is shown until there is something to say."""
        if self._waiting:
            print(" " * len(self._waiting), end="\r", file=sys.stderr)
            self._waiting = ""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None

    @contextlib.contextmanager
    def warnings_as_sentences(self) -> Iterator[None]:
        """Print warnings of the package as notes, not as Python code with line numbers."""
        with warnings.catch_warnings():
            shown = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
                if category.__module__.startswith("DualTrackCore"):
                    self.warn(str(message))
                elif not self._mute:
                    shown(message, category, *place)

            warnings.showwarning = show
            yield

    @contextlib.contextmanager
    def signals_as_interrupt(self, is_program: bool = False) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a KeyboardInterrupt at the next report of progress.

        An exception raised in a signal handler can occur anywhere. Inside a library that calls back into Python, such
        as a compiler, it is lost or ends the process without clean-up. It is therefore raised at once only while a
        question to the user is open, at the second signal, or after `GRACE_S` without a report. Work that has seen the
        cancellation gets the time that its clean-up needs.

        A process that `is_program` and does not hear SIGTERM, or the second Ctrl-C, in native code is ended within 2 s
        (:mod:`~DualTrackCore.cli.watchdog`).
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set signal handlers
            return
        impatience: list[threading.Timer] = []

        def interrupt(number: int, _: object) -> None:
            again, self._interrupted = self._interrupted, True
            if again or self._asking:
                self._tell(watchdog.HEARD)
                raise KeyboardInterrupt
            grace = GRACE_S if number == signal.SIGINT else min(GRACE_S, GRACE_TERM_S)
            impatience.append(threading.Timer(grace, self._insist))
            impatience[0].daemon = True
            impatience[0].start()

        with watchdog.watched() if is_program else contextlib.nullcontext(self._tell) as self._tell:
            before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for timer in impatience:
                    timer.cancel()
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _insist(self) -> None:
        if not self._cancellation_seen:
            self._tell(watchdog.OWN_SIGNAL)
            _signal_main_thread()


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # ends a wait in the system, too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def plural(count: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Rows of cells as aligned columns, those whose numbers are in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [f"{'>' if column in right else '<'}{width}" for column, width in enumerate(widths)]
    lines = ["  ".join(f"{cell:{form}}" for cell, form in zip(row, aligned, strict=True)) for row in rows]
    return "\n".join(f"  {line}".rstrip() for line in lines)
