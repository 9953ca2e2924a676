"""Reduced precision: what it may change, and when it is chosen unasked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import noise_sweep, tiny_model

from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM
from DualTrackCore.network.fast import ENGINE_VARIABLE, StreamingTrunk
from DualTrackCore.tracking import device as device_module
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.tracking.preprocessing import Preprocessor

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
