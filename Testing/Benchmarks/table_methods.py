"""Parameters, time a frame and memory of the networks that are compared, all measured in one run.

    python Testing/Benchmarks/table_methods.py [--method NAME ...] [-o table.md]

Names are those of `dualtrack evaluate`: model:mini, baseline:two-frame, baseline:FILE, ... Frames are the sample
sweep's, forwards and backwards by turns. Times: every method in turn, several rounds, the best of each. Memory: each
method in a process of its own, the most resident memory while it tracks less what the process held before, for a sweep
and for one of four times the length.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, below

import numpy as np

from DualTrackCore.files import replacing
from DualTrackCore.research.comparison.measure import PeakMemory
from DualTrackCore.research.comparison.methods import Method, load_networks, parameter_count
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep

DEFAULT = (
    "model:mini",
    "baseline:two-frame",
    "baseline:resnext",
    "baseline:cnn-lstm",
    "baseline:hybrid",
)
_TITLES = ("method", "parameters", "ms a frame", "times as long as the first", "memory, MB", "of 4 times the frames")


def long_sweep(frames: int) -> Sweep:
    """The frames of the sample sweep, to and fro, as many as wanted."""
    sample = sample_sweep()
    pixels = sample.window(0, len(sample))
    there_and_back = np.concatenate([pixels, pixels[::-1]])
    repeats = -(-frames // len(there_and_back))
    return Sweep(np.tile(there_and_back, (repeats, 1, 1))[:frames], sample.spacing_mm, provenance={"simulated": True})


def seconds_each(methods: Sequence[Method], sweep: Sweep, rounds: int) -> list[float]:
    """Best time of every method, run in turn."""
    best = [float("inf")] * len(methods)
    for _ in range(rounds):
        for i, method in enumerate(methods):
            start = time.perf_counter()
            method.estimate(sweep)
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def memory_mb(name: str, frames: int) -> list[float]:
    """Peak memory of one method for the sweep and for one of four times the length, in a process of its own."""
    command = [sys.executable, __file__, "--measure-memory", name, "--frames", str(frames)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measured_memory(name: str, frames: int) -> list[float]:
    """What :func:`memory_mb` runs in the other process."""
    method = next(iter(load_networks([name], "cpu").values()))
    sweeps = [long_sweep(frames), long_sweep(4 * frames)]
    with PeakMemory() as before:
        pass  # the peak of nothing is what is resident now: libraries, weights, both sweeps
    peaks = []
    for sweep in sweeps:
        with PeakMemory() as during:
            method.estimate(sweep)
        peaks.append((during.mebibytes - before.mebibytes) * 1.048576)
    return peaks


def table(names: Sequence[str], frames: int, rounds: int) -> str:
    """Markdown."""
    networks = load_networks(names, "cpu")
    methods = [networks[name] for name in names]
    sweep = long_sweep(frames)
    seconds_each(methods, long_sweep(40), 1)  # warm up
    seconds = seconds_each(methods, sweep, rounds)
    lines = [f"| {' | '.join(_TITLES)} |", "| --- " + "| ---: " * (len(_TITLES) - 1) + "|"]
    for name, method, own in zip(names, methods, seconds, strict=True):
        memory = memory_mb(name, frames)
        cells = (
            name,
            f"{parameter_count(method):,}",
            f"{1e3 * own / frames:.2f}",
            f"{own / seconds[0]:.2f}",
            *(f"{value:.0f}" for value in memory),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=DEFAULT, help="names as for dualtrack evaluate")
    parser.add_argument("--frames", type=int, default=400, help="of the sweep that is timed")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("-o", "--output", help="file for the table")
    parser.add_argument("--measure-memory", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.measure_memory:
        print(json.dumps(measured_memory(options.measure_memory, options.frames)))
        return
    text = table(list(dict.fromkeys(options.method)), options.frames, options.rounds)
    print(text)
    if options.output:
        with replacing(Path(options.output)) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
