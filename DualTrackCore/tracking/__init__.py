"""Sweep to trajectory: preprocessing, the streaming engine, windows for long sweeps, and live tracking."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.tracking.engine import (
        TrackingWarning as TrackingWarning,
    )
    from DualTrackCore.tracking.engine import (
        estimate_trajectory as estimate_trajectory,
    )
    from DualTrackCore.tracking.live import LiveTracker as LiveTracker
    from DualTrackCore.tracking.live import ProvisionalPose as ProvisionalPose

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"engine": ["TrackingWarning", "estimate_trajectory"], "live": ["LiveTracker", "ProvisionalPose"]}
)
