"""Scanner profiles: the scale of the elevational motion for one probe and preset, in small files of the user.

How far apart speckle looks depends on the width of the beam, which no network sees: its elevational motion is off by
one factor for each probe and preset. A profile holds that factor for one set of weights, and for what it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore import __version__
from DualTrackCore.corrections import AUTO, NO_PROFILE
from DualTrackCore.corrections.entries import PROFILE_KIND
from DualTrackCore.corrections.knowledge import KnownScale
from DualTrackCore.corrections.scale import LEAST, LEAST_PLAIN, MOST, MOST_PLAIN
from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import plain_values, read_yaml, replacing
from DualTrackCore.io.sequence_parts import scanner_facts
from DualTrackCore.network.catalogue import MODEL_NAME, models_folder, profile_paths
from DualTrackCore.path_error import CORRECTIONS
from DualTrackCore.settings import build, check_settings, setting, setting_of, short_list, short_text
from DualTrackCore.sweep import Sweep

#: Of the files.
FORMAT = 1
#: How many times larger than the other a value may be so that two presets are alike.
ALIKE = {"frequency_mhz": 1.1, "depth_mm": 1.15, "spacing_mm": 1.15, "frame_rate_hz": 1.25}
#: What facts are called, for people.
_WORDS = {"device": "scanner", "transducer": "probe", "frame_rate_hz": "frame rate", "spacing_mm": "pixel size"}
#: Facts by which a profile is chosen for a clip; one of the first two must be known of both.
_NAMES = ("device", "transducer")
_CHOOSING = (*_NAMES, "frequency_mhz", "depth_mm")
#: Least spread, of one sweep and of several: a ruler is read, and a slide begun and ended, no better.
LEAST_SPREAD = 0.05
#: How many times the smallest factor of the sweeps of a profile the largest may be.
_MOST_APART = 1.5
#: More frames a second than any scanner shows.
_MOST_HZ = 1e5


def _limits(unit: str, most: float = 1000) -> dict[str, Any]:
    return {"unit": unit, "above": 0, "at_most": most}


@dataclass(frozen=True)
class Preset:
    """What is known of the scanner as it recorded a sweep; None where it is not known."""

    device: str | None = setting(None, help="manufacturer and model of the scanner")
    transducer: str | None = setting(None, help="name of the probe")
    frequency_mhz: float | None = setting(None, help="transmitted frequency", **_limits("MHz"))
    depth_mm: float | None = setting(None, help="depth of the picture", **_limits("mm"))
    frame_rate_hz: float | None = setting(None, help="frames a second", **_limits("Hz", _MOST_HZ))
    spacing_mm: tuple[float, float] | None = setting(None, help="pixel size, across and down", **_limits("mm", 10))

    @classmethod
    def of(cls, sweep: Sweep) -> Preset:
        """What the file of a sweep says; a depth that the user said goes before it."""
        said = dict(scanner_facts(sweep.provenance.get("scanner") or {}).get("scanner", {}))
        if depth := (sweep.provenance.get("prepared") or {}).get("depth_mm"):
            said["depth_mm"] = depth
        rate = sweep.frame_rate_hz
        return cls(**said, frame_rate_hz=rate if rate and rate <= _MOST_HZ else None, spacing_mm=sweep.spacing_mm)

    def unlike(self, other: Preset, names: Sequence[str] = ()) -> list[str]:
        """In words, such as "depth 40 mm, not 60 mm": what is known of both and differs by more than :data:`ALIKE`.

        Args:
            other: what comes after "not".
            names: the facts that are compared; all where there are none.
        """
        found = []
        for field in fields(self):
            own, its = getattr(self, field.name), getattr(other, field.name)
            if own is None or its is None or (names and field.name not in names):
                continue
            if isinstance(own, str):
                alike = own.casefold().split() == its.casefold().split()
            else:
                ratios = np.ravel(own) / np.ravel(its)
                alike = max(ratios.max(), 1 / ratios.min()) <= ALIKE[field.name]
            if not alike:
                found.append(f"{self.text(field.name)}, not {other.text(field.name, False)}")
        return found

    def __str__(self) -> str:
        """All that is known, for people."""
        known = [name for name, value in vars(self).items() if value is not None]
        return ", ".join(self.text(name) for name in known) or "nothing known of the scanner"

    def text(self, name: str, named: bool = True) -> str:
        """A fact that is known for people, with its name or without."""
        value, word = getattr(self, name), _WORDS.get(name, name.partition("_")[0])
        unit = next(setting_of(field).unit for field in fields(self) if field.name == name)
        shown = value if isinstance(value, str) else " x ".join(f"{number:.3g}" for number in np.ravel(value))
        return f"{word * named} {shown} {unit}".strip()


@dataclass(frozen=True)
class MeasuredSweep:
    """A sweep that a profile was made of."""

    length: str = setting(help="how its length is known: told by the user, measured, or simulated")
    length_mm: float = setting(help="its length", **_limits("mm", 10000))
    found_mm: float = setting(help="its length as the model found it", **_limits("mm", 100000))
    factor: float = setting(help="of the elevational motion, so that it has its length", at_least=LEAST, at_most=MOST)
    spread: float = setting(help="of the logarithm of the lengths of its parts", at_least=0)
    frames: int = setting(help="number of its frames", at_least=2)


@dataclass(frozen=True)
class Profile:
    """The scale of a probe and preset for a set of weights.

    Raises InputError: a value of the wrong kind or out of range, or a name that cannot be used.
    """

    format: int = setting(help="version of the file", at_least=FORMAT, at_most=FORMAT)
    name: str = setting(help="of a to z, 0 to 9, '.', '_', '-'")
    factor: float = setting(help="what the elevational motion is multiplied by", at_least=LEAST, at_most=MOST)
    spread: float = setting(help="standard deviation of its logarithm", above=0, at_most=1)
    model: str = setting(help="name of the model that it was measured with")
    weights_sha256: str | None = setting(help="of its weights; none where they were no file")
    preset: Preset = setting(help="what it was measured with", expects="a mapping of what is known of the scanner")
    sweeps: tuple[MeasuredSweep, ...] = setting(help="what it was made of", expects="a list of sweeps")
    latency_ms: float | None = setting(None, help="of the pictures behind the tracking; kept, not used", unit="ms")
    made: str = setting("", help="date", convert=lambda value: value if isinstance(value, str | int) else str(value))
    dualtrack_version: str = setting(__version__, help="of the program")

    def __post_init__(self) -> None:
        check_settings(self, "Of a scanner profile")
        require_name(self.name)

    @classmethod
    def of(
        cls, name: str, model: Mapping[str, Any], preset: Preset, sweeps: Sequence[MeasuredSweep], **more: Any
    ) -> Profile:
        """The profile of sweeps: the mean of the logarithms of their factors, and how far the next one may be off.

        Its variance is that of the sweeps (of one, that of its parts), that of their mean, and :data:`LEAST_SPREAD`.

        Args:
            name: of the profile.
            model: provenance of the trajectories.
            preset: what is known of the scanner.
            sweeps: one or more.
            more: latency_ms, made.

        Raises InputError: the sweeps contradict each other.
        """
        logs = np.log([sweep.factor for sweep in sweeps])
        apart = math.exp(np.ptp(logs))
        if apart > _MOST_APART:
            factors = ", ".join(f"{sweep.factor:.2f}" for sweep in sweeps)
            raise InputError(
                f"The sweeps contradict each other: their factors are {factors}, the largest {apart:.2f} times the "
                f"smallest, and the limit is {_MOST_APART:g}; check the lengths, or record them again at one setting."
            )
        variance = sweeps[0].spread ** 2 if len(logs) == 1 else float(np.var(logs, ddof=1)) * (1 + 1 / len(logs))
        spread = min(1.0, math.sqrt(variance + LEAST_SPREAD**2))
        by = str(model.get("model")), model.get("weights_sha256")
        return cls(FORMAT, name, math.exp(logs.mean()), spread, *by, preset, tuple(sweeps), **more)

    @property
    def scale(self) -> KnownScale:
        """What it says of a path."""
        return KnownScale(self.name, self.factor, self.spread)

    @property
    def scale_text(self) -> str:
        """Factor and spread for people."""
        return f"x {self.factor:.3g}, known to {self.spread:.0%}"

    @property
    def advice(self) -> list[str]:
        """What whoever makes it should know, in sentences."""
        found = []
        if not LEAST_PLAIN <= self.factor <= MOST_PLAIN:
            found.append(
                f"The factor {self.factor:.3g} is far from 1; check the lengths and their unit, and try a sweep that "
                "is not among them."
            )
        elif abs(math.log(self.factor)) < self.spread:
            found.append(
                "The factor is 1 within its spread: the model knows the scale of this probe as well as the profile."
            )
        if len(self.sweeps) == 1:
            found.append("One sweep tells little of how far the next one may be off; make the profile of three.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values: what its file holds."""
        return plain_values(self)


