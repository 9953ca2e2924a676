"""The reconstruction settings of a PLUS configuration file, for volumes to be compared with those of PLUS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from DualTrackCore.reconstruction import Fan, HoleFilling

_INTERPOLATIONS = {"NEAREST_NEIGHBOR": "nearest", "LINEAR": "linear"}
_COMPOUNDINGS = {"LATEST": "latest", "MAXIMUM": "maximum", "MEAN": "mean", "ON": "mean", "OFF": "latest"}
_METHODS = {
    "GAUSSIAN": "gaussian",
    "DISTANCE_WEIGHT_INVERSE": "distance",
    "NEAREST_NEIGHBOR": "nearest",
    "STICK": "stick",
}
_FILLING_OPTIONS = {
    "Size": ("size", int),
    "Stdev": ("stdev_voxels", float),
    "MinimumKnownVoxelsRatio": ("min_known_ratio", float),
    "StickLengthLimit": ("stick_length", int),
    "NumberOfSticksToUse": ("sticks", int),
}


@dataclass(frozen=True)
class PlusReconstructionSettings:
    """The VolumeReconstruction element of a PLUS configuration, as :func:`reconstruct_volume` names its options."""

    spacing_mm: tuple[float, ...]
    interpolation: str
    compounding: str
    clip: tuple[int, ...] | None
    fan: Fan | None
    hole_filling: tuple[HoleFilling, ...]


def reconstruction_settings_from_plus_config(path: Path) -> PlusReconstructionSettings:
    """Read a configuration that is known to be sound; older ones say Compounding ON where newer ones say MEAN."""
    element = next(ElementTree.parse(path).iter("VolumeReconstruction"))
    clip = (*_numbers(element, "ClipRectangleOrigin"), *_numbers(element, "ClipRectangleSize"))
    compounding = element.get("CompoundingMode") or element.get("Compounding") or "LATEST"
    return PlusReconstructionSettings(
        spacing_mm=_numbers(element, "OutputSpacing"),
        interpolation=_INTERPOLATIONS[element.get("Interpolation", "NEAREST_NEIGHBOR").upper()],
        compounding=_COMPOUNDINGS[compounding.upper()],
        clip=tuple(map(int, clip)) if len(clip) == 4 and min(clip[2:]) > 0 else None,
        fan=_fan(element),
        hole_filling=tuple(map(_filling, element.iter("HoleFillingElement"))) if _is_on(element, "FillHoles") else (),
    )


def _numbers(element: ElementTree.Element, name: str) -> tuple[float, ...]:
    return tuple(map(float, element.get(name, "").split()))


def _is_on(element: ElementTree.Element, name: str) -> bool:
    return element.get(name, "OFF").upper() == "ON"


def _fan(element: ElementTree.Element) -> Fan | None:
    angles, origin = _numbers(element, "FanAnglesDeg"), _numbers(element, "FanOriginPixel")
    if not origin or not any(angles):
        return None
    start, stop = _numbers(element, "FanRadiusStartPixel"), _numbers(element, "FanRadiusStopPixel")
    # Without radii the sector has no arcs; so it stops where no frame reaches.
    return Fan(origin, angles, (*(start or (0.0,)), *(stop or (1e6,))))


def _filling(element: ElementTree.Element) -> HoleFilling:
    given = {
        option: kind(element.get(name)) for name, (option, kind) in _FILLING_OPTIONS.items() if name in element.attrib
    }
    return HoleFilling(_METHODS[element.get("Type").upper()], **given)
