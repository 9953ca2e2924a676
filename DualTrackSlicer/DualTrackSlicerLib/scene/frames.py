"""The pixels of a volume sequence as the frames of a sweep."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_to_numpy_typemap

from DualTrackCore.errors import InputError
from DualTrackCore.grey import conversion_in_pieces
from DualTrackCore.io.sequence_parts import FrameFields, Orientation, parse_orientation
from DualTrackCore.pixels import Converted, WindowSource
from DualTrackSlicerLib.scene.nodes import HEADER, header_text, ijk_to_ras_of
from DualTrackSlicerLib.scene.nodes import tr as _

_MF = Orientation("MF")
#: Seconds in a unit of the index of a sequence.
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3}
#: Items of a sequence that are looked at before its frames are read.
_LOOKED_AT = 64
#: Items of a sequence whose places are read in one step, of a few milliseconds.
ITEMS = 512
#: Python attribute of a node: its state, and how its pixels become grey.
_KNOWN = "dualTrackConversion"


@dataclass(frozen=True)
class FrameLayout:
    """How the frames of a sequence are stored.

    Attributes:
        dimensions: voxels of each item along I, J, K; one of them is 1.
        channels: 1 for grey, 3 for colour, 4 with alpha.
        scalar_type: VTK's number of the pixel type.
        orientation: how the frames are stored; pixels count in MF, as the transforms of PLUS do.
    """

    dimensions: tuple[int, int, int]
    channels: int
    scalar_type: int
    orientation: Orientation = _MF

    @property
    def _stored_plane(self) -> tuple[int, int]:
        """Axes (I is 0) from column to column and from row to row, as they are stored."""
        empty = max(axis for axis in range(3) if self.dimensions[axis] == 1)
        across, down = (axis for axis in range(3) if axis != empty)
        return across, down

    @property
    def plane(self) -> tuple[int, int]:
        """Axes (I is 0) from column to column and from row to row of the frames in MF."""
        return self._stored_plane[:: -1 if self.orientation.transposed else 1]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        across, down = self.plane
        return self.dimensions[across], self.dimensions[down]

    @property
    def ijk_from_pixel(self) -> np.ndarray:
        """[4, 4] float64: pixel (column, row, 0, 1) to voxel index."""
        across, down = self.plane
        matrix = np.zeros((4, 4))
        matrix[across, 0] = matrix[down, 1] = matrix[3 - across - down, 2] = matrix[3, 3] = 1.0
        flips = (across, 0, self.orientation.columns_reversed), (down, 1, self.orientation.rows_reversed)
        for axis, column, is_reversed in flips:
            if is_reversed:
                matrix[axis, column], matrix[axis, 3] = -1.0, self.dimensions[axis] - 1
        return matrix

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """(rows, columns) of an image as it is stored, with channels (rows, columns, channels)."""
        across, down = self._stored_plane
        shape = (self.dimensions[down], self.dimensions[across], self.channels)
        return shape[: 2 if self.channels == 1 else 3]


def layout_of(sequence: slicer.vtkMRMLSequenceNode) -> FrameLayout:
    """The layout that the items of a sequence share; no pixel is read.

    Of a long sequence some items are looked at; the others are where they are read, which refuses them in the same way.

    Raises InputError: fewer than two items, an item without image, volumes of several slices, sizes that change.
    """
    name, count = sequence.GetName(), sequence.GetNumberOfDataNodes()
    if count < 2:
        one = _("{name} has 1 frame; a sweep needs at least two.")
        none = _("{name} has 0 frames; a sweep needs at least two.")
        raise InputError((one if count else none).format(name=name))
    first, _pixels = _item(sequence, 0)
    if 1 not in first.dimensions:
        sentence = _(
            "{name} is a sequence of volumes of {count} slices; a sweep is made of single images, so choose a clip of "
            "2D frames."
        )
        raise InputError(sentence.format(name=name, count=first.dimensions[2]))
    if first.channels > 4:
        sentence = _("{name} has {count} values a pixel; 1 to 4 can be read as grey or colour.")
        raise InputError(sentence.format(name=name, count=first.channels))
    for number in _looked_at(count):
        _pixels_like(sequence, number, first)
    return first_layout(sequence)


def _looked_at(count: int) -> list[int]:
    return np.unique(np.linspace(1, count - 1, _LOOKED_AT).round().astype(int)).tolist()


def first_layout(sequence: slicer.vtkMRMLSequenceNode) -> FrameLayout:
    """The layout of the first item, where it is known that all share it. Raises InputError: it has no image."""
    first, _pixels = _item(sequence, 0)
    said = header_text(sequence, "UltrasoundImageOrientation") or header_text(sequence, "ultrasound image orientation")
    return replace(first, orientation=parse_orientation(said)) if said else first


def placed_pixels(sequence: slicer.vtkMRMLSequenceNode, layout: FrameLayout) -> Generator[None, None, np.ndarray]:
    """[N, 4, 4]: pixel (column, row, 0, 1) in MF to the local RAS of each image, mm; of a long sequence in pieces."""
    numbers, parts = range(sequence.GetNumberOfDataNodes()), []
    for start in range(0, len(numbers), ITEMS):
        if start:
            yield
        parts.append(ijk_to_ras_of(map(sequence.GetNthDataNode, numbers[start : start + ITEMS])))
    return np.concatenate(parts) @ layout.ijk_from_pixel


def _item(sequence: slicer.vtkMRMLSequenceNode, number: int) -> tuple[FrameLayout, vtk.vtkImageExport]:
    """The layout of an item, and what copies its pixels.

    The image stays out of Python: letting go of one takes VTK the longer, the more of them Python has met.
    """
    item, pixels = sequence.GetNthDataNode(number), vtk.vtkImageExport()
    connection = None if item is None or not item.IsA("vtkMRMLVolumeNode") else item.GetImageDataConnection()
    if connection is not None:
        pixels.SetInputConnection(connection)
        pixels.Update()
        kind = pixels.GetDataScalarType()
        # An image without values passes for one of double precision.
        if kind != vtk.VTK_DOUBLE or item.GetImageData().GetPointData().GetScalars() is not None:
            layout = FrameLayout(tuple(pixels.GetDataDimensions()), pixels.GetDataNumberOfScalarComponents(), kind)
            if 0 not in layout.dimensions:
                return layout, pixels
    sentence = _("Frame {number} of {name} has no image; load the clip again.")
    raise InputError(sentence.format(number=number, name=sequence.GetName()))


def _pixels_like(sequence: slicer.vtkMRMLSequenceNode, number: int, first: FrameLayout) -> vtk.vtkImageExport:
    item, pixels = _item(sequence, number)
    if item != replace(first, orientation=item.orientation):
        sentence = _(
            "{name} changes at frame {number} from {before} to {after}; all frames of a sweep must be alike: "
            "cut the clip there."
        )
        before, after = _described(first), _described(item)
        raise InputError(sentence.format(name=sequence.GetName(), number=number, before=before, after=after))
    return pixels


def _described(layout: FrameLayout) -> str:
    width, height = layout.size if 1 in layout.dimensions else layout.dimensions[:2]
    kinds = {1: _("grey"), 2: _("grey with alpha"), 3: _("colour"), 4: _("colour with alpha")}
    kind = kinds.get(layout.channels) or _("{count} values").format(count=layout.channels)
    return _("{width} x {height} pixels in {kind}").format(width=width, height=height, kind=kind)


def fields_of(images: slicer.vtkMRMLSequenceNode) -> FrameFields:
    """What the file of the images says of each frame; Slicer keeps the header of a .seq.nrrd as attributes."""
    fields = FrameFields()
    for name in images.GetAttributeNames() or ():
        fields.add(name.removeprefix(HEADER), images.GetAttribute(name))
    return fields


def timestamps_of(sequence: slicer.vtkMRMLSequenceNode, fields: FrameFields) -> np.ndarray | None:
    """[N] seconds of the file, else of the index; None where that is no time or does not advance."""
    known, _gaps = fields.times(sequence.GetNumberOfDataNodes())
    if known is not None:
        return known
    scale = _SECONDS.get((sequence.GetIndexUnit() or "").lower())
    if scale is None or sequence.GetIndexType() != slicer.vtkMRMLSequenceNode.NumericIndex:
        return None
    values = [sequence.GetNthIndexValue(number) for number in range(sequence.GetNumberOfDataNodes())]
    times = np.array([float(value) for value in values]) * scale
    return times if len(times) and np.isfinite(times).all() and (np.diff(times) >= 0).all() else None


class _StoredPixels(WindowSource):
    """The pixels of the items of a sequence as the scene has them, looked up when they are read; channels come last.

    Reading raises InputError: an item is not like the others, or has no image.
    """

    def __init__(self, sequence: slicer.vtkMRMLSequenceNode, layout: FrameLayout) -> None:
        self._sequence, self._layout = sequence, layout
        self.dtype = np.dtype(get_vtk_to_numpy_typemap()[layout.scalar_type])
        self.shape = (sequence.GetNumberOfDataNodes(), *self.window(0, 1).shape[1:])

    def window(self, start: int, stop: int) -> np.ndarray:
        stored = np.empty((max(stop - start, 0), *self._layout.stored_shape), self.dtype)
        for number, image in enumerate(stored, start):
            _pixels_like(self._sequence, number, self._layout).Export(image)
        return np.ascontiguousarray(self._layout.orientation.to_mf(stored))

    def windows(self) -> Iterator[np.ndarray]:
        return (self.window(number, number + 1) for number in range(len(self)))


class _SlicePixels(_StoredPixels):
    """As the items of a sequence, the slices of a volume."""

    def __init__(self, volume: slicer.vtkMRMLVolumeNode) -> None:
        self._slices = slicer.util.arrayFromVolume(volume)
        self.shape, self.dtype = self._slices.shape, self._slices.dtype

    def window(self, start: int, stop: int) -> np.ndarray:
        return self._slices[start:stop]


def frames_in_pieces(
    node: slicer.vtkMRMLSequenceNode | slicer.vtkMRMLVolumeNode, layout: FrameLayout | None
) -> Generator[object, None, tuple[WindowSource, list[str]]]:
    """The frames of a sequence, or of a volume (without layout), and the sentences that say what was converted.

    They stay in the scene's memory, and turn grey, 8 bits, when they are read. Pixel types of more bits need one range
    for all frames, so all are looked at first, one at each step; what is found is kept with the node while it is the
    same.

    Raises InputError: frames that are not alike, pixels that are no real finite numbers.
    """
    pixels = _SlicePixels(node) if layout is None else _StoredPixels(node, layout)
    turned = layout.orientation.notes if layout is not None and layout.orientation.is_turned else []
    state = () if pixels.dtype == np.uint8 else _state(node, pixels)
    known = getattr(node, _KNOWN, None) if state else None
    if known is None or known[0] != state:
        known = state, (yield from conversion_in_pieces(pixels, has_colour=len(pixels.shape) == 4))
        if state and _state(node, pixels) != state:
            raise InputError(_("{name} changed while it was looked at; try again.").format(name=node.GetName()))
        setattr(node, _KNOWN, known)
    conversion, notes = known[1]
    return Converted(pixels, conversion), notes + turned


def _state(node: slicer.vtkMRMLSequenceNode | slicer.vtkMRMLVolumeNode, pixels: WindowSource) -> tuple[object, ...]:
    """What a conversion depends on; of a long clip some images are looked at."""
    if node.IsA("vtkMRMLVolumeNode"):
        return node.GetMTime(), node.GetImageData().GetMTime(), pixels.shape
    images = (_item(node, number)[1].GetInputConnection(0, 0) for number in _looked_at(len(pixels)))
    return node.GetMTime(), pixels.shape, *(image.GetProducer().GetMTime() for image in images)
