"""Pictures of results: PNG files at most 1600 pixels wide, drawn without a display.

Each function writes the PNG file `path`, replaced as a whole, and returns its path. It raises MissingDependencyError
where matplotlib (the extra `report`) is not installed, and OutputError where the file cannot be written.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.pictures.beside_truth import write_comparison
from DualTrackCore.pictures.path_in_space import write_trajectory
from DualTrackCore.pictures.previews import write_motion, write_slices
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.reconstruction import Reconstruction
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

__all__ = ["write_comparison", "write_motion", "write_previews", "write_slices", "write_trajectory"]


def write_previews(
    sweep: Sweep,
    trajectory: Trajectory,
    reconstruction: Reconstruction | None,
    truth: Trajectory | None,
    folder: Path,
    reporter: Reporter,
) -> list[str]:
    """Write slices.png (of a volume), trajectory.png and motion.png into a folder.

    Args:
        sweep, trajectory: N frames and their poses.
        truth: N poses to draw beside them, or None.
        reporter: receives `Stage.PICTURES` (pictures).

    Returns:
        Notes: that nothing was drawn, where the packages for it are missing.
    """
    drawn = [
        partial(write_trajectory, trajectory, sweep, folder / "trajectory.png", truth=truth),
        partial(write_motion, trajectory, folder / "motion.png", truth=truth, timestamps_s=sweep.timestamps_s),
    ]
    if reconstruction is not None:
        drawn.insert(0, partial(write_slices, reconstruction, folder / "slices.png"))
    try:
        for done, draw in enumerate(drawn):
            reporter.report(Stage.PICTURES, done, len(drawn))
            draw()
    except MissingDependencyError as error:
        return [f"No pictures were written: {error}"]
    reporter.report(Stage.PICTURES, len(drawn), len(drawn))
    return []
