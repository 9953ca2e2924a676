"""Each stage of `dualtrack run`, from the command to its last file, on free cores and with a loop on every core.

Processor seconds are those of the whole process. Python's byte code is kept from one run to the next, as where a
package was installed by pip, and so are compiled kernels; the first run, which makes both, is not counted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: What reports of progress are called in the table; a stage lasts from its first report to that of the next.
NAMES = {
    "looking for repeated frames": "comparing",
    "loading model": "loading torch and model",
    "preparing the engine (once per computer)": "engine",
    "network": "tracking",
    "attention": "tracking",
    "reconstructing": "volume",
    "filling holes": "holes",
    "measuring errors": "errors",
    "writing frames": "frames",
    "writing the volume": "rest of the volumes",
}
FRAMES = 600


def stages_of(arguments: list[str], bytecode: Path) -> dict[str, tuple[float, float]]:
    """{stage: (seconds, processor seconds)} of a command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=kept | {"PYTHONPYCACHEPREFIX": str(bytecode)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return {name: tuple(seconds) for name, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, list[str]]:
    """Arguments of the command for each clip."""
    from sweeps import curved_sweep

    from DualTrackCore.io import save_sweep
    from DualTrackCore.sample import sample_path

    folder = tmp_path_factory.mktemp("clips")
    long = folder / "long.igs.mha"
    save_sweep(curved_sweep(FRAMES)[0], long)
    named = {"the sample": sample_path(), f"{FRAMES} frames of 480 x 640": long}
    return {name: ["run", str(path), "-o", str(folder / "out")] for name, path in named.items()}


@pytest.mark.parametrize("clip", ["the sample", f"{FRAMES} frames of 480 x 640"])
def test_the_stages_of_a_run(ratio, clips, clip, tmp_path_factory):
    bytecode = tmp_path_factory.getbasetemp() / "bytecode"
    free = lambda: stages_of(clips[clip], bytecode)  # noqa: E731
    free()

    def loaded() -> dict[str, tuple[float, float]]:
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
        try:
            return free()
        finally:
            for loop in loops:
                loop.send_signal(signal.SIGKILL)
                loop.wait()

    timing = ratio(free, {"with a loop on every core": loaded}, what=f"dualtrack run, {clip}", rounds=2, warm_up=0)
    under_load = timing.reference_results["with a loop on every core"]
    for name, (seconds, processor) in timing.result.items():
        timing.figures[f"stage {name}, s"] = seconds
        timing.figures[f"{name}, processor s"] = processor
        timing.figures[f"{name} under load, s"] = under_load[name][0]


def main() -> None:
    """Run a command, and say at the end how long each of its stages took."""
    began = time.perf_counter(), time.process_time()
    from DualTrackCore.cli import main as command
    from DualTrackCore.cli.console import Console
    from DualTrackCore.threads import thread_variables

    os.environ |= thread_variables(os.environ)
    spent: dict[str, list[float]] = {}
    at = ["starting", *began]

    def enter(name: str) -> None:
        now = time.perf_counter(), time.process_time()
        seconds = spent.setdefault(at[0], [0.0, 0.0])
        for place in range(2):
            seconds[place] += now[place] - at[place + 1]
        at[:] = [name, *now]

    def report(_: Console, progress: object) -> None:
        name = str(progress.stage)
        is_loaded = name == "loading model" and progress.done == 1
        enter("engine" if is_loaded else NAMES.get(name, name))

    Console.progress = report
    code = command(sys.argv[1:])
    enter("end")
    print(json.dumps(spent))
    sys.exit(code)


if __name__ == "__main__":
    main()
