"""Winograd's minimal filtering: convolutions of three taps with fewer multiplications.

F(m, 3) gives m outputs of a three-tap filter g from m + 2 inputs d with m + 2 multiplications instead of 3 m:
y = A^T [(G g) * (B^T d)]. The matrices follow from interpolation at chosen points (Cook and Toom; Winograd, "Arithmetic
Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
arXiv:1509.09308). For F(4, 3) they are the points 0, +-a, +-b and infinity. In two dimensions the transforms act along
both: F(4x4, 3x3) needs 36 multiplications instead of 144; nested with F(2, 3) in time, 144 instead of 864 for two
frames.
"""

from __future__ import annotations

import numpy as np

#: a and b of F(4, 3). Lavin and Gray take 1 and 2; these two keep the transformed values closer to one size, which
#: makes the rounding of single precision about half as large.
POINTS = (0.5**0.5, 2.0**0.5)


def spatial_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [4, 6], G [6, 3] and B^T [6, 6] of F(4, 3), float64."""
    a, b = POINTS
    points = [0.0, a, -a, b, -b]
    output = np.zeros((4, 6))
    kernel = np.zeros((6, 3))
    data = np.zeros((6, 6))
    for i, p in enumerate(points):
        others = [q for q in points if q != p]
        output[:, i] = [p**power for power in range(4)]
        kernel[i] = np.array([1.0, p, p * p]) / np.prod([p - q for q in others])
        data[i, :5] = np.poly(others)[::-1]
    output[3, 5] = kernel[5, 2] = 1.0
    data[5] = np.poly(points)[::-1]
    return output, kernel, data


def temporal_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [2, 4], G [4, 3] and B^T [4, 4] of F(2, 3) at the points 0, 1, -1 and infinity, float64."""
    output = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, -1.0]])
    kernel = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
    data = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    return output, kernel, data
