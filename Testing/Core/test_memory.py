"""One memory budget; long clips in windows."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sequence_files import metafile
from stored_clips import noise, stored
from test_io_dicom import make as make_dicom

from DualTrackCore import Sweep, load_sweep, memory
from DualTrackCore import pixels as pixel_windows
from DualTrackCore.errors import InputError, OutOfMemoryError, OutputError
from DualTrackCore.memory import (
    available_memory_bytes,
    held_memory_bytes,
    memory_limit,
    share_of_limit,
)
from DualTrackCore.pixels import Spool
from DualTrackCore.reconstruction import plan_grid
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import Trajectory

GB = 10**9

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has these files")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of which the test writes the files of the system."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * GB // 1024} kB\n")
    (tmp_path / "proc/self/statm").write_text(
        f"{2 * GB // resource.getpagesize()} {GB // resource.getpagesize()} 1 1 0\n"
    )
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")

    def group(files, place, line):
        for name, value in files.items():
            file = tmp_path / "cgroup" / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        (tmp_path / "proc/self/cgroup").write_text(line)

    return group


@linux
def test_without_limits_the_budget_is_what_the_machine_has(machine):
    assert available_memory_bytes() == pytest.approx(8 * GB, abs=2048)


@linux
@pytest.mark.parametrize("place", ["", "batch", "batch/job7"])
def test_the_limit_of_a_group_or_of_one_around_it_counts_without_cached_files(machine, place):
    limits = {"memory.max": 3 * GB, "memory.current": 2 * GB, "memory.stat": f"anon 5\ninactive_file {GB}"}
    machine(limits, place, "0::/batch/job7\n")
    assert available_memory_bytes() == 2 * GB
    machine({"memory.high": 2 * GB}, place, "0::/batch/job7\n")
    assert available_memory_bytes() == GB


@linux
def test_a_group_without_limit_takes_nothing_away(machine):
    machine({"memory.max": "max", "memory.current": 2 * GB}, "job", "0::/job\n")
    assert available_memory_bytes() == pytest.approx(8 * GB, abs=2048)


@linux
def test_groups_of_the_first_version_count_as_well(machine):
    limits = {"memory.limit_in_bytes": 4 * GB, "memory.usage_in_bytes": 3 * GB}
    machine(
        {**limits, "memory.stat": f"total_inactive_file {GB // 2}"}, "memory/job", "5:cpu:/x\n7:hugetlb,memory:/job\n"
    )
    assert available_memory_bytes() == 1.5 * GB


@linux
def test_the_limit_of_the_address_space_counts(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (3 * GB, 5 * GB))
    assert available_memory_bytes() == pytest.approx(GB, abs=1e4)


@linux
def test_the_limit_of_the_user_counts_what_the_process_holds(machine):
    assert held_memory_bytes() == pytest.approx(GB, abs=1e4)
    with memory_limit(2.5):
        assert available_memory_bytes() == pytest.approx(1.5 * GB, abs=1e4)
    with memory_limit(0.5):
        assert available_memory_bytes() == 0
    with memory_limit(None):
        assert available_memory_bytes() > 7 * GB


@linux
def test_the_limit_of_the_user_holds_in_every_thread_and_the_least_of_several_counts(machine):
    with memory_limit(2.5), ThreadPoolExecutor(1) as pool:
        assert pool.submit(available_memory_bytes).result() == pytest.approx(1.5 * GB, abs=1e4)
        with memory_limit(6):
            assert available_memory_bytes() == pytest.approx(1.5 * GB, abs=1e4)
        assert share_of_limit(5) == pytest.approx(0.5)


def test_what_is_held_is_measured_in_bytes():
    before = held_memory_bytes()
    held = np.ones(200 << 20, np.uint8)
    assert held_memory_bytes() - before > 100 << 20 or before == 0 or sys.platform == "darwin"
    assert held.all()


def test_the_budget_decides_the_size_of_a_volume():
    sweep = Sweep(np.zeros((3, 40, 50), np.uint8), 0.1)
    poses = np.array([np.eye(4)] * 3)
    poses[:, 2, 3] = 0, 1, 2
    assert plan_grid(sweep, Trajectory(poses), spacing_mm=0.1).voxels
    with memory_limit(held_memory_bytes() / 1e9), pytest.raises(InputError, match="memory limit"):
        plan_grid(sweep, Trajectory(poses), spacing_mm=0.1)


def test_the_budget_decides_the_chunk_of_frames(monkeypatch):
    torch = pytest.importorskip("torch")
    from oracle import tiny_model

    from DualTrackCore.tracking import device

    network = tiny_model(local_widths=[64, 6, 8, 8], crop_size=256).network
    monkeypatch.setattr(device, "available_memory_bytes", lambda: 5 * 3 * 48e6)
    assert device.choose_chunk("auto", network, torch.device("cpu")) == 5
    monkeypatch.setattr(device, "available_memory_bytes", lambda: 0)
    assert device.choose_chunk("auto", network, torch.device("cpu")) == 1


def test_a_run_obeys_its_memory_setting_to_the_end(monkeypatch):
    from DualTrackCore.run import pipeline

    seen = []
    monkeypatch.setattr(pipeline, "_trajectory", lambda *_: seen.append(share_of_limit(1)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.run(Sweep(np.zeros((3, 4, 5), np.uint8), 0.1), RunSettings(memory_gb=1.5))
    assert seen == [1.5]
    assert share_of_limit(1) is None


@pytest.mark.parametrize("kind", ["mha", "compressed", "deep", "h5", "dcm", "mkv"])
def test_frames_that_do_not_fit_the_budget_are_refused_before_they_are_read(tmp_path, kind):
    path = stored(tmp_path, kind, noise(4, 300, 400))
    with (
        memory_limit(held_memory_bytes() / 1e9 - 0.001),
        pytest.raises(OutOfMemoryError, match=r"needs .* may be taken"),
    ):
        np.asarray(load_sweep(path).frames)
    assert len(load_sweep(path)) == 4


@pytest.mark.parametrize("kind", ["mha", "turned", "compressed", "deep", "h5", "dcm", "mkv"])
def test_a_long_clip_is_read_in_windows_and_never_held(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(pixel_windows, "_HELD_BYTES", 1 << 20)
    monkeypatch.setattr(pixel_windows, "WINDOW_BYTES", 1 << 20)
    frames = noise(300, 240, 320)  # 23 MB
    path = stored(tmp_path, kind, frames)
    load_sweep(path)  # imports
    tracemalloc.start()
    try:
        sweep = load_sweep(path)
        for start, window in sweep.windows(16):
            expected = frames[start : start + 16]
            np.testing.assert_array_equal(window, expected[:, ::-1] if kind == "turned" else expected)
        assert tracemalloc.get_traced_memory()[1] < 14 << 20
    finally:
        tracemalloc.stop()
    assert not isinstance(sweep.frames, np.ndarray)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sweep.frames))[7:9], sweep.window(7, 9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the signals and processes of a POSIX system")
@pytest.mark.parametrize("kept", [0, 400, 3000])
def test_a_file_that_is_cut_while_it_is_in_use_ends_in_a_sentence_and_not_in_a_signal(tmp_path, kept):
    path = stored(tmp_path, "mha", noise(50, 200, 300))
    script = f"""
        import os
        from DualTrackCore import load_sweep
        from DualTrackCore.errors import InputError
        sweep = load_sweep({str(path)!r})
        sweep.window(0, 2)
        os.truncate({str(path)!r}, {kept})
        try:
            sweep.window(20, 40).sum()
        except InputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout == "a.mha was cut short while it was in use; copy it again.\n"


