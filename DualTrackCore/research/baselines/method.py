"""A baseline as a method of the comparison (a sweep in, a trajectory out), and its weights files.

A weights file is safetensors with a model card, whose architecture names the network and its sizes.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from DualTrackCore.errors import CheckpointError, InputError, OutOfMemoryError
from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network.catalogue import CARD_KEY, ModelCard
from DualTrackCore.network.model import Model, read_weights
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.baselines.motion_network import MotionNetwork, motions_in_pieces
from DualTrackCore.research.baselines.networks import ARCHITECTURES, build_baseline
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import TrackingWarning
from DualTrackCore.tracking.device import choose_device, is_out_of_memory, release_memory
from DualTrackCore.tracking.preprocessing import Preprocessor, scope_warnings
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.version import __version__

#: Frames through the network at a time; more is no faster. Memory does not grow with the sweep.
CHUNK_FRAMES = 32
#: Weights of the baselines that are part of the package, trained on the data of the small model.
SHIPPED_FOLDER = Path(__file__).parent / "weights"
#: Key of the network's name in the card's architecture, beside its sizes.
KIND_KEY = "baseline"


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
        self._device = device

    @property
    def network(self) -> MotionNetwork:
        """The network; on the CPU, except while it runs."""
        return self.model.network

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.model.card

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return self.network.parameter_count

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
            frames = torch.from_numpy(np.require(sweep.window(start, stop), requirements="CW")).to(device)
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


def save_baseline(
    network: MotionNetwork, card: ModelCard, path: str | Path, *, number_type: torch.dtype = torch.float32
) -> Path:
    """Write weights and card into one safetensors file, atomically, and return its path.

    Args:
        network: its name and sizes replace the architecture of the card.
        card: spacing, origin and expected error.
        path: ends in .safetensors.
        number_type: type of the stored weights; float16 halves the file and rounds them to eleven bits.
    """
    path = Path(path)
    card = replace(card, architecture={KIND_KEY: network.architecture, **network.arguments})
    tensors = {key: _stored(value, number_type) for key, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata={CARD_KEY: card.to_json()})
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    return path


def read_baseline(path: str | Path) -> tuple[MotionNetwork, ModelCard]:
    """Return the network, in evaluation mode, and the card of a file. Reading a file never runs code from it.

    Raises:
        CheckpointError: no such file, damaged, of another network, or with numbers that are not finite.
    """
    path = Path(path)
    tensors, card = read_weights(path)
    kind = None if card is None else card.architecture.get(KIND_KEY)
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{path.name} holds no baseline: its card names none of {', '.join(ARCHITECTURES)}; give a file that the "
            "training stage baseline has written."
        )
    sizes = {key: value for key, value in card.architecture.items() if key != KIND_KEY}
    try:
        network = build_baseline(kind, **sizes)
    except InputError as error:
        raise CheckpointError(f"The card inside {path.name} describes no network of this version: {error}") from None
    _load(network, tensors, path.name)
    return network.eval(), card


def _load(network: MotionNetwork, tensors: dict[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    wrong = sorted(
        {*expected} ^ {*tensors} | {k for k in {*expected} & {*tensors} if expected[k].shape != tensors[k].shape}
    )
    if wrong:
        raise CheckpointError(
            f"{name} is not a checkpoint of the network that its card describes: {len(wrong)} tensors are missing, "
            f"unknown or of another shape, such as {wrong[0]}."
        )
    if broken := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{name} holds numbers that are not finite in {broken[0]}; train or fetch it again.")
    network.load_state_dict({key: tensors[key].to(value.dtype) for key, value in expected.items()})


def _stored(value: Tensor, number_type: torch.dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(number_type) if value.is_floating_point() else value


def load_baseline(path: str | Path, *, name: str | None = None, device: str | torch.device = "auto") -> Baseline:
    """Load a baseline from its weights file.

    Args:
        path: a .safetensors file written by the training stage `baseline`.
        name, device: as in :class:`Baseline`.

    Raises:
        CheckpointError: no such file, damaged, of another network, or with numbers that are not finite.
    """
    path = Path(path)
    network, card = read_baseline(path)
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

    Raises:
        CheckpointError: neither a file nor a name there, or as in :func:`load_baseline`.
    """
    if os.path.isfile(name_or_path):  # unlike Path.is_file it takes names that no file can have
        return load_baseline(name_or_path, name=name, device=device)
    files = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if name_or_path not in files:
        raise CheckpointError(
            f"There is no baseline {name_or_path!r}: it is neither a weights file nor one of {', '.join(files)}."
        )
    return load_baseline(files[name_or_path], name=name, device=device)
