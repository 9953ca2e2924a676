"""The simulated probe: the width of its beam at every depth, and its grey map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from DualTrackCore.settings import check_settings, setting


class ParallelBeams:
    """One beam per pixel column under the aperture of a linear probe; other columns stay black.

    Attributes:
        x_mm, y_mm: [samples, beams] float32 places of the samples, image frame.
        depth_mm: [samples] float64 distance below the probe's face along the beam.
        spacing_mm: [samples] float64 distance between neighbouring beams.
    """

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
    """Beams at equal angles from the arc of a curvilinear probe; its lowest point is at the top of the image.

    Attributes as in :class:`ParallelBeams`.
    """

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


#: mm per microsecond in soft tissue.
SPEED_OF_SOUND = 1.54
#: Ratio of the full width at half maximum of a Gaussian to its standard deviation.
FULL_WIDTH = 2.3548
#: Two-way elevational standard deviation at the lens focus, mm x MHz, of a lens 5 mm high focused at 18 mm
#: (Marion and Vray 2009).
_FOCAL_WIDTH, REFERENCE_F_NUMBER = 2.09, 18.0 / 5.0
#: Increase of that standard deviation per mm from the focus, divided by lens height over focal length.
_WIDENING = 0.204


@dataclass(frozen=True)
class Probe:
    """A transducer and its receiver.

    Widths are standard deviations of the two-way amplitude profile, mm: with them the intensity correlation of fully
    developed speckle falls as exp(-d^2 / (2 sigma^2)) over a distance d.

    Attributes:
        frequency_mhz: centre frequency.
        geometry: "linear": parallel beams; "curvilinear": a fan of beams from an arc of `radius_mm`.
        elements, pitch_mm: number of elements and distance between two; their product is the width of a linear probe.
        radius_mm, field_angle_deg: of the arc of a curvilinear probe; unused by a linear one.
        lens_focus_mm, lens_height_mm: elevational focal length and aperture.
        elevational_factor: factor on the elevational width at the focus of that lens.
        f_number, transmit_focus_mm: of the lateral beam; `lateral_widening`: its increase in mm per mm from the focus.
        pulse_cycles: length of the pulse in wavelengths.
        tgc_db_cm_mhz, tgc_limit_db: attenuation that time-gain compensation corrects, and its largest gain.
        dynamic_range_db, top_db: range shown as 0 to 255, and the level shown as 255 in dB over reference tissue.
        noise_db: electronic noise before time-gain compensation, in dB over reference tissue.
        frame_rate_hz: frames a second.

    Raises InputError: a number is out of its range.
    """

    frequency_mhz: float = setting(7.5, at_least=1.0, at_most=20.0)
    geometry: Literal["linear", "curvilinear"] = "linear"
    elements: int = setting(192, at_least=16, at_most=1024)
    pitch_mm: float = setting(0.3, at_least=0.05, at_most=1.0)
    radius_mm: float = setting(60.0, at_least=5.0, at_most=200.0)
    field_angle_deg: float = setting(60.0, at_least=10.0, at_most=150.0)
    lens_focus_mm: float = setting(18.0, at_least=5.0, at_most=150.0)
    lens_height_mm: float = setting(5.0, at_least=1.0, at_most=30.0)
    elevational_factor: float = setting(1.0, at_least=0.2, at_most=5.0)
    f_number: float = setting(2.5, at_least=0.8, at_most=8.0)
    transmit_focus_mm: float = setting(20.0, at_least=2.0, at_most=300.0)
    lateral_widening: float = setting(0.008, at_least=0.0, at_most=0.1)
    pulse_cycles: float = setting(3.5, at_least=1.0, at_most=10.0)
    tgc_db_cm_mhz: float = setting(0.5, at_least=0.0, at_most=2.0)
    tgc_limit_db: float = setting(60.0, at_least=0.0, at_most=120.0)
    dynamic_range_db: float = setting(60.0, at_least=20.0, at_most=120.0)
    top_db: float = setting(18.0, at_least=-60.0, at_most=60.0)
    noise_db: float = setting(-85.0, at_least=-300.0, at_most=0.0)
    frame_rate_hz: float = setting(20.0, at_least=1.0, at_most=500.0)

    def __post_init__(self) -> None:
        check_settings(self, "The probe's")

    @classmethod
    def drawn(cls, random: np.random.Generator, geometry: str = "linear", **fixed: float) -> Probe:
        """A probe with random realistic numbers; those in `fixed` replace drawn ones."""
        curved = geometry == "curvilinear"
        frequency = random.uniform(2.5, 5.0) if curved else random.uniform(5.0, 10.0)
        drawn = {
            "frequency_mhz": frequency,
            "lens_focus_mm": random.uniform(40, 60) if curved else random.uniform(15, 25),
            "lens_height_mm": random.uniform(10, 13) if curved else random.uniform(4, 6),
            "transmit_focus_mm": random.uniform(40, 70) if curved else random.uniform(12, 28),
            "f_number": random.uniform(2.2, 3.5),
            "pulse_cycles": random.uniform(3.0, 5.0),
            "lateral_widening": random.uniform(0.006, 0.02),
            "tgc_db_cm_mhz": random.uniform(0.42, 0.55),
            "dynamic_range_db": random.uniform(48, 66),
            "top_db": random.uniform(14, 26),
            "noise_db": random.uniform(-95, -72),
        }
        return cls(geometry=geometry, **{**drawn, **{k: v for k, v in fixed.items() if v is not None}})

    @property
    def axial_sigma_mm(self) -> float:
        """Standard deviation of the two-way pulse along the beam, mm."""
        return self.pulse_cycles * SPEED_OF_SOUND / self.frequency_mhz / 2 / FULL_WIDTH

    @property
    def lens_f_number(self) -> float:
        """Focal length over height of the elevational lens."""
        return self.lens_focus_mm / self.lens_height_mm

    @property
    def focal_width_factor(self) -> float:
        """Elevational width at the lens focus, relative to that of a lens of f/3.6 at this frequency."""
        return self.elevational_factor * (self.lens_f_number / REFERENCE_F_NUMBER)

    @property
    def focal_elevational_sigma_mm(self) -> float:
        """Elevational standard deviation at the lens focus, mm; .42, .27, .21 at 5, 7.6, 10 MHz by default."""
        return self.elevational_factor * (_FOCAL_WIDTH / self.frequency_mhz * self.lens_f_number / REFERENCE_F_NUMBER)

    @property
    def focal_lateral_sigma_mm(self) -> float:
        """Lateral standard deviation at the transmit focus, mm: half-amplitude width of wavelength x f-number."""
        return SPEED_OF_SOUND / self.frequency_mhz * self.f_number / FULL_WIDTH

    def elevational_sigma_mm(self, depth_mm: np.ndarray | float) -> np.ndarray:
        """Elevational standard deviation at depths below the probe's face, mm: a hyperbola about the lens focus."""
        slope = _WIDENING * self.lens_height_mm / self.lens_focus_mm
        return np.hypot(self.focal_elevational_sigma_mm, slope * (np.asarray(depth_mm) - self.lens_focus_mm))

    def lateral_sigma_mm(self, depth_mm: np.ndarray | float) -> np.ndarray:
        """Lateral standard deviation at depths below the probe's face, mm."""
        return np.hypot(
            self.focal_lateral_sigma_mm, self.lateral_widening * (np.asarray(depth_mm) - self.transmit_focus_mm)
        )

    def gain_db(self, depth_mm: np.ndarray) -> np.ndarray:
        """Time-gain compensation at depths below the probe's face, dB."""
        return np.minimum(2 * self.frequency_mhz * self.tgc_db_cm_mhz * np.asarray(depth_mm) / 10, self.tgc_limit_db)

    def grey(self, level_db: np.ndarray) -> np.ndarray:
        """Grey values uint8 of echo levels in dB over reference tissue, after time-gain compensation."""
        grey = 255 + (level_db - self.top_db) * (255 / self.dynamic_range_db)
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
