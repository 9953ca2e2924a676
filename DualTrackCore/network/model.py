"""A network with its weights and its card: load by name or from a file, check against the network, save.

Safetensors hold nothing but tensors and text. PyTorch files are pickles: they are read with `weights_only=True`, and
only by versions of torch in which no way around that is known.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.torch_version import TorchVersion

from DualTrackCore.errors import CheckpointError, reason_of
from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network import catalogue
from DualTrackCore.network.dualtrack import UNUSED_HEADS, DualTrack
from DualTrackCore.network.session import InferenceSession, Sessions
from DualTrackCore.network.statistics import PLAIN, InputCheck, Normalisation, told_by_weights
from DualTrackCore.settings import short_text
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION
from DualTrackCore.uncertainty import STEP_ERROR_FREEDOM

#: Longest position table that weights are extended to: almost an hour at 20 frames a second.
MAX_POSITIONS = 1 << 16
POSITION_KEY = "global_encoder.pos_emb.weight"
_POSITION_SUFFIX = ".pos_emb.weight"
_DISTANCE_SUFFIX = ".distance_embedding.weight"
#: First version of torch whose `weights_only=True` has no known hole: CVE-2025-32434 (up to 2.5.1) let a file run
#: code, CVE-2026-24747 (before 2.10) let it write where it must not.
_SAFE_TORCH = "2.10.0"


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights loaded, in evaluation mode, and its card.

    Attributes:
        network: on the CPU; nothing moves it. :meth:`session` gives it on another device.
        card: what the weights expect.
        sha256: of the weights file; None for a network made in memory.
        check: what the weights tell on a sweep; None before they were asked.
    """

    network: DualTrack
    card: catalogue.ModelCard
    sha256: str | None = None
    check: InputCheck | None = None
    _sessions: Sessions = field(default_factory=Sessions, repr=False)

    def __post_init__(self) -> None:
        self.network.eval()

    def session(self, device: torch.device, precision: str = "fp32") -> InferenceSession:
        """The network ready to compute on a device: made once, kept until :meth:`release` or as long as the model.

        Args:
            device: a torch device that is there.
            precision: of the convolutional trunks: "fp32", "tf32", "bf16" or "fp16".
        """
        return self._sessions.get(self.network, device, precision)

    def release(self) -> None:
        """Free what sessions hold, on graphics cards too; the weights stay, and a new session works as before."""
        self._sessions.release()

    @property
    def normalisation(self) -> Normalisation:
        """(mean, std) of whole frames: as checked on a sweep, else the card's, else what the weights tell."""
        if self.check is not None:
            return self.check.used
        return self.card.normalisation or told_by_weights(self.network) or PLAIN

    def provenance(self) -> dict[str, Any]:
        """Plain values for a report."""
        shared, freedom = self.card.step_error_correlation, self.card.step_error_freedom
        return {
            "model": self.card.name,
            "model_title": self.card.title,
            "model_version": self.card.version,
            "model_trained": self.card.trained,
            "model_simulated_only": self.card.simulated_only,
            "model_training_data": self.card.training_data,
            "model_expected_error": self.card.expected_error,
            "model_licence": self.card.licence,
            "weights_sha256": self.sha256,
            "model_input": None if self.check is None else self.check.as_dict(),
            **({} if shared is None else {STEP_ERROR_CORRELATION: list(shared)}),
            **({} if freedom is None else {STEP_ERROR_FREEDOM: freedom}),
        }


def load_model(
    name_or_path: str | Path = catalogue.DEFAULT_MODEL,
    *,
    card: catalogue.ModelCard | str | Path | None = None,
    fallback: catalogue.ModelCard | None = None,
    positions: int | None = None,
) -> Model:
    """Load a model by the name of one that ships or is installed, or from a weights file.

    Args:
        name_or_path: a name of `dualtrack models list`, a .safetensors or PyTorch file, or the folder of a finished
            training; without it the small model that ships, which was trained on simulated sweeps only.
        card: the card or its JSON file; by default the one inside the file, else the one beside it.
        fallback: the card where there is none of these; by default that of the published model of that name, else that
            of unknown weights of the published network.
        positions: shorten the tables to this many frames at a time (exact for sweeps that fit in them).

    Raises CheckpointError: not installed, damaged, unsafe, of another network, or `positions` beyond the tables.
    """
    path = Path(name_or_path)
    if not os.path.isfile(name_or_path):  # unlike Path.is_file it takes names that no file can have
        name = str(name_or_path)
        path, fallback = catalogue.installed_path(name), fallback or catalogue.published_card(name)
    tensors, inner_card = read_weights(path)
    if isinstance(card, str | Path):
        card = catalogue.read_card(Path(card))
    card = card or inner_card or catalogue.read_card_beside(path) or fallback or catalogue.ModelCard(name=path.stem)
    longest = positions_of(tensors) or 1024
    card = replace(card, architecture={**card.architecture, "positions": longest})
    if positions is not None:
        tensors = resize_positions(tensors, positions)
        if positions > longest:
            raise CheckpointError(
                f"positions is {positions}, but the tables of {path.name} were trained for {longest} frames at a time; "
                "longer sweeps are tracked in windows, and a recipe can train longer tables."
            )
        card = replace(card, architecture={**card.architecture, "positions": positions})
    network = build_network(card)
    load_weights(network, tensors, path.name)
    return Model(network, card, file_sha256(path))


