"""The settings of the panel as they are kept in the scene, what they ask of a run, and Python that asks the same."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from slicer import (
    vtkMRMLMarkupsClosedCurveNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLMarkupsLineNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLNode,
    vtkMRMLSequenceBrowserNode,
    vtkMRMLSequenceNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.util import NodeModify

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run.settings import ESTIMATE, TRACKED, RunSettings
from DualTrackCore.settings import setting_of
from DualTrackSlicerLib.knowledge import withKnowledge

#: The name of the model list's last entry: a weights file that is not installed.
OWN_FILE = "own file"
#: Pixel sizes nearer than this are the same: the editors show five digits.
SPACING_TOLERANCE_MM = 1e-5
#: Largest number of a widget without a limit of its own.
MOST = 1000000


class Choice(Enum):
    """Base of the choices that the panel offers; the class has the name of the setting where it is one of a run."""

    def label(self) -> str:
        """Text in the chooser."""
        return _choiceLabels().get((type(self).__name__, self.value), str(self.value))


class Poses(Choice):
    """Where the frames lie; scenes keep the names, runs take the values."""

    ESTIMATE = ESTIMATE
    TRACKED = TRACKED


class Area(Choice):
    """Which part of a frame goes into the volume."""

    WHOLE = "whole"
    FOUND = "found"
    GIVEN = "given"
    FAN = "fan"


def _choiceLabels() -> dict[tuple[str, object], str]:
    """Texts of choices whose own names say too little."""
    return {
        ("Poses", ESTIMATE): _("estimated from the pictures"),
        ("Poses", TRACKED): _("those of the clip"),
        ("Area", "whole"): _("whole frame"),
        ("Area", "found"): _("found automatically"),
        ("Area", "given"): _("as given below"),
        ("Area", "fan"): _("a fan, as given below"),
        ("compounding", "maximum"): _("brightest"),
        ("compounding", "latest"): _("last seen"),
        ("hole_filling", "stick"): _("fill along the shortest line"),
        ("hole_filling", "none"): _("leave empty"),
        ("hole_filling", "nearest"): _("fill with the nearest"),
        ("hole_filling", "distance"): _("fill with the mean around, by distance"),
        ("hole_filling", "gaussian"): _("fill with the mean around, smoothly"),
        ("interpolation", "linear"): _("shared among neighbours"),
        ("interpolation", "nearest"): _("given to the nearest"),
        ("precision", "auto"): _("automatic"),
        ("test_time_augmentation", 1): _("as it is"),
        ("test_time_augmentation", 2): _("also mirrored"),
        ("test_time_augmentation", 4): _("also mirrored and backwards"),
        ("direction", "auto"): _("as the model says"),
        ("direction", "as-found"): _("as found"),
        ("direction", "other-way"): _("the other way"),
        ("rotate", 0): _("as it is"),
        ("rotate", 90): _("turned right by 90°"),
        ("rotate", 180): _("turned by 180°"),
        ("rotate", 270): _("turned left by 90°"),
        ("repeats", "drop"): _("left out"),
        ("repeats", "keep"): _("taken as frames"),
        ("axes", "frame0"): _("those of the first frame"),
        ("axes", "principal"): _("along the sweep"),
        ("frame", "frame0"): _("the first frame"),
        ("frame", "reference"): _("the tracker's reference"),
    }


#: Fields of RunSettings that the panel asks for in a way of its own, or not at all.
_OWN_WAY = {
    *("spacing_mm", "calibration", "probe", "series", "model", "card", "device", "chunk_frames"),
    *("first_frame", "last_frame", "crop", "depth_mm", "mask"),
    *("poses", "poses_are", "memory_gb", "evaluate", "pictures", "slicer", "voxel_mm", "clip", "fan", "corrections"),
    *("uncertainty_volume", "profile"),
}
_FIELDS = {field.name: field for field in fields(RunSettings)}
_TYPES = get_type_hints(RunSettings)


def parameterName(setting: str) -> str:
    """Name of the parameter of a setting: `holeFilling` of `hole_filling`."""
    first, *others = setting.split("_")
    return {"reconstruct": "makeVolume"}.get(setting, first + "".join(word.capitalize() for word in others))


#: Settings that are parameters as they are, by the name of the parameter.
SETTING_OF = {parameterName(name): name for name in _FIELDS if name not in _OWN_WAY}

#: The same with the parameters that stand for a setting in a way of their own and belong to one widget.
_WIDGET_SETTINGS = {**SETTING_OF, "voxelSize": "voxel_mm", "chunkFrames": "chunk_frames", "depth": "depth_mm"}


def settingOfParameter(parameter: str | None) -> str | None:
    """Name of the setting that one parameter stands for; None where it is none or one of several."""
    return _WIDGET_SETTINGS.get(parameter or "")


def settingGroup(setting: str) -> str:
    """The group of a setting."""
    return setting_of(_FIELDS[setting]).group


def limits(setting: str, least: float | None = None) -> WithinRange:
    """The limits of a setting for a parameter; `least` where a smaller value stands for something else."""
    facts = setting_of(_FIELDS[setting])
    lowest = next(limit for limit in (least, facts.at_least, facts.above, 0) if limit is not None)
    return WithinRange(lowest, MOST if facts.at_most is None else facts.at_most)


def withSettings(cls: type) -> type:
    """Give a class of parameters one for each entry of :data:`SETTING_OF`, and what is known of the sweep."""
    for parameter, name in SETTING_OF.items():
        kind, default = _TYPES[name], _FIELDS[name].default
        if get_origin(kind) is Literal:
            names = {f"N{value}" if isinstance(value, int) else value.upper(): value for value in get_args(kind)}
            kind = Choice(name, names)
            default = kind(default)
        elif kind in (int, float):
            kind = Annotated[kind, limits(name)]
        cls.__annotations__[parameter] = kind
        setattr(cls, parameter, default)
    return withKnowledge(cls)


@parameterNodeWrapper
@withSettings
class DualTrackSlicerParameterNode:
    """The settings of the panel, saved and restored with the scene.

    Attributes:
        browser, sequence: the chosen clip, and `sequence` alone the volume whose slices are the frames.
        spacingX, spacingY, depth: size of a pixel and of the picture, mm; 0 is unknown, or given by the others.
        firstFrame, lastFrame: counted from 0, both included; lastFrame 0 is the last one.
        crop, cropRegion: "x, y, width, height" in pixels, empty for the whole picture; box that draws it.
        mask: "auto", "none", or rectangles as the command line writes them.
        ruler, rulerLength: line on the picture, and how long it is in truth, mm.
        countedIn: how the picture is turned and mirrored in which crop, area, fan and mask count; empty: as it is now.
        areaX, areaY, areaWidth, areaHeight: picture area, pixels; used with Area.GIVEN.
        fanX, fanY: where the beams of the fan meet, pixels; used with Area.FAN, as all of the fan.
        fanLeft, fanRight: sides of the fan, degrees from straight down.
        fanStart, fanStop: distances of its arcs from where the beams meet, widths of a pixel; fanStop 0 is no fan yet.
        region, fanCorners, fanOutline: what draws the picture area, or the fan, in the slice view.
        compared: the transform sequence of the result that the shown one is compared with, or None.
        followFrame: whether the red slice view follows the image of the clip.
        profile: "auto", "none", or the name of a scanner profile.
        model: name of a model, or :data:`OWN_FILE`, and then modelFile.
        voxelSize, chunkFrames: 0 is automatic.

    The other settings of a run (:data:`SETTING_OF`) and what is known of the sweep (:mod:`~.knowledge`) are so, too.
    """

    browser: vtkMRMLSequenceBrowserNode
    sequence: vtkMRMLNode
    region: vtkMRMLMarkupsROINode
    fanCorners: vtkMRMLMarkupsFiducialNode
    fanOutline: vtkMRMLMarkupsClosedCurveNode
    compared: vtkMRMLSequenceNode
    followFrame: bool = True
    spacingX: Annotated[float, limits("spacing_mm", 0)] = 0.0
    spacingY: Annotated[float, limits("spacing_mm", 0)] = 0.0
    cropRegion: vtkMRMLMarkupsROINode
    ruler: vtkMRMLMarkupsLineNode
    rulerLength: Annotated[float, WithinRange(1, 1000)] = 10.0
    crop: str = ""
    depth: Annotated[float, limits("depth_mm", 0)] = 0.0
    mask: str = "auto"
    countedIn: str = ""
    firstFrame: Annotated[int, limits("first_frame")] = 0
    lastFrame: Annotated[int, WithinRange(0, MOST)] = 0
    area: Area = Area.WHOLE
    areaX: Annotated[int, WithinRange(0, 100000)] = 0
    areaY: Annotated[int, WithinRange(0, 100000)] = 0
    areaWidth: Annotated[int, WithinRange(0, 100000)] = 0
    areaHeight: Annotated[int, WithinRange(0, 100000)] = 0
    fanX: Annotated[float, WithinRange(-100000, 100000)] = 0.0
    fanY: Annotated[float, WithinRange(-100000, 100000)] = 0.0
    fanLeft: Annotated[float, WithinRange(-89, 89)] = 0.0
    fanRight: Annotated[float, WithinRange(-89, 89)] = 0.0
    fanStart: Annotated[float, WithinRange(0, 100000)] = 0.0
    fanStop: Annotated[float, WithinRange(0, 100000)] = 0.0
    profile: str = "auto"
    model: str = "mini"
    modelFile: Path = Path()
    poses: Poses = Poses.ESTIMATE
    voxelSize: Annotated[float, limits("voxel_mm", 0)] = 0.0
    chunkFrames: Annotated[int, limits("chunk_frames", 0)] = 0


def runSettings(parameters: DualTrackSlicerParameterNode, device: str = "auto") -> RunSettings:
    """What a run is asked for. Raises InputError: the settings contradict each other; one sentence."""
    return replace(
        preparing(parameters),
        model=modelName(parameters),
        device=device,
        chunk_frames=parameters.chunkFrames or "auto",
        poses=parameters.poses.value,
        profile="auto" if parameters.poses is Poses.TRACKED else parameters.profile,  # of the model's paths alone
        clip=givenArea(parameters),
        fan=givenFan(parameters) or ("auto" if parameters.area is Area.FOUND else "none"),
        voxel_mm=round(parameters.voxelSize, 4) or None,
        **{name: _value(getattr(parameters, parameter)) for parameter, name in SETTING_OF.items()},
    )


def preparing(parameters: DualTrackSlicerParameterNode) -> RunSettings:
    """The settings that prepare the clip, all others at their defaults. Raises InputError: they make no sense."""
    if parameters.lastFrame and parameters.lastFrame <= parameters.firstFrame:
        raise InputError(_("The last frame must come after the first one; choose a larger last frame."))
    try:
        crop = tuple(int(number) for number in parameters.crop.split(",")) if parameters.crop.strip() else None
    except ValueError:
        sentence = _("The crop is “{text}”; give left, top, width and height in pixels, or nothing.")
        raise InputError(sentence.format(text=parameters.crop)) from None
    return RunSettings(
        first_frame=parameters.firstFrame,
        last_frame=parameters.lastFrame or None,
        rotate=parameters.rotate.value,
        mirror=parameters.mirror,
        crop=crop,
        depth_mm=parameters.depth or None,
        mask=parameters.mask,
    )


def takeSettings(parameters: DualTrackSlicerParameterNode, settings: RunSettings) -> None:
    """Ask for the same run again; the device stays what it is on this computer."""
    with NodeModify(parameters):
        own = Path(settings.model).is_absolute()
        parameters.model, parameters.modelFile = (OWN_FILE, Path(settings.model)) if own else (settings.model, Path())
        parameters.chunkFrames = 0 if settings.chunk_frames == "auto" else settings.chunk_frames
        parameters.poses, parameters.profile = Poses(settings.poses), settings.profile
        parameters.firstFrame, parameters.lastFrame = settings.first_frame, settings.last_frame or 0
        parameters.crop = "" if settings.crop is None else ", ".join(map(str, settings.crop))
        parameters.depth, parameters.countedIn = settings.depth_mm or 0.0, ""
        boxes = (",".join(map(str, box)) for box in settings.mask_regions)
        parameters.mask = settings.mask if isinstance(settings.mask, str) else ";".join(boxes)
        parameters.voxelSize = settings.voxel_mm or 0.0
        parameters.area = Area.FOUND if settings.fan == "auto" else Area.WHOLE
        if settings.clip is not None:
            parameters.area = Area.GIVEN
            parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = settings.clip
        if isinstance(settings.fan, Fan):
            takeFan(parameters, settings.fan)
        for parameter, name in SETTING_OF.items():
            kind, value = type(getattr(parameters, parameter)), getattr(settings, name)
            setattr(parameters, parameter, kind(value))


def _value(parameter: object) -> object:
    return parameter.value if isinstance(parameter, Enum) else parameter


def modelName(parameters: DualTrackSlicerParameterNode) -> str:
    """Name of a model, or path of a weights file. Raises InputError: an own file is wanted and none is chosen."""
    if parameters.model != OWN_FILE:
        return parameters.model
    if parameters.modelFile == Path() or not parameters.modelFile.is_file():
        raise InputError(_("Choose the file of the model."))
    return str(parameters.modelFile)


def givenArea(parameters: DualTrackSlicerParameterNode) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) in pixels where an area is given, else None. Raises InputError: the area has no extent."""
    if parameters.area is not Area.GIVEN:
        return None
    if parameters.areaWidth < 1 or parameters.areaHeight < 1:
        raise InputError(_("The picture area is empty; draw it on the picture, or choose the whole frame."))
    return parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight


