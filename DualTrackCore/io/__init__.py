"""Reading and writing sweeps, calibrations and trajectories."""

from DualTrackCore.io.calibration import read_calibration, split_affine
from DualTrackCore.io.registry import load_sweep, save_sweep
from DualTrackCore.io.trajectory_csv import read_trajectory_csv, write_trajectory_csv

__all__ = [
    "load_sweep",
    "read_calibration",
    "read_trajectory_csv",
    "save_sweep",
    "split_affine",
    "write_trajectory_csv",
]
