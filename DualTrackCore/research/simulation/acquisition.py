"""Acquisition of a simulated clip: probe, scanner, view, motion, tissue, contact, tracker; and the ranges of training.

Effects of the probe and the tissue are rendered. Effects of the scanner are applied when frames are loaded
(:mod:`~DualTrackCore.research.simulation.scanner`), so that one rendered sweep serves many scanners. By default every
effect is off: frames are the same bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from DualTrackCore.research.simulation.motion import FAMILIES
from DualTrackCore.research.simulation.probe import REFERENCE_F_NUMBER, Probe
from DualTrackCore.settings import check_settings, setting


class _Checked:
    """A part of an acquisition, whose fields are checked when it is made."""

    def __post_init__(self) -> None:
        check_settings(self, f"The {type(self).__name__.lower()}'s")


@dataclass(frozen=True)
class Scanner(_Checked):
    """From echo levels to the picture; applied when frames are loaded.

    Attributes:
        persistence: weight a of the previous picture y in the next one, y = a y + (1 - a) x.
        averaged_frames: number of frames in a moving average.
        clutter_db: level of stationary clutter (speckle fixed in the image) at the probe's face, dB over reference
            tissue; None for none.
        clutter_depth_mm: depth over which its amplitude falls by a factor e.
        standoff_mm: thickness of an echo-free layer (water, gel) under the probe's face, without decay of clutter.
        dynamic_range_db, top_db: range shown as 0 to 255, and the level shown as 255; None: the probe's.
        gamma: exponent on grey values of 0 to 1.
        gain_curve_db: gain at evenly spaced depths of the picture, dB.
        noise_db: additional electronic noise before time-gain compensation, dB over reference tissue; None for none.
        compounding_angles: number of transmit angles of spatial compounding.
        speckle_filter_mm: standard deviation of the smoothing of the final picture.
    """

    persistence: float = setting(0.0, at_least=0.0, at_most=0.95)
    averaged_frames: int = setting(1, at_least=1, at_most=8)
    clutter_db: float | None = setting(None, at_least=-80.0, at_most=30.0)
    clutter_depth_mm: float = setting(5.0, at_least=0.5, at_most=100.0)
    standoff_mm: float = setting(0.0, at_least=0.0, at_most=60.0)
    dynamic_range_db: float | None = setting(None, at_least=20.0, at_most=120.0)
    top_db: float | None = setting(None, at_least=-60.0, at_most=60.0)
    gamma: float = setting(1.0, at_least=0.2, at_most=5.0)
    gain_curve_db: tuple[float, ...] = setting((), at_least=-30.0, at_most=30.0)
    noise_db: float | None = setting(None, at_least=-300.0, at_most=0.0)
    compounding_angles: int = setting(1, at_least=1, at_most=15)
    speckle_filter_mm: float = setting(0.0, at_least=0.0, at_most=5.0)


@dataclass(frozen=True)
class View(_Checked):
    """The field of view of a clip.

    Attributes:
        depth_mm, width_mm: of the picture; rendered.
        magnification: factor on the size of the tissue in the picture; rendered.
        border_mm: width of black borders at the left and the right; at loading.
        overlay: whether burned-in marks cover parts of the left and right borders; at loading.
    """

    depth_mm: float = setting(32.0, at_least=10.0, at_most=300.0)
    width_mm: float = setting(40.0, at_least=10.0, at_most=300.0)
    magnification: float = setting(1.0, at_least=0.3, at_most=3.0)
    border_mm: tuple[float, float] = setting((0.0, 0.0), at_least=0.0, at_most=50.0)
    overlay: bool = False


@dataclass(frozen=True)
class Motion(_Checked):
    """How the hand moves, and which frames are kept.

    Attributes:
        family: path of the probe, one of :data:`~DualTrackCore.research.simulation.motion.FAMILIES`.
        step_mm: mean step from one rendered frame to the next.
        tremor, wander, jerks_hz: see :func:`~DualTrackCore.research.simulation.motion.probe_trajectory`; rendered.
        skip: every `skip`-th frame is kept; at loading.
        repeated, lost: parts of the frames that repeat the one before, or are missing; at loading.
    """

    family: str = "Per_L_DtP"
    step_mm: float = setting(0.36, at_least=0.0, at_most=5.0)
    tremor: float = setting(1.0, at_least=0.0, at_most=20.0)
    wander: float = setting(1.0, at_least=0.0, at_most=20.0)
    jerks_hz: float = setting(0.0, at_least=0.0, at_most=5.0)
    skip: int = setting(1, at_least=1, at_most=10)
    repeated: float = setting(0.0, at_least=0.0, at_most=0.5)
    lost: float = setting(0.0, at_least=0.0, at_most=0.5)


@dataclass(frozen=True)
class Tissue(_Checked):
    """Tissue other than fully developed speckle; rendered.

    Attributes:
        coherent_part: part of the area, 0 to 1, with few scatterers per resolution cell.
        scatterers_per_cell: their mean number in the narrowest beam's cell; at 10 speckle is nearly fully developed.
        fibre_mm: length (full width at half maximum) of bright fibres along the limb; 0 for none.
        bone: whether a bone with its shadow is added to the anatomy.
    """

    coherent_part: float = setting(0.0, at_least=0.0, at_most=1.0)
    scatterers_per_cell: float = setting(5.0, at_least=0.2, at_most=100.0)
    fibre_mm: float = setting(0.0, at_least=0.0, at_most=100.0)
    bone: bool = False


@dataclass(frozen=True)
class Contact(_Checked):
    """Deformation of the tissue by the probe; rendered.

    Attributes:
        compression: largest strain along the beam; it changes slowly during the sweep, from 0 to this.
        drag_mm: largest displacement of the skin before it slides back; it decreases with depth.
    """

    compression: float = setting(0.0, at_least=0.0, at_most=0.2)
    drag_mm: float = setting(0.0, at_least=0.0, at_most=10.0)


@dataclass(frozen=True)
class Tracker(_Checked):
    """Errors of the poses that go with recorded training data.

    Attributes:
        noise_mm, noise_deg: standard deviation of each pose's position and rotation.
        latency_s: delay of a pose relative to its frame.
    """

    noise_mm: float = setting(0.0, at_least=0.0, at_most=5.0)
    noise_deg: float = setting(0.0, at_least=0.0, at_most=5.0)
    latency_s: float = setting(0.0, at_least=-1.0, at_most=1.0)


@dataclass(frozen=True)
class Acquisition:
    """One way to acquire a clip; the default is a linear probe with every effect off.

    Attributes:
        probe, scanner, view, motion, tissue, contact, tracker: see their classes.
        plain: whether the effects at loading stay as they are, see :meth:`rescanned`.
    """

    probe: Probe = field(default_factory=Probe)
    scanner: Scanner = field(default_factory=Scanner)
    view: View = field(default_factory=View)
    motion: Motion = field(default_factory=Motion)
    tissue: Tissue = field(default_factory=Tissue)
    contact: Contact = field(default_factory=Contact)
    tracker: Tracker = field(default_factory=Tracker)
    plain: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for provenance."""
        return asdict(self)

    @classmethod
    def of_seed(cls, seed: int, held_out: str | None = None) -> Acquisition:
        """The acquisition drawn with a seed; `held_out` as for :meth:`drawn`."""
        return cls.drawn(np.random.default_rng([seed, 0xAC91]), held_out)

    @classmethod
    def plain_of_seed(cls, seed: int) -> Acquisition:
        """A linear probe of 5 to 10 MHz with every effect off, such as `simulated_sweep` draws."""
        random = np.random.default_rng([seed, 0xAC92])
        family = FAMILIES[seed % len(FAMILIES)]
        step = float(np.clip(random.normal(0.36, 0.11), 0.08, 0.65))
        probe = Probe.drawn(random, elements=192, pitch_mm=40 / 192)
        return cls(probe=probe, view=View(), motion=Motion(family=family, step_mm=step), plain=True)

    @classmethod
    def drawn(cls, random: np.random.Generator, held_out: str | None = None) -> Acquisition:
        """An acquisition drawn from the ranges of training.

        Args:
            random: source of the numbers.
            held_out: a kind of :data:`HELD_OUT`, with values that training never draws; None for a training one.

        Raises KeyError: no such kind.
        """
        probe, view = _drawn_probe(random)
        if random.random() < 0.7:
            view = replace(view, magnification=_log_uniform(random, *RANGES["view.magnification"]))
        motion = Motion(
            family=FAMILIES[random.integers(len(FAMILIES))], step_mm=_log_uniform(random, *RANGES["motion.step_mm"])
        )
        own = cls(probe=probe, view=view, motion=motion, tissue=_drawn_tissue(random), contact=_drawn_contact(random))
        own = own.rescanned(random, held_out)
        own = own if held_out is None else HELD_OUT[held_out](own, random)
        own = replace(own, probe=_with_lens(own.probe, _log_uniform(random, *RANGES["probe.lens_f_number"])))
        return replace(own, motion=_unsteady(own.motion, random))

    def rescanned(self, random: np.random.Generator, held_out: str | None = None) -> Acquisition:
        """A copy with newly drawn effects at loading (scanner, borders, kept frames); unchanged if it is plain."""
        if self.plain:
            return self
        view = replace(
            self.view,
            border_mm=tuple(random.uniform(0, 8, 2).tolist()) if random.random() < 0.25 else (0.0, 0.0),
            overlay=bool(random.random() < 0.3),
        )
        skips = [skip for skip in (1, 2, 3) if skip == 1 or skip * self.motion.step_mm <= RANGES["motion.step_mm"][1]]
        motion = replace(
            self.motion,
            skip=int(random.choice(skips)) if random.random() < 0.5 else 1,
            repeated=random.uniform(*RANGES["motion.repeated"]) if random.random() < 0.1 else 0.0,
            lost=random.uniform(*RANGES["motion.lost"]) if random.random() < 0.2 else 0.0,
        )
        scanner = _drawn_scanner(random)
        if held_out == "persistence":
            scanner = replace(scanner, persistence=random.uniform(*_KEPT_PERSISTENCE), averaged_frames=1)
        return replace(self, view=view, motion=motion, scanner=scanner)


