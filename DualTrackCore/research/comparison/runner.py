"""Many methods on many sweeps: here, in several processes, or on a cluster; kept item by item, so that it can go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.comparison.fingerprint import fingerprint
from DualTrackCore.research.comparison.items import ItemFolder, read_item
from DualTrackCore.research.comparison.measure import Outcome, Work, measure_sweep
from DualTrackCore.research.comparison.methods import Method
from DualTrackCore.research.comparison.table import Comparison, comparison_of

if TYPE_CHECKING:
    from distributed import Client

    from DualTrackCore.research.datasets import Dataset

OnBad = Literal["refuse", "skip"]


def run_methods(
    methods: Sequence[Method],
    dataset: Dataset,
    folder: str | Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    cluster: str | Client | None = None,
    resume: bool = True,
    on_bad: OnBad = "refuse",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Comparison:
    """Run every method on every sweep of a data set, and gather their errors.

    What each method made of each sweep is one file in `folder`, moved into place when it is whole and named after its
    inputs: method with weights, every pixel and pose of the sweep, version of the program. A run that was stopped, even
    by a kill, goes on where it was; what changed meanwhile is made anew; nothing is counted twice, because the tables
    are built from the files of this run's inputs alone. What failed is tried again.

    A process has one sweep open at a time and reads its frames in pieces, so memory grows with `workers`, not with the
    data set.

    Args:
        methods: with different names; for more than one process or a cluster they and the data set must be picklable.
        dataset: tracked sweeps.
        folder: where the items are kept; several runs may share one.
        workers: processes on this machine; 1 computes in this one.
        threads: of torch in each process; by default the cores of the machine over `workers`.
        cluster: a Dask client or the address of its scheduler, instead of processes here; the files of the data set
            must be there under the same names, results come back through the scheduler.
        resume: false makes every item anew.
        on_bad: "refuse" stops at a sweep that cannot be used and names it; "skip" goes on and names it in the result.
            A method that fails on a usable sweep never stops the others.
        progress: told of the stage "sweeps", and in one process of every method's own stages.

    Raises:
        InputError: no methods, no sweeps, two methods of one name, a bad sweep with "refuse", or none that is good.
        MissingDependencyError: a cluster without Dask distributed.
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; what is finished stays.
    """
    _require(methods, dataset, workers, threads, on_bad)
    store = ItemFolder(Path(folder))
    reporter = Reporter(progress, cancelled)
    identified = tuple((method, fingerprint(method)) for method in methods)
    known = store.keys() if resume else {}
    # Damaged items count as missing; each is read here, before hours of work may rest on it.
    finished = frozenset(key for key, path in known.items() if read_item(path) is not None)
    work = Work(identified, dataset, finished)
    outcomes: dict[str, Outcome] = {}
    with closing(_outcomes(work, store, workers, threads, cluster, progress, cancelled)) as coming:
        for done, outcome in enumerate(coming, 1):
            if outcome.bad is not None and on_bad == "refuse":
                raise InputError(
                    f"The sweep {outcome.sweep} of {dataset.name} cannot be used: {outcome.bad} "
                    "What is finished is kept; mend the sweep, or leave such sweeps out (on_bad='skip', --on-bad skip)."
                )
            outcomes[outcome.sweep] = outcome
            reporter.report(Stage.SWEEPS, done, len(dataset.names))
    result = comparison_of(methods, [outcomes[name] for name in dataset.names], store.keys())
    if len(result.skipped) == len(dataset.names):
        name, reason = next(iter(result.skipped.items()))
        raise InputError(f"No sweep of {dataset.name} can be used; the first is {name}: {reason}")
    return result


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


def _outcomes(
    work: Work,
    store: ItemFolder,
    workers: int,
    threads: int | None,
    cluster: str | Client | None,
    progress: ProgressCallback | None,
    cancelled: CancelledCallback | None,
) -> Iterator[Outcome]:
    """The outcomes as they come, their items saved."""
    reporter = Reporter(None, cancelled)
    if cluster is not None:
        from DualTrackCore.research.comparison.cluster import outcomes_on_cluster

        yield from outcomes_on_cluster(work, store, cluster, reporter)
    elif workers > 1:
        from DualTrackCore.research.comparison.processes import outcomes_in_processes

        yield from outcomes_in_processes(work, store, workers, threads, reporter)
    else:
        for name in work.dataset.names:
            reporter.check()
            yield measure_sweep(work, name, save=store.save, progress=progress, cancelled=cancelled)
