"""A baseline as a method of the comparison: a sweep in, a trajectory out, in bounded memory."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.errors import CheckpointError, InputError, OutOfMemoryError
from DualTrackCore.files import file_sha256
from DualTrackCore.network.card import ModelCard
from DualTrackCore.network.model import Model
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.baselines.motion_network import MotionNetwork, motions_in_pieces
from DualTrackCore.research.baselines.weights import read_baseline
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import TrackingWarning
from DualTrackCore.tracking.device import choose_device, is_out_of_memory, release_memory
from DualTrackCore.tracking.preprocessing import Preprocessor
from DualTrackCore.tracking.scope import scope_warnings
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.version import __version__

#: Frames through the network at a time: more is no faster, and memory does not grow with the sweep.
CHUNK_FRAMES = 32
#: The baselines that were trained at mini scale lie here in the source tree; they are no part of the package.
_TRAINED = Path(__file__).resolve().parents[3] / "Testing" / "Data" / "baselines"


class Baseline:
    """A network of an earlier method with its weights; a `Method` of the comparison.

    Args:
        network: from :func:`~DualTrackCore.research.baselines.build_baseline`.
        card: its spacing is what the network's millimetres are baked in at.
        name: in tables; the card's where None.
        device: "auto" (CUDA, MPS, CPU in this order) or a torch device.
        sha256: of the weights file, for provenance.
    """

    uses = "images"

    def __init__(
        self,
        network: MotionNetwork,
        card: ModelCard,
        name: str | None = None,
        device: str | torch.device = "auto",
        sha256: str | None = None,
    ) -> None:
        self.model = Model(network, card, sha256)  # sets evaluation mode, and says where poses come from
        self.name = card.name if name is None else name
        self._device = device

    @property
    def network(self) -> MotionNetwork:
        """On the CPU but while it runs."""
        return self.model.network

    @property
    def card(self) -> ModelCard:
        """What the weights expect."""
        return self.model.card

    @property
    def parameter_count(self) -> int:
        """How many numbers were trained."""
        return self.network.parameter_count

    def estimate(
        self,
        sweep: Sweep,
        *,
        chunk_frames: int = CHUNK_FRAMES,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Trajectory:
        """Trajectory of all frames, frame0_from_image in mm, accumulated in float64.

        Args:
            sweep: spacing known; resampled to the card's. Its tracking is not looked at.
            chunk_frames: frames at a time; the result does not depend on it beyond rounding.
            progress: told of stage "network" (frames).
            cancelled: asked between chunks.

        Raises:
            InputError: no images, unknown spacing, or fewer frames than the network's window.
            OutOfMemoryError: the device has too little memory; give fewer `chunk_frames`.
            Cancelled: the caller asked to stop.
        """
        if chunk_frames < 1:
            raise InputError(f"chunk_frames is {chunk_frames}; it must be at least 1.")
        sweep.require_images()
        prepared = Preprocessor(
            sweep.frame_size, sweep.require_spacing(), self.card.spacing_mm, self.network.crop_size, global_size=1
        )
        device = choose_device(self._device)
        motions = self._motions(sweep, prepared, device, chunk_frames, Reporter(progress, cancelled))
        messages = scope_warnings(sweep, self.model, prepared)
        for message in messages:
            warnings.warn(message, TrackingWarning, stacklevel=2)
        provenance = {
            **self.model.provenance(),
            "method": self.name,
            "device": str(device),
            "chunk_frames": chunk_frames,
            "model_spacing_mm": list(self.card.spacing_mm),
            "resampled": prepared.resamples,
            "warnings": messages,
            "dualtrack_version": __version__,
        }
        return Trajectory.from_parameters(motions, provenance)

    def _motions(
        self, sweep: Sweep, prepared: Preprocessor, device: torch.device, chunk_frames: int, reporter: Reporter
    ) -> np.ndarray:
        def images(start: int, stop: int) -> torch.Tensor:
            frames = torch.from_numpy(np.ascontiguousarray(sweep.window(start, stop))).to(device)
            return prepared.local(frames)[None]

        try:
            self.network.to(device)
            with torch.inference_mode():
                motions = motions_in_pieces(
                    self.network,
                    images,
                    len(sweep),
                    chunk_frames,
                    lambda done, total: reporter.report(Stage.NETWORK, done, total),
                )
            return motions[0].double().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"{device} has too little memory for {chunk_frames} frames at a time; give fewer, or another device."
            ) from None
        finally:
            self.network.to("cpu")
            release_memory(device)


def load_baseline(path: str | Path, *, name: str | None = None, device: str | torch.device = "auto") -> Baseline:
    """A baseline from its weights file.

    Args:
        path: a .safetensors file that the training stage `baseline` has written.
        name, device: as in :class:`Baseline`.

    Raises:
        CheckpointError: no such file, damaged, of another network, or with numbers that are not finite.
    """
    path = Path(path)
    network, card = read_baseline(path)
    return Baseline(network, card, name, device, file_sha256(path))


def baseline_method(
    name_or_path: str, *, name: str | None = None, device: str | torch.device = "auto", folder: Path = _TRAINED
) -> Baseline:
    """What `baseline:NAME` and `baseline:FILE` mean on the command line.

    Args:
        name_or_path: a weights file, or the name of one in `folder` without its suffix.
        name: in tables; by default the card's.
        device: as in :class:`Baseline`.
        folder: by default where the trained baselines lie in the source tree.

    Raises:
        CheckpointError: neither a file nor a name there, or as in :func:`load_baseline`.
    """
    if os.path.isfile(name_or_path):  # unlike Path.is_file it takes names that no file can have
        return load_baseline(name_or_path, name=name, device=device)
    known = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if name_or_path not in known:
        there = f"one of {', '.join(known)}" if known else "one of the trained ones, which only the source tree holds"
        raise CheckpointError(f"There is no baseline {name_or_path!r}: neither a weights file nor {there}.")
    return load_baseline(known[name_or_path], name=name, device=device)
