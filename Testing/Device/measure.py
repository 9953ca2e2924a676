"""Everything that needs a graphics card, measured in one table; under 4 minutes on an H200.

    python Testing/Device/measure.py -o Testing/Device/results.md    # on a computer with an NVIDIA card
    python Testing/Device/measure.py --dry                           # small numbers; the CPU plays the card

Parity of every precision with the recorded output of the published implementation, times against a plain forward pass
in the same process, memory, weights that must not be sent again, a live stream and the volume. Ends with 1 where a
figure misses what is to be reached. The dry run has no limits of time: it shows that everything runs and agrees.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

from oracle import anatomical_model, golden, noise_sweep, oracle_sweep, published_model
from sweeps import curved_sweep

from DualTrackCore.network import Model, load_model, session
from DualTrackCore.progress import Reporter
from DualTrackCore.reconstruction import plan_grid, reconstruct_volume
from DualTrackCore.reconstruction.card import CardBuilder
from DualTrackCore.repeats import Repeats, find_repeats
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import LiveTracker, estimate_trajectory
from DualTrackCore.tracking.device import frames_ahead
from DualTrackCore.tracking.preprocessing import Preprocessor, examined


@dataclass(frozen=True)
class Row:
    """A figure with what is to be reached: at most or at least `limit`, or none."""

    what: str
    figure: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def held(self) -> bool:
        """Whether it is reached; a figure that is none reaches nothing."""
        if self.limit is None:
            return True
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def cells(self) -> tuple[str, ...]:
        """What, figure, limit, whether it is reached."""
        limit = "" if self.limit is None else f"{'at least' if self.at_least else 'at most'} {self.limit:.3g}"
        return (
            self.what,
            f"{self.figure:.3g} {self.unit}".strip(),
            limit,
            ("yes" if self.held else "NO") if limit else "",
        )


@dataclass(frozen=True)
class Bench:
    """What is measured, and how much of it.

    Attributes:
        device: that computes.
        model, mini: the large model and the small one.
        sweeps: (sweep, motions that it must have).
        frames, long, live_s: frames of a sweep, of a long one, seconds of a live stream.
        size, voxel_mm: rows and columns of a frame; of the volume.
        half: the precision that is timed.
        dry: whether the CPU plays the card, so that nothing is limited in time.
    """

    device: torch.device
    model: Model
    mini: Model
    sweeps: list[tuple[Sweep, np.ndarray]]
    frames: int
    long: int
    live_s: float
    size: tuple[int, int]
    voxel_mm: float
    half: str
    dry: bool

    def limit(self, value: float) -> float | None:
        """A limit for a card alone."""
        return None if self.dry else value

    def track(self, pixels: np.ndarray, model: Model | None = None, precision: str = "", **options: object):
        """Track frames [n, H, W] that repeat nothing."""
        sweep = pixels if isinstance(pixels, Sweep) else Sweep(pixels, self.model.card.spacing_mm)
        options |= {"precision": precision or self.half, "device": self.device, "repeats": Repeats.none(len(sweep))}
        return estimate_trajectory(sweep, model or self.model, **options)


def on_card() -> Bench:
    """The published network with the weights of the recorded output, on the first card."""
    sweeps = [(oracle_sweep(seed, n), golden(f"n{n}")["pose"]) for seed, n in ((11, 24), (12, 40))]
    model, mini = published_model(), load_model("mini")
    return Bench(torch.device("cuda"), model, mini, sweeps, 600, 4096, 10.0, (480, 640), 0.3, "fp16", False)


def on_cpu() -> Bench:
    """A small network; its trunks run in chunks, as on a card."""
    session.runs_in_chunks = lambda device: True
    model = anatomical_model()
    sweeps = [(sweep, plain_motions(model, sweep)) for sweep in (noise_sweep(40),)]
    size = model.card.frame_size
    return Bench(torch.device("cpu"), model, anatomical_model(), sweeps, 40, 60, 0.1, size, 1.0, "fp32", True)


@torch.inference_mode()
def plain_motions(model: Model, sweep: Sweep, device: str = "cpu", half: torch.dtype | None = None) -> np.ndarray:
    """Motions by the network as it stands, all frames at once; on a card under autocast."""
    network = copy.deepcopy(model.network).to(device) if half is None else model.network
    prepare = Preprocessor.for_model(model, sweep)
    frames = torch.from_numpy(sweep.window(0, len(sweep))).to(device)
    crops, whole = prepare.local(frames)[None], prepare.global_image(frames[:: network.global_every])[None]
    with nullcontext() if half is None else torch.autocast(torch.device(device).type, half):
        return network(crops, whole)[0].float().cpu().numpy()


def best(work: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the fastest of some calls, all of whose results have come back."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def parity(bench: Bench) -> Iterator[Row]:
    """Every precision against the recorded motions."""
    limits = {"fp32": 6e-5} if bench.dry else {"fp32": 6e-5, "tf32": None, "fp16": 0.03, "bf16": None}
    for precision, limit in limits.items():
        apart = [
            np.abs(bench.track(sweep, precision=precision, chunk_frames=chunk).parameters - expected).max()
            for sweep, expected in bench.sweeps
            for chunk in (64, 20)
        ]
        yield Row(f"{precision}: largest difference from the recorded motions", max(apart), "mm or degrees", limit)
    bench.model.release()


def times(bench: Bench) -> Iterator[Row]:
    """A sweep from its array to its path, and the same by a plain forward pass."""
    pixels = np.random.default_rng(0).integers(0, 256, (bench.frames, *bench.size), dtype=np.uint8)
    sweep = Sweep(pixels, bench.model.card.spacing_mm)
    chunk = {"chunk_frames": 20} if bench.dry else {}
    first = best(lambda: bench.track(pixels, **chunk), 1)
    yield Row(f"{bench.frames} frames, {bench.half}, first call", first, "s")
    plain = replace(bench.model, network=copy.deepcopy(bench.model.network).to(bench.device))
    half = session.DTYPES[bench.half]
    plain_motions(plain, sweep, str(bench.device), half)
    seconds, reference = [], []
    for _ in range(5 if not bench.dry else 1):
        seconds.append(best(lambda: bench.track(pixels, **chunk), 1))
        reference.append(best(lambda: plain_motions(plain, sweep, str(bench.device), half), 1))
    ours = min(seconds)
    yield Row(f"{bench.frames} frames, {bench.half}, from the array to the path", ours, "s", bench.limit(0.11))
    yield Row("plain forward pass under autocast", min(reference), "s")
    yield Row("times as fast as that", min(reference) / ours, "", bench.limit(1.4), at_least=True)
    yield Row("of it: comparison with the training images", best(lambda: examined(bench.model, sweep), 2), "s")
    send = best(lambda: [None for _ in frames_ahead(sweep, bench.device, 300)], 2)
    yield Row("of it, hidden behind the trunk: sending the frames", send, "s")
    yield Row("before it: search for repeated frames", best(lambda: find_repeats(sweep, Reporter()), 1), "s")
    if not bench.dry:
        yield Row("fp32", best(lambda: bench.track(pixels, precision="fp32"), 3), "s")
        yield Row("tf32", best(lambda: bench.track(pixels, precision="tf32"), 3), "s")
        del plain
        bench.model.release()
        torch.cuda.empty_cache()
        bench.track(pixels)
    yield from long_sweeps(bench, ours)
    mini = Sweep(pixels, bench.mini.card.spacing_mm)
    bench.track(mini, bench.mini, **chunk)
    shown = "mini" if not bench.dry else "another model"
    mini_s = best(lambda: bench.track(mini, bench.mini, **chunk), 3 if not bench.dry else 1)
    yield Row(f"{bench.frames} frames, {shown}", mini_s, "s", bench.limit(0.03))


def long_sweeps(bench: Bench, seconds: float) -> Iterator[Row]:
    """Memory, weights that are sent again, and how the cost of a frame grows."""
    pixels = np.random.default_rng(1).integers(0, 256, (bench.long, *bench.size), dtype=np.uint8)
    with Sent() as sent:
        bench.track(pixels[: bench.frames], chunk_frames=20 if bench.dry else "auto")
    yield Row("tensors beside the frames sent in a call", sent.large, "", 0)
    if not bench.dry:
        torch.cuda.reset_peak_memory_stats()
        bench.track(pixels[: bench.frames])
        yield Row("peak memory on the card", torch.cuda.max_memory_allocated() / 1e9, "GB", 3.0)
    whole = best(lambda: bench.track(pixels, chunk_frames=20 if bench.dry else "auto"), 1)
    growth = whole / bench.long / (seconds / bench.frames)
    yield Row(f"cost of a frame of {bench.long}, in those of {bench.frames}", growth, "", bench.limit(1.3))


class Sent(TorchDispatchMode):
    """Counts tensors of floats above 64 KB that go to another device: in a call nothing but frames does."""

    large = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = arguments[int(function is torch.ops.aten.copy_.default)]
            leaves = source.device.type == "cpu" and result.device.type != "cpu"
            self.large += leaves and source.is_floating_point() and source.nbytes > 1 << 16
        return result


def live(bench: Bench) -> Iterator[Row]:
    """A stream at 30 frames a second: from a frame's arrival to its first pose."""
    pixels = np.random.default_rng(2).integers(0, 256, (64, *bench.size), dtype=np.uint8)
    options = {"device": bench.device, "precision": bench.half, "repeats": "keep", "max_lag_frames": 128}
    options |= {"chunk_frames": 12} if bench.dry else {}
    tracker, arrived, latency = LiveTracker(bench.model, bench.size, bench.model.card.spacing_mm, **options), [], {}
    begin = time.perf_counter()

    def note(poses: list) -> None:
        for pose in poses:
            latency.setdefault(pose.frame, time.perf_counter() - arrived[pose.frame])

    with tracker:
        for index in range(max(int(30 * bench.live_s), 48)):
            arrived.append(begin + index / 30)
            while time.perf_counter() < arrived[-1]:
                time.sleep(0.002)
                note(tracker.push(pixels[:0]))
            note(tracker.push(pixels[index % 64][None]))
        note(tracker.wait())
        tracker.finish()
    for percent, limit in ((50, bench.limit(0.25)), (95, None)):
        yield Row(
            f"live at 30 frames/s: latency p{percent}", float(np.percentile([*latency.values()], percent)), "s", limit
        )


