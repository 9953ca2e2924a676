"""Run many methods on many sweeps: in this process, in several, or on a Dask cluster. Each result is kept as a file."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache, partial
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from DualTrackCore.errors import InputError, OutOfMemoryError
from DualTrackCore.memory import importing, share_of_limit
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.comparison.measure import Outcome, Work, measure_sweep
from DualTrackCore.research.comparison.methods import Method
from DualTrackCore.research.comparison.result_files import fingerprint, item_files, read_item, save_item
from DualTrackCore.research.comparison.summaries import Comparison, comparison_of
from DualTrackCore.threads import free_cores, threads_of_new_processes

if TYPE_CHECKING:
    from distributed import Client

    from DualTrackCore.research.datasets import Dataset

Tls = tuple[str | os.PathLike, str | os.PathLike, str | os.PathLike]
#: Seconds between checks for cancellation, and seconds that a scheduler may take to answer.
_POLL_S, _CONNECT_S = 0.2, 15


def _outcomes_in_processes(
    work: Work, items: Path, workers: int, threads: int | None, reporter: Reporter
) -> Iterator[Outcome]:
    """Yield outcomes as they finish; every process saves its own items.

    Methods and data set travel in a file that each process reads once. Removing it stops the processes; they
    also stop when this process has ended.
    """
    threads = threads or max(1, free_cores() // workers)
    with tempfile.TemporaryDirectory(prefix="dualtrack-") as folder:
        path = Path(folder) / "work.pickle"
        path.write_bytes(_pickled(work))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_begin)
        try:
            with threads_of_new_processes(threads):
                waiting = {pool.submit(_measure_in_process, name, path, items) for name in work.dataset.names}
            while waiting:
                reporter.check()
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise OutOfMemoryError(
                f"One of {workers} worker processes was ended from outside, most likely because memory ran out; "
                "finished results are kept: run the same again with fewer workers."
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


def _begin() -> None:
    """Initialise a worker: end it when the process that started it ends."""
    # Ctrl-C reaches all processes of the group; the first one stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # An idle worker waits on a pipe that it holds open itself, so it cannot detect there that its parent was killed.
    wait_for_end([multiprocessing.parent_process().sentinel])
    os._exit(1)


@cache
def _work(path: Path) -> Work:
    return pickle.loads(path.read_bytes())


def _measure_in_process(name: str, path: Path, items: Path) -> Outcome:
    reporter = Reporter(cancelled=lambda: not path.exists())
    return measure_sweep(name, _work(path), reporter, partial(save_item, items))


def _outcomes_on_cluster(
    work: Work, items: Path, cluster: str | Client, tls: Tls | None, reporter: Reporter
) -> Iterator[Outcome]:
    """Yield outcomes as they finish; their items come back over the network and are saved here."""
    with importing("Dask, which a cluster needs,", 'install it: pip install "dualtrack[cluster]"'):
        from distributed import KilledWorker, as_completed
    with _client(cluster, tls) as client:
        shared = client.scatter(work, broadcast=True, hash=False)
        # Not pure: Dask must not return a result of an earlier call.
        futures = client.map(measure_sweep, list(work.dataset.names), work=shared, pure=False)
        try:
            for future in as_completed(futures):
                reporter.check()
                outcome = future.result()
                for item in outcome.items:
                    save_item(items, item)
                yield outcome
                future.release()
        except KilledWorker as error:
            raise OutOfMemoryError(
                f"Workers of the cluster were ended again and again, most likely because memory ran out ({error}); "
                "finished results are kept: run the same again with fewer processes on each machine."
            ) from error
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def _client(cluster: Any, tls: Tls | None) -> Iterator[Client]:
    """Yield the caller's client, which stays open, or a new one, which is closed at the end."""
    if not isinstance(cluster, str):
        yield cluster
        return
    from distributed import Client, Security

    security = None
    if tls is not None:
        if missing := [path for path in tls if not os.path.isfile(path)]:
            raise InputError(f"There is no file {missing[0]} for the TLS of the cluster; check the name.")
        names = dict(zip(("tls_ca_file", "tls_client_cert", "tls_client_key"), map(os.fspath, tls), strict=True))
        security = Security(require_encryption=True, **names)
    try:
        client = Client(cluster, timeout=_CONNECT_S, security=security)
    except (OSError, ValueError, TypeError) as error:  # the last for tls:// without files
        raise InputError(
            f"No Dask scheduler answers at {cluster} ({error}); start one with `dask scheduler` and give its address."
        ) from error
    with client:
        yield client


