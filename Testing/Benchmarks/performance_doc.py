"""Writes Docs/performance.md and its picture from the JSON of a benchmark run; no figure in them is typed.

    make bench
    python Testing/Benchmarks/performance_doc.py bench.json

Several files are taken together, the first one first: suites may be run one by one, all on one machine.

Sections are the benchmark files, headed by the first line of each. Tests with "grows" in their name go to the section
on growth, and figures called "stage NAME, s" to the picture.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from network_work import Work, work_a_frame
from timings import TITLES, Row, timings_of

from DualTrackCore.files import replacing
from DualTrackCore.pictures.drawing import BLUE, GREY, INK, new_figure, save

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "Docs"
PICTURE = "performance-profile.png"
#: (name, arithmetic in fp32 in TFLOP/s, memory bandwidth in GB/s) from the makers' data sheets.
CARDS = (("GeForce RTX 3060", 12.7, 360.0), ("GeForce RTX 4070", 29.1, 504.0))
#: Parts of the data sheets' figures that convolutions reach in practice: an assumption.
ARITHMETIC_REACHED, BANDWIDTH_REACHED = 0.4, 0.7

INTRODUCTION = """# Performance

This page is written by `Testing/Benchmarks/performance_doc.py` from the results of `make bench`; do not edit it.

Each benchmark runs what it measures and what it is compared with in turn, in one process, and keeps the best time of
each. Ratios say how many times as long the other takes; they hold on other machines far better than seconds do.
"""


def document(results: Mapping[str, Any], work: Work) -> str:
    """The whole page as Markdown."""
    benchmarks = results["benchmarks"]
    growing = [entry for entry in benchmarks if "grows" in entry["name"]]
    others = [entry for entry in benchmarks if "grows" not in entry["name"]]
    parts = [INTRODUCTION, machine_text(results)]
    for suite, rows in groupby(timings_of(others), key=lambda row: row.suite):
        parts.append(f"## {heading(suite)}\n\n{table(TITLES, (row.cells for row in rows))}")
    if growing:
        parts.append("## How cost grows\n\n" + growth_text(timings_of(growing)))
    if any(stages_of(entry) for entry in benchmarks):
        parts.append("## Where the time goes\n\n" + profile_text(benchmarks))
    parts.append("## The stages of a run, before and after\n\n" + (HERE / "stages.md").read_text(encoding="utf-8"))
    parts.append("## On a graphics card\n\n" + card_text())
    parts.append("## On a consumer GPU: an estimate, not a measurement\n\n" + gpu_text(work))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def machine_text(results: Mapping[str, Any]) -> str:
    """The machine and the code of the run."""
    machine = results["machine_info"]
    sets = ", ".join(machine["instruction_sets"]) or "none of those that matter here"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        ("cores", machine["cores"]),
        ("instruction sets", f"{machine['machine']}: {sets}"),
        ("memory", f"{machine['memory_gb']} GB"),
        ("GPU", machine["gpu"] or "none"),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("packages", packages),
        ("code", f"commit {str(results['commit_info'].get('id'))[:12]}, {results['datetime'][:10]}"),
    ]
    return "## The machine\n\n" + table(("", ""), lines)


def heading(suite: str) -> str:
    """First line of the file's docstring, without the full stop."""
    path = HERE / f"{suite}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return (text or suite).splitlines()[0].rstrip(".")


