"""What the benchmarks of the engine run on: sweeps that take no memory, and how much memory a run takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM
from DualTrackCore.sweep import Sweep

CORE_TESTS = Path(__file__).resolve().parents[1] / "Core"


class SpeckleFrames:
    """Frames made when they are read, [frames, rows, columns] uint8: a long sweep as a file on disk would be."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: int, size: tuple[int, int]) -> None:
        self.shape = (frames, *size)

    def __getitem__(self, key: slice) -> np.ndarray:
        """Frames start to stop; a frame is the same however often it is read."""
        indices = range(*key.indices(self.shape[0]))
        return np.stack([np.random.default_rng(i).integers(0, 256, self.shape[1:], np.uint8) for i in indices])


def long_sweep(frames: int, size: tuple[int, int] = (480, 640)) -> Sweep:
    """A sweep at the published spacing whose frames are in no memory."""
    return Sweep(SpeckleFrames(frames, size), PUBLISHED_SPACING_MM)


def peak_memory(frames: int, size: tuple[int, int] = (480, 640)) -> dict[str, float]:
    """Memory of tracking with the published network, in a process of its own.

    Returns:
        "extra_bytes": above what the loaded model takes; "seconds" and "processor_seconds" of the whole estimate.
    """
    command = [sys.executable, __file__, str(frames), str(size[0]), str(size[1])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(frames: int, size: tuple[int, int]) -> None:
    import resource
    import time
    import warnings

    import torch

    sys.path.insert(0, str(CORE_TESTS))
    from oracle import published_model

    from DualTrackCore import estimate_trajectory

    warnings.simplefilter("ignore")
    model = published_model(1024 if frames <= 1024 else 4096)  # all frames of a sweep in one window of attention
    # The peak until now is that of making the weights: what the process takes now is the input.
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts from here
    start, working = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        estimate_trajectory(long_sweep(frames, size), model, device="cpu")
    seconds, working = time.perf_counter() - start, time.process_time() - working
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    print(json.dumps({"extra_bytes": peak - before, "seconds": seconds, "processor_seconds": working}))


if __name__ == "__main__":
    _measure(int(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])))
