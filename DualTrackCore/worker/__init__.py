"""Runs in a process of their own: what it says while it works, and how it ends.

`python -m DualTrackCore.worker` is that process; :class:`WorkerClient` starts it, talks to it and ends it.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.worker.client import WorkerClient as WorkerClient
    from DualTrackCore.worker.job import Job as Job
    from DualTrackCore.worker.job import JobFailed as JobFailed
    from DualTrackCore.worker.readiness import preflight as preflight

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"client": ["WorkerClient"], "job": ["Job", "JobFailed"], "readiness": ["preflight"]}
)
