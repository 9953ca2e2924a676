"""The clip that a scanner and a tracker record of a rendered sweep: kept frames, shown pictures, measured poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import make_interp_spline

from DualTrackCore.research.simulation.acquisition import Acquisition, Motion, Tracker
from DualTrackCore.research.simulation.render import levels_of_codes
from DualTrackCore.research.simulation.scanner import framed, scanned
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters, parameters_from_matrices


def kept_frames(motion: Motion, count: int, random: np.random.Generator, most: int) -> np.ndarray:
    """Indices of the frames of a rendered sweep that a clip shows, rising; some may show the one before again.

    Args:
        motion: tells which are skipped, lost or repeated.
        count: of rendered frames.
        random: source of the numbers.
        most: frames that a clip has at most.
    """
    order = np.arange(int(random.integers(motion.skip)), count, motion.skip)
    if motion.lost:
        order = order[np.sort(random.permutation(len(order))[round(motion.lost * len(order)) :])]
    if motion.repeated:
        again = np.flatnonzero(random.random(len(order) - 1) < motion.repeated) + 1
        order = order.copy()
        for place in again:
            order[place] = order[place - 1]
    if len(order) > most:
        start = int(random.integers(len(order) - most + 1))
        order = order[start : start + most]
    return order


def shown_clip(levels: Sweep, acquisition: Acquisition, seed: int) -> Sweep:
    """The clip that is recorded of a rendered sweep: its scanner, borders, kept frames and tracker, in memory.

    Args:
        levels: of :func:`~DualTrackCore.research.simulation.acquired_sweep` with `levels`.
        acquisition: that it was made with.
        seed: of what the scanner adds.
    """
    random = np.random.default_rng([seed, 0x5C4E])
    clip = levels.chosen(kept_frames(acquisition.motion, len(levels), random, len(levels)))
    codes = np.asarray(clip.window(0, len(clip)))
    spacing = clip.require_spacing()
    frames = scanned(torch.from_numpy(levels_of_codes(codes)), acquisition.scanner, acquisition.probe, spacing, random)
    pictures = framed(frames, acquisition.view, spacing, random).numpy()
    return replace(clip, frames=pictures, tracked=tracked_by(clip, acquisition.tracker, random))


def tracked_by(sweep: Sweep, tracker: Tracker, random: np.random.Generator) -> Trajectory:
    """The poses that a tracker measures of a sweep: late by its latency, and with noise about the image centre.

    Args:
        sweep: with exact poses, and times where there is a latency.
        tracker: the trajectory of the sweep comes back as it is where every effect is off.
        random: source of the noise.
    """
    exact = sweep.tracked
    poses = exact.poses
    if tracker.latency_s:
        motion = make_interp_spline(sweep.timestamps_s, parameters_from_matrices(poses), k=1)
        late = np.clip(sweep.timestamps_s - tracker.latency_s, sweep.timestamps_s[0], sweep.timestamps_s[-1])
        poses = matrices_from_parameters(motion(late))
    if tracker.noise_mm or tracker.noise_deg:
        noise = random.standard_normal((len(poses), 6)) * np.repeat([tracker.noise_mm, tracker.noise_deg], 3)
        poses = poses @ matrices_from_parameters(noise)
    return exact if poses is exact.poses else replace(exact, poses=np.linalg.inv(poses[0]) @ poses)
