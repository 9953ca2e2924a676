"""From sweeps of known length to a scanner profile: how many times longer they are than the model finds them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from DualTrackCore.corrections import profile as profiles
from DualTrackCore.corrections.profile import MeasuredSweep, Preset, Profile
from DualTrackCore.corrections.scale import COMPONENTS, factor_for, scaled
from DualTrackCore.corrections.solver import Distance
from DualTrackCore.errors import InputError, named
from DualTrackCore.progress import Reporter
from DualTrackCore.run import run
from DualTrackCore.run.pipeline import ModelSource, settings_model
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult

#: Pieces that a path is measured over, so that trembling of tracker or model from frame to frame is no way.
_PIECES = 16
#: Shortest sweep: 1 mm more or less of a ruler is 5 % of it.
_LEAST_MM = 20.0
#: Least part of a path that runs across the images.
_LEAST_ACROSS = 0.7
#: Parts of a sweep whose lengths are compared for its spread; of a slide between these parts of the way that was found.
_PARTS, _MOVING = 4, (0.05, 0.95)


def make_profile(
    name: str,
    sources: Sequence[Sweep | str | os.PathLike],
    settings: RunSettings,
    *,
    lengths_mm: Sequence[float] = (),
    latency_ms: float | None = None,
    reporter: Reporter | None = None,
    models: ModelSource = settings_model,
) -> Profile:
    """Measure the scale of a probe on sweeps of one preset, by the model's own paths of them.

    Args:
        name: of the profile.
        sources: one or more sweeps, as for :func:`~DualTrackCore.run.run`.
        settings: how they are read and tracked; what corrects or uses a path is left out.
        lengths_mm: of each sweep, or one of all; none for sweeps whose measured or simulated poses tell it.
        latency_ms: goes into the profile as it is.
        reporter, models: as for :func:`~DualTrackCore.run.run`.

    Raises:
        InputError: a name that is taken or cannot be, a sweep without a length, too short, along its images, or given
            twice, a factor out of range, sweeps of several presets, or ones that contradict each other.
        Cancelled: the caller asked to stop.
    """
    profiles.require_free(name)
    lengths, settings = _lengths_of(sources, lengths_mm), profiling(settings)
    models = functools.cache(models)
    found = []
    for number, (source, length) in enumerate(zip(sources, lengths, strict=True), 1):
        where = f"Sweep {number}" if isinstance(source, Sweep) else os.path.basename(os.path.normpath(source))
        result = run(source, settings, reporter, models=models)
        try:
            found.append(scale_of(result, length))
        except InputError as error:
            remedy = "" if length or result.sweep.truth else f" Or say how long it is: {named('lengths_mm')}."
            raise InputError(f"{where}: {error}{remedy}") from None
        one_preset(found, where)
    return profile_of(name, found, latency_ms)


def profiling(settings: RunSettings) -> RunSettings:
    """The run that measures the scale of a sweep: its path alone, by the model."""
    settings = replace(settings, profile=profiles.NO_PROFILE, poses="estimate")
    return replace(settings, reconstruct=False, evaluate=False, pictures=False)


class SweepScale(NamedTuple):
    """What a sweep says of the scale of a probe.

    Attributes:
        sweep: its length and factor.
        preset: what is known of the scanner.
        source: provenance of the path that was measured.
    """

    sweep: MeasuredSweep
    preset: Preset
    source: dict[str, Any]


def scale_of(result: RunResult, length_mm: float | None = None) -> SweepScale:
    """What the result of a run with the settings of :func:`profiling` says.

    Args:
        length_mm: of the sweep; None where its poses tell it.

    Raises InputError: as :func:`measured`, or nothing tells the length.
    """
    sweep = measured(result.trajectory, length_mm or result.sweep.require_truth())
    return SweepScale(sweep, Preset.of(result.sweep), dict(result.trajectory.provenance))


def profile_of(name: str, found: Sequence[SweepScale], latency_ms: float | None = None) -> Profile:
    """The profile of one or more sweeps. Raises InputError: they contradict each other, or are of several presets."""
    today, preset = date.today().isoformat(), one_preset(found)
    return Profile.of(name, found[-1].source, preset, [one.sweep for one in found], latency_ms=latency_ms, made=today)


def one_preset(found: Sequence[SweepScale], last: str = "The last sweep") -> Preset:
    """What is known of the scanner of sweeps. Raises InputError: that of the `last` contradicts those before it."""
    preset = Preset()
    for one in found:
        if unlike := one.preset.unlike(preset):
            raise InputError(
                f"{last} was recorded with another preset than the sweeps before it ({'; '.join(unlike)}); make a "
                "profile for each preset."
            )
        known = {key: value if value is not None else getattr(one.preset, key) for key, value in vars(preset).items()}
        preset = Preset(**known)
    return preset


def _lengths_of(sources: Sequence[Sweep | str | os.PathLike], lengths_mm: Sequence[float]) -> list[float | None]:
    """A length for each sweep, None for one that its poses tell."""
    named = [os.path.realpath(source) for source in sources if not isinstance(source, Sweep)]
    if twice := next((path for path in named if named.count(path) > 1), None):
        raise InputError(f"The sweep {os.path.basename(twice)} is given twice; each one counts once.")
    if len(lengths_mm) not in (0, 1, len(sources)):
        raise InputError(
            f"There are {len(sources)} sweeps and {len(lengths_mm)} lengths; give one for each or for all."
        )
    lengths = list(lengths_mm) * (len(sources) if len(lengths_mm) == 1 else 1)
    if bad := next((length for length in lengths if not 0 < length <= 10000), None):
        raise InputError(f"The length of a sweep is {bad:g} mm; expected above 0 and at most 10000.")
    return lengths or [None] * len(sources)


def measured(found: Trajectory, length: float | Trajectory) -> MeasuredSweep:
    """The factor of the elevational motion of an estimated path at which it has its length.

    The way is measured over 16 pieces. How far its quarters are from the true ones, or where only the length is known
    from those of an even slide, is its spread.

    Args:
        found: the path by the model.
        length: mm, or the true poses of the same frames.

    Raises InputError: too few poses, a path that is too short or runs along the images, or a factor out of range.
    """
    by_poses = isinstance(length, Trajectory)
    frames = np.flatnonzero(found.valid & length.valid if by_poses else found.valid)
    if len(frames) <= _PIECES:
        raise InputError(f"It has {len(frames)} frames with a pose, and a profile needs more than {_PIECES}.")
    knots = frames[np.linspace(0, len(frames) - 1, _PIECES + 1).round().astype(int)]
    motions, fixed = found.chosen(knots).parameters, np.zeros(_PIECES, bool)
    true = np.full(_PIECES, length / _PIECES) if not by_poses else _ways(length.chosen(knots).parameters)
    if true.sum() < _LEAST_MM:
        raise InputError(f"It is {true.sum():.3g} mm long, and a profile needs {_LEAST_MM:g} mm at least; go farther.")
    factor = factor_for(Distance(float(true.sum()), 1.0), motions, "elevational", fixed)
    whole = scaled(motions, factor, "elevational", fixed)
    across = np.abs(whole[:, COMPONENTS["elevational"][0]]).sum() / true.sum()
    if across < _LEAST_ACROSS:
        raise InputError(
            f"By the model only {across:.0%} of its way runs across the picture, and a profile needs "
            f"{_LEAST_ACROSS:.0%}; move the probe across its picture, straight and without turning it."
        )
    spread = _spread(true, _ways(whole), not by_poses)
    how = length.origin.value if by_poses else "told by the user"
    return MeasuredSweep(how, float(true.sum()), float(_ways(motions).sum()), factor, spread, len(found))


def _spread(true: np.ndarray, found: np.ndarray, is_slide: bool) -> float:
    """How far the logarithms of true and found lengths of quarters are apart, from lengths of pieces [n].

    A slide along a ruler counts from where the probe sets off to where it stops.
    """
    knots, (way, found_way) = np.arange(len(found) + 1), (np.insert(np.cumsum(ways), 0, 0) for ways in (true, found))
    ends = np.interp(np.array(_MOVING) * found_way[-1], found_way, knots) if is_slide else (0, len(found))
    at = np.linspace(*ends, _PARTS + 1)
    parts = [np.maximum(np.diff(np.interp(at, knots, one)), 1e-3) for one in (way, found_way)]
    return float(np.log(parts[0] / parts[1]).std(ddof=1))


def _ways(motions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(motions[:, :3], axis=1)
