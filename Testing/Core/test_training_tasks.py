"""Stages: what they train, what stays as it was, and that their pieces give what the finished network gives."""

import numpy as np
import pytest
import torch
from oracle import tiny_model
from training_data import tiny_recipe, tracked_sweep

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.evaluation.definitions import five_points_mm
from DualTrackCore.network import DualTrack
from DualTrackCore.network.model import save_model
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import initial_network, recipe_card
from DualTrackCore.research.training.lightning_task import (
    LightningItems,
    LightningTask,
    ValidationSums,
    fold_scale,
    rate_factor,
    unfold_scale,
)
from DualTrackCore.research.training.samples import SweepItems, collate, trunk_in_chunks
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.research.training.token_store import store_tokens
from DualTrackCore.research.training.trainer import target_statistics
from DualTrackCore.trajectory import Trajectory

#: Stage: beginnings of the names of parameters that change.
TRAINED = {
    "local1": ("network.local_encoder.0.backbone.module.backbone.", "temporary_head."),
    "local2": ("network.local_encoder.0.backbone.module.vit.", "network.local_encoder.0.backbone.module.fc."),
    "local3": ("network.local_encoder.0.temporal_encoder.",),
    "global": ("network.global_encoder.",),
}
FUSED = (
    "network.local_encoder.0.temporal_encoder.encoder.",
    "network.local_encoder.1.",
    "network.global_encoder.backbone.",
    "network.global_encoder.proj.",
    "network.global_encoder.pos_emb.",
    "network.global_encoder.bert.",
    "network.fusion_module.",
    "network.head.",
)
TRAINED |= {"fusion": FUSED, "finetune1": FUSED}
TRAINED["finetune2"] = (
    *FUSED,
    "network.local_encoder.0.backbone.module.backbone.",
    "network.local_encoder.0.backbone.module.vit.",
)


def sweep_set(count=2, frames=24):
    return SweepSet(tuple(str(i) for i in range(count)), tuple(tracked_sweep(i, frames + 4 * i) for i in range(count)))


def items_of(recipe, sweeps, network, **options):
    return SweepItems(recipe, sweeps, network, recipe_card(recipe), **options)


def one_step(stage, **changes):
    recipe = tiny_recipe(stage, **changes)
    network = tiny_model().network
    task = LightningTask(recipe, network, torch.zeros(6), torch.ones(6)).train()
    items = items_of(recipe, sweep_set(), network)
    batch = collate([items[(0, 0)], items[(0, 1)]])
    before = {name: value.clone() for name, value in task.task.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1.0)
    task.component_losses(batch).mean().backward()
    optimiser.step()
    return task.task, before


@pytest.mark.parametrize("stage", TRAINED)
def test_a_step_changes_all_that_the_stage_trains_and_nothing_else(stage):
    task, before = one_step(stage)
    after = task.state_dict()
    parameters = {name for name, _ in task.named_parameters()}
    changed = {name for name in parameters if not torch.equal(before[name], after[name])}
    wanted = {name for name in parameters if name.startswith(TRAINED[stage])}
    # The key bias of attention without a distance term shifts all scores alike, so no gradient can move it.
    stuck = {name for name in wanted if name.endswith("key.bias")}
    # An odd last BatchNorm or a position that was not drawn may have a zero gradient, a whole module never.
    assert changed <= wanted
    assert wanted - stuck <= changed


@pytest.mark.parametrize("stage", TRAINED)
def test_statistics_move_only_where_a_norm_is_trained_in_training_mode(stage):
    task, before = one_step(stage)
    after = task.state_dict()
    moved = {n for n, v in after.items() if n.endswith("running_mean") and not torch.equal(before[n], v)}
    local = {n for n in after if n.endswith("running_mean") and n.startswith("network.local_encoder")}
    everywhere = {n for n in after if n.endswith("running_mean")}
    wanted = {"local1": local, "local2": set(), "local3": set()}.get(stage, everywhere - local)
    assert moved == wanted


