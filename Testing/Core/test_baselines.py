"""Networks of earlier methods: shapes, pieces of a sweep against the whole, training, weights files, the method."""

import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import noise_sweep, tiny_model
from training_data import SPACING_MM, tiny_recipe, tracked_sweep, write_sweeps

from DualTrackCore.errors import Cancelled, CheckpointError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import load_sweep
from DualTrackCore.network import ModelCard, load_model, save_model
from DualTrackCore.research.baselines import (
    ARCHITECTURES,
    Baseline,
    baseline_method,
    build_baseline,
    load_baseline,
    motions_in_pieces,
)
from DualTrackCore.research.baselines.method import SHIPPED_FOLDER
from DualTrackCore.research.comparison import Method
from DualTrackCore.research.comparison.methods import parameter_count
from DualTrackCore.research.training import load_recipe, train
from DualTrackCore.research.training.initial import initial_network
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.sample import sample_sweep
from DualTrackCore.trajectory import Trajectory

#: Sizes that run in milliseconds; one width fewer than the mini networks.
TINY = {
    "two-frame": {"crop_size": 16, "widths": [4, 6], "hidden": 8},
    "resnext": {"crop_size": 16, "window_frames": 4, "stem": 4, "widths": [4, 8], "groups": 2, "grid": 2},
    "cnn-lstm": {"crop_size": 16, "widths": [4, 6], "features": 8, "hidden": 8},
    "hybrid": {"crop_size": 16, "widths": [4, 6], "hidden": 8, "layers": 2, "heads": 2, "mlp": 8, "reach": 3},
}
#: Numbers in the networks of the mini recipes.
PARAMETERS = {"two-frame": 193_030, "resnext": 122_671, "cnn-lstm": 248_102, "hybrid": 252_830}
KINDS = list(TINY)
SHIPPED = sorted(path.stem for path in SHIPPED_FOLDER.glob("*.safetensors"))
TRAINED = ["baseline-two-frame", "baseline-resnext", "baseline-cnn-lstm", "baseline-hybrid"]


def network(kind):
    """A network with lively output whose BatchNorm statistics are not those of the start."""
    torch.manual_seed(5)
    made = build_baseline(kind, **TINY[kind])
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "distance_bias" in name:
                parameter.normal_(0, 2)
        for name, buffer in made.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.05, 0.2)
    return made.eval()


def card(**changes):
    return ModelCard(**{"name": "tiny", "spacing_mm": SPACING_MM, "frame_size": (72, 80), **changes})


def images(frames, seed=0):
    return torch.rand(1, frames, 16, 16, generator=torch.Generator().manual_seed(seed))


