"""The prepared weights give what the trunk itself gives, through torch and through compiled kernels."""

import sys

import numpy as np
import pytest
import torch
from oracle import tiny_model

from DualTrackCore.errors import InputError, MissingDependencyError
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.fast import (
    ENGINE_VARIABLE,
    PreparedTrunk,
    StreamingTrunk,
    choose_backend,
    compiled_layers,
    has_compiled_kernels,
    layers,
    prepare_engine,
)
from DualTrackCore.network.fast.compiled_layers import CompiledBackend, kernel_transform
from DualTrackCore.network.fast.convolution_kernels import SIGNATURES, transforms
from DualTrackCore.network.fast.layers import Folded, TorchBackend, Workspace
from DualTrackCore.network.session import InferenceSession

CPU = torch.device("cpu")


def lively_trunk(widths=(16, 32, 48, 64), stem=12, blocks=1, seed=0, temporal=True) -> Trunk:
    torch.manual_seed(seed)
    trunk = Trunk(widths, stem, blocks, temporal).eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return trunk


def test_a_trunk_whose_narrowest_stage_just_fills_a_vector_is_compiled(compiled):
    lanes = CompiledBackend.lanes
    for narrowest, kind in [(lanes, CompiledBackend), (lanes // 2, TorchBackend)]:
        trunk = lively_trunk((narrowest, 2 * lanes, 2 * lanes, 2 * lanes))
        assert type(choose_backend(trunk, CPU, torch.float32)) is kind


@pytest.fixture(scope="module")
def compiled() -> CompiledBackend:
    if not has_compiled_kernels():
        pytest.skip("this processor has no fused multiply-add")
    return CompiledBackend()


def prepared(trunk: Trunk) -> PreparedTrunk:
    return PreparedTrunk(trunk, choose_backend(trunk, CPU, torch.float32))


def streamed(trunk: PreparedTrunk, frames: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    stream, start, maps = StreamingTrunk(trunk), 0, []
    for piece in pieces:
        maps.append(stream.push(frames[start : start + piece], start + piece >= len(frames)))
        start += piece
    return torch.cat(maps)


def whole(trunk: Trunk, frames: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return trunk(frames[None, None])[0].transpose(0, 1)


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_the_transforms_give_the_convolution_exactly_whatever_number_of_frames_is_left(outputs):
    numbers = np.random.default_rng(outputs)
    kernel, data = numbers.normal(size=3), numbers.normal(size=outputs + 2)
    to_data, to_output = transforms(outputs)
    result = to_output @ ((kernel_transform(outputs) @ kernel) * (to_data @ data))
    np.testing.assert_allclose(result, np.correlate(data, kernel), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(kernel_transform(outputs), kernel_transform(4)[: outputs + 2])


@pytest.mark.parametrize("pieces", [[1] * 23, [7, 7, 7, 2], [23]])
def test_compiled_streaming_gives_the_whole_sequence_result(compiled, pieces):
    trunk, frames = lively_trunk(), torch.rand(23, 64, 64)
    fast = PreparedTrunk(trunk, compiled)
    torch.testing.assert_close(streamed(fast, frames, pieces), whole(trunk, frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("images", "size"), [(1, (224, 224)), (6, (64, 64)), (3, (50, 76)), (5, (33, 31))])
def test_images_by_themselves_give_what_the_global_trunk_gives(compiled, images, size):
    trunk, frames = lively_trunk(temporal=False), torch.randn(images, *size)
    with torch.inference_mode():
        expected = trunk.double()(frames.double()[:, None, None])[:, :, 0].float()
    for backend in (compiled, TorchBackend(CPU, torch.float32)):
        fast = PreparedTrunk(trunk, backend)
        for _ in range(2):  # in buffers that hold something
            torch.testing.assert_close(fast(frames), expected, atol=2e-5, rtol=2e-5)


def test_the_global_images_of_a_session_do_not_go_through_the_layers_one_by_one(monkeypatch, compiled):
    lanes = CompiledBackend.lanes
    network = tiny_model(global_widths=[lanes] * 4).network
    images = torch.randn(5, network.global_size, network.global_size)
    with torch.inference_mode():
        expected = network.global_encoder.image_features(images[None])[0]
    monkeypatch.setattr(Trunk, "forward", lambda *_: pytest.fail("layer by layer"))
    found = InferenceSession(network, CPU).pooled(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_stream_has_all_its_memory_after_two_pushes(monkeypatch, compiled):
    taken = []
    monkeypatch.setattr(layers, "large", lambda size, *more: taken.append(size) or torch.zeros(size))
    stream = PreparedTrunk(lively_trunk(), compiled).stream()
    for _ in range(2):
        stream.push(torch.rand(8, 64, 64))
    taken.clear()
    for last in (False, True):
        stream.push(torch.rand(8, 64, 64), last)
    assert not taken


@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize("pieces", [[1] * 5 + [16, 2], [23]])
def test_streaming_through_torch_gives_the_whole_sequence_result(monkeypatch, with_onednn, pieces):
    if with_onednn and not layers.has_onednn(CPU, torch.float32):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(layers, "has_onednn", lambda device, dtype: with_onednn)
    trunk, frames = lively_trunk(), torch.rand(23, 64, 64)
    fast = PreparedTrunk(trunk, TorchBackend(CPU, torch.float32))
    torch.testing.assert_close(streamed(fast, frames, pieces), whole(trunk, frames), atol=1e-5, rtol=1e-5)


def test_onednn_is_called_for_single_precision_on_the_processor_only():
    assert not layers.has_onednn(CPU, torch.bfloat16)
    assert not layers.has_onednn(torch.device("cuda"), torch.float32)
    assert layers.has_onednn(CPU, torch.float32) == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("crop", [32, 96])
def test_sizes_that_are_not_whole_tiles_and_channels_that_fill_no_register_come_out_right(compiled, crop):
    trunk, frames = tiny_model().network.local.trunk, torch.rand(11, crop, crop)
    fast = PreparedTrunk(trunk, compiled)
    torch.testing.assert_close(streamed(fast, frames, [4, 4, 3]), whole(trunk, frames), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(("channels", "by_four"), [(16, True), (80, True), (80, False)])
def test_a_winograd_layer_loses_a_few_bits_at_most(monkeypatch, compiled, channels, by_four, frames):
    monkeypatch.setattr(compiled_layers, "_MOST_BY_FOUR", channels if by_four else channels - 1)
    torch.manual_seed(channels)
    weight = torch.randn(channels, channels, 3, 3, 3, dtype=torch.float64) / channels**0.5
    folded = Folded(weight, torch.randn(channels, dtype=torch.float64), 1, True)
    layer = compiled.layer(folded)
    space = Workspace(CPU, torch.float32)
    x, y = space.take(0, frames + 2, 9, 6, channels), space.take(1, frames, 9, 6, channels)
    beside = space.take(2, frames, 9, 6, channels)
    x.pixels.normal_()
    beside.pixels.normal_()
    layer.run(x, y, beside)
    padded = torch.nn.functional.pad(x.pixels.double().permute(3, 0, 1, 2)[None], (1, 1, 1, 1))
    exact = torch.nn.functional.conv3d(padded, folded.weight, folded.bias)[0].permute(1, 2, 3, 0)
    exact = (exact + beside.pixels).clamp_min(0)
    assert (y.pixels - exact).abs().max() < 1e-4  # a wrong factor is off by 0.1 and more
    assert y.tensor.sum().item() == pytest.approx(y.pixels.sum().item(), rel=1e-4)  # the border stays zero


def test_more_threads_give_the_same_numbers(compiled):
    fast, frames = PreparedTrunk(lively_trunk(), compiled), torch.rand(20, 64, 64)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(streamed(fast, frames, [8, 12]))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


def test_weights_that_lie_in_memory_with_channels_last_are_prepared():
    trunk, frames = lively_trunk((4, 4, 4, 4), 3), torch.rand(6, 32, 32)
    expected = streamed(prepared(trunk), frames, [6])
    turned = trunk.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(streamed(prepared(turned), frames, [6]), expected)


def test_plain_torch_is_taken_where_the_environment_says_so(monkeypatch):
    trunk, frames = lively_trunk(), torch.rand(9, 32, 32)
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    assert prepare_engine() == 0
    assert isinstance(choose_backend(trunk, CPU, torch.float32), TorchBackend)
    result = streamed(prepared(trunk), frames, [4, 5])
    torch.testing.assert_close(result, whole(trunk, frames), atol=1e-5, rtol=1e-5)


def test_running_compiles_nothing_beyond_what_was_prepared(compiled):
    streamed(PreparedTrunk(lively_trunk(), compiled), torch.rand(5, 32, 32), [5])
    assert [kernel.signatures for kernel in SIGNATURES] == [[types] for types in SIGNATURES.values()]


def test_an_unknown_engine_is_an_error(monkeypatch):
    monkeypatch.setenv("DUALTRACK_ENGINE", "numpy")
    with pytest.raises(InputError, match="DUALTRACK_ENGINE is 'numpy'; it must be 'torch'"):
        has_compiled_kernels()


def test_without_numba_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingDependencyError, match=r"numba.*cannot be imported.*pip install --upgrade numba"):
        prepare_engine()


def test_kernels_are_compiled_for_wide_layers_in_single_precision_only(compiled):
    wide, narrow = lively_trunk((16, 16, 16, 16)), lively_trunk((4, 4, 4, 4))
    assert isinstance(choose_backend(wide, CPU, torch.float32), CompiledBackend)
    assert isinstance(choose_backend(wide, CPU, torch.bfloat16), TorchBackend)
    assert isinstance(choose_backend(narrow, CPU, torch.float32), TorchBackend)


def test_an_abandoned_sweep_in_inference_mode_leaves_nothing_that_others_cannot_use():
    trunk, frames = lively_trunk((4, 4, 4, 4), 3), torch.rand(8, 32, 32)
    fast = prepared(trunk)
    with torch.inference_mode():
        StreamingTrunk(fast).push(frames)
    result = streamed(fast, frames, [8])
    torch.testing.assert_close(result, whole(trunk, frames), atol=1e-5, rtol=1e-5)