def givenFan(parameters: DualTrackSlicerParameterNode) -> Fan | None:
    """The fan where one is given, else None; its aspect is that of the pixels.

    Raises InputError: there is none yet, or its numbers make none.
    """
    if parameters.area is not Area.FAN:
        return None
    if parameters.fanStop <= 0:
        raise InputError(_("The fan is empty; press “Find it for me”, or draw it on the picture."))
    return Fan(
        (parameters.fanX, parameters.fanY),
        (parameters.fanLeft, parameters.fanRight),
        (parameters.fanStart, parameters.fanStop),
        aspect(parameters),
    )


def aspect(parameters: DualTrackSlicerParameterNode, turned: bool = True) -> float:
    """Height of a pixel over its width in the picture as it is turned, or as it is loaded; 1 where it is unknown."""
    sizes = parameters.spacingX, parameters.spacingY
    if min(sizes) <= 0:
        return 1.0
    return sizes[0] / sizes[1] if turned and parameters.rotate.value % 180 else sizes[1] / sizes[0]


def takeFan(parameters: DualTrackSlicerParameterNode, fan: Fan) -> None:
    """Keep a fan in the settings, to the tenth that the editors show."""
    with NodeModify(parameters):
        parameters.area = Area.FAN
        parameters.fanX, parameters.fanY = (_kept(value, 100000) for value in fan.origin_pixel)
        parameters.fanLeft, parameters.fanRight = (_kept(value, 89) for value in fan.angles_deg)
        parameters.fanStart, parameters.fanStop = (_kept(value, 100000) for value in fan.radii_pixel)


