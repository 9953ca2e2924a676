"""One encoder alone: the same numbers as its stage of training, at any length of sweep."""

import numpy as np
import pytest
import torch
from oracle import noise_sweep, tiny_model
from training_data import tiny_recipe, tracked_sweep

from DualTrackCore.errors import InputError
from DualTrackCore.network import Model
from DualTrackCore.research.heads import estimate_with_head, interpolated_poses
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.samples import SweepItems, collate
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.trajectory import Trajectory, accumulate, invert_rigid, matrices_from_parameters

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


def stage_output(stage, sweep):
    """What the stage's task gives in validation, the frames it saw, and the model."""
    recipe, network = tiny_recipe(stage), tiny_model().network
    card = recipe_card(recipe)
    items = SweepItems(recipe, SweepSet(("0",), (sweep,)), network, card, validating=True)
    task = build_task(network, recipe).eval()
    with torch.inference_mode():
        motions = task(collate([items[(0, 0)]])).motions[0].double().numpy()
    return motions, items.draw(0, 0).frames, Model(network, card)


def test_the_local_head_gives_what_the_stage_local3_computes():
    sweep = tracked_sweep(0, 40)
    motions, _, model = stage_output("local3", sweep)
    found = estimate_with_head(sweep, model, "local", chunk_frames=7).parameters
    np.testing.assert_allclose(found, motions, atol=2e-5)


def test_the_global_head_gives_what_the_stage_global_computes_between_the_frames_it_sees():
    sweep = tracked_sweep(0, 40)
    motions, frames, model = stage_output("global", sweep)
    poses = estimate_with_head(sweep, model, "global", samples=6, chunk_frames=7).poses
    assert len(frames) == 6
    np.testing.assert_allclose(poses[frames], accumulate(matrices_from_parameters(motions)), atol=1e-4)


def test_the_fusion_head_is_the_whole_network():
    sweep, model = noise_sweep(20), tiny_model()
    whole = estimate_trajectory(sweep, model).poses
    np.testing.assert_array_equal(estimate_with_head(sweep, model, "fusion").poses, whole)


@pytest.mark.parametrize("head", ["local", "global"])
def test_a_sweep_longer_than_the_position_table_is_taken_in_pieces(head):
    model = tiny_model(positions=32)
    trajectory = estimate_with_head(noise_sweep(75), model, head, samples=8)
    assert len(trajectory) == 75
    assert np.isfinite(trajectory.poses).all()
    first = estimate_with_head(noise_sweep(75).slice(0, 32), model, "global", samples=8)
    if head == "global":
        np.testing.assert_allclose(trajectory.poses[:32], first.poses, atol=1e-5)


@pytest.mark.parametrize("head", ["local", "global"])
def test_weights_without_the_head_are_refused_by_name(head):
    model = tiny_model()
    linear = model.network.local.temporal_encoder.fc if head == "local" else model.network.global_encoder.fc
    torch.nn.init.zeros_(linear.weight)
    with pytest.raises(InputError, match=f"'tiny' hold no {head} head"):
        estimate_with_head(noise_sweep(4), model, head)


def test_an_unknown_head_and_too_few_samples_are_refused():
    with pytest.raises(InputError, match="'both' is unknown"):
        estimate_with_head(noise_sweep(4), tiny_model(), "both")
    with pytest.raises(InputError, match="1 frames of a sweep"):
        estimate_with_head(noise_sweep(4), tiny_model(), "global", samples=1)


def test_poses_between_two_known_ones_move_evenly_in_place_and_angle():
    motion = np.array([[4.0, -2.0, 8.0, 0.0, 0.0, 40.0], [1.0, 1.0, 1.0, 30.0, 0.0, 0.0]])
    known = accumulate(matrices_from_parameters(motion))
    poses = interpolated_poses(np.array([0, 4, 6]), known)
    np.testing.assert_allclose(poses[[0, 4, 6]], known, atol=1e-12)
    quarter = Trajectory.from_parameters(np.array([[1.0, -0.5, 2.0, 0.0, 0.0, 10.0]])).poses[1]
    np.testing.assert_allclose(poses[1], quarter, atol=1e-12)
    halves = invert_rigid(poses[[4, 5]]) @ poses[[5, 6]]
    np.testing.assert_allclose(halves[0, :3, :3], halves[1, :3, :3], atol=1e-12)
