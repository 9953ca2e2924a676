"""Speckle that decorrelates as it does under a real beam: complex Gaussian volumes read at the place of every sample.

A field is white complex noise smoothed by the beam's Gaussian amplitude profile; its magnitude is fully developed
speckle (Rayleigh distributed), and the intensity correlation of two places a distance d apart is
exp(-d^2 / (2 sigma^2)). One noise is smoothed with several elevational widths, and two neighbouring widths are blended
for the width at each depth; a blend of complex Gaussian fields is one again, so that the statistics hold exactly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Samples of the periodic volume along each axis; a power of two, so that wrapping is a bit mask.
SIDE = 128
#: Standard deviation of the narrowest beam in samples, along all three axes.
SIGMA_SAMPLES = 2.0
#: Elevational widths of the stored fields as multiples of the narrowest.
WIDTHS = 1.45 ** np.arange(6)
#: Maps places (x, y, z) in samples to the periodic grid. The shear keeps a place from meeting its own repetition when
#: the probe moves along x or z; z itself is not sheared, so that a frame touches few slices and stays in the cache.
GRID_FROM_SAMPLES = np.array([[1.0, 0.0, 0.13], [0.31, 1.0, 0.09], [0.0, 0.0, 1.0]])
#: Linear interpolation smooths as a kernel of this variance in samples does, on the average over all places.
_INTERPOLATION_VARIANCE = 1 / 6


@lru_cache(maxsize=2)
def speckle_fields(seed: int) -> np.ndarray:
    """Complex fields [widths, SIDE, SIDE, SIDE] complex64 over (width, z, y, x): about 100 MB.

    Their mean square is 1 after trilinear interpolation at places spread evenly.
    The two fields used last are kept: sweeps that share a seed share the memory.
    """
    random = np.random.default_rng([seed, 0x5BEC])
    noise = random.standard_normal((2, SIDE, SIDE, SIDE), dtype=np.float32)
    spectrum = np.fft.fftn(noise[0] + 1j * noise[1]).astype(np.complex64)
    cycles = np.fft.fftfreq(SIDE).astype(np.float32)
    kz, ky, kx = cycles[:, None, None], cycles[None, :, None], cycles[None, None, :]
    across, along, elevational = (x * kx + y * ky + z * kz for x, y, z in GRID_FROM_SAMPLES.T)
    narrow = SIGMA_SAMPLES**2 - _INTERPOLATION_VARIANCE
    in_plane = narrow * (across**2 + along**2)
    fields = np.empty((len(WIDTHS), SIDE, SIDE, SIDE), np.complex64)
    for field, width in zip(fields, WIDTHS, strict=True):
        variance = (SIGMA_SAMPLES * width) ** 2 - _INTERPOLATION_VARIANCE
        window = np.exp(-2 * np.pi**2 * (in_plane + variance * elevational**2))
        field[:] = np.fft.ifftn(spectrum * window)
        kept = _interpolated_power(narrow) ** 2 * _interpolated_power(variance)
        field /= np.sqrt(kept * np.mean(np.abs(field) ** 2, dtype=np.float64))
    fields.flags.writeable = False
    return fields


def _interpolated_power(variance: float) -> float:
    """Mean square left by linear interpolation along an axis, averaged over all places between two samples."""
    return (2 + np.exp(-1 / (4 * variance))) / 3


def field_correlation(width_a: np.ndarray, width_b: np.ndarray, distance: np.ndarray | float = 0.0) -> np.ndarray:
    """Correlation of two fields of one noise, smoothed with Gaussians of these widths, over an elevational distance.

    Two unit Gaussians of standard deviations a and b overlap by sqrt(2ab / (a^2 + b^2)) exp(-d^2 / (2 (a^2 + b^2))).
    """
    total = width_a**2 + width_b**2
    return np.sqrt(2 * width_a * width_b / total) * np.exp(-np.square(distance) / (2 * total))


def blend_for_width(width: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How to blend two stored fields into one of any width.

    The blend's intensity correlation equals the closed form at a distance of one standard deviation.

    Args:
        width: elevational widths as multiples of the narrowest; those out of the stored range are clipped.

    Returns:
        Index of the narrower field, its weight, and the weight of the next one; the blend has mean square 1.
    """
    width = np.clip(np.asarray(width, dtype=np.float64), WIDTHS[0], WIDTHS[-1])
    level = np.clip(np.searchsorted(WIDTHS, width, side="right") - 1, 0, len(WIDTHS) - 2)
    narrow, wide = WIDTHS[level], WIDTHS[level + 1]

    def power(share: np.ndarray, distance: np.ndarray | float) -> np.ndarray:
        return (
            (1 - share) ** 2 * field_correlation(narrow, narrow, distance)
            + share**2 * field_correlation(wide, wide, distance)
            + 2 * share * (1 - share) * field_correlation(narrow, wide, distance)
        )

    low, high = np.zeros_like(width), np.ones_like(width)
    for _ in range(40):
        share = (low + high) / 2
        too_narrow = power(share, width) / power(share, 0.0) < np.exp(-0.25)
        low, high = np.where(too_narrow, share, low), np.where(too_narrow, high, share)
    scale = 1 / np.sqrt(power(share, 0.0))
    return level, (1 - share) * scale, share * scale


def read_fields(
    fields: np.ndarray, places: np.ndarray, level: np.ndarray, narrow: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Blended field by trilinear interpolation.

    Args:
        fields: from :func:`speckle_fields`.
        places: [3, rows, columns] float32 places (x, y, z) on the periodic grid.
        level, narrow, wide: of each row, from :func:`blend_for_width`.

    Returns:
        [rows, columns] complex64.
    """
    whole = np.floor(places)
    fx, fy, fz = (places - whole).astype(np.complex64)
    low = whole.astype(np.int32) & (SIDE - 1)
    high = (low + 1) & (SIDE - 1)
    xs, ys = (low[0], high[0]), (low[1] * SIDE, high[1] * SIDE)
    first = level.astype(np.int64)[:, None] * SIDE**3
    slices = [first + end[2] * SIDE**2 for end in (low, high)]
    flat = fields.reshape(-1)  # every index is in range; mode="clip" only spares numpy a buffer

    def lerp(near: np.ndarray, far: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Between two arrays that may be overwritten: products of large arrays are made in place, for speed."""
        far -= near
        far *= share
        near += far
        return near

    def read(offset: int) -> np.ndarray:
        planes = []
        for base in slices:
            rows = [base + (y + offset) for y in ys]
            lines = [lerp(*(flat.take(row + x, mode="clip") for x in xs), fx) for row in rows]
            planes.append(lerp(*lines, fy))
        return lerp(*planes, fz)

    result = read(0) * narrow.astype(np.float32)[:, None]
    result += read(SIDE**3) * wide.astype(np.float32)[:, None]
    return result
