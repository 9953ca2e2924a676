"""Class tokens of the frozen trunk and ViT on disk, so that later stages do not run the trunk again.

One file per sweep holds [variants, N, C]: 4 variants of every stored crop (forwards, reversed, each also mirrored). A
frame takes C numbers per variant: 256 bytes for the published C = 64 in float32, its pixels 307,200. The 226 GB of
TUS-REC are at most 736,000 frames, so one variant takes 188 MB, one crop with its 4 variants 0.75 GB, and the 8 crops
of the published recipe 6.0 GB (3.0 GB in float16). Files are memory-mapped: only one item is in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.files import replacing
from DualTrackCore.network import DualTrack
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.research.training.samples import SweepItems, variant_index
from DualTrackCore.tracking.preprocessing import as_grey


def store_tokens(
    items: SweepItems, network: DualTrack, folder: Path, device: torch.device, rank: int = 0, processes: int = 1
) -> list[Path]:
    """Compute the tokens that are not stored yet; returns the file of every sweep.

    Args:
        items: of a stage with `stored_crops`; only variants that its augmentation can draw are computed.
        network: its local trunk and ViT run on `device`, in a session.
        folder: cache; files are named by the hash of weights, settings and sweep.
        rank, processes: this process computes every `processes`-th sweep.
    """
    session, digest = InferenceSession(network, device), hashlib.sha256()
    for part in (network.local.trunk, network.local.spatial):
        for key, value in part.state_dict().items():
            digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    files = []
    for sweep, name in enumerate(items.sweeps.names):
        path = folder / digest.hexdigest()[:16] / f"{_sweep_hash(items, sweep, name)[:24]}.npy"
        files.append(path)
        if sweep % processes == rank and not path.is_file():
            tokens = _tokens(items, sweep, session)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, tokens)
    return files


def _tokens(items: SweepItems, sweep: int, session: InferenceSession) -> np.ndarray:
    """[variants, N, C]; variants that are never drawn stay zero."""
    sampling, augmentation = items.recipe.sampling, items.recipe.augmentation
    crops = sampling.stored_crops if augmentation.crop and not items.validating else 1
    flips = (False, True) if augmentation.hflip and not items.validating else (False,)
    turns = (False, True) if augmentation.reverse and not items.validating else (False,)
    count = len(items.sweeps.sweeps[sweep])
    width = session.network.local.spatial.layernorm.normalized_shape[0]
    tokens = np.zeros((4 * crops, count, width), sampling.token_type)
    images = items.images[sweep]
    for crop, flipped, reversed_ in itertools.product(range(crops), flips, turns):
        shift = items.stored_shift(sweep, crop)
        order = np.arange(count)[::-1] if reversed_ else np.arange(count)
        pieces = (
            images.local(order[a : a + sampling.chunk_frames], flipped, shift).to(session.device)
            for a in range(0, count, sampling.chunk_frames)
        )
        tokens[variant_index(flipped, reversed_, crop)] = _streamed(session, pieces, count)
    return tokens


def _streamed(session: InferenceSession, pieces: Iterable[torch.Tensor], count: int) -> np.ndarray:
    """[count, C] class tokens of crops, given in order as pieces [n, crop, crop]."""
    stream = session.stream()
    parts, pushed = [], 0
    with torch.inference_mode():
        for piece in pieces:
            pushed += len(piece)
            parts.append(stream.push(as_grey(piece), last=pushed == count).cpu())
    return torch.cat(parts).numpy()


def _sweep_hash(items: SweepItems, sweep: int, name: str) -> str:
    recipe, card, source = items.recipe, items.card, items.sweeps.sweeps[sweep]
    augmentation = recipe.augmentation
    drawn = [augmentation.hflip > 0, augmentation.reverse > 0, augmentation.crop, recipe.sampling.stored_crops]
    shifts = [items.stored_shift(sweep, crop) for crop in range(recipe.sampling.stored_crops)]
    first = hashlib.sha256(np.ascontiguousarray(source.window(0, min(4, len(source)))).tobytes()).hexdigest()
    number_type = recipe.sampling.token_type
    settings = [name, source.frames.shape, first, card.spacing_mm, number_type, items.validating, drawn, shifts]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
