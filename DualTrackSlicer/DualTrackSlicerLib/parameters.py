"""The settings of the panel as they are kept in the scene, and what they ask of a run."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from slicer import (
    vtkMRMLMarkupsClosedCurveNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLNode,
    vtkMRMLSequenceBrowserNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.util import NodeModify

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run.settings import RunSettings

#: The name of the model list's last entry: a weights file that is not installed.
OWN_FILE = "own file"
#: Pixel sizes nearer than this are the same: the editors show five digits.
SPACING_TOLERANCE_MM = 1e-5


class Poses(Enum):
    """Where the frames lie; scenes keep the names, runs take the values."""

    ESTIMATE = "estimate"
    TRACKED = "tracked"

    def label(self) -> str:
        """Text in the chooser."""
        return {"estimate": _("estimated from the pictures"), "tracked": _("measured by the tracker")}[self.value]


class Area(Enum):
    """Which part of a frame goes into the volume."""

    WHOLE = "whole"
    FOUND = "found"
    GIVEN = "given"
    FAN = "fan"

    def label(self) -> str:
        """Text in the chooser."""
        labels = {
            "whole": _("whole frame"),
            "found": _("found automatically"),
            "given": _("as given below"),
            "fan": _("a fan, as given below"),
        }
        return labels[self.value]


class Compounding(Enum):
    """What a voxel shows that several frames have seen."""

    MEAN = "mean"
    MAXIMUM = "maximum"
    LATEST = "latest"

    def label(self) -> str:
        """Text in the chooser."""
        return {"mean": _("mean"), "maximum": _("brightest"), "latest": _("last seen")}[self.value]


class Holes(Enum):
    """How voxels between frames are filled."""

    STICK = "stick"
    NONE = "none"
    NEAREST = "nearest"
    DISTANCE = "distance"
    GAUSSIAN = "gaussian"

    def label(self) -> str:
        """Text in the chooser."""
        labels = {
            "stick": _("fill along the shortest line"),
            "none": _("leave empty"),
            "nearest": _("fill with the nearest"),
            "distance": _("fill with the mean around, by distance"),
            "gaussian": _("fill with the mean around, smoothly"),
        }
        return labels[self.value]


class Interpolation(Enum):
    """How a pixel is given to voxels."""

    LINEAR = "linear"
    NEAREST = "nearest"

    def label(self) -> str:
        """Text in the chooser."""
        return {"linear": _("shared among neighbours"), "nearest": _("given to the nearest")}[self.value]


class Precision(Enum):
    """Number format of the network."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def label(self) -> str:
        """Text in the chooser."""
        return _("automatic") if self is Precision.AUTO else self.value


class Views(Enum):
    """How often the network looks at the clip, each time another way, for the mean of what it finds."""

    ONE = 1
    TWO = 2
    FOUR = 4

    def label(self) -> str:
        """Text in the chooser."""
        return {1: _("as it is"), 2: _("also mirrored"), 4: _("also mirrored and backwards")}[self.value]


@parameterNodeWrapper
class DualTrackSlicerParameterNode:
    """The settings of the panel, saved and restored with the scene.

    Attributes:
        browser, sequence: the chosen clip, and `sequence` alone the volume whose slices are the frames.
        spacingX, spacingY: pixel size, mm; 0 is unknown.
        firstFrame, lastFrame: counted from 1, both included; lastFrame 0 is the last one.
        areaX, areaY, areaWidth, areaHeight: picture area, pixels; used with Area.GIVEN.
        fanX, fanY: where the beams of the fan meet, pixels; used with Area.FAN, as all of the fan.
        fanLeft, fanRight: sides of the fan, degrees from straight down.
        fanStart, fanStop: distances of its arcs from where the beams meet, widths of a pixel; fanStop 0 is no fan yet.
        region: box that draws the picture area in the slice view.
        fanCorners, fanOutline: what draws the fan there.
        model: name of a model, or :data:`OWN_FILE`, and then modelFile.
        voxelSize, chunkFrames: 0 is automatic.
    """

    browser: vtkMRMLSequenceBrowserNode
    sequence: vtkMRMLNode
    region: vtkMRMLMarkupsROINode
    fanCorners: vtkMRMLMarkupsFiducialNode
    fanOutline: vtkMRMLMarkupsClosedCurveNode
    spacingX: Annotated[float, WithinRange(0, 10)] = 0.0
    spacingY: Annotated[float, WithinRange(0, 10)] = 0.0
    firstFrame: Annotated[int, WithinRange(1, 1000000)] = 1
    lastFrame: Annotated[int, WithinRange(0, 1000000)] = 0
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
    model: str = "mini"
    modelFile: Path = Path()
    poses: Poses = Poses.ESTIMATE
    makeVolume: bool = True
    voxelSize: Annotated[float, WithinRange(0, 20)] = 0.0
    compounding: Compounding = Compounding.MEAN
    holeFilling: Holes = Holes.STICK
    interpolation: Interpolation = Interpolation.LINEAR
    views: Views = Views.ONE
    precision: Precision = Precision.AUTO
    chunkFrames: Annotated[int, WithinRange(0, 1024)] = 0


