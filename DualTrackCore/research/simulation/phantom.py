"""A phantom: anatomy (layers, vessels, fascia, bone) and its scatterers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.research.simulation.speckle import SIDE, speckle_fields

_Array = np.ndarray
#: Step and end of the table of layers, mm.
_TABLE_STEP_MM, _TABLE_END_MM = 0.1, 320.0
#: Side of the periodic texture volume in samples, and size of a sample along, across and in depth, mm.
_TEXTURE_SIDE = 32
_TEXTURE_SAMPLE_MM = np.array([4.0, 1.3, 0.8], np.float32)
#: Taper of the limb: part of its width per mm; a forearm loses a third over 120 mm.
_TAPER_PER_MM = (0.002, 0.006)
#: Increase of the echo level below the fat in the distal direction, from muscle to tendon: dB per mm, and its limit.
_TENDON_DB_PER_MM, _TENDON_LIMIT_DB = (0.06, 0.14), 7.0
#: Smallest and largest width of the limb as a part of that at its middle.
_WIDTH_LIMITS = (0.35, 2.5)
_TISSUE_ATTENUATION, _FLUID_ATTENUATION, _BONE_ATTENUATION = 0.5, 0.08, 14.0


@dataclass(frozen=True)
class _Tube:
    """A vessel: a slowly curving centre line, from `start` on; before it the tube is closed."""

    across: float
    depth: float
    slope: tuple[float, float]
    wander: tuple[float, float, float]
    radius: float
    start: float
    wall_db: float

    def may_touch(self, along: tuple[float, float], across: tuple[float, float], depth: tuple[float, float]) -> bool:
        """Whether the tube may come within 1 mm of a box given by its ranges, mm; fast, and true in case of doubt."""
        if along[1] < self.start - self.radius - 1:
            return False
        ends = np.clip(along, self.start, None) - (self.start if np.isfinite(self.start) else 0.0)
        margin = self.radius + 1 + self.wander[0]
        for (low, high), place, slope in ((across, self.across, self.slope[0]), (depth, self.depth, self.slope[1])):
            centres = place + slope * ends
            if centres.max() + margin < low or centres.min() - margin > high:
                return False
        return True

    def distance(self, along: np.ndarray, across: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Distance from the wall, mm; negative inside."""
        amplitude, frequency, phase = self.wander
        beyond = along - self.start
        sway = amplitude * np.sin(frequency * along + phase)
        reach = np.maximum(beyond, 0) if np.isfinite(self.start) else along
        aside = across - self.across - self.slope[0] * reach - sway
        below = depth - self.depth - self.slope[1] * reach - 0.4 * sway
        radial = np.sqrt(aside * aside + below * below)
        closed = np.maximum(-beyond, 0) if np.isfinite(self.start) else 0.0
        return radial + closed - self.radius


