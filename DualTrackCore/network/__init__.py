"""The dual-encoder network, its checkpoints, model cards and the model zoo.

The names are loaded when they are first used: the zoo and the cards can be read where torch is not installed.
"""

from importlib import import_module

_HOMES = {
    "DualTrack": "DualTrackCore.network.dualtrack",
    "Model": "DualTrackCore.network.model",
    "ModelCard": "DualTrackCore.network.card",
    "load_model": "DualTrackCore.network.model",
    "save_model": "DualTrackCore.network.checkpoint",
}

__all__ = ["DualTrack", "Model", "ModelCard", "load_model", "save_model"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
