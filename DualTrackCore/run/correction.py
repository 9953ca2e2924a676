"""A result that lies in a folder, corrected by what is known of it: path and volume anew, without tracking again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from DualTrackCore.corrections import NO_PROFILE
from DualTrackCore.errors import InputError, named
from DualTrackCore.progress import Reporter
from DualTrackCore.run import run
from DualTrackCore.run.preparation import cropped_area
from DualTrackCore.run.results import RunReport, RunResult
from DualTrackCore.run.settings import TRACKED, RunSettings
from DualTrackCore.sweep import Sweep

#: Settings of how a clip was read and prepared, which its frames in the folder are already.
_DONE = {
    **{"spacing_mm": None, "calibration": None, "probe": None, "series": None, "first_frame": 0, "last_frame": None},
    **{"rotate": 0, "mirror": False, "crop": None, "depth_mm": None, "mask": "none"},
    **{"poses": TRACKED, "poses_are": None, "direction": "auto", "profile": NO_PROFILE},
}


def correct_result(
    folder: str | os.PathLike,
    changes: Mapping[str, Any],
    reporter: Reporter | None = None,
    outputs: Iterable[str | os.PathLike] = (),
) -> RunResult:
    """The result in a folder with more that is known of it; nothing there is changed.

    Frames and pixels count in the sweep of the folder. What corrected the path before stays in it.

    Args:
        folder: as :meth:`RunResult.write` wrote it.
        changes: settings that differ from those of the result; `corrections` among them, a mapping or
            :class:`~DualTrackCore.corrections.Corrections`.
        reporter, outputs: as for :func:`~DualTrackCore.run.run`.

    Raises:
        InputError: the folder holds no result, nothing is known, or what is known cannot be used.
        Cancelled: the caller asked to stop.
    """
    sweep, former = result_in(folder)
    clip, fan = cropped_area(former.crop, former.clip, former.fan)
    given = {**former.as_dict(), **_DONE, "clip": clip, "fan": fan, "corrections": {}, **changes}
    settings = RunSettings.from_dict(given)
    if not settings.corrections and not settings.names_profile:
        raise InputError(
            f"Nothing is said that is known of the sweep; give a length ({named('known_length_mm')}), marks "
            f"({named('places')}) or another of the corrections."
        )
    return run(sweep, settings, reporter, outputs=outputs)


def result_in(folder: str | os.PathLike) -> tuple[Sweep, RunSettings]:
    """The frames in a folder of results, with their path and all that was said of it, and the settings of the run.

    Raises InputError: the folder holds no result.
    """
    folder = Path(folder)
    from DualTrackCore.io import load_sweep, read_trajectory_csv

    names = {name: folder / name for name in ("report.json", "trajectory.csv", "sweep.igs.mha")}
    for name, path in names.items():
        if not path.is_file():
            raise InputError(f"{folder} holds no {name}; name a folder that `dualtrack run` wrote.")
    try:
        values = json.loads(names["report.json"].read_text(encoding="utf-8"))
        report = RunReport.from_dict(values)
    except (ValueError, OSError, AttributeError, TypeError):
        raise InputError(f"{names['report.json']} is no report of a run; run the clip again.") from None
    sweep, path = load_sweep(names["sweep.igs.mha"]), read_trajectory_csv(names["trajectory.csv"])
    if len(path) != len(sweep):
        raise InputError(f"{folder} has {len(path)} poses and {len(sweep)} frames; run the clip again.")
    said = {**path.provenance, **report.trajectory["source"]}
    files = tuple(os.path.abspath(file) for file in names.values())
    tracked = replace(
        path, provenance=said, reference_from_frame0=sweep.tracked and sweep.tracked.reference_from_frame0
    )
    sweep = replace(sweep, tracked=tracked, files=(*sweep.files, *files))
    return sweep, RunSettings.from_dict(report.settings, names["report.json"].name)