def _kept(value: float, most: float) -> float:
    return round(min(max(float(value), -most), most), 1)


def givenSpacing(
    parameters: DualTrackSlicerParameterNode, recorded_mm: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Pixel size (x, y) in mm where the panel's differs from the recorded one, else None, as where a depth gives it.

    Raises InputError: the pixel size is unknown.
    """
    spacing = parameters.spacingX, parameters.spacingY
    if parameters.depth:
        return None
    if min(spacing) <= 0:
        raise InputError(_("The size of a pixel is unknown; enter it in mm, without it nothing can be measured."))
    if recorded_mm is not None and all(
        abs(one - other) < SPACING_TOLERANCE_MM for one, other in zip(spacing, recorded_mm, strict=True)
    ):
        return None
    return spacing


def consoleScript(
    clip_name: str,
    settings: RunSettings,
    spacing_mm: tuple[float, float] | None = None,
    *,
    is_volume: bool = False,
    sequence_name: str | None = None,
) -> str:
    """A script for Slicer's Python console.

    Args:
        clip_name: name of the sequence browser, or of the volume whose slices are the frames.
        settings: of the run; only what differs from the defaults is written.
        spacing_mm: pixel size (x, y) where it replaces the recorded one.
        is_volume: whether `clip_name` is a volume.
        sequence_name: the image sequence, where the browser has several.
    """
    changed = [f"    {name}={value!r}," for name, value in settings.changed().items() if name != "model"]
    lines = ["from DualTrackSlicer import DualTrackSlicerLogic"]
    lines += ["from DualTrackCore.run import RunSettings"] if changed else []
    lines += ["from DualTrackCore.reconstruction import Fan"] if isinstance(settings.fan, Fan) else []
    kind = "vtkMRMLScalarVolumeNode" if is_volume else "vtkMRMLSequenceBrowserNode"
    lines += ["", "logic = DualTrackSlicerLogic()", f"clip = {_node(kind, clip_name)}"]
    lines += ["clip = logic.sequenceFromVolume(clip)"] if is_volume else []
    arguments = ["clip"]
    if sequence_name is not None:
        lines += [f"images = {_node('vtkMRMLSequenceNode', sequence_name)}"]
        arguments += ["sequenceNode=images"]
    if changed:
        lines += ["settings = RunSettings(", f"    model={settings.model!r},", *changed, ")"]
        arguments += ["settings=settings"]
    else:
        arguments += [f"model={settings.model!r}"]
    if spacing_mm is not None:
        x, y = (round(value, 6) for value in spacing_mm)
        arguments += [f"spacing_mm=({x:g}, {y:g})"]
    lines += [f"nodes = logic.run({', '.join(arguments)})"]
    return "\n".join(lines) + "\n"


def _node(kind: str, name: str) -> str:
    return f"slicer.util.getFirstNodeByClassByName({kind!r}, {name!r})"
