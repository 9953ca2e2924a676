"""Kill commands at every step on the file system, and at random times, and look at what is left.

    python Testing/Campaign/kill_runs.py --minutes 2 --seed 1 --json kills.json [--command NAME ...]

Each command runs over an earlier complete result. After a kill the result must be wholly the old or wholly the new
one, and after one more run of the same command nothing else may lie there.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from commands import Command, Workshop
from figures import Figures, campaign
from results import TEMPORARY, References, snapshot

#: Kills from outside for each command that is done with its steps.
MOST_OUTSIDE = 40


@dataclass(frozen=True)
class Kill:
    """One kill: before the n-th step, or by a signal from outside after so many seconds."""

    step: int = 0
    delay_s: float = 0.0
    number: int = signal.SIGKILL

    def describe(self, events: Sequence[str]) -> str:
        """Words for a list of faults."""
        if self.step:
            what = events[self.step - 1] if self.step <= len(events) else "a later step"
            return f"killed before step {self.step}, {what}"
        return f"{signal.Signals(self.number).name} after {self.delay_s:.3f} s"


def kills(references: References, numbers: random.Random) -> Iterator[Kill]:
    """Steps in a random order, every one once, and between and after them kills from outside."""
    steps = list(range(1, len(references.events) + 1))
    numbers.shuffle(steps)

    def outside() -> Kill:
        delay = numbers.uniform(0, references.seconds)
        return Kill(delay_s=delay, number=numbers.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))

    for count, step in enumerate(steps, 1):
        yield Kill(step)
        if count % 3 == 0:
            yield outside()
    for _ in range(max(0, MOST_OUTSIDE - len(steps) // 3)):
        yield outside()


def kill_once(workshop: Workshop, command: Command, references: References, kill: Kill, figures: Figures) -> None:
    """One kill, a look, one normal run, and another look."""

    def act(number: int, event: str, path: str) -> None:
        if number == kill.step:
            os.kill(os.getpid(), signal.SIGKILL)

    workshop.reset(workshop.kept(command))
    outside = None if kill.step else (kill.delay_s, kill.number)
    ending = workshop.run(command.new, act=act if kill.step else None, outside=outside)
    said = kill.describe(references.events)
    figures.count("kills" if ending.code else "ended before the kill")
    if ending.hung:
        figures.fault("hung", said)
    state, paths = references.state(now := snapshot(workshop.place))
    if state == "mixed":
        figures.fault("mixed", said, paths)
    else:
        figures.count({"old": "all old", "new": "all new", "stale": "new beside old files"}[state])
    if lost := references.lost(now):
        figures.fault("files of the user lost", said, lost)
    if "Traceback" in ending.err:
        figures.fault("traceback", said, [ending.err[-600:]])
    _look_after_next_run(workshop, command, references, said, figures)


def _look_after_next_run(
    workshop: Workshop, command: Command, references: References, said: str, figures: Figures
) -> None:
    ending = workshop.run(command.new)
    now = snapshot(workshop.place)
    if ending.code != 0:
        figures.fault("next run failed", said, [ending.err[-600:]])
    elif references.state(now)[0] not in ("new", "stale"):
        figures.fault("next run wrong", said, references.state(now)[1])
    extra = references.leftovers(now)
    # No later run can know whose they are; the system clears its folder itself.
    if beside := [path for path in extra if not path.startswith(f"{TEMPORARY}/")]:
        figures.fault("leftovers after the next run", said, beside)
    elif extra:
        figures.count("leftovers in the system's temporary folder")


def kill_command(workshop: Workshop, command: Command, figures: Figures, seconds: float, seed: str) -> float:
    """Kill one command until the time is over or nothing is left to try; return the seconds used."""
    references = workshop.references(command)
    start = time.monotonic()
    figures.note("steps", len(references.events))
    state, stale = references.state(references.after)
    if state != "new":
        figures.fault("undisturbed run leaves old files" if state == "stale" else "undisturbed run is wrong", "", stale)
    if extra := references.leftovers(references.after, {*references.old, *references.new}):
        figures.fault("undisturbed run leaves more", "", extra)
    for kill in kills(references, random.Random(f"{seed} {command.name}")):
        if time.monotonic() - start > seconds:
            break
        if kill.step:
            figures.count("steps tried")
        kill_once(workshop, command, references, kill, figures)
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(campaign(kill_command, __doc__))
