"""Frames that show again what was seen: the picture before them, or earlier ones in reverse order.

Repeats come from a recorder faster than the scanner, lost frames, a frozen image. Each frame is compared with the one
before it. Equal to the last bit is a repeat. After lossy coding it is one as well where the coder left at least half of
the blocks that move in this clip as they are and changed the others by no more than rounding; the noise of a scanner,
also over a probe that stands still, changes all of them. Where repeats are frequent, or nearly every new picture is
followed by far smaller changes, the clip was recorded so: then the noise of the coder is measured on it, and frames
that change less count too, such as its key frames. What is not equal to the last bit must also be near the picture that
it is said to repeat, so that slow motion cannot add up unseen.

Turns of the probe are found from the pictures alone: those after the turn show again what those before it showed, in
reverse order. Pictures are compared by their speckle: small, without what varies slowly in them, and without layers
along the skin, which rise and sink while the probe goes on. In a sweep that goes on, two pictures are the less alike
the farther apart they were taken. Around a turn they are more alike than either is like the picture between them, for
several distances in a row. A turn in the plane and one across it look the same here, and so does tissue that moves to
and fro.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Pixels that are read at once.
_WINDOW_PIXELS = 8_000_000
#: Rows of a frame that are compared at least, where it has twice as many; and a block in those rows and in columns.
_LEAST_ROWS, _BLOCK = 120, (8, 16)
#: Mean change of a block, grey values: what rounding in a coder makes.
_ROUNDING = 1.0
#: Mean change of all of them, grey values, that no picture of a moving probe stays below.
_UNSEEN = 0.25
#: Blocks move where they ever changed by this much, and by this part of what the most moving hundredth ever did.
_MOVES, _MOVES_PART = 0.25, 0.25
#: Mean grey value below which a block is dark, so that it says nothing: in water echoes are few.
_DARK = 2.0
#: Part of the moving blocks that an almost equal frame leaves as they are, and that it changes beyond rounding at most.
_UNCHANGED_PART, _CHANGED_PART = 0.5, 0.1
#: Frames that show at first how a clip was recorded.
_LEARNED = 128
#: How many of the last frames show how a clip was recorded, and the part of repeats from which it has many.
_RECENT, _MANY = 64, 0.2
#: Where there are many: the part of the usual change from picture to picture below which there is no new picture.
_NOISE_PART = 1 / 4
#: Where nearly every new picture is followed by small changes: how many there are, and how far apart the two are.
_LEAST_PICTURES, _GAP = 8, 1.7
#: A picture stands still where it stays for this time, s, or so many frames where times are unknown, and so many times
#: as long as usual in the clip.
_STILL_S, _STILL_FRAMES, _STILL_TIMES = 0.5, 10, 3
#: Stretches that are named one by one.
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
        """The sweep without its repeats; frames are read when they are asked for."""
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
        said = {**trajectory.provenance, "repeated_frames": len(index) - len(self.kept)}
        return replace(trajectory.chosen(index), provenance=said)

    def still(self, sweep: Sweep) -> list[tuple[int, int]]:
        """First and last of the repeats in each stretch in which the picture stands still, unusually long."""
        edges = [*self.kept, len(self.source)]
        runs = [(first + 1, after - 1) for first, after in pairwise(edges) if after - first > 1]
        times = sweep.timestamps_s
        usual = np.median(np.diff(edges)) if runs else 0.0

        def is_long(first: int, last: int) -> bool:
            whole = last - first + 1 >= _STILL_FRAMES if times is None else times[last] - times[first - 1] >= _STILL_S
            return bool(whole) and last - first + 1 >= _STILL_TIMES * usual

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
        """A sentence where the picture stands still; numbers of frames count from `first_frame`."""
        texts = self.still_texts(sweep, first_frame)
        if not texts:
            return []
        named = ", ".join(texts[:_MOST_NAMED]) + f" and {len(texts) - _MOST_NAMED} more" * (len(texts) > _MOST_NAMED)
        return [
            f"The picture stands still in the frames {named}: it was frozen, or the probe did not move. "
            "If the probe did move, the path after it is shifted; record again, or use the frames on one side."
        ]


def find_repeats(sweep: Sweep, reporter: Reporter | None = None) -> Repeats:
    """Compare each frame of a sweep with the one before it, in windows.

    Args:
        sweep: frames without image (`frame_valid`) are no repeats and are not repeated.
        reporter: receives `Stage.COMPARING` (frames).

    Raises Cancelled: the caller asked to stop.
    """
    reporter, search = reporter or Reporter(), search_repeats(sweep)
    while True:
        try:
            reporter.report(Stage.COMPARING, next(search), len(sweep))
        except StopIteration as end:
            return end.value


def search_repeats(sweep: Sweep) -> Generator[int, None, Repeats]:
    """:func:`find_repeats` window by window: gives the number of frames compared, and in the end the repeats."""
    if not sweep.has_images or len(sweep) < 2:
        return Repeats.none(len(sweep))
    finder, found = RepeatFinder(), []
    window = max(2, _WINDOW_PIXELS // math.prod(sweep.frame_size))
    # What moves in this clip, and by how much, is to be known for its first frames too: they are looked at twice.
    for stop in (min(_LEARNED, len(sweep)), len(sweep)):
        finder.restart()
        found.clear()
        for start, frames in sweep.slice(0, stop).windows(window):
            valid = sweep.frame_valid[start : start + len(frames)]
            found += [finder.push(frame if shown else None) for frame, shown in zip(frames, valid, strict=True)]
            yield start + len(frames)
    return Repeats(np.array(found))


class RepeatFinder:
    """Says of the frames of a stream, one after the other, which earlier one each of them shows again."""

    def __init__(self) -> None:
        self._count = self._source = 0
        self._picture: np.ndarray | None = None  # of the source
        self._previous: np.ndarray | None = None
        self._most_change: np.ndarray | None = None  # ever, of each block
        self._almost_equal: deque[bool] = deque(maxlen=_RECENT)
        self._means: deque[float] = deque(maxlen=_RECENT)  # of the changes
        self._changes: deque[float] = deque(maxlen=_RECENT)  # those that brought a new picture

    def restart(self) -> None:
        """Begin with frame 0 again and keep what was learned of the clip."""
        self._count = self._source = 0
        self._picture = self._previous = None

    def push(self, frame: np.ndarray | None) -> int:
        """The index of the frame whose picture is shown, its own index for a new one.

        Args:
            frame: [H, W] uint8, not changed later; None for one that holds no image, which counts as new.
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
        """Mean change up to which a frame of a clip that was recorded with repeats brings no new picture, else 0."""
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
    """Mean absolute difference and mean brightness of two frames [H, W] uint8 in their blocks, in some of the rows."""
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


