"""Class tokens of the frozen trunk and ViT on disk, so that later stages do not run the trunk again.

One file per sweep holds [variants, N, C]: 4 variants of every stored crop (forwards, reversed, each also mirrored), or
one of every stored draw, in which the scanner and the kept frames are drawn, too. A
frame takes C numbers per variant: 128 bytes for the published C = 64 in float16, its pixels 307,200. The 226 GB of
TUS-REC are at most 736,000 frames, so one variant takes 94 MB, and the 8 crops of the published recipe with their 4
variants 3.0 GB (6.0 GB in float32). The frames of a sweep are read once for all its variants. Files are memory-mapped:
only one item is in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.files import replacing
from DualTrackCore.network import DualTrack
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.training.samples import Draw, SweepItems, variant_index
from DualTrackCore.research.training.stored import content_key, require_room
from DualTrackCore.research.training.sweep_images import SweepImages
from DualTrackCore.tracking.preprocessing import as_grey


def store_tokens(
    items: SweepItems,
    network: DualTrack,
    folder: Path,
    device: torch.device,
    rank: int = 0,
    processes: int = 1,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Compute the tokens that are not stored yet; returns the file of every sweep.

    Args:
        items: of a stage with `stored_crops` or `stored_draws`; only what its augmentation can draw is computed.
        network: its local trunk and ViT run on `device`, in a session. On a graphics card the trunk computes in the
            precision of the recipe.
        folder: cache; files are named by the hash of weights, settings and sweep.
        rank, processes: this process computes every `processes`-th sweep.
        reporter: receives `Stage.TOKENS` (variants of sweeps, of this process).

    Raises:
        OutputError: no room for the tokens, or the folder cannot be written.
        Cancelled: the caller asked to stop; the tokens of finished sweeps stay.
    """
    precision = items.recipe.precision if device.type == "cuda" else "fp32"
    session, digest = InferenceSession(network, device, precision), hashlib.sha256(precision.encode())
    for part in (network.local.trunk, network.local.spatial):
        for key, value in part.state_dict().items():
            digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    place, reporter = folder / digest.hexdigest()[:16], reporter or Reporter()
    files = [place / f"{_sweep_hash(items, i, name)[:24]}.npy" for i, name in enumerate(items.sweeps.names)]
    missing = [sweep for sweep, path in enumerate(files) if not path.is_file()]
    width = network.local.spatial.layernorm.normalized_shape[0]
    shapes = {sweep: _shape(_stored(items, sweep), width) for sweep in missing}
    size = np.dtype(items.recipe.sampling.token_type).itemsize
    require_room(place, sum(map(math.prod, shapes.values())) * size, f"The class tokens of {len(missing)} sweeps")
    mine = [sweep for sweep in missing if sweep % processes == rank]
    variants = len(_stored(items, 0))
    for done, sweep in enumerate(mine):
        tokens = np.zeros(shapes[sweep], items.recipe.sampling.token_type)
        images = items.images[sweep].held()
        for number, draw in enumerate(_stored(items, sweep)):
            reporter.report(Stage.TOKENS, done * variants + number, len(mine) * variants)
            pieces = _pieces(images, draw, items.recipe.sampling.chunk_frames, reporter)
            tokens[draw.variant, : len(draw.frames)] = _streamed(session, pieces, len(draw.frames))
        with replacing(files[sweep]) as temporary, temporary.open("wb") as file:
            np.save(file, tokens)
    reporter.report(Stage.TOKENS, len(mine) * variants, len(mine) * variants)
    return files


def _variants(items: SweepItems) -> list[tuple[bool, bool, int]]:
    """(flipped, reversed, crop) of the tokens that items can draw."""
    sampling, augmentation, changes = items.recipe.sampling, items.recipe.augmentation, not items.validating
    crops = range(sampling.stored_crops if augmentation.crop and changes else 1)
    flips = (False, True) if augmentation.hflip and changes else (False,)
    turns = (False, True) if augmentation.reverse and changes else (False,)
    return [(flipped, turned, crop) for crop in crops for flipped in flips for turned in turns]


def _stored(items: SweepItems, sweep: int) -> list[Draw]:
    """The items of a sweep whose tokens are stored, with the row of each as its variant."""
    sampling = items.recipe.sampling
    if sampling.stored_draws:
        own = 1 if items.validating else sampling.windows_per_sweep
        epochs = 1 if items.validating else sampling.stored_draws
        keys = [(epoch, sweep * own + item) for epoch in range(epochs) for item in range(own)]
        return [replace(items.draw(*key), variant=row) for row, key in enumerate(keys)]
    order, draws = np.arange(len(items.sweeps.sweeps[sweep])), []
    for flipped, turned, crop in _variants(items):
        row, shift = variant_index(flipped, turned, crop), items.stored_shift(sweep, crop)
        draws.append(Draw(order[::-1] if turned else order, order, flipped, shift, row))
    return draws


def _shape(draws: list[Draw], width: int) -> tuple[int, int, int]:
    """Variants, frames and numbers of a frame; variants that are never drawn stay zero."""
    return 1 + max(draw.variant for draw in draws), max(len(draw.frames) for draw in draws), width


def _pieces(images: SweepImages, draw: Draw, size: int, reporter: Reporter) -> Iterator[torch.Tensor]:
    """Crops [n, crop, crop] of all frames of an item, in its order; a scanner sees them all at once."""
    size = len(draw.frames) if draw.scan is not None else size
    for start in range(0, len(draw.frames), size):
        reporter.check()
        yield images.local(draw.frames[start : start + size], draw.flipped, draw.shift, draw.scan)


def _streamed(session: InferenceSession, pieces: Iterable[torch.Tensor], count: int) -> np.ndarray:
    """[count, C] class tokens of crops, given in order as pieces [n, crop, crop]."""
    stream = session.stream()
    parts, pushed = [], 0
    with torch.inference_mode():
        for piece in pieces:
            pushed += len(piece)
            parts.append(stream.push(as_grey(piece.to(session.device)), last=pushed == count).cpu())
    return torch.cat(parts).numpy()


def _sweep_hash(items: SweepItems, sweep: int, name: str) -> str:
    recipe, card = items.recipe, items.card
    augmentation = recipe.augmentation
    drawn = [augmentation.hflip > 0, augmentation.reverse > 0, augmentation.crop, recipe.sampling.stored_crops]
    shifts = [items.stored_shift(sweep, crop) for crop in range(recipe.sampling.stored_crops)]
    key, number_type = content_key(name, items.sweeps.sweeps[sweep]), recipe.sampling.token_type
    settings = [name, key, card.spacing_mm, number_type, items.validating, drawn, shifts]
    if recipe.sampling.stored_draws:
        draws = _stored(items, sweep)
        settings += [(draw.frames.tolist(), draw.flipped, draw.shift, repr(draw.scan)) for draw in draws]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
