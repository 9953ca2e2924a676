"""The work in a process of its own: what it runs, how it says what it is doing, and how it ends.

`python -m DualTrackCore.worker` is that process; :class:`~DualTrackCore.worker_client.WorkerClient` starts it, talks to
it and ends it. `run_job` and `preflight` are what it does, for scripts that compute in their own process.
"""

from DualTrackCore.worker.readiness import preflight
from DualTrackCore.worker.run import run_job

__all__ = ["preflight", "run_job"]
