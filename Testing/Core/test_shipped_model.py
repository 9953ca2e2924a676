"""The model that comes with the package: found by name, checked, the default, and nobody else's name."""

import fnmatch
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from oracle import noise_sweep, tiny_model
from shipped_stand_in import ship_stand_in

from DualTrackCore.cli import main
from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.files import file_sha256
from DualTrackCore.io import save_sweep
from DualTrackCore.network import load_model, save_model
from DualTrackCore.network.catalogue import (
    DEFAULT_MODEL,
    SHIPPED_MODELS,
    InstalledModel,
    find_entry,
    installed_card,
    installed_models,
    installed_path,
    published_models,
    read_card_beside,
    read_card_inside,
)
from DualTrackCore.network.installation import import_file, verify
from DualTrackCore.run import RunSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A stand-in for the folder of shipped weights, with a small model and its checksum, and no models installed."""
    return ship_stand_in(tmp_path / "weights", monkeypatch).parent


@pytest.fixture
def missing(shipped):
    """An installation that has lost its weights."""
    for path in shipped.iterdir():
        path.unlink()
    return shipped


@pytest.fixture
def dualtrack(capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_the_shipped_model_is_loaded_by_name_and_without_one(shipped):
    by_name, by_default = load_model("mini"), load_model()
    assert by_name.card.name == by_default.card.name == "mini"
    assert by_default.card.simulated_only
    assert by_default.sha256 == file_sha256(shipped / "mini.safetensors")


def test_the_shipped_model_is_listed_beside_installed_ones(shipped, tmp_path):
    own = save_model(tiny_model().network, tiny_model().card, tmp_path / "own.safetensors")
    import_file("own", own, check=lambda path: None)
    listed = {model.name: model.ships for model in installed_models()}
    assert listed == {"mini": True, "own": False}


def test_the_list_says_that_it_ships_and_what_it_is(shipped, dualtrack):
    code, out, _ = dualtrack("models", "list")
    assert code == 0
    assert "mini: ships with the package, the default" in out
    assert "A stand-in" in out
    code, out, _ = dualtrack("models", "list", "--json")
    assert json.loads(out)["installed"][0]["ships"] is True


def test_a_damaged_card_of_one_model_does_not_hide_the_others(shipped, dualtrack, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.pt").write_bytes(b"PK")
    (tmp_path / "models" / "bad.json").write_text("{")
    code, out, _ = dualtrack("models", "list")
    assert code == 0
    assert "The model card bad.json is not JSON" in out
    assert "mini: ships" in out


def test_the_shipped_model_is_verified_against_the_checksum_beside_it(shipped, dualtrack):
    code, out, _ = dualtrack("models", "verify", "mini")
    assert code == 0
    assert "mini is undamaged and loads" in out
    with (shipped / "mini.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    code, _, err = dualtrack("models", "verify", "mini")
    assert code == 2
    assert "has changed since it was installed (SHA-256 differs); install DualTrack again." in err


def test_a_model_of_the_users_cannot_take_its_name(shipped, dualtrack, tmp_path):
    code, _, err = dualtrack("models", "import", "mini", shipped / "mini.safetensors")
    assert code == 2
    assert "mini is the name of a model that ships with DualTrack; import mini.safetensors under another." in err
    assert not (tmp_path / "models").exists()


def test_a_file_of_that_name_in_the_models_folder_does_not_replace_it(shipped, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mini.pt").write_bytes(b"something else")
    assert [model.path.parent for model in installed_models()] == [shipped]
    assert installed_path("mini").parent == shipped


def test_an_installation_without_the_file_says_so(missing, dualtrack, tmp_path):
    with pytest.raises(CheckpointError, match=r"lacks its file .*; install DualTrack again, or name another model"):
        load_model()
    assert installed_models() == []
    save_sweep(noise_sweep(3), tmp_path / "sweep.h5")
    code, _, err = dualtrack("run", tmp_path / "sweep.h5", "-o", tmp_path / "out")
    assert code == 2
    assert "The model mini ships with DualTrack, but this installation lacks its file" in err
    assert not (tmp_path / "out").exists()


def test_it_is_the_default_of_a_run_and_of_loading_a_model():
    assert RunSettings().model == DEFAULT_MODEL == "mini"
    assert inspect.signature(load_model).parameters["name_or_path"].default == DEFAULT_MODEL


def test_run_without_a_model_uses_it_and_warns_on_a_sweep_that_is_not_simulated(shipped, dualtrack, tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "sweep.h5")
    code, _, err = dualtrack("run", tmp_path / "sweep.h5", "-o", tmp_path / "out", "--no-pictures", "--voxel", 1)
    assert code == 0, err
    sentence = "The model mini has only ever seen simulated sweeps; on this sweep its motion is a guess."
    assert f"Note: {sentence}" in err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any(sentence in warning for warning in report["warnings"])
    assert report["trajectory"]["source"]["model_simulated_only"] is True


def test_a_card_inside_a_file_is_read_without_torch(shipped, tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom DualTrackCore.network.catalogue import read_card_inside\n"
        "print(read_card_inside(Path(sys.argv[1])).title, 'torch' in sys.modules)\n"
    )
    arguments = [sys.executable, "-c", script, str(shipped / "mini.safetensors")]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "A stand-in False\n"


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}", b"PK"])
def test_a_file_without_a_card_inside_has_none(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert read_card_inside(path) is None
    assert read_card_inside(tmp_path / "nowhere") is None


def test_the_card_of_an_installed_model_is_the_one_inside_then_beside_then_the_catalogues(tmp_path):
    entry = published_models()["dualtrack-tusrec2024"]
    path = tmp_path / f"{entry.name}.safetensors"
    path.write_bytes(b"PK")
    model = InstalledModel(entry.name, path, 2, None)
    assert installed_card(model) == entry.card
    path.with_suffix(".json").write_text(replace(entry.card, title="beside").to_json())
    assert installed_card(model) == read_card_beside(path)
    tiny = tiny_model()
    save_model(tiny.network, replace(tiny.card, title="inside"), path)
    assert installed_card(model).title == "inside"


def test_a_catalogue_name_never_collides_with_a_shipped_one():
    assert not published_models().keys() & set(SHIPPED_MODELS)
    with pytest.raises(InputError, match="no model 'mini' to fetch"):
        find_entry("mini")


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_the_weights_that_ship_are_undamaged_and_say_what_they_are(name):
    model = load_model(verify(name).path)
    assert model.card.name == name
    assert model.card.trained
    assert model.card.simulated_only
    assert verify(name).size_bytes < 10_000_000


def test_every_data_file_of_the_package_is_packed():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rows = re.findall(r'^package-data\.("?)([\w.]+)\1 = (\[.*\])$', text, re.MULTILINE)
    patterns = [f"{package.replace('.', '/')}/{glob}" for _, package, globs in rows for glob in json.loads(globs)]
    files = [path for path in (ROOT / "DualTrackCore").rglob("*") if path.is_file() and path.suffix != ".py"]
    names = [str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts and p.name != "CMakeLists.txt"]
    assert "DualTrackCore/data/sample.igs.mha" in names
    assert not [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    needed = ["DualTrackCore/network/weights/mini.safetensors", "DualTrackCore/network/weights/mini.safetensors.sha256"]
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in needed)