def build_network(card: catalogue.ModelCard) -> DualTrack:
    """Build the network that a card describes, with random weights.

    Raises:
        CheckpointError: the card's architecture has an argument that the network does not know, or an impossible value.
    """
    try:
        return DualTrack(**card.architecture)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        name, reason = short_text(card.name), str(error).rstrip(".")
        raise CheckpointError(f"The model card {name} describes no network of this version: {reason}.") from None


def save_model(network: DualTrack, card: catalogue.ModelCard, path: str | Path) -> Path:
    """Write weights and card into one safetensors file, atomically, and return its path.

    The architecture in the card becomes that of the network, so that the file can always be loaded again.
    """
    path = Path(path)
    card = replace(card, architecture=network.arguments)
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    _write_tensors(tensors, {catalogue.CARD_KEY: card.to_json()}, path)
    return path


def convert_weights(source: Path, target: Path, sha256: str) -> None:
    """Write the tensors of a PyTorch file as safetensors, atomically; `sha256` is that of the source, for the record.

    Raises:
        CheckpointError: as :func:`read_weights`, or a tensor of a kind that safetensors do not hold.
        OutputError: the target cannot be written; a file there is untouched.
    """
    tensors = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in read_weights(source)[0].items()
    }
    try:
        _write_tensors(tensors, {catalogue.ORIGINAL_KEY: sha256}, target)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{source.name} cannot be converted to safetensors: {reason_of(error)}.") from None


def _write_tensors(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read


def read_weights(path: Path) -> tuple[dict[str, Tensor], catalogue.ModelCard | None]:
    """Read the tensors of a .safetensors or PyTorch file, and the card inside it if there is one.

    The file holds a state dict, or a training checkpoint with the state dict under `model`. The prefix that
    torch.compile adds is removed.

    Raises CheckpointError: no such file, damaged, not a weights file, holding anything but tensors, or a PyTorch file
    where torch is too old to read it safely.
    """
    content, card = read_content(path)
    tensors, _ = plain_state_dict(content, path)
    return {key.removeprefix("_orig_mod."): value for key, value in tensors.items()}, card


def read_content(path: Path) -> tuple[Any, catalogue.ModelCard | None]:
    """Read what a .safetensors or PyTorch file holds, without running code, and the card inside it.

    Raises CheckpointError: no such file, damaged, not a weights file, holding more than tensors and plain values, or a
    PyTorch file where torch is too old to read it safely.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path}; `dualtrack models list` shows what is installed.")
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file starts with the length of its JSON header.
    if head[8:9] == b"{":
        try:
            return load_file(path), catalogue.read_card_inside(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"The weights file {path.name} is damaged or cut short ({reason_of(error)}); fetch it again."
            ) from None
    if head.startswith(catalogue.PICKLE_HEADS):
        require_safe_torch(path.name)
        return _read_pickle(path), None
    raise CheckpointError(f"{path.name} is not a weights file: it is neither safetensors nor PyTorch.")


def require_safe_torch(name: str) -> None:
    """Raise :class:`CheckpointError` where this torch has known holes in how it reads the PyTorch file `name`."""
    if TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise CheckpointError(
            f"{name} was not opened: torch {torch.__version__} has known holes through which a PyTorch file can run "
            f"code; update torch to {_SAFE_TORCH} or later, or run `dualtrack models import NAME FILE` where there is "
            "one and use the .safetensors file that it makes."
        )


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        names = []
        with contextlib.suppress(Exception):  # files of old versions of torch, or an old torch
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        imports = f" ({some_keys(names)})" if names else ""
        raise CheckpointError(
            f"The weights file {path.name} holds more than tensors{imports} and was not opened, because such a file "
            "can run code; ask for a file with the state dict alone: torch.save(checkpoint['model'], ...)."
        ) from None
    except Exception as error:  # damaged files raise anything from EOFError to RuntimeError
        raise CheckpointError(
            f"The weights file {path.name} is damaged or cut short ({type(error).__name__}); fetch it again."
        ) from None


def plain_state_dict(
    content: Any, path: Path, containers: Sequence[str] = ("model",)
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in what a file holds, and the keys that lead to it.

    Args:
        content: of the file.
        path: of the file, for messages.
        containers: keys under which a state dict may lie, the preferred first.

    Raises CheckpointError: no state dict, or values that are no tensors.
    """
    levels: list[str] = []
    while isinstance(content, Mapping):
        inner = next((key for key in containers if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        levels.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path.name} holds no state dict; expected tensors by name, or those under {', '.join(containers)}."
        )
    if wrong := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path.name} is not a state dict: {some_keys(wrong)} hold no tensors.")
    return {str(key): value for key, value in content.items()}, levels


