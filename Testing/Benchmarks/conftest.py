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


class _Turns:
    """Runs what is measured and what it is compared with, and keeps the seconds of each."""

    def __init__(
        self,
        ours: Callable[[], Any],
        references: Mapping[str, Callable[[], Any]],
        once: tuple[str, ...],
        setup: Callable[[], object] | None,
    ) -> None:
        self._ours, self._references, self._once = ours, references, once
        self.set_up = setup or (lambda: None)
        self._own: list[float] = []
        self._times: dict[str, list[float]] = {name: [] for name in references}
        self._results: dict[str, Any] = {}

    def run_ours(self) -> Any:
        """One round of what is measured; the set-up came before it."""
        start = time.perf_counter()
        result = self._ours()
        self._own.append(time.perf_counter() - start)
        return result

    def run_references(self) -> None:
        """One round of the others, and the set-up for what is measured."""
        for name, work in self._references.items():
            if not (self._times[name] and name in self._once):
                self.set_up()
                start = time.perf_counter()
                self._results[name] = work()
                self._times[name].append(time.perf_counter() - start)
        self.set_up()

    def timing(self, result: Any, notes: list[str]) -> Timing:
        """The best times."""
        seconds = {name: min(times) for name, times in self._times.items()}
        return Timing(min(self._own), seconds, result, self._results, notes=notes)


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
        turns = _Turns(ours, dict(against or {}), once, setup)
        for _ in range(warm_up):
            turns.set_up()
            ours()
        result = benchmark.pedantic(turns.run_ours, setup=turns.run_references, rounds=rounds, iterations=1)
        timing = turns.timing(result, [note] if note else [])
        benchmark.extra_info.update(
            what=what,
            seconds=timing.seconds,
            reference_seconds=timing.reference_seconds,
            ratios={name: timing.ratio(name) for name in timing.reference_seconds},
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
