"""Initial weights of training: from earlier stages, from image backbones, or random."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.network import DualTrack, ModelCard
from DualTrackCore.network.backbones import IMAGENET_PIXELS, UNIT_PIXELS, add_lora, load_backbone_weights
from DualTrackCore.network.catalogue import installed_path, read_card_inside, shipped_folder
from DualTrackCore.network.dualtrack import UNUSED_HEADS
from DualTrackCore.network.model import load_weights, positions_of, read_weights, resize_positions
from DualTrackCore.network.statistics import PLAIN
from DualTrackCore.research.baselines import MotionNetwork, build_baseline
from DualTrackCore.research.simulation.acquisition import RANGES
from DualTrackCore.research.training.fingerprint import fingerprint
from DualTrackCore.research.training.recipe import Initial, Recipe
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.settings import known_keys
from DualTrackCore.sweep import Sweep

#: Name of the weights in the folder of a finished stage.
WEIGHTS_NAME = "model.safetensors"
#: Fields of a recipe's `initial` that name weights.
_WEIGHTS_OF = ("all", "local_encoder", "global_encoder", "local_trunk", "direction")
#: Heads that may be missing in earlier weights.
_ADDED_HEADS = ("direction.", "uncertainty.")
#: Amplitude of the waves of the position table, below that of the image features.
_WAVE_HEIGHT = 0.3


def recipe_card(recipe: Recipe) -> ModelCard:
    """The model card that a recipe describes; without a stated normalisation, training and card use none.

    Raises InputError: a field that a card does not have.
    """
    keys = [f.name for f in dataclasses.fields(ModelCard) if f.name != "architecture"]
    for name in recipe.card:
        if name not in keys:
            raise InputError(f"card.{name[:60]} in the recipe is no known key; {known_keys(name, keys)}.")
    card = ModelCard(**recipe.card, architecture=recipe.model)
    mean, std = card.normalisation or PLAIN
    return dataclasses.replace(card, global_mean=mean, global_std=std)


def trained_card(recipe: Recipe, runs: Path, training: SweepSet, validation: SweepSet) -> ModelCard:
    """The card of the weights that a recipe has trained: that of the recipe, without what must be measured.

    It says what the weights have seen, and takes the size and rate of the frames from recorded sweeps: warnings about
    other sweeps go by them. Errors are left unknown. Name, title, version and licence are replaced if a model that
    ships has the same. The weights are "simulated only" if all sweeps were simulated, also those of earlier stages.

    Args:
        recipe: that was run.
        runs: folder of earlier stages.
        training, validation: the sweeps of both sides.

    Raises CheckpointError: the file of an earlier stage is damaged.
    """
    card, unknown, own = recipe_card(recipe), ModelCard(), {"name": recipe.output.replace("/", "-")}
    own["title"] = f"Trained by the recipe {recipe.output}"
    shipped = [read_card_inside(path) for path in sorted(shipped_folder().glob("*.safetensors"))]
    reset = {
        name: own.get(name, getattr(unknown, name))
        for name in ("name", "title", "version", "licence", "licence_url")
        if any(other is not None and getattr(other, name) == getattr(card, name) for other in shipped)
    }
    given = recipe.initial
    earlier = filter(None, (getattr(given, name) for name in _WEIGHTS_OF))
    cards = [read_card_inside(_weights_path(reference, runs)) for reference in earlier]
    sweeps = (*training.sweeps, *validation.sweeps)
    kinds = sorted({"simulated" if sweep.is_simulated else "recorded" for sweep in sweeps})
    place = Path(recipe.data.csv or recipe.data.folder or "").resolve()
    place = place.parent if place.suffix == ".csv" else place
    origin = f", of {place.name}" if recipe.data.kind != "simulated" else ""
    started = ", ".join(dict.fromkeys(other.name for other in cards if other is not None))
    if kinds == ["recorded"]:
        card = dataclasses.replace(card, **_seen(sweeps, card))
    return dataclasses.replace(
        card,
        simulated_only=kinds == ["simulated"] and all(other is None or other.simulated_only for other in cards),
        training_fingerprint=fingerprint(training.sweeps),
        trained_ranges={name: list(ends) for name, ends in RANGES.items()} if recipe.data.acquisitions else None,
        training_data=f"{training.text} for training, {validation.text} for validation ({' and '.join(kinds)}{origin})"
        + (f", starting from {started}." if started else "."),
        expected_error=unknown.expected_error,
        bf16_error=unknown.bf16_error,
        fp16_error=unknown.fp16_error,
        **reset,
    )


def _seen(sweeps: Sequence[Sweep], card: ModelCard) -> dict[str, Any]:
    """Fields of a card from sweeps: the most frequent size of a frame, at the card's spacing, and the middle rate."""
    sizes = Counter(
        tuple(
            round(pixels * own / model)
            for pixels, own, model in zip(
                sweep.frame_size, sweep.require_spacing()[::-1], card.spacing_mm[::-1], strict=True
            )
        )
        for sweep in sweeps
    )
    rates = [rate for sweep in sweeps if (rate := sweep.frame_rate_hz) is not None]
    rate = {"frame_rate_hz": round(statistics.median(rates), 3)} if rates else {}
    return {"frame_size": sizes.most_common(1)[0][0], **rate}


