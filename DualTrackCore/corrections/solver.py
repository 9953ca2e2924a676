"""The most probable path: motions that err as they are said to, and observations of it.

Unknown are the own error of each motion and six errors that all motions share (:mod:`~DualTrackCore.uncertainty`), in
units of their standard deviations, and where the worlds of other poses lie. Gauss-Newton, halving
a step that does not help; observations that do not fit count less, first by Huber's weights, then, from there, by
weights that let a wrong one go. In twists of the frames the equations of the own errors are block tridiagonal; what all
motions share, worlds, and observations that join far frames are a few columns more, which a small dense system solves:

    | B   C   A' |  x   own twists [6 (n - 1)]      A: rows of observations that join frames
    | C'  D   E' |  z   shared errors and worlds
    | A   E  -1  |  l   residuals of those rows

The same factors give the covariance of what is left unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve_banded, cholesky_banded

from DualTrackCore.corrections.observations import Observations
from DualTrackCore.errors import InputError
from DualTrackCore.memory import require_memory
from DualTrackCore.trajectory import accumulate, matrices_from_parameters
from DualTrackCore.uncertainty import cross_matrices, error_twists

#: Least own error of a motion: part of its standard deviation, and mm or degrees.
_LEAST_PART, _LEAST = 0.1, 1e-3
#: Standard deviations of where a world may lie: all over.
_WORLD_SD = np.array([1e4, 1e4, 1e4, 10, 10, 10])
#: Steps and halvings at most; what the cost, a sum of squares in units of accuracies, falls by in the last step.
_MOST_STEPS, _MOST_HALVINGS, _ENOUGH = 50, 12, 1e-3
#: Most rows that join frames, and copies of their columns that are held at a time.
_MOST_ROWS, _COPIES = 1000, 5
#: Frames up to which the error of the length is computed; between them its variance is interpolated.
_KNOTS = 64


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of n frames without observations.

    Attributes:
        first: [4, 4] pose of the first frame, which stays.
        motions: [n - 1, 6] mm, degrees.
        own: [n - 1, 6] standard deviation of what is each motion's own error.
        shared: [n - 1, 6] standard deviation, with its sign, of what all motions share.
    """

    first: np.ndarray
    motions: np.ndarray
    own: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(
        cls, first: np.ndarray, motions: np.ndarray, sigma: np.ndarray, correlation: np.ndarray, signs: np.ndarray
    ) -> Prior:
        """From errors as a trajectory has them; signs [n - 1, 6] as of :func:`~uncertainty.common_signs`."""
        own = np.maximum(sigma * np.maximum(np.sqrt(1 - correlation), _LEAST_PART), _LEAST)
        return cls(first, motions, own, sigma * np.sqrt(correlation) * signs)


def path_of(first: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """[n, 4, 4] poses of motions [n - 1, 6] that begin at a pose [4, 4]."""
    return first @ accumulate(matrices_from_parameters(motions))


@dataclass(frozen=True, eq=False)
class Distance:
    """A known length of the whole path, or with `ends` the distance of two frames; mm."""

    length_mm: float
    accuracy_mm: float
    ends: tuple[int, int] | None = None

    def measured(self, path: np.ndarray) -> float:
        """The length in a path [n, 4, 4]."""
        if self.ends is None:
            return float(np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1).sum())
        return float(np.linalg.norm(path[self.ends[1], :3, 3] - path[self.ends[0], :3, 3]))


@dataclass(frozen=True, eq=False)
class Solution:
    """The most probable path of n frames, and how sure it is.

    Attributes:
        motions: [n - 1, 6] mm, degrees.
        path: [n, 4, 4] poses.
        worlds: [4, 4] frame0_from_world of each group of observations.
        sigma: [n - 1, 6] standard deviation of the motions.
        correlation: [6] share of their variance that all motions have in common.
        covariance_mm2: [n, 3, 3] of the position of each frame.
        length_mm: [n] standard deviation of the length up to each frame.
    """

    motions: np.ndarray
    path: np.ndarray
    worlds: list[np.ndarray]
    sigma: np.ndarray
    correlation: np.ndarray
    covariance_mm2: np.ndarray
    length_mm: np.ndarray


