"""Augmented poses against what they must do to points and pixels."""

import numpy as np
import pytest
from training_data import SPACING_MM, tiny_recipe, tracked_sweep

from DualTrackCore.network import DualTrack, ModelCard
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.samples import Draw, SweepItems, targets, thinned
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

SIZE = (72, 80)
FORWARDS = np.arange(24)


@pytest.fixture(scope="module")
def sweep():
    return tracked_sweep(0)


def image_point(u, v, size=SIZE):
    """Place of a pixel (column, row) of an image of that size, mm from its centre, written out by hand."""
    return np.array([(u - (size[1] - 1) / 2) * SPACING_MM[0], (v - (size[0] - 1) / 2) * SPACING_MM[1], 0.0, 1.0])


def distances(poses, frames, points):
    """Distances in space between one point of every drawn frame: what no change of the images can alter."""
    places = np.stack([poses[i] @ frame_points for i, frame_points in zip(frames, points, strict=True)])[:, :3]
    return np.linalg.norm(places[:, None] - places[None], axis=-1)


def check_same_tissue(sweep, draw, pixel_in_item, item_size, original_pixel):
    """The same tissue must come to lie at the same mutual distances through the item's motions as in the sweep.

    Three pixels that are not on a line pin the motion down.
    """
    motions = targets(sweep.tracked.poses, sweep.tracked.valid, draw, SPACING_MM)
    item_poses = accumulate(matrices_from_parameters(motions))
    for u, v in pixel_in_item:
        seen = [image_point(u, v, item_size)] * len(draw.frames)
        own = [image_point(*original_pixel(u, v))] * len(draw.frames)
        order = range(len(draw.frames))
        found, wanted = distances(item_poses, order, seen), distances(sweep.tracked.poses, draw.frames, own)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


PIXELS = [(3, 5), (40, 9), (17, 50)]


def test_no_change_gives_the_tracked_motions(sweep):
    draw = Draw(FORWARDS, FORWARDS)
    found = targets(sweep.tracked.poses, sweep.tracked.valid, draw, SPACING_MM)
    np.testing.assert_allclose(found, sweep.tracked.parameters, atol=1e-12)


def test_a_flip_moves_mirrored_pixels_as_the_tissue_under_them(sweep):
    draw = Draw(FORWARDS, FORWARDS, flipped=True)
    check_same_tissue(sweep, draw, PIXELS, SIZE, lambda u, v: (SIZE[1] - 1 - u, v))


def test_a_flip_turns_a_step_to_the_right_into_one_to_the_left():
    poses = accumulate(matrices_from_parameters(np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])))
    found = targets(poses, np.ones(2, bool), Draw(np.arange(2), np.arange(2), flipped=True), SPACING_MM)
    np.testing.assert_allclose(found, [[-1, 2, 3, 4, -5, -6]], atol=1e-9)


def test_a_reversed_sweep_goes_the_way_back(sweep):
    draw = Draw(FORWARDS[::-1].copy(), FORWARDS)
    check_same_tissue(sweep, draw, PIXELS, SIZE, lambda u, v: (u, v))
    forwards = accumulate(
        matrices_from_parameters(
            targets(sweep.tracked.poses, sweep.tracked.valid, Draw(FORWARDS, FORWARDS), SPACING_MM)
        )
    )
    back = accumulate(matrices_from_parameters(targets(sweep.tracked.poses, sweep.tracked.valid, draw, SPACING_MM)))
    np.testing.assert_allclose(back[-1] @ forwards[-1], np.eye(4), atol=1e-9)


def test_left_out_frames_leave_the_others_where_they_were(sweep):
    kept = thinned(24, 0.25, np.random.default_rng(5))
    assert len(kept) == 18
    assert (np.diff(kept) > 0).all()
    check_same_tissue(sweep, Draw(kept, np.arange(18)), PIXELS, SIZE, lambda u, v: (u, v))


def test_a_pose_that_is_not_valid_makes_the_two_motions_around_it_unknown(sweep):
    valid = np.ones(24, bool)
    valid[7] = False
    found = targets(sweep.tracked.poses, valid, Draw(FORWARDS, FORWARDS), SPACING_MM)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [6, 7]


