"""A clip from its file to its volume.

Figures called "stage NAME, s" become the picture of where the time goes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from sweeps import curved_sweep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))

from oracle import published_model

from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.network import load_model
from DualTrackCore.progress import Progress
from DualTrackCore.reconstruction import plan_grid, reconstruct_volume
from DualTrackCore.tracking import estimate_trajectory

#: What the stages that long calls report are called in the picture.
NAMES = {"network": "convolutions", "attention": "attention", "reconstructing": "compounding"}


class Stages:
    """Seconds of each stage; also a progress callback that divides a call at the first report of a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage, self._since = "", time.perf_counter()

    def enter(self, stage: str) -> None:
        """What follows is this stage."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def __call__(self, progress: Progress) -> None:
        stage = NAMES.get(progress.stage, progress.stage)
        if stage != self._stage:
            self.enter(stage)


def run(path: Path, model, trajectory) -> Stages:
    """Read, estimate, compound along the known path (that of an untrained network may span metres), write."""
    stages = Stages()
    stages.enter("reading")
    sweep = load_sweep(path)
    stages.enter("preprocessing")
    estimate_trajectory(sweep, model, progress=stages)
    stages.enter("planning")
    grid = plan_grid(sweep, trajectory)
    stages.enter("compounding")
    volume = reconstruct_volume(sweep, trajectory, grid, progress=stages)
    stages.enter("writing")
    volume.write(path.with_suffix(".nrrd"))
    stages.enter("")
    return stages


@pytest.mark.parametrize(("title", "frames"), [("mini model", 200), ("published network", 48)])
def test_a_clip_becomes_a_volume(ratio, title, frames, tmp_path):
    sweep, trajectory = curved_sweep(frames)
    path = tmp_path / "clip.igs.mha"
    save_sweep(sweep, path)
    model = load_model() if title == "mini model" else published_model()
    timing = ratio(
        lambda: run(path, model, trajectory),
        what=f"{title}: {frames} frames of 480 x 640 pixels, from file to volume",
        rounds=2,
        warm_up=1 if title == "mini model" else 0,
    )
    timing.figures["frames a second"] = frames / timing.seconds
    timing.figures.update({f"stage {name}, s": seconds for name, seconds in timing.result.seconds.items()})
