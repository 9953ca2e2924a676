"""The recorded clip of a rendered sweep: kept frames, pictures of the scanner, poses of the tracker."""

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
    """Indices of the rendered frames in a clip, not falling; an index that occurs again is a repeated frame.

    Args:
        motion: gives the skipped, lost and repeated parts.
        count: number of rendered frames.
        random: source of the numbers.
        most: largest number of frames in the clip.
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
    """The recorded clip of a rendered sweep, in memory, with the effects of scanner, borders, kept frames and tracker.

    Args:
        levels: from :func:`~DualTrackCore.research.simulation.acquired_sweep` with `levels`.
        acquisition: the one of that sweep.
        seed: of kept frames, clutter, noise, marks and tracker errors.
    """
    random = np.random.default_rng([seed, 0x5C4E])
    clip = levels.chosen(kept_frames(acquisition.motion, len(levels), random, len(levels)))
    codes = np.asarray(clip.window(0, len(clip)))
    spacing = clip.require_spacing()
    frames = scanned(torch.from_numpy(levels_of_codes(codes)), acquisition.scanner, acquisition.probe, spacing, random)
    pictures = framed(frames, acquisition.view, spacing, random).numpy()
    return replace(clip, frames=pictures, tracked=tracked_by(clip, acquisition.tracker, random))


def tracked_by(sweep: Sweep, tracker: Tracker, random: np.random.Generator) -> Trajectory:
    """The measured poses of a sweep: delayed by the latency, with noise about the image centre.

    Args:
        sweep: with exact poses; with times if there is a latency.
        tracker: with every effect off, the trajectory itself is returned.
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
