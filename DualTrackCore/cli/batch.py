"""`dualtrack run` of several sweeps: a folder for each, one table, and no sweep stops the others."""

from __future__ import annotations

import csv
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from DualTrackCore.cli.console import Console
from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.files import replacing, staged_folder
from DualTrackCore.network import Model
from DualTrackCore.progress import Reporter
from DualTrackCore.run.pipeline import run, settings_model
from DualTrackCore.run.results import NOTICE, RunReport
from DualTrackCore.run.settings import RunSettings

#: Columns of summary.csv.
COLUMNS = ("sweep", "folder", "status", "frames", "path_mm", "gpe_mm", "warnings", "error")


def run_several(sweeps: Sequence[str], settings: RunSettings, output: Path, console: Console) -> bool:
    """Run every sweep into a folder of its own below `output`, and write summary.csv there.

    Returns:
        Whether all sweeps could be used.

    Raises:
        Cancelled, KeyboardInterrupt: the user wants to stop; what is finished stays.
        OutputError: the summary cannot be written.
    """
    models = _OneModel()
    rows = []
    for number, (sweep, name) in enumerate(zip(sweeps, folder_names(sweeps), strict=True), 1):
        console.say(f"[{number}/{len(sweeps)}] {sweep}")
        row = {"sweep": str(sweep), "folder": name, "status": "done"}
        try:
            with staged_folder(output / name) as folder:
                report = run(sweep, settings, Reporter(console.progress), models=models).write(folder)
            row |= _figures(report)
        except (Cancelled, KeyboardInterrupt):
            raise
        except DualTrackError as error:
            row |= {"status": "failed", "error": str(error)}
        except Exception as error:
            console.warn(traceback.format_exc())
            row |= {"status": "failed", "error": f"A fault of the program: {error}; please report it."}
        if row["status"] == "failed":
            console.warn(f"{sweep}: {row['error']}")
        rows.append(row)
    _write_table(rows, output / "summary.csv")
    failed = sum(row["status"] == "failed" for row in rows)
    console.say(_table(rows))
    console.say(f"{len(rows) - failed} of {len(rows)} sweeps are in {output}, with summary.csv. {NOTICE}")
    console.result({"output": str(output), "sweeps": rows, "failed": failed})
    return not failed


def folder_names(sweeps: Sequence[str]) -> list[str]:
    """A folder name for each sweep: its file name without suffixes, with a number where that is taken."""
    names: list[str] = []
    for sweep in sweeps:
        path = Path(sweep).resolve()
        stem = path.stem.removesuffix(".igs").removesuffix(".seq") if path.is_file() else path.name
        stem = stem or "sweep"
        name, number = stem, 1
        while name.lower() in {taken.lower() for taken in names}:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


class _OneModel:
    """Loads the model of all runs once."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def __call__(self, settings: RunSettings) -> Model:
        self._model = self._model or settings_model(settings)
        return self._model


def _figures(report: RunReport) -> dict[str, Any]:
    gpe = None if report.evaluation is None else report.evaluation["metrics"].get("gpe_mm")
    return {
        "frames": report.trajectory["poses"],
        "path_mm": report.trajectory["path_length_mm"],
        "gpe_mm": gpe,
        "warnings": len(report.warnings),
    }


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _table(rows: list[dict[str, Any]]) -> str:
    """The summary as aligned columns."""
    texts = [("sweep", "frames", "path", "error (GPE)", "warnings")]
    for row in rows:
        if row["status"] == "failed":
            texts.append((row["folder"], "failed", "", "", ""))
            continue
        gpe = "" if row["gpe_mm"] is None else f"{row['gpe_mm']:.3g} mm"
        texts.append((row["folder"], str(row["frames"]), f"{row['path_mm']:.1f} mm", gpe, str(row["warnings"])))
    widths = [max(len(text[i]) for text in texts) for i in range(5)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(text, widths, strict=True)) for text in texts]
    return "\n".join(f"  {line.rstrip()}" for line in lines)