@pytest.mark.parametrize("stage", ["fusion", "finetune1", "finetune2"])
def test_a_whole_sweep_stage_gives_what_the_finished_network_gives(stage):
    recipe = tiny_recipe(stage, sampling={"chunk_frames": 5})
    network = tiny_model().network
    task = build_task(network, recipe).eval()
    items = items_of(recipe, sweep_set(1), network, validating=True)
    batch = collate([items[(0, 0)]])
    with torch.no_grad():
        found = task(batch).motions
        wanted = network(batch["local"].float() / 255, batch["whole"])
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_sweeps_of_different_length_in_a_batch_do_not_see_each_other_or_padding():
    recipe = tiny_recipe("fusion")
    network = tiny_model().network
    task = build_task(network, recipe).eval()
    items = items_of(recipe, sweep_set(2), network)
    singles = [collate([items[(0, i)]]) for i in range(2)]
    both = collate([items[(0, i)] for i in range(2)])
    assert both["frames"].tolist() == [24, 28]
    assert both["mask"][0].sum() == 23
    with torch.no_grad():
        found = task(both).motions
        for row, single in enumerate(singles):
            torch.testing.assert_close(found[row, : single["frames"] - 1], task(single).motions[0], atol=1e-5, rtol=0)


def test_items_count_alike_and_their_padding_and_unknown_poses_not_at_all():
    recipe = tiny_recipe("fusion")
    task = LightningTask(recipe, tiny_model().network, torch.zeros(6), torch.ones(6)).eval()
    items = items_of(recipe, sweep_set(2), task.task.network)
    batch = collate([items[(0, i)] for i in range(2)])
    batch["mask"][1, 3] = False
    with torch.no_grad():
        loss = task.component_losses(batch).mean()
        errors = (task(batch) - batch["targets"]).square().mean(dim=-1)
        known = errors[0, :23], torch.cat([errors[1, :3], errors[1, 4:27]])
        torch.testing.assert_close(loss, (known[0].mean() + known[1].mean()) / 2)
        batch["targets"][0, 23:] = 1e6
        batch["targets"][1, 3] = 1e6
        torch.testing.assert_close(task.component_losses(batch).mean(), loss)


def test_the_trunk_in_pieces_gives_the_maps_and_the_gradients_of_the_whole():
    local = tiny_model().network.local.eval()
    images = torch.rand(1, 30, 64, 64)
    whole = local(images)
    whole.square().sum().backward()
    wanted = {n: p.grad.clone() for n, p in local.trunk.named_parameters()}
    local.zero_grad()
    found = trunk_in_chunks(local, lambda a, b: images[:, a:b], 30, 4, local.frame_features)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    found.square().sum().backward()
    for name, parameter in local.trunk.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], atol=1e-4 * float(wanted[name].abs().max()) + 1e-6, rtol=0
        )


def test_stored_tokens_are_those_of_the_changed_images(tmp_path):
    changes = {"augmentation": {"hflip": 0.5, "reverse": 0.5, "crop": True}, "sampling": {"stored_crops": 2}}
    recipe = tiny_recipe("local3", **changes)
    network = tiny_model().network
    items = items_of(recipe, sweep_set(2), network)
    items.token_files = store_tokens(items, network, tmp_path, torch.device("cpu"))
    seen = set()
    for epoch in range(12):
        draw, item = items.draw(epoch, 1), items[(epoch, 1)]
        crops = items.images[1].local(draw.frames, draw.flipped, draw.shift)
        with torch.no_grad():
            wanted = network.local(crops[None].float() / 255)[0]
        torch.testing.assert_close(item["tokens"], wanted, atol=1e-5, rtol=0)
        seen.add(draw.variant)
    assert len(seen) > 4
    sizes = [np.load(path).nbytes for path in items.token_files]
    assert sizes == [stored_bytes(frames, 16, 2) for frames in (24, 28)]


def test_other_weights_never_take_up_stored_tokens(tmp_path):
    recipe = tiny_recipe("local3", sampling={"stored_crops": 1})
    network = tiny_model().network
    items = items_of(recipe, sweep_set(1), network)
    one = store_tokens(items, network, tmp_path, torch.device("cpu"))
    assert store_tokens(items, network, tmp_path, torch.device("cpu")) == one
    with torch.no_grad():
        next(iter(network.local.spatial.parameters())).add_(1e-3)
    assert store_tokens(items, network, tmp_path, torch.device("cpu")) != one


