"""Networks of earlier methods, to compare with: built from their papers' descriptions, trained by the stage `baseline`.

The names are loaded when they are first used: torch stays out until then.
"""

from importlib import import_module

_HOMES = {
    "ARCHITECTURES": "DualTrackCore.research.baselines.architectures",
    "Baseline": "DualTrackCore.research.baselines.method",
    "MotionNetwork": "DualTrackCore.research.baselines.motion_network",
    "baseline_method": "DualTrackCore.research.baselines.method",
    "build_baseline": "DualTrackCore.research.baselines.architectures",
    "load_baseline": "DualTrackCore.research.baselines.method",
    "save_baseline": "DualTrackCore.research.baselines.weights",
}

__all__ = [
    "ARCHITECTURES",
    "Baseline",
    "MotionNetwork",
    "baseline_method",
    "build_baseline",
    "load_baseline",
    "save_baseline",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
