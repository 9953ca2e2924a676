"""What a release hands out: licences of all that ships, and the build that refuses what does not fit."""

import json
import re
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing"))

import release  # noqa: E402

SHIPPED = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.safetensors", "*.mha", "*.h5", "*.nrrd", "*.npz")
    for path in sorted((ROOT / "DualTrackCore").rglob(pattern))
]


def test_every_weight_and_sweep_that_ships_is_named_with_its_licence():
    named = re.findall(r"^(DualTrackCore/\S+)", (ROOT / "NOTICE").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(SHIPPED)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith(".safetensors")])
def test_weights_that_ship_carry_the_licence_of_the_project(name):
    with safe_open(ROOT / name, "np") as file:
        card = json.loads(file.metadata()["dualtrack_card"])
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"license: {card['licence']}\n" in citation
    assert f'license = "{card["licence"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_citation_names_the_version_of_the_package():
    import DualTrackCore

    assert f'version: "{DualTrackCore.__version__}"' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.fixture
def built(monkeypatch):
    """The commands that the build runs; they write a wheel and a source archive of version 1.2.3."""
    commands = []

    def run(command, **options):
        commands.append(" ".join(str(word) for word in command[1:]))
        if "build" in command[:3]:
            folder = Path(command[command.index("--outdir") + 1])
            folder.mkdir(exist_ok=True)
            for name in ("dualtrack-1.2.3-py3-none-any.whl", "dualtrack-1.2.3.tar.gz"):
                (folder / name).write_bytes(b"x")

    monkeypatch.setattr(release.subprocess, "run", run)
    monkeypatch.setattr(release.venv, "create", lambda folder, with_pip: None)
    return commands


def test_both_files_of_a_release_are_checked(built, tmp_path):
    wheel = release.build(tmp_path / "dist", "v1.2.3")
    assert wheel.name == "dualtrack-1.2.3-py3-none-any.whl"
    (check,) = (command for command in built if "twine check --strict" in command)
    assert wheel.name in check
    assert "dualtrack-1.2.3.tar.gz" in check


def test_a_tag_of_another_version_is_refused(built, tmp_path):
    with pytest.raises(ValueError, match=r"v1\.2\.4.*1\.2\.3"):
        release.build(tmp_path / "dist", "v1.2.4")


def test_old_files_are_never_handed_out_with_new_ones(built, tmp_path):
    (tmp_path / "dualtrack-1.0.0.tar.gz").write_bytes(b"old")
    assert release.main([str(tmp_path)]) == 1
    assert built == []