def run_methods(
    methods: Sequence[Method],
    dataset: Dataset,
    folder: str | Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    cluster: str | Client | None = None,
    tls: Tls | None = None,
    resume: bool = True,
    on_bad: Literal["refuse", "skip"] = "refuse",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Comparison:
    """Run every method on every sweep of a data set, and collect their errors.

    The result of each method on each sweep is one file in `folder`, written atomically and named after its inputs:
    method with weights, every pixel and pose of the sweep, version of the program. A stopped or killed run resumes from
    these files; a changed input is computed again. The tables use only the files of this run's inputs, so that nothing
    is counted twice. Failed results are tried again.

    A process has one sweep open at a time and reads its frames in pieces, so memory grows with `workers`, not with the
    data set.

    Args:
        methods: with different names; for more than one process or a cluster they and the data set must be picklable.
        dataset: tracked sweeps.
        folder: where the items are kept; several runs may share one.
        workers: processes on this machine; 1 computes in this one.
        threads: of torch in each process; by default the cores that are free to this process over `workers`.
        cluster: a Dask client or the address of its scheduler, instead of processes here; the files of the data set
            must be there under the same names, results come back through the scheduler. Dask sends Python objects:
            whoever reaches the scheduler can run programs here and on its workers, so the network must be trusted, or
            closed by TLS.
        tls: PEM files for an address tls://...: certificate authority, own certificate, its private key.
        resume: false computes every item again.
        on_bad: "refuse" stops at a sweep that cannot be used and names it; "skip" goes on and names it in the result.
            A method that fails on a usable sweep never stops the others.
        progress: receives the stage "sweeps", and in one process also the stages of every method.

    Raises:
        InputError: no methods, no sweeps, two methods of one name, a bad sweep with "refuse", or none that is good;
            methods or a data set that cannot be sent to other processes; no scheduler at the address.
        MissingDependencyError: a cluster without Dask distributed.
        OutOfMemoryError: a process was ended from outside.
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; finished items stay.
    """
    _require(methods, dataset, workers, threads, on_bad)
    items, reporter = Path(folder), Reporter(progress, cancelled)
    identified = tuple((method, fingerprint(method)) for method in methods)
    existing = item_files(items) if resume else {}
    # Read every item now: damaged ones count as missing.
    finished = frozenset(key for key, path in existing.items() if read_item(path) is not None)
    # The processes here share the user's limit with this one; each machine of a cluster has it for itself.
    work = Work(identified, dataset, finished, share_of_limit(1 if workers == 1 else workers + 1))
    reporter.check()
    if cluster is not None:
        measured = _outcomes_on_cluster(work, items, cluster, tls, reporter)
    elif workers > 1:
        measured = _outcomes_in_processes(work, items, workers, threads, reporter)
    else:
        measured = (measure_sweep(name, work, reporter, partial(save_item, items)) for name in dataset.names)
    with closing(measured):
        outcomes = _collected(measured, dataset, on_bad, reporter)
    result = comparison_of(methods, [outcomes[name] for name in dataset.names], item_files(items))
    if len(result.skipped) == len(dataset.names):
        name, reason = next(iter(result.skipped.items()))
        raise InputError(f"No sweep of {dataset.name} can be used; the first is {name}: {reason}")
    return result


def _collected(measured: Iterator[Outcome], dataset: Dataset, on_bad: str, reporter: Reporter) -> dict[str, Outcome]:
    """The outcome of each sweep as it comes; a sweep that cannot be used ends it, unless such sweeps are skipped."""
    outcomes: dict[str, Outcome] = {}
    for done, outcome in enumerate(measured, 1):
        if outcome.bad is not None and on_bad == "refuse":
            raise InputError(
                f"The sweep {outcome.sweep} of {dataset.name} cannot be used: {outcome.bad} "
                "Finished results are kept; repair the sweep, or skip such sweeps (on_bad='skip', --on-bad skip)."
            )
        outcomes[outcome.sweep] = outcome
        reporter.report(Stage.SWEEPS, done, len(dataset.names))
    return outcomes


def _require(methods: Sequence[Method], dataset: Dataset, workers: int, threads: int | None, on_bad: str) -> None:
    for what, names in (("method", [m.name for m in methods]), ("sweep", list(dataset.names))):
        if not names:
            where = f" in {dataset.name}" if what == "sweep" else ""
            raise InputError(f"There is no {what}{where} to compare; give at least one.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"The {what} {twice[0]!r} is given twice; every {what} needs a name of its own.")
    if workers < 1 or (threads is not None and threads < 1):
        raise InputError(f"{workers} workers of {threads} threads were asked for; the least is 1 of each.")
    if on_bad not in ("refuse", "skip"):
        raise InputError(f"on_bad is {on_bad!r}; choose refuse or skip.")
