"""Keeps what is measured in the shown result up to date while points are moved, also while another module is shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.measurement import Measured
from DualTrackCore.progress import finished
from DualTrackSlicerLib.events import Clock, Pieces, Signal
from DualTrackSlicerLib.scene import ResultMeasures, ResultNodes, Target, forget, measure, measuresIn, targetsIn

#: Time without a move before it is measured anew, s; the end of a drag does not wait.
REST_S = 0.2


class Measuring:
    """Measures lines and curves when they change, and segments when they are asked for, piece by piece.

    Attributes:
        changed: emits nothing, when something else is to be shown.
        touched: emits the target that was drawn or moved.
        targets: what there is to measure.
    """

    def __init__(self) -> None:
        self.changed, self.touched = Signal(), Signal()
        self.targets: list[Target] = []
        self._scene: slicer.vtkMRMLScene | None = None
        self._nodes: ResultNodes | None = None
        self._without: tuple[object, ...] = ()
        self._measures: ResultMeasures | None = None
        self._said: dict[Target, list[Measured] | str] = {}
        self._due: list[Target] = []
        self._observed: dict[object, list[tuple[object, int]]] = {}
        self._pieces: Pieces | None = None
        self._clock: Clock | None = None
        self._start_s = 0.0

    def follow(self, nodes: ResultNodes | None, without: Iterable[object] = ()) -> None:
        """Measure in a result from now on; None ends it.

        Args:
            without: nodes that are lines and are not measured.
        """
        if nodes is None:
            self.stop()
            return
        before = self._nodes
        self._without = tuple(without)
        if before is None or [*before] != [*nodes]:
            self._rest()
            self._nodes, self._measures = nodes, None
            self._said, self._due = {}, []
            self._watch_scene(nodes.transform_sequence.GetScene())
        self._look()
        if self._due and self._pieces is None:
            self._start(0.0)

    def stop(self) -> None:
        """Measure no more, and watch nothing."""
        self._rest()
        self._watch_scene(None)
        for node in list(self._observed):
            self._release(node)
        self._nodes = self._measures = None
        self.targets, self._said, self._due, self._without = [], {}, [], ()

    def of(self, target: Target) -> list[Measured] | str | None:
        """What was measured, or a sentence why nothing was; None while it is being measured or was not asked for."""
        return None if target in self._due else self._said.get(target)

    def isDue(self, target: Target) -> bool:
        """Whether it is being measured."""
        return target in self._due

    def again(self, target: Target) -> None:
        """Measure something now."""
        self._is_due(target, 0.0)

    def finish(self) -> None:
        """Measure at once what is due."""
        self._rest()
        finished(self._work())

    def _watch_scene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is self._scene:
            return
        if self._scene is not None:
            self._release(self._scene)
        self._scene = scene
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent)
            self._observed[scene] = [(scene, scene.AddObserver(event, self._on_nodes)) for event in events]

    def _look(self) -> None:
        """Find what there is to measure, and watch it."""
        if self._nodes is None or self._nodes.transform_sequence.GetScene() is not self._scene:
            return
        self.targets = targetsIn(self._scene, self._without)
        there = {target.node for target in self.targets}
        for node in [node for node in self._observed if node is not self._scene and node not in there]:
            self._release(node)
        for target in self.targets:
            if target.node not in self._observed:
                self._observe(target.node)
            if not target.segment and target not in self._said and target not in self._due:
                self._due.append(target)
        self._said = {target: said for target, said in self._said.items() if target in self.targets}
        self._due = [target for target in self._due if target in self.targets]

    def _observe(self, node: slicer.vtkMRMLNode) -> None:
        if node.IsA("vtkMRMLSegmentationNode"):
            source = node.GetSegmentation()
            slots = dict.fromkeys(
                (source.SourceRepresentationModified, source.RepresentationModified), self._on_segments
            )
        else:
            source = node
            slots = dict.fromkeys((node.PointModifiedEvent, node.PointRemovedEvent), self._on_moved)
            slots |= {node.TransformModifiedEvent: self._on_moved, node.PointEndInteractionEvent: self._on_dropped}
        pairs = [(source, source.AddObserver(event, slot)) for event, slot in slots.items()]
        self._observed[node] = pairs

    def _release(self, node: object) -> None:
        for source, tag in self._observed.pop(node, ()):
            source.RemoveObserver(tag)

    def _on_nodes(self, scene: slicer.vtkMRMLScene, event: str) -> None:
        self._start(REST_S)

    def _on_moved(self, node: slicer.vtkMRMLNode, event: str) -> None:
        self.touched.emit(Target(node))
        self._is_due(Target(node), REST_S)

    def _on_dropped(self, node: slicer.vtkMRMLNode, event: str) -> None:
        self._is_due(Target(node), 0.0)

    def _on_segments(self, segmentation: object, event: str) -> None:
        """What was measured of a segmentation holds no more."""
        for target in self.targets:
            if target.segment and target.node.GetSegmentation() is segmentation:
                self._said.pop(target, None)
                forget(target)
        self._start(REST_S)

    def _is_due(self, target: Target, rest_s: float) -> None:
        if target not in self._due:
            self._due.append(target)
        self._start(rest_s)
        self.changed.emit()

    def _start(self, rest_s: float) -> None:
        """Begin when nothing has moved for a time."""
        if self._pieces is not None:
            self._pieces.stop()
            self._pieces = None
        self._start_s = time.monotonic() + rest_s
        if self._clock is None:
            self._clock = Clock(REST_S / 10, self._on_clock)

    def _on_clock(self) -> None:
        if time.monotonic() >= self._start_s:
            self._clock.stop()
            self._clock = None
            self._look()
            self.changed.emit()
            self._pieces = Pieces(self._work())

    def _rest(self) -> None:
        for going in (self._pieces, self._clock):
            if going is not None:
                going.stop()
        self._pieces = self._clock = None

    def _work(self) -> Iterator[None]:
        """Measure what is due, one after the other."""
        while self._due:
            target = self._due[0]
            try:
                if self._measures is None:
                    self._measures = yield from measuresIn(self._nodes)
                said = yield from measure(self._measures, target)
            except InputError as error:
                said = str(error)
            self._said[target] = said
            self._due.remove(target)
            self.changed.emit()
        self._pieces = None