def test_crops_at_other_places_never_take_up_stored_tokens(tmp_path):
    """The seed of the recipe draws the places, and nothing else of what is stored."""
    network, files, places = tiny_model().network, [], []
    for seed in (3, 4):
        recipe = tiny_recipe("local3", seed=seed, augmentation={"crop": True}, sampling={"stored_crops": 2})
        items = items_of(recipe, sweep_set(1), network)
        places.append(items.stored_shift(0, 1))
        files += store_tokens(items, network, tmp_path, torch.device("cpu"))
    assert places[0] != places[1]
    assert files[0] != files[1]
    assert not np.array_equal(*(np.load(path) for path in files))


def test_the_head_gives_the_same_before_and_after_its_units_change():
    head, x = torch.nn.Linear(5, 6), torch.randn(3, 5)
    mean, std = torch.randn(6), torch.rand(6) + 0.1
    before = head(x)
    wanted = before * std + mean
    fold_scale(head, mean, std)
    torch.testing.assert_close(head(x), wanted)
    unfold_scale(head, mean, std)
    torch.testing.assert_close(head(x), before)


def test_a_continued_stage_starts_from_the_predictions_of_the_one_before():
    mean, std = torch.arange(6.0), torch.rand(6) + 0.5
    model = tiny_model()
    items = items_of(tiny_recipe("finetune1"), sweep_set(1), model.network, validating=True)
    batch = collate([items[(0, 0)]])
    with torch.no_grad():
        wanted = model.network(batch["local"].float() / 255, batch["whole"])
        task = LightningTask(tiny_recipe("finetune1", standardise=True), model.network, mean, std).eval()
        torch.testing.assert_close(task(batch), wanted, atol=1e-4, rtol=0)


def test_standardised_targets_have_mean_zero_and_deviation_one():
    recipe = tiny_recipe("finetune1", standardise=True)
    items = items_of(recipe, sweep_set(2), tiny_model().network)
    mean, std = target_statistics(recipe, items)
    all_targets = np.concatenate([s.tracked.parameters for s in items.sweeps.sweeps])
    np.testing.assert_allclose(mean, all_targets.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(std, all_targets.std(axis=0), atol=1e-12)


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine_to_zero():
    rates = [rate_factor(step, 4, 24) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.5)
    assert rates[24] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("stage", ["local1", "local2", "local3", "global", "fusion", "finetune1", "finetune2"])
def test_settings_of_a_paper_recipe_reach_optimiser_and_loader(stage):
    recipe = load_recipe(f"paper/{stage}")
    with torch.device("meta"):
        network = DualTrack(**recipe.model)
        task = LightningTask(recipe, network, torch.zeros(6), torch.ones(6))
    assert network.positions == (4096 if stage.startswith("finetune") else 1024)
    sweeps = sweep_set(18, 40)
    items = LightningItems(recipe, (sweeps, sweeps), network, recipe_card(recipe), None)
    task._trainer = type("Steps", (), {"estimated_stepping_batches": recipe.epochs * 7, "datamodule": items})()
    made = task.configure_optimizers()
    group = made["optimizer"].param_groups[0]
    assert isinstance(made["optimizer"], torch.optim.AdamW)
    assert group["initial_lr"] == recipe.optimiser.lr
    assert (group["weight_decay"], group["betas"]) == (recipe.optimiser.weight_decay, (0.9, 0.999))
    factor = made["lr_scheduler"]["scheduler"].lr_lambdas[0]
    warm = recipe.warmup_epochs * 7
    assert factor(warm) == pytest.approx(1.0)
    assert factor(recipe.epochs * 7) == pytest.approx(0.0, abs=1e-12)
    assert factor(0) == pytest.approx(1 / warm if warm else 1.0)
    loader = items.train_dataloader()
    assert (loader.batch_size * items.shares.steps, loader.num_workers) == (recipe.batch_size, 8)
    assert len(loader) == 18 // recipe.batch_size * items.shares.steps


def test_validation_figures_are_those_of_the_evaluation():
    sums, wanted = [ValidationSums(), ValidationSums()], []
    for i in range(4):
        sweep = tracked_sweep(i, 30)
        predicted = sweep.tracked.parameters + np.random.default_rng(9 + i).normal(0, 0.1, (29, 6))
        points = five_points_mm(sweep.image_from_pixel, sweep.frame_size)
        sums[i % 2].add(predicted, sweep.tracked.parameters, points, np.ones(6))
        wanted.append(evaluate(Trajectory.from_parameters(predicted), sweep).metrics)
    found = ValidationSums(sums[0].values + sums[1].values).figures()
    for name in ("gpe_five_point_mm", "lpe_five_point_mm"):
        assert found[name] == pytest.approx(np.mean([w[name] for w in wanted]), rel=1e-9)
    assert found["loss"] == pytest.approx(0.01, rel=0.2)


def test_correlation_is_over_all_sweeps_and_undefined_for_a_constant():
    random = np.random.default_rng(0)
    true = random.normal(size=(60, 6))
    predicted = 0.5 * true + random.normal(size=(60, 6))
    predicted[:, 2] = 0.3
    sums = ValidationSums()
    for part in (slice(0, 20), slice(20, 60)):
        sums.add(predicted[part], true[part], np.eye(4, 5), np.ones(6))
    figures = sums.figures()
    for i, name in enumerate(("tx", "ty", "tz", "rx", "ry", "rz")):
        wanted = np.nan if i == 2 else np.corrcoef(predicted[:, i], true[:, i])[0, 1]
        assert figures[f"correlation_{name}"] == pytest.approx(wanted, nan_ok=True)


def test_each_encoder_starts_from_its_own_stage(tmp_path):
    one, other = (tiny_model(), tiny_model())
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(1.0)
    save_model(one.network, one.card, tmp_path / "a" / "model.safetensors")
    save_model(other.network, other.card, tmp_path / "b.safetensors")
    initial = {"local_encoder": "a", "global_encoder": str(tmp_path / "b.safetensors")}
    network = initial_network(tiny_recipe("fusion", initial=initial), tmp_path)
    state, first, second = network.state_dict(), one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(state[k], first[k]) for k in state if k.startswith("local_encoder."))
    assert all(torch.equal(state[k], second[k]) for k in state if k.startswith("global_encoder."))
    assert not torch.equal(state["head.fc.weight"], first["head.fc.weight"])


