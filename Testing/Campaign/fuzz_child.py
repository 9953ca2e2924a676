"""The process that reads what the fuzzer made: one long-lived child, with limits, begun again when it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

#: Address space that a child may take beyond what it has after all imports.
MEMORY_BYTES = 3 << 30
LIMIT_S = 10.0
#: Characters of a sentence, not counting the path of the file.
LONGEST = 400
_UNTIDY = re.compile(r"\b\w+(?:Error|Exception)\(|<\S+ object at 0x|\[Errno|itk::|Traceback|\n")
_MEMORY = re.compile(r"bad_alloc|[Cc]annot allocate|[Ff]ailed to allocate|[Uu]nable to allocate|not enough memory")


def _read_sweep(path: Path, calibration: Path | None = None) -> None:
    """All that `info --json` says, and all frames."""
    from DualTrackCore.cli.console import Console
    from DualTrackCore.cli.overview import info_rows, overview_facts
    from DualTrackCore.io import load_sweep
    from DualTrackCore.repeats import find_repeats
    from DualTrackCore.run import RunSettings
    from DualTrackCore.run.preparation import prepare
    from DualTrackCore.run.results import sweep_facts

    prepared = prepare(load_sweep(path, calibration=calibration), RunSettings())
    sweep, area = prepared.sweep, prepared.area
    repeats = find_repeats(sweep)
    info_rows(sweep, area, repeats)
    Console(json_output=True, quiet=True).result({**sweep_facts(sweep, repeats), **overview_facts(sweep, area)})
    for _ in sweep.windows(16):
        pass


def _read_tus_rec(path: Path) -> None:
    _read_sweep(path, path.parent / "calib_matrix.csv")


def _read_calibration(path: Path) -> None:
    from DualTrackCore.io import read_calibration

    read_calibration(path)


def _read_trajectory(path: Path) -> None:
    from DualTrackCore.io import read_trajectory_csv

    read_trajectory_csv(path)


def _read_card(path: Path) -> None:
    from DualTrackCore.network.catalogue import read_card

    read_card(path)


def _read_weights(path: Path) -> None:
    from DualTrackCore.network.catalogue import read_card_inside
    from DualTrackCore.network.model import read_weights

    read_card_inside(path)
    read_weights(path)


def _read_settings(path: Path) -> None:
    from DualTrackCore.run import RunSettings

    RunSettings.from_yaml(path)


def _read_recipe(path: Path) -> None:
    from DualTrackCore.research.training import load_recipe

    load_recipe(path)


READERS: dict[str, Callable[[Path], None]] = {
    "sweep": _read_sweep,
    "TUS-REC": _read_tus_rec,
    "calibration": _read_calibration,
    "trajectory": _read_trajectory,
    "card": _read_card,
    "weights": _read_weights,
    "settings": _read_settings,
    "recipe": _read_recipe,
}


def outcome_of(reader: str, path: Path) -> tuple[str, str, str]:
    """Read a file: (class, message, where)."""
    from DualTrackCore.errors import DualTrackError, OutOfMemoryError

    try:
        READERS[reader](path)
    except DualTrackError as error:
        said = str(error).replace(str(path.parent), "").replace(path.name, "FILE")
        if not isinstance(error, OutOfMemoryError) and "memory" not in said and _is_about_memory(error):
            return "memory", said, _where(error)
        untidy = len(said) > LONGEST or _UNTIDY.search(said)
        return ("untidy" if untidy else "refused"), said, _where(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"[:300], _where(error)
    return "read", "", ""


def _is_about_memory(error: BaseException | None) -> bool:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _where(error: BaseException) -> str:
    """The last place in the product that the error passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "DualTrackCore" in frame.filename]
    if not frames:
        return type(error).__name__
    return f"{Path(frames[-1].filename).name}:{frames[-1].name} {type(error).__name__}"


def import_all() -> None:
    """Import what the readers need, so that children begin with it."""
    import importlib

    for name in ("SimpleITK", "h5py", "av", "pydicom", "yaml", "torch", "safetensors.torch"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in (
        "metafile",
        "nrrd",
        "hdf5",
        "dicom",
        "video",
        "image_stack",
        "calibration",
        "trajectory_csv",
        "tus_rec",
    ):
        importlib.import_module(f"DualTrackCore.io.{name}")
    for name in ("cli.sweeps", "run.results", "network.model", "research.training.recipe"):
        importlib.import_module(f"DualTrackCore.{name}")


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(connection: multiprocessing.connection.Connection) -> None:
    """Read files until the other side closes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    _limit_memory()
    with contextlib.suppress(EOFError):
        while True:
            connection.send(outcome_of(*connection.recv()))


class Child:
    """A process that reads one file after the other."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
        self._process = None
        self.restarts = 0

    def read(self, reader: str, path: Path) -> tuple[str, str, str]:
        """The outcome of one file: (class, message, where)."""
        if self._process is None:
            self._begin()
        self._connection.send((reader, path))
        try:
            if self._connection.poll(LIMIT_S):
                return self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            code = self._process.exitcode
            self.end()
            name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            return "crash", name, name
        self.end()
        return "hang", f"no answer within {LIMIT_S:g} s", "hang"

    def _begin(self) -> None:
        self.restarts += 1
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def end(self) -> None:
        """End the process, for good or until the next file."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = None
