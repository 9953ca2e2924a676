"""A volume from a graphics card is that of the CPU; the CPU plays the card."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_volume_builder import SIZE, turned_sweep

from DualTrackCore.reconstruction import Fan, VolumeBuilder, VoxelGrid, plan_grid, reconstruct_volume
from DualTrackCore.reconstruction import card as card_module
from DualTrackCore.reconstruction.card import CardBuilder
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

TURNS = ((0, 0, 0), (90, 0, 0), (-100, 15, 170))
AREAS = ({}, {"clip": (3, 4, 20, 15), "reject_below": 90}, {"fan": Fan((15, -20), (-30, 30), (22, 44))})


def both(sweep, trajectory, grid, **options):
    """Volume and coverage by the CPU and by what plays the card."""
    made = []
    for make in (VolumeBuilder, lambda *a, **k: CardBuilder("cpu", *a, **k)):
        builder = make(grid, sweep.frame_size, sweep.image_from_pixel, **options)
        builder.add(sweep.frames[:2], trajectory.poses[:2])
        builder.snapshot()
        builder.add(sweep.frames[2:], trajectory.poses[2:])
        made.append((*builder.finish(), builder))
    return made


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("turn", TURNS)
def test_the_nearest_voxels_have_the_means_and_counts_of_the_cpu(turn, area):
    sweep, trajectory, grid = turned_sweep(turn, frames=4)
    (volume, coverage, _), (own, counts, _) = both(sweep, trajectory, grid, interpolation="nearest", **area)
    np.testing.assert_array_equal(own, volume)
    np.testing.assert_array_equal(counts, coverage)
    assert coverage.max() > 1


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("turn", TURNS)
def test_shared_pixels_have_the_means_and_weights_of_the_cpu_to_rounding(turn, area):
    sweep, trajectory, grid = turned_sweep(turn, frames=4)
    (volume, coverage, _), (own, weights, _) = both(sweep, trajectory, grid, interpolation="linear", **area)
    apart = np.abs(own.astype(int) - volume)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 1e-3 * apart.size
    np.testing.assert_allclose(weights, coverage, atol=1e-5)
    assert (own.dtype, weights.dtype, own.shape) == (np.uint8, np.float32, grid.shape)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_a_grid_of_one_layer_and_pixels_on_its_edges_are_as_on_the_cpu(interpolation):
    sweep = Sweep(np.random.default_rng(0).integers(0, 256, (2, *SIZE), dtype=np.uint8), (0.5, 0.5))
    trajectory = Trajectory(np.stack([np.eye(4)] * 2))
    grid = plan_grid(sweep, trajectory, spacing_mm=0.5)
    for one in (grid, VoxelGrid(grid.origin_mm, grid.spacing_mm, (*grid.size[:2], 1))):
        (volume, coverage, _), (own, weights, _) = both(sweep, trajectory, one, interpolation=interpolation)
        np.testing.assert_array_equal(own, volume)
        np.testing.assert_allclose(weights, coverage, atol=1e-6)


@pytest.mark.parametrize("when", ["at once", "in between", "at the end"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_where_the_card_is_full_main_memory_goes_on_and_no_frame_counts_twice(interpolation, when, monkeypatch):
    sweep, trajectory, grid = turned_sweep((20, 30, 40), frames=5)
    options, calls = {"interpolation": interpolation}, []
    whole = VolumeBuilder(grid, sweep.frame_size, sweep.image_from_pixel, **options)
    whole.add(sweep.frames, trajectory.poses)
    volume, coverage = whole.finish()

    def full(*arguments):
        calls.append(1)
        if len(calls) > {"at once": 0, "in between": 1, "at the end": 0}[when]:
            raise torch.OutOfMemoryError("fake")
        return original(*arguments)

    ending, corners = ("_counted", "_nearest") if interpolation == "nearest" else ("_means", "_spread")
    original = getattr(card_module, corners)
    monkeypatch.setattr(card_module, ending if when == "at the end" else corners, full)
    builder = CardBuilder("cpu", grid, sweep.frame_size, sweep.image_from_pixel, **options)
    for part in (slice(0, 2), slice(2, 5)):
        builder.add(sweep.frames[part], trajectory.poses[part])
    own, counts = builder.finish()
    assert np.abs(own.astype(int) - volume).max() <= (interpolation == "linear")
    np.testing.assert_allclose(counts, coverage, atol=1e-5)
    assert calls
    assert builder.settings["device"] == "cpu"


def test_a_mean_goes_to_the_card_and_all_else_to_the_cpu(monkeypatch):
    sweep, trajectory, grid = turned_sweep((0, 0, 0), frames=4)
    sent = []

    class Noted(CardBuilder):
        def __init__(self, device, *arguments, **options):
            sent.append(str(device))
            super().__init__("cpu", *arguments, **options)

    monkeypatch.setattr(card_module, "CardBuilder", Noted)
    for device in ("cpu", "cuda:0"):
        for compounding in ("mean", "maximum", "latest"):
            reconstruct_volume(sweep, trajectory, grid, compounding=compounding, device=device)
    assert sent == ["cuda:0"]


def test_a_run_takes_the_card_of_its_settings_for_the_volume_too(monkeypatch):
    sweep, trajectory, _ = turned_sweep((0, 0, 0), frames=4)
    sweep, used = replace(sweep, tracked=trajectory), []

    def on_card(*arguments, device, **options):
        used.append(device)
        return reconstruct_volume(*arguments, device="cpu", **options)

    monkeypatch.setattr("DualTrackCore.reconstruction.builder.reconstruct_volume", on_card)
    monkeypatch.setattr("DualTrackCore.tracking.device.choose_device", lambda device: (torch.device("cuda:1"), ""))
    for is_there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        for device in ("auto", "cuda:1", "cpu", "mps"):
            run(sweep, RunSettings(poses="tracked", device=device, evaluate=False, pictures=False, repeats="keep"))
    assert used == ["cuda:1", "cuda:1"] + ["cpu"] * 6
