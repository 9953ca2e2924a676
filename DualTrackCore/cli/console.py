"""What the command line prints: sentences for people, one JSON object for machines, progress bars on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from DualTrackCore.progress import Progress, Stage


class Console:
    """Everything a command says goes through here.

    Args:
        json_output: one JSON object on stdout at the end, instead of sentences.
        quiet: no progress bars.

    Attributes:
        interrupted: set by the signal handler; the next report of progress raises KeyboardInterrupt.
        cancellation_seen: the work has seen the cancellation and is stopping.
        asking: a question to the user is open.
    """

    def __init__(self, json_output: bool, quiet: bool) -> None:
        self._json, self._quiet = json_output, quiet
        self.interrupted = self.cancellation_seen = self.asking = False
        self._bar = None
        self._stage: tuple[Stage, str] | None = None

    def say(self, text: str = "") -> None:
        """A line for people; nothing with --json."""
        if not self._json:
            self.close()
            print(text)

    def result(self, values: Mapping[str, Any]) -> None:
        """The result for machines; nothing without --json."""
        if self._json:
            print(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False))

    def warn(self, text: str) -> None:
        """A sentence on stderr that does not stop the work."""
        self.close()
        print(f"Note: {text}", file=sys.stderr)

    def fail(self, text: str) -> None:
        """The sentence that ends the command."""
        self.close()
        print(f"dualtrack: {text}", file=sys.stderr)
        self.result({"error": text})

    def confirm(self, question: str) -> bool:
        """Ask yes or no at the terminal; no where nobody can answer."""
        if self._json or not sys.stdin.isatty():
            return False
        self.close()
        self.asking = True
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        finally:
            self.asking = False

    def cancelled(self) -> bool:
        """Whether the user cancelled; for work that polls instead of reporting progress."""
        self.cancellation_seen = self.interrupted
        return self.interrupted

    def progress(self, report: Progress) -> None:
        """Progress callback: one bar a stage, with the time left; only where stderr is a terminal."""
        from tqdm import tqdm

        if self.cancelled():
            raise KeyboardInterrupt
        if (report.stage, report.detail) != self._stage:
            self.close()
            self._stage = report.stage, report.detail
            self._bar = tqdm(
                total=report.total,
                desc=report.text,
                unit="B" if report.stage is Stage.DOWNLOADING else "",
                unit_scale=report.stage is Stage.DOWNLOADING,
                disable=True if self._quiet else None,
                leave=False,
            )
        self._bar.total = report.total
        self._bar.update(report.done - self._bar.n)

    def close(self) -> None:
        """End the bar that is shown."""
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
                else:
                    shown(message, category, *place)

            warnings.showwarning = show
            yield


def plural(count: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def columns(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
