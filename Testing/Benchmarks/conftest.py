"""The `ratio` fixture of the benchmarks, and the table of ratios that ends a run.

Seconds alone say little on a machine that others use too. Every benchmark therefore runs what it measures and what it
is compared with in turn (A, B, A, B ...) and reports the ratio of the best times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# On a busy machine, threads that spin while they wait cost several times the work itself; must precede torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from machine import describe_machine
from timings import text_table, timings_of


@dataclass
class Timing:
    """What one benchmark found.

    Attributes:
        seconds: best time of what is measured.
        reference_seconds: best time of each thing that it is compared with.
        result, reference_results: what the last call of each returned, for the benchmark to compare.
        figures: numbers besides the ratio, {"what, unit": number}; may be filled after the run and reach the table.
        notes: sentences for the table; may be filled after the run.
    """

    seconds: float
    reference_seconds: dict[str, float]
    result: Any
    reference_results: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, reference: str | None = None) -> float:
        """How many times as long the reference takes, the only one or the one of this name."""
        names = list(self.reference_seconds) if reference is None else [reference]
        if len(names) != 1:
            raise ValueError(f"Name one of {list(self.reference_seconds)}.")
        return self.reference_seconds[names[0]] / self.seconds


@pytest.fixture
def ratio(benchmark) -> Callable[..., Timing]:
    """Time something against others in one run, in turn; once in a test.

        timing = ratio(fast, {"plain numpy": slow}, what="nearest mean", rounds=3, note="600 frames")
        assert np.array_equal(timing.result, timing.reference_results["plain numpy"])
        timing.figures["peak memory, MB"] = 210

    Args (of the call):
        ours: what is measured; takes nothing.
        against: {name: callable}; empty where there is nothing to compare with, and then only seconds are reported.
        what: the line in the table.
        rounds: how often each runs; the best time counts.
        once: names in `against` that are too slow for more than one round.
        warm_up: untimed calls of `ours` before the first round.
        note: a sentence for the table.
        setup: untimed, called before every run of `ours` and of the references.

    The benchmark's `extra_info` in the JSON receives what, seconds, reference_seconds, ratios, figures and notes.
    """

    def run(
        ours: Callable[[], Any],
        against: Mapping[str, Callable[[], Any]] | None = None,
        *,
        what: str,
        rounds: int = 3,
        once: tuple[str, ...] = (),
        warm_up: int = 1,
        note: str = "",
        setup: Callable[[], object] | None = None,
    ) -> Timing:
        references = dict(against or {})
        times: dict[str, list[float]] = {name: [] for name in references}
        results: dict[str, Any] = {}
        own: list[float] = []

        def timed(work: Callable[[], Any], seconds: list[float]) -> Any:
            if setup is not None:
                setup()
            start = time.perf_counter()
            result = work()
            seconds.append(time.perf_counter() - start)
            return result

        def run_references() -> None:
            for name, work in references.items():
                if not (times[name] and name in once):
                    results[name] = timed(work, times[name])
            if setup is not None:
                setup()

        def run_ours() -> Any:
            start = time.perf_counter()
            result = ours()
            own.append(time.perf_counter() - start)
            return result

        for _ in range(warm_up):
            if setup is not None:
                setup()
            ours()
        result = benchmark.pedantic(run_ours, setup=run_references, rounds=rounds, iterations=1)
        timing = Timing(min(own), {name: min(seconds) for name, seconds in times.items()}, result, results)
        if note:
            timing.notes.append(note)
        benchmark.extra_info.update(
            what=what,
            seconds=timing.seconds,
            reference_seconds=timing.reference_seconds,
            ratios={name: timing.ratio(name) for name in references},
            figures=timing.figures,
            notes=timing.notes,
        )
        return timing

    return run


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    """Say what decides speed, and leave out the name of the host."""
    machine_info.clear()
    machine_info.update(describe_machine())


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_commit_info(config, commit_info):
    """The commit identifies the code; branch and project name say where it lay."""
    for name in set(commit_info) - {"id", "time", "dirty"}:
        commit_info.pop(name)


def pytest_terminal_summary(terminalreporter, config):
    """The ratios of this run."""
    session = getattr(config, "_benchmarksession", None)
    rows = [] if session is None else timings_of(bench.as_dict(include_data=False) for bench in session.benchmarks)
    if rows:
        terminalreporter.section("ratios: how many times as long the other takes")
        terminalreporter.write_line(text_table(rows))
