"""Start-up of the commands and of the worker, and reading a sweep against reading its bytes.

Commands are compared with a Python that does nothing, started in turn with them: on a busy machine only that says what
is the command's own.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))
from worker_processes import Driver

from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.sample import sample_path
from DualTrackCore.sweep import Sweep

FRAMES = 600
#: Plain pixels, as scanners and PLUS write them, and the compressed files that are written here.
FORMATS = ("raw.mha", "compressed.igs.mha", "compressed.h5")


#: All that a run has compiled before the network starts.
PREPARE = """
from DualTrackCore.network.fast import prepare_engine
from DualTrackCore.reconstruction.kernels import SIGNATURES
prepare_engine(more=SIGNATURES)
"""


def command(*arguments: str, environment: dict[str, str] | None = None) -> Callable[[], float]:
    """Run this Python to its end; returns the processor seconds that it took."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | (environment or {}),
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("dualtrack --help", ["--help"]),
        ("dualtrack info, sample sweep", ["info", str(sample_path())]),
        ("dualtrack models list", ["models", "list"]),
    ],
)
def test_a_command(ratio, what, arguments):
    timing = ratio(
        command("-m", "DualTrackCore.cli", *arguments), {"python -c pass": command("-c", "pass")}, what=what, rounds=5
    )
    timing.figures["processor, s"] = timing.result
    timing.figures["processor above python, s"] = timing.result - timing.reference_results["python -c pass"]


def test_preparing_the_engine_first_and_later(ratio, tmp_path):
    """Processor seconds of the first run on a computer, and of one that finds the kernels on disk."""
    empty, filled = tmp_path / "empty", tmp_path / "filled"
    later = command("-c", PREPARE, environment={"NUMBA_CACHE_DIR": str(filled)})
    later()
    first = command("-c", PREPARE, environment={"NUMBA_CACHE_DIR": str(empty)})

    def first_run() -> float:
        shutil.rmtree(empty, ignore_errors=True)
        return first()

    timing = ratio(first_run, {"kernels on disk": later}, what="preparing the engine, nothing on disk", rounds=2)
    seconds = timing.result - timing.reference_results["kernels on disk"]
    timing.figures["processor seconds of compiling"] = seconds
    assert seconds < 20


def test_the_worker_cold_and_warm(ratio):
    """Time to the answer of the first request, torch and all, and of a later one."""

    def cold() -> object:
        with Driver() as worker:
            return worker.preflight("cpu")

    with Driver() as worker:
        worker.preflight("cpu")
        warm = lambda: worker.preflight("cpu")  # noqa: E731
        timing = ratio(warm, {"cold": cold}, what="worker: answer of a warm one", rounds=3)
    assert timing.result["ready"]


class Files:
    """One sweep in several formats."""

    def __init__(self, folder: Path) -> None:
        rows = np.random.default_rng(0).integers(0, 256, (16, 480, 640), dtype=np.uint8)
        rows[:, :, ::2] = rows[:, :, 1::2]  # half of it compresses
        sweep = Sweep(np.tile(rows, (FRAMES // 16 + 1, 1, 1))[:FRAMES], 0.2)
        self.paths = {name: folder / name for name in FORMATS}
        for name in FORMATS[1:]:
            save_sweep(sweep, self.paths[name])
        image = sitk.GetImageFromArray(sweep.frames)
        image.SetSpacing((0.2, 0.2, 1.0))
        sitk.WriteImage(image, str(self.paths["raw.mha"]), useCompression=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return Files(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.parametrize("name", FORMATS)
def test_reading_a_sweep(ratio, files, name):
    path = files.paths[name]

    def read() -> int:
        sweep = load_sweep(path)
        return sum(int(window.max()) for _, window in sweep.windows(16))

    def plain() -> int:
        buffer, total = np.empty(16 * 480 * 640, np.uint8), 0
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += int(buffer[:count].max())
        return total

    timing = ratio(read, {"reading and looking at the bytes": plain}, what=f"all frames of {name}, 480x640")
    timing.figures["MB/s of pixels"] = FRAMES * 480 * 640 / 1e6 / timing.seconds
    timing.figures["file, MB"] = path.stat().st_size / 1e6
