"""How fast the network runs, and in how much memory: against the network as specified, all frames at once.

    pytest Testing/Benchmarks/bench_engine.py --benchmark-json=engine.json
    BENCH_FRAMES=600,2048,4096 pytest Testing/Benchmarks/bench_engine.py -k memory

The reference is the network of the golden tests without the engine: eager, single precision, the whole sequence.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
from engine_sweeps import CORE_TESTS, long_sweep, peak_memory

sys.path.insert(0, str(CORE_TESTS))
from oracle import golden, oracle_sweep, published_model

from DualTrackCore import estimate_trajectory, load_model
from DualTrackCore.network.fast import PreparedTrunk, choose_backend
from DualTrackCore.network.fast.layers import TorchBackend
from DualTrackCore.tracking.device import computes_in_bf16
from DualTrackCore.tracking.preprocessing import Preprocessor

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
LENGTHS = [int(n) for n in os.environ.get("BENCH_FRAMES", "600").split(",")]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def published():
    return published_model()


def as_specified(sweep, model) -> np.ndarray:
    """Relative poses [N - 1, 6] of the network on the whole sequence at once."""
    card, network = model.card, model.network
    prepare = Preprocessor(
        sweep.frame_size,
        sweep.require_spacing(),
        card.spacing_mm,
        network.crop_size,
        network.global_size,
        *model.normalisation,
    )
    frames = torch.from_numpy(np.array(sweep.window(0, len(sweep))))
    with torch.inference_mode():
        return network(prepare.local(frames)[None], prepare.global_image(frames[:: network.global_every])[None])[
            0
        ].numpy()


def through_the_engine(sweep, model, precision="fp32") -> np.ndarray:
    return estimate_trajectory(sweep, model, device="cpu", precision=precision).parameters


@pytest.mark.parametrize(("name", "frames"), [("published", 24), ("mini", 200)])
def test_tracking_in_single_precision(ratio, published, name, frames):
    model = published if name == "published" else load_model("mini")
    sweep = long_sweep(frames)
    timing = ratio(
        lambda: through_the_engine(sweep, model),
        {"whole sequence, eager fp32": lambda: as_specified(sweep, model)},
        what=f"{name} network, {frames} frames, fp32",
    )
    error = np.abs(timing.result - timing.reference_results["whole sequence, eager fp32"]).max()
    timing.figures["largest difference of a pose parameter, mm or degrees"] = float(error)
    timing.figures["seconds a frame"] = timing.seconds / frames
    assert error < 1e-4
    assert timing.ratio() > (2.5 if name == "published" else 1.0)


def test_bfloat16(ratio, published):
    """Slow where the processor only imitates it; then the line says so, and nothing is asked of its speed."""
    sweep = oracle_sweep(12, 40)
    eager, fp32 = "whole sequence, eager fp32", "fp32 through the engine"
    timing = ratio(
        lambda: through_the_engine(sweep, published, precision="bf16"),
        {
            eager: lambda: as_specified(sweep, published),
            fp32: lambda: through_the_engine(sweep, published, precision="fp32"),
        },
        what="published network, the recorded sweep of 40 frames, bf16",
        rounds=2,
    )
    error = np.abs(timing.result - timing.reference_results[fp32]).max()
    timing.figures["largest difference of a pose parameter, mm or degrees"] = float(error)
    assert error < 0.03
    if computes_in_bf16():
        assert timing.ratio(eager) > 2
    else:
        timing.notes.append("this processor has no instructions for bfloat16")


def test_rounding_against_double_precision(ratio, published):
    """The recorded output of the published implementation in float64 is the truth; its own float32 is the measure."""
    sweep, expected = oracle_sweep(11, 24), golden("n24")
    timing = ratio(
        lambda: through_the_engine(sweep, published, precision="fp32"),
        what="published network on the recorded sweep of 24 frames",
        rounds=1,
    )
    recorded = np.abs(expected["pose"] - expected["pose_f64"]).max()
    error = np.abs(timing.result - expected["pose_f64"]).max()
    timing.figures["largest error of the engine against float64, mm or degrees"] = float(error)
    timing.figures["of the published implementation in float32"] = float(recorded)
    assert error < 6e-5


@pytest.mark.parametrize("chunk", [1, 4, 16, 32])
def test_the_trunk_by_chunk(ratio, published, chunk):
    trunk = published.network.local.trunk
    stream, images = prepared(trunk).stream(), torch.rand(chunk, 256, 256)
    few = torch.rand(1, 1, 4, 256, 256)

    def push():
        stream.push(images)

    def eager():
        with torch.inference_mode():
            trunk(few)

    timing = ratio(push, {"4 frames, eager": eager}, what=f"published trunk, {chunk} frames at a time", warm_up=20)
    timing.figures["seconds a frame"] = timing.seconds / chunk
    timing.figures["times as fast a frame as eager"] = timing.ratio() * chunk / 4


@pytest.mark.parametrize("name", ["published", "mini"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trunk_without_compiled_kernels(ratio, published, name, precision):
    network = (published if name == "published" else load_model("mini")).network.eval()
    trunk, dtype = network.local.trunk, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    images = torch.rand(16, network.crop_size, network.crop_size)

    plain = PreparedTrunk(trunk, TorchBackend(CPU, dtype)).stream()
    compiled = prepared(trunk).stream()

    def eager():
        with torch.inference_mode():
            trunk(images[None, None])

    for _ in range(3):  # the first pushes of a stream give fewer frames than they take, and are faster
        compiled.push(images)
    timing = ratio(
        lambda: plain.push(images),
        {"compiled kernels, fp32": lambda: compiled.push(images), "eager fp32": eager},
        what=f"{name} trunk, 16 frames at a time, torch alone, {precision}",
        warm_up=3,
    )
    timing.figures["ms a frame"] = 1e3 * timing.seconds / 16


def test_preparing_the_weights(ratio, published):
    def again():
        published.release()
        published.session(CPU).maps()

    others = {"already prepared": lambda: published.session(CPU).maps()}
    ratio(again, others, what="preparing the published trunk")


def prepared(trunk):
    return PreparedTrunk(trunk, choose_backend(trunk, CPU, torch.float32))


@pytest.fixture(scope="module")
def processor_seconds() -> dict[int, float]:
    """Of a frame, by the length of the sweep: time that others take from the machine does not count."""
    return {}


@pytest.mark.parametrize("frames", LENGTHS)
def test_memory_and_growth(ratio, processor_seconds, frames):
    timing = ratio(
        lambda: peak_memory(frames),
        what=f"published network, {frames} frames in a process of its own",
        rounds=1,
        warm_up=0,
    )
    timing.figures["peak memory above model and input, MB"] = timing.result["extra_bytes"] / 1e6
    timing.figures["seconds a frame"] = timing.result["seconds"] / frames
    processor_seconds[frames] = timing.result["processor_seconds"] / frames
    shortest = min(processor_seconds)
    growth = processor_seconds[frames] / processor_seconds[shortest]
    timing.figures[f"cost of a frame, in those of {shortest} frames"] = growth
    assert timing.result["extra_bytes"] < 1.5e9
    assert frames > 2048 or growth < 1.15
