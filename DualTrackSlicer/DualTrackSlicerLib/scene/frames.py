"""The pixels of a volume sequence as the frames of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from DualTrackCore.errors import InputError
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io.sequence_parts import Orientation, parse_orientation
from DualTrackCore.progress import Reporter
from DualTrackSlicerLib.scene.nodes import header_text, ijk_to_ras_of
from DualTrackSlicerLib.scene.nodes import tr as _

_MF = Orientation("MF")
#: Items of a sequence that are looked at before its frames are read; VTK takes a quarter of a millisecond for each.
_LOOKED_AT = 64


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

    def frame(self, scalars: np.ndarray) -> np.ndarray:
        """The values of an image, as VTK has them, as a view [H, W] or [H, W, channels] in MF."""
        across, down = self._stored_plane
        shape = (self.dimensions[down], self.dimensions[across], self.channels)
        return self.orientation.to_mf(scalars.reshape(1, *shape[: 2 if self.channels == 1 else 3]))[0]


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
    for number in np.unique(np.linspace(1, count - 1, _LOOKED_AT).round().astype(int)).tolist():
        _pixels_like(sequence, number, first)
    return first_layout(sequence)


def first_layout(sequence: slicer.vtkMRMLSequenceNode) -> FrameLayout:
    """The layout of the first item, where it is known that all share it. Raises InputError: it has no image."""
    first, _pixels = _item(sequence, 0)
    said = header_text(sequence, "UltrasoundImageOrientation") or header_text(sequence, "ultrasound image orientation")
    return replace(first, orientation=parse_orientation(said)) if said else first


def placed_pixels(sequence: slicer.vtkMRMLSequenceNode, layout: FrameLayout) -> np.ndarray:
    """[N, 4, 4]: pixel (column, row, 0, 1) in MF to the local RAS of each image, mm."""
    items = (sequence.GetNthDataNode(number) for number in range(sequence.GetNumberOfDataNodes()))
    return ijk_to_ras_of(items) @ layout.ijk_from_pixel


def _item(sequence: slicer.vtkMRMLSequenceNode, number: int) -> tuple[FrameLayout, vtk.vtkDataArray]:
    item = sequence.GetNthDataNode(number)
    image = None if item is None or not item.IsA("vtkMRMLVolumeNode") else item.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    if scalars is None or 0 in image.GetDimensions():
        sentence = _("Frame {number} of {name} has no image; load the clip again.")
        raise InputError(sentence.format(number=number, name=sequence.GetName()))
    layout = FrameLayout(tuple(image.GetDimensions()), scalars.GetNumberOfComponents(), scalars.GetDataType())
    return layout, scalars


def _pixels_like(sequence: slicer.vtkMRMLSequenceNode, number: int, first: FrameLayout) -> vtk.vtkDataArray:
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


class SceneFrames:
    """8-bit frames of a sequence, which stay in the scene's memory and turn grey when they are read.

    Attributes:
        shape: (N, H, W).
        dtype: uint8.
    """

    def __init__(self, sequence: slicer.vtkMRMLSequenceNode, layout: FrameLayout) -> None:
        self._sequence, self._layout = sequence, layout
        self.shape = (sequence.GetNumberOfDataNodes(), *layout.size[::-1])
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> np.ndarray:
        """Frames of a slice as [n, H, W] uint8. Raises InputError: one is not like the others, or has no image."""
        numbers = range(*key.indices(self.shape[0]))
        if not numbers:
            return np.empty((0, *self.shape[1:]), np.uint8)
        images = np.stack([_image(self._sequence, number, self._layout) for number in numbers])
        return to_grey_uint8(images, colour_axis=_colour_axis(self._layout))[0]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All frames."""
        return self[:].astype(dtype or np.uint8, copy=False)


def _image(sequence: slicer.vtkMRMLSequenceNode, number: int, layout: FrameLayout) -> np.ndarray:
    return layout.frame(vtk_to_numpy(_pixels_like(sequence, number, layout)))


def _colour_axis(layout: FrameLayout) -> int | None:
    return None if layout.channels == 1 else 3


def read_frames(
    sequence: slicer.vtkMRMLSequenceNode, layout: FrameLayout, reporter: Reporter
) -> tuple[SceneFrames | np.ndarray, list[str]]:
    """The frames of a sequence, and the sentences that say what was converted.

    8-bit frames are not copied, and looked up when they are read. Other pixel types need one range for all frames and
    are converted now.

    Raises:
        InputError: frames that are not alike, pixels that are no real finite numbers.
        Cancelled: the caller asked to stop.
    """
    reporter.check()
    turned = layout.orientation.notes if layout.orientation.is_turned else []
    if layout.scalar_type == vtk.VTK_UNSIGNED_CHAR:
        first = _image(sequence, 0, layout)[None]
        return SceneFrames(sequence, layout), to_grey_uint8(first, colour_axis=_colour_axis(layout))[1] + turned
    images = []
    for number in range(sequence.GetNumberOfDataNodes()):
        reporter.check()
        images.append(_image(sequence, number, layout))
    frames, notes = to_grey_uint8(np.stack(images), colour_axis=_colour_axis(layout))
    return frames, notes + turned