def in_pieces(net, pictures, size):
    with torch.inference_mode():
        return motions_in_pieces(net, lambda a, b: pictures[:, a:b], pictures.shape[1], size)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_but_the_first_gets_a_motion(kind):
    pictures = torch.rand(2, 9, 16, 16)
    assert network(kind)(pictures).shape == (2, 8, 6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_pieces_give_what_the_whole_sweep_gives(kind, size):
    net, pictures = network(kind), images(23)
    whole = net(pictures)
    assert whole.std() > 1e-3
    torch.testing.assert_close(in_pieces(net, pictures, size), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_motion_depends_on_the_frames_that_its_method_may_see_and_on_no_others(kind):
    net, frames, changed = network(kind), 20, 10
    pictures = images(frames)
    other = pictures.clone()
    other[:, changed] = 1 - other[:, changed]
    moved = (net(pictures) - net(other)).detach().abs().amax(dim=(0, 2)) > 1e-7
    seen = {
        "two-frame": range(9, 11),
        "resnext": range(changed - 3, changed + 3),  # steps of all windows of four that hold the frame
        "cnn-lstm": range(9, frames - 1),
        "hybrid": range(9, 15),  # two layers that look back two steps each
    }[kind]
    assert np.flatnonzero(moved.numpy()).tolist() == list(seen)


def test_windows_are_averaged_over_the_steps_that_they_hold():
    net = network("resnext")
    outputs = torch.arange(3.0)[None, :, None].expand(1, 3, 6)
    assert net.motions(outputs)[0, :, 0].tolist() == [0, 0.5, 1, 1.5, 2]
    targets = torch.arange(5.0)[None, :, None].expand(1, 5, 6)
    known = torch.tensor([[True, True, True, True, False]])
    wanted, where = net.wanted(targets, known)
    assert wanted[0, :, 0].tolist() == [1, 2, 3]
    assert where.tolist() == [[True, True, False]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_of_the_recipes_have_the_sizes_that_the_table_names(kind, tmp_path):
    recipe = load_recipe(f"mini/baseline-{kind}")
    net = initial_network(recipe, tmp_path)
    assert net.architecture == kind
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[kind]
    assert net.crop_size == load_recipe("mini/local1").model["crop_size"]  # as the small model sees in its first stage


def test_the_recipes_see_the_same_number_of_frames_in_the_same_number_of_steps():
    def budget(name):
        recipe = load_recipe(f"mini/{name}")
        first, stop = recipe.data.seeds
        items = (stop - first) * recipe.sampling.windows_per_sweep
        assert items % recipe.batch_size == 0
        return recipe.epochs * items * recipe.sampling.window, recipe.epochs * items // recipe.batch_size, recipe.data

    budgets = [budget(name) for name in TRAINED]
    assert all(b == budgets[0] for b in budgets)
    assert budgets[0][:2] == (352_800, 4410)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sweeps(tmp_path_factory.mktemp("sweeps"), train=2, val=1, frames=12)


def baseline_recipe(kind, table, **changes):
    values = {"sampling": {"window": 6, "windows_per_sweep": 2}, "standardise": True, "epochs": 1, **changes}
    return tiny_recipe("baseline", table, baseline={"kind": kind, **TINY[kind]}, **values)


@pytest.mark.parametrize("kind", KINDS)
def test_two_epochs_lower_the_loss_and_leave_weights_that_load(kind, table, tmp_path):
    recipe = baseline_recipe(
        kind,
        table,
        epochs=2,
        data={"kind": "dualtrack_h5", "csv": str(table), "limit": 1},
        sampling={"window": 12},
        optimiser={"lr": 0.02},
        validation={"every": 1, "metric": "loss"},
        batch_size=1,
    )
    # Twelve frames, seen again and again: the second look must find the loss lower.
    lines = []
    result = train(recipe, runs=tmp_path, say=lines.append)
    losses = [float(line.split("loss")[1].split()[0]) for line in lines if line.startswith("epoch")]
    assert losses[1] < losses[0]
    method = load_baseline(result.weights)
    assert method.network.architecture == kind
    assert method.card.architecture == method.network.arguments
    assert method.card.architecture["baseline"] == kind
    trajectory = method.estimate(load_sweep(table.parent / "0.h5"))
    assert len(trajectory) == 12
    assert trajectory.estimated_by == "tiny"


def test_the_trained_head_speaks_in_millimetres_as_the_validation_saw_it(table, tmp_path):
    recipe = baseline_recipe("two-frame", table, epochs=1, validation={"every": 1})
    result = train(recipe, runs=tmp_path, say=lambda line: None)
    sweep = load_sweep(table.parent / "2.h5")
    estimated = load_baseline(result.weights).estimate(sweep).parameters
    found = evaluate(Trajectory.from_parameters(estimated), sweep).metrics["lpe_five_point_mm"]
    assert found == pytest.approx(result.best["val_lpe_five_point_mm"], rel=1e-3)


def test_a_run_that_died_goes_on_to_the_same_weights(table, tmp_path):
    recipe = baseline_recipe("cnn-lstm", table, epochs=3, augmentation={"hflip": 0.5, "reverse": 0.5})
    whole = train(recipe, runs=tmp_path / "whole", say=lambda line: None)

    def die(line):
        if line.startswith("epoch 2/3"):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, runs=tmp_path / "cut", say=die)
    rest = train(recipe, runs=tmp_path / "cut", resume=True, say=lambda line: None)
    first, second = load_baseline(whole.weights).network, load_baseline(rest.weights).network
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"baseline": {}}, "that stage needs it"),
        ({"baseline": {"kind": "orb"}}, "'orb' is unknown; choose two-frame, resnext, cnn-lstm, hybrid"),
        ({"baseline": {"kind": "hybrid", "heads": 3}}, r"hidden \(64\) must be a multiple of heads \(3\)"),
        ({"baseline": {"kind": "two-frame", "colour": 3}}, "These sizes make no two-frame network"),
        ({"baseline": {"kind": "two-frame", "crop_size": 40}}, "crop_size is 40; it must be a multiple of"),
        ({"initial": {"all": "mini/fusion"}}, "starts from random weights"),
        ({"sampling": {"window": 3}}, "looks at 4 frames at a time"),
    ],
)
def test_a_recipe_that_makes_no_baseline_says_why(changes, sentence, tmp_path):
    values = {"baseline": {"kind": "resnext", **TINY["resnext"]}, **changes}

    def task():
        recipe = tiny_recipe("baseline", **values)
        return build_task(initial_network(recipe, tmp_path), recipe)

    with pytest.raises(InputError, match=sentence):
        task()


