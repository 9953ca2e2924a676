"""`dualtrack profile`: make, show, list, remove."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.sweeps import settings_of
from DualTrackCore.corrections import profile as profiles
from DualTrackCore.corrections.profile import Profile
from DualTrackCore.corrections.scale import LEAST_PLAIN, MOST_PLAIN
from DualTrackCore.network.catalogue import models_folder
from DualTrackCore.progress import Reporter


def make(options: Namespace, console: Console) -> None:
    """Measure the scale of a probe on sweeps of known length, and keep it."""
    from DualTrackCore.run.profiling import make_profile

    profiles.require_free(options.name)
    more = {"lengths_mm": options.length_mm, "latency_ms": options.latency_ms, "reporter": Reporter(console.progress)}
    profile = make_profile(options.name, options.sweeps, settings_of(options, []), **more)
    path = profiles.save_profile(profile)
    if not LEAST_PLAIN <= profile.factor <= MOST_PLAIN:
        console.warn(
            f"The factor {profile.factor:.3g} is far from 1; check the lengths and their unit, and try a sweep that "
            "is not among them."
        )
    elif abs(math.log(profile.factor)) < profile.spread:
        console.warn(
            "The factor is 1 within its spread: the model knows the scale of this probe as well as the profile."
        )
    if len(profile.sweeps) == 1:
        console.warn("One sweep tells little of how far the next one may be off; make the profile of three.")
    console.say(f"Wrote {path}.")
    _say(profile, console)
    console.result({"path": str(path), **profile.as_dict()})


def show(options: Namespace, console: Console) -> None:
    """What a profile says."""
    profile = profiles.find_profile(options.name)
    _say(profile, console)
    console.result(profile.as_dict())


def list_profiles(options: Namespace, console: Console) -> None:
    """The profiles of the user, a line each."""
    found, faults = profiles.stored_profiles()
    if found:
        console.say(columns([(one.name, _scale_text(one), one.model, _preset_text(one)) for one in found]))
    for fault in faults:
        console.warn(fault)
    folder = models_folder() / "profiles"
    console.say(f"{plural(len(found), 'profile')} in {folder}.")
    console.result({"folder": str(folder), "profiles": [one.as_dict() for one in found], "faults": faults})


def remove(options: Namespace, console: Console) -> None:
    """Delete a profile."""
    path = profiles.remove_profile(options.name)
    console.say(f"Removed {path}.")
    console.result({"name": options.name, "path": str(path)})


def _scale_text(profile: Profile) -> str:
    return f"x {profile.factor:.3g}, known to {profile.spread:.0%}"


def _preset_text(profile: Profile) -> str:
    known = [name for name, value in vars(profile.preset).items() if value is not None]
    return ", ".join(profile.preset.text(name) for name in known) or "nothing known of the scanner"


def _say(profile: Profile, console: Console) -> None:
    rows: list[tuple[str, Any]] = [
        ("profile", profile.name),
        ("scale", f"elevational motion {_scale_text(profile)} (standard deviation)"),
        ("model", f"{profile.model}, weights {(profile.weights_sha256 or 'not from a file')[:16]}"),
        ("made for", _preset_text(profile)),
    ]
    rows += [
        (
            f"sweep {number}",
            f"{one.length_mm:.1f} mm ({one.length}), found as {one.found_mm:.1f} mm: x {one.factor:.3g}",
        )
        for number, one in enumerate(profile.sweeps, 1)
    ]
    if profile.latency_ms is not None:
        rows.append(("latency", f"{profile.latency_ms:g} ms"))
    console.say(columns([*rows, ("made", f"{profile.made}, DualTrack {profile.dualtrack_version}")]))
