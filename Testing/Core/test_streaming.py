"""The streaming trunk gives the result of the whole sequence, whatever the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import tiny_model

from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.fast import StreamingTrunk

TRUNK = tiny_model().network.local.trunk


def whole(frames: torch.Tensor, trunk: Trunk = TRUNK) -> torch.Tensor:
    return trunk(frames[None, None])[0].transpose(0, 1)


def streamed(frames: torch.Tensor, pieces: list[int], trunk: Trunk = TRUNK) -> torch.Tensor:
    stream, start, maps = StreamingTrunk(trunk), 0, []
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
    stream, frames = StreamingTrunk(TRUNK), torch.rand(40, 32, 32)
    counts = [len(stream.push(frames[i : i + 1])) for i in range(39)]
    assert counts == [0] * 17 + [1] * 22
    assert len(stream.push(frames[39:], last=True)) == 18


@torch.inference_mode()
def test_a_failed_push_can_be_repeated_in_smaller_pieces(monkeypatch):
    from DualTrackCore.network.fast.layers import TorchLayer

    stream, frames = StreamingTrunk(TRUNK), torch.rand(30, 32, 32)
    maps = [stream.push(frames[:20])]
    original, calls = TorchLayer.run, []

    def full(self, *arguments):
        calls.append(self)
        if len(calls) == 12:
            raise torch.OutOfMemoryError
        original(self, *arguments)

    monkeypatch.setattr(TorchLayer, "run", full)
    with pytest.raises(torch.OutOfMemoryError):
        stream.push(frames[20:], last=True)
    monkeypatch.undo()
    maps += [stream.push(frames[20:25]), stream.push(frames[25:], last=True)]
    torch.testing.assert_close(torch.cat(maps), streamed(frames, [30]), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_failure_of_what_the_maps_are_for_undoes_the_push():
    full, frames = [True], torch.rand(30, 32, 32)

    def consume(maps):
        if full.pop() if full else False:
            raise torch.OutOfMemoryError
        return maps

    stream = StreamingTrunk(TRUNK, consume)
    with pytest.raises(torch.OutOfMemoryError):
        stream.push(frames[:25])
    maps = [stream.push(frames[:25]), stream.push(frames[25:], last=True)]
    torch.testing.assert_close(torch.cat(maps), whole(frames), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_sweep():
    stream, sizes = StreamingTrunk(TRUNK), []
    for _ in range(10):
        stream.push(torch.rand(16, 32, 32))
        sizes.append(stream.kept_bytes)
    assert sizes[2] > 0
    assert len(set(sizes[2:])) == 1


@torch.inference_mode()
def test_under_autocast_the_convolutions_run_in_half_precision_and_come_near():
    frames = torch.rand(40, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = streamed(frames, [16, 16, 8])
    assert half.dtype == torch.bfloat16
    exact = whole(frames)
    assert not torch.equal(half.float(), exact)
    torch.testing.assert_close(half.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