def test_longer_tables_are_filled_from_shorter_ones(tmp_path):
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "m.safetensors")
    longer = {**model.card.architecture, "positions": 96}
    network = initial_network(tiny_recipe("finetune1", initial={"all": "m.safetensors"}, model=longer), tmp_path)
    assert torch.equal(network.global_encoder.pos_emb.weight[:64], model.network.global_encoder.pos_emb.weight)


def test_weights_that_are_not_there_or_of_another_network_are_refused(tmp_path):
    with pytest.raises(InputError, match="initial in the recipe names nowhere"):
        initial_network(tiny_recipe("local2", initial={"local_encoder": "nowhere"}), tmp_path)
    model = tiny_model(local_widths=[4, 6, 8, 12])
    save_model(model.network, model.card, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="of another shape"):
        initial_network(tiny_recipe("local2", initial={"local_encoder": "m.safetensors"}), tmp_path)


def test_a_sweep_shorter_than_the_window_is_refused_by_name():
    recipe = tiny_recipe("local1", sampling={"window": 25})
    with pytest.raises(InputError, match=r"The sweep 0 has 24 frames, fewer than sampling\.window"):
        items_of(recipe, sweep_set(1), tiny_model().network)


def stored_bytes(frames, width, crops, token_type="float32"):
    """Width numbers a frame, 4 variants a crop."""
    return frames * width * 4 * crops * np.dtype(token_type).itemsize


def test_the_stored_tokens_of_the_large_data_set_take_what_the_documentation_says():
    frames = 226_000_000_000 // (480 * 640)
    assert frames == pytest.approx(736_000, rel=1e-3)
    assert stored_bytes(frames, 64, 1) == pytest.approx(0.75e9, rel=0.01)
    assert stored_bytes(frames, 64, 8) == pytest.approx(6.0e9, rel=0.01)
    assert stored_bytes(frames, 64, 8, "float16") == pytest.approx(3.0e9, rel=0.01)
