"""Another computer that computes: its client, and what goes over the wire. Needs numpy and httpx, never torch.

:class:`Server` is the one client: :func:`~DualTrackCore.estimate_trajectory`, `dualtrack run --server` and the panel
use it, and so can a program on a computer without torch. `dualtrack serve` is the other side.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.remote.client import Offer as Offer
    from DualTrackCore.remote.client import RemoteVolume as RemoteVolume
    from DualTrackCore.remote.client import Server as Server
    from DualTrackCore.remote.consent import is_agreed as is_agreed
    from DualTrackCore.remote.consent import notice as notice
    from DualTrackCore.remote.consent import remember as remember
    from DualTrackCore.remote.model import RemoteModel as RemoteModel

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "client": ["Offer", "RemoteVolume", "Server"],
        "consent": ["is_agreed", "notice", "remember"],
        "model": ["RemoteModel"],
    },
    extra="client",
)
