"""The local encoder's trunk through other runtimes than the engine's kernels: time of a frame, and error of the poses.

    pip install openvino nncf          # not among the requirements of this project
    python Testing/Benchmarks/study_runtimes.py -o runtimes.md

The published network with generated weights on 32 frames of noise, smoothed to the grain of speckle. Every runtime gets
all frames at once, the best of three calls counts. A pose error of 0.1 is as much as these poses differ from each
other: what INT8 does to trained weights may be less, and is not known.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))

from oracle import published_model

from DualTrackCore.files import replacing
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.fast import PreparedTrunk, choose_backend

FRAMES, CROP, CPU = 32, 256, torch.device("cpu")
#: Name, call from images [1, 1, N, H, W] to maps [1, C, N, h, w], seconds that making it ready took.
Runtime = tuple[str, Callable[[Tensor], Tensor], float]


def images() -> Tensor:
    """[1, 1, FRAMES, CROP, CROP] in 0 to 1."""
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (FRAMES, 1, CROP, CROP), dtype=np.uint8))
    return torch.nn.functional.avg_pool2d(grey.float() / 255, 3, 1, 1)[:, 0][None, None].contiguous()


def of_this_project(trunk: Trunk) -> Iterator[Runtime]:
    """The plain network, and the engine."""
    yield "eager, fp32", trunk, 0.0
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        start = time.perf_counter()
        fast = PreparedTrunk(trunk, choose_backend(trunk, CPU, dtype))
        took = time.perf_counter() - start

        def run(seen: Tensor, fast=fast) -> Tensor:
            return fast.stream().push(seen[0, 0], True).transpose(0, 1)[None]

        yield f"engine, {name}", run, took


def of_torch_compile(trunk: Trunk, seen: Tensor) -> Iterator[Runtime]:
    """torch.compile with its defaults; needs a C++ compiler."""
    for name in ("fp32", "bf16"):
        context = torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()
        compiled = torch.compile(copy.deepcopy(trunk).to(memory_format=torch.channels_last_3d))

        def run(seen: Tensor, compiled=compiled, context=context) -> Tensor:
            with context:
                return compiled(seen)

        start = time.perf_counter()
        run(seen)
        yield f"torch.compile, {name}", run, time.perf_counter() - start


def of_openvino(trunk: Trunk, seen: Tensor) -> Iterator[Runtime]:
    """OpenVINO, and INT8 of its quantiser (mixed preset, three sweeps for calibration)."""
    import nncf
    import openvino

    start = time.perf_counter()
    model = openvino.convert_model(trunk, example_input=seen)
    model.reshape(list(seen.shape))
    converted = time.perf_counter() - start
    shifted = [np.roll(seen.numpy(), 7 * k, axis=3) for k in range(3)]
    for name in ("fp32", "bf16", "INT8"):
        start = time.perf_counter()
        if name == "INT8":
            model = nncf.quantize(
                model, nncf.Dataset(shifted), subset_size=len(shifted), preset=nncf.QuantizationPreset.MIXED
            )
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if name == "bf16" else "f32"}
        compiled = openvino.Core().compile_model(model, "CPU", hints)
        took = converted + time.perf_counter() - start

        def run(seen: Tensor, compiled=compiled) -> Tensor:
            return torch.from_numpy(np.array(next(iter(compiled(seen.numpy()).values())), dtype=np.float32))

        yield f"OpenVINO, {name}", run, took


def row(runtime: Runtime, seen: Tensor, poses: Callable[[Tensor], Tensor], truth: Tensor) -> str:
    """One line of the table."""
    name, run, took = runtime
    seconds = []
    with torch.inference_mode():
        for _ in range(4):  # the first call makes ready
            start = time.perf_counter()
            maps = run(seen)
            seconds.append(time.perf_counter() - start)
        error = (poses(maps) - truth).abs()
    each = 1e3 * min(seconds[1:]) / FRAMES
    return f"| {name} | {each:.1f} | {took:.1f} | {error.max():.2g} | {error.mean():.2g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown table")
    options = parser.parse_args()
    network, seen = published_model().network.eval(), images()
    trunk = network.local.trunk
    with torch.inference_mode():
        pooled = network.global_encoder.image_features(torch.rand(1, 2, 224, 224))

    def poses(maps: Tensor) -> Tensor:
        return network.poses_from_features(network.local.frame_features(maps.float()), pooled)[0]

    with torch.inference_mode():
        truth = poses(trunk(seen))
    lines = ["| runtime | ms a frame | s to make ready | largest pose error | mean pose error |", "|" + " --- |" * 5]
    for runtimes in (of_this_project(trunk), of_torch_compile(trunk, seen), of_openvino(trunk, seen)):
        for runtime in runtimes:
            lines.append(row(runtime, seen, poses, truth))
            print(lines[-1])
    with replacing(options.output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
