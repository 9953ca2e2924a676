"""A baseline as a method of the comparison (a sweep in, a trajectory out), and its weights files.

`network.model.save_model` writes them; the architecture in the card names the network and its sizes.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch

from DualTrackCore import __version__
from DualTrackCore.errors import CheckpointError, InputError, OutOfMemoryError
from DualTrackCore.files import file_sha256
from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.network.model import Model, load_weights, read_weights
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.baselines.motion_network import KIND_KEY, MotionNetwork, motions_in_pieces
from DualTrackCore.research.baselines.networks import ARCHITECTURES, build_baseline
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import TrackingWarning
from DualTrackCore.tracking.device import choose_device
from DualTrackCore.tracking.preprocessing import Preprocessor, is_guess, scope_warnings
from DualTrackCore.trajectory import Trajectory

#: Frames through the network at a time; more is no faster. Memory does not grow with the sweep.
CHUNK_FRAMES = 32
#: Weights of the baselines that are part of the package, trained on the data of the small model.
SHIPPED_FOLDER = Path(__file__).parent / "weights"


class Baseline:
    """A network of an earlier method with its weights; a `Method` of the comparison.

    Args:
        network: from :func:`~DualTrackCore.research.baselines.build_baseline`.
        card: its spacing is what the network's millimetres are baked in at.
        name: in tables; by default the card's.
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
        self.device = device

    @property
    def network(self) -> MotionNetwork:
        """The network, on the CPU."""
        return self.model.network

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.model.card

    def estimate(
        self,
        sweep: Sweep,
        *,
        chunk_frames: int = CHUNK_FRAMES,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Trajectory:
        """Return the trajectory of all frames, frame0_from_image in mm, accumulated in float64.

        Args:
            sweep: with a spacing; resampled to the card's spacing. Its tracking is not used.
            chunk_frames: frames at a time; the result does not depend on it beyond rounding.
            progress: receives the stage "network", in frames.
            cancelled: called between chunks; True stops the run.

        Raises:
            InputError: no images, unknown spacing, or fewer frames than the network's window.
            OutOfMemoryError: the device has too little memory for `chunk_frames` frames at a time.
            Cancelled: the caller asked to stop.
        """
        if chunk_frames < 1:
            raise InputError(f"chunk_frames is {chunk_frames}; it must be at least 1.")
        sweep.require_images()
        prepared = Preprocessor.for_model(self.model, sweep)
        device, left_out = choose_device(self.device)
        motions = self._motions(sweep, prepared, device, chunk_frames, Reporter(progress, cancelled))
        messages = ([left_out] if left_out else []) + scope_warnings(sweep, self.model, prepared)
        for message in messages:
            warnings.warn(message, TrackingWarning, stacklevel=2)
        provenance = {
            **self.model.provenance(),
            "method": self.name,
            "device": str(device),
            "chunk_frames": chunk_frames,
            "model_spacing_mm": list(self.card.spacing_mm),
            "resampled": prepared.resamples,
            "guess": is_guess(sweep, self.model),
            "warnings": messages,
            "dualtrack_version": __version__,
        }
        return Trajectory.from_parameters(motions, provenance)

    def _motions(
        self, sweep: Sweep, prepared: Preprocessor, device: torch.device, chunk_frames: int, reporter: Reporter
    ) -> np.ndarray:
        def images(start: int, stop: int) -> torch.Tensor:
            frames = torch.from_numpy(np.require(sweep.window(start, stop), requirements="CW")).to(device)
            return prepared.local(frames)[None]

        try:
            session = self.model.session(device)
            with torch.inference_mode(), session.exact():
                motions = motions_in_pieces(
                    session.network,
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


def load_baseline(path: str | Path, *, name: str | None = None, device: str | torch.device = "auto") -> Baseline:
    """Load a baseline from its weights file, without running code from it.

    Args:
        path: a .safetensors file written by the training stage `baseline`.
        name, device: as in :class:`Baseline`.

    Raises CheckpointError: no such file, damaged, of another network, or with numbers that are not finite.
    """
    path = Path(path)
    tensors, card = read_weights(path)
    sizes = {} if card is None else dict(card.architecture)
    kind = sizes.pop(KIND_KEY, None)
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{path.name} holds no baseline: its card names none of {', '.join(ARCHITECTURES)}; give a file that the "
            "training stage baseline has written."
        )
    try:
        network = build_baseline(kind, **sizes)
    except InputError as error:
        raise CheckpointError(f"The card inside {path.name} describes no network of this version: {error}") from None
    load_weights(network, tensors, path.name)
    return Baseline(network, card, name, device, file_sha256(path))


def baseline_method(
    name_or_path: str, *, name: str | None = None, device: str | torch.device = "auto", folder: Path = SHIPPED_FOLDER
) -> Baseline:
    """Load `baseline:NAME` or `baseline:FILE` of the command line.

    Args:
        name_or_path: a weights file, or the name of one in `folder` without its suffix.
        name: in tables; by default the card's.
        device: as in :class:`Baseline`.
        folder: with the named weights files; by default those of the package.

    Raises CheckpointError: neither a file nor a name there, or as in :func:`load_baseline`.
    """
    if os.path.isfile(name_or_path):  # unlike Path.is_file it takes names that no file can have
        return load_baseline(name_or_path, name=name, device=device)
    files = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if name_or_path not in files:
        raise CheckpointError(
            f"There is no baseline {name_or_path!r}: it is neither a weights file nor one of {', '.join(files)}."
        )
    return load_baseline(files[name_or_path], name=name, device=device)
