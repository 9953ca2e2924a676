"""The network, its weights files, and the models that exist."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.network.catalogue import ModelCard as ModelCard
    from DualTrackCore.network.dualtrack import DualTrack as DualTrack
    from DualTrackCore.network.model import Model as Model
    from DualTrackCore.network.model import load_model as load_model
    from DualTrackCore.network.model import save_model as save_model

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "catalogue": ["ModelCard"],
        "dualtrack": ["DualTrack"],
        "model": ["Model", "load_model", "save_model"],
    },
)
