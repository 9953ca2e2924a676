"""What the rows of *Correct* say: what they would do, and what they did; no qt here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from DualTrackCore.corrections import CLIP
from DualTrackCore.path_error import CORRECTIONS
from DualTrackCore.run.results import RunReport
from DualTrackSlicerLib.knowledge import KINDS

#: What is left over is named for the worst ones.
_MOST_NAMED = 4


def wouldText(row: str, given: Mapping[str, Any], report: RunReport | None, trackerName: str) -> str:
    """What a row would do with what it says.

    Args:
        row: one of :data:`~DualTrackSlicerLib.knowledge.ROWS`.
        given: as :func:`~DualTrackSlicerLib.knowledge.said` gives it, not empty.
        report: of the result that would be corrected.
        trackerName: of the chosen transforms in the scene.
    """
    if row == "length":
        return _length(given, report)
    if row == "landmarks":
        frames: dict[str, list[str]] = {}
        for mark in given["places"]:
            frames.setdefault(mark.point, []).append(str(mark.frame))
        one = _("{point} (frames {frames})")
        points = [one.format(point=point, frames=", ".join(numbers)) for point, numbers in frames.items()]
        return _("Would bring the marks of each point together: {points}.").format(points="; ".join(points))
    if row == "loops":
        return _("Would put frames at one place: {pairs}.").format(pairs=_pairs(given["loops"]))
    if row == "limits":
        return _limits(given)
    if row == "orientations":
        return _("Would turn the frames as {name} says.").format(name=Path(given["orientations"]).name)
    name = trackerName if given["tracker"] == CLIP else Path(given["tracker"]).name
    return _("Would pull the path to the places of {name}.").format(name=name)


def didText(row: str, report: RunReport) -> str:
    """What a row did to a result, in the words of the report; the worst of what is left over."""
    texts = []
    for entry in report.trajectory["source"].get(CORRECTIONS, ()):
        if entry["kind"] in KINDS[row]:
            texts += [entry["text"], *_left_over(entry)]
    return " ".join(texts)


def _left_over(entry: Mapping[str, Any]) -> Iterable[str]:
    for unit, shown in (("mm", _("mm")), ("deg", "°")):
        named = list(entry.get(f"residuals_{unit}", {}).items())
        if named:
            most = [f"{name}: {size:.2g} {shown}" for name, size in named[:_MOST_NAMED]]
            more = ["…"] if len(named) > _MOST_NAMED else []
            yield _("Left over: {names}.").format(names="; ".join(most + more))


def _length(given: Mapping[str, Any], report: RunReport | None) -> str:
    length, frames = given["known_length_mm"], given["known_length_frames"]
    if frames is not None:
        text = _("Would put {length:g} mm between the frames {first} and {last}.")
        return text.format(length=length, first=frames[0], last=frames[1])
    if report is None:
        return _("Would make the path {length:g} mm long.").format(length=length)
    text = _("Would make the path {length:g} mm long; it was found {now:.1f} mm long.")
    return text.format(length=length, now=report.trajectory["path_length_mm"])


def _limits(given: Mapping[str, Any]) -> str:
    parts = [_("never back")] if given["monotone"] else []
    if given["most_step_mm"]:
        parts.append(_("steps up to {most:g} mm").format(most=given["most_step_mm"]))
    if given["most_turn_deg"]:
        parts.append(_("turns up to {most:g}°").format(most=given["most_turn_deg"]))
    if given["stops"]:
        parts.append(_("still in frames {pairs}").format(pairs=_pairs(given["stops"])))
    return _("Would hold the motion: {parts}.").format(parts="; ".join(parts))


def _pairs(pairs: Iterable[tuple[int, int]]) -> str:
    return "; ".join(_("{first} and {last}").format(first=first, last=last) for first, last in pairs)
