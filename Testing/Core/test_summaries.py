"""What a console and a notebook show of sweeps, paths and volumes: one line, and a small table with a picture."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from DualTrackCore import Sweep, Trajectory, plan_grid, reconstruct_volume
from DualTrackCore.reconstruction import seen_text


@pytest.fixture(scope="module")
def sweep():
    pixels = np.random.default_rng(3).integers(0, 255, (20, 50, 40), dtype=np.uint8)
    return Sweep.from_array(pixels, spacing_mm=(0.2, 0.3), frame_rate_hz=20)


@pytest.fixture(scope="module")
def path():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 2, 3] = np.arange(20) * 0.5
    return Trajectory(poses, origin="simulated")


@pytest.fixture(scope="module")
def volume(sweep, path):
    return reconstruct_volume(sweep, path, plan_grid(sweep, path, spacing_mm=0.5))


def picture_of(thing):
    (coded,) = re.findall(r"base64,([^']+)'", thing._repr_html_())
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))))


def test_a_sweep_is_one_line_with_size_spacing_rate_and_poses(sweep, path):
    assert repr(sweep) == "Sweep(20 frames of 40 x 50, 0.2 x 0.3 mm, 0.95 s, 20 frames a second, no poses)"
    from dataclasses import replace

    assert "poses simulated" in repr(replace(sweep, tracked=path))
    assert "pixel size unknown" in repr(Sweep(sweep.frames))


def test_a_recording_of_tracking_alone_shows_no_picture(path):
    sweep = Sweep(np.zeros((20, 0, 0), np.uint8), tracked=path)
    assert repr(sweep) == "Sweep(20 poses alone, poses simulated)"
    assert "<img" not in sweep._repr_html_()


def test_a_path_is_one_line_with_its_length_and_what_is_invalid(path):
    assert repr(path) == "Trajectory(20 poses, path of 9.5 mm, simulated)"
    some = Trajectory(path.poses, valid=np.arange(20) != 4)
    assert repr(some) == "Trajectory(20 poses, path of 9.5 mm, 1 invalid, unknown origin)"


def test_a_volume_is_one_line_with_its_grid_its_greys_and_what_was_seen(volume):
    darkest, brightest = int(volume.volume.min()), int(volume.volume.max())
    assert repr(volume) == (
        f"Reconstruction({volume.grid.describe(memory=False)}, grey {darkest} to {brightest}, 20 frames; "
        f"{seen_text(volume.covered_fraction, volume.filled_fraction)})"
    )
    assert repr(volume.grid).startswith("VoxelGrid(17 x 30 x 20 voxels of 0.5 x 0.5 x 0.5 mm")


def test_a_notebook_shows_the_frame_in_the_middle(sweep):
    np.testing.assert_array_equal(picture_of(sweep), sweep.frames[10])


def test_a_notebook_shows_the_slice_in_the_middle_of_a_volume(volume):
    np.testing.assert_array_equal(picture_of(volume), volume.volume[:, 15])


def test_a_notebook_shows_the_way_of_a_path_but_none_that_stands_still(path):
    assert (picture_of(path) < 128).sum() > 100
    assert "<img" not in Trajectory(np.tile(np.eye(4), (3, 1, 1)))._repr_html_()


def test_large_pictures_are_made_small_and_text_is_text():
    sweep = Sweep(np.zeros((2, 900, 1200), np.uint8))
    assert max(picture_of(sweep).shape) == 160
    assert "&lt;" not in sweep._repr_html_()
