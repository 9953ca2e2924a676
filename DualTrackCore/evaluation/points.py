"""Errors at the five points of the published tables, and at landmarks."""

from __future__ import annotations

import numpy as np

from DualTrackCore.landmarks import Landmarks


def five_points_mm(image_from_pixel: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """The five points at which the DualTrack paper and the TUS-REC baselines measure.

    Args:
        image_from_pixel: [4, 4] pixel to image mm.
        frame_size: (rows H, columns W).

    Returns:
        [4, 5] homogeneous image points, mm, of pixels (0, 0), (W, 0), (0, H), (W, H) and (W // 2, H // 2). Three of
        them lie one pixel outside the image, as in the published code.
    """
    height, width = frame_size
    pixels = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]
    return image_from_pixel @ np.array([(u, v, 0, 1) for u, v in pixels], dtype=np.float64).T


def mean_point_error(predicted: np.ndarray, true: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """Mean over points of the distance between where two sets of poses put them.

    Args:
        predicted, true: [n, 4, 4] poses, mm.
        points_mm: [4, k] homogeneous image points, mm.

    Returns:
        [n] mm; NaN where a pose is.
    """
    return np.linalg.norm(((predicted - true) @ points_mm)[:, :3], axis=1).mean(axis=1)


def landmark_errors(
    predicted: np.ndarray, true: np.ndarray, landmarks: Landmarks, image_from_pixel: np.ndarray
) -> np.ndarray:
    """Distance between where two sets of poses put each landmark.

    Args:
        predicted, true: [N, 4, 4] poses of all frames, mm; NaN where a frame does not count.
        landmarks: all in these frames.
        image_from_pixel: [4, 4] pixel to image mm.

    Returns:
        [L] mm, NaN for landmarks in frames that do not count.
    """
    ones = np.ones(len(landmarks))
    pixels = np.stack([landmarks.pixels[:, 0], landmarks.pixels[:, 1], 0 * ones, ones], axis=1)
    difference = predicted[landmarks.frames] - true[landmarks.frames]
    moved = difference[:, :3] @ (pixels @ image_from_pixel.T)[:, :, None]
    return np.linalg.norm(moved[..., 0], axis=1)