def initial_network(recipe: Recipe, runs: Path, say: Callable[[str], None] | None = None) -> DualTrack | MotionNetwork:
    """The network of a recipe with its initial weights (stage baseline: random); the same at every call.

    LoRA adapters of the backbone are included.

    Args:
        recipe: model arguments, seed, initial weights, backbone.
        runs: folder of earlier stages.
        say: receives sentences on which pretrained backbone weights were used.

    Raises:
        InputError: the network cannot be built from the recipe's arguments, the weights are missing, or LoRA was chosen
            for a backbone without attention.
        CheckpointError: a file that is damaged, holds code, or belongs to another network or backbone.
    """
    torch.manual_seed(recipe.seed)
    if recipe.stage == "baseline":
        return build_baseline(**recipe.baseline)
    try:
        network = DualTrack(**recipe.model)
    except TypeError as error:
        raise InputError(f"model in the recipe describes no network: {error}.") from None
    given = recipe.initial
    if given.positions == "waves":
        _set_waves(network.global_encoder.pos_emb.weight)
    merged = dict(network.state_dict())
    for reference, prefix in (
        (given.all, ""),
        (given.local_encoder, "local_encoder."),
        (given.global_encoder, "global_encoder."),
        (given.local_trunk, "local_encoder.0.backbone.module.backbone."),
    ):
        if reference is not None:
            merged.update(_part(prefix, network, _weights_path(reference, runs)))
    if given.direction is not None:
        merged.update(_direction_part(network, _weights_path(given.direction, runs)))
    if dataclasses.replace(given, positions="random") != Initial():
        load_weights(network, merged, "The recipe's initial weights")
    if recipe.backbone.weights is not None:
        _load_backbone(recipe, network, say)
    if recipe.backbone.train == "lora":
        add_lora(network.global_encoder.backbone[0], recipe.backbone.rank)
    return network


def _load_backbone(recipe: Recipe, network: DualTrack, say: Callable[[str], None] | None) -> None:
    path = Path(recipe.backbone.weights)
    if not path.is_file():
        raise InputError(
            f"backbone.weights in the recipe names {path}, and there is no such file; nothing is downloaded here: "
            "fetch the checkpoint from its project and name its file there."
        )
    grey = recipe_card(recipe).normalisation
    pixels = {"imagenet": IMAGENET_PIXELS, "unit": UNIT_PIXELS}[recipe.backbone.pixels]
    loaded = load_backbone_weights(network.global_encoder.backbone[0], path, pixels=pixels, grey=grey)
    for sentence in loaded.sentences() if say else ():
        say(sentence)


def _set_waves(table: Tensor) -> None:
    """Fill a table [N, C] with sines and cosines of the position, wavelengths 6 to 60,000 frames (Vaswani 2017)."""
    position = torch.arange(len(table), dtype=torch.float32)[:, None]
    angle = position * torch.exp(-math.log(10_000) * torch.arange(0, table.shape[1], 2) / table.shape[1])
    with torch.no_grad():
        table[:, 0::2] = _WAVE_HEIGHT * angle.sin()
        table[:, 1::2] = _WAVE_HEIGHT * angle[:, : table.shape[1] // 2].cos()


def input_paths(recipe: Recipe, runs: Path) -> list[Path]:
    """Files and folders that a recipe reads: its own files, data, and weights (as named, and in `runs`)."""
    given, data = recipe.initial, recipe.data
    weights = list(filter(None, (getattr(given, name) for name in _WEIGHTS_OF)))
    named = [data.folder, data.validation_folder, data.csv, data.splits, recipe.backbone.weights, *weights]
    return [*recipe.files, *(Path(name) for name in named if name), *(runs / name for name in weights)]


def _weights_path(reference: str, runs: Path) -> Path:
    """The weights for a name in a recipe's `initial`: a file or a stage's folder, as named or in `runs`, or a model."""
    for place in (Path(reference), runs / reference):
        if place.is_file():
            return place
        if (place / WEIGHTS_NAME).is_file():
            return place / WEIGHTS_NAME
    with contextlib.suppress(CheckpointError):
        return installed_path(reference)
    raise InputError(
        f"initial in the recipe names {reference}, and neither that nor {runs / reference} is a weights file or a "
        f"finished stage with {WEIGHTS_NAME}, nor is it a model that ships or is installed; train that stage first."
    )


def _direction_part(network: DualTrack, path: Path) -> dict[str, Tensor]:
    """Tensors of a file's global encoder that fit the direction head, under the head's names."""
    prefix = "global_encoder."
    encoder = _part(prefix, network, path)
    shapes = {key: value.shape for key, value in network.state_dict().items() if key.startswith("direction.")}
    renamed = {"direction." + key.removeprefix(prefix): value for key, value in encoder.items()}
    return {key: value for key, value in renamed.items() if shapes.get(key) == value.shape}


def _part(prefix: str, network: DualTrack, path: Path) -> dict[str, Tensor]:
    """The tensors of a file under a prefix, with the position table resized to the network's."""
    tensors, shapes = read_weights(path)[0], {key: value.shape for key, value in network.state_dict().items()}
    expected = [k for k in shapes if k.startswith(prefix) and not k.startswith((*UNUSED_HEADS, *_ADDED_HEADS))]
    if missing := [k for k in expected if k not in tensors and not k.endswith("num_batches_tracked")]:
        raise CheckpointError(
            f"{path.name}, named by initial, lacks {len(missing)} tensors of this network, such as {missing[0]}."
        )
    positions = positions_of(tensors)
    if positions is not None and positions != network.positions:
        tensors = resize_positions(tensors, network.positions)
    heads = {k for k, v in tensors.items() if k.startswith(UNUSED_HEADS) and shapes.get(k) != v.shape}
    return {k: v for k, v in tensors.items() if k.startswith(prefix) and k not in heads}