def volume(bench: Bench) -> Iterator[Row]:
    """The same volume by the card and by the CPU."""
    sweep, trajectory = curved_sweep(bench.frames, bench.size)
    grid = plan_grid(sweep, trajectory, spacing_mm=bench.voxel_mm)
    for interpolation in ("nearest", "linear"):
        how = {"interpolation": interpolation}
        unfilled = {**how, "hole_filling": "none"}

        def own(how: dict = how, unfilled: dict = unfilled) -> np.ndarray:
            if not bench.dry:
                return reconstruct_volume(sweep, trajectory, grid, device=bench.device, **unfilled).volume
            builder = CardBuilder("cpu", grid, sweep.frame_size, sweep.image_from_pixel, **how)
            builder.add(sweep.frames, trajectory.poses)
            return builder.finish()[0]

        found, expected = own(), reconstruct_volume(sweep, trajectory, grid, device="cpu", **unfilled).volume
        apart = np.abs(found.astype(np.int16) - expected).max()
        title = f"volume, {interpolation}"
        yield Row(
            f"{title}: largest difference from the CPU", float(apart), "grey values", int(interpolation == "linear")
        )
        limit = bench.limit(0.15) if interpolation == "linear" else None
        yield Row(f"{title}: {bench.frames} frames at {bench.voxel_mm} mm", best(own, 2), "s", limit)


def measured(bench: Bench) -> list[Row]:
    """All rows, each said as soon as it is there."""
    rows = []
    for part in (parity, times, live, volume):
        for row in part(bench):
            rows.append(row)
            print(" | ".join(row.cells), file=sys.stderr, flush=True)
    return rows


def text(bench: Bench, rows: list[Row], seconds: float) -> str:
    """The table as Markdown, under the name of the card."""
    card = "no card: the CPU played one, with small numbers" if bench.dry else torch.cuda.get_device_name()
    lines = ["| what | measured | to reach | reached |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row.cells)} |" for row in rows]
    head = f"{card}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; {seconds:.0f} s in all"
    return "\n".join([head + "\n", *lines, ""])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 where something is not reached, 2 where there is no card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="small numbers on the CPU")
    parser.add_argument("-o", "--output", type=Path, help="write the table here, too")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        print("There is no NVIDIA card that this torch can use; --dry runs on the CPU.", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    bench = on_cpu() if options.dry else on_card()
    rows = measured(bench)
    page = text(bench, rows, time.perf_counter() - begin)
    print(page)
    if options.output:
        options.output.write_text(page, encoding="utf-8")
    return int(not all(row.held for row in rows))


if __name__ == "__main__":
    sys.exit(main())
