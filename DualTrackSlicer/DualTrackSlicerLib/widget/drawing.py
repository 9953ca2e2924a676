"""Sections whose settings are drawn on the picture in the slice view as well."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import slicer

from DualTrackCore.errors import DualTrackError
from DualTrackCore.run.preparation import source_from_pixel
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.parameters import DualTrackSlicerParameterNode
from DualTrackSlicerLib.scene import Frame, frameOf
from DualTrackSlicerLib.widget.view import Section


class DrawingSection(Section):
    """A section with nodes that are dragged in the slice view.

    Attributes:
        said: emits a sentence to be shown with the clip; an empty one takes it back.
        drawing: emits nothing, before something is drawn on the picture of the first frame.
    """

    def __init__(self) -> None:
        self.said, self.drawing = Signal(), Signal()
        # The nodes that are observed and the tags of their observers, by the name of their parameter.
        self._observed: dict[str, tuple[object, int]] = {}

    def stop(self) -> None:
        """Watch the drawings no longer, until the next update."""
        for name in list(self._observed):
            self._observe(name, None, None)
        super().stop()

    def _observe(self, name: str, node: object, slot: Callable | None) -> None:
        before, tag = self._observed.get(name, (None, 0))
        if node is before:
            return
        self._observed.pop(name, None)
        if before is not None:
            before.RemoveObserver(tag)
        if node is not None:
            self._observed[name] = node, node.AddObserver(node.PointModifiedEvent, slot)

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """Say what goes wrong within, in place of the facts of the clip."""
        try:
            yield
        except DualTrackError as error:
            self.said.emit(str(error))

    def _drawn_on(self) -> Frame:
        """The first frame, as it is turned and mirrored."""
        return frameOf(self._view.clip, self._view.preparing())


def followTurns(parameters: DualTrackSlicerParameterNode, frame_size: tuple[int, int]) -> None:
    """Let crop, picture area, fan and masked boxes stay on their tissue where the picture was turned or mirrored since.

    A fan that lies on its side after a turn is none any more, and is found or drawn anew.

    Args:
        parameters: the settings; crop and mask stay as they are where they cannot be read.
        frame_size: (H, W) of the picture as it is loaded.
    """
    turned, before = (parameters.rotate.value, parameters.mirror), parameters.countedIn.split()
    if before == [str(value) for value in turned]:
        return
    with slicer.util.NodeModify(parameters):
        if before:
            old = RunSettings(rotate=int(before[0]), mirror=before[1] == str(True))
            new = RunSettings(rotate=turned[0], mirror=turned[1])
            source_from_old, source_from_new = (source_from_pixel(each, None, frame_size) for each in (old, new))
            _move_boxes(parameters, np.linalg.inv(source_from_new) @ source_from_old)
            _move_fan(parameters, old, frame_size)
        parameters.countedIn = " ".join(map(str, turned))


def _move_boxes(parameters: DualTrackSlicerParameterNode, new_from_old: np.ndarray) -> None:
    """Rectangles of pixels as they lie after :func:`followTurns`; [3, 3] leads pixels (column, row, 1) there."""

    def moved(box: Sequence[int]) -> list[int]:
        x, y, width, height = box
        ends = new_from_old[:2] @ [[x, x + width - 1], [y, y + height - 1], [1, 1]]
        low = ends.min(axis=1)
        return np.concatenate([low, ends.max(axis=1) - low + 1]).round().astype(int).tolist()

    with contextlib.suppress(ValueError):
        if parameters.crop.strip():
            parameters.crop = ", ".join(map(str, moved([int(number) for number in parameters.crop.split(",")])))
    with contextlib.suppress(ValueError):
        if parameters.mask not in ("auto", "none"):
            boxes = ([int(number) for number in box.split(",")] for box in parameters.mask.split(";"))
            parameters.mask = ";".join(",".join(map(str, moved(box))) for box in boxes)
    if parameters.areaWidth and parameters.areaHeight:
        # The sizes of the area count the pixels beyond the first.
        box = parameters.areaX, parameters.areaY, parameters.areaWidth + 1, parameters.areaHeight + 1
        x, y, width, height = moved(box)
        parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = x, y, width - 1, height - 1


def _move_fan(parameters: DualTrackSlicerParameterNode, old: RunSettings, frame_size: tuple[int, int]) -> None:
    if parameters.rotate.value != old.rotate:
        parameters.fanStop = 0.0
    elif parameters.fanStop > 0:
        width = frame_size[0 if old.rotate % 180 else 1]
        parameters.fanX = width - 1 - parameters.fanX
        parameters.fanLeft, parameters.fanRight = -parameters.fanRight, -parameters.fanLeft
