"""A result as tables for other programs: its path, its figures, and what was measured in it."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from DualTrackCore.files import replacing
from DualTrackCore.io.trajectory_csv import writing_trajectory_csv
from DualTrackSlicerLib.scene.measures import Target, kept, targetsIn
from DualTrackSlicerLib.scene.records import clip_in_pieces, result_in_pieces
from DualTrackSlicerLib.scene.result_nodes import RUN, ResultNodes

_COLUMNS = ("name", "what", "value", "unit", "low_68", "high_68", "low_95", "high_95", "basis", "trust", "result")


def exportInPieces(nodes: ResultNodes, path: Path) -> Generator[object, None, None]:
    """Write the path of a result as a table, and beside it what :func:`exportFiles` names.

    Raises:
        InputError: nodes of the run or its clip have left the scene.
        OutputError: a file cannot be written; none is changed then.
    """
    clip = yield from clip_in_pieces(nodes, pictures=False)
    result, rows = (yield from result_in_pieces(replace(nodes, volume=None), clip)), _rows_in_scene(nodes)
    with ExitStack() as files:
        poses, figures, *measures = (files.enter_context(replacing(file)) for file in exportFiles(nodes, path))
        yield from writing_trajectory_csv(result.trajectory, poses, result.sweep.timestamps_s)
        result.report.write_csv(figures)
        for place in measures:
            with open(place, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([_COLUMNS, *rows])


def exportFiles(nodes: ResultNodes, path: Path) -> list[Path]:
    """What is written: clip.csv, clip-figures.csv, and where anything was measured in the result clip-measures.csv."""
    names = ["figures", "measures"] if _rows_in_scene(nodes) else ["figures"]
    return [path, *(path.with_name(f"{path.stem}-{name}{path.suffix}") for name in names)]


def measureRows(nodes: ResultNodes, targets: Iterable[Target]) -> list[list[object]]:
    """Of each thing that was measured in a result a row: name, what, value, unit, bands, basis, trust, result."""
    rows, run = [], nodes.transform_sequence.GetAttribute(RUN)
    for target in targets:
        record = kept(target)
        for one in record["measured"] if record is not None and record["run"] == run else ():
            bands = [*(one.band_68 or ("", "")), *(one.band_95 or ("", ""))]
            rows.append([target.name, one.kind, one.value, one.unit, *bands, one.basis, one.trust, record["result"]])
    return rows


def _rows_in_scene(nodes: ResultNodes) -> list[list[object]]:
    return measureRows(nodes, targetsIn(nodes.transform_sequence.GetScene()))
