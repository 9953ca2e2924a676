"""The most memory that a piece of work took, where the system tells it at no cost."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context in which the largest resident memory of this process is watched; Linux only.

    The figure is of the whole process with its libraries, and of everything else that the process does meanwhile.

    Attributes:
        mebibytes: after the context; NaN where the system does not tell.
    """

    mebibytes = math.nan

    def __enter__(self) -> PeakMemory:
        self._watched = False
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # start the peak anew at what is resident now (man 5 proc)
            self._watched = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
                self.mebibytes = int(line.split()[1]) / 1024
