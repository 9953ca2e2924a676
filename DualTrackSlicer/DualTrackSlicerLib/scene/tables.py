"""What is known of each frame of a run (poses, quality, errors) as tables, and plots of the errors."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore.errors import InputError
from DualTrackCore.io.pose_marks import marked
from DualTrackCore.trajectory import PoseOrigin, Trajectory
from DualTrackSlicerLib.scene.input import SceneSweep
from DualTrackSlicerLib.scene.nodes import add_node, finished, pose_marks
from DualTrackSlicerLib.scene.nodes import tr as _

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult

FRAME, INDEX, VALID, USED = "Frame", "Index value", "Valid", "In the volume"
#: Columns of the upper three rows of a pose; the last row is 0 0 0 1.
MATRIX_COLUMNS = tuple(f"m{row}{column}" for row in range(3) for column in range(4))
_POSES = (*MATRIX_COLUMNS, VALID)
#: Columns of how sure a motion is, and a corrected path (`Trajectory.path_covariance`), where that is known.
SIGMA_COLUMNS = tuple(f"Sigma {kind}{axis} ({unit})" for kind, unit in (("t", "mm"), ("r", "deg")) for axis in "xyz")
COVARIANCE_COLUMNS = tuple(f"Variance {name} (mm2)" for name in ("length", "xx", "xy", "xz", "yy", "yz", "zz"))

#: Errors of a frame by their name in an evaluation.
ERRORS = {"global_error_mm": "Global error (mm)", "local_error_mm": "Local error (mm)", "drift_mm": "Drift (mm)"}
AXES = ("x", "y", "z")


class FrameQuality(NamedTuple):
    """Numbers for each image of a clip; NaN where they are not known.

    Attributes:
        step_mm: [N] way of the image centre since the frame before.
        turn_deg: [N] rotation since the frame before.
        speed: [N] way a second, or a frame where times are unknown.
        speed_unit: "mm/s" or "mm/frame".
    """

    step_mm: np.ndarray
    turn_deg: np.ndarray
    speed: np.ndarray
    speed_unit: str


def frame_quality(clip: SceneSweep, result: RunResult) -> FrameQuality:
    """The quality of every frame of a clip from the trajectory of a run."""
    count, start = len(clip.sweep), result.first_frame
    relative = result.trajectory.relative
    used = slice(start + 1, start + len(result.trajectory))
    step, turn = np.full(count, np.nan), np.full(count, np.nan)
    step[used] = np.linalg.norm(relative[:, :3, 3], axis=1)
    cosine = (np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    turn[used] = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    speed, unit = step, "mm/frame"
    if clip.sweep.timestamps_s is not None:
        seconds = np.diff(clip.sweep.timestamps_s, prepend=np.nan)
        speed, unit = np.divide(step, seconds, out=np.full(count, np.nan), where=seconds > 0), "mm/s"
    return FrameQuality(step, turn, speed, unit)


class Column(NamedTuple):
    """One column: numbers (whole, real) or texts, and what they are."""

    name: str
    values: np.ndarray | Sequence[str]
    description: str


def pose_table(
    clip: SceneSweep, placed: Trajectory, quality: FrameQuality, used: np.ndarray | None = None
) -> Generator[None, None, slicer.vtkMRMLTableNode]:
    """A row for each image: its pose in frame0 and what is known of it; made in pieces, not in the scene yet.

    The numbers of the poses are texts, for table files round real numbers to six digits; these come back exactly.
    `trajectoryFromTable` reads them.

    Args:
        used: numbers of the images that the volume was made from; None where it does not know them.
    """
    images = clip.image_sequence
    count = len(placed.poses)
    columns = [
        Column(FRAME, np.arange(count), "number of the image in the clip, from 0"),
        Column(INDEX, [images.GetNthIndexValue(number) for number in range(count)], "index value in the sequence"),
        Column(VALID, placed.valid.astype(int), "1: from the run; 0: the pose of the nearest frame that has one"),
        Column("Step (mm)", quality.step_mm, "way of the image centre since the frame before"),
        Column("Turn (deg)", quality.turn_deg, "rotation since the frame before"),
        Column(f"Speed ({quality.speed_unit})", quality.speed, "way of the image centre in a unit of time"),
    ]
    if used is not None:
        is_used = np.isin(np.arange(count), used).astype(int)
        columns.append(Column(USED, is_used, "1: the volume was made from this image and others"))
    for place, column in enumerate(MATRIX_COLUMNS):
        row, entry = divmod(place, 4)
        texts = list(map(repr, placed.poses[:, row, entry].tolist()))
        columns.append(Column(column, texts, f"frame0_from_image, row {row}, column {entry}; mm in column 3"))
    what = "standard deviation of the motion since the frame before, mm or degrees"
    sigma = None if placed.sigma is None else np.vstack([np.full(6, np.nan), placed.sigma])
    spread = "of the length of the path up to here, or of the image centre in frame0"
    for names, numbers, said in (
        (SIGMA_COLUMNS, sigma, what),
        (COVARIANCE_COLUMNS, placed.path_covariance, spread),
    ):
        if numbers is not None:
            columns += [Column(n, list(map(repr, v)), said) for n, v in zip(names, numbers.T.tolist(), strict=True)]
    return (yield from _table(columns))


def trajectoryFromTable(tableNode: slicer.vtkMRMLTableNode) -> Trajectory:
    """The trajectory in a pose table, to the last digit; frames outside of the run are not valid.

    Raises InputError: another table, or numbers that cannot be read.
    """
    return finished(trajectory_in_pieces(tableNode))


def trajectory_in_pieces(tableNode: slicer.vtkMRMLTableNode) -> Generator[None, None, Trajectory]:
    """Do as :func:`trajectoryFromTable`, a column a piece."""
    poses = yield from _numbers(tableNode, _POSES)
    sigma = yield from _numbers(tableNode, SIGMA_COLUMNS)
    covariance = yield from _numbers(tableNode, COVARIANCE_COLUMNS)
    if poses is None:
        sentence = _("{name} is no table of poses; it lacks the columns m00 to m23 or Valid.")
        raise InputError(sentence.format(name=tableNode.GetName()))
    matrices = np.tile(np.eye(4), (len(poses), 1, 1))
    matrices[:, :3] = poses[:, :-1].reshape(-1, 3, 4)
    errors = None if sigma is None else sigma[1:], covariance
    return marked(Trajectory(matrices, poses[:, -1] > 0), pose_marks([tableNode]), PoseOrigin.UNKNOWN, *errors)[0]


def frames_used(tableNode: slicer.vtkMRMLTableNode) -> np.ndarray | None:
    """[N] bool, the images that the volume was made from; None for a table of an earlier version, or of no volume."""
    used = finished(_numbers(tableNode, [USED]))
    return None if used is None else used[:, 0] > 0


def _numbers(tableNode: slicer.vtkMRMLTableNode, names: Sequence[str]) -> Generator[None, None, np.ndarray | None]:
    """[rows, columns] of columns of a table, a column a piece; None where one is missing.

    Raises InputError: one holds another text.
    """
    table = tableNode.GetTable()
    columns = [table.GetColumnByName(name) for name in names]
    if None in columns:
        return None
    numbers = []
    try:
        rows = range(table.GetNumberOfRows())
        for column in columns:
            yield
            numbers.append(np.array(list(map(column.GetValue, rows)), dtype=np.float64))
    except ValueError as error:
        sentence = _("{name} holds something that is no number ({reason}).")
        raise InputError(sentence.format(name=tableNode.GetName(), reason=error)) from None
    return np.stack(numbers, axis=1)


def add_error_table(
    scene: slicer.vtkMRMLScene, result: RunResult, estimated: np.ndarray, true: np.ndarray, name: str
) -> slicer.vtkMRMLTableNode:
    """A row for each frame of the run: its errors, and where its centre is estimated and was.

    Args:
        result: with an evaluation.
        estimated, true: [n, 3] image centres of the frames of the run in frame0, mm; NaN where unknown.
    """
    errors: Mapping[str, Any] = result.evaluation["per_frame"]
    frames = result.first_frame + np.arange(len(result.trajectory))
    columns = [Column(FRAME, frames, "number of the image in the clip, from 0")]
    for key, title in ERRORS.items():
        values = np.array([np.nan if value is None else value for value in errors[key]], dtype=np.float64)
        columns.append(Column(title, values, key))
    for who, centres in (("Estimated", estimated), ("True", true)):
        for axis, values in zip(AXES, centres.T, strict=True):
            columns.append(Column(f"{who} {axis} (mm)", values, f"image centre along {axis} of frame0"))
    return add_node(scene, finished(_table(columns)), name)


def _table(columns: Iterable[Column]) -> Generator[None, None, slicer.vtkMRMLTableNode]:
    """A node that is not in the scene, a column a piece."""
    node = slicer.vtkMRMLTableNode()
    node.SetUseColumnTitleAsColumnHeader(True)
    for column in columns:
        yield
        node.GetTable().AddColumn(_array(column))
        node.SetColumnDescription(column.name, column.description)
    return node


def _array(column: Column) -> vtk.vtkAbstractArray:
    if isinstance(column.values, np.ndarray):
        kind = np.int32 if column.values.dtype.kind in "iu" else np.float64
        array = numpy_to_vtk(np.ascontiguousarray(column.values, dtype=kind), deep=True)
    else:
        array = vtk.vtkStringArray()
        for text in column.values:
            array.InsertNextValue(text)
    array.SetName(column.name)
    return array


#: Blue, orange, green: distinguishable also by readers who see colours differently.
_COLOURS = ((0.00, 0.45, 0.70), (0.90, 0.60, 0.00), (0.00, 0.62, 0.45))


def add_plots(
    scene: slicer.vtkMRMLScene, table: slicer.vtkMRMLTableNode, name: str
) -> tuple[list[slicer.vtkMRMLPlotChartNode], list[slicer.vtkMRMLPlotSeriesNode]]:
    """(charts, their series): errors by frame, and the estimated and the true path of the image centre by frame.

    Args:
        table: from `add_error_table`.
        name: of the clip.
    """
    solid, dashed = slicer.vtkMRMLPlotSeriesNode.LineStyleSolid, slicer.vtkMRMLPlotSeriesNode.LineStyleDash
    titled = zip(ERRORS.values(), _COLOURS, strict=True)
    errors = [_add_series(scene, table, title, colour, solid) for title, colour in titled]
    paths = [
        _add_series(scene, table, f"{who} {axis} (mm)", colour, style)
        for who, style in (("Estimated", solid), ("True", dashed))
        for axis, colour in zip(AXES, _COLOURS, strict=True)
    ]
    charts = [
        _add_chart(scene, errors, f"{name} errors", "Error (mm)"),
        _add_chart(scene, paths, f"{name} path", "Image centre in the first frame (mm)"),
    ]
    return charts, errors + paths


def _add_series(
    scene: slicer.vtkMRMLScene, table: slicer.vtkMRMLTableNode, column: str, colour: tuple[float, ...], style: int
) -> slicer.vtkMRMLPlotSeriesNode:
    series = slicer.vtkMRMLPlotSeriesNode()
    series.SetName(column.removesuffix(" (mm)"))
    scene.AddNode(series)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(FRAME)
    series.SetYColumnName(column)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetLineStyle(style)
    series.SetLineWidth(2)
    series.SetColor(*colour)
    return series


def _add_chart(
    scene: slicer.vtkMRMLScene, series: list[slicer.vtkMRMLPlotSeriesNode], name: str, y_title: str
) -> slicer.vtkMRMLPlotChartNode:
    chart = add_node(scene, slicer.vtkMRMLPlotChartNode(), name)
    for node in series:
        chart.AddAndObservePlotSeriesNodeID(node.GetID())
    chart.SetTitle(name)
    chart.SetXAxisTitle(FRAME)
    chart.SetYAxisTitle(y_title)
    return chart
