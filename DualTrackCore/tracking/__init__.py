"""Sweep to trajectory: preprocessing, the streaming engine, and windows for long sweeps."""

from DualTrackCore.tracking.engine import TrackingWarning, estimate_trajectory
from DualTrackCore.tracking.live import LiveTracker, ProvisionalPose

__all__ = ["LiveTracker", "ProvisionalPose", "TrackingWarning", "estimate_trajectory"]
