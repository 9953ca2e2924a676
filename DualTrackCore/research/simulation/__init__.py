"""Simulated tracked freehand sweeps: phantoms, probes, paths, and frames rendered when they are read.

Accuracy on simulated sweeps says nothing about patients.
"""

from DualTrackCore.research.simulation.motion import FAMILIES, probe_trajectory
from DualTrackCore.research.simulation.phantom import Phantom
from DualTrackCore.research.simulation.probe import Probe
from DualTrackCore.research.simulation.render import Renderer
from DualTrackCore.research.simulation.simulator import SimulatedFrames, acquired_sweep, rendered, simulated_sweep

__all__ = [
    "FAMILIES",
    "Phantom",
    "Probe",
    "Renderer",
    "SimulatedFrames",
    "acquired_sweep",
    "probe_trajectory",
    "rendered",
    "simulated_sweep",
]