def test_a_file_that_is_gone_while_it_is_in_use_is_named(tmp_path):
    sweep = load_sweep(stored(tmp_path, "mha", noise(5, 20, 30)))
    (tmp_path / "a.mha").unlink()
    with pytest.raises(InputError, match=r"Cannot read .*a\.mha: No such file"):
        sweep.window(0, 2)


def test_unpacked_frames_that_do_not_fit_the_disk_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_windows, "_HELD_BYTES", 1000)
    usage = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr(pixel_windows.shutil, "disk_usage", lambda folder: usage)
    for kind in ("compressed", "dcm"):
        with pytest.raises(OutputError, match=r"a\.\w+ do not fit .*72 kB and 2 kB are free.*TMPDIR"):
            load_sweep(stored(tmp_path, kind, noise(3, 120, 200)))


def test_a_full_disk_is_named_where_the_size_was_not_known(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_windows, "_HELD_BYTES", 10)
    monkeypatch.setattr(pixel_windows.tempfile, "TemporaryFile", lambda prefix: Full())
    with pytest.raises(OutputError, match=r"x\.mkv do not fit .*No space left on device"):
        Spool("x.mkv").write(bytes(11))


def test_nothing_of_the_temporary_file_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_windows, "_HELD_BYTES", 1000)
    monkeypatch.setattr(pixel_windows.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    sweep = load_sweep(stored(tmp_path, "dcm", noise(3, 120, 200)))
    assert sweep.window(0, 3).any()
    assert os.listdir(tmp_path / "temporary") == [] or os.name == "nt"


@linux
def test_an_element_that_claims_more_than_the_file_is_cut_short_whatever_the_memory(tmp_path):
    path = tmp_path / "a.dcm"
    element = b"\x02\0\x01\0OB\0\0" + (4012120215).to_bytes(4, "little")  # in the part that is read first
    path.write_bytes(bytes(128) + b"DICM\x02\0\0\0UL\x04\0\xd0\0\0\0" + element + bytes(53))
    for limit in ("ulimit -v 4000000;", ""):
        command = f"{limit} exec {sys.executable} -m DualTrackCore.cli info {path}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, done
        assert done.stderr.count("\n") == 1
        assert "announces 4012120215 bytes where 53 are left" in done.stderr
        assert "damaged" not in done.stderr


def test_a_large_element_that_is_not_needed_is_not_read(tmp_path):
    path = make_dicom(tmp_path / "a.dcm", noise(2, 20, 30), EncapsulatedDocument=bytes(40 << 20))
    load_sweep(path)
    tracemalloc.start()
    try:
        assert len(load_sweep(path)) == 2
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_option_memory_limits_a_command(tmp_path, capsys):
    from DualTrackCore.cli import main

    path = str(stored(tmp_path, "mha", noise(3, 20, 30)))
    assert main(["info", path, "--memory", "0.001"]) == 2
    assert "may be taken" in capsys.readouterr().err
    assert main(["info", path, "--memory", "1000"]) == 0
    assert main(["info", path, "--memory", "-1"]) == 2


def test_a_window_of_a_compressed_clip_is_that_of_the_plain_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_windows, "_HELD_BYTES", 0)
    frames = noise(9, 20, 30)
    data = np.frombuffer(zlib.compress(frames.tobytes()), np.uint8)
    size = {"CompressedData": "True", "CompressedDataSize": str(len(data)), "DimSize": "30 20 9"}
    sweep = load_sweep(metafile(tmp_path / "a.mha", data, **size))
    for start, stop in ((0, 9), (4, 5), (8, 9), (3, 3)):
        np.testing.assert_array_equal(sweep.window(start, stop), frames[start:stop])
