"""Every command and every piece of code in README and the pages runs as it stands, on small made-up data.

A block that nobody names here is run. What would train, serve, take hours or reach another computer is listed with the
reason; its options and recipes are checked all the same.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from document_data import GIVEN, workshop
from documents import PAGES, ROOT, Block, blocks

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import InputError
from DualTrackCore.research.training.recipe_files import RECIPES, load_plan, load_recipe, plan_names

pytestmark = pytest.mark.filterwarnings(
    "ignore::DualTrackCore.errors.TrackingWarning", "ignore::DualTrackCore.errors.SweepWarning"
)
#: Commands that are understood here and not run, by how they begin, and why.
NOT_RUN = {
    "dualtrack train": "it trains; its recipe is read, with what it sets",
    "dualtrack simulate -o": "it draws 200 to 600 frames; the tutorial on the same page draws 40",
    "dualtrack serve": "it serves until it is stopped; test_serving.py starts real servers",
    "dualtrack run clip.mp4 --spacing 0.2 --server": "it reaches another computer; test_serving.py does so here",
    "dualtrack run SWEEP --server": "it reaches another computer; test_serving.py does so here",
    "dualtrack evaluate held-out": "it tracks 28 sweeps by eleven methods; test_cli_evaluate.py has small ones",
    "dualtrack evaluate DATASET": "it tracks a data set by every method; test_cli_evaluate.py has small ones",
    "dualtrack submit DATASET": "Docs/evaluation.md has it with folders, and there it is run",
    "dualtrack dataset check DIR": "Docs/own-data.md has it with folders, and there it is run",
    "dualtrack dataset convert DIR": "Docs/evaluation.md has it with folders, and there it is run",
    "dualtrack convert SWEEP OUTPUT": "the comment behind it says which endings OUTPUT may have",
    "dualtrack run SWEEP --crop 60,20,500,400": "no sweep here has so many pixels",
}
#: Blocks that other tests run, by page and language.
ELSEWHERE = {
    ("Docs/own-data.md", "console"): "Testing/Core/test_own_data.py",
    ("Docs/own-data.md", "python"): "Testing/Core/test_own_data.py",
    ("Docs/evaluation.md", "python"): "Testing/Core/test_submission.py",
    ("Docs/server.md", "python"): "Testing/Core/documents.py",  # for test_serving.py, which has the server
    ("Docs/slicer-tutorial.md", "python"): "Testing/Panel/test_panel_texts.py",
}
#: Directives of the site, and plain text such as the names in a folder.
NO_CODE = {"{toctree}", "{eval-rst}", ""}


def reason_not_to_run(words: list[str]) -> str:
    """Why a command is not run, or nothing."""
    line = " ".join(words)
    return next((reason for start, reason in NOT_RUN.items() if line.startswith(start)), "")


def check_dualtrack(words: list[str]) -> None:
    """Run a command of ours in the current folder, or see that it is understood."""
    if words[1:] == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(words[1:])
        return
    options = build_parser().parse_args(words[1:])
    if not reason_not_to_run(words):
        listed = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
        quick = ["--no-pictures"] if words[1] in ("run", "correct", "reconstruct") else []
        assert main([*listed[1:], "--quiet", *quick]) == 0
    elif words[1] == "train" and options.recipe != "RECIPE":
        changes = options.set or ()
        (load_plan if options.recipe in plan_names() else load_recipe)(options.recipe, changes)


def check_program(words: list[str]) -> None:
    """See that what a command of another program names is there."""
    program, *rest = words
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"\[(.*?)\]", " ".join(rest)):
            assert all(re.search(rf"^{name} = \[", project, re.M) for name in extra.split(",")), extra
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
        folder = "".join(path.read_text(encoding="utf-8") for path in (ROOT / rest[0]).parent.glob("*.py"))
        assert all(f'"{word}"' in folder for word in rest if word.startswith("--"))
    elif program == "openssl":
        subprocess.run(words, check=True, capture_output=True)
    else:
        raise AssertionError(f"nothing checks {program}")


def check(block: Block, names: dict) -> None:
    """Do what a block shows, in the current folder; `names` are those of the Python before it."""
    if block.language == "python":
        exec(block.text, names)
    elif block.language == "yaml":
        Path("recipe.yaml").write_text(f"base: {RECIPES}/mini/global.yaml\n{block.text}", encoding="utf-8")
        load_recipe("recipe.yaml")
    elif block.language == "console":
        for words in block.commands():
            while "=" in words[0]:
                words = words[1:]
            (check_dualtrack if words[0] == "dualtrack" else check_program)(words)
    else:
        assert block.language in NO_CODE, f"nothing runs a block of {block.language}"


@pytest.mark.parametrize("page", [page for page in PAGES if {block.language for block in blocks(page)} - NO_CODE])
def test_every_block_of_a_page_does_what_it_shows(page, tmp_path, monkeypatch):
    workshop(page, tmp_path, monkeypatch)
    names = GIVEN.get(page, dict)()
    for block in blocks(page):
        if (page, block.language) not in ELSEWHERE:
            check(block, names)


@pytest.mark.parametrize(("page", "language"), ELSEWHERE)
def test_what_another_test_runs_is_there_and_read_by_that_test(page, language):
    assert language in {block.language for block in blocks(page)}
    assert Path(page).name in (ROOT / ELSEWHERE[page, language]).read_text(encoding="utf-8")


def test_every_exception_still_stands_in_a_page():
    lines = [
        " ".join(words) for page in PAGES for b in blocks(page) if b.language == "console" for words in b.commands()
    ]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("console", "dualtrack dream SWEEP\n"),
        ("console", "dualtrack info none.mha\n"),
        ("console", "dualtrack serve --prot 3\n"),
        ("console", "dualtrack train mini/none\n"),
        ("console", "make tea\n"),
        ("console", 'pip install ".[cake]"\n'),
        ("console", "python Testing/Campaign/kill_runs.py --cups 3\n"),
        ("console", "rm -r out\n"),
        ("python", "from DualTrackCore import dream\n"),
        ("yaml", "backbone:\n  cups: 3\n"),
        ("sh", "dualtrack --help\n"),
    ],
)
def test_a_block_that_is_wrong_or_that_nothing_runs_is_noticed(language, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, InputError, ImportError)):
        check(Block(language, text), {})


def test_the_readme_is_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
