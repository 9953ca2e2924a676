"""Reduced precision: what it may change, and when it is chosen unasked."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from oracle import TINY, noise_sweep, tiny_model

from DualTrackCore.network.blocks import SpatialTransformer
from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM, published_models
from DualTrackCore.network.dualtrack import DualTrack, GlobalEncoder
from DualTrackCore.network.fast import ENGINE_VARIABLE, StreamingTrunk
from DualTrackCore.tracking import LiveTracker, TrackingWarning, checks, estimate_trajectory
from DualTrackCore.tracking import device as device_module
from DualTrackCore.tracking.device import (
    CHECKED_FRAMES,
    MOST_PRECISION_ERROR,
    choose_device,
    choose_precision,
)
from DualTrackCore.tracking.preprocessing import Preprocessor
from DualTrackCore.worker.readiness import preflight

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

SPACINGS_MM = (PUBLISHED_SPACING_MM, (0.35, 0.35), (0.12, 0.4))
#: Rows and columns: larger than the crop of the network at every spacing above, and smaller on one side or on both.
SIZES = ((80, 128), (20, 128), (20, 25))
#: Device and precision as a user names them; "auto" is as on a processor with bfloat16.
CHOICES = (("cpu", "fp32"), ("auto", "bf16"), ("auto", "auto"))


@pytest.fixture(scope="module")
def model():
    """A model whose card allows bfloat16."""
    model = tiny_model(crop_size=32)
    return replace(model, card=replace(model.card, bf16_error=0.003))


@pytest.fixture
def seen(model, monkeypatch):
    """The images that the network is given, in order."""
    images = []
    encoder, push = model.network.global_encoder, StreamingTrunk.push
    original = encoder.image_features
    monkeypatch.setattr(encoder, "image_features", lambda x: (images.append(x), original(x))[1])
    monkeypatch.setattr(StreamingTrunk, "push", lambda self, x, last=False: (images.append(x), push(self, x, last))[1])
    return images


@pytest.mark.parametrize("engine", ["", "torch"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_no_precision_changes_the_images_that_the_network_sees(model, seen, monkeypatch, spacing_mm, size, engine):
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    monkeypatch.setattr(device_module, "computes_in_bf16", lambda: True)
    sweep, used = noise_sweep(6, *size, spacing_mm=spacing_mm), {}
    for views in (1, 4):
        reference: list[torch.Tensor] = []
        for device, precision in CHOICES:
            seen.clear()
            options = {"device": device, "precision": precision, "chunk_frames": 4}
            trajectory = estimate_trajectory(sweep, model, test_time_augmentation=views, **options)
            assert np.isfinite(trajectory.parameters).all()
            used[precision] = trajectory.provenance["precision"]
            reference = reference or list(seen)
            assert len(seen) == 3 * views  # two chunks, one of them with a global image
            assert all(torch.equal(image, own) for image, own in zip(seen, reference, strict=True))
    assert used == {"fp32": "fp32", "bf16": "bf16", "auto": "bf16" if engine == "torch" else "fp32"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_are_prepared_in_single_precision_whatever_surrounds_them(dtype):
    sweep = noise_sweep(3, spacing_mm=(0.3, 0.15))
    prepare = Preprocessor(sweep.frame_size, sweep.spacing_mm, PUBLISHED_SPACING_MM, 64, 48, 0.5, 0.25)
    frames = torch.from_numpy(sweep.window(0, 3))
    expected = prepare.local(frames), prepare.global_image(frames)
    with torch.autocast("cpu", dtype):
        for image, own in zip((prepare.local(frames), prepare.global_image(frames)), expected, strict=True):
            assert image.dtype == torch.float32
            assert torch.equal(image, own)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache folder of this test alone."""
    monkeypatch.setattr(checks, "verdict_folder", lambda: tmp_path / "checks")
    return tmp_path / "checks"


@pytest.fixture
def bf16_processor(monkeypatch):
    """A processor for which "auto" would like bfloat16."""
    monkeypatch.setattr(device_module, "computes_in_bf16", lambda: True)
    monkeypatch.setattr(device_module, "has_compiled_kernels", lambda: False)


@pytest.fixture
def unmeasured(model):
    """A model of a file whose card says nothing about bfloat16."""
    return replace(model, card=replace(model.card, bf16_error=None), sha256="ab" * 32)


def tracked(model, frames=CHECKED_FRAMES + 1, **options):
    return estimate_trajectory(noise_sweep(frames, 40, 40), model, device="cpu", **options).provenance


