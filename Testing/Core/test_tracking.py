"""From sweep to trajectory: the engine's promises, on a small network."""

import json
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracle import anatomical_model, noise_sweep

from DualTrackCore.errors import Cancelled, InputError, OutOfMemoryError
from DualTrackCore.memory import is_out_of_memory, memory_limit
from DualTrackCore.network import session as session_module
from DualTrackCore.network.fast import StreamingTrunk
from DualTrackCore.repeats import Repeats
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import TrackingWarning, estimate_trajectory, window_starts
from DualTrackCore.tracking import device as device_module
from DualTrackCore.tracking.device import choose_chunk, choose_precision
from DualTrackCore.tracking.preprocessing import Preprocessor

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


@pytest.fixture(scope="module")
def model():
    return anatomical_model()


def whole_sequence(sweep: Sweep, model) -> np.ndarray:
    """The network on all frames at once, without the engine."""
    card, network = model.card, model.network
    prepare = Preprocessor(sweep.frame_size, sweep.spacing_mm, card.spacing_mm, network.crop_size, network.global_size)
    frames = torch.from_numpy(sweep.window(0, len(sweep)))
    with torch.inference_mode():
        return network(prepare.local(frames)[None], prepare.global_image(frames[:: network.global_every])[None])[
            0
        ].numpy()


@pytest.mark.parametrize("chunk", [1, 7, 16, 64, "auto"])
@pytest.mark.parametrize("frames", [2, 16, 17, 50])
def test_any_chunk_gives_the_whole_sequence_result(model, frames, chunk):
    sweep = noise_sweep(frames)
    trajectory = estimate_trajectory(sweep, model, device="cpu", chunk_frames=chunk)
    assert len(trajectory) == frames
    np.testing.assert_allclose(trajectory.parameters, whole_sequence(sweep, model), atol=1e-4)


def test_two_runs_on_the_cpu_are_identical(model):
    first, second = (estimate_trajectory(noise_sweep(30), model, device="cpu") for _ in range(2))
    np.testing.assert_array_equal(first.poses, second.poses)


def test_tracking_in_the_file_is_not_looked_at(model):
    sweep = noise_sweep(20)
    tracked = noise_sweep(20, tracked=estimate_trajectory(sweep.slice(0, 20), model))
    np.testing.assert_array_equal(estimate_trajectory(tracked, model).poses, estimate_trajectory(sweep, model).poses)


def test_only_the_frames_that_the_global_encoder_uses_go_through_its_backbone(model, monkeypatch):
    seen, original = [], model.network.global_encoder.image_features
    monkeypatch.setattr(
        model.network.global_encoder,
        "image_features",
        lambda images: (seen.append(images.shape[1]), original(images))[1],
    )
    estimate_trajectory(noise_sweep(50), model, chunk_frames=7)
    assert sum(seen) == 4


def test_frames_are_read_once_and_in_windows(model):
    class Counted:
        def __init__(self, pixels):
            self.pixels, self.shape, self.dtype, self.read = pixels, pixels.shape, pixels.dtype, []

        def __getitem__(self, key):
            self.read.append((key.start, key.stop))
            return self.pixels[key]

    frames = Counted(noise_sweep(20).window(0, 20))
    sweep = Sweep(frames, noise_sweep(2).spacing_mm)
    estimate_trajectory(sweep, model, chunk_frames=8, repeats=Repeats.none(20))
    assert frames.read == [(0, 8), (8, 16), (16, 20)]


def test_a_sweep_longer_than_the_table_is_tracked_in_windows_with_a_warning(model):
    with pytest.warns(TrackingWarning, match="150 frames, more than the 64 that the model takes at a time"):
        trajectory = estimate_trajectory(noise_sweep(150), model)
    assert len(trajectory) == 150
    assert any("overlapping windows" in message for message in trajectory.provenance["warnings"])


def test_a_window_far_from_every_overlap_equals_the_network_on_that_window_alone():
    model = anatomical_model(positions=64)
    sweep = noise_sweep(96)
    starts = window_starts(96, 64, 16)
    trajectory = estimate_trajectory(sweep, model)
    prepare = Preprocessor(sweep.frame_size, sweep.spacing_mm, model.card.spacing_mm, 64, 48)
    frames = torch.from_numpy(sweep.window(0, 96))
    with torch.inference_mode():
        tokens = model.network.local(prepare.local(frames)[None])
        pooled = model.network.global_encoder.image_features(prepare.global_image(frames[::16])[None])
        first = model.network.poses_from_features(tokens[:, :64], pooled[:, :4])[0].numpy()
    assert starts == [0, 32]
    np.testing.assert_allclose(trajectory.parameters[:32], first[:32], atol=1e-4)


