"""Speckle patches: how far they moved in the plane between two frames, and how well they still correlate.

Frames are resampled to one pitch, and the local mean is subtracted, which leaves speckle. The normalised correlation
of two patches of fully developed speckle over a displacement is the speckle's own correlation, here a Gaussian, moved
by the displacement and scaled by the decorrelation from elevational motion. Fitting this model to measured
correlations at whole pixels gives both without interpolating an image, which would blur one of the two.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import SPACING_TOLERANCE, resampling_matrix

#: Size of a pixel of the resampled frames, and side of a patch in those pixels: 5 mm.
PITCH_MM, PATCH = 0.25, 20
#: Pixels left free around the patches for their motion, rows and columns.
_MARGIN = (4, 10)
#: Half side of the box whose mean is taken away: about twice the size of a speckle.
_MEAN_REACH = 2
#: Patches darker than this, or with less variance, hold noise or shadow (grey values).
_LEAST_GREY, _LEAST_VARIANCE = 40.0, 20.0


class PatchGrid:
    """Square patches side by side, centred in the resampled frame.

    Attributes:
        rows, columns: number of patches.
        x_mm, y_mm: [patches] centres in the image frame, row after row.
        depth_mm: [rows] of their centres below the top of the image.
    """

    def __init__(self, frame_size: tuple[int, int]) -> None:
        self.rows, self.columns = ((side - 2 * m) // PATCH for side, m in zip(frame_size, _MARGIN, strict=True))
        if self.rows < 2 or self.columns < 2:
            least = [(2 * PATCH + 2 * m) * PITCH_MM for m in _MARGIN]
            raise InputError(
                f"Decorrelation needs at least 2 x 2 patches: frames of {least[1]:.0f} x {least[0]:.0f} mm; these show "
                f"{frame_size[1] * PITCH_MM:.0f} x {frame_size[0] * PITCH_MM:.0f} mm."
            )
        self._top = (frame_size[0] - self.rows * PATCH) // 2
        self._left = (frame_size[1] - self.columns * PATCH) // 2
        middle = (PATCH - 1) / 2
        y = self._top + np.arange(self.rows) * PATCH + middle
        x = self._left + np.arange(self.columns) * PATCH + middle
        self.depth_mm = y * PITCH_MM
        self.y_mm = np.repeat((y - (frame_size[0] - 1) / 2) * PITCH_MM, self.columns)
        self.x_mm = np.tile((x - (frame_size[1] - 1) / 2) * PITCH_MM, self.rows)

    @property
    def most_shift(self) -> tuple[int, int]:
        """By how many rows and columns all patches can move, and one pixel more, without leaving the frame."""
        return self._top - 1, self._left - 1

    def cut(self, image: np.ndarray, rows: int = 0, columns: int = 0) -> np.ndarray:
        """The part of an image that the patches cover, moved by whole pixels."""
        top, left = self._top + rows, self._left + columns
        return image[top : top + self.rows * PATCH, left : left + self.columns * PATCH]

    def sums(self, covered: np.ndarray) -> np.ndarray:
        """[patches] sums over each patch of what :meth:`cut` gave."""
        lines = covered.reshape(self.rows, PATCH, -1).sum(axis=1)
        return lines.reshape(self.rows, self.columns, PATCH).sum(axis=2).ravel()

    def box_sums(self, integral: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """:meth:`sums` of an image given by its integral, moved by whole pixels."""
        y = self._top + rows + PATCH * np.arange(self.rows + 1)
        x = self._left + columns + PATCH * np.arange(self.columns + 1)
        return np.diff(np.diff(integral[np.ix_(y, x)], axis=0), axis=1).ravel()


@dataclass(frozen=True)
class SpeckleFrame:
    """A frame without its local mean [H, W] float32, the integral of its square, its spectrum, and usable patches."""

    image: np.ndarray
    integral: np.ndarray
    spectrum: np.ndarray
    usable: np.ndarray


class SpeckleReader:
    """Frames of a sweep, resampled and without their local mean.

    Raises InputError: the spacing is unknown, there are no images, or the frames are too small for patches.
    """

    def __init__(self, sweep: Sweep) -> None:
        sweep.require_images()
        scales = [PITCH_MM / own for own in sweep.require_spacing()]
        self._columns = self._rows = None
        rows, columns = sweep.frame_size
        if any(abs(scale - 1) > SPACING_TOLERANCE for scale in scales):
            self._columns, self._rows = resampling_matrix(columns, scales[0]), resampling_matrix(rows, scales[1])
            rows, columns = len(self._rows), len(self._columns)
        self._sweep = sweep
        self.grid = PatchGrid((rows, columns))

    def frames(self, start: int, stop: int) -> list[SpeckleFrame]:
        """Frames start to stop - 1."""
        return [self._prepared(pixels.astype(np.float32)) for pixels in self._sweep.window(start, stop)]

    def _prepared(self, grey: np.ndarray) -> SpeckleFrame:
        if self._rows is not None:
            grey = self._rows @ grey @ self._columns.T
        image = grey - uniform_filter(grey, 2 * _MEAN_REACH + 1, mode="nearest")
        integral = np.zeros((image.shape[0] + 1, image.shape[1] + 1))
        np.square(image, dtype=np.float64).cumsum(axis=0).cumsum(axis=1, out=integral[1:, 1:])
        area = PATCH * PATCH
        bright = self.grid.sums(self.grid.cut(grey)) > _LEAST_GREY * area
        usable = bright & (self.grid.box_sums(integral, 0, 0) > _LEAST_VARIANCE * area)
        return SpeckleFrame(image, integral, np.fft.rfft2(image), usable)


def whole_shift(grid: PatchGrid, one: SpeckleFrame, other: SpeckleFrame) -> np.ndarray:
    """[2] whole-pixel shift (rows, columns) at which two whole frames agree best, within what the patches may move."""
    surface = np.fft.irfft2(np.conj(one.spectrum) * other.spectrum, one.image.shape)
    rows, columns = grid.most_shift
    near = np.roll(surface, (rows, columns), axis=(0, 1))[: 2 * rows + 1, : 2 * columns + 1]
    return np.array(np.unravel_index(np.argmax(near), near.shape)) - [rows, columns]


def correlation_surfaces(grid: PatchGrid, one: SpeckleFrame, other: SpeckleFrame, shift: tuple[int, int]) -> np.ndarray:
    """[patches, 3, 3] normalised correlation of each patch of `one` with `other` moved by `shift` and one pixel more.

    The last axes are one pixel less, none, and one more along the rows and along the columns.
    """
    own = grid.cut(one.image)
    energy = grid.box_sums(one.integral, 0, 0)
    result = np.empty((grid.rows * grid.columns, 3, 3))
    for i in range(3):
        for j in range(3):
            place = (shift[0] + i - 1, shift[1] + j - 1)
            product = grid.sums(own * grid.cut(other.image, *place))
            result[:, i, j] = product / np.sqrt(energy * grid.box_sums(other.integral, *place) + 1e-3)
    return result


def speckle_widths(grid: PatchGrid, frames: list[SpeckleFrame]) -> np.ndarray:
    """[patches, 2] standard deviations in pixels, along rows and columns, of the speckle's own correlation.

    One for each row of patches, from all usable patches of the frames.
    """
    total, count = np.zeros((grid.rows, 3, 3)), np.zeros(grid.rows)
    for frame in frames:
        usable = frame.usable.reshape(grid.rows, grid.columns)
        surfaces = correlation_surfaces(grid, frame, frame, (0, 0)).reshape(grid.rows, grid.columns, 3, 3)
        total += np.where(usable[..., None, None], surfaces, 0).sum(axis=1)
        count += usable.sum(axis=1)
    # A row without a usable patch gets the mean of the others; it is not read.
    mean = np.where(count[:, None, None] > 0, total / np.maximum(count, 1)[:, None, None], np.nan)
    beside = np.stack([mean[:, [0, 2], 1].mean(axis=1), mean[:, 1, [0, 2]].mean(axis=1)], axis=1)
    beside = np.where(np.isfinite(beside), beside, np.nanmean(beside, axis=0) if count.any() else 0.5)
    return np.repeat(np.sqrt(-0.5 / np.log(np.clip(beside, 0.05, 0.95))), grid.columns, axis=0)


def fit_displacement(
    surfaces: np.ndarray, widths: np.ndarray, centre: np.ndarray, about: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One Newton step towards the displacement of every patch, and its correlation there.

    Args:
        surfaces: [patches, 3, 3] from :func:`correlation_surfaces`.
        widths: [patches, 2] from :func:`speckle_widths`.
        centre: [2] whole-pixel shift at the middle of the surfaces.
        about: [patches, 2] displacement (rows, columns), pixels, about which the Gaussian is linearised.

    Returns:
        Displacements [patches, 2] in pixels, and correlation [patches]: about 1 without elevational motion.
    """
    shape, dy, dx = _gaussian(widths, centre, about)
    wy, wx = widths[:, 0, None, None] ** 2, widths[:, 1, None, None] ** 2
    design = np.stack([shape, shape * dy / wy, shape * dx / wx], axis=-1).reshape(len(surfaces), 9, 3)
    normal = np.swapaxes(design, 1, 2) @ design + 1e-6 * np.eye(3)
    right = np.swapaxes(design, 1, 2) @ surfaces.reshape(len(surfaces), 9, 1)
    correlation, moved = np.split(np.linalg.solve(normal, right)[..., 0], [1], axis=1)
    return about + np.clip(moved / np.maximum(correlation, 0.1), -1, 1), correlation[:, 0]


