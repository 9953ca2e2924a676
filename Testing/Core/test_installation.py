"""The catalogue of models, and what is installed: fetched, imported, converted, verified."""

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_model_server import CONTENT, fetch
from safetensors.torch import load_file
from torch.torch_version import TorchVersion

from DualTrackCore.errors import CheckpointError, InputError, OutputError
from DualTrackCore.files import file_sha256
from DualTrackCore.memory import format_bytes
from DualTrackCore.network import catalogue, installation
from DualTrackCore.network.catalogue import (
    InstalledModel,
    ModelCard,
    installed_models,
    installed_path,
    original_sha256,
    published_models,
    read_card_beside,
)
from DualTrackCore.network.model import read_weights

ROOT = Path(__file__).resolve().parents[2]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TENSORS = {"head.weight": [[1.0, 2.0], [3.0, 4.0]], "head.bias": [5.0, 6.0]}
SAVED = io.BytesIO()
torch.save({"model": {f"_orig_mod.{k}": torch.tensor(v) for k, v in TENSORS.items()}, "epoch": 3}, SAVED)
PICKLED = SAVED.getvalue()
PICKLED_SHA256 = hashlib.sha256(PICKLED).hexdigest()
pytestmark = pytest.mark.usefixtures("nothing_ships")


def installed_as_it_was(name, folder, card=None):
    """Leave a PyTorch file with its checksum, as earlier versions installed it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pt").write_bytes(PICKLED)
    (folder / f"{name}.pt.sha256").write_text(f"{PICKLED_SHA256}  {name}.pt\n")
    if card is not None:
        (folder / f"{name}.json").write_text(card.to_json())


def test_the_catalogue_shows_address_licence_and_size_of_both_published_models():
    first, second = published_models().values()
    assert (first.name, second.name) == ("dualtrack-tusrec2024", "dualtrack-tusrec2025")
    for entry in (first, second):
        assert entry.url.startswith("https://downloads.imfusion.com/DualTrack/")
        assert entry.card.licence == "CC BY-NC-SA 4.0"
        assert entry.card.licence_url.startswith("https://creativecommons.org/")
        assert entry.card.name == entry.name
    assert first.size_text == "about 408 MB"
    assert second.size_text == "size unknown"
    for card in (first.card, second.card):  # nobody has measured these on the published files
        assert (card.global_mean, card.global_std, card.bf16_error) == (None, None, None)


def test_models_are_listed_where_no_package_is_installed(tmp_path):
    script = (
        "from DualTrackCore.network.catalogue import installed_models, models_folder, published_models\n"
        "import DualTrackCore.network.installation\nprint(len(published_models()), installed_models(models_folder()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), catalogue.FOLDER_VARIABLE: str(tmp_path)}
    arguments = [sys.executable, "-S", "-c", script]
    ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("2 [InstalledModel(name='mini'")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="dualtrack-tusrec2024, dualtrack-tusrec2025"):
        catalogue.find_entry("dualtrack")


def test_the_folder_is_the_named_one_or_one_of_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv(catalogue.FOLDER_VARIABLE, str(tmp_path))
    assert catalogue.models_folder() == tmp_path
    monkeypatch.delenv(catalogue.FOLDER_VARIABLE)
    monkeypatch.setattr(catalogue.sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert catalogue.models_folder() == tmp_path / "data" / "dualtrack" / "models"
    monkeypatch.setattr(catalogue.sys, "platform", "darwin")
    assert catalogue.models_folder().parts[-4:] == ("Library", "Application Support", "DualTrack", "models")
    monkeypatch.setattr(catalogue.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert catalogue.models_folder() == tmp_path / "local" / "DualTrack" / "models"


def test_nothing_is_asked_of_the_server_without_consent(server, entry, tmp_path):
    with pytest.raises(InputError, match=r"3\.5 MB.*CC BY-NC-SA 4\.0.*consent=True"):
        installation.fetch(entry, consent=False, folder=tmp_path)
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_fetched_model_is_installed_with_its_card_and_checksum(entry, tmp_path):
    path = fetch(entry, tmp_path)
    assert path.read_bytes() == CONTENT
    assert read_card_beside(path) == entry.card
    assert installed_models(tmp_path) == [InstalledModel(entry.name, path, len(CONTENT), SHA256)]
    assert installed_path(entry.name, tmp_path) == path
    assert installation.verify(entry.name, tmp_path).sha256 == SHA256
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors", ".sha256"]


def test_an_installed_model_is_not_fetched_again_unless_it_is_damaged(server, entry, tmp_path):
    path = fetch(entry, tmp_path)
    fetch(entry, tmp_path)
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(CheckpointError, match="has changed since it was installed"):
        installation.verify(entry.name, tmp_path)
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_model_that_is_not_installed_says_how_to_get_it(tmp_path):
    with pytest.raises(CheckpointError, match="models fetch dualtrack-tusrec2025"):
        installed_path("dualtrack-tusrec2025", tmp_path)
    with pytest.raises(CheckpointError, match="no file and no model 'mine'"):
        installed_path("mine", tmp_path)


def test_a_local_file_is_imported_with_the_card_of_the_catalogue(tmp_path):
    (tmp_path / "download.pt").write_bytes(CONTENT)
    checked = []
    entry = published_models()["dualtrack-tusrec2025"]
    file, models = tmp_path / "download.pt", tmp_path / "models"
    path = installation.import_file(entry.name, file, check=checked.append, folder=models)
    assert checked == [file]
    assert path.read_bytes() == CONTENT
    assert read_card_beside(path) == entry.card
    assert installation.verify(entry.name, tmp_path / "models").sha256 == SHA256


def test_an_own_model_is_imported_with_the_card_beside_it(tmp_path):
    source = tmp_path / "best.safetensors"
    source.write_bytes(CONTENT)
    card = ModelCard(name="mine", title="Mine", spacing_mm=(0.1, 0.1))
    source.with_suffix(".json").write_text(card.to_json())
    path = installation.import_file("mine", source, check=lambda path: None, folder=tmp_path / "models")
    assert path.name == "mine.safetensors"
    assert read_card_beside(path) == card
    assert installed_path("mine", tmp_path / "models") == path


def test_an_import_replaces_the_pytorch_file_that_an_earlier_version_installed_under_that_name(tmp_path):
    models = tmp_path / "models"
    installed_as_it_was("mine", models)
    (tmp_path / "a.safetensors").write_bytes(CONTENT)
    installation.import_file("mine", tmp_path / "a.safetensors", check=lambda path: None, folder=models)
    assert sorted(path.name for path in models.iterdir()) == ["mine.safetensors", "mine.safetensors.sha256"]


def test_a_fetched_pytorch_file_becomes_safetensors_and_the_checksum_that_it_had_is_kept(server, entry, tmp_path):
    server.content = PICKLED
    path = fetch(replace(entry, size_bytes=None, sha256=PICKLED_SHA256), tmp_path, check=read_weights)
    assert path.name == f"{entry.name}.safetensors"
    assert {key: value.tolist() for key, value in load_file(path).items()} == TENSORS
    assert read_card_beside(path) == entry.card
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors", ".sha256"]
    verified = installation.verify(entry.name, tmp_path)
    assert (verified.sha256, verified.original_sha256) == (file_sha256(path), PICKLED_SHA256)
    assert installed_models(tmp_path) == [verified]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="has changed since it was installed"):
        installation.verify(entry.name, tmp_path)


def test_an_imported_pytorch_file_becomes_safetensors_and_stays_where_it_is(tmp_path):
    (tmp_path / "own.pt").write_bytes(PICKLED)
    path = installation.import_file("own", tmp_path / "own.pt", check=read_weights, folder=tmp_path / "models")
    assert {key: value.tolist() for key, value in load_file(path).items()} == TENSORS
    assert original_sha256(path) == PICKLED_SHA256
    assert (tmp_path / "own.pt").read_bytes() == PICKLED


def test_a_conversion_that_fails_leaves_nothing_but_the_part_and_the_next_call_ends_it(
    server, entry, tmp_path, monkeypatch
):
    server.content, entry = PICKLED, replace(entry, size_bytes=None)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("DualTrackCore.network.model.save_file", full_disk)
        with pytest.raises(OutputError, match="No space left"):
            fetch(entry, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{entry.name}.part", f"{entry.name}.part.json"]
    server.status = 500
    assert original_sha256(fetch(entry, tmp_path)) == PICKLED_SHA256


def test_a_pytorch_file_of_an_earlier_version_is_converted_without_the_network(server, entry, tmp_path):
    installed_as_it_was(entry.name, tmp_path, entry.card)
    path = fetch(entry, tmp_path)
    assert (server.asked, path.suffix, original_sha256(path)) == ([], ".safetensors", PICKLED_SHA256)
    assert read_card_beside(path) == entry.card
    assert not list(tmp_path.glob("*.pt*"))


def test_where_torch_cannot_read_the_file_safely_nothing_is_downloaded(server, entry, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(CheckpointError, match=r"torch 2\.9\.1 has known holes"):
        fetch(entry, tmp_path)
    assert (server.asked, list(tmp_path.iterdir())) == ([], [])


def test_a_checksum_that_the_makers_state_is_asked_of_what_was_converted_too(server, entry, tmp_path, monkeypatch):
    server.content = PICKLED
    fetch(replace(entry, size_bytes=None), tmp_path)
    for stated, sentence in ((PICKLED_SHA256, "the one that the makers state"), (None, "The makers state no checksum")):
        known = replace(entry, sha256=stated)
        monkeypatch.setattr(catalogue, "published_models", lambda known=known: {known.name: known})
        said = installation.checksum_sentence(known, installation.verify(entry.name, tmp_path))
        assert sentence in said
        assert PICKLED_SHA256 in said
    other = replace(entry, sha256="0" * 64)
    monkeypatch.setattr(catalogue, "published_models", lambda: {other.name: other})
    with pytest.raises(CheckpointError, match="is not that of the model"):
        installation.verify(entry.name, tmp_path)


def test_a_file_that_fails_its_check_leaves_the_installed_model_alone(tmp_path):
    models = tmp_path / "models"
    (tmp_path / "good.pt").write_bytes(CONTENT)
    (tmp_path / "bad.pt").write_bytes(b"bad")
    good = installation.import_file("mine", tmp_path / "good.pt", check=lambda path: None, folder=models)

    def refuse(path):
        raise CheckpointError("not a checkpoint")

    with pytest.raises(CheckpointError, match="not a checkpoint"):
        installation.import_file("mine", tmp_path / "bad.pt", check=refuse, folder=models)
    assert good.read_bytes() == CONTENT
    assert installation.verify("mine", models).sha256 == SHA256


@pytest.mark.parametrize("name", ["../escape", "Upper", "", ".hidden", "a" * 65])
def test_a_name_that_cannot_be_a_file_name_is_refused(tmp_path, name):
    (tmp_path / "a.pt").write_bytes(b"a")
    with pytest.raises(InputError, match="not a valid model name"):
        installation.import_file(name, tmp_path / "a.pt", check=lambda path: None, folder=tmp_path)


def test_a_missing_file_is_not_imported(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        installation.import_file("mine", tmp_path / "none.pt", check=lambda path: None, folder=tmp_path)


def test_an_installed_file_is_not_imported_onto_itself(tmp_path):
    installed = tmp_path / "mine.safetensors"
    installed.write_bytes(CONTENT)
    with pytest.raises(InputError, match="already"):
        installation.import_file("mine", installed, check=lambda path: None, folder=tmp_path)
    assert installed.read_bytes() == CONTENT


def test_a_model_without_a_recorded_checksum_cannot_be_verified(tmp_path):
    (tmp_path / "mine.pt").write_bytes(b"a")
    with pytest.raises(CheckpointError, match="No checksum was recorded"):
        installation.verify("mine", tmp_path)


@pytest.mark.parametrize(("count", "text"), [(12, "12 bytes"), (3_500_000, "3.5 MB"), (1_234_000_000, "1.23 GB")])
def test_sizes_read_as_a_person_says_them(count, text):
    assert format_bytes(count) == text
