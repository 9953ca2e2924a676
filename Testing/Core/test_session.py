"""A network ready on a device: made once, as exact as its precision says, freed when asked, never moved."""

import copy
import pickle
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from oracle import anatomical_model, golden, noise_sweep, oracle_sweep, tiny_model

from DualTrackCore.network import session as session_module
from DualTrackCore.network.fast import ChunkedTrunk
from DualTrackCore.network.session import single_precision
from DualTrackCore.progress import Stage
from DualTrackCore.research.comparison.result_files import fingerprint
from DualTrackCore.run import RunSettings
from DualTrackCore.tracking import LiveTracker, estimate_trajectory
from DualTrackCore.tracking.provisional import ProvisionalPath
from DualTrackCore.worker import serve

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

CPU = torch.device("cpu")


@pytest.fixture
def card(monkeypatch):
    """The CPU plays a graphics card: trunks run in chunks, the network is copied."""
    monkeypatch.setattr(session_module, "runs_in_chunks", lambda device: True)


@cache
def noise(frames, size=64):
    return torch.rand(frames, size, size, generator=torch.Generator().manual_seed(frames))


def test_the_network_of_a_model_is_copied_without_what_runs_in_chunks_and_never_changed(card):
    model = anatomical_model()
    places = {name: tensor.data_ptr() for name, tensor in model.network.state_dict().items()}
    network = model.session(CPU).network
    left = set(model.network.state_dict()) - set(network.state_dict())
    assert left
    assert all("backbone.module.backbone" in name or name.startswith("global_encoder.backbone") for name in left)
    assert all(name in left for name in model.network.state_dict() if name.endswith("running_mean"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, model.network.state_dict()[name])
        assert tensor.data_ptr() != places[name]
    assert {name: tensor.data_ptr() for name, tensor in model.network.state_dict().items()} == places
    assert not network.training


@pytest.mark.parametrize("chunk", [12, 30])
def test_a_sweep_in_chunks_has_the_poses_of_the_stream(card, monkeypatch, chunk):
    model, sweep = anatomical_model(), noise_sweep(40)
    chunked = estimate_trajectory(sweep, model, device="cpu", chunk_frames=chunk)
    monkeypatch.undo()
    stream = estimate_trajectory(sweep, anatomical_model(), device="cpu")
    np.testing.assert_allclose(chunked.parameters, stream.parameters, atol=6e-5)
    assert not np.array_equal(chunked.parameters, stream.parameters)  # it was another way


@pytest.mark.slow
def test_the_published_network_in_chunks_has_the_poses_of_the_reference(card, oracle_model):
    model = replace(oracle_model)
    found = estimate_trajectory(oracle_sweep(11, 24).slice(0, 24), model, device="cpu", chunk_frames=24)
    model.release()
    assert np.abs(found.parameters - golden("n24")["pose"]).max() <= 6e-5


def test_a_live_sweep_in_chunks_ends_as_the_finished_one(card):
    model, sweep = anatomical_model(), noise_sweep(45)
    offline = estimate_trajectory(sweep, model, device="cpu", chunk_frames=15)
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu", chunk_frames=15) as tracker:
        tracker.push(sweep.window(0, 45))
        np.testing.assert_array_equal(tracker.finish().poses, offline.poses)


def test_on_a_card_a_frame_has_a_pose_with_its_chunk_and_the_path_ends_the_same(card):
    model, sweep = anatomical_model(), noise_sweep(90)
    offline = estimate_trajectory(sweep, model, device="cpu", chunk_frames=30)
    with LiveTracker(
        model, sweep.frame_size, sweep.spacing_mm, device="cpu", chunk_frames=30, max_lag_frames=90
    ) as tracker:
        seen = {}
        for start in range(0, 90, 30):
            tracker.push(sweep.window(start, start + 30))
            seen |= {pose.frame: pose.frame0_from_image for pose in tracker.wait()}
        # The last chunk waits for the end; 17 of the 60 frames before it are not complete.
        assert sorted(seen) == list(range(60))
        np.testing.assert_array_equal(tracker.finish().poses, offline.poses)
    apart = np.abs(np.array([seen[i] for i in range(60)]) - offline.poses[:60]).max()
    assert 0 < apart < 0.5 * np.abs(offline.poses[:60]).max()


@pytest.mark.parametrize("step", [7, 40])
@torch.inference_mode()
def test_frames_not_known_for_good_change_no_window_but_the_last(step):
    model, generator = anatomical_model(), torch.Generator().manual_seed(0)
    tokens, pooled = torch.randn(150, 16, generator=generator), torch.randn(10, 8, generator=generator)
    paths = [ProvisionalPath(model.session(CPU), 64) for _ in range(2)]
    given = 0
    for start in range(0, 150, step):
        stop = min(start + step, 150)
        pushed = min(stop + 17, 150)
        for path, tail in zip(paths, (None, tokens[stop:pushed]), strict=True):
            path.add(tokens[start:stop], [pooled[given : -(-pushed // 16)]])
            path.update(tail)
            assert len(path) == (stop if tail is None else pushed)
        given = -(-pushed // 16)
    np.testing.assert_allclose(paths[1].poses(0), paths[0].poses(0), atol=2e-2)


def test_a_session_is_made_once_for_a_device_and_precision_and_for_what_a_sweep_tells_of_the_model():
    model = tiny_model()
    own = model.session(CPU)
    assert model.session(torch.device("cpu"), "fp32") is own
    assert replace(model, sha256="b").session(CPU) is own
    assert model.session(CPU, "bf16") is not own
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), tiny_model()):
        assert other.session(CPU) is not own


def test_results_that_are_stored_by_a_models_content_are_found_again_whatever_was_made_of_it():
    model, used = tiny_model(), tiny_model()
    used.session(CPU).maps()
    assert fingerprint(model) == fingerprint(used)


@pytest.mark.parametrize("how", ["an optimizer's step", "statistics", "a loaded state", "a release"])
def test_changed_weights_are_never_used_stale(how):
    model, frames = tiny_model(), noise(6)
    with torch.inference_mode():
        model.session(CPU).tokens(frames)
    trunk = model.network.local.trunk
    weight = trunk.layer3[0].conv2[0].weight
    if how == "an optimizer's step":
        weight.grad = torch.randn_like(weight)
        torch.optim.SGD([weight], lr=0.1).step()
    elif how == "statistics":
        trunk.stem[1].running_mean.add_(0.1)
    elif how == "a loaded state":
        trunk.load_state_dict({name: value * 1.1 for name, value in trunk.state_dict().items()})
    else:  # past the counters of torch, which then has to be said
        weight.data.mul_(1.5)
        model.release()
    with torch.inference_mode():
        tokens = model.session(CPU).tokens(frames)
        torch.testing.assert_close(tokens, model.network.local(frames[None])[0], atol=1e-5, rtol=1e-5)


def test_what_a_session_holds_goes_when_it_is_released_and_a_running_stream_goes_on(card):
    model, frames = tiny_model(), noise(40)
    with torch.inference_mode():
        session = model.session(CPU)
        expected, stream = session.tokens(frames), session.stream()
        first = stream.push(frames[:20])
        assert session._parts
        model.release()
        assert not session._parts
        assert model.session(CPU) is not session
        torch.testing.assert_close(torch.cat([first, stream.push(frames[20:], last=True)]), expected)


def test_where_memory_runs_out_the_sweep_starts_again_with_half_and_other_models_give_theirs_back(card, monkeypatch):
    other, model, sweep, sizes = tiny_model(), anatomical_model(), noise_sweep(60), []
    expected = estimate_trajectory(sweep, model, device="cpu", chunk_frames=60)
    idle = other.session(CPU)
    assert idle.network
    original = ChunkedTrunk.__call__

    def small(self, images):
        if images.shape[1] == 64:  # not the images of the global trunk
            sizes.append(len(images))
            if len(images) > 45:
                raise torch.OutOfMemoryError("fake")
        return original(self, images)

    monkeypatch.setattr(ChunkedTrunk, "__call__", small)
    found = estimate_trajectory(sweep, model, device="cpu", chunk_frames=60)
    assert [sizes[0], sizes[-1], found.provenance["chunk_frames"]] == [60, 38, 7]
    assert sizes.count(60) == 2  # with 60 and with 30 frames at a time; 15 meet 49
    np.testing.assert_allclose(found.parameters, expected.parameters, atol=6e-5)
    assert not idle._parts


def settings():
    backends = torch.backends
    new = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul]
    values = [place.fp32_precision for place in new] if hasattr(backends.cudnn, "conv") else []
    return values or [backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()]


@pytest.fixture
def kept():
    """torch's settings as they were before the test."""
    backends = torch.backends
    yield
    backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    if hasattr(backends.cudnn, "conv"):
        backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"


def exact_inside():
    values = [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]
    # Without a setting of its own a convolution takes TF32 from the one for all operations.
    return values == [False, False] and "none" not in settings()[:2]


@pytest.mark.parametrize("caller", ["as torch comes", "tf32 off", "products in tf32", "new names", "both names"])
def test_fp32_is_without_tf32_and_the_callers_settings_come_back(kept, caller):
    backends = torch.backends
    if caller == "tf32 off":
        backends.cudnn.allow_tf32 = False
    elif caller == "products in tf32":
        torch.set_float32_matmul_precision("medium")
    elif caller != "as torch comes":
        if not hasattr(backends.cudnn, "conv"):
            pytest.skip("this torch has the old names alone")
        backends.cudnn.conv.fp32_precision = "ieee"
        if caller == "new names":
            backends.cudnn.rnn.fp32_precision = backends.cuda.matmul.fp32_precision = "ieee"
    before = settings()
    with single_precision(False):
        assert exact_inside()
        with single_precision(True):
            assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32) == (True, True)
        assert exact_inside()
    assert settings() == before
    with pytest.raises(ZeroDivisionError), single_precision(True):
        raise ZeroDivisionError
    assert settings() == before


def test_threads_of_different_precision_wait_for_each_other(kept):
    before, seen, inside = settings(), [], threading.Event()

    def compute(tf32, wait):
        with single_precision(tf32):
            inside.set()
            threading.Event().wait(wait)
            seen.append(torch.backends.cudnn.allow_tf32 == tf32)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(compute, False, 0.05)
        assert inside.wait(30)
        second = threads.submit(compute, True, 0)
        first.result(), second.result()
    assert seen == [True, True]
    assert settings() == before


@pytest.mark.parametrize(("precision", "convolutions"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_every_part_of_a_session_computes_as_its_precision_says(card, kept, monkeypatch, precision, convolutions):
    seen, original = {}, ChunkedTrunk.__call__

    def trunk(self, images):
        seen["trunk" if images.shape[1] == 64 else "global trunk"] = torch.backends.cudnn.allow_tf32
        return original(self, images)

    monkeypatch.setattr(ChunkedTrunk, "__call__", trunk)
    session = anatomical_model().session(CPU, precision)
    for name, module in (("frames", session.network.local.spatial), ("sweep", session.network.fusion_module.module)):
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.__setitem__(name, torch.backends.cudnn.allow_tf32)
        )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        tokens, pooled = session.tokens(noise(20)), session.pooled(torch.rand(2, 48, 48))
        motions = session.poses(tokens, pooled).motions
    assert seen == {"trunk": convolutions, "global trunk": convolutions, "frames": False, "sweep": False}
    assert {tokens.dtype, pooled.dtype, motions.dtype} == {torch.float32}


def test_autocast_around_a_run_changes_nothing():
    model, sweep = anatomical_model(), noise_sweep(20)
    plain = estimate_trajectory(sweep, model, device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(estimate_trajectory(sweep, model, device="cpu").poses, plain.poses)


def test_threads_that_share_a_model_give_what_one_gives(card):
    model, sweep = tiny_model(), noise_sweep(20)
    alone = estimate_trajectory(sweep, model, device="cpu").poses
    first_is_in, second_is_done = threading.Event(), threading.Event()

    def wait(progress):
        if progress.stage is Stage.NETWORK:  # earlier reports come before the network is used
            first_is_in.set()
            assert second_is_done.wait(60)

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(estimate_trajectory, sweep, model, device="cpu", progress=wait)
        assert first_is_in.wait(60)
        try:
            second = estimate_trajectory(sweep, model, device="cpu", precision="bf16").poses
        finally:
            second_is_done.set()
        np.testing.assert_array_equal(first.result().poses, alone)
    assert not np.array_equal(second, alone)


def test_a_live_tracker_keeps_its_model_while_a_finished_sweep_is_tracked():
    model, sweep = tiny_model(), noise_sweep(20)
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
        tracker.push(sweep.window(0, 8))
        whole = estimate_trajectory(sweep, model, device="cpu")
        model.release()
        tracker.push(sweep.window(8, 20))
        np.testing.assert_allclose(tracker.finish().poses, whole.poses, atol=1e-4)


def test_a_worker_that_nobody_asks_gives_back_what_the_model_holds_and_keeps_the_model(model_file, monkeypatch):
    monkeypatch.setattr(serve, "IDLE_S", 0.01)
    worker, inbox = serve.Worker(None, threading.Lock()), queue.SimpleQueue()
    settings = RunSettings(model=str(model_file))
    model = worker._models.load(settings)
    session = model.session(CPU)
    session.maps()
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(serve.next_request, inbox, worker)
        for _ in range(500):
            if not session._parts:
                break
            threading.Event().wait(0.01)
        inbox.put(b"a request")
        assert coming.result(30) == b"a request"
    assert not session._parts
    assert worker._models.load(settings) is model