def runSettings(parameters: DualTrackSlicerParameterNode, device: str = "auto") -> RunSettings:
    """What a run is asked for.

    Raises:
        InputError: the settings contradict each other; one sentence.
    """
    if parameters.lastFrame and parameters.lastFrame <= parameters.firstFrame:
        raise InputError(_("The last frame must come after the first one; choose a larger last frame."))
    return RunSettings(
        model=modelName(parameters),
        device=device,
        precision=parameters.precision.value,
        chunk_frames=parameters.chunkFrames or "auto",
        test_time_augmentation=parameters.views.value,
        poses=parameters.poses.value,
        reconstruct=parameters.makeVolume,
        first_frame=parameters.firstFrame - 1,
        last_frame=parameters.lastFrame - 1 if parameters.lastFrame else None,
        clip=givenArea(parameters),
        fan=givenFan(parameters) or ("auto" if parameters.area is Area.FOUND else "none"),
        voxel_mm=round(parameters.voxelSize, 4) or None,
        interpolation=parameters.interpolation.value,
        compounding=parameters.compounding.value,
        hole_filling=parameters.holeFilling.value,
    )


def modelName(parameters: DualTrackSlicerParameterNode) -> str:
    """Name of a model, or path of a weights file.

    Raises:
        InputError: an own file is wanted and none is chosen.
    """
    if parameters.model != OWN_FILE:
        return parameters.model
    if parameters.modelFile == Path() or not parameters.modelFile.is_file():
        raise InputError(_("Choose the file of the model."))
    return str(parameters.modelFile)


def givenArea(parameters: DualTrackSlicerParameterNode) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) in pixels where an area is given, else None.

    Raises:
        InputError: the area has no extent.
    """
    if parameters.area is not Area.GIVEN:
        return None
    if parameters.areaWidth < 1 or parameters.areaHeight < 1:
        raise InputError(_("The picture area is empty; draw it on the picture, or choose the whole frame."))
    return parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight


def givenFan(parameters: DualTrackSlicerParameterNode) -> Fan | None:
    """The fan where one is given, else None; its aspect is that of the pixels.

    Raises:
        InputError: there is none yet, or its numbers make none.
    """
    if parameters.area is not Area.FAN:
        return None
    if parameters.fanStop <= 0:
        raise InputError(_("The fan is empty; press “Find it for me”, or draw it on the picture."))
    across, down = parameters.spacingX, parameters.spacingY
    return Fan(
        (parameters.fanX, parameters.fanY),
        (parameters.fanLeft, parameters.fanRight),
        (parameters.fanStart, parameters.fanStop),
        down / across if min(across, down) > 0 else 1.0,
    )


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
    """Pixel size (x, y) in mm where the panel's differs from the recorded one, else None.

    Raises:
        InputError: the pixel size is unknown.
    """
    spacing = parameters.spacingX, parameters.spacingY
    if min(spacing) <= 0:
        raise InputError(_("The size of a pixel is unknown; enter it in mm, without it nothing can be measured."))
    if recorded_mm is not None and all(
        abs(one - other) < SPACING_TOLERANCE_MM for one, other in zip(spacing, recorded_mm, strict=True)
    ):
        return None
    return spacing
