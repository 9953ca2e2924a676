"""The streaming trunk gives the result of the whole sequence, whatever the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import tiny_model

from DualTrackCore.tracking.streaming import StreamingTrunk

TRUNK = tiny_model().network.local.trunk


def streamed(frames: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    stream, start, maps = StreamingTrunk(TRUNK), 0, []
    for piece in pieces:
        maps.append(stream.push(frames[start : start + piece], last=start + piece >= len(frames)))
        start += piece
    return torch.cat(maps)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=12))
@torch.inference_mode()
def test_any_split_gives_the_whole_sequence_result(pieces):
    torch.manual_seed(len(pieces))
    frames = torch.rand(sum(pieces), 32, 32)
    torch.testing.assert_close(
        streamed(frames, pieces), TRUNK(frames[None, None])[0].transpose(0, 1), atol=1e-5, rtol=1e-5
    )


@torch.inference_mode()
def test_outputs_come_17_frames_behind_the_newest_one():
    stream, frames = StreamingTrunk(TRUNK), torch.rand(40, 32, 32)
    counts = [len(stream.push(frames[i : i + 1])) for i in range(39)]
    assert counts == [0] * 17 + [1] * 22
    assert len(stream.push(frames[39:], last=True)) == 18


@torch.inference_mode()
def test_a_failed_push_can_be_repeated_in_smaller_pieces(monkeypatch):
    stream, frames = StreamingTrunk(TRUNK), torch.rand(30, 32, 32)
    maps = [stream.push(frames[:20])]
    block = TRUNK.blocks[5]
    monkeypatch.setattr(block, "shortcut", lambda x: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        stream.push(frames[20:], last=True)
    monkeypatch.undo()
    maps += [stream.push(frames[20:25]), stream.push(frames[25:], last=True)]
    torch.testing.assert_close(torch.cat(maps), streamed(frames, [30]), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_sweep():
    stream, sizes = StreamingTrunk(TRUNK), []
    for _ in range(10):
        stream.push(torch.rand(16, 32, 32))
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in stream._kept.values()))
    assert len(set(sizes[2:])) == 1