@dataclass(frozen=True)
class _Ball:
    """A cyst (dark, hardly attenuating) or a nodule."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    echo_db: float
    attenuation: float


class Anatomy:
    """One limb, drawn from a seed.

    Args:
        seed: equal seeds give equal limbs.
        scale_mm: depth that the structures should fill, mm.
        reach_mm: structures lie between -reach_mm and reach_mm along the limb.
        further_bone: whether to add a bone near the middle of the picture.
    """

    def __init__(self, seed: int, scale_mm: float = 40.0, reach_mm: float = 200.0, further_bone: bool = False) -> None:
        random = np.random.default_rng([seed, 0xA7A7])
        lengthwise = np.random.default_rng([seed, 0x7A9E])
        self._taper = np.float32(lengthwise.uniform(*_TAPER_PER_MM))
        self._tendon_db_per_mm = np.float32(lengthwise.uniform(*_TENDON_DB_PER_MM))
        self._layers_db, self._fat_mm = _layer_table(random, scale_mm)
        self._texture = texture(random)
        self._texture_db = random.uniform(2.5, 5.0)
        self._waves = _waves(random, scale_mm)
        self._tubes = _vessels(random, scale_mm, reach_mm)
        self._balls = _balls(random, scale_mm, reach_mm)
        self._bone = _bone(random, scale_mm)
        if further_bone:
            self._bone.append(_bone_in_view(np.random.default_rng([seed, 0xB07E]), scale_mm))

    def tissue(self, along: np.ndarray, across: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Echo level and attenuation at places, mm.

        Args:
            along, across, depth: float32 arrays of one shape.

        Returns:
            Echo level in dB over reference tissue and attenuation in dB/cm/MHz, float32 of that shape.
        """
        # The limb is a cylinder in coordinates that are scaled along it; so it tapers.
        width = np.clip(1 - self._taper * along, *_WIDTH_LIMITS)
        across, depth = across / width, depth / width
        bend = np.zeros_like(depth)
        for amplitude, ku, kv, phase in self._waves:
            bend += amplitude * np.sin(ku * along + kv * across + phase)
        bent = depth + bend * np.clip(depth / 8, 0, 1)
        row = np.clip(bent * (1 / _TABLE_STEP_MM), 0, len(self._layers_db) - 1).astype(np.int64)
        echo = self._layers_db.take(row)
        echo += self._texture_db * read_texture(self._texture, _TEXTURE_SAMPLE_MM, along, across, bent)
        rise = np.clip(self._tendon_db_per_mm * along, -_TENDON_LIMIT_DB, _TENDON_LIMIT_DB)
        echo += rise * np.clip((bent - self._fat_mm) / 2, 0, 1)
        attenuation = np.full(echo.shape, _TISSUE_ATTENUATION, np.float32)
        self._put_balls(echo, attenuation, along, across, depth)
        self._put_vessels(echo, attenuation, along, across, depth)
        self._put_bone(echo, attenuation, along, across, depth)
        return echo, attenuation

    def _put_vessels(self, echo: _Array, attenuation: _Array, along: _Array, across: _Array, depth: _Array) -> None:
        box = [(float(place.min()), float(place.max())) for place in (along, across, depth)]
        tubes = [tube for tube in self._tubes if tube.may_touch(*box)]
        if not tubes:
            return
        distance = functools.reduce(np.minimum, (tube.distance(along, across, depth) for tube in tubes))
        wall_db = max(0.0, *(tube.wall_db for tube in tubes))
        # Walls are computed from the union of the tubes, so that none crosses the lumen of another.
        inside = np.clip(0.5 - distance / 0.35, 0, 1)
        echo += wall_db * np.exp(-(((distance - 0.3) / 0.4) ** 2))
        echo -= (42 + echo) * inside
        attenuation += (_FLUID_ATTENUATION - attenuation) * inside

    def _put_balls(self, echo: _Array, attenuation: _Array, along: _Array, across: _Array, depth: _Array) -> None:
        low, high = along.min(), along.max()
        for ball in self._balls:
            (u, v, d), (a, b, c) = ball.centre, ball.radii
            if not low - a < u < high + a:
                continue
            radial = np.sqrt(((along - u) / a) ** 2 + ((across - v) / b) ** 2 + ((depth - d) / c) ** 2)
            inside = np.clip(0.5 + (1 - radial) * (min(ball.radii) / 0.4), 0, 1)
            echo += (ball.echo_db - echo) * inside if ball.echo_db < -20 else ball.echo_db * inside
            attenuation += (ball.attenuation - attenuation) * inside

    def _put_bone(self, echo: _Array, attenuation: _Array, along: _Array, across: _Array, depth: _Array) -> None:
        for v, d, slope_v, slope_d, radius, amplitude, frequency, phase in self._bone:
            sway = amplitude * np.sin(frequency * along + phase)
            aside, rise = across - v - slope_v * along - sway, (depth - d - slope_d * along) * 1.15
            radial = np.sqrt(aside * aside + rise * rise)
            if radial.min() > radius + 2:
                continue
            below = radius - radial
            facing = np.clip((d + slope_d * along - depth) / radius + 0.15, 0, 1)
            inside = np.clip(below / 0.4, 0, 1)
            echo -= (14 + echo) * inside
            echo += np.where(np.abs(below) < 2, 36 * np.exp(-((below / 0.55) ** 2)) * facing, 0)
            attenuation += (_BONE_ATTENUATION - attenuation) * inside


def texture(random: np.random.Generator, smoothness: float = 0.8) -> np.ndarray:
    """Periodic smooth noise of standard deviation 1, [side, side, side] float32; smoothness in samples."""
    noise = np.fft.fftn(random.normal(size=(_TEXTURE_SIDE,) * 3))
    cycles = np.fft.fftfreq(_TEXTURE_SIDE)
    squared = cycles[:, None, None] ** 2 + cycles[None, :, None] ** 2 + cycles[None, None, :] ** 2
    smooth = np.fft.ifftn(noise * np.exp(-2 * np.pi**2 * squared * smoothness**2)).real
    return (smooth / smooth.std()).astype(np.float32)


