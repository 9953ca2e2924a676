"""DualTrack: sensorless freehand 3D ultrasound.

A sweep of plain 2D frames goes in; the probe trajectory and a volume come out. The public names are loaded when they
are first used, so that importing the package costs nothing.
"""

from importlib import import_module

from DualTrackCore.version import __version__

_HOMES = {
    "Sweep": "DualTrackCore.sweep",
    "Trajectory": "DualTrackCore.trajectory",
    "VoxelGrid": "DualTrackCore.reconstruction",
    "Reconstruction": "DualTrackCore.reconstruction",
    "Evaluation": "DualTrackCore.evaluation",
    "load_sweep": "DualTrackCore.io",
    "save_sweep": "DualTrackCore.io",
    "load_model": "DualTrackCore.network",
    "estimate_trajectory": "DualTrackCore.tracking",
    "plan_grid": "DualTrackCore.reconstruction",
    "reconstruct_volume": "DualTrackCore.reconstruction",
    "evaluate": "DualTrackCore.evaluation",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
