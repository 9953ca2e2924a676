"""Figures of a campaign: counts and faults by command, as JSON and as lines; and the options that campaigns share."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commands import Command, Workshop, chosen_commands, one_thread

#: Faults of a kind that are told in full, for each command.
MOST_TOLD = 5


class Figures:
    """What was counted for one command; a fault is counted and, the first few times, told."""

    def __init__(self, name: str) -> None:
        self.name, self.counts, self.notes, self.faults = name, Counter(), {}, []
        self._told: Counter = Counter()

    def count(self, what: str) -> None:
        """Count something that is right."""
        self.counts[what] += 1

    def note(self, what: str, value: object) -> None:
        """Keep a value."""
        self.notes[what] = value

    def fault(self, kind: str, how: str, shown: Sequence[str] = ()) -> None:
        """Count a fault, and tell what led to it and what shows it."""
        self.counts[kind] += 1
        self._told[kind] += 1
        if self._told[kind] <= MOST_TOLD:
            self.faults.append({"command": self.name, "fault": kind, "how": how, "shown": list(shown)[:12]})

    @property
    def faulty(self) -> int:
        """The number of faults."""
        return sum(self._told.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.notes, **self.counts, "faults": self.faulty}


def campaign(work: Callable[[Workshop, Command, Figures, float, str], float], text: str) -> int:
    """Run a campaign over the commands in turn; each gets its share of the time that is left.

    Args:
        work: called with the workshop, a command, its figures, the seconds for what it tries, and the seed; returns the
            seconds that it used. What it needs to prepare its references comes on top.
        text: for --help.

    Returns:
        The exit code: 1 where a fault was found.
    """
    parser = options(text)
    parser.add_argument("--command", metavar="NAME", action="append", help="only these commands; repeat for several")
    given = parser.parse_args()
    if not hasattr(os, "fork"):
        print("Windows has no fork, by which the trials are made; nothing was tried.", file=sys.stderr)
        return 0
    one_thread()
    commands = chosen_commands(given.command)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as scratch:
        workshop = Workshop(Path(scratch), commands)
        prepared, left = time.monotonic(), 60 * given.minutes
        all_figures = []
        for number, command in enumerate(commands):
            figures, start = Figures(command.name), time.monotonic()
            tried = work(workshop, command, figures, left / (len(commands) - number), given.seed)
            left = max(0.0, left - tried)
            figures.note("seconds", round(time.monotonic() - start, 1))
            all_figures.append(figures)
            print(line_of(figures), flush=True)
    values = {
        "seed": given.seed,
        "minutes": given.minutes,
        "seconds": round(time.monotonic() - started, 1),
        "seconds_to_prepare": round(prepared - started, 1),
        "commands": {figures.name: figures.as_dict() for figures in all_figures},
        "total": dict(sum((figures.counts for figures in all_figures), Counter())),
        "faults": [fault for figures in all_figures for fault in figures.faults],
    }
    return finish(values, sum(figures.faulty for figures in all_figures), given.json)


def options(text: str) -> argparse.ArgumentParser:
    """The options that all campaigns have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", metavar="M", type=float, default=2.0, help="for trials; preparing comes on top (default: 2)"
    )
    parser.add_argument("--seed", metavar="S", default="0", help="of what is tried (default: 0)")
    parser.add_argument("--json", metavar="OUT", help="file for all figures")
    return parser


def line_of(figures: Figures) -> str:
    """The figures of a command on one line."""
    numbers = {name: value for name, value in figures.as_dict().items() if not isinstance(value, str)}
    return f"{figures.name}: " + ", ".join(f"{name} {value}" for name, value in numbers.items())


def finish(values: dict[str, Any], faulty: int, target: str | None) -> int:
    """Write and print the total; return the exit code."""
    values["faulty"] = faulty
    if target:
        Path(target).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for fault in values["faults"]:
        print(json.dumps(fault), file=sys.stderr)
    print("total: " + ", ".join(f"{name} {value}" for name, value in values["total"].items()) + f"; faults {faulty}")
    return int(faulty > 0)