@pytest.mark.parametrize("limit", [10.0, 1e-9])
def test_a_precision_that_nobody_measured_is_checked_on_the_first_frames_of_the_sweep(
    unmeasured, bf16_processor, folder, monkeypatch, limit
):
    monkeypatch.setattr(checks, "MOST_PRECISION_ERROR", limit)
    provenance, reports = tracked(unmeasured), []
    first = noise_sweep(CHECKED_FRAMES + 1, 40, 40).slice(0, CHECKED_FRAMES)
    motions = [estimate_trajectory(first, unmeasured, device="cpu", precision=name) for name in ("fp32", "bf16")]
    error = np.abs(motions[0].parameters - motions[1].parameters).max()
    assert f"by up to {error:.2g} mm or degrees" in provenance["precision_note"]
    assert f"the limit is {limit}" in provenance["precision_note"]
    assert provenance["precision"] == ("bf16" if limit == 10 else "fp32")
    assert ("fp32 was used" in provenance["precision_note"]) == (limit != 10)
    assert [path.suffix for path in folder.iterdir()] == [".json"]
    again = tracked(unmeasured, 8, progress=reports.append)  # remembered, so that a short sweep has it as well
    assert again["precision"] == provenance["precision"]
    assert not [report for report in reports if report.detail]


def test_a_precision_named_by_the_user_is_obeyed_without_a_check(unmeasured, bf16_processor, folder):
    for precision in ("fp32", "bf16"):
        provenance = tracked(unmeasured, precision=precision)
        assert provenance["precision"] == precision
        assert "precision_note" not in provenance
    assert not folder.exists()


def test_a_short_sweep_and_a_live_one_take_fp32_where_nothing_was_checked(unmeasured, bf16_processor, folder):
    provenance = tracked(unmeasured, CHECKED_FRAMES)
    assert provenance["precision"] == "fp32"
    assert "bf16 was not checked for this model" in provenance["precision_note"]
    sweep = noise_sweep(CHECKED_FRAMES + 6, 40, 40)
    with LiveTracker(unmeasured, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
        tracker.push(sweep.window(0, len(sweep)))
        assert tracker.finish().provenance["precision"] == "fp32"
    assert not folder.exists()


@pytest.mark.parametrize("views", [1, 4])
def test_the_check_runs_once_however_many_views_there_are(model, bf16_processor, folder, views):
    reports = []
    nameless = replace(model, card=replace(model.card, bf16_error=None))  # without a checksum nothing is remembered
    provenance = tracked(nameless, test_time_augmentation=views, progress=reports.append)
    starts = [r for r in reports if r.stage == "network" and r.done == 0 and r.detail == "check of bf16"]
    assert len(starts) == 2  # fp32 and bf16
    assert "checked on this computer" in provenance["precision_note"]
    assert not folder.exists()


def test_every_model_device_precision_and_version_is_checked_by_itself(folder, monkeypatch):
    asked = []

    def verdict(precision="bf16", sha256="a"):
        asked.append(0)
        checks.precision_verdict(precision, torch.device("cpu"), sha256, lambda _: asked.append(1) or 0.0)

    for arguments in ({}, {"sha256": "b"}, {"precision": "fp16"}):
        verdict(**arguments)
        verdict(**arguments)
    for name, value in (("device_name", lambda _: "another"), ("__version__", "another")):
        monkeypatch.setattr(checks, name, value)
        verdict()
        verdict()
    monkeypatch.setattr(torch, "__version__", "another")
    verdict()
    verdict()
    assert asked == [0, 1, 0] * 6


@pytest.mark.parametrize("error", [np.nan, np.inf, MOST_PRECISION_ERROR * 1.01])
def test_numbers_that_are_none_do_not_pass(folder, error):
    for _ in range(2):
        assert not checks.precision_verdict("fp16", torch.device("cpu"), "a", lambda _: error).passed
    assert checks.precision_verdict("bf16", torch.device("cpu"), "a", lambda _: MOST_PRECISION_ERROR).passed


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"passed": true, "sentence": ""}', "\xff", "[" * 100_000, '{"subject": {}}']
)
def test_a_verdict_that_cannot_be_read_is_made_again(folder, text):
    asked = []

    def verdict():
        return checks.precision_verdict("bf16", torch.device("cpu"), "a", lambda _: asked.append(1) or 1.0)

    first = verdict()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(text.encode("latin-1"))
    assert verdict() == first
    assert len(asked) == 2
    assert path.read_bytes() == whole
    path.write_text(json.dumps({**json.loads(whole), "passed": 1}))
    assert verdict() == first
    assert len(asked) == 3


def test_a_cache_folder_that_cannot_be_written_means_a_check_at_every_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(checks, "verdict_folder", lambda: tmp_path / "file" / "checks")
    asked = []
    for _ in range(2):
        checks.precision_verdict("bf16", torch.device("cpu"), "a", lambda _: asked.append(1) or 0.0)
    assert len(asked) == 2


def test_half_precision_on_cuda_needs_a_card_that_states_it_or_a_check(model, folder, monkeypatch):
    monkeypatch.setattr(checks, "device_name", lambda _: "a card")
    cuda, own = torch.device("cuda"), replace(model, sha256="a")
    assert choose_precision("auto", cuda, own)[0] == "fp32"  # bfloat16 was measured, float16 was not
    assert choose_precision("fp16", cuda, own) == ("fp16", "")
    for error, chosen in ((0.01, "fp16"), (0.04, "fp32")):
        assert choose_precision("auto", cuda, replace(own, card=replace(own.card, fp16_error=error)))[0] == chosen
    assert choose_precision("auto", cuda, own, lambda _: 0.01)[0] == "fp16"
    assert choose_precision("auto", cuda, own)[0] == "fp16"
    assert choose_precision("auto", torch.device("mps"), own) == ("fp32", "")