def solve(prior: Prior, groups: Sequence[Observations], distances: Sequence[Distance] = ()) -> Solution:
    """The most probable path, and its covariance.

    Raises:
        InputError: too many observations that join frames.
        OutOfMemoryError: less memory than the columns of the equations take.
    """
    rows = len(distances) + sum(len(group.names) * group.residuals_each for group in groups if group.joins)
    if rows > _MOST_ROWS:
        raise InputError(
            f"The marks and places give {rows} rows that join frames, and the limit is {_MOST_ROWS}; give fewer."
        )
    columns = rows + 6 + 6 * len(groups)
    require_memory(_COPIES * columns * prior.motions.nbytes, "Correcting the path")
    state = _State.of(prior, groups, distances)
    for tail in (1, 2) if groups else ():
        state = _descended(replace(state, tail=tail))
    return _Equations(state).solution()


def _descended(state: _State) -> _State:
    """Where the cost of a state is least."""
    cost = state.cost()
    for _ in range(_MOST_STEPS):
        change = _Equations(state).step()
        for halving in range(_MOST_HALVINGS):
            tried = state.moved(*(part * 0.5**halving for part in change))
            found = tried.cost()
            if found <= cost:
                break
        else:
            break
        state, before, cost = tried, cost, found
        if before - cost <= _ENOUGH:
            break
    return state


@dataclass(frozen=True, eq=False)
class _State:
    """Motions, shared errors and worlds on the way to the solution."""

    prior: Prior
    groups: Sequence[Observations]
    distances: Sequence[Distance]
    motions: np.ndarray
    common: np.ndarray
    worlds: list[np.ndarray]
    path: np.ndarray
    tail: int = 2

    @classmethod
    def of(cls, prior: Prior, groups: Sequence[Observations], distances: Sequence[Distance]) -> _State:
        path = path_of(prior.first, prior.motions)
        worlds = [group.first_world(path) for group in groups]
        return cls(prior, groups, distances, prior.motions, np.zeros(6), worlds, path)

    def own_errors(self) -> np.ndarray:
        prior = self.prior
        return (self.motions - prior.motions - prior.shared * self.common) / prior.own

    def cost(self) -> float:
        found = (self.own_errors() ** 2).sum() + (self.common**2).sum()
        for group, world in zip(self.groups, self.worlds, strict=True):
            found += group.cost(group.residuals(self.path, world), self.tail)
        return found + sum(
            ((known.measured(self.path) - known.length_mm) / known.accuracy_mm) ** 2 for known in self.distances
        )

    def moved(self, own: np.ndarray, common: np.ndarray, worlds: np.ndarray) -> _State:
        """With own errors changed by [n - 1, 6], shared ones by [6], and worlds by twists [groups, 6]."""
        motions = self.motions + self.prior.own * own + self.prior.shared * common
        moved = [_turned(world, twist) for world, twist in zip(self.worlds, worlds, strict=True)]
        parts = motions, self.common + common, moved, path_of(self.prior.first, motions)
        return _State(self.prior, self.groups, self.distances, *parts, self.tail)


