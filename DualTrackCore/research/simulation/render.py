"""From a phantom, a probe and a pose to a B-mode frame.

A frame is computed beam by beam, as in a scanner: speckle times the echo level of the tissue, less the attenuation on
the way, plus electronic noise; then time-gain compensation, log compression, and scan conversion (curvilinear probes).
Speckle is read from fields that are fixed in the tissue, with the beam's widths along fixed axes. So rotations of tens
of degrees away from `speckle_axes` would exchange lateral and elevational widths.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.research.simulation import speckle
from DualTrackCore.research.simulation.acquisition import Contact, Tissue
from DualTrackCore.research.simulation.deformation import Deformation
from DualTrackCore.research.simulation.phantom import Phantom
from DualTrackCore.research.simulation.probe import FanBeams, ParallelBeams, Probe
from DualTrackCore.research.simulation.structure import Structures

#: The anatomy is computed on a grid of about this step, mm (across beams, along them), and interpolated.
_TISSUE_STEP_MM = (0.8, 0.4)
#: Length of the table of electronic noise; a prime number, so that frames rarely begin at the same place.
_NOISE_SAMPLES = 1_000_003
_SMALLEST = 1e-12
#: Range of the stored levels, dB over reference tissue, shown by the codes 1 to 255.
CODED_DB = (-65.0, 35.0)


def codes_of_levels(level_db: np.ndarray) -> np.ndarray:
    """Codes 1 to 255 uint8 of echo levels, dB: 100 dB in steps of .39; levels outside get the nearest code."""
    scale = 254 / (CODED_DB[1] - CODED_DB[0])
    return (np.clip(np.rint((level_db - CODED_DB[0]) * scale), 0, 254) + 1).astype(np.uint8)


def levels_of_codes(codes: np.ndarray) -> np.ndarray:
    """The inverse of :func:`codes_of_levels`, float32 dB; minus infinity where no beam goes (code 0)."""
    table = np.float32(CODED_DB[0]) + np.arange(-1, 255, dtype=np.float32) * np.float32(100 / 254)
    table[0] = -np.inf
    return table[codes]


class Renderer:
    """Renders frames of one phantom through one probe.

    Args:
        phantom, probe: the tissue and the transducer.
        frame_size: rows and columns.
        spacing_mm: (across columns, down rows).
        speckle_axes: [3, 3] rotation, frame0 from the axes (x, y, z) of the beam's widths: the typical orientation of
            the probe.
        contact: deformation of the tissue by the probe.
        poses: [N, 4, 4] frame0_from_image of all frames, mm, for the contact.
        tissue: regions of few scatterers, fibres and bone.
        wide: whether beams may be wider than the stored speckle; else clipped, as for the first simulated sweeps.

    Raises InputError: the frame is less than 1 mm deep.
    """

    def __init__(
        self,
        phantom: Phantom,
        probe: Probe,
        frame_size: tuple[int, int],
        spacing_mm: tuple[float, float],
        speckle_axes: np.ndarray | None = None,
        contact: Contact | None = None,
        poses: np.ndarray | None = None,
        tissue: Tissue | None = None,
        wide: bool = False,
    ) -> None:
        tissue = Tissue() if tissue is None else tissue
        self._phantom = replace(phantom, further_bone=True) if tissue.bone else phantom
        self._probe = probe
        maker = ParallelBeams if probe.geometry == "linear" else FanBeams
        self.beams = maker(probe, frame_size, spacing_mm)
        depth = self.beams.depth_mm
        if depth[-1] < 1:
            raise InputError(f"The frame is {depth[-1]:.2g} mm deep; choose more rows or a larger spacing.")
        self._face_mm = np.array([0.0, -(frame_size[0] - 1) / 2 * spacing_mm[1], 0.0])
        self._deformation = None
        if contact is not None and contact != Contact():
            self._deformation = Deformation(contact, poses, self._face_mm, probe.frame_rate_hz, phantom.seed)
        self._prepare_speckle(depth, np.eye(3) if speckle_axes is None else np.asarray(speckle_axes), tissue, wide)
        self._anatomy_grid = _CoarseGrid(self.beams, _TISSUE_STEP_MM)
        coarse = depth[self._anatomy_grid.rows]
        self._path_cm = (2 * probe.frequency_mhz * np.diff(coarse, prepend=0.0) / 10).astype(np.float32)[:, None]
        self._gain_db = probe.gain_db(depth).astype(np.float32)[:, None]
        self._noise_size = np.float32(10 ** (probe.noise_db / 20))

    def frame(self, frame0_from_image: np.ndarray, index: int) -> np.ndarray:
        """The frame [H, W] uint8 at a pose [4, 4], mm; `index` selects its noise and deformation."""
        return self.beams.pixels(self._probe.grey(self.level_db(frame0_from_image, index)))

    def level_codes(self, frame0_from_image: np.ndarray, index: int) -> np.ndarray:
        """:meth:`frame` before the grey map: [H, W] uint8 codes of :func:`codes_of_levels`, 0 without a beam."""
        return self.beams.pixels(codes_of_levels(self.level_db(frame0_from_image, index)))

    def level_db(self, frame0_from_image: np.ndarray, index: int) -> np.ndarray:
        """Echo levels [samples, beams] float32 after time-gain compensation, dB over reference tissue."""
        pose, drag = np.asarray(frame0_from_image, dtype=np.float64), None
        if self._deformation is not None:
            pose = self._deformation.compressed(pose, index)
            drag = self._deformation.drag_at(self.beams.depth_mm, index)
        field = self._speckle(pose, drag)
        level = self._tissue_level_db(pose, drag)
        field *= np.exp(level * np.float32(np.log(10) / 20))
        start = (index * 7919) % (_NOISE_SAMPLES - field.size) if field.size < _NOISE_SAMPLES else 0
        field += np.resize(self._noise_size * _noise()[start : start + field.size], field.shape)
        power = field.real**2 + field.imag**2
        return np.log(power + np.float32(_SMALLEST)) * np.float32(10 / np.log(10)) + self._gain_db

    def _prepare_speckle(self, depth: np.ndarray, axes: np.ndarray, tissue: Tissue, wide: bool) -> None:
        probe, phantom = self._probe, self._phantom
        elevational, lateral = probe.elevational_sigma_mm(depth), probe.lateral_sigma_mm(depth)
        # Beams of a fan are rotated against the field's axes. So its field is nearly isotropic in the image plane, and
        # the blur across the beams widens it.
        across = lateral.min() if probe.geometry == "linear" else max(probe.axial_sigma_mm, 0.6 * lateral.min())
        samples, sigma = (self.beams.x_mm, self.beams.y_mm), (across, probe.axial_sigma_mm)
        self._reader = speckle.FieldReader(*samples, sigma, elevational, axes, phantom.speckle_place, wide)
        self._blur = _blur_weights(across, lateral, self.beams.spacing_mm)
        self._structures = None
        if tissue.coherent_part or tissue.fibre_mm:
            self._structures = Structures(tissue, phantom, self._reader, *samples, sigma, elevational)
            self._region_grid = _CoarseGrid(self.beams, self._structures.region_step_mm)

    def _speckle(self, pose: np.ndarray, drag: np.ndarray | None = None) -> np.ndarray:
        """Blurred complex speckle [samples, beams], with sparse scatterers and fibres."""
        origin = pose[:3, 3] - self._face_mm
        field = self._reader.read(self._phantom.fields, pose, origin, drag)
        if self._structures is not None:
            self._structures.add(field, self._shares(pose, drag), pose, origin, drag)
        return _blurred(field, self._blur)

    def _shares(self, pose: np.ndarray, drag: np.ndarray | None = None) -> list[np.ndarray]:
        """Weight [samples, beams] of each region of the structures, 0 to 1."""
        grid = self._region_grid
        coarse = self._structures.regions(*grid.places(pose, pose[:3, 3] - self._face_mm, drag))
        return [np.clip(grid.fine(region), 0, 1) for region in coarse]

    def _tissue_level_db(self, pose: np.ndarray, drag: np.ndarray | None = None) -> np.ndarray:
        """Echo level of the tissue less the attenuation above it, [samples, beams] dB."""
        echo, attenuation = self._phantom.tissue(*self._anatomy_grid.places(pose, pose[:3, 3] - self._face_mm, drag))
        echo -= np.cumsum(attenuation * self._path_cm, axis=0)
        return self._anatomy_grid.fine(echo)


class _CoarseGrid:
    """A coarse grid of samples, about `step_mm` (across beams, along them) apart, with interpolation."""

    def __init__(self, beams: ParallelBeams | FanBeams, step_mm: tuple[float, float]) -> None:
        samples, count = beams.x_mm.shape
        down = max(1, round(step_mm[1] / (beams.depth_mm[1] - beams.depth_mm[0])))
        over = max(1, int(step_mm[0] / beams.spacing_mm.mean()))
        self.rows, self._row_share = _coarse_axis(samples, down)
        columns, self._column_share = _coarse_axis(count, over)
        self._x_mm = beams.x_mm[np.ix_(self.rows, columns)].astype(np.float32)
        self._y_mm = beams.y_mm[np.ix_(self.rows, columns)].astype(np.float32)

    def places(self, pose: np.ndarray, origin_mm: np.ndarray, drag: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """Places of the samples in the phantom, x, y and z in mm; arguments as for a field reader."""
        rotation, shift = pose[:3].astype(np.float32), origin_mm.astype(np.float32)
        x, y, z = (rotation[i, 0] * self._x_mm + rotation[i, 1] * self._y_mm + shift[i] for i in range(3))
        if drag is None:
            return x, y, z
        moved = drag[:, self.rows, None].astype(np.float32)
        return x - moved[0], y - moved[1], z - moved[2]

    def fine(self, coarse: np.ndarray) -> np.ndarray:
        """Values [samples, beams] interpolated from those on the coarse grid."""
        return _interpolated(_interpolated(coarse, *self._row_share).T, *self._column_share).T


@functools.cache
def _noise() -> np.ndarray:
    """[samples] complex64 of mean square 1: the same electronic noise for all renderers."""
    noise = np.random.default_rng(0x0153).standard_normal((_NOISE_SAMPLES, 2), dtype=np.float32)
    return (noise * np.float32(np.sqrt(0.5))).view(np.complex64)[:, 0]


def _coarse_axis(count: int, step: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Every `step`-th of `count` places and the last; for each place the index of the one below, weight of the next."""
    chosen = np.unique(np.append(np.arange(0, count, step), count - 1))
    low = np.clip(np.searchsorted(chosen, np.arange(count), side="right") - 1, 0, max(len(chosen) - 2, 0))
    high = np.minimum(low + 1, len(chosen) - 1)
    gap = np.maximum(chosen[high] - chosen[low], 1)
    return chosen, (low, ((np.arange(count) - chosen[low]) / gap).astype(np.float32))