def items_for(stage, sweeps, validating=False, **changes):
    recipe = tiny_recipe(stage, **changes)
    names = tuple(str(i) for i in range(len(sweeps)))
    return SweepItems(
        recipe, SweepSet(names, tuple(sweeps)), DualTrack(**recipe.model), recipe_card(recipe), validating
    )


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("shift", [(-4, -8), (4, 7), (0, 3)])
def test_the_pixels_and_the_motions_of_a_shifted_crop_belong_together(sweep, flipped, shift):
    items = items_for("local1", [sweep])
    draw = Draw(FORWARDS[2:10], FORWARDS[2:10], flipped, shift)
    crops = items.images[0].local(draw.frames, flipped, shift).numpy()
    top, left = (72 - 64) // 2 + shift[0], (80 - 64) // 2 + shift[1]

    def original(u, v):
        column = u + left
        return (79 - column if flipped else column, v + top)

    for u, v in PIXELS:
        column, row = original(u, v)
        np.testing.assert_array_equal(crops[:, v, u], sweep.frames[2:10, row, column])
    check_same_tissue(sweep, draw, PIXELS, (64, 64), original)


def test_shifts_reach_every_place_where_the_crop_fits():
    images, random = items_for("local1", [tracked_sweep(0)]).images[0], np.random.default_rng(0)
    shifts = np.array([images.drawn_shift(random) for _ in range(300)])
    assert [np.unique(column).tolist() for column in shifts.T] == [[*range(-4, 5)], [*range(-8, 9)]]


def test_a_frame_smaller_than_the_crop_is_padded_and_never_shifted():
    images = items_for("local1", [tracked_sweep(0, size=(40, 64))]).images[0]
    assert images.drawn_shift(np.random.default_rng(0)) == (0, 0)
    crops = images.local(FORWARDS[:2], False, (0, 0)).numpy()
    assert crops.shape == (2, 64, 64)
    assert not crops[:, :12].any()
    assert not crops[:, 52:].any()


def test_a_sweep_of_another_spacing_is_seen_as_tracking_sees_it(sweep):
    import torch

    from DualTrackCore.research.training.samples import SweepImages
    from DualTrackCore.tracking.preprocessing import Preprocessor

    card = ModelCard(spacing_mm=(0.4, 0.4))
    images = SweepImages(sweep, card, 64, 48)
    prepared = Preprocessor(SIZE, SPACING_MM, card.spacing_mm, 64, 48)
    frames = torch.from_numpy(sweep.frames[:3])
    torch.testing.assert_close(images.local(FORWARDS[:3], False, (0, 0)), prepared.local(frames), atol=1e-6, rtol=0)
    torch.testing.assert_close(images.whole(FORWARDS[:3], False), prepared.global_image(frames), atol=1e-6, rtol=0)
    mirrored = images.local(FORWARDS[:3], True, (0, 0))
    torch.testing.assert_close(mirrored.flip(2), prepared.local(frames), atol=1e-6, rtol=0)


def test_random_frames_are_in_order_told_by_index_and_aimed_at_from_one_to_the_next(sweep):
    items = items_for("global", [sweep], augmentation={"reverse": 1.0})
    item = items[(4, 0)]
    positions = item["frame_index"].numpy()
    assert len(positions) == 6
    assert (np.diff(positions) > 0).all()
    poses = sweep.tracked.poses[23 - positions]
    wanted = np.linalg.inv(poses[:-1]) @ poses[1:]
    np.testing.assert_allclose(matrices_from_parameters(item["targets"].double().numpy()), wanted, atol=1e-4)


def test_an_item_depends_on_seed_epoch_and_number_alone(sweep):
    changes = {"augmentation": {"hflip": 0.5, "reverse": 0.5, "crop": True}}
    one, other = (items_for("local1", [sweep, tracked_sweep(1)], **changes) for _ in range(2))
    other[(0, 1)], other[(5, 0)]
    for key in ((0, 0), (3, 1)):
        for name, value in one[key].items():
            assert (value == other[key][name]).all(), name
    drawn = [one.draw(epoch, 0) for epoch in range(20)]
    assert len({(d.frames[0], d.shift, d.flipped) for d in drawn}) > 10
    assert {d.flipped for d in drawn} == {True, False}


def test_validation_changes_nothing(sweep):
    changes = {"augmentation": {"hflip": 1.0, "reverse": 1.0, "crop": True, "drop": 1.0}}
    item = items_for("finetune1", [sweep], validating=True, **changes)[(0, 0)]
    np.testing.assert_allclose(item["targets"].numpy(), sweep.tracked.parameters, atol=1e-5)
    assert item["local"].shape == (24, 64, 64)
    np.testing.assert_array_equal(item["local"].numpy(), sweep.frames[:, 4:68, 8:72])
