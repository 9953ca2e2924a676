"""Weights files: layouts, strictness, safety, cards."""

import os
import pickle
import re
from dataclasses import replace

import pytest
import torch
from oracle import TINY, tiny_model
from torch.torch_version import TorchVersion

from DualTrackCore.errors import CheckpointError, InputError, OutputError
from DualTrackCore.network import DualTrack, ModelCard, load_model
from DualTrackCore.network.model import (
    POSITION_KEY,
    build_network,
    load_weights,
    positions_of,
    read_weights,
    resize_positions,
    save_model,
)


@pytest.fixture
def model():
    return tiny_model()


def test_a_position_table_that_is_none_says_no_number_of_frames():
    assert positions_of({}) is None
    assert positions_of({POSITION_KEY: torch.zeros(7)}) is None
    assert positions_of({POSITION_KEY: torch.zeros(7, 4)}) == 7


@pytest.fixture
def state(model):
    return {key: value.clone() for key, value in model.network.state_dict().items()}


def outputs(network: DualTrack, frames: int = 20) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.inference_mode():
        return network.eval()(torch.rand(1, frames, 64, 64), torch.rand(1, -(-frames // 16), 48, 48))


@pytest.mark.parametrize("layout", ["plain", "training", "compiled", "compiled training"])
def test_every_published_layout_loads_to_the_same_output(tmp_path, model, state, layout):
    if "compiled" in layout:
        state = {f"_orig_mod.{key}": value for key, value in state.items()}
    content = (
        {"model": state, "optimizer": {"step": 3}, "epoch": 7, "best_score": 4.9} if "training" in layout else state
    )
    torch.save(content, tmp_path / "weights.pt")
    loaded = load_model(tmp_path / "weights.pt", card=model.card)
    assert torch.equal(outputs(loaded.network), outputs(model.network))


def test_safetensors_carry_weights_and_card_and_come_back_exactly(tmp_path, model):
    path = save_model(model.network, model.card, tmp_path / "tiny.safetensors")
    loaded = load_model(path)
    assert loaded.card.as_dict() == model.card.as_dict() | {"architecture": model.network.arguments}
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.network.state_dict().values(), model.network.state_dict().values(), strict=True)
    )
    assert len(loaded.sha256) == 64


def test_a_card_beside_the_weights_is_read(tmp_path, model, state):
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "weights.json").write_text(ModelCard(name="beside", architecture=TINY, global_mean=0.5).to_json())
    card = load_model(tmp_path / "weights.pt").card
    assert (card.name, card.global_mean) == ("beside", 0.5)


def test_weights_without_a_card_get_the_published_geometry_and_tell_their_normalisation_themselves(tmp_path, state):
    torch.save(state, tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this network"):
        load_model(tmp_path / "mine.pt")  # the tiny shapes are not the published ones
    card = ModelCard()
    assert (card.spacing_mm, card.frame_size) == ((0.22938919, 0.22097969), (480, 640))
    assert (card.global_mean, card.global_std, card.normalisation) == (None, None, None)
    assert replace(card, global_mean=0.5).normalisation == (0.5, 1.0)


def test_the_number_of_positions_is_read_off_the_tensors(tmp_path):
    model = tiny_model(positions=96)
    torch.save(model.network.state_dict(), tmp_path / "weights.pt")
    assert load_model(tmp_path / "weights.pt", card=ModelCard(architecture=TINY)).network.positions == 96


def test_longer_tables_leave_sweeps_that_fitted_before_unchanged(model, state):
    longer = DualTrack(**{**TINY, "positions": 200})
    load_weights(longer, resize_positions(state, 200), "weights.pt")
    torch.testing.assert_close(outputs(longer, 64), outputs(model.network, 64), atol=1e-6, rtol=1e-5)


def test_no_model_tracks_with_entries_that_nobody_trained(tmp_path, model):
    path = save_model(model.network, model.card, tmp_path / "tiny.safetensors")
    assert load_model(path, positions=64).network.positions == 64
    with pytest.raises(CheckpointError, match=r"positions is 65.*tiny\.safetensors were trained for 64 frames"):
        load_model(path, positions=65)


def test_shortened_tables_leave_sweeps_that_still_fit_unchanged(tmp_path, model):
    path = save_model(model.network, model.card, tmp_path / "tiny.safetensors")
    short = load_model(path, positions=32)
    assert (short.network.positions, short.card.architecture["positions"]) == (32, 32)
    torch.testing.assert_close(outputs(short.network), outputs(model.network))


@pytest.mark.parametrize("positions", [10**9, 0, 100.5, "200"])
def test_an_absurd_number_of_positions_allocates_nothing(state, positions):
    with pytest.raises(CheckpointError, match="whole number from 1 to"):
        resize_positions(state, positions)


def test_unused_heads_may_be_missing_or_of_any_shape(model, state):
    state["global_encoder.fc.weight"] = torch.ones(12, 32)
    del state["local_encoder.0.temporal_encoder.fc.bias"]
    network = DualTrack(**TINY)
    load_weights(network, state, "weights.pt")
    assert torch.equal(outputs(network), outputs(model.network))
    assert not network.global_encoder.fc.weight.any()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: s.pop("head.fc.weight"), r"tensors 1 missing \(head\.fc\.weight\)"),
        (lambda s: s.update(strange=torch.ones(1)), r"1 unknown \(strange\)"),
        (
            lambda s: s.update({"head.fc.bias": torch.ones(7)}),
            r"1 of another shape \(head\.fc\.bias \(7,\) instead of \(6,\)\)",
        ),
        (lambda s: s["head.fc.bias"].fill_(float("nan")), r"not finite in head\.fc\.bias"),
        (
            lambda s: s["local_encoder.0.backbone.module.backbone.module.backbone.stem.1.running_var"][1].fill_(-1e-6),
            r"variances below zero in local_encoder.*stem\.1\.running_var",
        ),
    ],
)
def test_a_mismatch_is_one_sentence_that_names_the_keys(state, spoil, sentence):
    spoil(state)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_weights(DualTrack(**TINY), state, "weights.pt")
    assert "\n" not in str(caught.value)


