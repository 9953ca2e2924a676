"""Let writing fail in many ways without ending the process, and look at what is left.

    python Testing/Campaign/write_faults.py --minutes 2 --seed 1 --json faults.json [--command NAME ...]

Each command runs over an earlier complete result and is refused: at one step or from one step on, by a full disk, by a
place that is closed, a name that is too long, a file where a folder is expected and so on. It must end with code 2 and
one sentence, with the earlier result untouched and nothing beside it; or, where it can, it succeeds wholly.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import places
from commands import Command, Workshop
from figures import Figures, campaign
from results import References, snapshot
from steps import Ending

_REMOVALS = ("os.remove", "os.rmdir")
#: Errors that one step can meet; a rename can also meet a border between disks.
_SINGLE = (errno.EACCES, errno.ENOSPC, errno.EBUSY)
#: Limits of the size of a file, as parts of the largest one that the command writes.
_PARTS = (0.0, 0.02, 0.3, 0.7, 0.95)
_LONG_NAME = re.compile("n{9,}")


@dataclass(frozen=True)
class Refusal:
    """The step that is refused, with which error, and whether all creations from there on are."""

    step: int
    error: int
    lasting: bool = False

    def __call__(self, number: int, event: str, path: str) -> None:
        """Refuse a step of :class:`steps.Steps`."""
        creates = event in ("open", "os.mkdir")
        if number == self.step or (self.lasting and number > self.step and creates):
            raise OSError(self.error, os.strerror(self.error), path)

    def describe(self, events: list[str]) -> str:
        """Words for a list of faults."""
        where = f"{'from step' if self.lasting else 'step'} {self.step}, {events[self.step - 1]}"
        return f"{errno.errorcode[self.error]} at {where}"


def refusals(events: list[str], numbers: random.Random) -> list[Refusal]:
    """Every step with every error that it can meet, in a random order."""
    found = []
    for step, event in enumerate(events, 1):
        found += [Refusal(step, error) for error in _SINGLE]
        if event.startswith("os.rename"):
            found.append(Refusal(step, errno.EXDEV))
        if event.startswith(("open", "os.mkdir")):
            found.append(Refusal(step, errno.ENOSPC, lasting=True))
    numbers.shuffle(found)
    return found


def judge(
    ending: Ending, workshop: Workshop, command: Command, references: References, said: str, figures: Figures,
    removal: bool = False,
) -> None:  # fmt: skip
    """Count how a command ended that could not write as it wanted.

    Args:
        removal: the refused step was a removal, so that what should have been removed may stay.
    """
    now = snapshot(workshop.place)
    state, paths = references.state(now)
    figures.count("faults tried")
    if ending.hung or ending.code < 0:
        figures.fault("hung" if ending.hung else "crash", said, [ending.err[-300:]])
    if state == "mixed":
        figures.fault("mixed", said, paths)
    elif ending.code == 0:
        done = state in ("new", "stale")
        figures.count("done all the same") if done else figures.fault("done without the result", said, paths)
    elif state == "old":
        figures.count("all old")
    elif not command.single and ending.code == 2:
        figures.count("each of several old or new")
    else:
        figures.fault("failed after the new result took its place", said, [ending.err[-300:]])
    _judge_leftovers(ending, now, references, said, figures, removal)
    if command.single:
        judge_words(ending, said, figures)


def _judge_leftovers(
    ending: Ending, now: dict[str, str], references: References, said: str, figures: Figures, removal: bool
) -> None:
    expected = references.after if ending.code == 0 else references.old
    if extra := references.leftovers(now, set(expected) | set(references.old)):
        if removal:
            figures.count("leftovers that could not be removed")
        else:
            figures.fault("leftovers", said, extra)
    if lost := references.lost(now):
        figures.fault("files of the user lost", said, lost)


def judge_words(ending: Ending, said: str, figures: Figures) -> None:
    """Exit code 2 and one sentence, or success."""
    if ending.code == 0 or ending.hung or ending.code < 0:
        return
    lines = [line for line in ending.err.splitlines() if line.strip() and not line.startswith("Note: ")]
    if "Traceback" in ending.err:
        figures.fault("traceback", said, [lines[-1]])
    elif ending.code != 2:
        figures.fault(f"exit code {ending.code}", said, lines[-2:])
    elif len(lines) != 1:
        figures.fault("not one sentence", said, lines[:4])
    elif len(_LONG_NAME.sub("n", lines[0])) > 500 or "Errno" in lines[0] or "Error(" in lines[0]:
        figures.fault("untidy sentence", said, lines)


def limited(size: int) -> None:
    """Let no file of this process grow beyond a size; a write then fails instead of ending it."""
    import resource  # which Windows has not

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _refuse_steps(
    workshop: Workshop, command: Command, references: References, figures: Figures, numbers: random.Random
) -> Iterator[None]:
    for refusal in refusals(references.events, numbers):
        workshop.reset(workshop.kept(command))
        ending = workshop.run(command.new, act=refusal)
        # Files are written by several threads, so that a step may be another one than in the undisturbed run.
        events = ending.events if len(ending.events) >= refusal.step else references.events
        said, removal = refusal.describe(events), events[refusal.step - 1].startswith(_REMOVALS)
        judge(ending, workshop, command, references, said, figures, removal)
        yield


def _limit_sizes(workshop: Workshop, command: Command, references: References, figures: Figures) -> Iterator[None]:
    sizes = [path.stat().st_size for path in workshop.place.rglob("*") if path.is_file()]
    for part in _PARTS:
        size = int(max(sizes, default=0) * part)
        workshop.reset(workshop.kept(command))
        ending = workshop.run(command.new, before=lambda size=size: limited(size))
        judge(ending, workshop, command, references, f"no file over {size} bytes", figures)
        yield


def fail_command(workshop: Workshop, command: Command, figures: Figures, seconds: float, seed: str) -> float:
    """Let the writing of one command fail until the time is over or nothing is left to try; return the seconds used."""
    references = workshop.references(command)
    figures.note("steps", len(references.events))
    start = time.monotonic()
    numbers = random.Random(f"{seed} {command.name}")
    ways = [
        _limit_sizes(workshop, command, references, figures),
        places.trials(workshop, command, references, figures, judge, judge_words),
        _refuse_steps(workshop, command, references, figures, numbers),
    ]
    while ways and time.monotonic() - start <= seconds:
        way = ways.pop(0)
        if next(way, StopIteration) is not StopIteration:
            ways.append(way)
    figures.note("all tried", not ways)
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(campaign(fail_command, __doc__))
