"""Training on drawn acquisitions: what an item shows, which way it is turned, and heads learnt after the motions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import tiny_model
from training_data import tiny_recipe

from DualTrackCore.errors import InputError
from DualTrackCore.network import DualTrack
from DualTrackCore.network.model import save_model
from DualTrackCore.research.simulation.acquisition import Acquisition, Motion, Scanner, View
from DualTrackCore.research.simulation.simulator import Simulation, simulator_hash
from DualTrackCore.research.training import sweeps as sweep_sets
from DualTrackCore.research.training.initial import initial_network, recipe_card
from DualTrackCore.research.training.lightning_task import LightningTask
from DualTrackCore.research.training.recipe import Data
from DualTrackCore.research.training.samples import SweepItems, collate, one_way
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.research.training.token_store import store_tokens

SIMPLE = Acquisition(view=View(depth_mm=20, width_mm=20), motion=Motion(family="Per_L_PtD", step_mm=0.4))


@pytest.fixture(scope="module")
def levels():
    sweep = Simulation(5, 40, None, 5, (96, 96), (0.25, 0.25), SIMPLE).sweep()
    return replace(sweep, frames=np.asarray(sweep.window(0, len(sweep))))


def items(levels, stage="local1", own=SIMPLE, validating=False, **changes):
    recipe = tiny_recipe(stage, one_way=True, **changes)
    sweeps = SweepSet(("a",), (levels,), (own,))
    return SweepItems(recipe, sweeps, DualTrack(**recipe.model), recipe_card(recipe), validating)


def test_a_scanner_is_drawn_anew_in_every_epoch_and_the_same_again(levels):
    made = items(levels, sampling={"window": 8})
    one, again, other = made[(0, 0)], made[(0, 0)], made[(1, 0)]
    torch.testing.assert_close(one["local"], again["local"], rtol=0, atol=0)
    assert one["local"].shape == other["local"].shape
    assert (one["local"] != other["local"]).float().mean() > 0.3  # of a crop with borders
    assert made.draw(0, 0).scan.acquisition.scanner != made.draw(1, 0).scan.acquisition.scanner


def test_a_window_begins_in_the_persistence_of_the_frames_before_it(levels):
    own = replace(SIMPLE, scanner=Scanner(persistence=0.6))
    made = items(levels, own=own, sampling={"window": 8})
    draw = next(d for d in (made.draw(0, 0), made.draw(1, 0), made.draw(2, 0), made.draw(3, 0)) if len(d.scan.before))
    scan = replace(draw.scan, acquisition=own)
    later = made.images[0].local(draw.frames, False, (0, 0), scan)
    alone = made.images[0].local(draw.frames, False, (0, 0), replace(scan, before=scan.before[:0]))
    assert (later[0] != alone[0]).any()
    assert (later[-1].float() - alone[-1].float()).abs().mean() < (later[0].float() - alone[0].float()).abs().mean()


def test_clutter_stands_still_over_whole_pictures_far_apart(levels):
    own = replace(SIMPLE, scanner=Scanner(clutter_db=30.0, clutter_depth_mm=50.0, persistence=0.5))
    scan = replace(items(levels).draw(0, 0).scan, acquisition=own)
    pictures = scan.pictures(torch.from_numpy(levels.frames[::13]), (0.25, 0.25)).float()
    top = pictures[:, :20].flatten(1)
    assert torch.corrcoef(top)[0, 1:].min() > 0.9
    one = scan.pictures(torch.from_numpy(levels.frames[26:27]), (0.25, 0.25)).float()
    torch.testing.assert_close(pictures[2], one[0])  # no neighbour is mixed in


def test_validation_shows_each_sweep_as_its_own_acquisition_does(levels):
    made = items(levels, own=replace(SIMPLE, scanner=Scanner(persistence=0.3)), validating=True)
    assert made.draw(0, 0).scan.acquisition.scanner.persistence == 0.3
    torch.testing.assert_close(made[(0, 0)]["local"], made[(7, 0)]["local"], rtol=0, atol=0)


def test_targets_run_one_way_and_the_item_says_which_way_it_really_ran(levels):
    made = items(levels, augmentation={"reverse": 0.5}, sampling={"window": 12})
    ways = set()
    for epoch in range(12):
        item = made[(epoch, 0)]
        assert item["targets"][:, 2].mean() > 0
        assert abs(float(item["through_mm"])) == pytest.approx(float(item["targets"][:, 2].sum()), rel=1e-4)
        ways.add(float(item["through_mm"]) > 0)
    assert ways == {True, False}


def test_turning_is_a_mirror_at_the_image_plane():
    values = np.random.default_rng(0).normal(size=(9, 6))
    values[:, 2] -= 5
    np.testing.assert_array_equal(one_way(values), values * [1, 1, -1, -1, -1, 1])
    np.testing.assert_array_equal(one_way(-values), -values)
    unknown = np.where(np.arange(9)[:, None] == 3, np.nan, values)
    assert np.nanmean(one_way(unknown)[:, 2]) > 0


def test_another_simulator_never_takes_up_stored_acquisitions(monkeypatch):
    job = Simulation(5, 4, None, 5, (96, 96), (0.25, 0.25), SIMPLE)
    before = simulator_hash(job)
    assert simulator_hash(job) == before
    monkeypatch.setattr("DualTrackCore.research.simulation.render.CODED_DB", (-60.0, 40.0))
    assert simulator_hash(job) != before
    other = replace(job, acquisition=replace(SIMPLE, view=View(depth_mm=21, width_mm=20)))
    assert job.file_name(before) != other.file_name(before) != replace(other, shown=True).file_name(before)


def test_plain_sweeps_stand_beside_the_acquisitions_and_nothing_of_them_is_drawn_anew(monkeypatch):
    made = []
    monkeypatch.setattr(sweep_sets, "_made", lambda makers, reporter: tuple(None for _ in makers))
    monkeypatch.setattr(Simulation, "sweep", lambda self: made.append(self))
    data = Data(
        "simulated", (0, 3), (50, 52), frames=8, acquisitions=True, plain=12, store=False, families=None, speckles=1
    )
    training, validation = (
        sweep_sets._simulated(data, recipe_card(tiny_recipe("local1")), is_training, None, 1, None)
        for is_training in (True, False)
    )
    assert [own.plain for own in training.acquisitions] == [False] * 3 + [True] * 12
    assert [own.plain for own in validation.acquisitions] == [False] * 2 + [True] * 2
    assert set(training.names).isdisjoint(validation.names)
    plain = training.acquisitions[5]
    assert plain.rescanned(np.random.default_rng(0)) is plain
    assert plain.scanner == Scanner()
    assert 5 <= plain.probe.frequency_mhz <= 10


DRAWN = {"kind": "simulated", "acquisitions": True, "seeds": [0, 1], "validation_seeds": [5, 6], "csv": None}


@pytest.mark.parametrize(
    ("stage", "data", "sampling", "part"),
    [
        ("fusion", DRAWN, {"stored_crops": 1}, "sampling.stored_draws to store items as drawn"),
        ("finetune2", DRAWN, {"stored_draws": 1}, "sampling.stored_draws needs a frozen trunk"),
        (
            "fusion",
            {**DRAWN, "acquisitions": False},
            {"stored_draws": 1},
            "sampling.stored_draws is for data.acquisitions",
        ),
    ],
)
def test_what_cannot_be_stored_of_an_item_is_refused(stage, data, sampling, part):
    with pytest.raises(InputError, match=part):
        tiny_recipe(stage, data=data, sampling=sampling)


def test_stored_draws_are_the_tokens_of_the_drawn_frames_and_epochs_take_them_in_turn(levels, tmp_path):
    network = tiny_model().network.eval()
    changes = {
        "data": DRAWN,
        "augmentation": {"hflip": 0.5, "reverse": 0.5, "crop": True},
        "sampling": {"stored_draws": 3, "windows_per_sweep": 2, "shortest": 8},
    }
    made = items(levels, "fusion", **changes)
    made.token_files = store_tokens(made, network, tmp_path, torch.device("cpu"))
    keys = [(epoch, item) for epoch in range(3) for item in range(2)]
    assert [made.draw(*key).variant for key in keys] == list(range(6))
    for epoch, item in keys:
        draw, one = made.draw(epoch, item), made[(epoch, item)]
        crops = made.images[0].local(draw.frames, draw.flipped, draw.shift, draw.scan)
        with torch.no_grad():
            wanted = network.local(crops[None].float() / 255)[0]
        torch.testing.assert_close(one["tokens"], wanted, atol=1e-5, rtol=0)
        assert len(one["targets"]) == len(draw.frames) - 1
        torch.testing.assert_close(one["tokens"], made[(epoch + 3, item)]["tokens"], rtol=0, atol=0)
        torch.testing.assert_close(one["whole"], made[(epoch + 3, item)]["whole"], rtol=0, atol=0)
    assert len({made[key]["tokens"].numpy().tobytes() for key in keys}) == 6


def test_validation_stores_each_sweep_as_it_is_and_other_draws_have_files_of_their_own(levels, tmp_path):
    network = tiny_model().network.eval()
    files = []
    for count, validating in ((1, True), (1, False), (2, False)):
        made = items(levels, "fusion", validating=validating, data=DRAWN, sampling={"stored_draws": count})
        made.token_files = store_tokens(made, network, tmp_path, torch.device("cpu"))
        files += made.token_files
        assert np.load(files[-1]).shape[0] == count
    assert len(set(files)) == 3


@pytest.mark.parametrize("change", [{"seed": 7}, {"sampling": {"stored_draws": 1, "shortest": 8}}])
def test_items_that_are_drawn_otherwise_have_token_files_of_their_own(levels, tmp_path, change):
    network, shared = tiny_model().network.eval(), {"data": DRAWN, "sampling": {"stored_draws": 1}}
    files = [
        store_tokens(items(levels, "fusion", **changes), network, tmp_path, torch.device("cpu"))
        for changes in (shared, shared, shared | change)
    ]
    assert files[0] == files[1] != files[2]


def test_validation_sees_the_same_clip_in_every_epoch(levels):
    own = replace(SIMPLE, motion=replace(SIMPLE.motion, skip=2, repeated=0.3, lost=0.3))
    made = items(levels, "fusion", own, validating=True, data=DRAWN)
    one, later = made[(0, 0)], made[(5, 0)]
    for name in one:
        torch.testing.assert_close(later[name], one[name], rtol=0, atol=0)


def with_heads(direction=True):
    torch.manual_seed(0)
    return DualTrack(**{**tiny_model().network.arguments, "uncertainty": True, "direction": direction})


def task_and_batch(levels, stage, network):
    recipe = tiny_recipe(stage, one_way=True, model=network.arguments)
    made = SweepItems(recipe, SweepSet(("a",), (levels,), (SIMPLE,)), network, recipe_card(recipe))
    return LightningTask(recipe, network, torch.zeros(6), torch.ones(6)), collate([made[(0, 0)]])


@pytest.mark.parametrize(("stage", "head"), [("heads", "uncertainty"), ("direction", "direction")])
def test_the_stage_of_a_head_changes_that_head_and_nothing_else(levels, stage, head):
    network = with_heads()
    task, batch = task_and_batch(levels, stage, network)
    changed = {name: value for name, value in network.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in changed} == {head}
    task.train()
    task.training_step(batch, 0).backward()
    own = getattr(network, head).fc
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in own.parameters())
    with pytest.raises(InputError, match=head):
        build_task(tiny_model().network, tiny_recipe(stage))


def test_the_direction_head_starts_from_a_global_encoder_without_its_pictures(tmp_path, levels):
    first = with_heads()
    save_model(first, recipe_card(tiny_recipe("direction", model=first.arguments)), tmp_path / "signed.safetensors")
    recipe = tiny_recipe("direction", model=first.arguments, seed=7, initial={"direction": "signed.safetensors"})
    started = initial_network(recipe, tmp_path)
    own, given = started.direction.state_dict(), first.global_encoder.state_dict()
    taken = [name for name in own if name in given and not name.startswith("fc.")]
    assert {name.split(".")[0] for name in taken} == {"proj", "pos_emb", "bert"}
    for name in taken:
        assert torch.equal(own[name], given[name])
    assert not torch.equal(started.global_encoder.proj.weight, first.global_encoder.proj.weight)


def test_the_likelihood_is_least_where_the_variance_is_that_of_the_errors(levels):
    task, batch = task_and_batch(levels, "heads", with_heads(direction=False))
    task.eval()
    with torch.no_grad():
        output = task.task(batch)
        errors = (output.motions - batch["targets"]).square().mean(dim=(0, 1))

        def loss(log_variance):
            fixed = output._replace(log_variance=log_variance.expand_as(output.log_variance))
            return float(task.head_loss(batch, fixed))

        best = loss(errors.log())
        assert best < loss(errors.log() + 0.3)
        assert best < loss(errors.log() - 0.3)


def test_direction_learns_from_the_side_that_the_item_really_ran_to(levels):
    task, batch = task_and_batch(levels, "direction", with_heads())
    assert not {"local", "tokens"} & batch.keys()  # whole pictures alone
    with torch.no_grad():
        output = task.task(batch)
    runs_up = batch["through_mm"].sign()
    for sign in (1, -1):
        logits = output._replace(direction_logit=torch.tensor([4.0 * sign]) * runs_up[:, 0])
        loss = float(task.head_loss(batch, logits))
        assert loss < 0.02 if sign == 1 else loss > 2
    flat = {**batch, "through_mm": torch.zeros(1, 1)}
    assert float(task.head_loss(flat, output)) == 0  # a sweep in its plane runs to no side


def test_weights_with_heads_go_through_a_file(tmp_path, levels):
    from DualTrackCore.network import load_model

    network = with_heads()
    recipe = tiny_recipe("heads", model=network.arguments)
    path = save_model(network, recipe_card(recipe), tmp_path / "model.safetensors")
    again = load_model(str(path)).network
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
