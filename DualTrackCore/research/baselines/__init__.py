"""Networks of earlier methods, for comparison: built from their papers, trained by the stage `baseline`."""

from DualTrackCore.research.baselines.method import Baseline, baseline_method, load_baseline
from DualTrackCore.research.baselines.motion_network import MotionNetwork, motions_in_pieces
from DualTrackCore.research.baselines.networks import ARCHITECTURES, build_baseline

__all__ = [
    "ARCHITECTURES",
    "Baseline",
    "MotionNetwork",
    "baseline_method",
    "build_baseline",
    "load_baseline",
    "motions_in_pieces",
]
