"""Lines, curves and segments measured in a result: the numbers of the command line, kept on the nodes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import add_simulated_clip, drifting, simulated
from DualTrackSlicerLib.scene import (
    Target,
    exportInPieces,
    forget,
    kept,
    measure,
    measuresIn,
    resultsOf,
    showResults,
    sweepFromBrowser,
    targetsIn,
)
from DualTrackSlicerLib.scene.nodes import ijk_to_world, nodes_of_class
from mrml import Application

from DualTrackCore import cli
from DualTrackCore.errors import InputError
from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.progress import finished
from DualTrackCore.run import RunSettings, run

TRUTH = simulated()
KINDS = {"Line": 2, "ClosedCurve": 3, "Curve": 3}
BASE = np.array([[0.0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1]])


def estimate():
    """A path that says how sure its motions are."""
    path = drifting(TRUTH.tracked)
    source = {**path.provenance, "model_trained": True, "step_error_correlation": [0.5] * 6}
    return replace(path, provenance=source, sigma=np.full((len(path) - 1, 6), 0.03))


@pytest.fixture
def result(scene, tmp_path):
    """(result, its nodes, its folder): a turned clip below a transform, and what the command line finds of it."""
    browser, images = add_simulated_clip(scene, TRUTH)
    base = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    base.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(BASE))
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(base.GetID())
    write_trajectory_csv(estimate().slice(2, 24), tmp_path / "poses.csv")
    clip = sweepFromBrowser(browser)
    settings = RunSettings(poses=str(tmp_path / "poses.csv"), first_frame=2, rotate=90, voxel_mm=0.8)
    found = run(clip.sweep, settings)
    found.write(tmp_path / "out")
    return found, showResults(scene, clip, found), tmp_path / "out"


def measures_of(nodes):
    return finished(measuresIn(nodes))


def measured(measures, target):
    return finished(measure(measures, target))


def world_points(nodes, found, frames, pixels) -> np.ndarray:
    """[K, 3] where pixels of frames of the result lie in the world, mm."""
    points = found.measurements().planes.points_of(frames, pixels)
    world_from_frame0 = np.linalg.inv(measures_of(nodes).frame0_from_world)
    return points @ world_from_frame0[:3, :3].T + world_from_frame0[:3, 3]


def drawn(scene, kind, points, name="drawn"):
    node = scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", name)
    slicer.util.updateMarkupsControlPointsFromArray(node, np.array(points))
    return Target(node)


def by_command_line(folder: Path, target: Target, nodes, found, capsys, *more) -> dict:
    """What `dualtrack measure` says of the points of a node."""
    world = slicer.util.arrayFromMarkupsControlPoints(target.node, world=True)
    ras = found.trajectory.ras_from_frame0 @ measures_of(nodes).frame0_from_world
    points = world @ ras[:3, :3].T + ras[:3, 3]
    path = folder.parent / "points.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["r", "a", "s"], *points.tolist()])
    capsys.readouterr()
    assert cli.main(["measure", str(folder), "--points", str(path), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_points_are_measured_where_the_volume_shows_them(result):
    found, nodes, _ = result
    frame0_from_voxel = measures_of(nodes).frame0_from_world @ ijk_to_world(nodes.volume)
    np.testing.assert_allclose(frame0_from_voxel, found.reconstruction.grid.frame0_from_voxel, atol=1e-9)


def test_a_line_and_a_curve_are_as_long_and_as_sure_as_the_command_line_says(scene, result, capsys):
    found, nodes, folder = result
    points = world_points(nodes, found, [1, 9, 20], [[5, 10], [30, 40], [40, 20]])
    curve = drawn(scene, "Curve", points)
    curve.node.SetCurveTypeToLinear()
    for target in (drawn(scene, "Line", points[:2]), curve):
        (own,) = measured(measures_of(nodes), target)
        said = by_command_line(folder, target, nodes, found, capsys)
        assert own.value == pytest.approx(said["length_mm"], abs=1e-6)
        np.testing.assert_allclose([own.band_68, own.band_95], [said["band_68_mm"], said["band_95_mm"]], atol=1e-5)
        assert (own.basis, own.trust) == (said["basis"], said["trust"]["text"])
        assert own.basis == "as the model says"


def test_in_one_picture_the_band_is_that_of_the_pixels_and_a_closed_curve_has_an_area(scene, result):
    found, nodes, _ = result
    corners = [[10, 10], [30, 10], [30, 40], [10, 40]]
    target = drawn(scene, "ClosedCurve", world_points(nodes, found, [7] * 4, corners))
    target.node.SetCurveTypeToLinear()
    length, area = measured(measures_of(nodes), target)
    across, down = found.sweep.spacing_mm
    assert length.value == pytest.approx(2 * (20 * across + 30 * down), abs=1e-6)
    assert area.value == pytest.approx(20 * across * 30 * down, rel=1e-3)
    assert {one.basis for one in (length, area)} == {"pixel spacing alone"}
    assert area.band_95[1] - area.value < 0.05 * area.value
    assert [one.unit for one in (length, area)] == ["mm", "mm2"]


def test_a_curve_is_measured_along_its_bends_as_slicer_draws_it(scene, result):
    found, nodes, _ = result
    target = drawn(scene, "Curve", world_points(nodes, found, [1, 9, 20], [[5, 10], [30, 40], [40, 5]]))
    (length,) = measured(measures_of(nodes), target)
    assert length.value == pytest.approx(target.node.GetCurveLengthWorld(), rel=1e-6)


def segment_of(scene, nodes, half=4):
    """A box of voxels of the volume, as a segment, and its volume in mm3."""
    size, spacing = nodes.volume.GetImageData().GetDimensions(), nodes.volume.GetSpacing()
    label = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")
    array, middle = np.zeros(size[::-1], np.uint8), [n // 2 for n in size[::-1]]
    array[tuple(slice(m - half, m + half) for m in middle)] = 1
    slicer.util.updateVolumeFromArray(label, array)
    label.CopyOrientation(nodes.volume)
    label.SetAndObserveTransformNodeID(nodes.volume.GetTransformNodeID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    segmentation.SetAndObserveTransformNodeID(nodes.volume.GetTransformNodeID())
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    assert logic.ImportLabelmapToSegmentationNode(label, segmentation)
    (segment,) = segmentation.GetSegmentation().GetSegmentIDs()
    return Target(segmentation, segment), array.sum() * np.prod(spacing)


def test_a_segment_has_the_volume_of_its_closed_surface_with_a_band(scene, result):
    _, nodes, _ = result
    target, voxels_mm3 = segment_of(scene, nodes)
    (volume,) = measured(measures_of(nodes), target)
    assert volume.unit == "mm3"
    assert volume.value == pytest.approx(voxels_mm3, rel=0.12)  # the surface is smooth
    assert volume.band_95[0] < volume.value < volume.band_95[1]
    assert volume.basis == "as the model says"
    assert target in targetsIn(scene)
    assert kept(target)["measured"] == [volume]
    surface = vtk.vtkPolyData()
    slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentClosedSurfaceRepresentation(*target, surface)
    assert not target.node.GetSegmentation().ContainsRepresentation("Closed surface"), (
        "the scene shows no more than before"
    )
    mass = vtk.vtkMassProperties()
    mass.SetInputData(surface)
    assert volume.value == pytest.approx(mass.GetVolume(), rel=1e-5)


def shown_on(node) -> dict[str, str]:
    """The measurements of a node, as the module Markups shows them."""
    numbers = range(node.GetNumberOfMeasurements())
    shown = [node.GetNthMeasurement(number) for number in numbers]
    return {one.GetName(): one.GetValueWithUnitsAsPrintableString() for one in shown if one.GetEnabled()}


def test_the_band_stands_on_the_node_and_comes_back_with_the_scene(scene, result, tmp_path):
    found, nodes, _ = result
    target = drawn(scene, "Line", world_points(nodes, found, [1, 20], [[5, 10], [40, 20]]))
    (length,) = measured(measures_of(nodes), target)
    band = (
        f"{length.value:.1f} mm (95 %: {length.band_text(length.band_95)}; 68 %: {length.band_text(length.band_68)}; "
    )
    assert shown_on(target.node)["DualTrack length"].startswith(band)
    assert band in target.node.GetDescription()
    assert length.level in target.node.GetDescription()
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    other = Application()
    assert other.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    (again,) = [one for one in targetsIn(other.scene) if one.name == "drawn"]
    (images,) = [node for node in nodes_of_class(other.scene, "vtkMRMLSequenceNode") if node.GetName() == "clip"]
    measures = measures_of(resultsOf(images)[0])
    assert shown_on(again.node)["DualTrack length"].startswith(band)
    assert kept(again)["measured"] == [length]
    assert measured(replace(measures, measurements=None), again) == [length], "nothing is computed again"
    forget(again)
    assert "DualTrack" not in again.node.GetDescription()
    (anew,) = measured(measures, again)
    np.testing.assert_allclose([anew.value, *anew.band_95], [length.value, *length.band_95], atol=1e-4)
    assert anew.trust == length.trust
    other.close()


def test_what_has_moved_is_measured_anew_and_beside_the_volume_not_at_all(scene, result):
    found, nodes, _ = result
    measures = measures_of(nodes)
    points = world_points(nodes, found, [1, 20, 20], [[5, 10], [40, 20], [20, 40]])
    target = drawn(scene, "Line", points[:2])
    measured(measures, target)
    slicer.util.updateMarkupsControlPointsFromArray(target.node, points[[0, 2]])
    (moved,) = measured(measures, target)
    assert moved.value == pytest.approx(np.linalg.norm(points[2] - points[0]))
    assert f"{moved.value:.1f} mm (95" in target.node.GetDescription()
    elsewhere = replace(measures, run="another", frame0_from_world=measures.frame0_from_world + 40 * np.eye(4, k=3))
    with pytest.raises(InputError, match="away from the nearest frame"):
        measured(elsewhere, target)
    assert kept(target)["measured"] == [moved], "it still is so long in the result that it was measured in"
    away = points[0] + [0, 0, 80]
    slicer.util.updateMarkupsControlPointsFromArray(target.node, np.stack([points[0], away]))
    said = ", ".join(f"{value:.1f}" for value in away)
    with pytest.raises(InputError, match=f"R, A, S = {said} mm lies .* mm away from the nearest frame"):
        measured(measures, target)
    assert kept(target) is None
    assert "DualTrack" not in target.node.GetDescription()


def test_what_cannot_be_measured_is_told_in_one_sentence(scene, result):
    measures = measures_of(result[1])
    one, two = [[0.0, 0, 0]], [[0.0, 0, 0], [1, 1, 1]]
    for target, said in (
        (drawn(scene, "Line", one), "drawn has 1 points so far; place 2 of them at least"),
        (drawn(scene, "ClosedCurve", two, "round"), "round has 2 points so far; place 3"),
        (drawn(scene, "Fiducial", two, "points"), "points is neither a line nor a curve nor a segment"),
    ):
        with pytest.raises(InputError, match=said):
            measured(measures, target)


def test_the_clip_that_has_gone_is_named(scene, result):
    _, nodes, _ = result
    scene.RemoveNode(nodes.transform_sequence.GetNodeReference("DualTrack.images"))
    with pytest.raises(InputError, match="is no longer in the scene"):
        measures_of(nodes)


def test_measures_are_written_as_a_table_beside_path_and_figures(scene, result, tmp_path):
    found, nodes, _ = result
    finished(exportInPieces(nodes, tmp_path / "one.csv"))
    assert not (tmp_path / "one-measures.csv").exists(), "nothing was measured yet"
    points = world_points(nodes, found, [1, 20, 12], [[5, 10], [40, 20], [20, 40]])
    line, closed, _other = (drawn(scene, kind, points[:count], kind) for kind, count in KINDS.items())
    (length,), both = (measured(measures_of(nodes), target) for target in (line, closed))
    finished(exportInPieces(nodes, tmp_path / "two.csv"))
    with open(tmp_path / "two-measures.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whats = [("Line", "length"), ("ClosedCurve", "length"), ("ClosedCurve", "area")]
    assert [(row["name"], row["what"]) for row in rows] == whats
    assert float(rows[0]["value"]) == length.value
    assert (float(rows[2]["low_95"]), float(rows[2]["high_95"])) == both[1].band_95
    assert (rows[0]["trust"], rows[0]["result"], rows[0]["unit"]) == (length.trust, nodes.name, "mm")
