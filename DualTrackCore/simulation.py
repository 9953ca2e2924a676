"""A synthetic tracked sweep: speckle over drawn anatomy, seen by an ideal probe that follows a curved path.

The speckle is the magnitude of a periodic complex Gaussian volume, smoothed to the size of a resolution cell and read
at the place of every pixel, so that it decorrelates with motion as real speckle does. The anatomy is a formula of the
place: layers, a vessel that forks, a bone with its shadow. It is made for demonstrations and tests of the pipeline.
"""

from __future__ import annotations

import numpy as np

from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

#: Side of the periodic speckle volume in voxels, and of a voxel in mm.
_SPECKLE_SIDE, _SPECKLE_VOXEL_MM = 96, 0.16
#: Standard deviations of the resolution cell: lateral, axial, elevational, mm.
_CELL_MM = (0.28, 0.16, 0.42)
#: Grey levels per factor e of echo amplitude: 255 levels show about 55 dB.
_GREY_PER_NEPER = 40.0


def synthetic_sweep(
    frames: int = 120,
    frame_size: tuple[int, int] = (240, 320),
    spacing_mm: float = 0.15,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Sweep:
    """Simulate a tracked sweep.

    Args:
        frames: number of frames, 20 a second.
        frame_size: rows and columns.
        spacing_mm: side of a pixel.
        seed: equal seeds give equal sweeps.

    Returns:
        A sweep whose `tracked` trajectory is exact.
    """
    reporter, random = Reporter(progress, cancelled), np.random.default_rng(seed)
    speckle = _speckle_volume(random)
    trajectory = _path(frames, random)
    pixels = np.empty((frames, *frame_size), np.uint8)
    blank = Sweep(pixels, spacing_mm)
    rows, columns = np.mgrid[: frame_size[0], : frame_size[1]]
    image_from_pixel = blank.image_from_pixel
    points = image_from_pixel[:3, :3] @ np.stack([columns.ravel(), rows.ravel(), np.zeros(rows.size)])
    points += image_from_pixel[:3, 3:]
    for index, pose in enumerate(trajectory.poses):
        reporter.report("simulating", index, frames)
        x, y, z = pose[:3, :3] @ points + pose[:3, 3:]
        amplitude = _echogenicity(x, y, z) * _read(speckle, np.stack([x, y, z])) + 0.004
        grey = 205 + _GREY_PER_NEPER * np.log(amplitude)
        pixels[index] = np.clip(np.rint(grey), 0, 255).reshape(frame_size).astype(np.uint8)
    reporter.report("simulating", frames, frames)
    provenance = {"source": "synthetic", "format": "synthetic sweep", "seed": seed, "spacing_source": "simulation"}
    return Sweep(pixels, spacing_mm, np.arange(frames) / 20.0, tracked=trajectory, provenance=provenance)


def _path(frames: int, random: np.random.Generator) -> Trajectory:
    """A C-shaped sweep of about 0.3 mm a frame with slow turns and the tremor of a hand."""
    time = np.linspace(0, 1, max(frames - 1, 1))[: frames - 1, None]
    drift = np.hstack(
        [
            0.16 * np.cos(np.pi * time),
            0.03 * np.sin(2 * np.pi * time),
            0.30 + 0.05 * np.sin(6 * np.pi * time),
            0.05 * np.cos(np.pi * time),
            0.10 * np.cos(np.pi * time + 0.5),
            0.04 * np.sin(2 * np.pi * time),
        ]
    )
    tremor = random.normal(size=drift.shape) * [0.02, 0.01, 0.03, 0.02, 0.02, 0.02]
    steps = drift + tremor
    poses = [np.eye(4)]
    for step in matrices_from_parameters(steps):
        poses.append(poses[-1] @ step)
    return Trajectory(np.stack(poses), provenance={"source": "simulation"})


def _echogenicity(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mean echo amplitude at places in frame0, mm; the skin is at y = -18."""
    depth = y + 18
    tissue = 0.30 + 0.10 * np.sin(0.35 * x + 0.12 * z) * np.sin(0.5 * y - 0.08 * z)
    tissue = np.where(depth < 2.0, 0.55, tissue)
    fascia = np.exp(-(((depth - 8 - 0.8 * np.sin(0.15 * x + 0.1 * z)) / 0.35) ** 2))
    tissue = tissue + 0.8 * fascia
    fork = np.clip((z - 12) * 0.28, 0, 5)
    inside = np.full_like(x, np.inf)
    for side, radius in ((-1, 2.6), (1, 2.0)):
        centre = side * fork + 0.06 * z - 2
        inside = np.minimum(inside, np.hypot(x - centre, (y + 4) * 1.15) - radius)
    tissue = np.where(inside < 0, 0.012, tissue + 0.35 * np.exp(-(((inside - 0.3) / 0.3) ** 2)))
    surface = 8 + 0.06 * (x - 9) ** 2 - 0.05 * z
    below = y - surface
    bone = np.exp(-((below / 0.4) ** 2)) * (np.abs(x - 9) < 8)
    shadow = np.where((below > 0.4) & (np.abs(x - 9) < 8), 0.05, 1.0)
    return (tissue * shadow + 2.2 * bone) * np.exp(-0.02 * depth)


def _speckle_volume(random: np.random.Generator) -> np.ndarray:
    """Periodic fully developed speckle amplitude of mean square 1, [side, side, side] over (x, y, z)."""
    frequency = 2 * np.pi * np.fft.fftfreq(_SPECKLE_SIDE, _SPECKLE_VOXEL_MM)
    shape = (_SPECKLE_SIDE,) * 3
    spectrum = random.normal(size=shape) + 1j * random.normal(size=shape)
    for axis, sigma in enumerate(_CELL_MM):
        window = np.exp(-0.5 * (frequency * sigma) ** 2)
        spectrum *= np.expand_dims(window, tuple(a for a in range(3) if a != axis))
    field = np.fft.ifftn(spectrum)
    return np.abs(field / np.sqrt((np.abs(field) ** 2).mean())).astype(np.float32)


def _read(volume: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """Trilinear values of the periodic volume at points [3, n] in mm."""
    place = points_mm / _SPECKLE_VOXEL_MM
    low = np.floor(place).astype(np.int64)
    weight = (place - low).astype(np.float32)
    value = np.zeros(place.shape[1], np.float32)
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)[:, None]
        share = np.prod(np.where(offset == 1, weight, 1 - weight), axis=0)
        value += share * volume[tuple((low + offset) % _SPECKLE_SIDE)]
    return value