@pytest.mark.parametrize(("frames", "positions"), [(65, 64), (150, 64), (1025, 1024), (5000, 1024), (4097, 4096)])
def test_windows_cover_the_sweep_and_overlap_by_a_quarter(frames, positions):
    starts = window_starts(frames, positions, 16)
    assert starts[0] == 0
    assert starts[-1] + positions >= frames
    assert all(start % 16 == 0 and start < frames - 1 for start in starts)
    assert all(b - a <= positions * 3 / 4 for a, b in pairwise(starts))


@pytest.mark.parametrize(("limit", "expected_chunk"), [(5, 4), (1, 1)])
def test_out_of_memory_halves_the_chunk_and_gives_the_same_result(model, monkeypatch, limit, expected_chunk):
    reference = estimate_trajectory(noise_sweep(40), model)
    original = StreamingTrunk.push

    def small_device(self, images, last=False):
        if len(images) > limit:
            raise torch.OutOfMemoryError("fake")
        return original(self, images, last)

    monkeypatch.setattr(StreamingTrunk, "push", small_device)
    trajectory = estimate_trajectory(noise_sweep(40), model)
    assert trajectory.provenance["chunk_frames"] == expected_chunk
    np.testing.assert_allclose(trajectory.parameters, reference.parameters, atol=1e-4)


def test_running_out_of_memory_behind_the_trunk_counts_no_frame_twice(model, monkeypatch):
    reference = estimate_trajectory(noise_sweep(40), model)
    spatial = model.network.local.spatial
    original, calls = spatial.forward, []

    def sometimes_full(maps):
        calls.append(len(maps))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("fake")
        return original(maps)

    monkeypatch.setattr(spatial, "forward", sometimes_full)
    trajectory = estimate_trajectory(noise_sweep(40), model, chunk_frames=8)
    assert trajectory.provenance["chunk_frames"] == 4
    np.testing.assert_allclose(trajectory.parameters, reference.parameters, atol=1e-4)


def test_a_device_without_room_for_the_weights_is_a_sentence(monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("fake")

    monkeypatch.setattr(session_module, "runs_in_chunks", lambda device: True)
    monkeypatch.setattr(session_module, "network_on", no_memory)
    with pytest.raises(OutOfMemoryError, match="too little memory"):
        estimate_trajectory(noise_sweep(4), anatomical_model(), device="cpu", chunk_frames=4)


def test_a_device_too_small_for_one_frame_is_a_sentence(model, monkeypatch):
    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("fake")

    monkeypatch.setattr(StreamingTrunk, "push", no_memory)
    with pytest.raises(OutOfMemoryError, match="too little memory for this sweep, even one frame at a time"):
        estimate_trajectory(noise_sweep(4), model)


def test_progress_counts_frames_and_cancelling_stops_between_chunks(model):
    reports = []
    estimate_trajectory(noise_sweep(20), model, chunk_frames=8, progress=reports.append)
    assert [(r.done, r.total) for r in reports if r.stage == "network"] == [(0, 20), (8, 20), (16, 20), (20, 20)]
    assert reports[-1].stage == "attention"
    assert reports[-1].fraction == 1
    reports.clear()
    with pytest.raises(Cancelled):
        estimate_trajectory(
            noise_sweep(20), model, chunk_frames=8, progress=reports.append, cancelled=lambda: len(reports) == 2
        )
    assert len(reports) == 2


def test_bf16_stays_close_to_fp32(model):
    full, half = (estimate_trajectory(noise_sweep(40), model, precision=p) for p in ("fp32", "bf16"))
    assert half.provenance["precision"] == "bf16"
    difference = np.abs(full.parameters - half.parameters).max()
    assert 0 < difference < 0.05 * np.abs(full.parameters).max()


def test_provenance_is_plain_and_names_model_and_settings(model):
    trajectory = estimate_trajectory(noise_sweep(4), model, device="cpu")
    provenance = json.loads(json.dumps(dict(trajectory.provenance)))
    assert provenance["model"] == "tiny"
    assert provenance["device"] == "cpu"
    assert provenance["precision"] == "fp32"
    assert provenance["model_trained"] is False


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timestamps_s": np.arange(20) * 0.2}, r"5 frames/s; the model was trained at 20"),
        ({"frame_valid": np.arange(20) != 3}, "1 of 20 frames hold no image"),
        ({"spacing_mm": (0.05, 0.05)}, "smaller than its 64 x 64 crop"),
        ({"spacing_mm": (0.5, 0.5)}, "the model was trained on"),
        ({"skew_deg": 2.7}, "2.7 degrees off a right angle"),
    ],
)
def test_a_sweep_outside_what_the_card_describes_gets_a_warning(model, changes, sentence):
    with pytest.warns(TrackingWarning, match=sentence):
        estimate_trajectory(noise_sweep(20, **changes), model)


