"""Sweeps in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path

from DualTrackCore.errors import InputError, OutOfMemoryError
from DualTrackCore.progress import Reporter
from DualTrackCore.research.comparison.items import ItemFolder
from DualTrackCore.research.comparison.measure import Outcome, Work, measure_sweep

#: How often the caller's wish to stop is looked at, s.
_POLL_S = 0.2


def outcomes_in_processes(
    work: Work, store: ItemFolder, workers: int, threads: int | None, reporter: Reporter
) -> Iterator[Outcome]:
    """Outcomes in the order in which they come; every process saves its items itself as soon as it has them.

    Methods and data set travel in a file that each process reads once. Its removal tells the processes to stop; they
    also stop when this process is no more.

    Raises:
        InputError: methods or data set cannot be pickled.
        OutOfMemoryError: a process was ended from outside.
        Cancelled: the caller asked to stop.
    """
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    with tempfile.TemporaryDirectory(prefix="dualtrack-") as folder:
        path = Path(folder) / "work.pickle"
        path.write_bytes(_pickled(work))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads,))
        try:
            waiting = {pool.submit(_measure_one, str(path), str(store.folder), name) for name in work.dataset.names}
            while waiting:
                reporter.check()
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise OutOfMemoryError(
                f"One of {workers} worker processes was ended from outside, most likely for want of memory; what is "
                "finished is kept: run the same again with fewer workers."
            ) from None
        finally:
            path.unlink(missing_ok=True)
            pool.shutdown(wait=True, cancel_futures=True)


def _pickled(work: Work) -> bytes:
    try:
        return pickle.dumps(work)
    except Exception as error:
        raise InputError(
            f"The methods or the data set cannot be sent to other processes ({error}); run with one worker."
        ) from error


def _begin(threads: int) -> None:
    """First thing in a worker: bound its threads, and make it end with the process that started it."""
    # Ctrl-C reaches the whole group of processes; the first one tells the others when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # An idle worker waits on a pipe that it holds open itself, and so would never hear that its parent was killed.
    wait_for_end([multiprocessing.parent_process().sentinel])
    os._exit(1)


@cache
def _work(path: str) -> Work:
    return pickle.loads(Path(path).read_bytes())


def _measure_one(path: str, folder: str, name: str) -> Outcome:
    save = ItemFolder(Path(folder)).save
    outcome = measure_sweep(_work(path), name, save=save, cancelled=lambda: not os.path.exists(path))
    return replace(outcome, items=())
