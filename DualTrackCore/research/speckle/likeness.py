"""In-plane motion and likeness of the patches over all pairs of near frames of a sweep."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.speckle.patches import (
    PITCH_MM,
    PatchGrid,
    SpeckleFrame,
    SpeckleReader,
    correlations,
    fit_displacement,
    likeness_at,
    speckle_widths,
    whole_shift,
)
from DualTrackCore.sweep import Sweep

#: Frames between the two of a pair: 1 to this.
LAGS = 4
#: Frames from which the size of the speckle is measured.
_WIDTH_FRAMES = 16
#: Patches need at least this likeness to say where they went.
_LEAST_LIKENESS = 0.1


@dataclass(frozen=True)
class SweepLikeness:
    """What the pairs of a sweep show.

    Attributes:
        grid: the patches.
        in_plane: [N - 1, LAGS, 3] motion of frame i + lag in frame i along x and y (mm) and about z (degrees).
        in_plane_weight: [N - 1, LAGS]; 0 where there is no such pair or it shows nothing.
        likeness: [N - 1, LAGS, patches]; NaN where there is no such pair or the patch shows no speckle.
    """

    grid: PatchGrid
    in_plane: np.ndarray
    in_plane_weight: np.ndarray
    likeness: np.ndarray


def sweep_likeness(sweep: Sweep, reporter: Reporter) -> SweepLikeness:
    """Compare every frame with the next :data:`LAGS` ones; frames are read once, and a few are held at a time.

    Raises:
        InputError: fewer than two frames, no images, unknown spacing, or frames too small for patches.
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
    return SweepLikeness(reader.grid, pairs.in_plane, pairs.weight, pairs.likeness)


class _Pairs:
    """Collects pairs; lag 1 comes before the others, which start from its result."""

    def __init__(self, grid: PatchGrid, widths: np.ndarray, frames: int) -> None:
        self._grid, self._widths = grid, widths
        self.in_plane = np.zeros((frames - 1, LAGS, 3))
        self.weight = np.zeros((frames - 1, LAGS))
        self.likeness = np.full((frames - 1, LAGS, grid.rows * grid.columns), np.nan)

    def add(self, first: int, lag: int, one: SpeckleFrame, other: SpeckleFrame) -> None:
        if lag == 1:
            guess = self.in_plane[first - 1, 0] if first else np.zeros(3)
        else:
            guess = self.in_plane[first : first + lag, 0].sum(axis=0)
        usable = one.usable & other.usable
        found = self._surfaces(one, other, usable, guess, search=lag == 1)
        if found is None or usable.sum() < 3:
            self.in_plane[first, lag - 1] = guess
            return
        surfaces, centre, motion = found
        for _ in range(2):
            moved, likeness = fit_displacement(surfaces, self._widths, centre, self._displacements(motion))
            weight = np.where(usable, np.clip(likeness - _LEAST_LIKENESS, 0, 1) ** 2, 0)
            motion = self._rigid(moved, weight, motion)
        self.in_plane[first, lag - 1], self.weight[first, lag - 1] = motion, weight.sum()
        values = likeness_at(surfaces, self._widths, centre, self._displacements(motion))
        self.likeness[first, lag - 1] = np.where(usable, values, np.nan)

    def _surfaces(
        self, one: SpeckleFrame, other: SpeckleFrame, usable: np.ndarray, guess: np.ndarray, search: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Correlations about the whole-pixel shift nearest to the guess, or to the best place near it.

        Returns:
            The surfaces, the whole-pixel shift, and the motion to start from; None where patches leave the frame.
        """
        guessed = np.rint(-guess[[1, 0]] / PITCH_MM).astype(int)
        starts = [guessed]
        if search and (shift := whole_shift(self._grid, one, other)).tolist() != guessed.tolist():
            starts.append(shift)
        found = [self._climbed(one, other, usable, start, 12 if search else 0) for start in starts]
        found = [candidate for candidate in found if candidate is not None]
        if not found:
            return None
        surfaces, centre = max(found, key=lambda candidate: candidate[0][usable].sum(axis=0).max())
        if (centre != guessed).any():
            guess = np.array([-centre[1] * PITCH_MM, -centre[0] * PITCH_MM, guess[2]])
        return surfaces, centre, guess

    def _climbed(
        self, one: SpeckleFrame, other: SpeckleFrame, usable: np.ndarray, centre: np.ndarray, moves: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Correlations about a whole-pixel shift after at most so many moves uphill, and that shift."""
        while (np.abs(centre) <= self._grid.most_shift).all():
            surfaces = correlations(self._grid, one, other, tuple(centre))
            step = np.array(np.unravel_index(np.argmax(surfaces[usable].sum(axis=0)), (3, 3))) - 1
            if not moves or not step.any():
                return surfaces, centre
            moves, centre = moves - 1, centre + step
        return None

    def _displacements(self, motion: np.ndarray) -> np.ndarray:
        """[patches, 2] where tissue moves in the image (rows, columns; pixels) when the probe moves by tx, ty, rz."""
        tx, ty, rz = motion[0], motion[1], np.deg2rad(motion[2])
        down, across = -ty - rz * self._grid.x_mm, -tx + rz * self._grid.y_mm
        return np.stack([down, across], axis=1) / PITCH_MM

    def _rigid(self, moved: np.ndarray, weight: np.ndarray, before: np.ndarray) -> np.ndarray:
        """tx, ty (mm), rz (degrees) that fit displacements [patches, 2] best; far ones count less."""
        x, y, one, zero = self._grid.x_mm, self._grid.y_mm, np.ones_like(weight), np.zeros_like(weight)
        design = np.concatenate([np.stack([zero, -one, -x], axis=1), np.stack([-one, zero, y], axis=1)])
        target = np.concatenate([moved[:, 0], moved[:, 1]]) * PITCH_MM
        weights = np.concatenate([weight, weight])
        if np.count_nonzero(weight) < 3:
            return before
        solution = None
        for _ in range(3):
            used = weights
            if solution is not None:
                used = weights / (1 + ((target - design @ solution) / (0.3 * PITCH_MM)) ** 2)
            scaled = design * used[:, None]
            solution = np.linalg.solve(scaled.T @ design + 1e-9 * np.eye(3), scaled.T @ target)
        return np.array([solution[0], solution[1], np.rad2deg(solution[2])])
