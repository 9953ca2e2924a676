"""Repeated frames and turns of the probe, found from the images alone.

A frame repeats the one before it if the recorder is faster than the scanner, frames were lost or the image was frozen.
It is a repeat if it is equal bit for bit. After lossy coding it is also a repeat if the coder left at least half of the
moving blocks unchanged and changed the others by no more than rounding; the noise of a scanner changes all of them,
even if the probe stands still. If a clip has many repeats, or far smaller changes follow nearly every new picture, the
coder's noise is measured on the clip, and frames that change by less, such as key frames, are repeats too. A repeat
that is not equal must also be close to the picture that it repeats, so that slow motion does not add up unnoticed.

At a turn of the probe the pictures come again in reverse order. Small pictures are compared by the correlation of their
speckle; slow variations are removed, and so are layers along the skin, which rise and sink during a sweep. In a sweep
without a turn, correlation falls with the distance between two frames. Around a turn, two frames correlate more with
each other than with the frame between them, for several distances. In-plane turns, elevational turns and tissue that
moves to and fro look the same here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.settings import short_list
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Pixels read at once.
_WINDOW_PIXELS = 8_000_000
#: Fewest rows of a frame to compare (all rows below twice as many); size of a block in these rows and in columns.
_LEAST_ROWS, _BLOCK = 120, (8, 16)
#: Largest mean change of a block by rounding in a coder, grey values.
_ROUNDING = 1.0
#: The mean change of all moving blocks is larger than this if the probe moves, grey values.
_UNSEEN = 0.25
#: A block moves if its largest change so far reaches this, in grey values and as a part of the 99th percentile.
_MOVES, _MOVES_PART = 0.25, 0.25
#: A block below this mean grey value is dark and not compared: water has few echoes.
_DARK = 2.0
#: Moving blocks of an almost equal frame: least part that is unchanged, largest part that changes beyond rounding.
_UNCHANGED_PART, _CHANGED_PART = 0.5, 0.1
#: First frames from which the noise of the coder is learned.
_LEARNED = 128
#: Number of last frames that the noise is estimated from, and the part of repeats from which a clip has many.
_RECENT, _MANY = 64, 0.2
#: In a clip with many repeats: noise as a part of the median change between new pictures.
_NOISE_PART = 1 / 4
#: In a clip with small changes after new pictures: least number of new pictures, and least ratio of both changes.
_LEAST_PICTURES, _GAP = 8, 1.7
#: A picture stands still if it stays for this time, s (or this many frames, if times are unknown), and this many times
#: as long as the median picture.
_STILL_S, _STILL_FRAMES, _STILL_TIMES = 0.5, 10, 3
#: Stretches that a message names at most.
_MOST_NAMED = 3


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which frames of a sweep show an earlier picture again.

    Attributes:
        source: [N] index of the frame whose picture each frame shows, rising; its own index for a new picture.
    """

    source: np.ndarray

    @classmethod
    def none(cls, frames: int) -> Repeats:
        """Every frame its own picture."""
        return cls(np.arange(frames))

    def __bool__(self) -> bool:
        return len(self.kept) < len(self.source)

    @property
    def kept(self) -> np.ndarray:
        """[K] indices of the frames that show a new picture."""
        return np.flatnonzero(self.source == np.arange(len(self.source)))

    def left_out(self, sweep: Sweep) -> Sweep:
        """The sweep without its repeats; frames are read on demand."""
        return sweep.chosen(self.kept) if self else sweep

    def pictures(self, sweep: Sweep) -> Sweep:
        """:meth:`left_out`, for tracking.

        Raises InputError: all frames show the same picture.
        """
        if self and len(self.kept) < 2:
            raise InputError(
                f"All {len(self.source)} frames of the sweep show the same picture, so there is no motion to find; "
                "record again with the scanner running."
            )
        return self.left_out(sweep)

    def shown_again(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory of all frames from that of :meth:`left_out`: a repeat lies where its picture does."""
        if not self:
            return trajectory
        index = np.searchsorted(self.kept, self.source)
        provenance = {**trajectory.provenance, "repeated_frames": len(index) - len(self.kept)}
        return replace(trajectory.chosen(index), provenance=provenance)

    def still(self, sweep: Sweep) -> list[tuple[int, int]]:
        """First and last repeat of each stretch in which the picture stands still unusually long."""
        edges = [*self.kept, len(self.source)]
        runs = [(first + 1, after - 1) for first, after in pairwise(edges) if after - first > 1]
        times = sweep.timestamps_s
        usual = np.median(np.diff(edges)) if runs else 0.0

        def is_long(first: int, last: int) -> bool:
            lasts = last - first + 1 >= _STILL_FRAMES if times is None else times[last] - times[first - 1] >= _STILL_S
            return bool(lasts) and last - first + 1 >= _STILL_TIMES * usual

        return [(int(first), int(last)) for first, last in runs if is_long(first, last)]

    def facts(self, sweep: Sweep) -> dict[str, object]:
        """Plain values for reports: "frames" (repeats), "pictures" (different ones), "pictures_hz", "still"."""
        still, pictures, rate = self.still(sweep), len(self.kept), sweep.frame_rate_hz
        moving = len(self.source) - sum(last - first + 1 for first, last in still)
        return {
            "frames": len(self.source) - pictures,
            "pictures": pictures,
            "pictures_hz": None if rate is None else rate * pictures / moving,
            "still": [list(stretch) for stretch in still],
        }

    def still_texts(self, sweep: Sweep, first_frame: int = 0) -> list[str]:
        """Each stretch of :meth:`still`: "45 to 104 (2.25 to 5.2 s)"; `first_frame` is the number of the first."""
        times = None if sweep.timestamps_s is None else sweep.timestamps_s - sweep.timestamps_s[0]
        return [
            f"{first + first_frame} to {last + first_frame}"
            + ("" if times is None else f" ({times[first]:.4g} to {times[last]:.4g} s)")
            for first, last in self.still(sweep)
        ]

    def warnings(self, sweep: Sweep, first_frame: int = 0) -> list[str]:
        """One sentence if the picture stands still; `first_frame` is the number of the first frame."""
        texts = self.still_texts(sweep, first_frame)
        if not texts:
            return []
        return [
            f"The picture stands still in the frames {short_list(texts, _MOST_NAMED)}: it was frozen, or the probe did "
            "not move. If the probe did move, the path after it is shifted; record again, or use the frames on one "
            "side."
        ]


def find_repeats(sweep: Sweep, reporter: Reporter | None = None) -> Repeats:
    """Compare each frame of a sweep with the one before it, in windows.

    Args:
        sweep: frames without an image (`frame_valid`) count as new pictures.
        reporter: receives `Stage.COMPARING` (frames).

    Raises Cancelled: the caller asked to stop.
    """
    return (reporter or Reporter()).finished(search_repeats(sweep))


def search_repeats(sweep: Sweep) -> Generator[Progress, None, Repeats]:
    """:func:`find_repeats` a window at each step; yields the progress."""
    if not sweep.has_images or len(sweep) < 2:
        return Repeats.none(len(sweep))
    finder, sources = RepeatFinder(), []
    window = max(2, _WINDOW_PIXELS // math.prod(sweep.frame_size))
    # The first frames are compared twice: the second time the moving blocks and the noise of the clip are known.
    for stop in (min(_LEARNED, len(sweep)), len(sweep)):
        finder.restart()
        sources.clear()
        for start, frames in sweep.slice(0, stop).windows(window):
            valid = sweep.frame_valid[start : start + len(frames)]
            sources += [finder.push(frame if shown else None) for frame, shown in zip(frames, valid, strict=True)]
            yield Progress(Stage.COMPARING, start + len(frames), len(sweep))
    return Repeats(np.array(sources))


class RepeatFinder:
    """Finds for each frame of a stream which earlier frame it repeats."""

    def __init__(self) -> None:
        self._count = self._source = 0
        self._picture: np.ndarray | None = None  # of the source
        self._previous: np.ndarray | None = None
        self._most_change: np.ndarray | None = None  # largest change of each block so far
        self._almost_equal: deque[bool] = deque(maxlen=_RECENT)
        self._means: deque[float] = deque(maxlen=_RECENT)  # of the changes
        self._changes: deque[float] = deque(maxlen=_RECENT)  # those that brought a new picture

    def restart(self) -> None:
        """Begin with frame 0 again; moving blocks and noise of the clip are kept."""
        self._count = self._source = 0
        self._picture = self._previous = None

    def push(self, frame: np.ndarray | None) -> int:
        """Compare the next frame; returns the index of the frame that it repeats, or its own index.

        Args:
            frame: [H, W] uint8, must not change later; None if it has no image, which counts as a new picture.
        """
        if frame is None or self._previous is None or not self._shows_again(frame):
            self._source, self._picture = self._count, frame
        self._previous = frame
        self._count += 1
        return self._source

    def _shows_again(self, frame: np.ndarray) -> bool:
        if np.array_equal(frame[::16], self._previous[::16]) and np.array_equal(frame, self._previous):
            self._almost_equal.append(False)  # shows no noise
            self._means.append(0.0)
            return True
        change, brightness = _block_changes(frame, self._previous)
        self._most_change = change if self._most_change is None else np.maximum(self._most_change, change)
        moving = self._moving_blocks() & (brightness >= _DARK)
        if not moving.any():
            moving = self._moving_blocks()
        change, mean = change[moving], float(change[moving].mean())
        alike = (change == 0).mean() >= _UNCHANGED_PART or mean <= _UNSEEN
        almost_equal = bool(alike and (change > _ROUNDING).mean() <= _CHANGED_PART)
        self._almost_equal.append(almost_equal)
        self._means.append(mean)
        noise = self._noise()
        repeats = almost_equal or mean <= noise
        if repeats and self._picture is not self._previous:
            repeats = _block_changes(frame, self._picture)[0][moving].mean() <= max(_ROUNDING, noise)
        if not repeats:
            self._changes.append(mean)
        return repeats

    def _moving_blocks(self) -> np.ndarray:
        most = self._most_change
        rank = (len(most) - 1) * 99 // 100
        level = max(_MOVES, _MOVES_PART * np.partition(most, rank)[rank])
        return most >= min(level, most.max())

    def _noise(self) -> float:
        """Largest mean change of a repeat in a clip that was recorded with repeats, else 0."""
        if self._changes and np.mean(self._almost_equal) >= _MANY:
            return _NOISE_PART * float(np.median(self._changes))
        ordered = np.sort(self._means)
        few, many = len(ordered) // 4, len(ordered) - _LEAST_PICTURES
        if many <= few:
            return 0.0
        gaps = ordered[few + 1 : many + 1] / np.maximum(ordered[few:many], _MOVES)
        gap = int(gaps.argmax())
        level = float(np.sqrt(ordered[few + gap] * ordered[few + gap + 1]))
        new = np.array(self._means) > level
        in_a_row = np.count_nonzero(new[1:] & new[:-1])
        return level if gaps[gap] >= _GAP and in_a_row <= np.count_nonzero(new) // _LEAST_PICTURES else 0.0


def _block_changes(frame: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute difference and mean brightness [blocks] of two frames [H, W] uint8, from some of the rows."""
    step = max(1, len(frame) // _LEAST_ROWS)
    one, other = frame[::step], other[::step]
    brighter = np.maximum(one, other)
    return _block_means(brighter - np.minimum(one, other)), _block_means(brighter)


def _block_means(image: np.ndarray) -> np.ndarray:
    """[blocks] mean grey values of an image [rows, W] uint8."""
    down, across = (min(size, limit) for size, limit in zip(image.shape, _BLOCK, strict=True))
    rows, columns = len(image) // down, image.shape[1] // across
    bands = image[: rows * down, : columns * across].reshape(rows, down, -1)
    sums = bands.sum(axis=1, dtype=np.uint16).reshape(rows, columns, across).sum(axis=2, dtype=np.uint32)
    return sums.ravel() / (down * across)


#: Small pictures, pixels: least length of the longer side; length of the row mean; side of the square of the contrast.
_SIDE, _ALONG, _SQUARE = 64, 9, 9
#: Frames compared at a time, and the largest lag between two of them.
_FRAMES, _REACH = 256, 40
#: Lags before a turn, frames, and ratios of the lag after it: the probe may come back faster or slower.
_DISTANCES, _PACES = range(3, 25), (0.6, 0.8, 1.0, 1.25, 1.6)
#: Number of lags at which the outer frames correlate more with each other than with the middle one, and by how much.
_WITNESSES, _MARGIN = 8, 0.21
#: Turns are at least this many frames apart.
_APART = 8
#: Below this correlation of neighbours the picture jumps (overlay, lost or bad frame); no turn is reported there.
_JUMP = 0.3
#: Contrast of speckle below which a place is flat, grey values; grey value of an echo; least part of pixels with
#: echoes: wires in water repeat by themselves.
_FLAT, _ECHO, _LEAST_ECHO = 2.0, 10.0, 0.05
#: Turns that a message names at most.
_MOST_TURNS_NAMED = 5


def find_turns(sweep: Sweep, reporter: Reporter | None = None) -> list[int]:
    """Frames at which the probe seems to have turned back, rising.

    Args:
        sweep: without repeats; no turns are candidates around frames without an image.
        reporter: receives `Stage.COMPARING` (frames).

    Raises Cancelled: the caller asked to stop.
    """
    reporter, candidates, turns, kept, start = reporter or Reporter(), [], [], [], 0
    if not sweep.has_images:
        return []
    for stop, pictures in small_pictures(sweep):
        kept = [*kept, *pictures]
        reporter.report(Stage.COMPARING, stop, len(sweep))
        if len(kept) < _FRAMES and stop < len(sweep):
            continue
        candidates += [start + turn for turn in _turns_of(np.array(kept))]
        kept, start = kept[-2 * _REACH :], stop - min(2 * _REACH, len(kept))
    for turn in sorted(candidates):  # blocks overlap: both may contain one turn
        if not turns or turn > turns[-1] + _APART:
            turns.append(turn)
    return turns


def turn_warnings(turns: Sequence[int], first_frame: int = 0) -> list[str]:
    """One sentence if there are turns; `first_frame` is the number of the first frame."""
    if not turns:
        return []
    named = short_list([str(turn + first_frame) for turn in turns], _MOST_TURNS_NAMED)
    return [
        f"The pictures run back at frame {named}: what was seen before comes again in reverse order. The probe turned "
        "back there, or tissue moved to and fro. The path after it may run the wrong way; use the frames on one side."
    ]


def small_pictures(sweep: Sweep) -> Iterator[tuple[int, np.ndarray]]:
    """In windows: number of frames so far, and the last n of them, [n, h, w] float32, mean grey values of squares."""
    step = max(1, max(sweep.frame_size) // _SIDE)
    rows, columns = (size // step for size in sweep.frame_size)
    for start, frames in sweep.windows(max(2, _WINDOW_PIXELS // math.prod(sweep.frame_size))):
        bands = frames[:, : rows * step, : columns * step].reshape(len(frames), rows, step, -1)
        sums = bands.sum(axis=2, dtype=np.uint16).reshape(len(frames), rows, columns, step).sum(axis=3, dtype=np.uint32)
        yield start + len(frames), (sums / np.float32(step**2)).astype(np.float32)


def _turns_of(pictures: np.ndarray) -> list[int]:
    """Frames of turns in a block of small pictures [n, h, w]."""
    if (pictures > _ECHO).mean() < _LEAST_ECHO:
        return []
    correlation = speckle_correlation(pictures)
    count = len(correlation)
    jumps_before = np.concatenate([[0], np.cumsum(np.diag(correlation, 1) < _JUMP)])
    evidence = np.full((len(_DISTANCES), count), -1.0)
    middle = np.arange(count)
    for row, distance in enumerate(_DISTANCES):
        for pace in _PACES:
            before, after = middle - distance, middle + max(round(distance * pace), _DISTANCES[0])
            t = middle[(before >= 0) & (after < count)]
            a, b = before[t], after[t]
            more = correlation[a, b] - np.maximum(correlation[a, t], correlation[t, b])
            evidence[row, t] = np.maximum(evidence[row, t], np.where(jumps_before[a] == jumps_before[b], more, -1.0))
    score = np.sort(evidence, axis=0)[-_WITNESSES]
    return [
        t for t in range(count) if score[t] >= _MARGIN and score[t] == score[max(t - _APART, 0) : t + _APART + 1].max()
    ]


def speckle_correlation(pictures: np.ndarray) -> np.ndarray:
    """[n, n] correlation between the speckle of small pictures [n, h, w], -1 to 1."""
    detail = pictures - _running_mean(pictures, _ALONG, 2)
    detail -= _running_mean(detail, _SQUARE, 1)
    contrast = np.sqrt(np.maximum(_running_mean(_running_mean(detail**2, _SQUARE, 1), _SQUARE, 2), 0))
    detail /= contrast + _FLAT
    vectors = detail.reshape(len(detail), -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return vectors @ vectors.T


def _running_mean(values: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Means over an odd width along an axis, mirrored at its ends, float32: `scipy.ndimage.uniform_filter1d`.

    Written out, as importing that takes a run longer than all of its comparing.
    """
    half, ends = width // 2, [(0, 0)] * values.ndim
    ends[axis] = (half, half)
    sums = np.pad(values, ends, mode="symmetric").cumsum(axis=axis, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
    count = values.shape[axis]
    windows = sums.take(range(width, width + count), axis) - sums.take(range(count), axis)
    return (windows / width).astype(np.float32)
