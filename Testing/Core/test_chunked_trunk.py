"""The trunk in whole chunks gives the maps of the whole sweep, and its weights go to a device once; on the CPU here."""

from functools import cache

import pytest
import torch
from oracle import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from DualTrackCore.network.fast import ChunkedTrunk, uploaded
from DualTrackCore.network.session import network_on

CPU, META = torch.device("cpu"), torch.device("meta")


@cache
def noise(frames, size=64):
    return torch.rand(frames, size, size, generator=torch.Generator().manual_seed(frames))


@torch.inference_mode()
def whole(network, frames):
    return network.local.trunk(frames[None, None])[0].transpose(0, 1)


def pushed(stream, frames, size):
    starts = range(0, len(frames), size)
    return torch.cat([stream.push(frames[i : i + size], last=i + size >= len(frames)) for i in starts])


def assert_as_whole(frames, sizes):
    """In float64 and with like weights in time, where a border that is a frame too narrow shows: it weighs 3^-17."""
    network, start, maps = tiny_model().network.double(), 0, []
    for layer in network.local.trunk.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.weight.copy_(layer.weight.abs().mean(dim=2, keepdim=True).expand_as(layer.weight))
    stream = ChunkedTrunk(network.local.trunk, CPU, torch.float64).stream()
    for size in sizes:
        maps.append(stream.push(frames[start : start + size], last=start + size >= len(frames)))
        start += size
    torch.testing.assert_close(torch.cat(maps), whole(network, frames), atol=0, rtol=1e-11)


@pytest.mark.parametrize("sizes", [[9] * 6, [17] * 3, [50], [3, 20, 1, 20, 6]])
@torch.inference_mode()
def test_chunks_of_any_size_give_the_maps_of_the_whole_sweep(sizes):
    assert_as_whole(noise(50, 16).double(), sizes)


@torch.inference_mode()
def test_the_frames_that_are_not_complete_are_told_as_if_the_sweep_ended_with_them():
    network, frames = tiny_model().network, noise(50, 16)
    stream = ChunkedTrunk(network.local.trunk, CPU, torch.float32).stream()
    stream.push(frames[:10])
    assert stream.tail is None
    for stop, start in ((30, 10), (40, 30)):
        stream.push(frames[start:stop])
        expected = whole(network, frames[:stop])[stop - 17 :]
        torch.testing.assert_close(stream.tail, expected, atol=1e-5, rtol=1e-5)
    stream.push(frames[40:], last=True)
    assert len(stream.tail) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_half_precision_comes_near(dtype):
    network, frames = tiny_model().network, noise(20, 16)
    half = pushed(ChunkedTrunk(network.local.trunk, CPU, dtype).stream(), frames, 16)
    exact = whole(network, frames)
    assert half.dtype == dtype
    assert 0 < (half.float() - exact).abs().max() < 0.03 * exact.abs().max()


@torch.inference_mode()
def test_what_cudnn_does_in_one_is_what_torch_does_in_three(monkeypatch):
    network, frames, calls = tiny_model().network, noise(20, 16), []

    def convolution(x, weight, *rest):
        *before, bias, stride, padding, dilation, groups = rest
        calls.append(bool(before))
        y = torch.nn.functional.conv3d(x, weight, bias, stride, padding, dilation, groups)
        return torch.relu(y + before[1] * before[0] if before else y)

    trunk = ChunkedTrunk(network.local.trunk, CPU, torch.float32)
    expected = trunk(frames)
    for layer in (*trunk._stem, *(layer for block in trunk._blocks for layer in block if layer is not None)):
        layer._fused = True
    monkeypatch.setattr(torch, "cudnn_convolution_relu", convolution)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", convolution)
    torch.testing.assert_close(trunk(frames), expected, atol=1e-6, rtol=1e-6)
    assert (calls.count(True), calls.count(False)) == (8, 10)

    def refuses(*_):
        calls.append("refused")
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")

    calls.clear()
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", refuses)
    for _ in range(2):
        torch.testing.assert_close(trunk(frames), expected, atol=1e-6, rtol=1e-6)
    assert calls.count("refused") == 8  # once a layer, not once a call

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "cudnn_convolution_relu", full)
    with pytest.raises(torch.OutOfMemoryError):
        trunk(frames)


class Counted(TorchDispatchMode):
    """Counts what goes from one device to another."""

    def __init__(self):
        super().__init__()
        self.transfers = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = arguments[1] if function is torch.ops.aten.copy_.default else arguments[0]
            if source.device != result.device:
                self.transfers.append(source.nbytes)
        return result


def test_weights_go_to_a_device_in_one_piece_and_calls_send_none():
    network = tiny_model().network
    with Counted() as counted, torch.no_grad():
        trunk = ChunkedTrunk(network.local.trunk, META, torch.float16)
        network_on(network, META, [network.local.trunk])
        assert len(counted.transfers) == 2
        counted.transfers.clear()
        stream = trunk.stream()
        maps = [stream.push(torch.empty(20, 64, 64, device="meta"), last=last) for last in (False, True)]
    assert counted.transfers == []
    assert [tuple(m.shape) for m in maps] == [(3, 8, 4, 4), (37, 8, 4, 4)]


def test_what_is_sent_in_one_piece_arrives_as_it_was():
    tensors = [torch.arange(3.0), torch.zeros(0, 4), torch.tensor(7), torch.rand(4, 6).T, torch.rand(5).half()]
    for sent, there in zip(tensors, uploaded(tensors, CPU), strict=True):
        assert (there.dtype, there.shape, there.is_contiguous()) == (sent.dtype, sent.shape, True)
        assert torch.equal(sent, there)
        assert there.data_ptr() % 64 == 0 or not sent.numel()
