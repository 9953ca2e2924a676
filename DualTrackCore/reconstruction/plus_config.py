"""The reconstruction settings of a PLUS configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction.holes import HoleFilling
from DualTrackCore.reconstruction.mask import Fan

#: Configuration files are a few kilobytes; anything larger is another kind of file.
LARGEST_FILE_BYTES = 10_000_000

_INTERPOLATIONS = {"NEAREST_NEIGHBOR": "nearest", "LINEAR": "linear"}
_COMPOUNDINGS = {"LATEST": "latest", "MAXIMUM": "maximum", "MEAN": "mean"}
_OLD_COMPOUNDINGS = {"ON": "mean", "OFF": "latest"}
_METHODS = {
    "GAUSSIAN": "gaussian",
    "DISTANCE_WEIGHT_INVERSE": "distance",
    "NEAREST_NEIGHBOR": "nearest",
    "STICK": "stick",
}


@dataclass(frozen=True)
class PlusReconstructionSettings:
    """The VolumeReconstruction element of a PLUS configuration, in the words of :func:`reconstruct_volume`.

    Attributes:
        spacing_mm: OutputSpacing, mm.
        interpolation: "nearest" or "linear".
        compounding: "mean", "maximum" or "latest".
        clip: (x, y, width, height) in pixels, or None.
        fan: the sector, or None.
        reject_below: PixelRejectionThreshold, 0 where it is off.
        hole_filling: tried in turn; empty where FillHoles is off.
    """

    spacing_mm: tuple[float, float, float]
    interpolation: str
    compounding: str
    clip: tuple[int, int, int, int] | None
    fan: Fan | None
    reject_below: int
    hole_filling: tuple[HoleFilling, ...]


def reconstruction_settings_from_plus_config(path: str | os.PathLike) -> PlusReconstructionSettings:
    """Read the VolumeReconstruction element of a PLUS configuration file.

    Raises:
        InputError: the file cannot be read, has no such element, or the element asks for something unknown.
    """
    path = Path(path)
    element = _element(path)
    numbers = _NumberReader(path, element)
    spacing = numbers.read("OutputSpacing", 3)
    if spacing is None:
        raise InputError(f"{path.name} gives no OutputSpacing for the volume reconstruction.")
    return PlusReconstructionSettings(
        spacing_mm=spacing,
        interpolation=_choice(path, element, "Interpolation", _INTERPOLATIONS, "NEAREST_NEIGHBOR"),
        compounding=_compounding(path, element),
        clip=_clip(numbers),
        fan=_fan(numbers),
        reject_below=max(0, round((numbers.read("PixelRejectionThreshold", 1) or (0.0,))[0])),
        hole_filling=_hole_filling(path, element),
    )


def _element(path: Path) -> ElementTree.Element:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise InputError(f"{path.name} is {size} bytes long; a PLUS configuration has a few thousand.")
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is not a readable XML file: {error}.") from error
    element = next(root.iter("VolumeReconstruction"), None)
    if element is None:
        raise InputError(f"{path.name} has no VolumeReconstruction element; choose a PLUS configuration that has one.")
    return element


@dataclass(frozen=True)
class _NumberReader:
    path: Path
    element: ElementTree.Element

    def read(self, name: str, count: int) -> tuple[float, ...] | None:
        """The numbers of an attribute, or None where it is missing."""
        text = self.element.get(name)
        if text is None:
            return None
        try:
            values = tuple(float(word) for word in text.split())
        except ValueError:
            values = ()
        if len(values) != count:
            raise InputError(f'{self.path.name} gives {name}="{text}"; expected {count} numbers.')
        return values


def _choice(path: Path, element: ElementTree.Element, name: str, choices: dict[str, str], default: str) -> str:
    text = element.get(name, default).upper()
    if text not in choices:
        raise InputError(f'{path.name} asks for {name}="{text}"; known are {", ".join(choices)}.')
    return choices[text]


def _compounding(path: Path, element: ElementTree.Element) -> str:
    if element.get("CompoundingMode") is None and element.get("Compounding") is not None:
        return _choice(path, element, "Compounding", _OLD_COMPOUNDINGS, "OFF")
    return _choice(path, element, "CompoundingMode", _COMPOUNDINGS, "LATEST")


def _clip(numbers: _NumberReader) -> tuple[int, int, int, int] | None:
    origin, size = numbers.read("ClipRectangleOrigin", 2), numbers.read("ClipRectangleSize", 2)
    if origin is None or size is None or min(size) <= 0:
        return None
    return int(origin[0]), int(origin[1]), int(size[0]), int(size[1])


def _fan(numbers: _NumberReader) -> Fan | None:
    angles, origin = numbers.read("FanAnglesDeg", 2), numbers.read("FanOriginPixel", 2)
    if angles is None or origin is None or angles == (0.0, 0.0):
        return None
    start, stop = numbers.read("FanRadiusStartPixel", 1), numbers.read("FanRadiusStopPixel", 1)
    # Without radii the sector has no arcs; a stop no frame reaches says so.
    return Fan(origin, angles, (start[0] if start else 0.0, stop[0] if stop else 1e6))


def _hole_filling(path: Path, element: ElementTree.Element) -> tuple[HoleFilling, ...]:
    if element.get("FillHoles", "OFF").upper() != "ON":
        return ()
    fillings = []
    for item in element.iter("HoleFillingElement"):
        numbers = _NumberReader(path, item)
        method = _choice(path, item, "Type", _METHODS, "")
        values = {
            "size": numbers.read("Size", 1),
            "stdev_voxels": numbers.read("Stdev", 1),
            "min_known_ratio": numbers.read("MinimumKnownVoxelsRatio", 1),
            "stick_length": numbers.read("StickLengthLimit", 1),
            "sticks": numbers.read("NumberOfSticksToUse", 1),
        }
        given = {
            name: value[0] if name in ("stdev_voxels", "min_known_ratio") else int(value[0])
            for name, value in values.items()
            if value is not None
        }
        fillings.append(HoleFilling(method, **given))
    if not fillings:
        raise InputError(f"{path.name} switches FillHoles on and has no HoleFillingElement.")
    return tuple(fillings)