def test_a_foreign_prefix_loads_nothing_and_says_so(state):
    with pytest.raises(CheckpointError, match=r"missing .*unknown \(backbone\."):
        load_weights(DualTrack(**TINY), {f"backbone.{k}": v for k, v in state.items()}, "weights.pt")


class RunsCode:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, state, legacy):
    content = {**state, "extra": RunsCode(tmp_path / "proof")}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"holds more than tensors( \(\S*mkdir\))? and was not opened"):
        load_model(tmp_path / "evil.pt", card=ModelCard(architecture=TINY))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cpu", "2.10.0rc1", "2.10.0", "2.14.1+cu130"])
def test_pytorch_files_are_opened_by_versions_of_torch_without_known_holes_only(tmp_path, model, version, monkeypatch):
    torch.save(model.network.state_dict(), tmp_path / "weights.pt")
    save_model(model.network, model.card, tmp_path / "tiny.safetensors")
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    assert load_model(tmp_path / "tiny.safetensors").card.name == model.card.name
    if version in ("2.10.0", "2.14.1+cu130"):
        assert load_model(tmp_path / "weights.pt", card=model.card).sha256
        return
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("The file was opened."))
    with pytest.raises(
        CheckpointError, match=rf"weights\.pt was not opened: torch {re.escape(version)} has known holes"
    ):
        load_model(tmp_path / "weights.pt", card=model.card)


def test_a_bare_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(RunsCode(tmp_path / "proof")))
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.3, 0.9, 0.9999])
def test_a_truncated_checkpoint_is_refused(tmp_path, model, suffix, kept):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(model.network.state_dict(), path)
    else:
        save_model(model.network, model.card, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match="weights"):
        load_model(path, card=model.card)


@pytest.mark.parametrize("content", [b"hello, this is text", b"{}", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [{}, {"a": 1.0}, [torch.ones(2)], torch.ones(2), {"model": {"a": "b"}}])
def test_tensors_without_names_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="state dict"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[1]", r"the model card card\.json is \[1\]; expected a mapping"),
        ('{"colour": 1}', r"colour in the model card card\.json is no known key"),
        ('{"spacing_mm": [0, 1]}', r"spacing_mm in .* is \[0, 1\]; expected 2 numbers above 0"),
        ('{"spacing_mm": 3}', "expected 2 numbers"),
        ('{"frame_size": [480]}', "expected 2 whole numbers of at least 1"),
        ('{"frame_size": [1e400, 640]}', "expected 2 whole numbers"),
        (f'{{"global_mean": {10**400}}}', "expected a number"),
        ('{"global_std": 0}', "global_std in .* is 0; expected a number above 0"),
        ('{"trained": "yes"}', "expected true or false"),
        ('{"name": 5}', "expected text"),
        ('{"frame_rate_hz": -1}', "expected a number above 0 or none"),
        ('{"bf16_error": "small"}', "bf16_error in .* is 'small'; expected a number above 0 or none"),
    ],
)
def test_a_wrong_card_is_refused_with_its_reason(text, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        ModelCard.from_json(text, "card.json")


@pytest.mark.parametrize(
    "architecture",
    [
        {"wings": 2},
        {"hidden": "wide"},
        {"heads": 0},
        {"hidden": 10**12},
        {"crop_size": 100},
        {"global_widths": [4, 6, 8, 0]},
        *({"global_every": value} for value in (0, -16, 16.0, "16", True, None)),
        {"positions": 16, "global_every": 16},  # of whose windows no two would overlap
    ],
)
def test_a_card_that_describes_no_network_is_refused(architecture):
    with pytest.raises(CheckpointError, match="describes no network of this version"):
        build_network(ModelCard(name="future", architecture=architecture))


def test_a_card_beside_the_weights_that_is_no_text_is_named(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "weights.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"weights\.json cannot be read"):
        load_model(tmp_path / "weights.pt")


def test_a_name_that_no_file_can_have_is_refused_like_any_unknown_one():
    with pytest.raises(CheckpointError, match="no file and no model"):
        load_model("a" * 5000)


def test_a_missing_card_file_is_named(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"nowhere\.json cannot be read"):
        load_model(tmp_path / "weights.pt", card=tmp_path / "nowhere.json")


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, model, monkeypatch):
    path = save_model(model.network, model.card, tmp_path / "tiny.safetensors")
    before = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("DualTrackCore.network.model.save_file", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save_model(model.network, model.card, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
