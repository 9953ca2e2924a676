"""Losses of training: how components and sweeps are weighted against each other."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle import tiny_model
from training_data import tiny_recipe

from DualTrackCore.research.training.lightning_task import LightningTask


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_relative_errors_grow_less_than_the_square_of_the_steps_and_turns_are_motions_too(power):
    def loss_of(targets: torch.Tensor, relative: float = power) -> float:
        task = LightningTask(tiny_recipe("fusion", relative=relative), network, torch.zeros(6), torch.ones(6))
        batch = {"targets": targets.expand(1, 9, 6), "mask": torch.ones(1, 9, dtype=torch.bool)}
        return task.component_losses(batch, batch["targets"] * 1.1).mean().item()

    network = tiny_model().network
    along, turn = torch.tensor([0.0, 0, 1, 0, 0, 0]), torch.tensor([0.0, 0, 0, 0, 1, 0])
    assert loss_of(20 * along, relative=0) / loss_of(10 * along, relative=0) == pytest.approx(4)
    assert loss_of(20 * along) / loss_of(10 * along) == pytest.approx(2 ** (2 - power), rel=1e-3)
    still = loss_of(1e-3 * along)
    assert still == pytest.approx(loss_of(1e-3 * along, relative=0) / 0.1**power, rel=1e-3)
    lever = 20 * math.radians(10)  # of 10 degrees, mm
    assert loss_of(10 * turn) == pytest.approx(loss_of(10 * turn, relative=0) / lever**power, rel=1e-3)


@pytest.mark.parametrize(("power", "wanted"), [(0.0, np.exp(0.08)), (0.5, 1.0), (1.0, np.exp(-0.08))])
def test_of_lengths_that_are_uncertain_by_a_factor_one_half_teaches_the_median(power, wanted):
    lengths = torch.from_numpy(np.exp(np.random.default_rng(0).normal(0, 0.4, 20_000))).float()
    along = torch.tensor([0.0, 0, 10, 0, 0, 0])
    batch = {"targets": lengths[:, None, None] * along, "mask": torch.ones(len(lengths), 1, dtype=torch.bool)}
    recipe = tiny_recipe("fusion", relative=power)
    task = LightningTask(recipe, tiny_model().network, torch.zeros(6), torch.ones(6))
    tried = np.array([0.8, 1.0, 1.2])
    losses = [task.component_losses(batch, (one * along).expand(len(lengths), 1, 6)).mean().item() for one in tried]
    square, linear, _ = np.polyfit(tried, losses, 2)
    assert -linear / (2 * square) == pytest.approx(wanted, rel=0.01)


def test_equal_weighting_is_the_plain_mean_and_keeps_no_errors():
    task = LightningTask(tiny_recipe("fusion"), tiny_model().network, torch.zeros(6), torch.ones(6))
    losses = torch.tensor([0.01, 0.1, 1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(task.weighted(losses), losses.mean())
    assert torch.equal(task.component_errors, torch.ones(6))


def test_weighting_by_likelihood_lets_every_component_pull_by_its_own_measure():
    recipe = tiny_recipe("fusion", weighting="likelihood")
    task = LightningTask(recipe, tiny_model().network, torch.zeros(6), torch.ones(6))
    wanted = torch.tensor([0.01, 0.02, 0.1, 0.5, 1.0, 1e-6])
    task._trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda values, reduce_op: values))
    for _ in range(2000):
        for factor in (0.5, 1.5):  # two pieces of one batch
            task.weighted(wanted * factor)
        task.on_before_optimizer_step(None)
    torch.testing.assert_close(task.component_errors, wanted, rtol=0.01, atol=1e-6)
    losses = wanted.clone().requires_grad_()
    task.weighted(losses).backward()
    pull = losses.grad * wanted
    torch.testing.assert_close(pull[:5], torch.full((5,), 1 / 6), rtol=0.01, atol=0)
    assert losses.grad[5] == pytest.approx(1 / 1e-3 / 6, rel=0.01)  # no component counts without limit
    task.weighted(torch.full((6,), torch.inf))
    task.on_before_optimizer_step(None)  # a step that overflowed in half precision
    torch.testing.assert_close(task.component_errors, wanted, rtol=0.01, atol=1e-6)


def task_of(**changes) -> LightningTask:
    return LightningTask(tiny_recipe("fusion", **changes), tiny_model().network, torch.zeros(6), torch.ones(6))


@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_errors_that_all_motions_of_an_item_share_drift_and_those_that_cancel_do_not(relative):
    targets, mask = torch.ones(2, 8, 6), torch.ones(2, 8, dtype=torch.bool)
    mask[:, 6:] = False  # errors of unknown motions count in neither row
    shared, cancelling = torch.full((8, 6), 0.1), torch.tensor([0.1, -0.1] * 4)[:, None].expand(8, 6).clone()
    shared[6:] = cancelling[6:] = 50.0
    losses = [
        task_of(drift=1.0, relative=relative).component_losses(
            {"targets": targets[:1], "mask": mask[:1]}, targets[:1] + errors
        )
        for errors in (shared, cancelling)
    ]
    torch.testing.assert_close(losses[0][0], losses[1][0])
    torch.testing.assert_close(losses[0][1], losses[0][0])
    torch.testing.assert_close(losses[1][1], torch.zeros(6))
    both = task_of(drift=1.0, relative=relative).component_losses(
        {"targets": targets, "mask": mask}, targets + torch.stack([shared, cancelling])
    )
    torch.testing.assert_close(both, torch.stack(losses).mean(dim=0))  # drifts of two items never cancel each other
    plain = task_of(relative=relative).component_losses({"targets": targets, "mask": mask}, targets + shared)
    torch.testing.assert_close(plain, losses[0][0])


@pytest.mark.parametrize("weighting", ["equal", "likelihood"])
@pytest.mark.parametrize("drift", [0.0, 2.0])
def test_components_and_drift_count_as_the_recipe_says(weighting, drift):
    weights = [1.0, 1.0, 3.0, 0.5, 0.0, 0.5]
    task = task_of(weighting=weighting, drift=drift, component_weights=weights)
    losses = torch.full((2, 6) if drift else (6,), 0.7, requires_grad=True)
    task.weighted(losses).backward()
    shares = torch.tensor(weights) / 6
    torch.testing.assert_close(losses.grad, torch.stack([shares, drift * shares]) if drift else shares)
