"""What a run will make of the pictures of a clip, before it runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.scene import Clip, framesInPieces

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.detect import PictureParts
    from DualTrackCore.run.preparation import Box, Preparation
    from DualTrackCore.run.settings import RunSettings
    from DualTrackCore.sweep import Sweep
    from DualTrackSlicerLib.worker import Job, Worker

#: Colours of outlines, and how many times darker pixels are that are cropped away.
AREA_COLOUR, CROP_COLOUR, TEXT_COLOUR, DARKER = (60, 220, 90), (250, 210, 40), (240, 60, 60), 3
#: Columns of the picture at most.
MOST_COLUMNS = 400


class Preview:
    """Image area and text in the pictures of one clip; its worker process finds them, while the application goes on.

    Args:
        worker: gives the worker.

    Attributes:
        changed: emits nothing, when what was asked for is known.
    """

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self.changed = Signal()
        self._worker = worker
        self._clip: tuple[object, Sweep] | None = None
        self._asked: object = None
        self._looking: Pieces | None = None
        self._job: Job | None = None
        self._known: tuple[object, PictureParts | DualTrackError] | None = None
        self._made: tuple[object, Preparation] | None = None

    def of(self, clip: Clip, settings: RunSettings, spacing_mm: tuple[float, float] | None) -> Preparation | None:
        """The clip as the settings prepare it; None until that is known, and then `changed` is emitted.

        Args:
            clip: one that can be used.
            settings: those that prepare it.
            spacing_mm: of its pixels, or None where it is unknown.

        Raises DualTrackError: it cannot be prepared so, or the worker process failed; one sentence.
        """
        node = clip.sequence or clip.volume
        state = node.GetID(), node.GetMTime(), spacing_mm
        key = state, tuple(settings.chosen("first_frame", "last_frame", "rotate", "mirror", "crop").values())
        if self._known is None or self._known[0] != key:
            if self._job is None and self._looking is None:
                self._looking = Pieces(self._look(clip, key, spacing_mm, settings))
            return None
        parts = self._known[1]
        if isinstance(parts, DualTrackError):
            raise parts
        key = key, settings
        if self._made is None or self._made[0] != key:
            from DualTrackCore.run.preparation import prepare

            self._made = key, prepare(self._clip[1], settings, parts)
        return self._made[1]

    def _look(
        self, clip: Clip, key: tuple, spacing_mm: tuple[float, float] | None, settings: RunSettings
    ) -> Iterator[object]:
        """Look at the frames of a clip as far as that is needed, and ask the worker process."""
        self._asked = key
        try:
            if self._clip is None or self._clip[0] != key[0]:
                self._clip = key[0], (yield from framesInPieces(clip, spacing_mm))
            job = self._worker().find_parts(self._clip[1], settings)
        except DualTrackError as error:
            self._looking, self._known = None, (key, error.with_traceback(None))
            self.changed.emit()
        else:
            self._looking, self._job = None, job
            job.onEnd = self._end

    def forget(self) -> None:
        """Keep nothing of the clip, and look no further."""
        job, self._job = self._job, None
        if self._looking is not None:
            self._looking.stop()
            self._looking = None
        self._clip = self._known = self._made = None
        if job is not None:
            job.onEnd = lambda job: None
            job.cancel()

    def _end(self, job: Job) -> None:
        self._job = None
        try:
            self._known = self._asked, job.result
        except Cancelled:
            self._known = None
        except DualTrackError as error:
            self._known = self._asked, error.with_traceback(None)
        self.changed.emit()


def previewHtml(made: Preparation) -> str:
    """:func:`previewPng` as rich text, for a label."""
    file, (width, height) = previewPng(made)
    data = base64.b64encode(file).decode()
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}">'


def previewPng(made: Preparation) -> tuple[bytes, tuple[int, int]]:
    """The first frame as it will be tracked, with what is around it and outlines drawn over it.

    Args:
        made: the prepared clip.

    Returns:
        A PNG file, and (width, height) at which its pixels are as wide as high.
    """
    from scipy.ndimage import binary_erosion

    grey = made.turned.window(0, 1)[0] // DARKER
    x, y, width, height = made.crop
    grey[y : y + height, x : x + width] = made.sweep.window(0, 1)[0]
    step = -(-grey.shape[1] // MOST_COLUMNS)
    picture = np.repeat(grey[::step, ::step, None], 3, axis=2)
    boxes = [(box, TEXT_COLOUR) for box in made.regions]
    if (width, height) != grey.shape[::-1]:
        boxes.append((made.crop, CROP_COLOUR))
    shapes = [(_filled(box, step, picture), colour) for box, colour in boxes]
    if made.area is not None:
        x, y, width, height = made.area.clip
        shape, fan = _filled((x, y, width + 1, height + 1), step, picture), made.area.fan
        if fan is not None:
            fan = replace(
                fan, **{name: np.divide(getattr(fan, name), step) for name in ("origin_pixel", "radii_pixel")}
            )
            shape &= fan.mask(shape.shape)
        shapes.append((shape, AREA_COLOUR))
    for shape, colour in shapes:
        picture[shape & ~binary_erosion(shape)] = colour
    height, width = picture.shape[:2]
    across, down = made.turned.spacing_mm or (1.0, 1.0)
    return _png(picture), (width, max(1, round(height * down / across)))


def _filled(box: Box, step: int, picture: np.ndarray) -> np.ndarray:
    """[H, W] bool of a picture that shows every pixel of so many."""
    x, y, width, height = box
    shape = np.zeros(picture.shape[:2], bool)
    shape[y // step : -(-(y + height) // step), x // step : -(-(x + width) // step)] = True
    return shape


def _png(picture: np.ndarray) -> bytes:
    """A PNG file of [H, W, 3] uint8."""
    image, writer = vtk.vtkImageData(), vtk.vtkPNGWriter()
    image.SetDimensions(picture.shape[1], picture.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(picture[::-1]).reshape(-1, 3), deep=True))
    writer.SetInputData(image)
    writer.SetCompressionLevel(1)
    writer.WriteToMemoryOn()
    writer.Write()
    return vtk_to_numpy(writer.GetResult()).tobytes()
