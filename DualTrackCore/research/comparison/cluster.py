"""Sweeps on the machines of a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from DualTrackCore.errors import InputError, MissingDependencyError, OutOfMemoryError
from DualTrackCore.progress import Reporter
from DualTrackCore.research.comparison.items import ItemFolder
from DualTrackCore.research.comparison.measure import Outcome, Work, measure_sweep

if TYPE_CHECKING:
    from distributed import Client

#: How long the scheduler may take to answer, s.
_CONNECT_S = 15


def outcomes_on_cluster(work: Work, store: ItemFolder, cluster: str | Client, reporter: Reporter) -> Iterator[Outcome]:
    """Outcomes in the order in which they come; items return with them and are saved here.

    Raises:
        MissingDependencyError: Dask distributed is not installed.
        InputError: nothing answers at the address, or the work cannot be sent.
        Cancelled: the caller asked to stop.
    """
    try:
        from distributed import KilledWorker, as_completed
    except ImportError as error:
        raise MissingDependencyError(
            'A cluster needs Dask, which is not installed; get it with pip install "dualtrack[cluster]".'
        ) from error
    with _client(cluster) as client:
        shared = client.scatter(work, broadcast=True, hash=False)
        # Impure: a result of an earlier call must not stand in for one that is to be made anew.
        futures = client.map(_measure_one, list(work.dataset.names), work=shared, pure=False)
        try:
            for future in as_completed(futures):
                reporter.check()
                outcome = future.result()
                for item in outcome.items:
                    store.save(item)
                yield outcome
                future.release()
        except KilledWorker as error:
            raise OutOfMemoryError(
                f"Workers of the cluster were ended again and again, most likely for want of memory ({error}); what is "
                "finished is kept: run the same again with fewer processes on each machine."
            ) from error
        finally:
            client.cancel(futures)


def _measure_one(name: str, work: Work) -> Outcome:
    return measure_sweep(work, name)


@contextlib.contextmanager
def _client(cluster: Any) -> Iterator[Client]:
    """The caller's client, which stays open, or one of our own."""
    if not isinstance(cluster, str):
        yield cluster
        return
    from distributed import Client

    try:
        client = Client(cluster, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {cluster} ({error}); start one with `dask scheduler` and give its address."
        ) from error
    with client:
        yield client