def positions_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the rows of the position table, the most frames at a time; None without a table."""
    table = tensors.get(POSITION_KEY)
    return None if table is None or table.ndim != 2 else table.shape[0]


def resize_positions(tensors: Mapping[str, Tensor], positions: int) -> dict[str, Tensor]:
    """Return weights for another number of frames at a time; the output on sweeps that fit both does not change.

    Distance tables stay centred on distance 0 and position rows keep their index. New entries are zero; sweeps that
    use them need a fine-tuned model, so only training makes tables longer.

    Raises CheckpointError: no position table, or no sensible number of positions.
    """
    old = positions_of(tensors)
    if not isinstance(positions, int) or not 1 <= positions <= MAX_POSITIONS:
        raise CheckpointError(f"positions is {positions!r}; it must be a whole number from 1 to {MAX_POSITIONS}.")
    if old is None:
        raise CheckpointError(f"Weights without a position table cannot be made to fit {positions} positions.")
    resized = dict(tensors)
    for key, table in tensors.items():
        if key.endswith(_POSITION_SUFFIX):
            resized[key] = F.pad(table, (0, 0, 0, positions - old))  # a negative number cuts
        elif key.endswith(_DISTANCE_SUFFIX):
            resized[key] = F.pad(table, (0, 0, positions - old, positions - old))
    return resized


def load_weights(network: DualTrack, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put weights into the network, strictly.

    Every tensor that the poses depend on must be there with its exact shape and finite values, and no other tensors.
    The heads of training stages may be missing or of any shape; they are then set to zero.

    Raises CheckpointError: names the keys that are missing, unknown, of another shape, or not finite.
    """
    expected = network.state_dict()
    is_used = {key: not key.startswith(UNUSED_HEADS) for key in {*expected, *tensors}}
    missing = [k for k in expected if k not in tensors and is_used[k] and not k.endswith("num_batches_tracked")]
    unknown = [k for k in tensors if k not in expected and is_used[k]]
    usable = {k: tensors[k] for k in expected if k in tensors and is_used[k]}
    require_match(expected, usable, missing, unknown, where)
    for key, value in expected.items():
        if not is_used[key]:
            given = tensors.get(key)
            usable[key] = given if given is not None and given.shape == value.shape else torch.zeros_like(value)
    network.load_state_dict(usable, strict=False)


def require_match(
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    missing: list[str],
    unknown: list[str],
    where: str,
    network: str = "this network",
    remedy: str = "",
) -> None:
    """Raise if tensors do not fit a network.

    Args:
        expected: tensors of the network.
        tensors: those of the same names in the file.
        missing, unknown: names that only the network, or only the file, has.
        where: name of the file.
        network, remedy: for the message.

    Raises:
        CheckpointError: names the keys that are missing, unknown, of another shape, not finite, or below zero where
            they are variances.
    """
    shapes = [
        f"{k} {tuple(v.shape)} instead of {tuple(expected[k].shape)}"
        for k, v in tensors.items()
        if v.shape != expected[k].shape
    ]
    kinds = ((missing, "missing"), (unknown, "unknown"), (shapes, "of another shape"))
    if problems := [f"{len(keys)} {what} ({some_keys(keys)})" for keys, what in kinds if keys]:
        raise CheckpointError(f"{where} is not a checkpoint of {network}: tensors {'; '.join(problems)}{remedy}.")
    if broken := [k for k, v in tensors.items() if not torch.isfinite(v).all()]:
        raise CheckpointError(f"{where} holds numbers that are not finite in {some_keys(broken)}; fetch it again.")
    if below := [k for k, v in tensors.items() if k.endswith("running_var") and (v < 0).any()]:
        raise CheckpointError(f"{where} holds variances below zero in {some_keys(below)}; fetch it again.")


def some_keys(keys: list[str], most: int = 3) -> str:
    """The first keys on one line, for a message."""
    shown = ", ".join(re.sub(r"\s+", " ", key) for key in keys[:most])
    return shown if len(keys) <= most else f"{shown}, ..."
