"""Freehand motion of a probe: the families of the TUS-REC scans, with tremor, changes of speed and pauses.

The contact point of the probe follows a path along the skin. In the perpendicular families the image plane is
perpendicular to the path (elevational steps), in the parallel ones parallel (lateral steps). C and S are curved, and
the probe turns with the curve in part. `rotation` turns the probe about its beam axis, `tilt` about its face.
"""

from __future__ import annotations

import itertools

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import PoseOrigin, Trajectory, invert_rigid, matrices_from_parameters

#: Names as in TUS-REC without the arm: orientation, shape, direction (distal to proximal is positive here).
FAMILIES = (
    *("_".join(parts) for parts in itertools.product(("Per", "Par"), ("L", "C", "S"), ("DtP", "PtD"))),
    "rotation",
    "tilt",
)
#: Standard deviation of the steps of the tremor from frame to frame, mm and degrees.
_TREMOR_STEP = np.array([0.045, 0.042, 0.045, 0.045, 0.029, 0.045])
#: Band of the tremor, Hz; slower changes are the wander.
_TREMOR_BAND_HZ = (0.4, 8.0)
#: Standard deviation of the slow wander of the pose, mm and degrees.
_WANDER = np.array([0.8, 0.5, 0.8, 1.2, 0.6, 1.2])
_WANDER_BAND_HZ = (0.0, 0.15)
#: Standard deviation of a jerk, mm and degrees.
_JERK = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 1.0])