def _gaussian(widths: np.ndarray, centre: np.ndarray, about: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[patches, 3, 3] Gaussian about a displacement at the pixels of the surfaces, and its offsets in rows, columns."""
    steps = np.arange(-1, 2)
    dy = (centre[0] + steps)[None, :, None] - about[:, 0, None, None]
    dx = (centre[1] + steps)[None, None, :] - about[:, 1, None, None]
    return np.exp(-0.5 * ((dy / widths[:, 0, None, None]) ** 2 + (dx / widths[:, 1, None, None]) ** 2)), dy, dx


#: Frames between the two of a pair: 1 to this.
LAGS = 4
#: Frames from which the size of the speckle is measured.
_WIDTH_FRAMES = 16
#: Least correlation of a patch whose displacement is used.
_LEAST_CORRELATION = 0.1


@dataclass(frozen=True)
class SweepCorrelation:
    """In-plane motion and correlation of the pairs of a sweep.

    Attributes:
        grid: the patches.
        in_plane: [N - 1, LAGS, 3] motion of frame i + lag in frame i along x and y (mm) and about z (degrees).
        in_plane_weight: [N - 1, LAGS]; 0 where there is no such pair or no speckle.
        correlation: [N - 1, LAGS, patches]; NaN where there is no such pair or the patch shows no speckle.
    """

    grid: PatchGrid
    in_plane: np.ndarray
    in_plane_weight: np.ndarray
    correlation: np.ndarray


def sweep_correlation(sweep: Sweep, reporter: Reporter) -> SweepCorrelation:
    """Compare every frame with the next :data:`LAGS` ones; frames are read once, and a few are held at a time.

    Raises InputError: fewer than two frames, no images, unknown spacing, or frames too small for patches.
    """
    if len(sweep) < 2:
        raise InputError("The sweep has one frame; a trajectory needs at least two.")
    reader = SpeckleReader(sweep)
    sample = np.unique(np.linspace(0, len(sweep) - 1, _WIDTH_FRAMES).astype(int)).tolist()
    widths = speckle_widths(reader.grid, [frame for i in sample for frame in reader.frames(i, i + 1)])
    pairs = _Pairs(reader.grid, widths, len(sweep))
    recent: deque[SpeckleFrame] = deque(maxlen=LAGS)
    for start in range(0, len(sweep), 16):
        reporter.report(Stage.SPECKLE, start, len(sweep))
        for i, frame in enumerate(reader.frames(start, min(start + 16, len(sweep))), start):
            for lag in range(1, len(recent) + 1):
                pairs.add(i - lag, lag, recent[-lag], frame)
            recent.append(frame)
    reporter.report(Stage.SPECKLE, len(sweep), len(sweep))
    return SweepCorrelation(reader.grid, pairs.in_plane, pairs.weight, pairs.correlation)


class _Pairs:
    """Collects pairs; lag 1 comes before the others, which start from its result."""

    def __init__(self, grid: PatchGrid, widths: np.ndarray, frames: int) -> None:
        self._grid, self._widths = grid, widths
        self.in_plane = np.zeros((frames - 1, LAGS, 3))
        self.weight = np.zeros((frames - 1, LAGS))
        self.correlation = np.full((frames - 1, LAGS, grid.rows * grid.columns), np.nan)

    def add(self, first: int, lag: int, one: SpeckleFrame, other: SpeckleFrame) -> None:
        # The step before this one, or the sum of the steps in between; nothing before the first.
        steps = slice(max(first - 1, 0), first) if lag == 1 else slice(first, first + lag)
        guess = self.in_plane[steps, 0].sum(axis=0)
        usable = one.usable & other.usable
        match = self._surfaces(one, other, usable, guess, search=lag == 1)
        if match is None or usable.sum() < 3:
            self.in_plane[first, lag - 1] = guess
            return
        surfaces, centre, motion = match
        for _ in range(2):
            moved, correlation = fit_displacement(surfaces, self._widths, centre, self._displacements(motion))
            weight = np.where(usable, np.clip(correlation - _LEAST_CORRELATION, 0, 1) ** 2, 0)
            motion = self._rigid(moved, weight, motion)
        self.in_plane[first, lag - 1], self.weight[first, lag - 1] = motion, weight.sum()
        shape, _, _ = _gaussian(self._widths, centre, self._displacements(motion))
        scale = (shape * surfaces).sum(axis=(1, 2)) / (shape * shape).sum(axis=(1, 2))
        self.correlation[first, lag - 1] = np.where(usable, scale, np.nan)

    def _surfaces(
        self, one: SpeckleFrame, other: SpeckleFrame, usable: np.ndarray, guess: np.ndarray, search: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Correlations, their whole-pixel shift, and the motion to start from; None where patches leave the frame."""
        guessed = np.rint(-guess[[1, 0]] / PITCH_MM).astype(int)
        starts = [guessed]
        if search and (shift := whole_shift(self._grid, one, other)).tolist() != guessed.tolist():
            starts.append(shift)
        climbed = (self._climbed(one, other, usable, start, 12 if search else 0) for start in starts)
        candidates = [candidate for candidate in climbed if candidate is not None]
        if not candidates:
            return None
        surfaces, centre = max(candidates, key=lambda candidate: candidate[0][usable].sum(axis=0).max())
        if (centre != guessed).any():
            guess = np.array([-centre[1] * PITCH_MM, -centre[0] * PITCH_MM, guess[2]])
        return surfaces, centre, guess

    def _climbed(
        self, one: SpeckleFrame, other: SpeckleFrame, usable: np.ndarray, centre: np.ndarray, moves: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Correlations about a whole-pixel shift after at most so many moves uphill, and that shift."""
        while (np.abs(centre) <= self._grid.most_shift).all():
            surfaces = correlation_surfaces(self._grid, one, other, tuple(centre))
            step = np.array(np.unravel_index(np.argmax(surfaces[usable].sum(axis=0)), (3, 3))) - 1
            if not moves or not step.any():
                return surfaces, centre
            moves, centre = moves - 1, centre + step
        return None

    def _displacements(self, motion: np.ndarray) -> np.ndarray:
        """[patches, 2] displacement of tissue in the image (rows, columns; pixels) for a probe motion tx, ty, rz."""
        tx, ty, rz = motion[0], motion[1], np.deg2rad(motion[2])
        return np.stack([-ty - rz * self._grid.x_mm, -tx + rz * self._grid.y_mm], axis=1) / PITCH_MM

    def _rigid(self, moved: np.ndarray, weight: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Fit tx, ty (mm), rz (degrees) to displacements [patches, 2]; outliers have a lower weight."""
        x, y, one, zero = self._grid.x_mm, self._grid.y_mm, np.ones_like(weight), np.zeros_like(weight)
        design = np.concatenate([np.stack([zero, -one, -x], axis=1), np.stack([-one, zero, y], axis=1)])
        target = np.concatenate([moved[:, 0], moved[:, 1]]) * PITCH_MM
        weights = used = np.concatenate([weight, weight])
        if np.count_nonzero(weight) < 3:
            return before
        for _ in range(3):
            scaled = design * used[:, None]
            tx, ty, rz = solution = np.linalg.solve(scaled.T @ design + 1e-9 * np.eye(3), scaled.T @ target)
            used = weights / (1 + ((target - design @ solution) / (0.3 * PITCH_MM)) ** 2)
        return np.array([tx, ty, np.rad2deg(rz)])