#: Ranges of training: smallest and largest value.
RANGES: dict[str, tuple[float, float]] = {
    "probe.frequency_mhz": (2.0, 15.0),
    "probe.radius_mm": (10.0, 65.0),
    "probe.field_angle_deg": (50.0, 90.0),
    "probe.focal_width_factor": (0.7, 3.0),
    "probe.lens_focus_mm": (10.0, 60.0),
    "probe.lens_f_number": (2.5, 7.0),
    "view.depth_mm": (30.0, 160.0),
    "view.width_mm": (30.0, 110.0),
    "view.magnification": (0.7, 1.4),
    "motion.step_mm": (0.05, 1.6),
    "motion.tremor": (0.5, 6.0),
    "motion.wander": (0.7, 4.0),
    "motion.jerks_hz": (0.05, 0.4),
    "motion.repeated": (0.02, 0.1),
    "motion.lost": (0.02, 0.1),
    "scanner.persistence": (0.0, 0.7),
    "scanner.averaged_frames": (2, 4),
    "scanner.clutter_db": (-30.0, 3.0),
    "scanner.clutter_depth_mm": (2.0, 25.0),
    "scanner.standoff_mm": (0.0, 25.0),
    "scanner.dynamic_range_db": (40.0, 100.0),
    "scanner.top_db": (5.0, 35.0),
    "scanner.gamma": (0.6, 1.6),
    "scanner.gain_curve_db": (-8.0, 8.0),
    "scanner.noise_db": (-95.0, -40.0),
    "scanner.compounding_angles": (1, 5),
    "tissue.coherent_part": (0.0, 0.6),
    "tissue.scatterers_per_cell": (0.5, 10.0),
    "tissue.fibre_mm": (2.0, 15.0),
    "contact.compression": (0.0, 0.05),
    "contact.drag_mm": (0.0, 1.0),
}
#: Largest tremor of a mm of step.
_TREMOR_OF_STEP = 11.0
#: Lens heights that are built, mm.
_LENS_HEIGHTS_MM = (1.5, 24.0)
#: Held out from training, for tests on new kinds of sweeps: persistence; frequency (MHz) and radius (mm) of a probe;
#: length of fibres (mm).
_KEPT_PERSISTENCE, _KEPT_FREQUENCY, _KEPT_RADIUS, _KEPT_FIBRE = (0.45, 0.55), (8.0, 9.0), (30.0, 36.0), (6.0, 9.0)