def test_a_sweep_like_the_training_data_gets_no_warning():
    model = anatomical_model()
    object.__setattr__(model.card, "trained", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrackingWarning)
        estimate_trajectory(noise_sweep(20, timestamps_s=np.arange(20) / 20), model)


@pytest.mark.parametrize(
    ("sweep", "options", "sentence"),
    [
        (noise_sweep(1), {}, "one frame; a trajectory needs at least two"),
        (noise_sweep(4, spacing_mm=None), {}, "pixel spacing of this sweep is unknown"),
        (Sweep(np.zeros((5, 0, 0), np.uint8), 0.2), {}, "tracking but no images"),
        (noise_sweep(4), {"device": "abacus"}, "no device 'abacus'"),
        (noise_sweep(4), {"device": "cuda:99"}, "not available on this machine"),
        (noise_sweep(4), {"precision": "fp12"}, "no precision 'fp12'"),
        (noise_sweep(4), {"precision": "fp16", "device": "cpu"}, "fp16 is not supported on the CPU"),
        (noise_sweep(4), {"precision": "tf32", "device": "cpu"}, "tf32 is a number format of NVIDIA's cards"),
        (noise_sweep(4), {"chunk_frames": 0}, "whole number of at least 1"),
        (noise_sweep(4), {"chunk_frames": 2.5}, "whole number of at least 1"),
    ],
)
def test_input_that_cannot_be_tracked_is_refused_with_its_reason(model, sweep, options, sentence):
    with pytest.raises(InputError, match=sentence):
        estimate_trajectory(sweep, model, **options)


def test_on_cuda_the_chunk_follows_the_free_memory(model, monkeypatch):
    chunks = []
    for free in (1e6, 4e9, 80e9):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (int(free), int(free)))
        network = anatomical_model(local_widths=[64, 6, 8, 8], crop_size=256).network
        with memory_limit(0.001):  # of main memory, which is another
            chunks.append(choose_chunk("auto", network, torch.device("cuda")))
            assert choose_chunk("auto", network, torch.device("cpu")) == 1
    assert chunks == [4, 33, 170]
    # Half precision takes half the memory, and a sweep is taken in equal parts.
    assert [choose_chunk("auto", network, torch.device("cuda"), "fp16", n) for n in (2, 300, 600)] == [2, 300, 300]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("MIOpen Error: miopenStatusAllocFailed"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("CUDA failure: cudaErrorMemoryAllocation"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_backend_is_understood_when_it_runs_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_allocation_failure_on_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("native", "compiled", "error", "chosen"),
    [
        (True, False, 0.02, "bf16"),
        (True, True, 0.02, "fp32"),  # the compiled kernels are as fast, and exact
        (False, False, 0.02, "fp32"),  # imitated, it is slow
        (True, False, 0.05, "fp32"),
        (True, False, None, "fp32"),
    ],
)
def test_the_processor_takes_half_precision_only_where_it_pays_and_the_card_allows_it(
    monkeypatch, native, compiled, error, chosen
):
    monkeypatch.setattr(device_module, "computes_in_bf16", lambda: native)
    monkeypatch.setattr(device_module, "has_compiled_kernels", lambda: compiled)
    model = anatomical_model()
    model = replace(model, card=replace(model.card, bf16_error=error))
    assert choose_precision("auto", torch.device("cpu"), model)[0] == chosen
    assert choose_precision("fp32", torch.device("cpu"), model)[0] == "fp32"


def test_a_processor_without_instructions_for_bfloat16_is_told_from_one_with_them(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not device_module.computes_in_bf16()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert device_module.computes_in_bf16() == torch.backends.mkldnn.is_available()
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)  # as in versions of torch that cannot tell
    assert not device_module.computes_in_bf16()


def test_the_card_of_the_model_decides_about_half_precision(monkeypatch):
    monkeypatch.setattr(device_module, "computes_in_bf16", lambda: True)
    monkeypatch.setattr(device_module, "has_compiled_kernels", lambda: False)
    model, sweep = anatomical_model(), noise_sweep(4)
    for error, chosen in ((None, "fp32"), (0.01, "bf16")):
        allowed = replace(model, card=replace(model.card, bf16_error=error))
        assert estimate_trajectory(sweep, allowed, device="cpu").provenance["precision"] == chosen


def test_half_precision_takes_twice_as_many_frames_at_a_time_on_the_processor():
    network = anatomical_model().network
    assert [choose_chunk("auto", network, torch.device("cpu"), p) for p in ("fp32", "bf16")] == [16, 32]