def test_another_stage_has_no_baseline():
    with pytest.raises(InputError, match="no other has it"):
        tiny_recipe("local1", baseline={"kind": "two-frame"})


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_the_file_bit_by_bit(kind, tmp_path):
    path = save_model(network(kind), card(title="Stored"), tmp_path / "it.safetensors")
    method = load_baseline(path)
    assert (method.name, method.card.title, method.uses) == ("tiny", "Stored", "images")
    assert not method.network.training
    assert torch.equal(method.network(images(9)), network(kind)(images(9)))
    assert parameter_count(method) == sum(p.numel() for p in network(kind).parameters())


def test_half_the_bytes_change_the_motions_little(tmp_path):
    net = network("cnn-lstm")
    paths = [
        save_model(net.to(kind), card(), tmp_path / f"{i}.safetensors")
        for i, kind in enumerate((torch.float32, torch.float16))
    ]
    full, half = (load_baseline(path).network for path in paths)
    sizes = [sum(v.nbytes for v in full.state_dict().values()), paths[0].stat().st_size - paths[1].stat().st_size]
    assert sizes[1] > 0.45 * sizes[0]
    assert next(half.parameters()).dtype == torch.float32
    torch.testing.assert_close(half(images(9)), full(images(9)), atol=2e-3, rtol=0)


