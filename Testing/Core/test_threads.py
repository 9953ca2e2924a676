"""Threads that sleep while they wait, no more of them than cores are free; and settings that stand already stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker_processes import THREAD_VARIABLES, noted, plain, watched

from DualTrackCore import memory, threads
from DualTrackCore.sample import sample_path
from DualTrackCore.threads import free_cores, thread_variables, threads_of_new_processes
from DualTrackCore.worker.process import core_environment

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux says where a process may run")
SLEEPING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight threads in four cores, of which the test writes the control groups."""
    for number in range(8):
        folder = tmp_path / f"cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_CORES", tmp_path / "cpu")

    def group(line, **files):
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "proc/self/cgroup").write_text(line)

    return group


@pytest.mark.parametrize(
    ("may_run_on", "cores"), [(range(8), 4), ({0, 4}, 1), ({1, 2, 6}, 2), ({5}, 1), (range(8, 11), 3)]
)
def test_the_two_threads_of_a_core_count_once_and_cores_that_are_not_ours_not_at_all(
    machine, monkeypatch, may_run_on, cores
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(may_run_on))
    assert free_cores({}) == cores


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/job\n", {"job/cpu.max": "200000 100000\n"}, 2),
        ("0::/job\n", {"job/cpu.max": "110000 100000\n"}, 2),
        ("0::/job\n", {"job/cpu.max": "5000 100000\n"}, 1),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, 4),
        ("0::/job\n", {"job/cpu.max": "6400000 100000\n"}, 4),
        ("0::/batch/job\n", {"batch/cpu.max": "100000 100000\n", "batch/job/cpu.max": "max 100000\n"}, 1),
        ("0::/unknown/inside\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/job\n", {"job/cpu.max": "damaged"}, 4),
        ("0::/job\n", {"job/cpu.max": "100000 0\n"}, 4),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "150000\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 3),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 4),
        ("3:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 4),
        ("", {}, 4),
    ],
)
def test_no_more_cores_are_counted_than_the_quota_of_a_container_gives(machine, line, files, cores):
    machine(line, **files)
    assert free_cores({}) == cores


@pytest.mark.parametrize(("said", "cores"), [("1", 1), ("3,2", 3), ("64", 4), ("0", 1), ("many", 4)])
def test_the_user_may_leave_cores_to_others(machine, said, cores):
    assert free_cores({"OMP_NUM_THREADS": said}) == cores


@linux
@pytest.mark.parametrize(
    ("own", "added"),
    [
        ({}, {**SLEEPING, "OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "4"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "4"}),
        ({"GOMP_SPINCOUNT": "infinity"}, {"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "4"}),
        ({"KMP_BLOCKTIME": "200"}, {"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "4"}),
        ({"KMP_LIBRARY": "turnaround"}, {"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "4"}),
        ({"OMP_NUM_THREADS": "2"}, {**SLEEPING, "NUMBA_NUM_THREADS": "2"}),
        ({"NUMBA_NUM_THREADS": "1"}, {**SLEEPING, "OMP_NUM_THREADS": "4"}),
    ],
    ids=str,
)
def test_what_the_user_has_set_stays_and_nothing_speaks_against_it(machine, own, added):
    assert thread_variables(own) == added
    assert {**core_environment(own), **own} == core_environment(own)


@linux
def test_the_runtime_of_torch_understands_the_settings():
    import torch

    library = Path(torch.__file__).parent / "lib/libgomp.so.1"
    if not library.exists():
        pytest.skip("This torch has another runtime than GNU's.")
    variables = {**plain(), **thread_variables({"OMP_NUM_THREADS": "3"}), "OMP_NUM_THREADS": "3"}
    shown = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r})"],
        env={**variables, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "GOMP_SPINCOUNT = '0'" in shown
    assert "OMP_NUM_THREADS = '3'" in shown


def test_importing_the_package_changes_no_variable():
    modules = "DualTrackCore.threads, DualTrackCore.cli, DualTrackCore.worker.process"
    code = f"import os; before = dict(os.environ); import {modules}; assert before == dict(os.environ)"
    subprocess.run([sys.executable, "-c", code], env=plain(), check=True)


def test_a_command_that_python_calls_changes_no_variable(capsys):
    from DualTrackCore.cli import main

    before = dict(os.environ)
    assert main(["models", "list"]) == 0
    assert dict(os.environ) == before


@linux
@pytest.mark.parametrize(
    ("command", "own"),
    [
        (["-m", "DualTrackCore.cli", "run", "{sample}", "-o", "{out}"], {}),
        (["-m", "DualTrackCore.cli", "run", "{sample}", "-o", "{out}"], {"OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "9"}),
        (["-m", "DualTrackCore.cli", "train", "mini/local1", "--runs", "{out}"], {}),
        (["-m", "DualTrackCore.worker"], {}),
        (["-m", "DualTrackCore.worker"], {"GOMP_SPINCOUNT": "7"}),
    ],
    ids=str,
)
def test_every_process_of_ours_has_the_settings_before_it_loads_torch(tmp_path, command, own):
    parts = [part.format(sample=sample_path(), out=tmp_path / "out") for part in command]
    environment = watched(tmp_path, stops=True) | own
    if "DualTrackCore.worker" in parts:
        environment = core_environment(environment)
    with subprocess.Popen([sys.executable, *parts], env=environment, stdin=-1, stdout=-1, stderr=-1) as process:
        process.stdin.write(b'{"id": 1, "do": "preflight", "device": "cpu"}\n')
        process.stdin.flush()
        process.wait()
    ((_, variables),) = noted(tmp_path)
    expected = {**thread_variables(own), **own}
    assert {name: value for name, value in variables.items() if name.startswith(THREAD_VARIABLES)} == expected


@linux
@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "7"}], ids=str)
def test_processes_of_a_pool_share_the_cores_and_the_variables_are_as_before(monkeypatch, own):
    for name in set(os.environ) - set(plain()):
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    with threads_of_new_processes(3):
        said = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True).stdout
    assert said.split() == ["3", own.get("OMP_WAIT_POLICY", "passive")]
    assert dict(os.environ) == before
