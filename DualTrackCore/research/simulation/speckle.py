"""Speckle with the decorrelation of a real beam: complex Gaussian volumes, read at the place of every sample.

A field is white complex noise smoothed by the beam's Gaussian amplitude profile. Its magnitude is fully developed
speckle (Rayleigh distributed), and the intensity correlation at a distance d is exp(-d^2 / (2 sigma^2)). The same noise
is smoothed with several elevational widths, and two neighbouring widths are blended for the width at each depth. A
blend of complex Gaussian fields is complex Gaussian, so the statistics are exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from DualTrackCore.compilation import kernel_module

#: Samples of the periodic volume along each axis; a power of two, so that indices wrap by a bit mask.
SIDE = 128
#: Standard deviation of the narrowest beam in samples, along all three axes.
SIGMA_SAMPLES = 2.0
#: Elevational widths of the stored fields as multiples of the narrowest.
WIDTHS = 1.45 ** np.arange(6)
#: Scatterers in a cell of the narrowest sparse field.
SPARSE_PER_CELL = 0.2
#: For beams wider than the stored widths, the fields are read again, stretched by this factor per octave; where octaves
#: overlap, one fades into the next.
_OCTAVE = WIDTHS[-2]
#: Distance between the readings of two octaves, samples, so that their noise is independent.
_OCTAVE_SHIFT = np.array([37.0, 53.0, 64.0])
#: Maps places (x, y, z) in samples to the periodic grid. Because of the shear, a place does not repeat when the probe
#: moves along x or z; z itself is not sheared, so that a frame reads few slices, which stay in the cache.
GRID_FROM_SAMPLES = np.array([[1.0, 0.0, 0.13], [0.31, 1.0, 0.09], [0.0, 0.0, 1.0]])
#: Variance of the smoothing by linear interpolation, square samples, averaged over all places.
_INTERPOLATION_VARIANCE = 1 / 6


@lru_cache(maxsize=2)
def speckle_fields(seed: int) -> np.ndarray:
    """Complex fields [widths, SIDE, SIDE, SIDE] complex64 over (width, z, y, x): about 100 MB.

    Their mean square is 1 after trilinear interpolation at evenly spread places. The two volumes used last stay in
    memory, so sweeps with the same seed share it.
    """
    random = np.random.default_rng([seed, 0x5BEC])
    noise = random.standard_normal((2, SIDE, SIDE, SIDE), dtype=np.float32)
    return _smoothed(noise[0] + 1j * noise[1])


@lru_cache(maxsize=1)
def sparse_fields() -> np.ndarray:
    """:func:`speckle_fields` with few scatterers: `SPARSE_PER_CELL` per cell of the narrowest beam.

    Their amplitudes are complex Gaussian. A cell extends over sqrt(2 pi) standard deviations along each axis: with N
    scatterers in it the mean square of the intensity is 2 (1 + 1 / N), as that of a K distribution of order N.
    """
    random = np.random.default_rng(0x5BA5)
    cell = (2 * np.pi) ** 1.5 * SIGMA_SAMPLES**3
    count = round(SPARSE_PER_CELL * SIDE**3 / cell)
    noise = np.zeros(SIDE**3, np.complex64)
    noise[random.choice(SIDE**3, count, replace=False)] = random.standard_normal((count, 2)) @ (1, 1j)
    return _smoothed(noise.reshape((SIDE,) * 3))


def _smoothed(noise: np.ndarray) -> np.ndarray:
    """Fields [widths, SIDE, SIDE, SIDE] of all widths from complex noise [SIDE, SIDE, SIDE] over (z, y, x)."""
    spectrum = np.fft.fftn(noise).astype(np.complex64)
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
    """Mean square after linear interpolation along an axis, averaged over all places between two samples."""
    return (2 + np.exp(-1 / (4 * variance))) / 3


def field_correlation(width_a: np.ndarray, width_b: np.ndarray, distance: np.ndarray | float = 0.0) -> np.ndarray:
    """Correlation at an elevational distance of two fields from one noise, smoothed by Gaussians of these widths.

    For standard deviations a and b it is sqrt(2ab / (a^2 + b^2)) exp(-d^2 / (2 (a^2 + b^2))).
    """
    total = width_a**2 + width_b**2
    return np.sqrt(2 * width_a * width_b / total) * np.exp(-np.square(distance) / (2 * total))


def blend_for_width(width: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights that blend two stored fields into one of any width.

    The blend's intensity correlation equals the closed form at a distance of one standard deviation.

    Args:
        width: elevational widths as multiples of the narrowest; clipped to the stored range.

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


class FieldReader:
    """Reads fields at the samples of a picture, with a beam's widths along fixed axes.

    Args:
        x_mm, y_mm: [samples, beams] places of the samples, image frame.
        sigma_mm: widths along the axes x and y, standard deviations.
        elevational_mm: [samples] widths along the axis z, standard deviations.
        axes: [3, 3] rotation, frame0 from the axes.
        place: [3] place of the origin on the fields' grid, samples.
        wide: whether beams may be wider than :data:`WIDTHS` times the narrowest; else widths are clipped there.
        blended: whether two stored widths are blended; else the nearest one is read, which takes half the time.
    """

    def __init__(
        self,
        x_mm: np.ndarray,
        y_mm: np.ndarray,
        sigma_mm: tuple[float, float],
        elevational_mm: np.ndarray,
        axes: np.ndarray,
        place: np.ndarray,
        wide: bool = False,
        blended: bool = True,
    ) -> None:
        self._kernels = kernel_module("DualTrackCore.research.simulation.kernels")
        self._x_mm, self._y_mm = x_mm, y_mm
        narrowest = elevational_mm.min()
        ratio = elevational_mm / narrowest
        count = 1 + (int(np.ceil(np.log(ratio.max() / WIDTHS[-1]) / np.log(_OCTAVE))) if wide else 0)
        self._octaves = []
        for octave in range(max(count, 1)):
            stretch = _OCTAVE**octave
            grid = GRID_FROM_SAMPLES @ np.diag(SIGMA_SAMPLES / np.array([*sigma_mm, narrowest * stretch])) @ axes.T
            level, *weights = blend_for_width(ratio / stretch)
            weights = np.stack(weights, axis=1)
            if not blended:
                level, weights = level + (weights[:, 1] > weights[:, 0]), np.array([[1.0, 0.0]] * len(ratio))
            elif count > 1:
                weights *= _octave_fade(ratio, octave, count)[:, None]
            used = np.flatnonzero(weights.any(axis=1))
            rows = slice(used[0], used[-1] + 1)
            self._octaves.append((grid, place + octave * _OCTAVE_SHIFT, rows, level, weights.astype(np.float32)))

    def read(
        self,
        fields: np.ndarray,
        pose: np.ndarray,
        origin_mm: np.ndarray,
        drag_mm: np.ndarray | None = None,
        chosen: np.ndarray | None = None,
    ) -> np.ndarray:
        """The field [samples, beams] complex64.

        Args:
            fields: from :func:`speckle_fields` or :func:`sparse_fields`.
            pose: [4, 4] affine map from the image; only its rotation and stretch are used.
            origin_mm: [3] place of the image's origin, frame0.
            drag_mm: [3, samples] displacement of the tissue, frame0.
            chosen: [samples, beams] bool, the samples to read; others stay 0. None: all.
        """
        samples = len(self._x_mm)
        result = np.zeros((*self._x_mm.shape, 2), np.float32)
        chosen = np.ones(self._x_mm.shape, bool) if chosen is None else chosen
        for grid, place, rows, level, weights in self._octaves:
            direction = (grid @ pose[:3, :2]).astype(np.float32)
            origin = np.broadcast_to((grid @ origin_mm + place)[:, None], (3, samples))
            if drag_mm is not None:
                origin = origin - grid @ drag_mm
            origin = np.mod(origin, SIDE).astype(np.float32).T.copy()
            self._kernels.add_fields(
                fields.view(np.float32).reshape(*fields.shape, 2),
                direction,
                self._x_mm[rows],
                self._y_mm[rows],
                origin[rows],
                level[rows],
                weights[rows],
                chosen[rows],
                result[rows],
            )
        return result.view(np.complex64)[..., 0]


def _octave_fade(ratio: np.ndarray, octave: int, count: int) -> np.ndarray:
    """Weight of an octave at each width; the squares of all octaves add up to 1.

    So a blend of independent octaves of the same power and correlation keeps both.
    """

    def risen(at: int) -> np.ndarray:
        beyond = np.log(ratio / _OCTAVE**at) / np.log(WIDTHS[-1] / WIDTHS[0])
        start = np.log(_OCTAVE) / np.log(WIDTHS[-1] / WIDTHS[0])
        return np.clip((beyond - start) / (1 - start), 0, 1) * (np.pi / 2)

    into = np.sin(risen(octave - 1)) if octave else 1.0
    return into * (np.cos(risen(octave)) if octave < count - 1 else np.ones_like(ratio))
