"""Kernels are compiled once per computer, with progress, and where nothing can be kept on disk all the same."""

import os
import subprocess
import sys

import pytest
from numba import int64
from numba.core import caching

from DualTrackCore.compilation import CompilationWarning, compile_kernels, kernel
from DualTrackCore.errors import Cancelled
from DualTrackCore.progress import Progress, Reporter, Stage

KERNELS = """
import sys
from DualTrackCore.compilation import compile_kernels, kernel
from DualTrackCore.progress import Reporter
from numba import int64

@kernel()
def one(x):
    return x + 1

@kernel()
def two(x):
    return one(x) + 1

reports = []
seconds = compile_kernels({one: (int64,), two: (int64,)}, Reporter(reports.append))
print([(report.done, report.total) for report in reports], seconds > 0, two(0), two.stats.cache_path)
print("what compiling needs:", "numba.np.linalg" in sys.modules)
"""


def in_a_new_process(folder, **environment) -> str:
    """What KERNELS, as a file of the folder, prints."""
    file = folder / "kernels_of_a_test.py"
    if not file.exists():
        file.write_text(KERNELS)
    result = subprocess.run(
        [sys.executable, str(file)], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip() + result.stderr.strip()


def test_the_second_process_compiles_nothing_and_reports_nothing(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert in_a_new_process(tmp_path, **cache).startswith("[(1, 2), (2, 2)] True 2")
    assert in_a_new_process(tmp_path, **cache).startswith("[] False 2")


def test_kernels_on_disk_are_loaded_without_what_compiling_needs(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert in_a_new_process(tmp_path, **cache).endswith("what compiling needs: True")
    assert in_a_new_process(tmp_path, **cache).endswith("what compiling needs: False")


def test_a_read_only_installation_keeps_kernels_in_the_cache_folder_of_the_user(tmp_path):
    (tmp_path / "__pycache__").write_text("a file where numba would make its folder beside the source")
    home = {"XDG_CACHE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path / "home")}
    home |= {"LOCALAPPDATA": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
    assert str(tmp_path / "home") in in_a_new_process(tmp_path, **home)
    assert in_a_new_process(tmp_path, **home).startswith("[] False 2")


@pytest.fixture
def no_folder_can_be_written(monkeypatch):
    def fail(self):
        raise PermissionError("read-only")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", fail)


def test_where_nothing_can_be_kept_kernels_are_compiled_with_one_note(no_folder_can_be_written):
    @kernel()
    def doubled(x):
        return 2 * x

    with pytest.warns(CompilationWarning, match=r"cannot be kept on disk.*set NUMBA_CACHE_DIR") as notes:
        seconds = [compile_kernels({doubled: (int64,)}) for _ in range(2)]
    assert seconds[0] > 0 == seconds[1]
    assert len(notes) == 1
    assert doubled(4) == 8


def test_a_disk_that_is_full_costs_the_cache_only(monkeypatch):
    @kernel()
    def tripled(x):
        return 3 * x

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", fail)
    assert compile_kernels({tripled: (int64,)}) > 0
    assert tripled(2) == 6


def test_compiling_reports_its_stage_and_can_be_cancelled(no_folder_can_be_written):
    @kernel()
    def squared(x):
        return x * x

    @kernel()
    def cubed(x):
        return x * x * x

    reports: list[Progress] = []
    with pytest.raises(Cancelled):
        compile_kernels({squared: (int64,), cubed: (int64,)}, Reporter(reports.append, lambda: len(reports) == 1))
    assert reports == [Progress(Stage.PREPARING, 1, 2)]
