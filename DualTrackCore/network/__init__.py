"""The dual-encoder network, its checkpoints, model cards and the model zoo."""

from DualTrackCore.network.card import ModelCard
from DualTrackCore.network.checkpoint import save_model
from DualTrackCore.network.dualtrack import DualTrack
from DualTrackCore.network.model import Model, load_model

__all__ = ["DualTrack", "Model", "ModelCard", "load_model", "save_model"]
