"""Sums over evenly spaced points by a few of them: Gaussian quadrature for the counting measure.

The rule with n nodes for the points 0, 1, ..., N - 1 sums polynomials of degree up to 2 n - 1 exactly. Its nodes and
weights follow from the recurrence of the discrete Chebyshev (Gram) polynomials by the method of Golub and Welsch (Math.
Comp. 23, 1969); the weights are positive, so that sums of positive values lose nothing to cancellation.
"""

from __future__ import annotations

import numpy as np

#: Nodes of a rule; pieces of an axis that have no more points than this are summed point by point.
NODES = 12


def gram_rule(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [min(points, NODES)] for the sum over 0, 1, ..., points - 1.

    With as many nodes as points they are the points themselves.
    """
    if points <= NODES:
        return np.arange(points, dtype=np.float64), np.ones(points)
    degree = np.arange(1, NODES, dtype=np.float64)
    beta = degree**2 * (points**2 - degree**2) / (4 * (4 * degree**2 - 1))
    values, vectors = np.linalg.eigh(np.diag(np.sqrt(beta), 1) + np.diag(np.sqrt(beta), -1))
    return values + (points - 1) / 2, points * vectors[0] ** 2


class AxisPieces:
    """An axis of N points cut into 2^level pieces of equal length, up to one point, with a rule for each.

    A piece that needs no rule any more, having at most :data:`NODES` points, is not cut further.

    Args:
        points: N.
        level: how often the axis is halved.

    Attributes:
        nodes: [pieces, n] places along the axis.
        weights: [pieces, n] of the nodes; 0 for those that fill up a short piece.
        middle: [pieces] of the points of each piece.
        reach: [pieces] half the way from its first to its last point.
        exact: whether all points of all pieces are nodes.
    """

    def __init__(self, points: int, level: int) -> None:
        halvings = 0
        while halvings < level and -(-points // 2**halvings) > NODES:
            halvings += 1
        edges = np.arange(2**halvings + 1) * points // 2**halvings
        sizes = np.diff(edges)
        self.exact = bool(sizes.max() <= NODES)
        self.middle, self.reach = edges[:-1] + (sizes - 1) / 2, (sizes - 1) / 2
        self.nodes = np.repeat(self.middle[:, None], min(NODES, sizes.max()), axis=1)
        self.weights = np.zeros_like(self.nodes)
        rules = {size: gram_rule(size) for size in set(sizes.tolist())}
        for piece, size in enumerate(sizes.tolist()):
            nodes, weights = rules[size]
            self.nodes[piece, : len(nodes)] = edges[piece] + nodes
            self.weights[piece, : len(weights)] = weights
