"""What a model does on recorded sweeps, on today's simulated sweeps and on acquisitions that training never drew.

    python Testing/Benchmarks/study_recorded.py [MODEL] [--sweeps N] [--only recorded|held-out|acquisitions] [-o FILE]
    python Testing/Benchmarks/study_recorded.py [MODEL] --known

MODEL is a name or a weights file (default: mini). "Direction told": of the path and the path mirrored at the image
plane the better one counts, as if the user had said which way the probe went. `--known`: the two legs, corrected by
what may be known of them beside the direction; the profile is that of the other leg. The recorded sweeps lie in
../shared and are for measuring only: no weights are trained on them or chosen by them.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from DualTrackCore import load_model, load_sweep
from DualTrackCore.corrections import KnownLength, KnownPoses, correct
from DualTrackCore.corrections.profile import Preset, Profile
from DualTrackCore.evaluation import evaluate
from DualTrackCore.network import Model
from DualTrackCore.path_error import SURE, turned_over
from DualTrackCore.research.comparison.step_errors import check
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.run.profiling import measured as scale_of
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.trajectory import Trajectory

SHARED = Path(__file__).parents[3] / "shared" / "data"
RECORDED = {
    "leg 0138": SHARED / "real/ultrabones_leg_0138.h5",
    "leg 0221": SHARED / "real/ultrabones_leg_0221.h5",
}
SPINE = SHARED / "seq/SpinePhantomFreehand.igs.mha", SHARED / "config"


def measured(sweep: Sweep, model: Model) -> tuple[dict[str, float], Trajectory]:
    """Figures of one sweep, as found and with the direction told, and the path with the direction told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = estimate_trajectory(sweep, model, device="cpu")
    paths = found, turned_over(found)
    both = [evaluate(path, sweep).metrics for path in paths]
    best = min((0, 1), key=lambda which: both[which]["gpe_mm"])
    told = both[best]
    true, own = sweep.tracked.parameters, found.parameters
    length = [np.linalg.norm(values[:, :3], axis=1) for values in (own, true)]
    identity = evaluate(found, sweep).baselines["identity"]
    figures = {
        "frames": len(sweep),
        "path_mm": float(length[1].sum()),
        "step_ratio": float(length[0].mean() / length[1].mean()),
        "tz_ratio": float(np.abs(own[:, 2]).mean() / np.abs(true[:, 2]).mean()),
        "direction_right": float(best == 0),
        "direction_sure": float(found.provenance.get("direction") == SURE),
        **{f"told_{name}": value for name, value in told.items()},
        **{f"found_{name}": value for name, value in both[0].items()},
        "no_motion_gpe_mm": identity["gpe_mm"],
    }
    return figures, paths[best]


def recorded() -> dict[str, Callable[[], Sweep]]:
    """The recorded sweeps that are there."""
    loads: dict[str, Callable[[], Sweep]] = {
        name: lambda path=path: load_sweep(path) for name, path in RECORDED.items() if path.is_file()
    }
    if SPINE[0].is_file():
        calibration = SPINE[1] / "PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml"
        loads["spine phantom"] = lambda: load_sweep(SPINE[0], calibration=calibration)
    return loads


def known(model: Model) -> None:
    """Print the errors of the two legs with nothing, with the direction, and with one thing more that is known."""
    sweeps = [load_sweep(path) for path in RECORDED.values()]
    rows, told = zip(*(measured(sweep, model) for sweep in sweeps), strict=True)
    profiles = [
        Profile.of("leg", path.provenance, Preset.of(sweep), [scale_of(path, sweep.truth)])
        for path, sweep in zip(told, sweeps, strict=True)
    ]
    for name, sweep, row, path, other in zip(RECORDED, sweeps, rows, told, profiles[::-1], strict=True):
        truth, ends = sweep.truth, [0, len(sweep) - 1]
        things = {
            f"profile of the other leg (x {other.factor:.2f}, known to {other.spread:.0%})": other.scale,
            "length": KnownLength(truth.path_length_mm),
            "places of the first and the last frame": KnownPoses("places", ends, truth.poses[ends], 1.0, 1.0),
        }
        kinds = {"nothing": "found", "the direction": "told"}
        found = {thing: (row[f"{kind}_gpe_mm"], row[f"{kind}_fdr_path_percent"]) for thing, kind in kinds.items()}
        for thing, knowledge in things.items():
            metrics = evaluate(correct(path, [knowledge]), sweep).metrics
            found[f"direction, {thing}"] = metrics["gpe_mm"], metrics["fdr_path_percent"]
        for thing, (gpe, fdr) in found.items():
            print(f"| {name} | {thing} | {gpe:.1f} | {fdr:.0f} |")


def simulated(which: str, count: int) -> dict[str, Callable[[], Sweep]]:
    """Simulated sweeps by name."""
    frames = 200 if which == "held-out" else 128
    return {entry.name: entry.load for entry in simulated_dataset(which, count=count, frames=frames)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mini")
    parser.add_argument("--sweeps", type=int, default=28)
    parser.add_argument("--only", choices=["recorded", "held-out", "acquisitions"])
    parser.add_argument("--known", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    model, table = load_model(options.model), {}
    if options.known:
        return known(model)
    sets = {"recorded": recorded} | {w: lambda w=w: simulated(w, options.sweeps) for w in ("held-out", "acquisitions")}
    for which in [options.only] if options.only else sets:
        rows, paths, truths = {}, [], []
        for name, load in sets[which]().items():
            sweep = load()
            row, path = measured(sweep, model)
            rows[name] = row
            paths.append(path)
            truths.append(sweep.tracked)
            print(f"{which:12s} {name:28s} {line(row)}", flush=True)
        table[which] = rows
        if len(rows) > 3:
            print(
                f"{which:12s} {'mean':28s} {line({k: float(np.nanmean([r[k] for r in rows.values()])) for k in row})}"
            )
            directions = [(row["direction_sure"], row["direction_right"]) for row in rows.values()]
            sure = [right for is_sure, right in directions if is_sure]
            print(
                f"{which:12s} direction right {sum(right for _, right in directions):.0f} of {len(rows)}, "
                f"sure {len(sure)}, of these right {sum(sure):.0f}"
            )
            if paths[0].sigma is not None:
                held = check(paths, truths)
                print(
                    f"{which:12s} intervals hold: steps {held.step_length}, paths {held.path_length}, "
                    f"Spearman {held.rank_correlation:.2f}"
                )
    if options.output:
        options.output.write_text(json.dumps(table, indent=1), encoding="utf-8")


def line(row: dict[str, float]) -> str:
    """One row of the table."""
    gpe = row["told_gpe_mm"]
    return (
        f"path {row['path_mm']:6.1f} mm  steps x {row['step_ratio']:.2f} (tz {row['tz_ratio']:.2f})  told: "
        f"GPE {gpe:6.2f} mm ({gpe / row['path_mm']:4.0%} of the path) LPE {row['told_lpe_mm']:.3f} "
        f"FDR {row['told_fdr_path_percent']:5.1f} %  found: GPE {row['found_gpe_mm']:6.2f}  "
        f"no motion {row['no_motion_gpe_mm']:6.2f}"
    )


if __name__ == "__main__":
    main()
