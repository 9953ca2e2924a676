"""Runs in a process of their own: what it says while it works, and how it ends.

`python -m DualTrackCore.worker` is that process; :mod:`DualTrackCore.worker.protocol` says how to talk to it.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.worker.job import JobFailed as JobFailed
    from DualTrackCore.worker.readiness import preflight as preflight

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"job": ["JobFailed"], "readiness": ["preflight"]})
