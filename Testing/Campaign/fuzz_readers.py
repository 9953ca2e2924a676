"""Feed readers with faulty files: none may crash, hang, end with a traceback or call a lack of memory damage.

    python Testing/Campaign/fuzz_readers.py --minutes 5 --seed 1 --json fuzz.json [--inputs FOLDER] [--format PART ...]
    python Testing/Campaign/fuzz_readers.py --replay FILE --reader sweep

Input number n of a seed is the same at every run, whatever else is run. Files with a faulty outcome are kept.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from commands import ROOT, one_thread
from figures import finish, options
from fuzz_child import READERS, Child, import_all
from fuzz_seeds import Seed, make_seeds
from mutations import mutate

HOSTILE = ROOT.parent / "shared" / "field_cases" / "hostile"
FAULTY = ("traceback", "hang", "crash", "memory", "untidy")
#: Files that are kept of each kind of fault and place in the product, for each format.
MOST_KEPT = 2

#: One in so many inputs is made from a file that is hard already.
HOSTILE_EVERY = 149


class Fuzzing:
    """Counts by format, and the faults with their files."""

    def __init__(self, seeds: list[Seed], seed: str, kept: Path) -> None:
        self.seeds, self.seed, self.kept = seeds, seed, kept
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.faults: list[dict[str, Any]] = []
        self._seen: Counter = Counter()
        self._child = Child()

    def run(self, seconds: float) -> None:
        """Read every seed as it is, then changed ones in turn until the time is over."""
        end = time.monotonic() + seconds
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for seed in self.seeds:
                self._read(seed, seed.files[seed.changed], Path(folder), None)
            number = 0
            while time.monotonic() < end:
                seed = self.seed_of(number)
                self._read(seed, self.content(seed, number), Path(folder), number)
                number += 1
        self._child.end()

    def seed_of(self, number: int) -> Seed:
        """The seeds take turns; those that are faulty already, and mostly stay so, come rarely."""
        hostile = [seed for seed in self.seeds if seed.is_hostile]
        valid = [seed for seed in self.seeds if not seed.is_hostile] or hostile
        if hostile and number % HOSTILE_EVERY == HOSTILE_EVERY - 1:
            return hostile[number // HOSTILE_EVERY % len(hostile)]
        return valid[number % len(valid)]

    def content(self, seed: Seed, number: int) -> bytes:
        """The changed file of this number."""
        numbers = random.Random(f"{self.seed} {seed.format} {number}")
        other = numbers.choice(self.seeds)
        return mutate(seed.files[seed.changed], other.files[other.changed], seed.text, numbers)

    def _read(self, seed: Seed, content: bytes, folder: Path, number: int | None) -> None:
        place = folder / "input"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, original in seed.files.items():
            (place / name).write_bytes(content if name == seed.changed else original)
        outcome, message, where = self._child.read(seed.reader, place / seed.entry)
        self.counts[seed.format][outcome] += 1
        if number is None and outcome != "read" and not (seed.is_hostile or seed.may_be_refused):
            self._tell(seed, place, "seed refused", message, where, number)
        elif outcome in FAULTY:
            self._tell(seed, place, outcome, message, where, number)

    def _tell(self, seed: Seed, place: Path, outcome: str, message: str, where: str, number: int | None) -> None:
        self._seen[seed.format, outcome, where] += 1
        if self._seen[seed.format, outcome, where] > MOST_KEPT:
            return
        name = f"{seed.format}-{outcome}-{'seed' if number is None else number}".replace(" ", "_")
        target = self.kept / name
        shutil.copytree(place, target, dirs_exist_ok=True)
        self.faults.append(
            {
                "format": seed.format,
                "reader": seed.reader,
                "outcome": outcome,
                "message": message,
                "where": where,
                "input": f"{name}/{seed.entry}",
            }
        )

    def figures(self, given: Namespace, seconds: float) -> dict[str, Any]:
        """Counts by format and in all, kinds of faults by place, and the faults."""
        total = sum(self.counts.values(), Counter())
        kinds = Counter(f"{outcome} at {where}" for (_, outcome, where) in self._seen.elements())
        return {
            "seed": given.seed,
            "minutes": given.minutes,
            "seconds": round(seconds, 1),
            "inputs": total.total(),
            "children": self._child.restarts,
            "formats": {name: dict(counts) for name, counts in self.counts.items()},
            "total": dict(total),
            "kinds": dict(kinds.most_common()),
            "kept": str(self.kept),
            "faults": self.faults,
        }

    @property
    def faulty(self) -> int:
        """The number of inputs with a faulty outcome."""
        return sum(self._seen.values())


def main() -> int:
    """Run the campaign, or read one file again."""
    parser = options(__doc__)
    parser.add_argument("--inputs", metavar="FOLDER", help="where faulty files are kept (default: beside the JSON)")
    parser.add_argument("--format", metavar="PART", action="append", help="only formats with this in their name")
    parser.add_argument("--replay", metavar="FILE", help="read one file and say how it ends")
    parser.add_argument("--reader", choices=sorted(READERS), default="sweep", help="of --replay (default: sweep)")
    given = parser.parse_args()
    one_thread()
    import_all()
    if given.replay:
        child = Child()
        print(*child.read(given.reader, Path(given.replay).resolve()), sep="\n")
        child.end()
        return 0
    seeds = make_seeds(HOSTILE)
    if given.format:
        seeds = [seed for seed in seeds if any(part in seed.format for part in given.format)]
    kept = Path(given.inputs or f"{given.json or 'fuzz'}.inputs").resolve()
    fuzzing = Fuzzing(seeds, given.seed, kept)
    started = time.monotonic()
    fuzzing.run(60 * given.minutes)
    for name, counts in fuzzing.counts.items():
        print(f"{name}: " + ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items())))
    return finish(fuzzing.figures(given, time.monotonic() - started), fuzzing.faulty, given.json)


if __name__ == "__main__":
    sys.exit(main())
