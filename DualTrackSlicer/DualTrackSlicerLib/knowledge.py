"""What is known of a sweep, as the panel asks for it: parameters of the scene, and the corrections that they mean.

Each row of the section asks for some fields of :class:`~DualTrackCore.corrections.Corrections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Annotated, Any, get_type_hints

from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange
from slicer.util import NodeModify

from DualTrackCore.corrections import CLIP, Corrections, Mark
from DualTrackCore.errors import InputError
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.settings import setting_of
from DualTrackSlicerLib.scene import Clip, marksOf

#: The fields of Corrections by the row that asks for them; the first one says something, or one of the others does.
ROWS = {
    "length": ("known_length_mm", "known_length_frames", "scale", "known_length_accuracy_mm"),
    "landmarks": ("places", "places_accuracy_mm"),
    "loops": ("loops", "loops_accuracy_mm", "loops_accuracy_deg"),
    "limits": ("monotone", "most_step_mm", "most_turn_deg", "stops"),
    "orientations": ("orientations", "orientations_accuracy_deg"),
    "tracker": ("tracker", "tracker_accuracy_mm", "tracker_accuracy_deg"),
}
#: Kinds of entries of a correction (:mod:`DualTrackCore.corrections`) by the row that gives them.
KINDS = {
    "length": ("known length",),
    "landmarks": ("same points",),
    "loops": ("same places",),
    "limits": ("limits",),
    "orientations": ("orientations",),
    "tracker": ("poses of the tracker", "positions of the tracker"),
}
_FIELDS = {field.name: field for field in fields(Corrections)}
_TYPES = get_type_hints(Corrections)


class LengthOf(Enum):
    """What the known length is of."""

    PATH = "path"
    FRAMES = "frames"

    def label(self) -> str:
        """Text in the chooser."""
        return {"path": _("of the whole path"), "frames": _("between two frames")}[self.value]


class Scaled(Enum):
    """What a known length scales."""

    ELEVATIONAL = "elevational"
    ALL = "all"

    def label(self) -> str:
        """Text in the chooser."""
        return {"elevational": _("across the pictures"), "all": _("all motion")}[self.value]


def _parameter(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


#: Fields that are parameters as they are, by the name of the parameter: accuracies and switches; 0 is "not known".
PLAIN = {_parameter(name): name for name in _FIELDS if name.endswith(("_mm", "_deg")) or _TYPES[name] is bool}
#: Parameters of files.
FILES = {"orientationsFile": "orientations", "trackerFile": "tracker"}


def withKnowledge(cls: type) -> type:
    """Give a class of parameters those of what is known of a sweep."""
    frame, texts = Annotated[int, WithinRange(0, 1000000)], ("loops", "stops", *FILES)
    found: dict[str, tuple[Any, Any]] = {
        "otherWay": (bool, False),
        "lengthIsKnown": (bool, False),
        "lengthOf": (LengthOf, LengthOf.PATH),
        "lengthFirst": (frame, 0),
        "lengthLast": (frame, 0),
        "scale": (Scaled, Scaled.ELEVATIONAL),
        "landmarks": (vtkMRMLMarkupsFiducialNode, None),
        "trackerNode": (vtkMRMLSequenceNode, None),
        **dict.fromkeys(texts, (str, "")),
    }
    for parameter, name in PLAIN.items():
        facts, default = setting_of(_FIELDS[name]), _FIELDS[name].default
        within = WithinRange(0.01 if default else 0, facts.at_most or 1)
        found[parameter] = (bool, default) if default is False else (Annotated[float, within], default or 0.0)
    for parameter, (kind, default) in found.items():
        cls.__annotations__[parameter] = kind
        if default is not None:
            setattr(cls, parameter, default)
    return cls


def said(row: str, parameters: Any, clip: Clip, settings: RunSettings) -> dict[str, Any]:
    """What a row says: its fields of Corrections; empty where it says nothing.

    Args:
        row: one of :data:`ROWS`.
        parameters: of the panel.
        clip: the clip that is corrected.
        settings: of the run that is corrected.

    Raises InputError: it makes no sense; one sentence.
    """
    given = {name: getattr(parameters, parameter) for parameter, name in PLAIN.items() if name in ROWS[row]}
    given = {name: None if value == 0 and value is not False else value for name, value in given.items()}
    if row == "length":
        given |= _length(parameters)
    elif row == "landmarks":
        given["places"] = _places(parameters.landmarks, clip, settings)
    elif row == "orientations":
        given["orientations"] = parameters.orientationsFile.strip() or None
    elif row == "tracker":
        given["tracker"] = _tracker(parameters)
    for name in {"loops", "stops"} & set(ROWS[row]):
        given[name] = _pairs(getattr(parameters, name))
    return knownIn(Corrections(**given), row)


def knownIn(known: Corrections, row: str) -> dict[str, Any]:
    """The fields of a row where they say something; accuracies alone are nothing."""
    values = {name: getattr(known, name) for name in ROWS[row]}
    says = any(value for name, value in values.items() if name != "scale" and "accuracy" not in name)
    return values if says else {}


def wanted(parameters: Any, clip: Clip, settings: RunSettings) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the rows say, as :func:`said` has it, and what is wrong with others, each by its row."""
    known: dict[str, dict[str, Any]] = {}
    wrong: dict[str, str] = {}
    for row in ROWS:
        try:
            known[row] = said(row, parameters, clip, settings)
        except InputError as error:
            wrong[row] = str(error)
    return known, wrong


