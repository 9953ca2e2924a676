"""Class tokens of the frozen trunk and ViT on disk, so that later stages do not run the trunk again.

One file per sweep holds [variants, N, C]: 4 variants of every stored crop (forwards, reversed, each also mirrored). A
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
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.files import replacing
from DualTrackCore.network import DualTrack
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.training.samples import SweepItems, variant_index
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
        items: of a stage with `stored_crops`; only variants that its augmentation can draw are computed.
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
    shapes = {sweep: _shape(items, sweep, network) for sweep in missing}
    size = np.dtype(items.recipe.sampling.token_type).itemsize
    require_room(place, sum(map(math.prod, shapes.values())) * size, f"The class tokens of {len(missing)} sweeps")
    mine, variants = [sweep for sweep in missing if sweep % processes == rank], len(_variants(items))
    for done, sweep in enumerate(mine):
        tokens = np.zeros(shapes[sweep], items.recipe.sampling.token_type)
        images = items.images[sweep].held()
        for number, variant in enumerate(_variants(items)):
            reporter.report(Stage.TOKENS, done * variants + number, len(mine) * variants)
            pieces = _pieces(items, images, sweep, variant, reporter)
            tokens[variant_index(*variant)] = _streamed(session, pieces, len(items.sweeps.sweeps[sweep]))
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


def _shape(items: SweepItems, sweep: int, network: DualTrack) -> tuple[int, int, int]:
    """Variants, frames and numbers of a frame; variants that are never drawn stay zero."""
    crops = 1 + max(crop for _, _, crop in _variants(items))
    return 4 * crops, len(items.sweeps.sweeps[sweep]), network.local.spatial.layernorm.normalized_shape[0]


def _pieces(
    items: SweepItems, images: SweepImages, sweep: int, variant: tuple[bool, bool, int], reporter: Reporter
) -> Iterator[torch.Tensor]:
    """Crops [n, crop, crop] of all frames of a sweep, in the order of a variant."""
    flipped, turned, crop = variant
    count, size = len(items.sweeps.sweeps[sweep]), items.recipe.sampling.chunk_frames
    order = np.arange(count)[:: -1 if turned else 1]
    for start in range(0, count, size):
        reporter.check()
        yield images.local(order[start : start + size], flipped, items.stored_shift(sweep, crop))


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
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