def probe_trajectory(
    family: str,
    frames: int,
    seed: int,
    *,
    face_to_centre_mm: float = 20.0,
    step_mm: float | None = None,
    frame_rate_hz: float = 20.0,
    tremor: float = 1.0,
    wander: float = 1.0,
    jerks_hz: float = 0.0,
) -> Trajectory:
    """A freehand path, frame0_from_image, mm.

    Over all families the steps from frame to frame have the standard deviations of the public data: about .280, .053,
    .254 mm and .058, .043, .059 degrees.

    Args:
        family: one of :data:`FAMILIES`.
        frames: number of frames.
        seed: equal seeds give equal paths.
        face_to_centre_mm: depth of the image centre below the probe's face, which is the centre of rotation.
        step_mm: mean step along the path; None draws one, mostly between .1 and .5 mm.
        frame_rate_hz: frame rate; tremor, wander and pauses have frequencies in Hz.
        tremor, wander: factors on the displacements of the public data; turns grow with their square roots.
        jerks_hz: how often the probe slips or is put right, within .1 to .3 s.

    Raises InputError: the family is unknown, or a number is out of its range.
    """
    if family not in FAMILIES:
        raise InputError(f"The family {family!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    if frames < 1:
        raise InputError(f"A trajectory of {frames} frames was asked for; the least is 1.")
    if step_mm is not None and not 0 <= step_mm <= 5:
        raise InputError(f"The mean step is {step_mm} mm a frame; it must lie between 0 and 5.")
    random = np.random.default_rng([seed, FAMILIES.index(family), 0x3A7D])
    if step_mm is None:
        step_mm = float(np.clip(random.normal(0.36, 0.11), 0.08, 0.65))
    speed = _speed(random, frames, frame_rate_hz)
    pose = _steady(random, family, step_mm, speed)
    pose[:, :6] += _band_noise(random, frames, frame_rate_hz, _WANDER_BAND_HZ) * _WANDER * _factors(wander)
    shaking = _band_noise(random, frames, frame_rate_hz, _TREMOR_BAND_HZ)
    size = _TREMOR_STEP * _factors(tremor)
    pose[:, :6] += shaking * (size / np.maximum(np.diff(shaking, axis=0).std(axis=0), 1e-9) if frames > 2 else 0)
    pose[:, :6] += _jerks(random, frames, frame_rate_hz, jerks_hz)
    centre_from_face = np.eye(4)
    centre_from_face[1, 3] = face_to_centre_mm
    world = matrices_from_parameters(pose) @ centre_from_face
    poses = invert_rigid(world[0]) @ world
    poses[0] = np.eye(4)
    provenance = {"source": "simulation", "family": family, "seed": seed}
    return Trajectory(poses, provenance=provenance, origin=PoseOrigin.SIMULATED)


def _steady(random: np.random.Generator, family: str, step_mm: float, speed: np.ndarray) -> np.ndarray:
    """Intended pose of the face, [frames, 6]: contact point in mm and rotations about x, y, z in degrees."""
    frames, pose = len(speed), np.zeros((len(speed), 6))
    travelled = np.concatenate([[0.0], np.cumsum(speed[1:])])
    progress = travelled / max(travelled[-1], 1e-9)
    if family in ("rotation", "tilt"):
        axis = 4 if family == "rotation" else 3
        extent = min(random.uniform(15, 35), 0.1 * frames) * random.choice([-1, 1])
        turns = random.uniform(0.5, 1.5)
        pose[:, axis] = extent * (0.5 - 0.5 * np.cos(np.pi * turns * progress))
        pose[:, random.choice([0, 2])] = random.choice([-1, 1]) * 0.2 * step_mm * travelled
        return pose
    orientation, shape, direction = family.split("_")
    bend = np.deg2rad(random.uniform(20, 45)) * random.choice([-1, 1])
    heading = {"L": np.zeros(frames), "C": bend * (2 * progress - 1), "S": bend * np.sin(2 * np.pi * progress)}[shape]
    heading = heading + np.deg2rad(random.normal(0, 4))
    sign = 1 if direction == "DtP" else -1
    along = np.concatenate([[0.0], np.cumsum(step_mm * speed[1:] * np.cos(heading[1:]))]) * sign
    aside = np.concatenate([[0.0], np.cumsum(step_mm * speed[1:] * np.sin(heading[1:]))]) * sign
    pose[:, 2 if orientation == "Per" else 0] = along
    pose[:, 0 if orientation == "Per" else 2] = aside
    follow = random.uniform(0.05, 0.2) * (1 if orientation == "Per" else -1)
    pose[:, 4] = np.rad2deg(follow * heading)
    # The skin is not flat: the contact point rises and sinks slowly along the path.
    pose[:, 1] = random.uniform(0, 2) * np.sin(random.uniform(1, 4) * np.pi * progress + random.uniform(0, 6.3))
    return pose


def _factors(factor: float) -> np.ndarray:
    """[6] factors on displacements and turns."""
    return np.repeat([factor, np.sqrt(factor)], 3)


def _jerks(random: np.random.Generator, frames: int, frame_rate_hz: float, rate_hz: float) -> np.ndarray:
    """[frames, 6] displacements that come suddenly and stay, mm and degrees."""
    pose, time = np.zeros((frames, 6)), np.arange(frames) / frame_rate_hz
    for _ in range(random.poisson(time[-1] * rate_hz) if rate_hz else 0):
        moment, taken = random.uniform(0, time[-1]), random.uniform(0.1, 0.3)
        done = np.clip((time - moment) / taken, 0, 1)
        pose += (done**2 * (3 - 2 * done))[:, None] * random.normal(0, _JERK)
    return pose


def _speed(random: np.random.Generator, frames: int, frame_rate_hz: float) -> np.ndarray:
    """[frames] speed as a multiple of the mean: slow changes, and a few pauses of up to a second."""
    slow = _band_noise(random, frames, frame_rate_hz, (0.0, 0.4), components=1)[:, 0]
    speed = np.exp(0.25 * slow)
    time = np.arange(frames) / frame_rate_hz
    for _ in range(random.poisson(time[-1] / 15 if frames > 1 else 0)):
        middle, half = random.uniform(0, time[-1]), random.uniform(0.15, 0.5)
        speed *= 1 - np.clip((half + 0.15 - np.abs(time - middle)) / 0.15, 0, 1)
    return speed / max(speed.mean(), 0.2)


def _band_noise(
    random: np.random.Generator,
    frames: int,
    frame_rate_hz: float,
    band_hz: tuple[float, float],
    components: int = 6,
) -> np.ndarray:
    """Band-limited Gaussian noise of standard deviation 1, [frames, components].

    It is cut out of a longer periodic signal, so that its end does not continue its beginning.
    """
    length = 2 * frames + int(8 * frame_rate_hz)
    spectrum = np.fft.rfft(random.normal(size=(length, components)), axis=0)
    frequency = np.fft.rfftfreq(length, 1 / frame_rate_hz)
    kept = (frequency >= band_hz[0]) & (frequency <= band_hz[1])
    kept[0] = False
    spectrum[~kept] = 0
    noise = np.fft.irfft(spectrum, length, axis=0)
    return noise[:frames] / np.maximum(noise.std(axis=0), 1e-12)
