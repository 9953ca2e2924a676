"""Sweep to trajectory: preprocessing, the streaming engine, windows for long sweeps, and single encoders' heads."""

from DualTrackCore.tracking.engine import TrackingWarning, estimate_trajectory
from DualTrackCore.tracking.heads import estimate_with_head
from DualTrackCore.tracking.live import LiveTracker, ProvisionalPose

__all__ = ["LiveTracker", "ProvisionalPose", "TrackingWarning", "estimate_trajectory", "estimate_with_head"]
