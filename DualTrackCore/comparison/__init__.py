"""Methods of sensorless tracking compared on tracked sweeps: baselines, the network and its parts, one table."""

from DualTrackCore.comparison.decorrelation import Decorrelation
from DualTrackCore.comparison.held_out import calibration_simulations, held_out_simulations, simulate_all
from DualTrackCore.comparison.methods import Identity, MeanMotion, Method, Network, OwnMeanMotion
from DualTrackCore.comparison.table import Comparison, compare

__all__ = [
    "Comparison",
    "Decorrelation",
    "Identity",
    "MeanMotion",
    "Method",
    "Network",
    "OwnMeanMotion",
    "calibration_simulations",
    "compare",
    "held_out_simulations",
    "simulate_all",
]
