"""The check of what Slicer's Extensions Index asks for: it passes here, and finds each rule that is broken."""

import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing"))

from extension_index import BUILD, ENTRY, ICON, SCREENSHOTS, main, placeholders, problems  # noqa: E402


@pytest.fixture
def tree(tmp_path):
    """A copy of the files that the Index looks at."""
    for name in (ENTRY, BUILD, ICON, *SCREENSHOTS, "LICENSE", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_extension_keeps_the_rules_of_the_index():
    assert problems(ROOT) == []


def changed_entry(**fields):
    def change(tree):
        entry = json.loads((tree / ENTRY).read_text()) | fields
        (tree / ENTRY).write_text(json.dumps({name: value for name, value in entry.items() if value is not None}))

    return change


def changed_build(old, new):
    def change(tree):
        text = (tree / BUILD).read_text()
        assert old in text
        (tree / BUILD).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed_entry(category=None), "category"),
        (changed_entry(category="Ultra sound"), "category"),
        (changed_entry(maintainer="us"), "maintainer"),
        (changed_entry(build_dependencies=["PyTorch"]), "build_dependencies"),
        (changed_entry(scm_url="."), "scm_url"),
        (changed_entry(scm_url="http://example.org/SlicerDualTrack.git"), "scm_url"),
        (changed_entry(scm_url="https://example.org/DualTrack.git"), "begin with Slicer"),
        (changed_entry(scm_type="local"), "scm_type"),
        (changed_entry(tier=2), "tier"),
        (changed_build("project(DualTrack)", "project(Dual)"), "the project must be called DualTrack"),
        (changed_build('ICONURL "https://example.org/SlicerDualTrack/', 'ICONURL "${PLACE}/'), "EXTENSION_ICONURL"),
        (changed_build("set(EXTENSION_SCREENSHOTURLS", "set(EXTENSION_SCREENS"), "EXTENSION_SCREENSHOTURLS is []"),
        (changed_build('HOMEPAGE "https://example.org', 'HOMEPAGE "https://example.com'), "EXTENSION_HOMEPAGE"),
        (changed_build('DEPENDS "PyTorch"', 'DEPENDS "NA"'), "EXTENSION_DEPENDS"),
        (lambda tree: (tree / SCREENSHOTS[0]).unlink(), "which does not exist"),
        (lambda tree: (tree / "LICENSE").unlink(), "LICENSE is missing"),
    ],
)
def test_a_broken_rule_is_told_and_fails(tree, capsys, change, words):
    change(tree)
    assert main([], tree) == 1
    assert words in capsys.readouterr().out


def test_a_placeholder_is_told_and_fails_a_release_alone(tree, capsys):
    changed_entry(scm_url="https://example.org/SlicerDualTrack.git")(tree)
    assert main([], tree) == 0
    told = capsys.readouterr().out
    assert "Placeholder: The public address of the repository is still https://example.org/SlicerDualTrack" in told
    assert f"{ENTRY}, line " in told
    assert f"{BUILD}, line " in told
    assert main(["--release"], tree) == 1


def test_the_public_address_is_written_into_both_files_at_once(tree):
    assert main(["--release", "--address", "https://github.com/lab/SlicerDualTrack.git"], tree) == 0
    assert placeholders(tree) == problems(tree) == []
    assert "https://github.com/lab/SlicerDualTrack/raw/main/DualTrack.png" in (tree / BUILD).read_text()
    assert json.loads((tree / ENTRY).read_text())["scm_url"] == "https://github.com/lab/SlicerDualTrack.git"