def _interpolated(values: np.ndarray, low: np.ndarray, share: np.ndarray) -> np.ndarray:
    if len(low) == len(values):
        return values
    near = values[low]
    return near + share[:, None] * (values[np.minimum(low + 1, len(values) - 1)] - near)


def _blur_weights(sigma_mm: float, target_mm: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Weights [taps, samples] across beams that widen a field from one width to the width at each depth.

    They are Gaussians of variance target^2 - sigma^2, scaled to keep the mean square of the field.
    """
    extra = np.sqrt(np.maximum(target_mm**2 - sigma_mm**2, 0)) / spacing_mm
    reach = int(np.ceil(2.5 * extra.max()))
    taps = np.arange(-reach, reach + 1)[:, None]
    weights = np.exp(-0.5 * np.square(taps / np.maximum(extra, 1e-3)))
    weights[np.abs(weights) < 1e-6] = 0
    distance = (taps - taps.T)[..., None] * spacing_mm
    correlation = speckle.field_correlation(np.float64(sigma_mm), np.float64(sigma_mm), distance)
    power = np.einsum("is,js,ijs->s", weights, weights, correlation)
    return (weights / np.sqrt(power)).astype(np.float32)


def _blurred(field: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if len(weights) == 1:
        return field
    reach, count = len(weights) // 2, field.shape[1]
    padded = np.pad(field, ((0, 0), (reach, reach)), mode="reflect" if count > reach else "symmetric")
    result = np.zeros_like(field)
    for tap, weight in enumerate(weights):
        used = np.flatnonzero(weight)
        if len(used):
            rows = slice(used[0], used[-1] + 1)
            result[rows] += weight[rows, None] * padded[rows, tap : tap + count]
    return result