def _turned(pose: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """A pose moved by a twist in frame0 (to first order in the place, exactly rigid)."""
    from scipy.spatial.transform import Rotation

    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_rotvec(twist[3:]).as_matrix(), twist[:3]
    return turn @ pose


class _Equations:
    """The linear equations around a state, solved."""

    def __init__(self, state: _State) -> None:
        self.state, prior = state, state.prior
        self.count = len(prior.motions)
        own = error_twists(state.path, prior.own)
        #: [n - 1, 6, 6] change of the own error with the twist between its frames.
        self.own_of_twist = np.linalg.inv(np.swapaxes(own, 1, 2))
        shared = np.swapaxes(error_twists(state.path, prior.shared), 1, 2)
        size = 6 + 6 * len(state.groups)
        #: [n, 6, size] twist of each frame with the shared errors.
        self.shared = np.zeros((self.count + 1, 6, size))
        self.shared[1:, :, :6] = np.cumsum(shared, axis=0)
        self._begin(size)
        for number, group in enumerate(state.groups):
            self._observe(number, group)
        for known in state.distances:
            self._measure(known)
        self._factorise()

    def _begin(self, size: int) -> None:
        """The equations of the prior."""
        m, errors, count = self.own_of_twist, self.state.own_errors(), self.count
        self.diagonal = np.zeros((count + 1, 6, 6))
        self.beside = -np.swapaxes(m, 1, 2) @ m  # minus the information of each motion
        self.diagonal[1:] -= self.beside
        self.diagonal[:-1] -= self.beside
        gradient = np.einsum("nij,ni->nj", m, errors)
        self.gradient = np.zeros((count + 1, 6))
        self.gradient[1:] += gradient
        self.gradient[:-1] -= gradient
        self.coupling = np.zeros((count + 1, 6, size))
        weak = np.tile(1 / _WORLD_SD**2, (size - 6) // 6)
        self.dense = np.diag(np.concatenate([np.ones(6), weak]))
        self.dense_gradient = np.concatenate([self.state.common, np.zeros(size - 6)])
        self.rows, self.row_shared, self.row_residuals = [], [], []

    def _observe(self, number: int, group: Observations) -> None:
        """Add a group of observations, each with its weight."""
        path, world = self.state.path, self.state.worlds[number]
        residuals = group.residuals(path, world)
        weights = np.sqrt(group.weights(residuals, self.state.tail))[:, None]
        residuals = residuals * weights
        one, other = (change * weights[:, None] for change in group.changes(path, world))
        along = one @ self.shared[group.nodes]
        if group.joins:
            along += other @ self.shared[group.others]
            self.rows += [self._row(group.nodes, one), self._row(group.others, other)]
            self.rows[-2:] = [self.rows[-2] + self.rows[-1]]
            self.row_shared.append(along.reshape(-1, along.shape[2]))
            self.row_residuals.append(residuals.ravel())
            return
        place = slice(6 + 6 * number, 12 + 6 * number)
        along[:, :, place] += other
        turned = np.swapaxes(one, 1, 2)
        np.add.at(self.diagonal, group.nodes, turned @ one)
        np.add.at(self.gradient, group.nodes, np.einsum("mdi,md->mi", one, residuals))
        np.add.at(self.coupling, group.nodes, turned @ along)
        self.dense += np.einsum("mdi,mdj->ij", along, along)
        self.dense_gradient += np.einsum("mdi,md->i", along, residuals)

    def _row(self, nodes: np.ndarray, changes: np.ndarray) -> sparse.csr_matrix:
        """[m d, 6 n] changes [m, d, 6] with the twists of nodes [m], of all frames."""
        m, d, _ = changes.shape
        columns = np.broadcast_to(6 * nodes[:, None, None] + np.arange(6), changes.shape)
        lines = np.broadcast_to(np.arange(m * d).reshape(m, d, 1), changes.shape)
        entries = changes.ravel(), (lines.ravel(), columns.ravel())
        return sparse.csr_matrix(entries, shape=(m * d, 6 * (self.count + 1)))

    def _measure(self, known: Distance) -> None:
        """Add a known length."""
        path = self.state.path
        if known.ends is None:
            across = self._length_changes()
            twists = np.zeros((self.count + 1, 6))
            twists[1:] += across
            twists[:-1] -= across
        else:
            here, there = path[list(known.ends), :3, 3]
            way = (there - here) / max(np.linalg.norm(there - here), 1e-9)
            twists = np.zeros((self.count + 1, 6))
            for end, place, sign in ((known.ends[0], here, -1), (known.ends[1], there, 1)):
                twists[end] += sign * np.concatenate([way, np.cross(place, way)])
        twists /= known.accuracy_mm
        self.rows.append(sparse.csr_matrix(twists.reshape(1, -1)))
        self.row_shared.append(np.einsum("ni,nij->j", twists, self.shared)[None])
        self.row_residuals.append(np.array([(known.measured(path) - known.length_mm) / known.accuracy_mm]))

    def _length_changes(self) -> np.ndarray:
        """[n - 1, 6] how the length of each step changes with the twist between its frames."""
        steps = self.state.motions[:, :3]
        lengths = np.linalg.norm(steps, axis=1, keepdims=True)
        along = steps / np.where(lengths > 0, lengths, 1) * self.state.prior.own[:, :3]
        return np.einsum("ni,nij->nj", along, self.own_of_twist[:, :3])

    def _factorise(self) -> None:
        """Solve for all right sides; the first frame stays."""
        unknown = 6 * self.count
        bands = np.zeros((12, unknown))
        a, b = np.tril_indices(6)
        for offset in range(6):
            chosen = a - b == offset
            for i, j in zip(a[chosen], b[chosen], strict=True):
                bands[offset, j::6] = self.diagonal[1:, i, j]
        for i in range(6):
            for j in range(6):
                bands[6 + i - j, j : unknown - 6 : 6] = self.beside[1:, i, j]
        self.factor = cholesky_banded(bands, lower=True, check_finite=False)
        rows = sparse.vstack(self.rows).tocsr()[:, 6:] if self.rows else sparse.csr_matrix((0, unknown))
        along = np.concatenate(self.row_shared) if self.rows else np.zeros((0, len(self.dense)))
        residuals = np.concatenate(self.row_residuals) if self.rows else np.zeros(0)
        self.columns = np.concatenate([self.coupling[1:].reshape(unknown, -1), rows.T.toarray()], axis=1)
        self.solved = self._solved(self.columns)
        free = self._solved(self.gradient[1:].reshape(unknown, 1))[:, 0]
        border = np.block([[self.dense, along.T], [along, -np.eye(len(along))]])
        self.small = border - self.columns.T @ self.solved
        right = np.concatenate([self.dense_gradient, residuals]) - self.columns.T @ free
        few = -np.linalg.solve(self.small, right)
        self.few = few[: len(self.dense)]
        self.twists = np.concatenate([np.zeros(6), -(free + self.solved @ few)]).reshape(-1, 6)

    def _solved(self, right: np.ndarray) -> np.ndarray:
        return cho_solve_banded((self.factor, True), right, check_finite=False)

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Change of the own errors [n - 1, 6], of the shared ones [6] and twists of the worlds [groups, 6]."""
        own = np.einsum("nij,nj->ni", self.own_of_twist, np.diff(self.twists, axis=0))
        return own, self.few[:6], self.few[6:].reshape(-1, 6)

    def solution(self) -> Solution:
        """The state, with the covariance that these equations give."""
        state, count = self.state, self.count
        inverse = np.linalg.inv(self.small)
        few = -np.concatenate([np.zeros((6, self.solved.shape[1])), self.solved]).reshape(count + 1, 6, -1)
        few[:, :, :6] += self.shared[:, :, :6]
        frames, neighbours = self._own_covariances()
        moved = np.concatenate(
            [np.broadcast_to(np.eye(3), (count + 1, 3, 3)), -cross_matrices(state.path[:, :3, 3])], 2
        )
        covariance = frames + few @ inverse @ np.swapaxes(few, 1, 2)
        places = moved @ covariance @ np.swapaxes(moved, 1, 2)
        between, apart = frames[1:] + frames[:-1] - neighbours - np.swapaxes(neighbours, 1, 2), np.diff(few, axis=0)
        between = between + apart @ inverse @ np.swapaxes(apart, 1, 2)
        parameters = np.linalg.inv(np.swapaxes(error_twists(state.path, np.ones((count, 6))), 1, 2))
        variances = np.einsum("nij,njk,nik->ni", parameters, between, parameters)
        sigma = np.sqrt(np.maximum(variances, 0))
        common = (state.prior.shared**2).sum(0) * np.diag(inverse)[:6]
        correlation = np.clip(common / np.maximum(variances.sum(0), 1e-300), 0, 1)
        lengths = self._length_sd(few, inverse)
        return Solution(state.motions, state.path, state.worlds, sigma, correlation, places, lengths)

    def _own_covariances(self) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of the inverse of the tridiagonal part: [n, 6, 6] of frames, [n - 1, 6, 6] with the next frame."""
        lower, below = np.zeros((self.count, 6, 6)), np.zeros((self.count - 1, 6, 6))
        for i in range(6):
            for j in range(6):
                if i >= j:
                    lower[:, i, j] = self.factor[i - j, j::6]
                below[:, i, j] = self.factor[6 + i - j, j : 6 * (self.count - 1) : 6]
        root = np.linalg.inv(lower)
        alone = np.swapaxes(root, 1, 2) @ root
        passed = np.swapaxes(root[:-1], 1, 2) @ np.swapaxes(below, 1, 2)
        frames, neighbours = np.zeros((self.count + 1, 6, 6)), np.zeros((self.count, 6, 6))
        frames[-1] = alone[-1]
        for k in range(self.count - 2, -1, -1):
            neighbours[k + 1] = -passed[k] @ frames[k + 2]
            frames[k + 1] = alone[k] - neighbours[k + 1] @ passed[k].T
        return frames, neighbours

    def _length_sd(self, few: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """[n] standard deviation of the length up to each frame; see :data:`_KNOTS`."""
        knots = np.unique(np.linspace(0, self.count, min(_KNOTS, self.count) + 1).round().astype(int))
        across = self._length_changes()
        reached = (np.arange(self.count)[:, None] < knots)[:, None] * across[:, :, None]
        twists = np.zeros((self.count + 1, 6, len(knots)))
        twists[1:] += reached
        twists[:-1] -= reached
        own = twists[1:].reshape(6 * self.count, -1)
        seen = np.einsum("nik,nir->kr", twists, few)
        variances = np.einsum("ik,ik->k", own, self._solved(own)) + np.einsum("kr,rs,ks->k", seen, inverse, seen)
        return np.sqrt(np.interp(np.arange(self.count + 1), knots, np.maximum(variances, 0)))
