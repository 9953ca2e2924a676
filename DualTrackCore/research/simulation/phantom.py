"""The phantom: tissue with speckle, fixed in space, that a simulated probe looks at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.research.simulation.anatomy import Anatomy
from DualTrackCore.research.simulation.speckle import SIDE, speckle_fields


@dataclass(frozen=True)
class Phantom:
    """Tissue under a flat skin; equal numbers give equal phantoms, and a copy in another process is the same.

    Coordinates are x and z along the skin and y below it, mm.

    Attributes:
        seed: of the anatomy and of where in the speckle it lies.
        speckle_seed: of the speckle itself, which takes seconds to make and about 100 MB; None: `seed`.
        scale_mm: depth that the structures should fill.
        heading_deg: direction of the limb along the skin, from proximal to distal: 0 along z, 90 along x.
        homogeneous: speckle of one echo level and attenuation everywhere, without anatomy: to measure the beam.

    Raises:
        InputError: a number is out of its range.
    """

    seed: int
    speckle_seed: int | None = None
    scale_mm: float = 40.0
    heading_deg: float = 0.0
    homogeneous: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "speckle_seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"The phantom's {name} is {value}; it must be 0 or more.")
        if not 5 <= self.scale_mm <= 300:
            raise InputError(f"The phantom's scale_mm is {self.scale_mm}; it must lie between 5 and 300.")

    def __getstate__(self) -> dict[str, object]:
        """The numbers alone: what is made from them is made again where it is needed."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def fields(self) -> np.ndarray:
        """The complex speckle, see :func:`~DualTrackCore.research.simulation.speckle.speckle_fields`."""
        return speckle_fields(self.seed if self.speckle_seed is None else self.speckle_seed)

    @cached_property
    def speckle_place(self) -> np.ndarray:
        """[3] place of the origin on the speckle's grid, samples; it tells phantoms of one speckle seed apart."""
        return np.random.default_rng([self.seed, 0x0FF5]).uniform(0, SIDE, 3)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The structures."""
        return Anatomy(self.seed, self.scale_mm)

    def tissue(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Echo level (dB over reference tissue) and attenuation (dB/cm/MHz) at places in mm; float32 of one shape."""
        if self.homogeneous:
            return np.zeros(x.shape, np.float32), np.full(x.shape, 0.5, np.float32)
        heading = np.deg2rad(self.heading_deg)
        sine, cosine = np.float32(np.sin(heading)), np.float32(np.cos(heading))
        return self.anatomy.tissue(sine * x + cosine * z, cosine * x - sine * z, y)
