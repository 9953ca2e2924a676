"""Reading the benchmarks' results, and laying them out as rows and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        suite: file of the benchmark, "bench_engine".
        what: what was measured.
        seconds: its best time.
        against: name of what it is compared with, or empty.
        reference_seconds, ratio: of that; None without.
        remark: figures and notes, on the first line of a benchmark.
    """

    suite: str
    what: str
    seconds: float
    against: str
    reference_seconds: float | None
    ratio: float | None
    remark: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as text: what, time, against, time of that, ratio, remark."""
        other = "" if self.reference_seconds is None else seconds_text(self.reference_seconds)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}" if self.ratio < 10 else f"{self.ratio:.0f}"
        return self.what, seconds_text(self.seconds), self.against, other, ratio, self.remark


TITLES = ("what", "time", "against", "its time", "ratio", "remarks")


def timings_of(benchmarks: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows of the entries under "benchmarks" of a JSON; one for each comparison, in their order."""
    rows = []
    for entry in benchmarks:
        info = entry["extra_info"]
        if "what" not in info:
            continue
        suite = entry["fullname"].split("::")[0].rsplit("/", 1)[-1].removesuffix(".py")
        remark = "; ".join([*(f"{what} {value:.4g}" for what, value in info["figures"].items()), *info["notes"]])
        references = info["reference_seconds"] or {"": None}
        for place, (name, seconds) in enumerate(references.items()):
            first = place == 0
            ratio = info["ratios"].get(name)
            rows.append(Row(suite, info["what"], info["seconds"], name, seconds, ratio, remark if first else ""))
    return rows


def text_table(rows: Iterable[Row]) -> str:
    """The rows in columns for a terminal, the remarks on lines of their own."""
    rows = list(rows)
    lines = [TITLES[:-1], *(row.cells[:-1] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES) - 1)]
    text = []
    for line, row in zip(lines, [None, *rows], strict=True):
        text.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if row is not None and row.remark:
            text.append(f"    {row.remark}")
    return "\n".join(text)


def seconds_text(seconds: float) -> str:
    """A time with three digits and a fitting unit."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
