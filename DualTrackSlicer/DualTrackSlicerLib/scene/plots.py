"""Errors and paths of each frame as plots."""

from __future__ import annotations

import slicer

from DualTrackSlicerLib.scene.nodes import free_name
from DualTrackSlicerLib.scene.tables import AXES, ERRORS, FRAME

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
    errors = [
        _add_series(scene, table, title, title.removesuffix(" (mm)"), colour, solid)
        for title, colour in zip(ERRORS.values(), _COLOURS, strict=True)
    ]
    paths = [
        _add_series(scene, table, f"{who} {axis} (mm)", f"{who} {axis}", colour, style)
        for who, style in (("Estimated", solid), ("True", dashed))
        for axis, colour in zip(AXES, _COLOURS, strict=True)
    ]
    charts = [
        _add_chart(scene, errors, f"{name} errors", "Error (mm)"),
        _add_chart(scene, paths, f"{name} path", "Image centre in the first frame (mm)"),
    ]
    return charts, errors + paths


def _add_series(
    scene: slicer.vtkMRMLScene,
    table: slicer.vtkMRMLTableNode,
    column: str,
    name: str,
    colour: tuple[float, float, float],
    style: int,
) -> slicer.vtkMRMLPlotSeriesNode:
    series = slicer.vtkMRMLPlotSeriesNode()
    series.SetName(name)
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
    chart = slicer.vtkMRMLPlotChartNode()
    chart.SetName(free_name(scene, name))
    scene.AddNode(chart)
    for node in series:
        chart.AddAndObservePlotSeriesNodeID(node.GetID())
    chart.SetTitle(name)
    chart.SetXAxisTitle(FRAME)
    chart.SetYAxisTitle(y_title)
    return chart
