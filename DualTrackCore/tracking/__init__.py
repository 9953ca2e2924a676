"""Sweep to trajectory: preprocessing, the streaming engine, windows for long sweeps."""

from DualTrackCore.tracking.engine import TrackingWarning, estimate_trajectory

__all__ = ["TrackingWarning", "estimate_trajectory"]
