"""Sections whose settings are drawn on the picture in the slice view as well."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.events import Signal
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
