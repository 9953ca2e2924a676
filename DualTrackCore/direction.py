"""Which way along the sweep a path runs, and where it turned back.

Speckle tells how far a frame lies from the one before, not on which side of it. A sweep that runs the other way is the
mirror image at the image plane: tz, rx and ry of every motion change sign.

Turns within a sweep are found from the pictures alone: those after the turn show again what those before it showed, in
reverse order. Pictures are compared by their speckle: small, without what varies slowly in them, and without layers
along the skin, which rise and sink while the probe goes on. In a sweep that goes on, two pictures are the less alike
the farther apart they were taken. Around a turn they are more alike than either is like the picture between them, for
several distances in a row. A turn in the plane and one across it look the same here, and so does tissue that moves to
and fro.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: What can be asked for: as the direction head of the weights says, as the motions are without it, or mirrored.
Direction = Literal["auto", "as-found", "other-way"]
#: What is said of the direction, in the provenance of a trajectory as `direction`; the last where weights have no head.
SURE, UNSURE, TOLD, AS_WEIGHTS_SAY = "sure", "unsure", "told by the user", "as the weights say"
#: [4, 4] mirror at the image plane.
IMAGE_MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
#: [6] what that mirror does to the parameters of a motion.
OTHER_WAY_SIGNS = np.array([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
#: [7] what it does to `Trajectory.path_covariance`: xz and yz change sign.
_COVARIANCE_SIGNS = np.array([1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
for _constant in (IMAGE_MIRROR, OTHER_WAY_SIGNS):
    _constant.flags.writeable = False
#: Least longer side of small pictures, pixels; over how many the mean is taken off along rows; squares of the contrast.
_SIDE, _ALONG, _SQUARE = 64, 9, 9
#: Frames compared at a time, and the most between two of them.
_BLOCK, _REACH = 256, 40
#: Frames before a turn that are looked at, and how much faster or slower the probe may come back.
_DISTANCES, _PACES = range(3, 25), (0.6, 0.8, 1.0, 1.25, 1.6)
#: For how many of the distances the outer two must be more alike than either is like the middle one, and by how much.
_WITNESSES, _MARGIN = 8, 0.21
#: Frames within which there is one turn.
_APART = 8
#: Correlation of neighbours below which the picture jumps, so that nothing is said: an overlay, a lost or a bad frame.
_JUMP = 0.3
#: Grey values that count as no contrast, and as dark; the part of pictures that is brighter at least: wires in water
#: make patterns of their own.
_FLAT, _DARK, _LEAST_ECHO = 2.0, 10.0, 0.05
#: Pixels that are read at once, and turns that are named one by one.
_WINDOW_PIXELS, _MOST_NAMED = 8_000_000, 5


def turned_over(trajectory: Trajectory) -> Trajectory:
    """The path of the same sweep running the other way: mirrored at the image plane of frame0, which stays.

    Its provenance says that the user told the direction, and in `turned_over` what was said before; turning it over
    again gives the first trajectory back, bit for bit.

    Raises:
        InputError: the poses are measured or simulated, so nothing about them is to be told.
    """
    if trajectory.origin.is_truth:
        raise InputError(
            f"The poses are {trajectory.origin_text} and cannot be turned over; only estimated ones can run the other "
            "way. Leave direction (--direction) out."
        )
    said = dict(trajectory.provenance)
    if said.get("direction_log_odds") is not None:
        said["direction_log_odds"] = -said["direction_log_odds"]
    if "turned_over" in said:
        former = {"direction": said.pop("turned_over")}
    else:
        former = {"turned_over": said.get("direction"), "direction": TOLD}
    said |= former | {"direction_mirrored": not said.get("direction_mirrored", False)}
    if said["direction"] is None:
        del said["direction"], said["direction_mirrored"]
    covariance = trajectory.path_covariance
    if covariance is not None:
        covariance = covariance * _COVARIANCE_SIGNS
    return replace(trajectory, poses=mirrored_poses(trajectory.poses), path_covariance=covariance, provenance=said)


def mirrored_poses(poses: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] in frame0, or from frame to frame, of the same sweep running the other way; exact."""
    signs = np.diag(IMAGE_MIRROR)
    return poses * np.outer(signs, signs)


def direction_of(provenance: Mapping[str, Any]) -> Direction:
    """What a run is asked for so that it gives the direction that a trajectory of this provenance has."""
    if provenance.get("direction") != TOLD:
        return "auto"
    return "other-way" if provenance.get("direction_mirrored") else "as-found"


