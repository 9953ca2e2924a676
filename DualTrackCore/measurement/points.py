"""Points marked in 3D Slicer, from its files: markups (.mrk.json) and tables of control points (.csv, .tsv)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.trajectory import RAS_FROM_LPS

#: Words for the two systems of coordinates in markups; Slicer once wrote numbers.
_SYSTEMS = {"RAS": np.eye(3), "0": np.eye(3), "LPS": RAS_FROM_LPS[:3, :3], "1": RAS_FROM_LPS[:3, :3]}
_COLUMNS = {"RAS": ("r", "a", "s"), "LPS": ("l", "p", "s")}
_LARGEST_BYTES = 1 << 24


def read_points(path: Path) -> tuple[np.ndarray, bool]:
    """The points of a file, in their order.

    Returns:
        [K, 3] RAS, mm, and whether the line goes back to the first one (a closed curve).

    Raises:
        InputError: the file cannot be read, is neither of both, does not say whether it holds LPS or RAS, holds several
            markups, or a point that is no three numbers.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{path} has more than {_LARGEST_BYTES >> 20} MiB; that is no list of points.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the points {path}: {reason_of(error)}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a file of points: it is not text.") from None
    rows, system, closed = _of_markups(text, path) if path.suffix.lower() == ".json" else _of_table(text, path)
    try:
        points = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    except (TypeError, ValueError):
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise InputError(f"{path} holds a point that is not three finite numbers; mend or remove it.")
    if len(points) < 2:
        raise InputError(f"{path} holds too few points that are placed ({len(points)}); a length needs at least two.")
    return points @ _SYSTEMS[system], closed


def _of_markups(text: str, path: Path) -> tuple[list[Any], str, bool]:
    """Positions, system of coordinates, and whether the curve is closed."""
    try:
        content = json.loads(text)
        markups = content["markups"]
        node = markups[0]
        points, kind = node["controlPoints"], node.get("type")
        rows = [point["position"] for point in points if _is_placed(point)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise InputError(
            f"{path} is not a markups file of Slicer; save a line or a curve there as .mrk.json."
        ) from None
    if len(markups) > 1:
        raise InputError(f"{path} holds {len(markups)} markups; save the one that is to be measured by itself.")
    if kind not in ("Line", "Curve", "ClosedCurve", "Fiducial"):
        raise InputError(
            f"{path} holds a markup of the kind {kind!r}; its length is not known: save a line or a curve."
        )
    system = str(node.get("coordinateSystem"))
    if system not in _SYSTEMS:
        raise InputError(f"{path} does not say whether its points are LPS or RAS (coordinateSystem); save it again.")
    return rows, system, kind == "ClosedCurve"


def _is_placed(point: Mapping[str, Any]) -> bool:
    return point.get("positionStatus", "defined") == "defined"


def _of_table(text: str, path: Path) -> tuple[list[Any], str, bool]:
    """As :func:`_of_markups`; the names of the columns say the system."""
    try:
        table = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
        names = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
        system = next((system for system, columns in _COLUMNS.items() if set(columns) <= set(names)), None)
        if system is None:
            raise InputError(
                f"{path} is not a table of points: its first line must name the columns r, a, s or l, p, s; "
                "Slicer exports control points so (.csv), or save them as .mrk.json."
            )
        placed = [row for row in table if (row.get(names.get("defined")) or "1").strip() != "0"]
    except csv.Error as error:
        raise InputError(f"{path} is not a table of points: {reason_of(error)}.") from None
    return [[row[names[column]] for column in _COLUMNS[system]] for row in placed], system, False
