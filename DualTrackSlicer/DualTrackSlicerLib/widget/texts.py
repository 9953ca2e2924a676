"""Numbers and stages as the panel tells them; no qt here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from DualTrackCore.measurement.measure import MODEL, RULE, SPACING, Measured
from DualTrackCore.path_error import AS_WEIGHTS_SAY, ROUGH, SURE, TOLD, UNSURE, UNUSABLE, USABLE
from DualTrackCore.progress import Stage
from DualTrackCore.repeats import Repeats
from DualTrackCore.sweep import Sweep
from DualTrackSlicerLib.run import Pace
from DualTrackSlicerLib.scene import Clip

if TYPE_CHECKING:
    from DualTrackCore.run.preparation import Preparation
    from DualTrackCore.run.settings import RunSettings

#: Regions of text that are named one by one.
_MOST_NAMED = 3


def stageText(stage: Stage, detail: str = "") -> str:
    """What a stage of a run does, for people."""
    stages = {
        Stage.STARTING: _("Starting"),
        Stage.READING: _("Reading"),
        Stage.SENDING: _("Sending the frames"),
        Stage.QUEUED: _("Waiting for the server"),
        Stage.RECEIVING: _("Receiving the result"),
        Stage.COMPARING: _("Looking for repeated frames"),
        Stage.LOADING_MODEL: _("Loading the model"),
        Stage.PREPARING: _("Preparing the engine (once per computer)"),
        Stage.NETWORK: _("Looking at the frames"),
        Stage.ATTENTION: _("Putting the path together"),
        Stage.RECONSTRUCTING: _("Building the volume"),
        Stage.FILLING_HOLES: _("Filling gaps"),
        Stage.MEASURING: _("Comparing with the tracker"),
        Stage.DOWNLOADING: _("Downloading"),
    }
    text = stages.get(stage, str(stage).capitalize())
    details = {
        "mirrored": _("mirrored"),
        "backwards": _("backwards"),
        "backwards and mirrored": _("backwards and mirrored"),
    }
    if detail in details:
        return _("{stage}, {detail}").format(stage=text, detail=details[detail])
    return text


def paceText(pace: Pace) -> str:
    """Stage, how many of how many, and the time left of the stage."""
    text = stageText(pace.stage or Stage.STARTING, pace.detail)
    if pace.total > 1:
        text += _(": {done} of {total}").format(done=pace.done, total=pace.total)
    if pace.seconds_left is not None:
        text += _(", about {time} left").format(time=durationText(pace.seconds_left))
    return text


def durationText(seconds: float) -> str:
    """A time span: 4.2 s, 12 s, 3 min 20 s."""
    if seconds < 10:
        return _("{seconds:.1f} s").format(seconds=seconds)
    whole = round(seconds)
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    return _("{minutes} min {seconds} s").format(minutes=whole // 60, seconds=whole % 60)


def trustText(trust: Mapping[str, Any]) -> str:
    """What a path is good for, of the report, and why no more."""
    levels = {USABLE: _("usable"), ROUGH: _("rough guide"), UNUSABLE: _("do not measure")}
    return ": ".join(filter(None, (levels[trust["level"]], " ".join(trust["reasons"]))))


def measuredText(found: Iterable[Measured]) -> str:
    """What was measured, how far it may be off and what it is good for, as rich text."""
    rows: list[tuple[str, str]] = []
    kinds = {"length": _("Length"), "area": _("Area"), "volume": _("Volume")}
    bases = {
        MODEL: _("the errors that the model states"),
        RULE: _("a rule of thumb"),
        SPACING: _("the size of a pixel alone"),
    }
    for one in found:
        rows.append((kinds[one.kind], quantityText(one.value, one.unit)))
        for share, band in ((95, one.band_95), (68, one.band_68)):
            text = _("not known")
            if band is not None:
                text = _("{low} to {high}").format(low=_figure(band[0]), high=quantityText(band[1], one.unit))
            rows.append((_("In {share} of 100 cases").format(share=share), text))
        rows.append((_("This rests on"), bases[one.basis]))
        levels = {"measure": _("measure"), "rough": _("rough"), "do not measure": _("do not measure")}
        rows.append((_("Trust"), f"{levels[one.level]}: {one.reason}"))
    return rowsText(rows)


def quantityText(value: float, unit: str) -> str:
    """A length, an area or a volume: 24.1 mm, 103 mm², 2310 mm³ (2.31 ml)."""
    text = f"{_figure(value)} {unit.replace('mm2', 'mm²').replace('mm3', 'mm³')}"
    return text if unit != "mm3" else _("{text} ({ml:.3g} ml)").format(text=text, ml=value / 1000)


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def directionText(direction: str) -> str:
    """How it is known which way the sweep runs."""
    texts = {
        SURE: _("sure"),
        UNSURE: _("unsure"),
        TOLD: _("told by you"),
        AS_WEIGHTS_SAY: _("as the model says"),
    }
    return texts.get(direction, direction)


def clipText(clip: Clip) -> str:
    """What is known of a clip, in one line, or why it cannot be used."""
    if clip.problem:
        return clip.problem
    width, height = clip.size
    parts = [
        _("{frames} frames").format(frames=clip.frames),
        _("{width} x {height} pixels").format(width=width, height=height),
    ]
    if clip.spacing_mm is None:
        parts.append(_("pixel size unknown"))
    else:
        x, y = clip.spacing_mm
        parts.append(_("{x:.3g} x {y:.3g} mm a pixel").format(x=x, y=y))
    if clip.rate_hz and clip.duration_s is not None:
        parts += [
            _("{rate:.3g} frames/s").format(rate=clip.rate_hz),
            _("{duration} long").format(duration=durationText(clip.duration_s)),
        ]
    else:
        parts.append(_("frame rate unknown"))
    if clip.volume is not None:
        parts.append(_("a volume, whose slices are taken as frames"))
    return ", ".join(parts) + "."


def repeatsText(sweep: Sweep, repeats: Repeats) -> str:
    """What is to be said of repeated frames, after :func:`clipText`."""
    if not repeats:
        return ""
    facts = repeats.facts(sweep)
    text = _(" {frames} of them show the picture before them again").format(frames=facts["frames"])
    if facts["pictures_hz"]:
        text += _(" ({rate:.3g} different pictures/s)").format(rate=facts["pictures_hz"])
    still = repeats.still_texts(sweep)
    if still:
        text += _("; the picture stands still in the frames {frames}").format(frames=", ".join(still))
    return text + "."


def preparingText(settings: RunSettings) -> str:
    """What is done to the pictures of a clip, in one line."""
    parts = []
    if settings.first_frame or settings.last_frame is not None:
        to_end, to_frame = _("frames from {first}"), _("frames {first} to {last}")
        form = to_end if settings.last_frame is None else to_frame
        parts.append(form.format(first=settings.first_frame, last=settings.last_frame))
    turns = {90: _("turned right by 90°"), 180: _("turned by 180°"), 270: _("turned left by 90°")}
    parts += [turns[settings.rotate]] if settings.rotate else []
    parts += [_("mirrored")] if settings.mirror else []
    if settings.crop is not None:
        parts.append(_("cropped to {width} x {height} pixels").format(width=settings.crop[2], height=settings.crop[3]))
    if settings.depth_mm is not None:
        parts.append(_("{depth:g} mm deep").format(depth=settings.depth_mm))
    parts.append(_("text stays") if settings.mask == "none" else _("text beside the ultrasound blacked out"))
    line = ", ".join(parts) + "."
    return line[0].upper() + line[1:]


def preparedText(made: Preparation, settings: RunSettings) -> str:
    """What was found in the pictures of a clip, and what comes of it."""
    sentences = [preparingText(settings)]
    if made.area is None:
        sentences.append(_("No picture area was found: the frames are black, or nothing in them moves."))
    else:
        box, fan = _("Picture area: {size} pixels"), _("Picture area: a fan, {size} pixels")
        size = f"{made.area.clip[2] + 1} x {made.area.clip[3] + 1}"
        shape = (box if made.area.fan is None else fan).format(size=size)
        sentences.append(
            _("{area}, found with a confidence of {sure:.0%}.").format(area=shape, sure=made.area.confidence)
        )
    if made.regions:
        place = _("{width} x {height} pixels at {x}, {y}")
        named = [place.format(x=x, y=y, width=w, height=h) for x, y, w, h in made.regions[:_MOST_NAMED]]
        places = "; ".join([*named, *["…"] * (len(made.regions) > _MOST_NAMED)])
        sentences.append(_("Blacked out, for it stands still: {places}.").format(places=places))
    elif settings.mask == "auto":
        sentences.append(_("No text was found beside it."))
    if settings.depth_mm is not None:
        x, y = made.sweep.spacing_mm
        sentences.append(_("A pixel is {x:.3g} x {y:.3g} mm.").format(x=x, y=y))
    return " ".join(sentences)


def rowsText(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns as rich text."""
    cells = "".join(
        f"<tr><td style='padding-right:12px'>{html.escape(name)}</td><td><b>{html.escape(value)}</b></td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def listText(sentences: Iterable[str]) -> str:
    """Sentences as a rich-text list; empty for none."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul style='margin-left:-24px'>{items}</ul>" if items else ""