def _kept_probe(own: Acquisition, random: np.random.Generator) -> Acquisition:
    if own.probe.geometry == "linear":
        return replace(own, probe=replace(own.probe, frequency_mhz=random.uniform(*_KEPT_FREQUENCY)))
    return replace(own, probe=replace(own.probe, radius_mm=random.uniform(*_KEPT_RADIUS)))


def _kept_tissue(own: Acquisition, random: np.random.Generator) -> Acquisition:
    part = random.uniform(0.2, RANGES["tissue.coherent_part"][1])
    return replace(own, tissue=replace(own.tissue, coherent_part=part, fibre_mm=random.uniform(*_KEPT_FIBRE)))


#: Kinds of acquisitions that training never draws: names, and functions that change an acquisition into one.
HELD_OUT = {"probe": _kept_probe, "persistence": lambda own, random: own, "tissue": _kept_tissue}


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _outside(random: np.random.Generator, draw: Any, kept: tuple[float, float]) -> float:
    """A number from `draw` outside the range of held-out acquisitions."""
    while True:
        value = float(draw(random))
        if not kept[0] <= value <= kept[1]:
            return value


def _drawn_probe(random: np.random.Generator) -> tuple[Probe, View]:
    """A probe and its view; half of them are linear, half curvilinear."""
    curved = bool(random.random() < 0.5)
    focus = random.uniform(*RANGES["probe.lens_focus_mm"])
    shared = {
        "lens_focus_mm": focus,
        "elevational_factor": _log_uniform(random, *RANGES["probe.focal_width_factor"]),
        "noise_db": -95.0,
    }
    if not curved:
        frequency = _outside(random, lambda r: r.uniform(4.0, RANGES["probe.frequency_mhz"][1]), _KEPT_FREQUENCY)
        depth, width = max(30.0, min(_log_uniform(random, 30, 70), 420 / frequency)), random.uniform(30, 52)
        fixed = {"frequency_mhz": frequency, "elements": 192, "pitch_mm": width / 192, **shared}
        return Probe.drawn(random, "linear", **fixed), View(depth_mm=depth, width_mm=width)
    frequency = random.uniform(RANGES["probe.frequency_mhz"][0], 7.0)
    radius = _outside(random, lambda r: r.uniform(*RANGES["probe.radius_mm"]), _KEPT_RADIUS)
    angle = random.uniform(*RANGES["probe.field_angle_deg"])
    depth = min(_log_uniform(random, 40, RANGES["view.depth_mm"][1]), 600 / frequency)
    half = np.deg2rad(angle) / 2
    width = float(np.clip(2 * (radius + depth) * np.sin(half), 40, 110))
    fixed = {"frequency_mhz": frequency, "radius_mm": radius, "field_angle_deg": angle, "elements": 96, **shared}
    return Probe.drawn(random, "curvilinear", **fixed), View(depth_mm=depth, width_mm=width)


