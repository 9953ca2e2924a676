"""The transformers over a sweep, against the formula of the specification written down as it stands.

The plain one looks up a distance vector for every pair of frames and keeps all scores at once. `share of a frame, %`
says what the transformers add to the convolutions of the published network, and `growth in frames` how much dearer than
linear the whole is.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from DualTrackCore.network import DualTrack
from DualTrackCore.network.blocks import RelativeAttention

POSITIONS = 2048
#: The convolutions of a frame of the published network on two cores, s: what an engine may reach at best.
TRUNK_S = 0.08


class PlainAttention(torch.nn.Module):
    """score[l, r] = (q[l] . k[r] + q[l] . E[l - r + positions - 1]) / sqrt(d), everything at once."""

    def __init__(self, ours: RelativeAttention) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        ours = self.ours
        q, k, v = (
            layer(source).unflatten(-1, (ours.heads, -1)).transpose(1, 2)
            for layer, source in ((ours.query, x), (ours.key, context), (ours.value, context))
        )
        scores = q @ k.transpose(-1, -2)
        if ours.positions is not None:
            left, right = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None, :]
            table = ours.distance_embedding(left - right + ours.positions - 1)
            scores = scores + torch.einsum("bhld,lrd->bhlr", q, table)
        return (torch.softmax(scores / q.shape[-1] ** 0.5, dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.fixture(scope="module")
def network() -> DualTrack:
    torch.manual_seed(0)
    return DualTrack(positions=POSITIONS).eval()


@pytest.fixture(scope="module")
def plain() -> DualTrack:
    """The same weights, the plain formula."""
    torch.manual_seed(0)
    network = DualTrack(positions=POSITIONS).eval()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, RelativeAttention):
                setattr(module, name, PlainAttention(child))
    return network


def features(frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(1, frames, 64, generator=generator), torch.randn(1, -(-frames // 16), 512, generator=generator)


def poses(network: DualTrack, frames: int) -> Tensor:
    with torch.inference_mode():
        return network.poses_from_features(*features(frames))


@pytest.mark.parametrize("frames", [512, 1024, 2048])
def test_attention_and_fusion(ratio, network, plain, frames):
    timing = ratio(
        lambda: poses(network, frames),
        {"plain eager": lambda: poses(plain, frames)},
        what=f"transformers of the published network, {frames} frames",
        rounds=3 if frames < 2048 else 2,
    )
    difference = (timing.result - timing.reference_results["plain eager"]).abs().max().item()
    assert difference < 1e-4
    timing.figures["ms a frame"] = 1e3 * timing.seconds / frames
    timing.figures["share of a frame, %"] = 100 * timing.seconds / (timing.seconds + TRUNK_S * frames)
    timing.notes.append(f"motions agree to {difference:.0e} mm or degrees")


@pytest.mark.parametrize("heads", [4, 8])
def test_relative_attention_alone(ratio, heads):
    torch.manual_seed(0)
    layer = RelativeAttention(heads * 64, heads, 0.0, POSITIONS).eval()
    plain, x = PlainAttention(layer), torch.randn(1, POSITIONS, heads * 64)

    def run(module: torch.nn.Module) -> Tensor:
        with torch.inference_mode():
            return module(x, x)

    timing = ratio(
        lambda: run(layer),
        {"plain eager": lambda: run(plain)},
        what=f"one layer of relative attention, {POSITIONS} frames, {heads} heads of 64",
        rounds=3,
    )
    difference = (timing.result - timing.reference_results["plain eager"]).abs().max().item()
    assert difference < 1e-5
    timing.notes.append(f"outputs agree to {difference:.0e}")


def test_growth_with_frames(ratio, network):
    """512 frames against 2048, in turn: the surplus is what is not linear."""
    timing = ratio(
        lambda: poses(network, 512), {"2048 frames": lambda: poses(network, 2048)}, what="transformers, 512 frames"
    )
    short, long = timing.seconds / 512, timing.reference_seconds["2048 frames"] / 2048
    growth = (TRUNK_S + long) / (TRUNK_S + short)
    timing.figures["ms a frame at 512"], timing.figures["ms a frame at 2048"] = 1e3 * short, 1e3 * long
    timing.figures["growth in frames"] = growth
    timing.notes.append(f"a frame of a sweep of 2048 costs {growth:.3f} times one of 512, at {TRUNK_S} s of trunk")
    assert growth < 1.15


def test_peak_memory(ratio, network):
    """Pages that the transformers add to the process at 2048 frames."""
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("peak memory is read from Linux's /proc")
    before = _resident_mb("VmRSS")
    timing = ratio(lambda: poses(network, 2048), what="transformers, 2048 frames: memory", rounds=1, setup=_forget_peak)
    timing.figures["peak above start, MB"] = max(0.0, _resident_mb("VmHWM") - before)
    assert timing.figures["peak above start, MB"] < 400


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _resident_mb(name: str) -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))