def table(titles: Iterable[object], lines: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    titles = list(titles)
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def growth_text(rows: list[Row]) -> str:
    """One table: what, time, and the figures that were varied."""
    return "The same work with more frames, more pixels or finer voxels.\n\n" + table(
        ("what", "time", "of what size"), ((row.cells[0], row.cells[1], row.remark) for row in rows)
    )


def stages_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage of a benchmark that tells them."""
    figures = entry["extra_info"].get("figures", {})
    return {
        name.removeprefix("stage ").removesuffix(", s"): seconds
        for name, seconds in figures.items()
        if name.startswith("stage ")
    }


def profile_text(benchmarks: Iterable[Mapping[str, Any]]) -> str:
    """The picture and, for each bar, its longest stages in words."""
    lines = [f"![Seconds of each stage from a file to a volume](pictures/{PICTURE})", ""]
    for entry in benchmarks:
        if stages := stages_of(entry):
            total = sum(stages.values())
            longest = sorted(stages.items(), key=lambda item: -item[1])[:3]
            shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in longest)
            lines.append(f"- {entry['extra_info']['what']}: {shares}.")
    return "\n".join(lines)


def draw_profile(benchmarks: Iterable[Mapping[str, Any]], path: Path) -> None:
    """One row of bars for each benchmark that tells its stages."""
    entries = [entry for entry in benchmarks if stages_of(entry)]
    if not entries:
        return
    figure = new_figure(1.0 + 3.2 * len(entries), "white")
    for number, entry in enumerate(entries, 1):
        stages = stages_of(entry)
        total = sum(stages.values())
        axes = figure.add_subplot(len(entries), 1, number)
        places = range(len(stages))
        longest = max(stages.values())
        axes.barh(places, stages.values(), color=[BLUE if s == longest else GREY for s in stages.values()])
        for place, seconds in zip(places, stages.values(), strict=True):
            axes.text(seconds, place, f" {seconds:.2f} s, {seconds / total:.0%}", va="center", color=INK, fontsize=13)
        axes.set_yticks(list(places), list(stages), fontsize=13)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * longest)
        axes.set_xlabel("seconds")
        axes.set_title(entry["extra_info"]["what"], loc="left", fontsize=15, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save(figure, path)


def card_text() -> str:
    """What `Testing/Device/measure.py` found on a card, or what waits for one."""
    measured = HERE.parent / "Device" / "results.md"
    return (measured if measured.is_file() else HERE.parent / "Device" / "waiting.md").read_text(encoding="utf-8")


def gpu_text(work: Work) -> str:
    """Time of a frame on some cards, from the counted work."""
    lines = []
    for name, tera, bandwidth in CARDS:
        cells = [name, f"{tera:g} TFLOP/s, {bandwidth:g} GB/s"]
        for factor in (1, 2):  # fp32; fp16, twice the arithmetic and half the bytes
            arithmetic = work.flop / (factor * tera * 1e12 * ARITHMETIC_REACHED)
            traffic = work.traffic_bytes / factor / (bandwidth * 1e9 * BANDWIDTH_REACHED)
            slower = "arithmetic" if arithmetic > traffic else "memory"
            seconds = max(arithmetic, traffic)
            cells.append(f"{1e3 * seconds:.1f} ms, {1 / seconds:.0f} frames a second ({slower} decides)")
        lines.append(cells)
    return (
        f"The local encoder of the published network costs {work.flop / 1e9:.1f} GFLOP and, layer by layer, "
        f"{work.traffic_bytes / 1e6:.0f} MB of memory traffic a frame in fp32 (counted by "
        "`Testing/Benchmarks/network_work.py`). A card "
        f"is assumed to reach {ARITHMETIC_REACHED:.0%} of its arithmetic and {BANDWIDTH_REACHED:.0%} of its bandwidth, "
        "and fp16 to double the one and halve the other. The slower of the two decides. None of this was run.\n\n"
        + table(("card", "data sheet", "fp32, a frame", "fp16, a frame"), lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", default=[Path("bench.json")])
    parser.add_argument("-o", "--output", type=Path, default=DOCS, help="folder of performance.md and pictures/")
    options = parser.parse_args()
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    results = parts[0] | {"benchmarks": [entry for part in parts for entry in part["benchmarks"]]}
    (options.output / "pictures").mkdir(parents=True, exist_ok=True)
    draw_profile(results["benchmarks"], options.output / "pictures" / PICTURE)
    with replacing(options.output / "performance.md") as temporary:
        temporary.write_text(document(results, work_a_frame()), encoding="utf-8")


if __name__ == "__main__":
    main()
