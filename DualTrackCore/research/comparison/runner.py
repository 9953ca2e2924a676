"""Run many methods on many sweeps: in this process, or by the workers of Dask here or elsewhere. Results are files."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from DualTrackCore.errors import InputError, OutOfMemoryError, named
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


def _outcomes_of_workers(
    work: Work, items: Path, engine: AbstractContextManager[Client], share_files: bool, reporter: Reporter
) -> Iterator[Outcome]:
    """Yield outcomes as they finish. Workers that share our files save each item at once, others send it back."""
    with importing("Dask, which several processes need,", 'install it: pip install "dualtrack[cluster]"'):
        from distributed import KilledWorker, as_completed
    save = partial(save_item, items)
    with engine as client:
        try:
            shared = client.scatter(work, broadcast=True, hash=False)
        except TypeError as error:
            raise InputError(
                f"The methods or the data set cannot be sent to other processes ({error}); run with one worker."
            ) from error
        # Not pure: Dask must not return a result of an earlier call.
        options = {"work": shared, "save": save if share_files else None, "pure": False}
        futures = client.map(measure_sweep, list(work.dataset.names), **options)
        finished = as_completed(futures)
        try:
            while not finished.is_empty():
                reporter.check()
                for future in finished.next_batch(block=False):
                    outcome = future.result()
                    for item in outcome.items:
                        save(item)
                    yield outcome
                    future.release()
                time.sleep(_POLL_S)
        except KilledWorker as error:
            raise OutOfMemoryError(
                f"A worker process was ended from outside, most likely because memory ran out ({error}); "
                "finished results are kept: run the same again with fewer processes on each machine."
            ) from error
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def _workers_here(count: int, threads: int | None, cards: Sequence[str]) -> Iterator[Client]:
    """Yield a client of Dask workers on this machine, each with its own graphics card as far as there are enough.

    dask_cuda.LocalCUDACluster does no more for us, starts no more workers than there are cards, and needs pandas,
    CUDA's Python packages, Linux, Python 3.11 and one version of Dask. Certificates that live as long as the workers
    keep other users of the machine out. Workers end when this process has ended.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dualtrack-"))
        # As in other processes of ours, and no more variables of Dask's; a task whose process was ended ends the run.
        stack.enter_context(threads_of_new_processes(threads or max(1, free_cores() // count)))
        settings = {
            "distributed.nanny.pre-spawn-environ": {"PYTHONHASHSEED": "random"},  # as without it; Dask sets a number
            "distributed.scheduler.allowed-failures": 0,
            "distributed.scheduler.http.routes": [],
        }
        stack.enter_context(dask.config.set({**settings, "temporary-directory": folder}))
        security = Security.temporary()
        common = {"host": "127.0.0.1", "protocol": "tls://", "security": security, "dashboard": False}
        worker = {**common, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
        variables = [{"CUDA_VISIBLE_DEVICES": cards[i % len(cards)]} if cards else {} for i in range(count)]
        workers = {i: {"cls": Nanny, "options": {**worker, "env": env}} for i, env in enumerate(variables)}
        scheduler = {"cls": Scheduler, "options": {**common, "port": 0, "dashboard_address": "127.0.0.1:0"}}
        try:
            cluster = SpecCluster(workers, scheduler, security=security, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            raise InputError(
                f"{count} worker processes could not be started ({error}); run with fewer, or with one, which needs "
                "none. A script of your own must begin its work below `if __name__ == '__main__':`."
            ) from error
        stack.callback(_close, cluster)
        client = stack.enter_context(Client(cluster))
        client.run(_ignore_interrupts)
        yield client


def _close(cluster: Any) -> None:
    with contextlib.suppress(TimeoutError):  # a process that was killed may take its time on a busy machine
        cluster.close()


def _ignore_interrupts() -> None:
    """Ctrl-C reaches all processes of the group; the first one stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cards(methods: Sequence[Method]) -> list[str]:
    """Graphics cards to deal to processes: those that torch sees, unless a method was given a certain one."""
    torch = sys.modules.get("torch")  # a method that uses a card has loaded it
    if torch is None or any(":" in str(getattr(method, "device", "")) for method in methods):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    return list(names) if torch.cuda.is_available() else []


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
    tus_rec_pixels: bool = False,
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
        workers: processes on this machine, each with a graphics card of its own as far as there are enough; 1 computes
            in this process, without Dask.
        threads: of torch in each process; by default the cores that are free to this process over `workers`.
        cluster: a Dask client or the address of its scheduler, instead of processes here; the files of the data set
            must be there under the same names, results come back through the scheduler. Dask sends Python objects:
            whoever reaches the scheduler can run programs here and on its workers, so the network must be trusted, or
            closed by TLS.
        tls: PEM files for an address tls://...: certificate authority, own certificate, its private key.
        resume: false computes every item again.
        on_bad: "refuse" stops at a sweep that cannot be used and names it; "skip" goes on and names it in the result.
            A method that fails on a usable sweep never stops the others.
        tus_rec_pixels: as in :func:`~DualTrackCore.evaluation.evaluate`; results of the other grid are kept beside.
        progress: receives the stage "sweeps", and in one process also the stages of every method.

    Raises:
        InputError: no methods, no sweeps, two methods of one name, a bad sweep with "refuse", or none that is good;
            methods or a data set that cannot be sent to other processes; no scheduler at the address.
        MissingDependencyError: several workers or a cluster without Dask distributed.
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
    limit_gb = share_of_limit(1 if workers == 1 else workers + 1)
    work = Work(identified, dataset, finished, limit_gb, tus_rec_pixels)
    reporter.check()
    if cluster is not None:
        measured = _outcomes_of_workers(work, items, _client(cluster, tls), False, reporter)
    elif workers > 1:
        measured = _outcomes_of_workers(work, items, _workers_here(workers, threads, _cards(methods)), True, reporter)
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
                f"Finished results are kept; repair the sweep, or skip such sweeps ({named('on_bad', 'skip')})."
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
