"""Lines, curves and segments of a scene, measured in a result with how far each measure may be off.

What was measured is kept on the node: with its text as a measurement of Slicer's own, which the module Markups shows
and files keep, and as numbers in an attribute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from DualTrackCore.errors import InputError
from DualTrackCore.measurement import Measured, Measurements, quantities
from DualTrackCore.measurement.quantities import Quantity
from DualTrackSlicerLib.scene.nodes import nodes_of_class, world_from_node
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.prepared import prepared_clip
from DualTrackSlicerLib.scene.records import clip_in_pieces, path_of, reportOf
from DualTrackSlicerLib.scene.result_nodes import RUN, ResultNodes

_LINE, _CURVE, _CLOSED = "vtkMRMLMarkupsLineNode", "vtkMRMLMarkupsCurveNode", "vtkMRMLMarkupsClosedCurveNode"
_SEGMENTS = "vtkMRMLSegmentationNode"
#: Attribute of a node, with the name of a segment behind it: what was measured, as JSON.
KEPT = "DualTrack.Measured"


class Target(NamedTuple):
    """Something to measure: a line, a curve, or a segment by its ID."""

    node: slicer.vtkMRMLNode
    segment: str = ""

    @property
    def name(self) -> str:
        """What the user calls it."""
        if not self.segment:
            return self.node.GetName()
        return f"{self.node.GetName()}: {self.node.GetSegmentation().GetSegment(self.segment).GetName()}"


@dataclass(frozen=True, eq=False)
class ResultMeasures:
    """What measures in a result.

    Attributes:
        run, name: of the result.
        measurements: of its path; points are named in the world of the scene.
        frame0_from_world: [4, 4] float64, mm.
    """

    run: str
    name: str
    measurements: Measurements
    frame0_from_world: np.ndarray


def targetsIn(scene: slicer.vtkMRMLScene, without: Iterable[object] = ()) -> list[Target]:
    """Lines, curves and segments of a scene in its order, but for nodes that are something else."""
    left_out = list(without)
    found = [Target(node) for kind in (_LINE, _CURVE) for node in nodes_of_class(scene, kind)]
    for node in nodes_of_class(scene, _SEGMENTS):
        found += [Target(node, segment) for segment in node.GetSegmentation().GetSegmentIDs()]
    return [target for target in found if target.node not in left_out]


def measuresIn(nodes: ResultNodes) -> Generator[None, None, ResultMeasures]:
    """What measures in a result, made in pieces; pictures are not read.

    Raises InputError: nodes of the run or its clip have left the scene, or nothing in it can be placed.
    """
    report, clip = reportOf(nodes), (yield from clip_in_pieces(nodes, pictures=False))
    yield
    clip = prepared_clip(clip, report)
    yield
    sweep, path = yield from path_of(nodes, clip, report)
    yield
    world = np.eye(4) if nodes.transform_proxy is None else world_from_node(nodes.transform_proxy)
    world_from_frame0 = world @ clip.node_from_image
    path = replace(path, reference_from_frame0=world_from_frame0)
    run, measurements = nodes.transform_sequence.GetAttribute(RUN), Measurements(path, sweep)
    return ResultMeasures(run, nodes.name, measurements, np.linalg.inv(world_from_frame0))


def measure(measures: ResultMeasures, target: Target) -> Generator[None, None, list[Measured]]:
    """Measure something in pieces of some milliseconds, and keep it on its node; of a curve that is closed two things.

    Nothing is computed where the same was measured before, unless it is a segment.

    Raises InputError: it is nothing that can be measured, not placed yet, or beside the frames of the result.
    """
    state, known, found = _state(measures, target), kept(target), []
    if known and state["points"] and all(known[name] == value for name, value in state.items()):
        return known["measured"]
    try:
        for quantity, points_mm in _shapes(target):
            yield
            points = points_mm @ measures.frame0_from_world[:3, :3].T + measures.frame0_from_world[:3, 3]
            found.append((yield from measures.measurements.measuring(quantity, points)))
    except InputError:
        if known and not (state["points"] and state["points"] == known["points"]):
            forget(target)  # it has moved since
        raise
    _keep(target, {**state, "result": measures.name, "measured": [asdict(one) for one in found]}, found)
    return found


def _shapes(target: Target) -> list[tuple[Quantity, np.ndarray]]:
    """What is measured, and between which points of the world, [K, 3] mm."""
    node = target.node
    if target.segment:
        surface = vtk.vtkPolyData()
        slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentClosedSurfaceRepresentation(node, target.segment, surface)
        if not surface.GetNumberOfPoints():
            raise InputError(_("{name} is empty; paint it first.").format(name=target.name))
        points, triangles = _triangles(surface)
        return [(quantities.volume(triangles), points)]
    if not (node.IsA(_LINE) or node.IsA(_CURVE)):
        sentence = _("{name} is neither a line nor a curve nor a segment; draw one of these to measure.")
        raise InputError(sentence.format(name=target.name))
    closed = node.IsA(_CLOSED)
    count, least = node.GetNumberOfDefinedControlPoints(), 3 if closed else 2
    if count < least:
        sentence = _("{name} has {count} points so far; place {least} of them at least.")
        raise InputError(sentence.format(name=target.name, count=count, least=least))
    points = slicer.util.arrayFromMarkupsControlPoints(node, world=True)
    if node.IsA(_CURVE) and node.GetCurveTypeAsString(node.GetCurveType()) != "linear":
        # Along the bends as they are drawn; that of a closed curve ends in its first point.
        points = slicer.util.arrayFromMarkupsCurvePoints(node, world=True).astype(np.float64)[: -1 if closed else None]
    if not closed:
        return [(quantities.length(), points)]
    surface = vtk.vtkPolyData()
    slicer.vtkSlicerMarkupsLogic.GetClosedCurveSurfaceArea(node, surface)
    corners, triangles = _triangles(surface)
    return [(quantities.length(closed=True), points), (quantities.area(triangles), corners)]


def _triangles(surface: vtk.vtkPolyData) -> tuple[np.ndarray, np.ndarray]:
    """([K, 3] points in mm, [T, 3] corners) of a surface."""
    cut = vtk.vtkTriangleFilter()
    cut.SetInputData(surface)
    cut.PassLinesOff()
    cut.PassVertsOff()
    cut.Update()
    polygons = vtk_to_numpy(cut.GetOutput().GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(cut.GetOutput().GetPoints().GetData()).astype(np.float64), polygons.astype(int)


def _state(measures: ResultMeasures, target: Target) -> dict[str, str]:
    """What a measure depends on: the result, where it lies, and the points, whose text is empty for a segment."""
    node, points = target.node, ""
    if not target.segment:
        kind = node.GetCurveType() if node.IsA(_CURVE) else 0
        places = slicer.util.arrayFromMarkupsControlPoints(node, world=True) if node.GetNumberOfControlPoints() else []
        points = _short([kind, np.round(places, 3).tolist()])
    return {"run": measures.run, "place": _short(measures.frame0_from_world.round(3).tolist()), "points": points}


def _short(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _keep(target: Target, record: dict, found: list[Measured]) -> None:
    node = target.node
    node.SetAttribute(KEPT + target.segment, json.dumps(record))
    for one in () if target.segment else found:
        name = f"DualTrack {one.kind}"
        known = node.GetMeasurement(name)
        shown = known or slicer.vtkMRMLStaticMeasurement()
        shown.SetName(name)
        shown.SetUnits(one.unit)
        text = f"95 %: {one.band_text(one.band_95)}; 68 %: {one.band_text(one.band_68)}; {one.level}, {one.basis}"
        shown.SetPrintFormat(f"%.1f %s ({text.replace('%', '%%')})")
        shown.SetValue(one.value)
        shown.SetEnabled(True)
        if known is None:
            node.AddMeasurement(shown)
    if not target.segment:
        node.UpdateAllMeasurements()  # which writes the description anew


def kept(target: Target) -> dict | None:
    """What was last measured: "run", "result" (its name), "measured" and what it depends on; None for nothing."""
    try:
        record = json.loads(target.node.GetAttribute(KEPT + target.segment) or "null")
        pairs = ("band_68", "band_95")
        found = [{**one, **{name: one[name] and tuple(one[name]) for name in pairs}} for one in record["measured"]]
        return {**record, "measured": [Measured(**one) for one in found]}
    except (ValueError, TypeError, KeyError):
        return None


def forget(target: Target) -> None:
    """Take what was measured off a node: it is no longer so."""
    node = target.node
    node.RemoveAttribute(KEPT + target.segment)
    if not target.segment:
        names = [node.GetNthMeasurement(number).GetName() for number in range(node.GetNumberOfMeasurements())]
        for number in reversed([number for number, name in enumerate(names) if name.startswith("DualTrack ")]):
            node.RemoveNthMeasurement(number)
        node.UpdateAllMeasurements()
