"""What the consistency of a run says of its error: both measured on held-out simulated sweeps, frame by frame.

    python Testing/Benchmarks/study_consistency.py --cache SWEEPS -o STUDY

Writes STUDY/consistency.png (consistency against the true error, frames in bins and sweep by sweep), STUDY/summary.json
and STUDY/summary.md (correlations), and one small file a sweep, so that an interrupted study goes on where it stopped
and one of the same weights is only drawn again. A sweep takes four runs of the network and one of speckle matching.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, below

import numpy as np
from scipy.stats import pearsonr, spearmanr

from DualTrackCore.datasets.held_out import held_out_simulations, simulate_all
from DualTrackCore.evaluation import evaluate
from DualTrackCore.evaluation.points import five_points_mm, mean_point_error
from DualTrackCore.files import replacing
from DualTrackCore.network import Model, load_model
from DualTrackCore.pictures.drawing import BLUE, GREY, INK, new_figure, save, style_plot
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.tracking.consistency import consistency

#: Bins of frames, of equal count, by consistency.
_BINS = 12


def main() -> None:
    """Measure what is missing, then correlate and draw."""
    options = _options()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(options.model)
    simulations = held_out_simulations(options.count, options.frames)
    sweeps = simulate_all(simulations, Path(options.cache or folder / "sweeps"))
    measured = []
    for name, sweep in sweeps:
        file = folder / f"{name.replace(' ', '-')}.json"
        found = _read(file, model)
        if found is None:
            found = measure(sweep, model)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps({"weights": model.sha256, **found}), encoding="utf-8")
            print(f"{name}: {found['seconds']:.0f} s", flush=True)
        measured.append((name, found))
    summary = {"model": model.card.name, "weights": model.sha256, **correlations(measured)}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    text = table(summary)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    draw(measured, summary, folder / "consistency.png")
    print(text)


def measure(sweep: Sweep, model: Model) -> dict:
    """Consistency and true error of the estimate of one sweep, without its first frame; plain values."""
    start = time.perf_counter()
    trajectory = estimate_trajectory(sweep, model)
    found = consistency(sweep, model, trajectory=trajectory)
    points = five_points_mm(sweep.image_from_pixel, sweep.frame_size)
    error = mean_point_error(trajectory.relative, sweep.tracked.relative, points)
    metrics = evaluate(trajectory, sweep).metrics
    return {
        "seconds": time.perf_counter() - start,
        "error_mm": error.tolist(),
        "consistency": found.per_frame[1:].tolist(),
        "parts": {name: values[1:].tolist() for name, values in found.parts.items()},
        "left_out": dict(found.left_out),
        "sweep_mm": found.sweep_mm,
        "path_mm": found.path_mm,
        "lpe_mm": metrics["lpe_five_point_mm"],
        "gpe_mm": metrics["gpe_five_point_mm"],
    }


def correlations(measured: list[tuple[str, dict]]) -> dict:
    """Spearman's and Pearson's r of consistency with the error: over all frames, within sweeps, over sweeps."""
    found = [values for _, values in measured]
    error = np.concatenate([values["error_mm"] for values in found])
    names = [name for name in found[0]["parts"] if all(name in values["parts"] for values in found)]
    figures = {"all parts": [values["consistency"] for values in found]}
    figures |= {name: [values["parts"][name] for values in found] for name in names}
    frames = {}
    for name, columns in figures.items():
        within = [spearmanr(column, values["error_mm"])[0] for column, values in zip(columns, found, strict=True)]
        pooled = np.concatenate(columns)
        frames[name] = {
            "spearman": float(spearmanr(pooled, error)[0]),
            "pearson": float(pearsonr(pooled, error)[0]),
            "spearman_within_sweeps": float(np.mean(within)),
        }
    sweeps = {}
    for figure, metric in (("sweep_mm", "lpe_mm"), ("path_mm", "gpe_mm")):
        pair = [[values[name] for values in found] for name in (figure, metric)]
        sweeps[f"{figure} with {metric}"] = {
            "spearman": float(spearmanr(*pair)[0]),
            "pearson": float(pearsonr(*pair)[0]),
        }
    own = np.concatenate(figures["all parts"])
    least, most = (error[own <= np.quantile(own, 0.1)].mean(), error[own >= np.quantile(own, 0.9)].mean())
    return {
        "sweeps": len(found),
        "frames": len(error),
        "by_frame": frames,
        "by_sweep": sweeps,
        "error_mm_of_most_and_least_consistent_tenth": [float(least), float(most)],
        "seconds_a_sweep": float(np.mean([values["seconds"] for values in found])),
    }


def table(summary: dict) -> str:
    """The correlations as Markdown."""
    least, most = summary["error_mm_of_most_and_least_consistent_tenth"]
    lines = [
        f"Model {summary['model']}, {summary['sweeps']} held-out simulated sweeps, {summary['frames']} frames.",
        "",
        "| consistency with the true error of a frame | Spearman | Pearson | Spearman within sweeps |",
        "| --- | --- | --- | --- |",
    ]
    for name, r in summary["by_frame"].items():
        lines.append(f"| {name} | {r['spearman']:.2f} | {r['pearson']:.2f} | {r['spearman_within_sweeps']:.2f} |")
    lines += ["", "| by sweep | Spearman | Pearson |", "| --- | --- | --- |"]
    lines += [f"| {name} | {r['spearman']:.2f} | {r['pearson']:.2f} |" for name, r in summary["by_sweep"].items()]
    lines += [
        "",
        f"Mean error of the most consistent tenth of the frames {least:.3f} mm, of the least consistent {most:.3f} mm.",
    ]
    return "\n".join(lines) + "\n"


def draw(measured: list[tuple[str, dict]], summary: dict, path: Path) -> None:
    """The calibration plot: frames in bins of equal count, then every sweep."""
    figure = new_figure(5.4, "white")
    axes = figure.subplots(1, 3)
    found = [values for _, values in measured]
    own, error = (np.concatenate([values[name] for values in found]) for name in ("consistency", "error_mm"))
    edges = np.quantile(own, np.linspace(0, 1, _BINS + 1))
    inside = [(own >= low) & (own <= high) for low, high in pairwise(edges)]
    bins, places = [error[kept] for kept in inside], [own[kept].mean() for kept in inside]
    quartiles = np.array([np.percentile(values, [25, 75]) for values in bins])
    axes[0].fill_between(places, *quartiles.T, color=BLUE, alpha=0.18, lw=0, label="middle half of the frames")
    axes[0].plot(places, [values.mean() for values in bins], "o-", color=BLUE, ms=5, label="mean of the bin")
    _titled(
        axes[0],
        "A frame",
        "consistency of the frame, mm",
        "true error of the step, mm",
        summary["by_frame"]["all parts"],
    )
    pairs = (("sweep_mm", "lpe_mm", "A sweep, steps"), ("path_mm", "gpe_mm", "A sweep, path"))
    for place, (figure_name, metric, title) in zip(axes[1:], pairs, strict=True):
        x, y = ([values[name] for values in found] for name in (figure_name, metric))
        place.plot(x, y, "o", color=BLUE, ms=7, alpha=0.8)
        what = "steps" if metric == "lpe_mm" else "path"
        r = summary["by_sweep"][f"{figure_name} with {metric}"]
        _titled(place, title, f"consistency of the {what}, mm", f"true error ({metric[:3].upper()}), mm", r)
    for place in axes:
        most = max(place.get_xlim()[1], place.get_ylim()[1])
        place.plot([0, most], [0, most], "--", color=GREY, lw=1, label="equal", zorder=0)
        place.set(xlim=(0, place.get_xlim()[1]), ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=10, loc="upper left")
    figure.suptitle(
        f"{summary['model']}: consistency against true error on {summary['sweeps']} held-out simulated sweeps",
        color=INK,
        fontsize=14,
    )
    figure.tight_layout()
    save(figure, path)


def _titled(axes: object, title: str, across: str, up: str, r: dict) -> None:
    style_plot(axes, across, up)
    axes.set_title(f"{title}: Spearman {r['spearman']:.2f}, Pearson {r['pearson']:.2f}", color=INK, fontsize=12)


def _read(file: Path, model: Model) -> dict | None:
    """What an earlier run measured with the same weights."""
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    return found if found.get("weights") == model.sha256 else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", metavar="DIR", required=True)
    parser.add_argument("--cache", metavar="DIR", help="where simulated sweeps are kept (default: DIR/sweeps)")
    parser.add_argument("--model", default="mini", help="name or weights file (default: %(default)s)")
    parser.add_argument("--count", type=int, default=14, help="of sweeps (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=200, help="of each (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