def _unsteady(motion: Motion, random: np.random.Generator) -> Motion:
    """The motion with a drawn tremor, of at most half of the step or so, and wander; 30 % have jerks."""
    low, high = RANGES["motion.tremor"]
    tremor = _log_uniform(random, low, max(low, min(high, _TREMOR_OF_STEP * motion.step_mm)))
    wander = _log_uniform(random, *RANGES["motion.wander"])
    jerks = random.uniform(*RANGES["motion.jerks_hz"]) if random.random() < 0.3 else 0.0
    return replace(motion, tremor=tremor, wander=wander, jerks_hz=jerks)


def _with_lens(probe: Probe, f_number: float) -> Probe:
    """The probe with a lens of this f-number: the beam is as wide as before where it is narrowest, but widens by it."""
    height = float(np.clip(probe.lens_focus_mm / f_number, *_LENS_HEIGHTS_MM))
    other = replace(probe, lens_height_mm=height)
    return replace(other, elevational_factor=probe.elevational_factor * REFERENCE_F_NUMBER / other.lens_f_number)


def _drawn_scanner(random: np.random.Generator) -> Scanner:
    """A scanner: 70 % have persistence or averaging, 60 % stationary clutter."""
    values: dict[str, Any] = {}
    if random.random() < 0.7:
        if random.random() < 0.7:
            values["persistence"] = _outside(
                random, lambda r: r.uniform(*RANGES["scanner.persistence"]), _KEPT_PERSISTENCE
            )
        else:
            values["averaged_frames"] = int(random.integers(2, 5))
    if random.random() < 0.6:
        values["clutter_db"] = random.uniform(*RANGES["scanner.clutter_db"])
        values["clutter_depth_mm"] = _log_uniform(random, *RANGES["scanner.clutter_depth_mm"])
    if random.random() < 0.25:
        values["standoff_mm"] = random.uniform(*RANGES["scanner.standoff_mm"])
    if random.random() < 0.3:
        values["noise_db"] = random.uniform(*RANGES["scanner.noise_db"])
    if random.random() < 0.6:
        values["gain_curve_db"] = tuple(random.uniform(*RANGES["scanner.gain_curve_db"], size=5).tolist())
    if random.random() < 0.4:
        values["compounding_angles"] = int(random.integers(2, 6))
    if random.random() < 0.7:  # resampling a finer picture to the model's spacing also smooths it
        values["speckle_filter_mm"] = random.uniform(0.05, 0.3)
    return Scanner(
        dynamic_range_db=random.uniform(*RANGES["scanner.dynamic_range_db"]),
        top_db=random.uniform(*RANGES["scanner.top_db"]),
        gamma=_log_uniform(random, *RANGES["scanner.gamma"]),
        **values,
    )


def _drawn_tissue(random: np.random.Generator) -> Tissue:
    fibre = _outside(random, lambda r: r.uniform(*RANGES["tissue.fibre_mm"]), _KEPT_FIBRE)
    return Tissue(
        coherent_part=random.uniform(*RANGES["tissue.coherent_part"]) if random.random() < 0.5 else 0.0,
        scatterers_per_cell=_log_uniform(random, *RANGES["tissue.scatterers_per_cell"]),
        fibre_mm=fibre if random.random() < 0.4 else 0.0,
        bone=bool(random.random() < 0.3),
    )


def _drawn_contact(random: np.random.Generator) -> Contact:
    pressed, dragged = random.random(2) < 0.5
    return Contact(
        compression=random.uniform(*RANGES["contact.compression"]) if pressed else 0.0,
        drag_mm=random.uniform(*RANGES["contact.drag_mm"]) if dragged else 0.0,
    )
