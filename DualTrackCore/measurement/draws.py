"""Paths drawn at random around a path, as its errors have it: where a frame may lie instead.

The errors of a few steps are added up to first order (:mod:`~DualTrackCore.uncertainty`); those sums are drawn, and
composed as rigid motions. So a long path costs no more random numbers than a short one, and a turn stays a turn.

In a path that was corrected, the errors of motions also depend on each other in ways that no share in common tells: a
length that is known holds them together. There the length of the path up to each frame, whose variance is known, is
drawn from sum to sum as a Markov chain that has these variances and those of the sums, and the rest of each error as
above.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from DualTrackCore.uncertainty import common_signs, cross_matrices, error_twists

#: Steps whose errors are added before they are composed.
_BLOCK = 16
#: Such sums that are drawn at once: a few milliseconds.
_TOGETHER = 8


def drawing_motions(
    poses: np.ndarray,
    sigma: np.ndarray,
    correlation: np.ndarray,
    frames: np.ndarray,
    draws: int,
    seed: int,
    length_mm2: np.ndarray | None = None,
    freedom: float | None = None,
) -> Generator[None, None, np.ndarray]:
    """Where the errors of a path move what lies in some of its frames, relative to the first of them.

    Args:
        poses: [N, 4, 4], frame0_from_image, mm.
        sigma: [N - 1, 6] standard deviations of the motions, mm and degrees; NaN where not known.
        correlation: [6], 0 to 1, the share of the variance that all motions have in common.
        frames: [M] rising indices.
        draws: how many paths.
        seed: the same one gives the same paths.
        length_mm2: [N] variance of the length of the path up to each frame, of a path that was corrected.
        freedom: degrees of freedom of the errors; None for normal ones.

    Returns:
        [M, draws, 4, 4] rigid maps of frame0, mm; NaN from the first step on of which the error is not known.
    """
    first, last = int(frames[0]), int(frames[-1])
    stops = np.unique([*frames, *range(first, last, _BLOCK)])
    near, signs, rng = poses[first : last + 1], common_signs(poses)[first:last], np.random.default_rng(seed)
    twists, along = error_twists(near, sigma[first:last]), 0.0
    yield
    if length_mm2 is not None:
        way = _ways(np.diff(near[:, :3, 3], axis=0))
        parts = np.einsum("ncx,nx->nc", twists[:, :3, :3], way)
        twists[:, :3, :3] -= parts[:, :, None] * way[:, None]
        own = _between(parts**2 @ (1 - correlation[:3]), stops - first)
        own += _between(parts * signs[:, :3], stops - first) ** 2 @ correlation[:3]
        longer = _drawn_lengths(length_mm2[stops], own, draws, rng)
        size = _between(np.linalg.norm(np.diff(near[:, :3, 3], axis=0), axis=1), stops - first)
        chord = np.diff(poses[stops, :3, 3], axis=0) / np.where(size > 0, size, 1)[:, None]
        along = longer[:, :, None] * chord[:, None]
    signed = twists * signs[:, :, None]
    own = _between(np.swapaxes(twists * (1 - correlation)[:, None], 1, 2) @ twists, stops - first)
    common = _between(np.sqrt(correlation)[:, None] * signed, stops - first)
    shared, larger = rng.standard_normal((draws, 6)), 1.0
    if freedom is not None:  # how large the errors of each path are, beside `sigma`
        larger = np.sqrt((freedom - 2) / rng.chisquare(freedom, draws))[:, None]
    moved, motions = np.tile(np.eye(4), (draws, 1, 1)), np.empty((len(frames), draws, 4, 4))
    motions[0], wanted = moved, np.isin(stops, frames)
    known = np.isfinite(own).all(axis=(1, 2)) & np.isfinite(common).all(axis=(1, 2))
    variances, axes = np.linalg.eigh(np.where(known[:, None, None], own, 0))
    # The symmetric root: axes of equal variances may be any, so they must not decide what is drawn.
    spread = axes * np.sqrt(np.maximum(variances, 0))[:, None, :] @ np.swapaxes(axes, 1, 2)
    place = 0
    for start in range(0, len(spread), _TOGETHER):
        yield
        part = slice(start, start + _TOGETHER)
        errors = rng.standard_normal((len(spread[part]), draws, 6)) @ np.swapaxes(spread[part], 1, 2)
        errors += np.einsum("dc,sci->sdi", shared, common[part])
        errors[..., :3] += along if length_mm2 is None else along[part]
        for step, goes_to in zip(rigid_of_twists(larger * errors), wanted[1:][part], strict=True):
            moved = moved @ step  # NaN stays
            if goes_to:
                place += 1
                motions[place] = moved
    return motions


def _ways(steps: np.ndarray) -> np.ndarray:
    """Steps [n, 3] as unit vectors; 0 for none."""
    size = np.linalg.norm(steps, axis=1, keepdims=True)
    return steps / np.where(size > 0, size, 1)


def _drawn_lengths(variances: np.ndarray, between: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[S, draws] errors (mm) of the length from each stop to the next.

    Args:
        variances: [S + 1] of the length up to each stop.
        between: [S] of the length from each to the next.
        draws, rng: how many, and where from.
    """
    reached, found = np.sqrt(variances[0]) * rng.standard_normal(draws), np.empty((len(between), draws))
    sure = np.sqrt(variances)
    between = np.clip(between, (sure[1:] - sure[:-1]) ** 2, (sure[1:] + sure[:-1]) ** 2)
    for step, (before, after, apart) in enumerate(zip(variances[:-1], variances[1:], between, strict=True)):
        kept = (before + after - apart) / (2 * before) if before > 0 else 0.0
        rest = np.sqrt(np.maximum(after - kept**2 * before, 0))
        found[step] = (kept - 1) * reached + rest * rng.standard_normal(draws)
        reached = reached + found[step]
    return found


def _between(values: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Sums of [n, ...] values from each stop to the next."""
    total = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=total[1:])
    return np.diff(total[stops], axis=0)


def rigid_of_twists(twists: np.ndarray) -> np.ndarray:
    """[..., 4, 4] rigid motions (mm) of small motions [..., 6]: moment (mm), turn (radians); their exponentials."""
    moment, turn = twists[..., :3, None], twists[..., 3:]
    angle = np.maximum(np.linalg.norm(turn, axis=-1), 1e-6)[..., None, None]
    cross = cross_matrices(turn)
    sine, cosine = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    square = cross @ cross
    rigid = np.zeros((*turn.shape[:-1], 4, 4))
    rigid[..., :3, :3] = np.eye(3) + sine * cross + cosine * square
    rigid[..., :3, 3:] = moment + cosine * (cross @ moment) + (1 - sine) / angle**2 * (square @ moment)
    rigid[..., 3, 3] = 1
    return rigid
