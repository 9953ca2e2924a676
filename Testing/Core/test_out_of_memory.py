"""A lack of memory is known in everybody's words, and never called damage or a missing package."""

import builtins

import pytest
from sequence_files import metafile, pixels
from stored_clips import noise, stored

from DualTrackCore import load_sweep
from DualTrackCore.compilation import kernel_module
from DualTrackCore.errors import MissingDependencyError, OutOfMemoryError
from DualTrackCore.memory import is_out_of_memory, says_out_of_memory
from DualTrackCore.pictures.drawing import new_figure
from DualTrackCore.research import report
from DualTrackCore.research.comparison import runner
from DualTrackCore.worker import readiness
from DualTrackCore.worker.process import described_ending
from DualTrackCore.worker.serve import described_failure


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        OSError("Can't read data (memory allocation failed for raw data chunk)"),
        RuntimeError("Unable to allocate 3 GiB"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError("libLLVM.so: cannot create shared object descriptor: Cannot allocate memory"),
        OSError(22, "[WinError 1455] Die Auslagerungsdatei ist zu klein"),
    ],
)
def test_out_of_memory_is_known_in_the_words_of_every_library(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("cannot decode")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    assert says_out_of_memory(f"Traceback\n{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("damaged"),
        OSError("libgomp.so.1: cannot allocate memory in static TLS block"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object: Operation not permitted"),
        ModuleNotFoundError("No module named 'numba'"),
    ],
)
def test_other_faults_are_not_taken_for_a_lack_of_memory(error):
    assert not is_out_of_memory(error)


def from_llvmlite():
    """What llvmlite says where the memory does not suffice to map its library; only the context names the cause."""
    try:
        raise OSError("libllvmlite.so: failed to map segment from shared object")
    except OSError:
        raise OSError("Could not find/load shared object file 'libllvmlite.so'; the library cannot be found.")  # noqa: B904


@pytest.mark.parametrize(
    ("package", "needed"),
    [
        ("numba", lambda clip: kernel_module("DualTrackCore.reconstruction.kernels")),
        ("av.index", load_sweep),
        ("matplotlib.figure", lambda clip: new_figure(1, "white")),
        ("jinja2", lambda clip: report._template()),
        ("distributed", lambda clip: next(runner._outcomes_of_workers(None, clip, None, False, None))),
    ],
)
def test_a_package_that_the_memory_does_not_hold_is_not_called_missing(tmp_path, monkeypatch, package, needed):
    clip, real = stored(tmp_path, "mkv", noise(3, 20, 30)), builtins.__import__

    def limited(name, *arguments, **options):
        return from_llvmlite() if name == package else real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", limited)
    with pytest.raises(OutOfMemoryError, match=r"needs more memory than the .* that may be taken") as caught:
        needed(clip)
    assert "install" not in str(caught.value)


def test_a_worker_and_the_check_of_this_python_say_that_the_memory_is_too_small_for_a_package(monkeypatch):
    missing = MissingDependencyError("The package numba cannot be imported; install it again.")
    missing.__cause__ = OSError("libllvmlite.so: failed to map segment from shared object")
    assert described_failure(missing)[0] == "memory"
    assert "install" not in described_failure(missing)[1]
    assert described_ending(1, "OSError: libllvmlite.so: failed to map segment from shared object")[0] == "memory"

    def fail(name):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(readiness.importlib, "import_module", fail)
    sentence = readiness.preflight()["sentence"]
    assert "memory does not suffice to load the package torch" in sentence
    assert "install" not in sentence


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("pydicom.dcmread", "dcm"),
        ("pydicom.pixels.get_decoder", "dcm"),
        ("h5py.File", "h5"),
        ("av.open", "mkv"),
        ("DualTrackCore.pixels.FilePixels.window", "mha"),
        ("zlib.decompressobj", "compressed"),
    ],
)
@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory")])
def test_out_of_memory_is_never_called_damage(tmp_path, monkeypatch, place, kind, error):
    path = stored(tmp_path, kind, noise(3, 20, 30))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(place, fail)
    with pytest.raises(OutOfMemoryError, match=rf"{path.name} needs more memory") as caught:
        load_sweep(path)
    assert "damaged" not in str(caught.value)


def test_memory_that_ends_anywhere_in_a_command_is_one_sentence(monkeypatch, capsys, tmp_path):
    from DualTrackCore.cli import main, sweeps

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(sweeps, "sweep_facts", fail)
    path = str(metafile(tmp_path / "a.mha", pixels(3, 4, 5)))
    assert main(["info", path]) == 2
    assert capsys.readouterr().err.startswith("dualtrack: The command dualtrack info needs more memory than the ")
    monkeypatch.setattr(sweeps, "run_clip", fail)
    assert main(["run", path, path, "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.err.count("a.mha needs more memory than the ") == 2
    assert "fault of the program" not in told.err
