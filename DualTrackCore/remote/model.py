"""A model that a server has, in the place of one of this computer."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from DualTrackCore.errors import InputError, TrackingWarning
from DualTrackCore.memory import format_bytes
from DualTrackCore.path_error import direction_warnings
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.remote.client import Offer, Server
from DualTrackCore.repeats import Repeats, find_repeats
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


@dataclass(frozen=True)
class RemoteModel:
    """A model of a server: what a run takes in place of a :class:`~DualTrackCore.network.Model`.

    Attributes:
        server: that has it.
        name: its name there.
        offer: of the server.
        sha256: of weights that it must have, where they are known.

    Raises InputError: the server does not offer it, or has other weights by that name.
    """

    server: Server
    name: str
    offer: Offer
    sha256: str | None = None

    @classmethod
    def at(cls, server: Server, name: str, sha256: str | None = None) -> RemoteModel:
        """A model by name; asks the server. Raises InputError, ServerError: as :meth:`Server.offer`, and the class."""
        server.require_agreed()
        return cls(server, name, server.offer(), sha256)

    def __post_init__(self) -> None:
        if self.name not in self.offer.models:
            raise InputError(
                f"The server {self.server.address} has no model {self.name[:80]!r}; it offers "
                f"{', '.join(self.offer.models) or 'none'}."
            )
        theirs = self.offer.models[self.name].get("sha256")
        if None not in (theirs, self.sha256) and theirs != self.sha256:
            raise InputError(
                f"The model {self.name} of the server {self.server.address} has other weights than the one given here; "
                "install the same file on both."
            )

    def provenance(self) -> dict[str, Any]:
        """Name and checksum, for what is matched by them."""
        return {"model": self.name, "weights_sha256": self.offer.models[self.name].get("sha256")}

    def release(self) -> None:
        """As :meth:`DualTrackCore.network.Model.release`: nothing is held on this computer."""

    def estimate_trajectory(
        self,
        sweep: Sweep,
        *,
        repeats: Repeats | None = None,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
        **options: Any,
    ) -> Trajectory:
        """As :func:`~DualTrackCore.estimate_trajectory`, at the server; `provenance["server"]` is its address.

        Args:
            sweep, repeats, progress, cancelled: as there.
            options: precision, chunk_frames, test_time_augmentation and direction, as there.

        Raises InputError, ServerError, OutOfMemoryError, Cancelled: as :meth:`Server.track`.
        """
        reporter = Reporter(progress, cancelled)
        sweep.require_images()
        repeats = find_repeats(sweep, reporter) if repeats is None else repeats
        pictures = repeats.pictures(sweep)
        size = math.prod(pictures.frames.shape)
        if size > self.offer.most_bytes:
            raise InputError(
                f"The sweep has {format_bytes(size)} of frames and the server {self.server.address} takes "
                f"{format_bytes(self.offer.most_bytes)}; crop it or use fewer frames."
            )
        trajectory, _ = self.server.track(pictures, {"model": self.name, **options}, reporter)
        for message in [*trajectory.provenance["warnings"], *direction_warnings(trajectory.provenance)]:
            warnings.warn(message, TrackingWarning, stacklevel=2)
        return repeats.shown_again(trajectory)
