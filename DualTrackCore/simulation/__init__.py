"""Simulated tracked freehand sweeps: phantoms, probes, paths, and frames rendered when they are read.

Accuracy on simulated sweeps says nothing about patients.
"""

from DualTrackCore.simulation.motion import FAMILIES, probe_trajectory
from DualTrackCore.simulation.phantom import Phantom
from DualTrackCore.simulation.probe import Probe
from DualTrackCore.simulation.render import Renderer
from DualTrackCore.simulation.simulated import SimulatedFrames, rendered, simulated_sweep

__all__ = [
    "FAMILIES",
    "Phantom",
    "Probe",
    "Renderer",
    "SimulatedFrames",
    "probe_trajectory",
    "rendered",
    "simulated_sweep",
]
