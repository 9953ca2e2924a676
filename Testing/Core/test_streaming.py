"""The streaming trunk gives the result of the whole sequence, whatever the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import tiny_model

from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.fast import PreparedTrunk, StreamingTrunk, choose_backend

TRUNK = tiny_model().network.local.trunk


def whole(frames: torch.Tensor, trunk: Trunk = TRUNK) -> torch.Tensor:
    return trunk(frames[None, None])[0].transpose(0, 1)


def stream_of(trunk: Trunk = TRUNK, dtype: torch.dtype = torch.float32) -> StreamingTrunk:
    return PreparedTrunk(trunk, choose_backend(trunk, torch.device("cpu"), dtype)).stream()


def streamed(frames: torch.Tensor, pieces: list[int], trunk: Trunk = TRUNK) -> torch.Tensor:
    stream, start, maps = stream_of(trunk), 0, []
    for piece in pieces:
        maps.append(stream.push(frames[start : start + piece], last=start + piece >= len(frames)))
        start += piece
    return torch.cat(maps)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=12))
@torch.inference_mode()
def test_any_split_gives_the_whole_sequence_result(pieces):
    torch.manual_seed(len(pieces))
    frames = torch.rand(sum(pieces), 32, 32)
    torch.testing.assert_close(streamed(frames, pieces), whole(frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 64])
@torch.inference_mode()
def test_chunks_of_1_7_and_64_give_the_whole_sequence_result(chunk):
    frames = torch.rand(70, 32, 32)
    torch.testing.assert_close(streamed(frames, [chunk] * -(-70 // chunk)), whole(frames), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_outputs_come_17_frames_behind_the_newest_one():
    stream, frames = stream_of(), torch.rand(40, 32, 32)
    counts = [len(stream.push(frames[i : i + 1])) for i in range(39)]
    assert counts == [0] * 17 + [1] * 22
    assert len(stream.push(frames[39:], last=True)) == 18


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_sweep():
    stream, sizes = stream_of(), []
    for _ in range(10):
        stream.push(torch.rand(16, 32, 32))
        sizes.append(stream.kept_bytes)
    assert sizes[2] > 0
    assert len(set(sizes[2:])) == 1


@torch.inference_mode()
def test_in_half_precision_the_convolutions_come_near():
    frames = torch.rand(40, 32, 32)
    half = stream_of(dtype=torch.bfloat16).push(frames, last=True)
    assert half.dtype == torch.bfloat16
    exact = whole(frames)
    assert not torch.equal(half.float(), exact)
    torch.testing.assert_close(half.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
