"""Kernels: functions that numba compiles to machine code, once per computer.

A kernel is compiled when it is first called, or ahead of that by :func:`compile_kernels`, and numba keeps the result on
disk for the next process: in NUMBA_CACHE_DIR if set, else beside the source file, else in the user's cache folder.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from DualTrackCore.memory import importing
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.threads import free_cores

if TYPE_CHECKING:
    from numba.core.dispatcher import Dispatcher

#: Kernels, each with the types of its arguments; those that others call come first.
Signatures = Mapping["Dispatcher", tuple]

#: Parts of a work: where other work holds one thread up, the others take the rest of its parts.
_PARTS_A_THREAD = 2


class CompilationWarning(UserWarning):
    """Compiled kernels cannot be kept on disk."""


def kernel_module(name: str) -> ModuleType:
    """Import a module of kernels.

    Raises:
        MissingDependencyError: numba is not installed, or not for this version of numpy.
        OutOfMemoryError: the memory does not suffice to load it.
    """
    what, remedy = "The package numba, which compiles DualTrack's kernels,", "pip install --upgrade numba"
    with importing(what, f"install it again: {remedy}"):
        import numba  # noqa: F401
    return import_module(name)


def kernel(**options: Any) -> Callable[[Callable], Dispatcher]:
    """Decorate a function as a kernel that runs without Python's global lock; options are those of numba.njit."""
    from numba import njit

    def decorate(function: Callable) -> Dispatcher:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder that can be written
            return njit(nogil=True, **options)(function)

    return decorate


def compiled_kernels(module: str, names: Sequence[str], reporter: Reporter | None = None) -> list[Callable]:
    """Return kernels that a module has SIGNATURES for, compiled or loaded now, not at their first call.

    Raises MissingDependencyError, OutOfMemoryError: as :func:`kernel_module`.
    """
    kernels = kernel_module(module)
    chosen = [getattr(kernels, name) for name in names]
    compile_kernels({one: kernels.SIGNATURES[one] for one in chosen}, reporter)
    return chosen


def in_parts(work: Callable[[tuple], None], cut: Callable[[int], Iterable[tuple]]) -> None:
    """Do the work, by kernels, for each of the parts that it is cut into, on as many threads as torch has."""
    torch = sys.modules.get("torch")  # where a server runs the network there is none
    threads = free_cores() if torch is None else torch.get_num_threads()
    if threads == 1:
        for part in cut(1):
            work(part)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="parts") as pool:
        list(pool.map(work, cut(_PARTS_A_THREAD * threads)))


def compile_kernels(signatures: Signatures, reporter: Reporter | None = None) -> float:
    """Compile kernels, or load them from disk where they are kept already.

    Args:
        signatures: the kernels; from now on they accept no other types.
        reporter: receives `Stage.PREPARING` (kernels) after each kernel that had to be compiled.

    Returns:
        Seconds that compiling took; 0.0 where all kernels were kept on disk or compiled before.
    """
    seconds = 0.0
    for done, (function, types) in enumerate(signatures.items(), 1):
        if types in function.overloads:
            continue
        start = time.perf_counter()
        _compile(function, types)
        function.disable_compile()  # no second version for literals and the like: what calls it converts
        if function.stats.cache_misses:
            seconds += time.perf_counter() - start
            if reporter is not None:
                reporter.report(Stage.PREPARING, done, len(signatures))
    if seconds and any(function.stats.cache_path is None for function in signatures):
        message = (
            f"Compiled kernels cannot be kept on disk, so every start compiles them again ({seconds:.0f} s); "
            "set NUMBA_CACHE_DIR to a folder that can be written."
        )
        warnings.warn(message, CompilationWarning, stacklevel=2)
    return seconds


def _compile(function: Dispatcher, types: tuple) -> None:
    _load_alone(function)
    try:
        function.compile(types)
    except OSError:  # the result cannot be written, as on a full disk
        for other in function.py_func.__globals__.values():
            if isinstance(other, type(function)):
                other._cache.disable()
        function.compile(types)


def _load_alone(function: Dispatcher) -> None:
    """Let numba load a kernel from disk without all that it knows for compiling, which takes longer than the rest.

    Where nothing is on disk it compiles, and loads that first. A numba whose parts are called otherwise does as ever.
    """
    cache = function._cache
    if not (hasattr(cache, "load_overload") and hasattr(cache, "_load_overload")):
        return
    from numba.core.runtime import rtsys

    def load(types: tuple, target: Any) -> object:
        rtsys.initialize(target)  # what kernels count the users of arrays with
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(types, target)

    cache.load_overload = load
