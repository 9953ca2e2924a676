"""How fast training items are read, at the size of the public data set, against what a GPU eats.

    BENCH_SWEEPS=1200 pytest Testing/Benchmarks/bench_training.py

1200 scans of 430 to 796 frames of 480 x 640 pixels, stored as in TUS-REC 2024, 226 GB. The files are sparse, with few
distinct frames, and what is read of them lies in memory: items a second are of the processor's time, and `GB an epoch`
(asked of the system, or mapped) says what disks must give. "As before" reads whole frames from files opened anew, and
resizes them. A GPU is taken to need 0.12 s for a step on 16 windows of 16 frames (local1), and for other stages as much
more or less as their arithmetic, counted, but at least 0.01 s a step.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from engine_sweeps import CORE_TESTS
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(CORE_TESTS))
from hdf5_files import calibration_csv, random_poses

from DualTrackCore.network import DualTrack
from DualTrackCore.progress import Reporter
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.image_store import ImageStore
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.samples import SweepItems, collate
from DualTrackCore.research.training.sweeps import SweepSet, training_sweeps
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.tracking.preprocessing import Preprocessor

SWEEPS, LENGTHS, SIZE = int(os.environ.get("BENCH_SWEEPS", "1200")), (430, 613, 796), (480, 640)
#: A step of local1 on a GPU, s, and its items.
STEP_S, STEP_ITEMS = 0.12, 16
#: What a step takes at least, however little there is to compute: an assumption.
LEAST_STEP_S = 0.01
STAGES = ("local1", "local2", "local3", "global", "fusion")


def write_scan(path: Path, frames: int, seed: int) -> None:
    """A scan without chunks, as the challenge gives them, with three frames that differ from black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        pixels = file.create_dataset("frames", (frames, *SIZE), np.uint8)
        for frame in (0, frames // 2, frames - 1):
            pixels[frame] = np.random.default_rng([seed, frame]).integers(0, 256, SIZE, np.uint8)
        file["tforms"] = random_poses(frames, seed)


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> tuple[Path, tuple[SweepSet, SweepSet]]:
    """A folder for what is stored, and the opened sets: 24 scans a subject, 24 for validation."""
    root = tmp_path_factory.mktemp("public")
    for part, count in (("train", SWEEPS), ("validation", 24)):
        for scan in range(count):
            path = root / part / "frames_transfs" / f"{part[0]}{scan // 24:03d}" / f"scan{scan % 24:02d}.h5"
            write_scan(path, LENGTHS[scan % 3], scan + (part == "train") * 10_000)
        calibration_csv(root / part / "calib_matrix.csv")
    recipe = recipe_of("local1", root)
    return root, training_sweeps(recipe.data, recipe_card(recipe), root / "cache", 1, Reporter())


def recipe_of(stage: str, root: Path):
    places = [f"data.folder={root / 'train'}", f"data.validation_folder={root / 'validation'}"]
    return load_recipe(f"paper/{stage}", [*places, "workers=0", "initial={}"])


def sparse(path: Path, shape: tuple[int, ...], kind: str) -> Path:
    """A stored array of zeros that takes no room."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, "w+", kind, shape).flush()
    return path


def items_of(stage: str, public: tuple[Path, tuple[SweepSet, SweepSet]]) -> SweepItems:
    """The training items of a stage, with everything stored that it reads."""
    (root, (training, _)), recipe = public, recipe_of(stage, public[0])
    lengths = list(map(len, training.sweeps))
    if stage in ("global", "fusion"):
        files = (sparse(root / "images" / f"{i}.npy", (n, 224, 224), "u1") for i, n in enumerate(lengths))
        training = replace(training, image_files=tuple(files))
    items = SweepItems(recipe, training, plain_network(), recipe_card(recipe))
    if crops := recipe.sampling.stored_crops:
        files = (sparse(root / f"tokens{crops}" / f"{i}.npy", (4 * crops, n, 64), "f2") for i, n in enumerate(lengths))
        items.token_files = list(files)
    return items


@functools.cache
def plain_network() -> DualTrack:
    with torch.device("meta"):
        return DualTrack()


@functools.cache
def arithmetic(stage: str) -> float:
    """Operations of an item: forwards, and backwards through what is trained; counted on tensors without content."""
    recipe = recipe_of(stage, Path("none"))
    frames = {"local1": 16, "local2": 16, "global": 64}.get(stage, int(np.mean(LENGTHS)))
    with torch.device("meta"):
        task = build_task(DualTrack(), recipe).train()
        batch = {
            "local": torch.empty(1, frames, 256, 256),
            "whole": torch.empty(1, 64 if stage == "global" else -(-frames // 16), 224, 224),
            "frame_index": torch.arange(frames)[None],
            "tokens": torch.empty(1, frames, 64),
        }
        for name in {"local1": ["tokens"], "local2": ["tokens"]}.get(stage, ["local"]):
            del batch[name]
        with FlopCounterMode(display=False) as counter:
            task.outputs(batch | {"frames": torch.tensor([frames], device="cpu")}).sum().backward()
    return counter.get_total_flops()


def bytes_read() -> int:
    """What this process has asked the system to read."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def as_before(items: SweepItems, prepared: Preprocessor, key: tuple[int, int]) -> list[torch.Tensor]:
    """What an item shows, from whole frames of files that are opened for every read; tokens as they are now."""
    draw, seen = items.draw(*key), []
    source = items.sweeps.sweeps[items.sweep_of(key[1])].frames

    def whole(frames: np.ndarray) -> torch.Tensor:
        low, high = int(frames.min()), int(frames.max()) + 1
        close = high - low <= 2 * len(frames)
        pixels = source[low:high][frames - low] if close else np.concatenate([source[i : i + 1] for i in frames])
        return torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1] if draw.flipped else pixels))

    if draw.variant is not None:
        stored = np.load(items.token_files[items.sweep_of(key[1])], mmap_mode="r")
        seen.append(torch.from_numpy(np.array(stored[draw.variant, draw.positions], np.float32)))
    elif items.recipe.stage != "global":
        seen.append(prepared.crops(whole(draw.frames), draw.shift).contiguous())
    if items.recipe.stage in ("global", "fusion"):
        seen.append(prepared.global_image(whole(draw.frames[:: 1 if items.recipe.stage == "global" else 16])))
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_reading_items(ratio, public, stage):
    items = items_of(stage, public)
    card, sweep = items.card, items.sweeps.sweeps[0]
    prepared = Preprocessor(SIZE, sweep.require_spacing(), card.spacing_mm, 256, 224, 0.5, 0.25)
    assert not prepared.resamples
    count = 4 * STEP_ITEMS if stage in ("local1", "local2") else STEP_ITEMS
    chosen = np.random.default_rng(0).permutation(len(items))[:count].tolist()
    turn, asked, taken = [0], {"now": [], "before": []}, {"now": [], "before": []}

    def measured(name, read):
        turn[0] += 1
        before, start = bytes_read(), time.process_time()
        result = [read((turn[0], item)) for item in chosen]
        taken[name].append((time.process_time() - start) / count)
        asked[name].append((bytes_read() - before) / count)
        return result

    def before() -> None:
        measured("before", lambda key: as_before(items, prepared, key))

    timing = ratio(
        lambda: collate(measured("now", items.__getitem__)),
        {} if stage == "local3" else {"as before": before},  # which reads stored tokens as it did
        what=f"paper/{stage}: reading {count} items in one process",
        rounds=2,
        once=("as before",),
    )
    batch, now = timing.result, min(taken["now"])
    # Of mapped files the system is not asked; tokens are float16 there.
    mapped = batch["whole"].nbytes if "whole" in batch else 0
    mapped += batch["tokens"].nbytes / 2 if "tokens" in batch else 0
    batch_size = items.recipe.batch_size
    step = STEP_S * batch_size / STEP_ITEMS * arithmetic(stage) / arithmetic("local1")
    eaten = batch_size / max(step, LEAST_STEP_S)
    timing.figures["items a second"] = 1 / now
    timing.figures["a GPU eats"] = eaten
    timing.figures["processes that feed it"] = max(1, int(np.ceil(eaten * now)))
    timing.figures["GB an epoch"] = (min(asked["now"]) + mapped / count) * len(items) / 1e9
    if taken["before"]:
        timing.figures["items a second as before"] = 1 / min(taken["before"])
        timing.figures["GB an epoch as before"] = min(asked["before"]) * len(items) / 1e9


def test_storing_resized_frames(ratio, public, tmp_path_factory):
    part = public[1][1]
    one, taken = SweepSet(part.names[:1], part.sweeps[:1]), []
    spacing_mm = recipe_card(recipe_of("global", public[0])).spacing_mm

    def store():
        start = time.process_time()
        ImageStore(tmp_path_factory.mktemp("store"), 224, spacing_mm, 0).filled([one], Reporter())
        taken.append(time.process_time() - start)

    timing = ratio(
        store, what=f"resizing and storing the {len(one.sweeps[0])} frames of a scan in one process", rounds=2
    )
    frames, lengths = len(one.sweeps[0]) / min(taken), sum(map(len, public[1][0].sweeps))
    timing.figures["frames a second"] = frames
    timing.figures["hours for all training frames in 8 processes"] = lengths / frames / 8 / 3600
    timing.figures["GB stored"] = lengths * 224**2 / 1e9
