"""Preparing frames whose spacing or size is not the model's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from DualTrackCore.tracking.preprocessing import Preprocessor, crop_margins, resampling_matrix


def disc(height: int, width: int, spacing: tuple[float, float], centre_mm: tuple[float, float]) -> np.ndarray:
    """A bright disc of 4 mm radius at a place given in image mm (origin at the image centre)."""
    x = (np.arange(width) - (width - 1) / 2) * spacing[0] - centre_mm[0]
    y = (np.arange(height) - (height - 1) / 2) * spacing[1] - centre_mm[1]
    return np.where(np.hypot(x[None, :], y[:, None]) < 4, 200, 20).astype(np.uint8)


def centroid_mm(image: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    weight = image - image.min()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    centre = (np.array(image.shape[::-1]) - 1) / 2
    return (np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum() - centre) * spacing


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [(480, 256, (0, 0, 112)), (640, 256, (0, 0, 192)), (200, 256, (28, 28, 0)), (181, 256, (37, 38, 0))]
    + [(256 + n, 256, (0, 0, first)) for n, first in ((1, 0), (3, 2), (5, 2), (7, 4))],
)
def test_crops_lie_where_the_specification_puts_them(size, crop, expected):
    assert crop_margins(size, crop) == expected


@given(st.integers(2, 300), st.floats(0.2, 5))
def test_resampling_keeps_constants_and_is_symmetric_about_the_centre(inputs, scale):
    matrix = resampling_matrix(inputs, scale)
    assert matrix.shape == (max(1, round(inputs / scale)), inputs)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize("spacing", [(0.1, 0.3), (0.4, 0.15), (0.2, 0.2)])
def test_a_resampled_sweep_shows_things_where_they_are_in_millimetres(spacing):
    model_spacing, place = (0.25, 0.2), (2.5, -3.0)
    height, width = int(60 / spacing[1]), int(60 / spacing[0])
    frames = torch.from_numpy(disc(height, width, spacing, place))[None]
    prepare = Preprocessor((height, width), spacing, model_spacing, 128, 64)
    crop = prepare.local(frames)[0].numpy()
    assert prepare.resamples
    assert crop.shape == (128, 128)
    # The crop's centre may lie half a pixel off the image's, because sizes are whole pixels.
    np.testing.assert_allclose(centroid_mm(crop, model_spacing), place, atol=0.6 * max(model_spacing))


def test_a_spacing_within_a_thousandth_is_left_alone():
    assert not Preprocessor((480, 640), (0.2294, 0.221), (0.22938919, 0.22097969), 256, 224).resamples


def test_the_whole_frame_is_normalised_as_the_card_says():
    frames = torch.full((1, 60, 80), 255, dtype=torch.uint8)
    plain = Preprocessor((60, 80), (0.2, 0.2), (0.2, 0.2), 64, 32).global_image(frames)
    scaled = Preprocessor((60, 80), (0.2, 0.2), (0.2, 0.2), 64, 32, 0.5, 0.25).global_image(frames)
    assert torch.allclose(plain, torch.ones(()))
    assert torch.allclose(scaled, torch.full((), 2.0))


def test_frames_smaller_than_the_crop_get_black_borders():
    prepare = Preprocessor((50, 200), (0.2, 0.2), (0.2, 0.2), 64, 32)
    crop = prepare.local(torch.full((1, 50, 200), 255, dtype=torch.uint8))[0]
    assert prepare.pads
    assert crop[:7].max() == 0
    assert crop[7:57].min() == 1
    assert crop[57:].max() == 0


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.25), (0.5, 1.0), (0.5, 0.25), (0.0, 1.0)])
def test_the_global_image_is_normalised_by_mean_and_deviation_each(mean, std):
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 40, 50), dtype=np.uint8))
    sizes = ((40, 50), (0.2, 0.2), (0.2, 0.2), 32, 24)
    plain = Preprocessor(*sizes).global_image(frames)
    found = Preprocessor(*sizes, global_mean=mean, global_std=std).global_image(frames)
    torch.testing.assert_close(found, (plain - mean) / std)