def together(known: Mapping[str, Mapping[str, Any]]) -> Corrections:
    """All that rows say."""
    return Corrections(**{name: value for given in known.values() for name, value in given.items()})


def correctingScript(known: Corrections, otherWay: bool, tracker: vtkMRMLSequenceNode | None) -> str:
    """Lines for Slicer's Python console that correct the result `nodes`; empty where nothing is known."""
    if not known and not otherWay:
        return ""
    changed = {field.name: getattr(known, field.name) for field in fields(known)}
    given = ", ".join(f"{n}={v!r}" for n, v in changed.items() if v != _FIELDS[n].default)
    more = ", otherWay=True" * otherWay
    if known.tracker == CLIP and tracker is not None:
        name = tracker.GetName()
        more += f", trackerNode=slicer.util.getFirstNodeByClassByName('vtkMRMLSequenceNode', {name!r})"
    names = "Corrections, Mark" if known.places else "Corrections"
    lines = [
        f"from DualTrackCore.corrections import {names}",
        f"nodes = logic.correct(nodes, Corrections({given}){more})",
    ]
    return "\n".join(lines) + "\n"


def forget(parameters: Any, row: str) -> None:
    """Take back what a row says; its accuracies stay."""
    empty = {
        "length": {"lengthIsKnown": False},
        "landmarks": {"landmarks": None},
        "loops": {"loops": ""},
        "limits": {"monotone": False, "mostStepMm": 0.0, "mostTurnDeg": 0.0, "stops": ""},
        "orientations": {"orientationsFile": ""},
        "tracker": {"trackerFile": "", "trackerNode": None},
    }
    with NodeModify(parameters):
        for name, value in empty[row].items():
            setattr(parameters, name, value)


def takeKnowledge(
    parameters: Any,
    known: Corrections,
    landmarks: vtkMRMLMarkupsFiducialNode | None,
    tracker: vtkMRMLSequenceNode | None,
) -> None:
    """Say the same again.

    Args:
        parameters: of the panel.
        known: what is to be said.
        landmarks, tracker: the nodes that marks and transforms in it are from, as far as they are in the scene.
    """
    with NodeModify(parameters):
        for row in ROWS:
            forget(parameters, row)
        parameters.otherWay = False
        for parameter, name in PLAIN.items():
            setattr(parameters, parameter, getattr(known, name) or type(getattr(parameters, parameter))())
        frames = known.known_length_frames
        parameters.lengthIsKnown = known.known_length_mm is not None
        parameters.lengthOf = LengthOf.PATH if frames is None else LengthOf.FRAMES
        parameters.lengthFirst, parameters.lengthLast = frames or (0, 0)
        parameters.scale = Scaled(known.scale)
        parameters.loops, parameters.stops = _text(known.loops), _text(known.stops)
        parameters.landmarks = landmarks if known.places else None
        parameters.orientationsFile = known.orientations or ""
        parameters.trackerFile = known.files.get("tracker", "")
        parameters.trackerNode = tracker if known.tracker == CLIP else None


def _length(parameters: Any) -> dict[str, Any]:
    if not parameters.lengthIsKnown:
        return {"known_length_mm": None}
    if not parameters.knownLengthMm:
        raise InputError(_("The known length is 0 mm; give the length in mm, or take the tick away."))
    frames = None
    if parameters.lengthOf is LengthOf.FRAMES:
        frames = parameters.lengthFirst, parameters.lengthLast
        if frames[0] == frames[1]:
            sentence = _("The known distance is from frame {frame} to itself; name two frames.")
            raise InputError(sentence.format(frame=frames[0]))
    return {"known_length_frames": frames, "scale": parameters.scale.value}


def _places(node: vtkMRMLMarkupsFiducialNode | None, clip: Clip, settings: RunSettings) -> tuple[Mark, ...] | None:
    if node is None:
        return None
    marks, lost = marksOf(node, clip, settings)
    if lost:
        sentence = _(
            "{count} of the marks lie on no frame; set them on the picture in the red view, with this panel open."
        )
        raise InputError(sentence.format(count=lost))
    frames: dict[str, set[int]] = {}
    for mark in marks:
        frames.setdefault(mark.point, set()).add(mark.frame)
    for point, of_point in frames.items():
        if len(of_point) < 2:
            sentence = _("The point {name} is marked in frame {frame} alone; mark it in another frame as well.")
            raise InputError(sentence.format(name=point, frame=min(of_point)))
    return tuple(marks)


def _tracker(parameters: Any) -> str | None:
    if parameters.trackerNode is not None and parameters.trackerFile.strip():
        raise InputError(_("Both a file and transforms of the scene are chosen; take one of them away."))
    return CLIP if parameters.trackerNode is not None else parameters.trackerFile.strip() or None


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [tuple(int(number) for number in pair.split(",")) for pair in text.split(";") if pair.strip()]
        if all(len(pair) == 2 and min(pair) >= 0 and pair[0] != pair[1] for pair in pairs):
            return tuple(pairs)
    except ValueError:
        pass
    sentence = _("The frames are “{text}”; give pairs of two different frames, such as 0, 310; 40, 270.")
    raise InputError(sentence.format(text=text))


def _text(pairs: tuple[tuple[int, int], ...]) -> str:
    return "; ".join(f"{first}, {last}" for first, last in pairs)
