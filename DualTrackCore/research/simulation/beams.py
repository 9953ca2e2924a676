"""Where the beams of a probe lie in its image, and how samples along them become pixels."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from DualTrackCore.research.simulation.probe import Probe


class Beams(Protocol):
    """Sample positions in the image frame (mm) and the conversion to pixels.

    Attributes:
        x_mm, y_mm: [samples, beams] float32, image frame.
        depth_mm: [samples] float64 distance below the probe's face along the beam.
        spacing_mm: [samples] float64 distance between neighbouring beams.
    """

    x_mm: np.ndarray
    y_mm: np.ndarray
    depth_mm: np.ndarray
    spacing_mm: np.ndarray

    def pixels(self, grey: np.ndarray) -> np.ndarray:
        """Frame [H, W] uint8 from grey values [samples, beams] uint8."""


class ParallelBeams:
    """A beam at every pixel column under the aperture of a linear probe; columns beside it stay black."""

    def __init__(self, probe: Probe, frame_size: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
        rows, columns = frame_size
        x = (np.arange(columns) - (columns - 1) / 2) * spacing_mm[0]
        under = np.flatnonzero(np.abs(x) <= probe.elements * probe.pitch_mm / 2)
        self._columns, self._frame_size = slice(under[0], under[-1] + 1) if len(under) else slice(0, 1), frame_size
        x = x[self._columns].astype(np.float32)
        y = ((np.arange(rows) - (rows - 1) / 2) * spacing_mm[1]).astype(np.float32)
        self.x_mm, self.y_mm = (np.ascontiguousarray(a) for a in np.broadcast_arrays(x, y[:, None]))
        self.depth_mm = np.arange(rows) * spacing_mm[1]
        self.spacing_mm = np.full(rows, spacing_mm[0])

    def pixels(self, grey: np.ndarray) -> np.ndarray:
        """Frame [H, W] uint8 from grey values [samples, beams] uint8."""
        if grey.shape == self._frame_size:
            return grey
        frame = np.zeros(self._frame_size, np.uint8)
        frame[:, self._columns] = grey
        return frame


class FanBeams:
    """Beams at equal angles from the arc of a curvilinear probe, whose lowest point is at the top of the image."""

    def __init__(self, probe: Probe, frame_size: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
        rows, columns = frame_size
        top = -(rows - 1) / 2 * spacing_mm[1]
        self.depth_mm = np.arange(rows) * spacing_mm[1]
        half = np.deg2rad(probe.field_angle_deg) / 2
        count = 2 * probe.elements
        angle = np.linspace(-half, half, count)
        radius = (probe.radius_mm + self.depth_mm)[:, None]
        self.x_mm = (radius * np.sin(angle)).astype(np.float32)
        self.y_mm = (radius * np.cos(angle) - probe.radius_mm + top).astype(np.float32)
        self.spacing_mm = radius[:, 0] * (angle[1] - angle[0])
        x = (np.arange(columns) - (columns - 1) / 2) * spacing_mm[0]
        y = np.arange(rows)[:, None] * spacing_mm[1] + probe.radius_mm
        sample = (np.hypot(x, y) - probe.radius_mm) / spacing_mm[1]
        beam = (np.arctan2(x, y) + half) / (angle[1] - angle[0])
        inside = (sample >= 0) & (sample <= rows - 1) & (beam >= 0) & (beam <= count - 1)
        self._pixels, self._frame_size = np.flatnonzero(inside), frame_size
        sample, beam = sample[inside], beam[inside]
        low, left = np.minimum(sample.astype(np.int64), rows - 2), np.minimum(beam.astype(np.int64), count - 2)
        self._index, self._row_step = low * count + left, count
        self._down, self._right = (sample - low).astype(np.float32), (beam - left).astype(np.float32)

    def pixels(self, grey: np.ndarray) -> np.ndarray:
        """Frame [H, W] uint8 from grey values [samples, beams] uint8; black outside the sector."""
        flat = grey.astype(np.float32).ravel()
        upper, lower = (
            flat.take(self._index + step) * (1 - self._right) + flat.take(self._index + step + 1) * self._right
            for step in (0, self._row_step)
        )
        frame = np.zeros(self._frame_size, np.uint8)
        frame.ravel()[self._pixels] = np.rint(upper + self._down * (lower - upper))
        return frame