def require_name(name: str) -> None:
    """Raise InputError where a profile cannot be called so."""
    if not MODEL_NAME.fullmatch(name) or name in (AUTO, NO_PROFILE):
        raise InputError(
            f"{short_text(name)} is not a valid name of a profile; use up to 64 of a to z, 0 to 9, '.', '_', '-', and "
            f"neither {AUTO} nor {NO_PROFILE}."
        )


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises InputError: it cannot be read, or is none of this version; one sentence."""
    values = read_yaml(path, "the scanner profile")
    version = values.get("format") if isinstance(values, Mapping) else None
    if version is not None and version != FORMAT:
        raise InputError(
            f"The scanner profile {path} has format {short_text(version)}; this version reads {FORMAT}. Make it anew."
        )
    return build(Profile, values, f"the scanner profile {path}")


def stored_path(name: str, folder: Path | None = None) -> Path:
    """The file of a profile of the user. Raises InputError: there is none; names those there are."""
    found = profile_paths(folder)
    if name not in found:
        there = short_list(found) or "none"
        raise InputError(f"There is no file and no scanner profile {short_text(name)}; there are: {there}.")
    return found[name]


def stored_profiles(folder: Path | None = None) -> tuple[list[Profile], list[str]]:
    """The profiles of the user by name, in the usual models folder or another; a sentence for each bad file."""
    found, faults = [], []
    for name, path in profile_paths(folder).items():
        try:
            found.append(_named_as_its_file(read_profile(path), name, path))
        except InputError as error:
            faults.append(str(error))
    return found, faults


def _named_as_its_file(profile: Profile, name: str, path: Path) -> Profile:
    if profile.name != name:
        raise InputError(f"The scanner profile {path} says that its name is {profile.name}; rename the file.")
    return profile


def find_profile(name: str) -> Profile:
    """A profile by its file, or by the name of one of the user. Raises InputError: there is none, or it is damaged."""
    path = Path(name)
    if path.is_file():
        return read_profile(path)
    return _named_as_its_file(read_profile(path := stored_path(name)), name, path)


def save_profile(profile: Profile, folder: Path | None = None) -> Path:
    """Write a profile into the folder of the user, whole or not at all, and return its file.

    Args:
        folder: where models are installed, if not in the usual place.

    Raises:
        InputError: there is one of that name.
        OutputError: the folder cannot be written.
    """
    import yaml

    require_free(profile.name, folder)
    path = (folder or models_folder()) / "profiles" / f"{profile.name}.yaml"
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(profile.as_dict(), sort_keys=False), encoding="utf-8")
    return path


def require_free(name: str, folder: Path | None = None) -> None:
    """Raise InputError where a profile cannot be called so, or one is."""
    require_name(name)
    if name in profile_paths(folder):
        raise InputError(f"There is a scanner profile {name} already; choose another name, or remove that one first.")


def remove_profile(name: str, folder: Path | None = None) -> Path:
    """Delete a profile of the user, also a damaged one, and return where it was.

    Raises:
        InputError: there is none of that name.
        OutputError: it cannot be deleted.
    """
    path = stored_path(name, folder)
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"Cannot delete {path}: {error.strerror or error}; check its folder.") from error
    return path


def profile_for(wanted: str, sweep: Sweep, source: Mapping[str, Any]) -> tuple[Profile | None, list[str]]:
    """The profile that is used for the path of a sweep, and sentences for the user.

    Args:
        wanted: a name, a file, or "auto": the one profile whose scanner or probe is that of the file and that differs
            in nothing known of scanner, probe, frequency and depth.
        sweep: as it is tracked.
        source: provenance of the path, with "model" and "weights_sha256".

    Raises InputError: there is no such profile, it is of another model, or the path was scaled already.
    """
    preset = Preset.of(sweep)
    if wanted == AUTO:
        return _matching(preset, source)
    profile = find_profile(wanted)
    for entry in source.get(CORRECTIONS, ()):
        if entry["kind"] in (PROFILE_KIND, "known length"):
            raise InputError(
                f"The path was scaled already ({entry['text']}), so the profile {profile.name} is not used."
            )
    if (model := source.get("model")) != profile.model:
        raise InputError(
            f"The scanner profile {profile.name} was made with the model {profile.model}, and the path is by "
            f"{model or 'an unknown one'}: its factor means nothing there. Make one with this model, or leave it out."
        )
    return profile, _doubts(profile, preset, source)


def _matching(preset: Preset, source: Mapping[str, Any]) -> tuple[Profile | None, list[str]]:
    """The one profile that fits a preset and the weights, and what is to be said."""
    profiles, notes = stored_profiles()
    fitting = [
        one
        for one in profiles
        if any(getattr(one.preset, name) and getattr(preset, name) for name in _NAMES)
        and not one.preset.unlike(preset, _CHOOSING)
    ]
    own = [one for one in fitting if not _other_weights(one, source)]
    if len(own) == 1:
        return own[0], [*notes, *_doubts(own[0], preset, source)]
    names = short_list(one.name for one in own or fitting)
    if own:
        notes.append(f"Several scanner profiles fit this clip ({names}) and none was used; name the right one.")
    elif fitting:
        notes.append(
            f"The scanner profile {names} fits this clip, but was made with other weights, and was not used; make one "
            "with these."
        )
    return None, notes


def _other_weights(profile: Profile, source: Mapping[str, Any]) -> bool:
    mine = profile.model, profile.weights_sha256
    return mine != (source.get("model"), source.get("weights_sha256"))


def _doubts(profile: Profile, preset: Preset, source: Mapping[str, Any]) -> list[str]:
    """One sentence where a profile is used outside of what it was made for."""
    unlike = preset.unlike(profile.preset)
    if _other_weights(profile, source):
        unlike.append(f"other weights of {profile.model}")
    if not unlike:
        return []
    return [
        f"The clip lies outside of what the scanner profile {profile.name} was made for ({'; '.join(unlike)}); its "
        "scale may not hold."
    ]