#: Least longer side of small pictures, pixels; over how many the mean is taken off along rows; squares of the contrast.
_SIDE, _ALONG, _SQUARE = 64, 9, 9
#: Frames compared at a time, and the most between two of them.
_FRAMES, _REACH = 256, 40
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
_FLAT, _ECHO, _LEAST_ECHO = 2.0, 10.0, 0.05
#: Turns that are named one by one.
_MOST_TURNS_NAMED = 5


def find_turns(sweep: Sweep, reporter: Reporter | None = None) -> list[int]:
    """Frames at which the probe seems to have turned back, rising.

    Args:
        sweep: without repeats; around frames without image nothing is found.
        reporter: receives `Stage.COMPARING` (frames).

    Raises Cancelled: the caller asked to stop.
    """
    reporter, found, turns, kept, start = reporter or Reporter(), [], [], [], 0
    if not sweep.has_images:
        return []
    for stop, pictures in small_pictures(sweep):
        kept = [*kept, *pictures]
        reporter.report(Stage.COMPARING, stop, len(sweep))
        if len(kept) < _FRAMES and stop < len(sweep):
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
    named = ", ".join(str(turn + first_frame) for turn in turns[:_MOST_TURNS_NAMED])
    named += f" and {len(turns) - _MOST_TURNS_NAMED} more" * (len(turns) > _MOST_TURNS_NAMED)
    return [
        f"The pictures run back at frame {named}: what was seen before comes again in reverse order. The probe turned "
        "back there, or tissue moved to and fro. The path after it may run the wrong way; use the frames on one side."
    ]


def small_pictures(sweep: Sweep) -> Iterator[tuple[int, np.ndarray]]:
    """How many frames there were, and [n, h, w] float32 of the last of them: mean grey values of squares."""
    step = max(1, max(sweep.frame_size) // _SIDE)
    rows, columns = (size // step for size in sweep.frame_size)
    for start, frames in sweep.windows(max(2, _WINDOW_PIXELS // math.prod(sweep.frame_size))):
        bands = frames[:, : rows * step, : columns * step].reshape(len(frames), rows, step, -1)
        sums = bands.sum(axis=2, dtype=np.uint16).reshape(len(frames), rows, columns, step).sum(axis=3, dtype=np.uint32)
        yield start + len(frames), (sums / np.float32(step**2)).astype(np.float32)


def _turns_of(pictures: np.ndarray) -> list[int]:
    """Turns among a block of small pictures [n, h, w]."""
    if (pictures > _ECHO).mean() < _LEAST_ECHO:
        return []
    alike = likeness(pictures)
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


def likeness(pictures: np.ndarray) -> np.ndarray:
    """[n, n] correlation of the speckle of pictures [n, h, w]."""
    from scipy.ndimage import uniform_filter

    detail = pictures - uniform_filter(pictures, (0, 0, _ALONG))
    detail -= uniform_filter(detail, (0, _SQUARE, 0))
    contrast = np.sqrt(np.maximum(uniform_filter(detail**2, (0, _SQUARE, _SQUARE)), 0))
    detail /= contrast + _FLAT
    vectors = detail.reshape(len(detail), -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return vectors @ vectors.T