def test_no_published_weights_state_an_error_that_nobody_measured():
    cards = [entry.card for entry in published_models().values()]
    assert [(card.bf16_error, card.fp16_error) for card in cards] == [(None, None)] * len(cards)


@pytest.fixture
def device(folder, monkeypatch):
    """A computer with a GPU that is played by the CPU; to be spoilt by the function in `device.fault`."""

    class Device:
        fault, checked = None, 0

        def steps(self, network, frames, device):
            self.checked += device.type == "mps"
            with pytest.MonkeyPatch.context() as patch:
                if self.fault is not None:
                    self.fault(patch)
                return original(network, frames, torch.device("cpu"))

    original, own = checks.engine_steps, Device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: True))  # as it is, for imports of timm
    monkeypatch.setattr(checks, "engine_steps", own.steps)
    monkeypatch.setattr(checks, "_SIZES", {**TINY, "global_every": 4})
    monkeypatch.setattr(checks, "_LAYERS", {})
    return own


def wrong(owner, name, change):
    """A fault: the result of a function is changed."""
    return lambda patch: patch.setattr(
        owner, name, (lambda call: lambda *a, **k: change(call(*a, **k)))(getattr(owner, name))
    )


def last_swapped(x):
    return x.flip(-1)


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (wrong(Preprocessor, "_resample", last_swapped), "resampling"),
        (wrong(torch.nn.functional, "interpolate", lambda x: x * 1.002), "resizing"),
        (wrong(StreamingTrunk, "push", last_swapped), "3D convolution"),
        (wrong(GlobalEncoder, "image_features", lambda x: x * 1.01), "2D convolution"),
        (wrong(SpatialTransformer, "forward", lambda x: x * torch.nan), "attention within frames"),
        (
            wrong(DualTrack, "output_from_features", lambda x: x._replace(motions=-x.motions)),
            "attention over the sweep",
        ),
    ],
)
def test_auto_leaves_out_a_device_that_computes_something_else_than_the_cpu(device, fault, step):
    device.fault = fault
    for _ in range(2):
        chosen, sentence = choose_device("auto")
        assert chosen.type == "cpu"
        assert f"does not compute as the CPU does ({step} by " in sentence
        assert "name the device mps" in sentence
    assert device.checked == 1  # remembered
    assert choose_device("mps")[0].type == "mps"  # by name it is obeyed


def test_auto_takes_a_device_that_computes_as_the_cpu_does_up_to_rounding(device):
    device.fault = wrong(StreamingTrunk, "push", lambda x: x * (1 + 1e-5))
    assert [choose_device("auto") for _ in range(2)] == [(torch.device("mps"), "")] * 2
    assert device.checked == 1


@pytest.mark.parametrize("error", [NotImplementedError("no such kernel\nand more"), torch.OutOfMemoryError("full")])
def test_a_device_that_fails_in_its_check_is_left_out_and_tried_again_the_next_time(device, folder, error):
    def fails(_):
        raise error

    device.fault = wrong(StreamingTrunk, "push", fails)
    chosen, sentence = choose_device("auto")
    assert chosen.type == "cpu"
    assert f"could not be checked against the CPU ({str(error).splitlines()[0]}): the run goes on the CPU" in sentence
    assert not folder.exists()
    device.fault = None
    assert choose_device("auto")[0].type == "mps"


def test_a_run_on_the_cpu_in_place_of_a_wrong_device_says_so(model, device):
    device.fault = wrong(torch.nn.functional, "interpolate", last_swapped)
    sweep = noise_sweep(6)
    with pytest.warns(TrackingWarning, match="does not compute as the CPU does"):
        trajectory = estimate_trajectory(sweep, model)
    assert trajectory.provenance["device"] == "cpu"
    assert "the run goes on the CPU" in trajectory.provenance["warnings"][0]
    checked = preflight()
    assert "the run goes on the CPU" in checked["notes"][0], checked
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm) as tracker:
        tracker.push(sweep.window(0, 6))
        assert tracker.finish().provenance["warnings"] == trajectory.provenance["warnings"]


def test_cuda_is_checked_as_any_other_device(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checks, "device_name", str)
    device.fault = wrong(StreamingTrunk, "push", last_swapped)
    chosen, sentence = choose_device("auto")
    assert chosen.type == "cpu"
    assert sentence.startswith("cuda does not compute")


def test_the_check_of_a_device_at_full_width_finds_the_cpu_right():
    assert max(checks.parity(torch.device("cpu")).values()) < checks.MOST_DEVICE_ERROR / 10


def test_the_suite_sees_no_card_so_that_it_passes_on_computers_with_one():
    assert not torch.cuda.is_available()
    command = "import torch; print(torch.cuda.device_count())"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout == "0\n"
