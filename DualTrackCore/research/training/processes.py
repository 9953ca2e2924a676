"""The processes of a training on several devices: started here, or by SLURM or torchrun; one that dies ends all."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

import torch.distributed
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.threads import free_cores, threads_of_new_processes

#: Exit code of a command that refuses its input (:mod:`DualTrackCore.cli`).
_REFUSED = 2
#: Seconds that processes get to end by themselves.
_PATIENCE_S = 20
_GO_ON = "the checkpoints stay, and the same command goes on from the last (a single stage where it is told to resume)"


def is_member() -> bool:
    """Whether this process is one of several that torchrun (also :func:`run_processes`) or SLURM's srun started."""
    return torch.distributed.is_torchelastic_launched() or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def rank() -> int:
    """The number of this process among all, from 0."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def run_processes(devices: int, nodes: int, arguments: Sequence[str]) -> None:
    """Run the command `dualtrack` once for each device of this machine, as one training, until all have ended.

    Args:
        devices: processes to start.
        nodes: machines of the training; only 1 can be started here.
        arguments: of the command.

    Raises:
        InputError: a process refused its input; or several machines.
        Cancelled: the caller asked to stop, or a process ended before its time; all have ended.
    """
    if nodes > 1:
        raise InputError(
            f"A training on {nodes} machines is started on all of them at once, by SLURM's srun or by torchrun; "
            "Docs/training.md has both lines."
        )
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        shutdown_timeout=_PATIENCE_S,
    )
    # SIGTERM, too, asks for an orderly end; Lightning's own answer to it waits for processes that may be gone.
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    watchdog = signal.set_wakeup_fd(-1)  # it would end this process before the others have ended
    logging.disable(logging.CRITICAL)  # this process only waits; what torch would log of the others, we say
    try:
        with threads_of_new_processes(max(1, free_cores() // devices)):
            elastic_launch(config, sys.executable)("-m", "DualTrackCore.cli", *arguments)
    except SignalException:
        raise Cancelled(f"Cancelled; {_GO_ON}.") from None
    except ChildFailedError as error:
        raise _sentence(error.failures, devices) from None
    finally:
        logging.disable(logging.NOTSET)
        signal.set_wakeup_fd(watchdog)
        signal.signal(signal.SIGTERM, before)


def _sentence(failures: dict[int, ProcessFailure], devices: int) -> InputError | Cancelled:
    """What is to be said of processes that failed: of one that was killed, else of the first that had a reason."""

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, int]:
        failure = item[1]
        return failure.exitcode >= 0, failure.exitcode != _REFUSED, failure.error_file_data.get("time_ns", 0)

    rank, first = min(failures.items(), key=order)
    if first.exitcode < 0:
        memory = ", most likely because memory ran out" if first.exitcode == -signal.SIGKILL else ""
        return Cancelled(
            f"Process {rank + 1} of {devices} was ended from outside (signal {-first.exitcode}){memory}, and all "
            f"others with it; {_GO_ON}."
        )
    return (InputError if first.exitcode == _REFUSED else Cancelled)(str(first.message))
