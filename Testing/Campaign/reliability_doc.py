"""Writes the table of figures in Docs/reliability.md from what campaigns leave; no figure in it is typed.

    make campaign MINUTES=20
    python Testing/Campaign/reliability_doc.py fuzz_readers.json kill_runs.json write_faults.json

A file is named after its campaign; the row of a campaign whose file is not given stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "Docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
HEAD = ("campaign", "minutes", "seed", "tried, and how it ended", "faults")
#: The faults that a campaign names also where there were none.
NAMED = {
    "fuzz_readers": ("traceback", "hang", "crash", "memory", "untidy"),
    "kill_runs": ("mixed", "leftovers after the next run", "files of the user lost"),
    "write_faults": ("mixed", "leftovers", "files of the user lost"),
}


def row(campaign: str, values: Mapping[str, Any]) -> str:
    """The line of a campaign: what it counted, and its faults, those of the named kinds also where there are none."""
    total, named = dict(values["total"]), NAMED[campaign]
    kinds = {kind: total.pop(kind, 0) for kind in named}
    counts = ({"inputs": values["inputs"]} if "inputs" in values else {}) | total
    cells = [
        f"`{campaign}`",
        f"{values['minutes']:g}",
        str(values.get("seed") or "-"),
        ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        f"{values['faulty']} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})",
    ]
    return line(cells)


def line(cells: Sequence[str]) -> str:
    """One line of the table."""
    return f"| {' | '.join(cells)} |"


def updated(page: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the rows of these campaigns in its table, in a fixed order."""
    before, _, rest = page.partition(f"{BEGIN}\n")
    table, _, after = rest.partition(END)
    rows = {found[1]: found[0] for found in re.finditer(r"^\| `(\w+)` \|.*$", table, re.MULTILINE)}
    rows |= {campaign: row(campaign, values) for campaign, values in figures.items()}
    lines = [line(HEAD), line(["---"] * len(HEAD)), *(rows[campaign] for campaign in NAMED if campaign in rows)]
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"])


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="JSON", nargs="+", type=Path, help=", ".join(f"{name}.json" for name in NAMED))
    files = parser.parse_args().files
    if unknown := [str(path) for path in files if path.stem not in NAMED]:
        parser.error(f"{', '.join(unknown)} is named after no campaign; expected {', '.join(NAMED)}.")
    figures = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
