"""Scatterers other than fully developed speckle: regions of few scatterers, and bright fibres along the limb."""

from __future__ import annotations

import numpy as np

from DualTrackCore.research.simulation import speckle
from DualTrackCore.research.simulation.acquisition import Tissue
from DualTrackCore.research.simulation.phantom import Phantom, read_texture, texture
from DualTrackCore.research.simulation.probe import FULL_WIDTH

#: Size of a sample of the regions' texture along the limb, across it and in depth, as a part of the phantom's scale; a
#: region is about four samples wide.
_REGION_SAMPLE = np.array([0.2, 0.08, 0.05], np.float32)
#: Smoothness of that texture in samples, and slope of a region's edge per standard deviation of the texture.
_SMOOTHNESS, _EDGE = 1.5, 4.0
#: Part of the area with fibres, and their mean power there over that of the speckle, dB.
_FIBRE_PART, _FIBRE_DB = 0.4, 6.0


class Structures:
    """Regions and fibres of one phantom under one beam; they are fixed in the tissue.

    Args:
        tissue: amount and kind of scatterers.
        phantom: its seed gives their places.
        reader: of the beam's speckle.
        x_mm, y_mm, sigma_mm, elevational_mm: as for that reader.

    Attributes:
        region_step_mm: (across, in depth) largest step of a grid from which regions may be interpolated.
    """

    def __init__(
        self,
        tissue: Tissue,
        phantom: Phantom,
        reader: speckle.FieldReader,
        x_mm: np.ndarray,
        y_mm: np.ndarray,
        sigma_mm: tuple[float, float],
        elevational_mm: np.ndarray,
    ) -> None:
        random = np.random.default_rng([phantom.seed, 0x57C7])
        self._phantom, self._sparse, self._fibres = phantom, reader, None
        self._sample_mm = _REGION_SAMPLE * np.float32(phantom.scale_mm)
        self.region_step_mm = (float(self._sample_mm[1] / 2), float(self._sample_mm[2] / 2))
        # A blend with power p of sparse and 1 - p of dense scatterers has the mean square intensity of N scatterers
        # per cell, 2 (1 + 1 / N), if p^2 / (sparse ones per cell) = 1 / N.
        self._sparse_power = np.float32((speckle.SPARSE_PER_CELL / tissue.scatterers_per_cell) ** 0.5)
        parts = (tissue.coherent_part, _FIBRE_PART) if tissue.fibre_mm else (tissue.coherent_part,)
        self._regions = [_region(random, part) for part in parts]
        if tissue.fibre_mm:
            axes, sigma, elevational = _along_the_limb(phantom, sigma_mm, elevational_mm, tissue.fibre_mm / FULL_WIDTH)
            place = random.uniform(0, speckle.SIDE, 3)
            self._fibres = speckle.FieldReader(x_mm, y_mm, sigma, elevational, axes, place, blended=False)

    def regions(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
        """The region of few scatterers, and of fibres if any, at places in mm: 1 or more inside, 0 or less outside."""
        sine, cosine = self._phantom.limb_direction
        limb = sine * x + cosine * z, cosine * x - sine * z, y
        return [read_texture(region, self._sample_mm, *limb) for region in self._regions]

    def add(
        self,
        field: np.ndarray,
        shares: list[np.ndarray],
        pose: np.ndarray,
        origin_mm: np.ndarray,
        drag_mm: np.ndarray | None,
    ) -> None:
        """Add them to a field [samples, beams] of speckle, with the weights 0 to 1 of their regions.

        `pose`, `origin_mm` and `drag_mm` as for :meth:`~speckle.FieldReader.read`.
        """
        fields = speckle.sparse_fields()
        power = self._sparse_power * shares[0]
        field *= np.sqrt(1 - power)
        field += np.sqrt(power) * self._sparse.read(fields, pose, origin_mm, drag_mm, power > 0)
        if self._fibres is not None:
            amplitude = np.float32(10 ** (_FIBRE_DB / 20)) * np.sqrt(shares[1])
            field += amplitude * self._fibres.read(fields, pose, origin_mm, drag_mm, amplitude > 0)


def _region(random: np.random.Generator, part: float) -> np.ndarray:
    """A texture above .5 in a part of the volume, and below 0 beyond a soft edge."""
    values = texture(random, _SMOOTHNESS)
    return (0.5 - (part == 0) + _EDGE * (values - np.quantile(values, 1 - part))).astype(np.float32)


def _along_the_limb(
    phantom: Phantom, sigma_mm: tuple[float, float], elevational_mm: np.ndarray, fibre_mm: float
) -> tuple[np.ndarray, tuple[float, float], np.ndarray]:
    """Axes and widths of a field reader for fibres: those of the beam, but long along the limb.

    One axis lies along the limb: the elevational one if pictures are perpendicular to the limb, else the lateral one.
    """
    sine, cosine = (float(part) for part in phantom.limb_direction)
    if abs(cosine) > abs(sine):
        axes = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        return axes, sigma_mm, np.full_like(elevational_mm, np.hypot(np.median(elevational_mm), fibre_mm))
    axes = np.array([[sine, 0, -cosine], [0, 1, 0], [cosine, 0, sine]])
    return axes, (float(np.hypot(sigma_mm[0], fibre_mm)), sigma_mm[1]), elevational_mm
