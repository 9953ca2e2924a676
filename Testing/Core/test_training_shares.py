"""How processes share the items of a training: the same items change the weights, whatever the number of processes."""

import pytest
from training_data import tiny_recipe

from DualTrackCore.errors import InputError
from DualTrackCore.research.training.shares import ItemOrder, Shares

CASES = [
    (16, None, 37, 1),
    (16, None, 37, 2),
    (16, 3, 37, 4),
    (16, 1, 37, 3),
    (4, 1, 10, 4),
    (1, None, 7, 4),
    (6, 2, 3, 2),
]


def frames_of(epoch, item):
    return 32 + (item * 37 + epoch) % 81


def orders(batch_size, at_once, items, processes, length=None, **changes):
    recipe = tiny_recipe("local1", batch_size=batch_size, at_once=at_once, devices=processes, **changes)
    shares = Shares.of(recipe, items)
    made = [ItemOrder(items, 1, rank, processes, shares, length) for rank in range(processes)]
    for order in made:
        order.set_epoch(4)
    return shares, [list(order) for order in made]


@pytest.mark.parametrize("length", [None, frames_of])
@pytest.mark.parametrize("case", CASES)
def test_the_items_of_each_change_of_the_weights_are_those_of_one_process(case, length):
    batch_size, at_once, items, _ = case
    _, (one,) = orders(batch_size, None, items, 1, length)
    shares, found = orders(*case, length)
    batch = min(batch_size, items)
    assert len(one) == items // batch * batch
    assert len({len(order) for order in found}) == 1
    own = shares.steps * shares.at_once
    assert shares.at_once <= (at_once or batch)
    for step in range(items // batch):
        wanted = sorted(one[step * batch : (step + 1) * batch])
        seen = [key for order in found[: shares.groups] for key in order[step * own : (step + 1) * own]]
        assert sorted(seen) == wanted
    assert found[: shares.groups] * (len(found) // shares.groups) == found


def test_items_that_are_computed_side_by_side_have_about_the_same_number_of_frames():
    def waits(length):
        _, found = orders(2, None, 200, 2, length)
        return sum(abs(frames_of(*one) - frames_of(*other)) for one, other in zip(*found, strict=True)) / 100

    assert waits(None) > 20
    assert waits(frames_of) < 1
    _, (first, _) = orders(2, None, 200, 2, frames_of)
    lengths = [frames_of(*item) for item in first]
    assert lengths != sorted(lengths)
    assert len({item for order in orders(2, None, 200, 2, frames_of)[1] for item in order}) == 200


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_validation_sees_every_item_once(processes):
    seen = [key for rank in range(processes) for key in ItemOrder(10, 1, rank, processes, None)]
    assert sorted(item for _, item in seen) == list(range(10))


def test_a_process_without_a_validation_item_takes_one_so_that_none_waits_for_it():
    found = [[item for _, item in ItemOrder(2, 1, rank, 5, None)] for rank in range(5)]
    assert found == [[0], [1], [0], [1], [0]]


def test_a_batch_that_devices_cannot_share_is_computed_by_several_and_that_is_said():
    recipe = tiny_recipe("local1", batch_size=1, devices=4)
    shares = Shares.of(recipe, 12)
    assert (shares.batch, shares.groups, shares.rate_factor) == (1, 1, 1.0)
    assert "4 devices cannot share 1 equally, so each item is computed 4 times" in shares.text(recipe)
    assert Shares.of(tiny_recipe("local1"), 12).text(tiny_recipe("local1")) == ""


def test_a_batch_that_may_grow_does_so_with_the_square_root_of_it_on_the_rate():
    recipe = tiny_recipe("local1", batch_size=1, devices=4, grow_batch=True)
    shares = Shares.of(recipe, 12)
    assert (shares.batch, shares.groups, shares.rate_factor) == (4, 4, 2.0)
    assert "grown from 1; learning rate times 2" in shares.text(recipe)
    assert Shares.of(recipe, 3).batch == 1  # an epoch has no item for each
    fits = tiny_recipe("local1", batch_size=8, devices=4, grow_batch=True)
    assert (Shares.of(fits, 12).batch, Shares.of(fits, 12).rate_factor) == (8, 1.0)


def test_a_mean_with_the_start_is_for_stages_that_continue():
    with pytest.raises(InputError, match="start_share is for finetune1 and finetune2"):
        tiny_recipe("local1", start_share=0.5)
