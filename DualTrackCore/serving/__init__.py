"""The server: `dualtrack serve` computes for other computers, over HTTP, one run after the other.

:mod:`DualTrackCore.remote.wire` says what is spoken; the runs are those of :mod:`DualTrackCore.worker`, in its process.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.serving.host import ServerSettings as ServerSettings
    from DualTrackCore.serving.host import start as start

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"host": ["ServerSettings", "start"]}, extra="server")
