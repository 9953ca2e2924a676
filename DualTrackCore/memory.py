"""How much memory there is: one budget, in bytes, that readers, tracking, reconstruction and the worker ask.

It is the least of what the machine has available, what the limits of the control groups of this process (containers,
batch systems) and of its address space (`ulimit -v`) leave, and what the user allows (:func:`memory_limit`), minus what
this process holds already. It is main memory: `tracking/device.py` asks a graphics card for its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from DualTrackCore.errors import MissingDependencyError, OutOfMemoryError, named, reason_of

#: Assumed where the system gives no figure.
UNKNOWN_MEMORY_BYTES = 4 * 1024**3

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

#: Files of a control group: its limits, what it holds, and how its statistics name the part that is only cached files.
_CGROUP_2 = (("memory.max", "memory.high"), "memory.current", "inactive_file")
_CGROUP_1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")

#: What says it: Python, C++, torch, the CUDA driver, cuDNN, cuBLAS and their like, HDF5, and what loads libraries. Room
#: for thread-local storage is no memory, and neither is a disk whose files may not be run.
_WORDS = re.compile(
    r"out[ _]?of[ _]?memory|not enough memory|MemoryError|bad_?alloc|alloc(ation)?[ _]?failed|memory_?allocation"
    r"|(cannot|can't|failed to|unable to) allocate(?! memory in static TLS)"
    r"|failed to map segment from shared object(?!: (operation not permitted|permission denied))"
    r"|WinError (8|14|1455)\b",
    re.IGNORECASE,
)

#: What the user allows this process now, in bytes, in all its threads; the least counts.
_limits: list[int] = []


@contextlib.contextmanager
def memory_limit(gigabytes: float | None) -> Iterator[None]:
    """Let this process hold at most so many GB (1e9 bytes) while the block runs; None changes nothing."""
    if gigabytes is None:
        yield
        return
    _limits.append(limit := int(gigabytes * 1e9))
    try:
        yield
    finally:
        _limits.remove(limit)


def share_of_limit(parts: int) -> float | None:
    """What the user allows, in GB, for each of so many processes; None where the user sets no limit."""
    return min(_limits) / parts / 1e9 if _limits else None


def available_memory_bytes() -> int:
    """Memory that may be taken now, bytes, at least 0."""
    figures = [_machine_bytes(), *_cgroup_bytes(), *_address_space_bytes()]
    if _limits:
        figures.append(min(_limits) - held_memory_bytes())
    return max(min(figures), 0)


def require_memory(needed: int, what: str) -> None:
    """Raise :class:`OutOfMemoryError` where `what` (the beginning of the sentence) needs more bytes than there are."""
    available = available_memory_bytes()
    if needed > available:
        raise OutOfMemoryError(
            f"{what} needs {format_bytes(needed)} of memory and {format_bytes(available)} may be taken; close other "
            f"programs, allow more ({named('memory_gb')}), or use a shorter or smaller clip."
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that memory ran out; libraries say so in errors of many kinds."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        named = f"{type(error).__name__}: {error}"  # torch.OutOfMemoryError, without importing torch
        if isinstance(error, OSError | RuntimeError | ImportError) and says_out_of_memory(named):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_out_of_memory(text: str) -> bool:
    """Whether a message or a log says that memory ran out, of the machine or of a card."""
    return _WORDS.search(text) is not None


@contextlib.contextmanager
def naming_memory(what: str) -> Iterator[None]:
    """Turn errors that say that memory ran out into :class:`OutOfMemoryError`; `what` is the beginning of a sentence.

    It stands inside of what turns the errors of a library into "damaged".
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{what} needs more memory than the {format_bytes(available_memory_bytes())} that may be taken; close "
            f"other programs, allow more ({named('memory_gb')}), or use a shorter or smaller clip."
        ) from error


@contextlib.contextmanager
def importing(what: str, remedy: str) -> Iterator[None]:
    """Import packages that may be missing, or too large for the memory, in the block.

    Args:
        what: the beginning of a sentence: the package and what it is for.
        remedy: the end of a sentence: how to install it.

    Raises:
        MissingDependencyError: a package is missing or broken.
        OutOfMemoryError: the memory does not suffice to load it.
    """
    with naming_memory(what):
        try:
            yield
        except (ImportError, OSError) as error:
            raise MissingDependencyError(f"{what} cannot be imported ({reason_of(error)}); {remedy}") from error


def held_memory_bytes() -> int:
    """Memory that this process holds now, bytes; its peak where the system says no more, 0 where it says nothing."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / "self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(ImportError):
        return import_module("psutil").Process().memory_info().rss
    with contextlib.suppress(ImportError):
        resource = import_module("resource")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0


def format_bytes(count: float) -> str:
    """Return a number of bytes as text: '3.4 GB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 1e6 else f"{count:.1e} TB"


def _machine_bytes() -> int:
    """Physical memory that is available now; all installed memory where the system gives no other figure."""
    if sys.platform == "win32":
        # MEMORYSTATUSEX is 64 bytes: its length in the first four, the available physical memory in the third eight.
        status = (ctypes.c_ulonglong * 8)(64)
        measured = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return status[2] if measured else UNKNOWN_MEMORY_BYTES
    with contextlib.suppress(OSError, ValueError, IndexError):  # only Linux has the file
        for line in (_PROC / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        return import_module("psutil").virtual_memory().available
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN_MEMORY_BYTES


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """(folder, version 1 or 2) of each control group around this process that `controller` ("memory", "cpu") may limit.

    None where the system has no such groups. A folder may be missing, and comes without an order.
    """
    try:
        lines = (_PROC / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, inner = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mount, version = _CGROUPS, 2
        elif controller in controllers.split(","):
            mount, version = _CGROUPS / controller, 1
        else:
            continue
        group = mount / inner.lstrip("/")
        # In a container the names inside and outside may differ; the mount itself is the group of the container then.
        for folder in {mount, group, *(parent for parent in group.parents if mount in parent.parents)}:
            yield folder, version


def _cgroup_bytes() -> Iterator[int]:
    """What the limit of each control group around this process leaves."""
    for folder, version in control_groups("memory"):
        yield from _left_in_group(folder, *(_CGROUP_2 if version == 2 else _CGROUP_1))


def _left_in_group(folder: Path, limits: tuple[str, ...], usage: str, cached: str) -> Iterator[int]:
    def number(name: str) -> int:
        return int((folder / name).read_text(encoding="ascii"))

    for limit in limits:
        with contextlib.suppress(OSError, ValueError):  # no such group, or the limit is "max"
            held = number(usage)
            with contextlib.suppress(OSError):
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                held -= int(statistics.get(cached, 0))  # given back as soon as it is needed
            yield number(limit) - held


def _address_space_bytes() -> Iterator[int]:
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError, IndexError):
        resource = import_module("resource")
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            taken = int((_PROC / "self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
            yield limit - taken
