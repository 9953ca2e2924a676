"""The description of a stack by ImageJ and OME in a TIFF file: channels, slices, times and the size of pixels.

OME as in its schema of 2016-06; fields of ImageJ as its FileInfo writes them into the description.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from DualTrackCore.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffFile

_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "nm": 1e-6, "micron": 1e-3, "um": 1e-3, "µm": 1e-3, "\\u00B5m": 1e-3}
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "min": 60.0}
_RESOLUTION_TAGS = ("XResolution", "YResolution")


class Stack(NamedTuple):
    """The description of a stack.

    Attributes:
        channels, slices, frames: numbers; their product is the number of pictures.
        spacing_mm: size of a pixel (across columns, down rows), or None.
        step_s: time from frame to frame, or None.
        rate_field: the field with this time.
    """

    channels: int = 1
    slices: int = 1
    frames: int = 1
    spacing_mm: tuple[float, float] | None = None
    step_s: float | None = None
    rate_field: str | None = None


def described_stack(name: str, tiff: TiffFile, pictures: int) -> Stack:
    """The description of the stack in a file, empty for files of other programs.

    Args:
        name: of the file, for messages.
        tiff: the file.
        pictures: number of pictures in the file, without thumbnails.

    Raises InputError: several pictures a frame, volumes over time, or fewer pictures than are described.
    """
    stack = _of_imagej(tiff) if tiff.is_imagej else _of_ome(tiff.ome_metadata) if tiff.is_ome else Stack()
    if stack.channels > 1:
        raise InputError(
            f"{name} has {stack.channels} pictures (channels) for each frame; in ImageJ choose Image > Color > Split "
            "Channels, and save the one with the ultrasound."
        )
    if stack.slices > 1 and stack.frames > 1:
        raise InputError(
            f"{name} holds {stack.frames} volumes of {stack.slices} slices; a sweep is one stack of frames, so save "
            "one of them."
        )
    if stack.slices * stack.frames > pictures:
        raise InputError(
            f"{name} says that it has {stack.slices * stack.frames} pictures and holds {pictures}; the others are lost "
            "or in other files: save the whole stack into one file."
        )
    return stack


def _of_imagej(tiff: TiffFile) -> Stack:
    fields = tiff.imagej_metadata or {}
    counts = [_count(fields.get(name)) for name in ("channels", "slices", "frames")]
    counts[2] = max(counts[2], _count(fields.get("images")) // math.prod(counts[:2]) if counts[1] == 1 else 1)
    unit, page = _MM.get(str(fields.get("unit"))), tiff.pages[0]
    spacing = None
    if unit is not None and all(tag in page.tags for tag in _RESOLUTION_TAGS):
        spacing = _spacing(*(unit / value if value else 0.0 for value in page.resolution))
    step = _step(fields.get("finterval"), fields.get("tunit") or "s")
    return Stack(*counts, spacing, step, "finterval")


def _of_ome(text: str | None) -> Stack:
    try:
        # A document type could include other files or grow without limit; OME has none.
        root = None if not text or "<!" in text.replace("<!--", "") else ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        root = None
    pixels = None if root is None else root.find(".//{*}Pixels")
    if pixels is None:
        return Stack()
    channels = len(pixels.findall("{*}Channel")) or _count(pixels.get("SizeC"))
    sizes = (
        _number(pixels.get(f"PhysicalSize{axis}")) * _MM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), 0.0)
        for axis in "XY"
    )
    step = _step(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    counts = (channels, *(_count(pixels.get(name)) for name in ("SizeZ", "SizeT")))
    return Stack(*counts, _spacing(*sizes), step, "TimeIncrement")


def _count(value: Any) -> int:
    number = _number(value)
    return int(number) if 1 <= number < 1e9 else 1


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _spacing(across: float, down: float) -> tuple[float, float] | None:
    return (across, down) if min(across, down) > 0 and max(across, down) <= 10 else None


def _step(value: Any, unit: str) -> float | None:
    step = _number(value) * _SECONDS.get(unit, 0.0)
    return step if 0 < step < 1e3 else None
