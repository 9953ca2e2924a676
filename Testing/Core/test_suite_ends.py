"""A test that crashes or never ends fails the run by its name, and does not hang it."""

import itertools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CONFIGURATION = Path(__file__).resolve().parents[2] / "pyproject.toml"
FAULTS = {
    "aborts": "os.abort()",
    "never_ends": "time.sleep(1000)",
    "never_ends_in_compiled_code": "ctypes.PyDLL(None).sleep(1000)",  # and lets no thread of Python run
}
OPTIONS = {"in two processes": ("-n", "2", "--dist", "loadfile"), "in one process": ()}


def run_pytest(folder: Path, fault: str, *options: str) -> subprocess.CompletedProcess:
    """A run of two files by the configuration of the project, but with seconds in place of minutes."""
    body = f"import ctypes, os, time\n\ndef test_that_{fault}():\n    {FAULTS[fault]}\n"
    (folder / "test_faulty.py").write_text(body)
    (folder / "test_sound.py").write_text("def test_that_passes():\n    pass\n")
    limits = ["--timeout=3", "-o", "faulthandler_timeout=6"]
    command = [sys.executable, "-m", "pytest", "-c", str(CONFIGURATION), "--rootdir", str(folder), *limits, *options]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [*command, str(folder)], cwd=folder, env=own, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """How the run of each fault ended, by fault and options; they run side by side, since most of it is waiting."""
    cases = list(itertools.product(FAULTS, OPTIONS.values()))
    with ThreadPoolExecutor(len(cases)) as pool:
        runs = [pool.submit(run_pytest, tmp_path_factory.mktemp(fault), fault, *options) for fault, options in cases]
    return {case: run.result() for case, run in zip(cases, runs, strict=True)}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' C library has no sleep.")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_fault_ends_the_run_with_the_name_of_the_test(fault, options, ended):
    done = ended[fault, options]
    output = done.stdout + done.stderr
    assert done.returncode not in (0, 5), output
    assert f"test_that_{fault}" in output
    if options:
        assert f"FAILED test_faulty.py::test_that_{fault}" in output


def test_every_file_that_is_run_for_other_instruction_sets_exists():
    text = (CONFIGURATION.parent / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    listed = re.search(r"NUMERIC := \$\(patsubst %,(\S+),(.+?)\)\n", text)
    assert listed is not None
    paths = [CONFIGURATION.parent / listed[1].replace("%", name) for name in listed[2].split()]
    missing = [path.name for path in paths if not path.is_file()]
    assert not missing


def test_no_test_of_properties_fails_for_the_time_that_an_example_takes():
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
