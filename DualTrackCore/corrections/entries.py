"""What is said of corrections: plain values for provenance, reports and files, with a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from DualTrackCore.corrections.knowledge import KnownLength, KnownPoses, KnownScale, Limits, SamePlace, SamePoint
from DualTrackCore.corrections.observations import Observations
from DualTrackCore.corrections.scale import LEAST_PLAIN, MOST_PLAIN
from DualTrackCore.settings import short_list

#: "kind" of the entry of a scanner profile.
PROFILE_KIND = "scanner profile"
#: Names and residuals that an entry lists: the worst ones.
_MOST_LISTED = 12
#: An observation of a lesser weight is named.
_LEAST_WEIGHT = 0.5


def of_length(known: KnownLength, factor: float, before_mm: float, after_mm: float, first_frame: int) -> dict[str, Any]:
    """Entry of a known length: by which factor the motion was scaled."""
    frames = None if known.frames is None else [frame + first_frame for frame in known.frames]
    what = "path" if frames is None else f"way from frame {frames[0]} to frame {frames[1]}"
    motion = "elevational motion" if known.scale == "elevational" else "motion"
    text = f"Scaled the {motion} by {factor:.3g}: the {what} is {after_mm:.1f} mm long and was {before_mm:.1f} mm."
    given = {**asdict(known), "frames": frames}
    residual = after_mm - known.length_mm
    return {"kind": "known length", "given": given, "factor": factor, "residual_mm": residual, "text": text}


def of_scale(known: KnownScale) -> dict[str, Any]:
    """Entry of a scanner profile: by which factor the motion was scaled, and how sure that is."""
    text = (
        f"Scaled the elevational motion by {known.factor:.3g}, known to {known.spread:.0%}, as the scanner profile "
        f"{known.profile} says."
    )
    return {"kind": PROFILE_KIND, "given": asdict(known), "factor": known.factor, "text": text}


def of_limits(limits: Limits, named: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Entry of limits: which frames hit them."""
    frames = {name: sorted(found) for name, found in named.items() if found}
    parts = [f"{name} at {short_list(map(str, found), _MOST_LISTED)}" for name, found in frames.items()]
    text = f"Held the motion within its limits: {'; '.join(parts) or 'no frame passed them'}."
    counts = {name: len(found) for name, found in frames.items()}
    frames = {name: found[:_MOST_LISTED] for name, found in frames.items()}
    return {"kind": "limits", "given": asdict(limits), "frames": frames, "counts": counts, "text": text}


def of_observations(
    known: list[SamePoint] | list[SamePlace] | KnownPoses,
    group: Observations,
    before: np.ndarray,
    path: np.ndarray,
    world: np.ndarray,
) -> dict[str, Any]:
    """Entry of observations: how far they are missed before and after, and which ones count less."""
    first = known if isinstance(known, KnownPoses) else known[0]
    if isinstance(first, KnownPoses):
        kind, what = first.name, f"the {first.name} of {len(group.names)} frames"
    elif isinstance(first, SamePoint):
        kind, what = "same points", f"{len(known)} points that are marked in several frames"
    else:
        kind, what = "same places", f"{len(known)} pairs of frames at the same place"
    given: dict[str, Any] = {"observations": len(group.names)}
    entry: dict[str, Any] = {"kind": kind, "given": given}
    misses, texts = group.misses(path, world), []
    start = group.misses(before, group.first_world(before))
    sds = (
        (group.accuracy_mm, "mm", first.accuracy_mm),
        (group.accuracy_deg, "deg", getattr(first, "accuracy_deg", None)),
    )
    for miss, was, (sd, unit, stated) in zip(misses, start, sds, strict=True):
        if sd is None:
            continue
        given[f"accuracy_{unit}"] = stated
        sizes, sizes_before = np.linalg.norm(miss, axis=1), np.linalg.norm(was, axis=1)
        worst = np.argsort(-sizes)[:_MOST_LISTED]
        entry[f"mean_{unit}"], entry[f"mean_before_{unit}"] = float(sizes.mean()), float(sizes_before.mean())
        entry[f"residuals_{unit}"] = {group.names[at]: round(float(sizes[at]), 4) for at in worst}
        texts.append(f"{sizes.mean():.2g} {unit} on average (before {sizes_before.mean():.2g})")
    weights = group.weights(group.residuals(path, world))
    lesser = np.argsort(weights)[: np.count_nonzero(weights < _LEAST_WEIGHT)]
    names = [group.names[at] for at in lesser]
    entry["down_weighted"], entry["down_weighted_count"] = names[:_MOST_LISTED], len(names)
    text = f"Fitted the path to {what}, which it misses by {' and '.join(texts)}."
    if names:
        text += f" Counted less, as they do not fit: {short_list(names, _MOST_LISTED)}."
    return {**entry, "text": text}


def warnings(said: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences for the user on entries that look doubtful."""
    found = []
    for entry in said:
        factor = entry.get("factor")
        if factor is not None and entry["kind"] != PROFILE_KIND and not LEAST_PLAIN <= factor <= MOST_PLAIN:
            found.append(
                f"The motion had to be scaled by {factor:.3g} to have the known length; check the number and its "
                "unit: so much is rarely right."
            )
        if entry.get("down_weighted_count"):
            found.append(f"Some of the {entry['kind']} do not fit the others: {', '.join(entry['down_weighted'])}.")
    return found
