"""`dualtrack profile`: make, show, list, remove."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.sweeps import settings_of
from DualTrackCore.corrections import profile as profiles
from DualTrackCore.corrections.profile import Profile
from DualTrackCore.network.catalogue import models_folder
from DualTrackCore.progress import Reporter


def make(options: Namespace, console: Console) -> None:
    """Measure the scale of a probe on sweeps of known length, and keep it."""
    from DualTrackCore.run.profiling import make_profile

    profiles.require_free(options.name)
    more = {"lengths_mm": options.length_mm, "latency_ms": options.latency_ms, "reporter": Reporter(console.progress)}
    profile = make_profile(options.name, options.sweeps, settings_of(options, []), **more)
    path = profiles.save_profile(profile)
    for sentence in profile.advice:
        console.warn(sentence)
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
        console.say(columns([(one.name, one.scale_text, one.model, str(one.preset)) for one in found]))
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


def _say(profile: Profile, console: Console) -> None:
    rows: list[tuple[str, Any]] = [
        ("profile", profile.name),
        ("scale", f"elevational motion {profile.scale_text} (standard deviation)"),
        ("model", f"{profile.model}, weights {(profile.weights_sha256 or 'not from a file')[:16]}"),
        ("made for", str(profile.preset)),
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