def read_texture(
    texture: np.ndarray, sample_mm: np.ndarray, along: np.ndarray, across: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Values of a texture at places along the limb, across it and below the skin, mm; `sample_mm` [3] in that order."""
    mask, side = _TEXTURE_SIDE - 1, _TEXTURE_SIDE
    # The grid is oblique to the limb, so that the texture does not repeat along it.
    place_u = (along + 0.37 * across) / sample_mm[0]
    place_v = (across + 0.21 * along) / sample_mm[1]
    place_d = (depth + 0.11 * along) / sample_mm[2]
    parts = []
    for place in (place_u, place_v, place_d):
        low = np.floor(place)
        index = low.astype(np.int64)
        parts.append((index & mask, (index + 1) & mask, (place - low).astype(np.float32)))
    (u0, u1, fu), (v0, v1, fv), (d0, d1, fd) = parts
    flat, total = texture.reshape(-1), np.zeros(along.shape, np.float32)
    for u, wu in ((u0, 1 - fu), (u1, fu)):
        for v, wv in ((v0, 1 - fv), (v1, fv)):
            index, weight = (u * side + v) * side, wu * wv
            near, far = flat.take(index + d0), flat.take(index + d1)
            total += weight * (near + fd * (far - near))
    return total


def _layer_table(random: np.random.Generator, scale_mm: float) -> tuple[np.ndarray, float]:
    """Echo level against depth, dB (skin, fat, muscles, fasciae between them), and the depth where the fat ends, mm."""
    depth = np.arange(0, _TABLE_END_MM, _TABLE_STEP_MM)
    grain = np.convolve(random.normal(size=depth.size + 40), np.hanning(9) / 2, "same")[: depth.size]
    level = np.zeros(depth.size)
    skin = random.uniform(1.2, 2.2)
    edges, top = [], skin
    while top < _TABLE_END_MM:
        thickness = random.uniform(0.08, 0.3) * scale_mm
        is_fat = not edges or random.random() < 0.2
        part = (depth >= top) & (depth < top + thickness)
        level[part] = random.uniform(-15, -6) if is_fat else random.uniform(-10, 1)
        level[part] += grain[part] * (0.8 if is_fat else 1.8)
        edges.append(top)
        top += thickness
    level[depth < skin] = random.uniform(4, 9)
    for edge in edges:
        level += random.uniform(4, 15) * np.exp(-(((depth - edge) / random.uniform(0.2, 0.45)) ** 2))
    return level.astype(np.float32), edges[1]


def _waves(random: np.random.Generator, scale_mm: float) -> list[tuple[float, float, float, float]]:
    """Plane waves that bend the layers: amplitude in mm, wave numbers along and across in 1/mm, phase."""
    waves = []
    for _ in range(4):
        number = 2 * np.pi / random.uniform(25, 90)
        heading = random.uniform(0, np.pi)
        amplitude = random.uniform(0.3, 1.3) * scale_mm / 40
        ku, kv = float(number * np.cos(heading)), float(number * np.sin(heading))
        waves.append((amplitude, ku, kv, random.uniform(0, 2 * np.pi)))
    return waves


def _vessels(random: np.random.Generator, scale_mm: float, reach_mm: float) -> list[_Tube]:
    """Trunks through the whole limb, each with several branches."""
    tubes = []
    for _ in range(random.integers(2, 5)):
        wander = (random.uniform(0.3, 2.0), 2 * np.pi / random.uniform(40, 120), random.uniform(0, 2 * np.pi))
        radius, wall = random.uniform(0.02, 0.07) * scale_mm, random.uniform(2, 9)
        across, depth = random.uniform(-0.45, 0.45) * scale_mm, random.uniform(0.15, 0.7) * scale_mm
        slope = (random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05))
        tubes.append(_Tube(across, depth, slope, wander, radius, -np.inf, wall))
        start = -reach_mm + random.uniform(0, 60)
        while start < reach_mm:
            fork = (across + slope[0] * start, depth + slope[1] * start)
            aside = (float(random.choice([-1, 1])) * random.uniform(0.15, 0.6), random.uniform(-0.25, 0.25))
            tubes.append(_Tube(*fork, aside, wander, radius * random.uniform(0.5, 0.85), start, wall))
            start += random.uniform(25, 90)
    return tubes


def _balls(random: np.random.Generator, scale_mm: float, reach_mm: float) -> list[_Ball]:
    """One cyst or nodule per 12 mm of the limb."""
    balls = []
    for _ in range(int(reach_mm / 6)):
        centre = (
            random.uniform(-reach_mm, reach_mm),
            random.uniform(-0.6, 0.6) * scale_mm,
            random.uniform(0.12, 0.9) * scale_mm,
        )
        radii = tuple((random.uniform(0.02, 0.09) * scale_mm * random.uniform(0.7, 1.4, 3)).tolist())
        is_cyst = random.random() < 0.4
        echo = random.uniform(-45, -30) if is_cyst else random.uniform(-9, 9)
        balls.append(_Ball(centre, radii, echo, _FLUID_ATTENUATION if is_cyst else random.uniform(0.4, 0.7)))
    return balls


def _bone(random: np.random.Generator, scale_mm: float) -> list[tuple[float, ...]]:
    """0 to 2 shafts: across, depth, their slopes, radius, and amplitude, wave number and phase of a curve."""
    shafts = []
    for _ in range(random.choice([0, 1, 2], p=[0.25, 0.5, 0.25])):
        radius = random.uniform(0.12, 0.25) * scale_mm
        depth = random.uniform(0.5, 0.85) * scale_mm + radius * 0.5
        across = random.uniform(-0.55, 0.55) * scale_mm
        slopes = random.uniform(-0.04, 0.04, 2).tolist()
        sway = (random.uniform(0, 1.2), 2 * np.pi / random.uniform(30, 80), random.uniform(0, 2 * np.pi))
        shafts.append((across, depth, *slopes, radius, *sway))
    return shafts


def _bone_in_view(random: np.random.Generator, scale_mm: float) -> tuple[float, ...]:
    """A shaft under the origin, in the picture for every direction of the limb; values as in :func:`_bone`."""
    radius = random.uniform(0.1, 0.25) * scale_mm
    across, depth = random.uniform(-0.7, 0.7) * radius, random.uniform(0.4, 0.7) * scale_mm + radius
    slopes = random.uniform(-0.02, 0.02, 2).tolist()
    sway = (random.uniform(0, 0.25) * radius, 2 * np.pi / random.uniform(30, 80), random.uniform(0, 2 * np.pi))
    return (across, depth, *slopes, radius, *sway)


@dataclass(frozen=True)
class Phantom:
    """Tissue under a flat skin; equal numbers give equal phantoms, in every process.

    Coordinates are x and z along the skin and y below it, mm.

    Attributes:
        seed: of the anatomy and its place in the speckle.
        speckle_seed: of the speckle, which takes seconds and about 100 MB; None: `seed`.
        scale_mm: depth that the structures should fill.
        heading_deg: direction of the limb along the skin, from proximal to distal: 0 along z, 90 along x.
        homogeneous: one echo level and attenuation everywhere, without anatomy, to measure the beam.
        further_bone: whether to add a bone under the origin.

    Raises InputError: a number is out of its range.
    """

    seed: int
    speckle_seed: int | None = None
    scale_mm: float = 40.0
    heading_deg: float = 0.0
    homogeneous: bool = False
    further_bone: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "speckle_seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"The phantom's {name} is {value}; it must be 0 or more.")
        if not 5 <= self.scale_mm <= 300:
            raise InputError(f"The phantom's scale_mm is {self.scale_mm}; it must lie between 5 and 300.")

    def __getstate__(self) -> dict[str, object]:
        """The fields only; everything else is computed again from them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def fields(self) -> np.ndarray:
        """The complex speckle, see :func:`~DualTrackCore.research.simulation.speckle.speckle_fields`."""
        return speckle_fields(self.seed if self.speckle_seed is None else self.speckle_seed)

    @functools.cached_property
    def speckle_place(self) -> np.ndarray:
        """[3] place of the origin on the speckle's grid, samples; it differs between phantoms of one speckle seed."""
        return np.random.default_rng([self.seed, 0x0FF5]).uniform(0, SIDE, 3)

    @functools.cached_property
    def anatomy(self) -> Anatomy:
        """The structures."""
        return Anatomy(self.seed, self.scale_mm, further_bone=self.further_bone)

    @property
    def limb_direction(self) -> tuple[np.float32, np.float32]:
        """(x, z) of the limb's direction along the skin, from proximal to distal."""
        heading = np.deg2rad(self.heading_deg)
        return np.float32(np.sin(heading)), np.float32(np.cos(heading))

    def tissue(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Echo level (dB over reference tissue) and attenuation (dB/cm/MHz) at places in mm; float32 of one shape."""
        if self.homogeneous:
            return np.zeros(x.shape, np.float32), np.full(x.shape, 0.5, np.float32)
        sine, cosine = self.limb_direction
        return self.anatomy.tissue(sine * x + cosine * z, cosine * x - sine * z, y)