def damaged(path, kind):
    """The file with one thing wrong with it."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    if kind == "cut short":
        path.write_bytes(content[:-40])
    elif kind == "not finite":
        path.write_bytes(content[: 8 + length] + b"\xff" * (len(content) - 8 - length))
    else:
        inner = json.loads(header["__metadata__"]["dualtrack_card"])
        inner["architecture"] |= {"other sizes": {"hidden": 9}, "unknown size": {"colour": 1}}[kind]
        header["__metadata__"]["dualtrack_card"] = json.dumps(inner)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("cut short", "damaged or cut short"),
        ("not finite", "numbers that are not finite in "),
        ("other sizes", "is not a checkpoint of this network"),
        ("unknown size", "The card inside it.safetensors describes no network of this version"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(kind, sentence, tmp_path):
    path = save_model(network("two-frame"), card(), tmp_path / "it.safetensors")
    damaged(path, kind)
    with pytest.raises(CheckpointError, match=sentence):
        load_baseline(path)


def test_files_of_other_networks_are_refused_both_ways(tmp_path):
    other = save_model(tiny_model().network, tiny_model().card, tmp_path / "dualtrack.safetensors")
    with pytest.raises(CheckpointError, match=r"dualtrack.safetensors holds no baseline: its card names none of"):
        load_baseline(other)
    own = save_model(network("two-frame"), card(), tmp_path / "own.safetensors")
    with pytest.raises(CheckpointError, match="describes no network of this version"):
        load_model(own)
    plain = tmp_path / "plain.pt"
    torch.save({"weight": torch.zeros(2)}, plain)
    with pytest.raises(CheckpointError, match="holds no baseline"):
        load_baseline(plain)
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(CheckpointError, match="not a weights file"):
        load_baseline(tmp_path / "text.safetensors")


def test_a_file_that_could_run_code_is_not_opened(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"run": print}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load_baseline(path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_method_gives_one_trajectory_whatever_the_chunk(kind, tmp_path):
    path = save_model(network(kind), card(simulated_only=False), tmp_path / "it.safetensors")
    method = load_baseline(path, name="prior")
    assert isinstance(method, Method)
    sweep = tracked_sweep(3)
    one, other = (method.estimate(sweep, chunk_frames=n) for n in (5, 100))
    np.testing.assert_allclose(one.poses, other.poses, atol=1e-4)
    assert one.provenance["method"] == "prior"
    # What the network saw is the crop at the card's spacing, as in training.
    first = (72 - 16) // 2, (80 - 16) // 2
    crops = sweep.window(0, 24)[:, first[0] : first[0] + 16, first[1] : first[1] + 16]
    expected = network(kind)(torch.from_numpy(crops.copy()).float()[None] / 255)[0]
    np.testing.assert_allclose(one.parameters, expected.detach().numpy(), atol=1e-4)


def test_a_sweep_of_another_spacing_is_resampled():
    sweep = tracked_sweep(3)
    method = load_method("two-frame")
    coarse = replace(sweep, spacing_mm=(SPACING_MM[0] * 1.2, SPACING_MM[1] * 1.2))
    assert method.estimate(coarse).provenance["resampled"]
    assert not method.estimate(sweep).provenance["resampled"]


def load_method(kind, **changes):
    return Baseline(network(kind), card(**changes))


def test_a_sweep_outside_the_training_data_is_warned_of():
    method = load_method("two-frame", simulated_only=True)
    with pytest.warns(UserWarning, match="has only ever seen simulated sweeps"):
        trajectory = method.estimate(tracked_sweep(3))
    assert trajectory.provenance["warnings"]


@pytest.mark.parametrize(
    ("kind", "sweep", "sentence"),
    [
        ("resnext", noise_sweep(3), "The sweep has 3 frames; the resnext network needs at least 4"),
        ("two-frame", noise_sweep(1), "The sweep has 1 frames; the two-frame network needs at least 2"),
        ("two-frame", noise_sweep(3, spacing_mm=None), "spacing of this sweep is unknown"),
    ],
)
def test_a_sweep_that_cannot_be_tracked_is_refused(kind, sweep, sentence):
    with pytest.raises(InputError, match=sentence):
        load_method(kind).estimate(sweep)


def test_progress_counts_frames_and_the_caller_can_stop():
    reports, method = [], load_method("hybrid")
    method.estimate(tracked_sweep(1), chunk_frames=8, progress=reports.append)
    assert [r.done for r in reports] == [0, 9, 17, 24]
    with pytest.raises(Cancelled):
        method.estimate(tracked_sweep(1), cancelled=lambda: True)


def test_a_method_can_be_sent_to_another_process():
    method = load_method("cnn-lstm")
    copy = pickle.loads(pickle.dumps(method))
    sweep = tracked_sweep(2)
    assert np.array_equal(copy.estimate(sweep).poses, method.estimate(sweep).poses)


def test_a_baseline_is_found_by_name_or_by_file(tmp_path):
    path = save_model(network("two-frame"), card(), tmp_path / "prior.safetensors")
    assert baseline_method("prior", folder=tmp_path).model.sha256 == baseline_method(str(path)).model.sha256
    with pytest.raises(CheckpointError, match="no baseline 'other': it is neither a weights file nor one of prior"):
        baseline_method("other", folder=tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_trained_weights_know_motion_in_the_image_plane(name):
    method, sweep = baseline_method(name), sample_sweep()
    assert method.network.architecture == method.card.name == name
    assert method.card.simulated_only
    metrics = evaluate(method.estimate(sweep), sweep).metrics
    assert metrics["correlation_tx"] > 0.7


def test_every_architecture_ships_trained():
    assert sorted(SHIPPED) == sorted(KINDS)


def test_the_trained_weights_are_small():
    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.glob("*.safetensors")) < 3e6


def test_every_architecture_is_in_the_table_of_sizes():
    assert list(ARCHITECTURES) == KINDS
