"""HDF5 files in the published layouts, made for tests."""

import h5py
import numpy as np

from DualTrackCore.io import hdf5
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import matrices_from_parameters

SPACING = (0.22938919, 0.22097969)


def load(path, calibration=None, spacing_mm=None):
    return hdf5.read(path, calibration=calibration, spacing_mm=spacing_mm)


def random_poses(count, seed=0):
    return matrices_from_parameters(np.random.default_rng(seed).normal(size=(count, 6)) * 20)


def dualtrack_file(path, count=6, size=(12, 10), **changes):
    """A DualTrack file; a change of None leaves the data set out."""
    height, width = size
    data = {
        "images": np.random.default_rng(1).integers(0, 256, (count, height, width), dtype=np.uint8),
        "tracking": random_poses(count),
        "spacing": np.array([*SPACING, 1.0]),
        "dimensions": np.array([width, height, 1]),
        "pixel_to_image": Sweep(np.zeros((1, height, width), np.uint8), SPACING).image_from_pixel,
    } | changes
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            if values is not None:
                file[name] = values
    return data


def calibration_csv(path, scales=SPACING, rigid=None):
    rigid = matrices_from_parameters([30, -10, 5, 20, -70, 15]) if rigid is None else rigid
    rows = ["scaling_from_pixel_to_mm,,,"]
    rows += [",".join(repr(float(x)) for x in row) for row in np.diag([*scales, 1, 1])]
    rows += ["spatial_calibration_from_image_to_tool,,,"]
    rows += [",".join(repr(float(x)) for x in row) for row in rigid]
    path.write_text("\n".join(rows) + "\n")
    return rigid


def tus_rec_file(path, count=4, size=(480, 640), with_poses=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    poses = random_poses(count, seed=2)
    frames = np.zeros((count, *size), np.uint8)
    frames[:, 0, 0] = np.arange(count)
    with h5py.File(path, "w") as file:
        file["frames"] = frames
        if with_poses:
            file["tforms"] = poses
    return poses
