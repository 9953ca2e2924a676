"""What is known of a sweep, put into its path: lengths, marks, places, limits, poses from elsewhere."""

from DualTrackCore.corrections.knowledge import KnownLength, KnownPoses, Limits, SamePlace, SamePoint
from DualTrackCore.corrections.path import CORRECTIONS, correct

__all__ = ["CORRECTIONS", "KnownLength", "KnownPoses", "Limits", "SamePlace", "SamePoint", "correct"]
