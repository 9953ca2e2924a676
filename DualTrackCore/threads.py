"""How many threads compute, and how they wait for each other: variables that a process needs before it loads torch.

OpenMP's threads spin while they wait: they keep a core busy with nothing. On a free computer that saves a little; where
other programs work as well, it takes from both. Our processes (command line, worker, processes of comparisons) let them
sleep, and start no more threads than there are cores for them. Importing DualTrackCore changes nothing; a program of
one's own does the same by

    os.environ.update(thread_variables(os.environ))

before it imports torch, numpy or numba. Settings that are there already win.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from DualTrackCore.memory import control_groups

_CORES = Path("/sys/devices/system/cpu")
#: How waiting threads sleep: OpenMP's own word, which libgomp (torch on Linux) and libomp read, and libomp's and
#: Intel's (torch on macOS and Windows, MKL) time of spinning, ms, which older ones do not take from that word.
_SLEEPING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
#: What a user says of waiting, by these or by other names.
_WAITING = (*_SLEEPING, "GOMP_SPINCOUNT", "KMP_LIBRARY")
#: The number of threads of OpenMP, MKL, OpenBLAS and torch, and of numba's own.
THREADS, _NUMBA_THREADS = "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"


def thread_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """What to add to the variables of a process that computes, before it loads torch; nothing that is set there.

    Args:
        variables: of its environment; where they say how threads wait, or how many there are, that stays.
    """
    added = {} if any(name in variables for name in _WAITING) else dict(_SLEEPING)
    if hasattr(os, "sched_getaffinity"):  # elsewhere the runtimes know the processor better
        cores = str(free_cores(variables))
        added |= {THREADS: cores} if THREADS not in variables else {}
        added |= {_NUMBA_THREADS: cores} if _NUMBA_THREADS not in variables else {}
    return added


@contextlib.contextmanager
def threads_of_new_processes(count: int) -> Iterator[None]:
    """Have each process that starts in the block compute with so many threads; then the variables are as before.

    The initializer of a pool would be too late: a script that is started again in the process may load torch first.
    """
    added = {**thread_variables(os.environ), THREADS: str(count), _NUMBA_THREADS: str(count)}
    before = {name: os.environ.get(name) for name in added}
    os.environ |= added
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def free_cores(variables: Mapping[str, str] = os.environ) -> int:
    """Cores that this process can keep busy, at least 1.

    Those that it may run on, without the second threads of a core, as far as the quota of its control groups
    (containers, batch systems) and OMP_NUM_THREADS reach; a part of a core counts as one.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len({_core(number) for number in os.sched_getaffinity(0)})
    return max(1, min([cores, *_quotas(), *_allowed(variables)]))


def _core(number: int) -> str:
    """Something that the threads of one core share; the number itself where the system does not say."""
    with contextlib.suppress(OSError):
        return (_CORES / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="ascii")
    return str(number)


def _quotas() -> Iterator[int]:
    """Cores that the quota of each control group around this process gives, parts rounded up."""
    for folder, version in control_groups("cpu"):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with contextlib.suppress(OSError, ValueError, ArithmeticError):  # no such group, or no quota: "max"
            quota, period = map(int, " ".join((folder / name).read_text(encoding="ascii") for name in names).split())
            if quota > 0:  # -1: none
                yield math.ceil(quota / period)


def _allowed(variables: Mapping[str, str]) -> Iterator[int]:
    """What the user allows; for nested regions there may be several numbers."""
    with contextlib.suppress(ValueError):
        yield int(variables.get(THREADS, "").split(",")[0])