def direction_warnings(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for the user where the direction of the trajectory is unsure."""
    if provenance.get("direction") != UNSURE:
        return []
    return [
        "It is unsure which way along the sweep the probe moved. If the volume is a mirror image, turn it over: run "
        "with the direction other-way, or press “Runs the other way” in Slicer."
    ]


def find_turns(sweep: Sweep, reporter: Reporter | None = None) -> list[int]:
    """Frames at which the probe seems to have turned back, rising.

    Args:
        sweep: without repeats; around frames without image nothing is found.
        reporter: receives `Stage.COMPARING` (frames).

    Raises:
        Cancelled: the caller asked to stop.
    """
    reporter, found, turns, kept, start = reporter or Reporter(), [], [], [], 0
    if not sweep.has_images:
        return []
    for stop, pictures in _small_pictures(sweep):
        kept = [*kept, *pictures]
        reporter.report(Stage.COMPARING, stop, len(sweep))
        if len(kept) < _BLOCK and stop < len(sweep):
            continue
        found += [start + turn for turn in _turns_of(np.array(kept))]
        kept, start = kept[-2 * _REACH :], stop - min(2 * _REACH, len(kept))
    for turn in sorted(found):  # blocks overlap, and one turn is seen in both
        if not turns or turn > turns[-1] + _APART:
            turns.append(turn)
    return turns


def turn_warnings(turns: Sequence[int], first_frame: int = 0) -> list[str]:
    """A sentence where there are turns; numbers of frames count from `first_frame`."""
    if not turns:
        return []
    named = ", ".join(str(turn + first_frame) for turn in turns[:_MOST_NAMED])
    named += f" and {len(turns) - _MOST_NAMED} more" * (len(turns) > _MOST_NAMED)
    return [
        f"The pictures run back at frame {named}: what was seen before comes again in reverse order. The probe turned "
        "back there, or tissue moved to and fro. The path after it may run the wrong way; use the frames on one side."
    ]


def _small_pictures(sweep: Sweep) -> Iterator[tuple[int, np.ndarray]]:
    """How many frames there were, and [n, h, w] float32 of the last of them: mean grey values of squares."""
    step = max(1, max(sweep.frame_size) // _SIDE)
    rows, columns = (size // step for size in sweep.frame_size)
    for start, frames in sweep.windows(max(2, _WINDOW_PIXELS // math.prod(sweep.frame_size))):
        bands = frames[:, : rows * step, : columns * step].reshape(len(frames), rows, step, -1)
        sums = bands.sum(axis=2, dtype=np.uint16).reshape(len(frames), rows, columns, step).sum(axis=3, dtype=np.uint32)
        yield start + len(frames), (sums / np.float32(step**2)).astype(np.float32)


def _turns_of(pictures: np.ndarray) -> list[int]:
    """Turns among a block of small pictures [n, h, w]."""
    if (pictures > _DARK).mean() < _LEAST_ECHO:
        return []
    alike = _likeness(pictures)
    count = len(alike)
    jumps = np.concatenate([[0], np.cumsum(np.diag(alike, 1) < _JUMP)])
    evidence = np.full((len(_DISTANCES), count), -1.0)
    middle = np.arange(count)
    for row, distance in enumerate(_DISTANCES):
        for pace in _PACES:
            before, after = middle - distance, middle + max(round(distance * pace), _DISTANCES[0])
            t = middle[(before >= 0) & (after < count)]
            a, b = before[t], after[t]
            more = alike[a, b] - np.maximum(alike[a, t], alike[t, b])
            evidence[row, t] = np.maximum(evidence[row, t], np.where(jumps[a] == jumps[b], more, -1.0))
    score = np.sort(evidence, axis=0)[-_WITNESSES]
    return [
        t for t in range(count) if score[t] >= _MARGIN and score[t] == score[max(t - _APART, 0) : t + _APART + 1].max()
    ]


def _likeness(pictures: np.ndarray) -> np.ndarray:
    """[n, n] correlation of the speckle of pictures [n, h, w]."""
    from scipy.ndimage import uniform_filter

    detail = pictures - uniform_filter(pictures, (0, 0, _ALONG))
    detail -= uniform_filter(detail, (0, _SQUARE, 0))
    contrast = np.sqrt(np.maximum(uniform_filter(detail**2, (0, _SQUARE, _SQUARE)), 0))
    detail /= contrast + _FLAT
    vectors = detail.reshape(len(detail), -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return vectors @ vectors.T
