"""Training samples: windows and whole sweeps, with augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from DualTrackCore.errors import InputError
from DualTrackCore.evaluation.definitions import five_points_mm
from DualTrackCore.network import DualTrack
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.network.dualtrack import LocalEncoder
from DualTrackCore.path_error import OTHER_WAY_SIGNS
from DualTrackCore.research.baselines import MotionNetwork
from DualTrackCore.research.simulation.clip import kept_frames
from DualTrackCore.research.simulation.scanner import WARM_UP_FRAMES
from DualTrackCore.research.training.acquired import Scan
from DualTrackCore.research.training.recipe import WINDOW_STAGES, Recipe
from DualTrackCore.research.training.sweep_images import SweepImages
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.tracking.preprocessing import as_grey
from DualTrackCore.tracking.test_time_augmentation import mirrored, shifted
from DualTrackCore.trajectory import invert_rigid, parameters_from_matrices


def trunk_in_chunks(
    local: LocalEncoder, images: Callable[[int, int], Tensor], frames: int, size: int, head: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run the trunk and `head` over all frames, in pieces with margins of the receptive field.

    Args:
        local: its trunk must be in evaluation mode.
        images: gives crops [B, n, crop, crop] of frames start to stop - 1.
        frames: number of frames of the sweep.
        size: frames of a piece, without margins.
        head: feature maps [B, C, n, h, w] to [B, n, ...], frame by frame.

    Returns:
        [B, frames, ...].
    """
    margin = local.trunk.reach_frames

    def piece(crops: Tensor, first: int, count: int) -> Tensor:
        return head(local.trunk(as_grey(crops)[:, None])[:, :, first : first + count])

    parts = []
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        low = max(start - margin, 0)
        crops = images(low, min(stop + margin, frames))
        if torch.is_grad_enabled() and size < frames:  # with a single piece, checkpoints save no memory
            parts.append(checkpoint(piece, crops, start - low, stop - start, use_reentrant=False))
        else:
            parts.append(piece(crops, start - low, stop - start))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Draw:
    """One item of a sweep.

    Attributes:
        frames: [n] indices into the sweep, in the order of the network's input.
        positions: [n] their indices in the sequence they are taken from (the sweep or the reversed sweep).
        flipped: whether the images are mirrored left to right.
        shift: (rows, columns) of the local crop from the centre, pixels at the model's spacing, after the flip.
        variant: index of its stored class tokens, or None.
        scan: the scanner for the frames of a sweep of echo levels, or None.
    """

    frames: np.ndarray
    positions: np.ndarray
    flipped: bool = False
    shift: tuple[int, int] = (0, 0)
    variant: int | None = None
    scan: Scan | None = None


def one_way(values: np.ndarray) -> np.ndarray:
    """Motions [n, 6] (NaN where unknown), mirrored at the image plane if their mean tz is negative."""
    known = values[np.isfinite(values).all(axis=1)]
    return values * OTHER_WAY_SIGNS if len(known) and known[:, 2].mean() < 0 else values


def targets(poses: np.ndarray, valid: np.ndarray, draw: Draw, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Training targets: relative motions between the drawn images.

    Args:
        poses: [N, 4, 4] of the sweep, frame0_from_image, mm.
        valid: [N] bool.
        draw: the item; n frames.
        spacing_mm: the model's (columns, rows).

    Returns:
        [n - 1, 6] float64, mm and degrees, of frame i + 1 in frame i of the item, in the coordinates of the flipped
        and shifted images; NaN where a pose is invalid.
    """
    chosen = np.where(valid[:, None, None], poses, np.nan)[draw.frames]
    relative = invert_rigid(chosen[:-1]) @ chosen[1:]
    if draw.flipped:
        relative = mirrored(relative)
    return parameters_from_matrices(shifted(relative, draw.shift, spacing_mm))


def thinned(count: int, fraction: float, random: np.random.Generator) -> np.ndarray:
    """Rising indices of `count` frames without a random `fraction` of them; at least two remain."""
    dropped = min(round(count * fraction), max(count - 2, 0))
    return np.sort(random.permutation(count)[dropped:])


Item = dict[str, Tensor]


class SweepItems(Dataset):
    """Items of one stage; an index is (epoch, item), so that an item does not depend on earlier draws.

    Args:
        recipe: gives sampling and augmentation.
        sweeps: the sweeps to draw from.
        network: gives sizes only.
        card: spacing and normalisation.
        validating: whole sweeps (frames evenly spaced for the global stage) without augmentation, item i is sweep i.

    An item holds `targets` [n - 1, 6] float32 (mm, degrees; zero where unknown), `mask` [n - 1], `points` [4, 5],
    `through_mm` (true displacement towards +z, before targets are mirrored), and the inputs of the stage: `local`
    [n, crop, crop], `tokens` [n, C], `whole` [k, size, size], `frame_index` [k].
    """

    def __init__(
        self,
        recipe: Recipe,
        sweeps: SweepSet,
        network: DualTrack | MotionNetwork,
        card: ModelCard,
        validating: bool = False,
    ) -> None:
        self.recipe, self.sweeps, self.card, self.validating = recipe, sweeps, card, validating
        files = sweeps.image_files or [None] * len(sweeps)
        sizes = network.crop_size, network.global_size
        self.images = [SweepImages(s, card, *sizes, file) for s, file in zip(sweeps.sweeps, files, strict=True)]
        self._every, self._positions = network.global_every, network.positions
        self.token_files: Sequence[Path] | None = None
        if recipe.stage in WINDOW_STAGES and not validating:
            for name, sweep in zip(sweeps.names, sweeps.sweeps, strict=True):
                if len(sweep) < recipe.sampling.window:
                    raise InputError(
                        f"The sweep {name} has {len(sweep)} frames, fewer than sampling.window "
                        f"({recipe.sampling.window}); leave it out or shorten the window."
                    )

    def __len__(self) -> int:
        return len(self.sweeps) * (1 if self.validating else self.recipe.sampling.windows_per_sweep)

    def sweep_of(self, item: int) -> int:
        """Index of the sweep that an item comes from."""
        return item if self.validating else item // self.recipe.sampling.windows_per_sweep

    def draw(self, epoch: int, item: int) -> Draw:
        """Draw an item; depends only on the recipe's seed and the arguments."""
        sweep = self.sweep_of(item)
        count = len(self.sweeps.sweeps[sweep])
        if self.sweeps.acquisitions:
            return self._acquired_draw(epoch, item)
        if self.validating:
            frames = np.arange(min(count, self._positions))
            if self.recipe.stage == "global":
                drawn = min(self.recipe.sampling.random_frames, len(frames))
                frames = np.unique(np.rint(np.linspace(0, len(frames) - 1, drawn)).astype(np.int64))
            return Draw(frames, frames, variant=None if self.token_files is None else 0)
        random, augmentation = np.random.default_rng([self.recipe.seed, epoch, item]), self.recipe.augmentation
        flipped = bool(random.random() < augmentation.hflip)
        reversed_ = bool(random.random() < augmentation.reverse)
        variant, shift = None, (0, 0)
        if self.token_files is not None:
            crop = int(random.integers(self.recipe.sampling.stored_crops)) if augmentation.crop else 0
            variant, shift = variant_index(flipped, reversed_, crop), self.stored_shift(sweep, crop)
        elif augmentation.crop:
            shift = self.images[sweep].drawn_shift(random)
        positions, kept = self._positions_and_frames(count, random)
        return Draw(count - 1 - kept if reversed_ else kept, positions, flipped, shift, variant)

    def length(self, epoch: int, item: int) -> int:
        """The number of frames of an item; reads no image."""
        return len(self.draw(epoch, item).frames)

    def _acquired_draw(self, epoch: int, item: int) -> Draw:
        """Draw an item of a sweep of echo levels, with its own scanner, borders and kept frames."""
        sweep, stage, sampling = self.sweep_of(item), self.recipe.stage, self.recipe.sampling
        variant = None if self.token_files is None else 0
        if self.validating:
            epoch = 0  # the same clips each time
        elif sampling.stored_draws:
            epoch %= sampling.stored_draws
            if variant is not None:
                variant = epoch * sampling.windows_per_sweep + item % sampling.windows_per_sweep
        own, seed = self.sweeps.acquisitions[sweep], [self.recipe.seed, epoch, item]
        augmentation, random = self.recipe.augmentation, np.random.default_rng(seed)
        count = len(self.sweeps.sweeps[sweep])
        shift, flipped = (0, 0), False
        if self.validating:
            seed = [sweep]
        else:
            own = own.rescanned(random)
            flipped = bool(random.random() < augmentation.hflip)
            if augmentation.crop and random.random() < 0.5:
                shift = self.images[sweep].drawn_shift(random)
        most, shortest = self._positions, sampling.shortest
        if shortest is not None and not self.validating:
            most = int(np.exp(random.uniform(np.log(shortest), np.log(max(min(count, most), shortest)))))
        order = kept_frames(own.motion, count, random, most)
        if not self.validating and random.random() < augmentation.reverse:
            order = order[::-1]
        start = 0
        if stage in WINDOW_STAGES and not self.validating:
            start = int(random.integers(max(len(order) - sampling.window, 0) + 1))
            order = order[: start + sampling.window]
        frames, positions = order[start:], np.arange(len(order) - start)
        if stage == "global":
            positions = np.sort(random.permutation(len(frames))[: sampling.random_frames])
            frames = frames[positions]
        scan = Scan(own, order[max(start - WARM_UP_FRAMES, 0) : start], tuple(seed))
        return Draw(frames, positions, flipped, shift, variant, scan)

    def stored_shift(self, sweep: int, crop: int) -> tuple[int, int]:
        """Shift (rows, columns), pixels, of the crop number `crop` of stored class tokens; 0 is the centre."""
        if crop == 0:
            return (0, 0)
        return self.images[sweep].drawn_shift(np.random.default_rng([self.recipe.seed, sweep, crop, 1]))

    def targets(self, epoch: int, item: int) -> np.ndarray:
        """[n - 1, 6] float64 relative motions of an item, NaN where unknown; reads no image."""
        values = self._motions(self.sweep_of(item), self.draw(epoch, item))
        return one_way(values) if self.recipe.one_way else values

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, item = key
        sweep, draw = self.sweep_of(item), self.draw(epoch, item)
        as_it_runs = self._motions(sweep, draw)
        values = one_way(as_it_runs) if self.recipe.one_way else as_it_runs
        known = np.isfinite(values).all(axis=1)
        source = self.sweeps.sweeps[sweep]
        points = five_points_mm(source.image_from_pixel, source.frame_size)
        return {
            "targets": torch.from_numpy(np.where(known[:, None], values, 0)).float(),
            "mask": torch.from_numpy(known),
            "points": torch.from_numpy(points),
            "through_mm": torch.tensor([as_it_runs[known, 2].sum()]).float(),
            **self._seen(sweep, draw),
        }

    def _seen(self, sweep: int, draw: Draw) -> Item:
        images, stage = self.images[sweep], self.recipe.stage
        inputs: Item = {}
        if stage == "global":
            inputs["whole"] = images.whole(draw.frames, draw.flipped, draw.scan)
            inputs["frame_index"] = torch.from_numpy(draw.positions)
            return inputs
        if stage == "direction":
            inputs["whole"] = images.whole(draw.frames[:: self._every], draw.flipped, draw.scan)
            return inputs
        if draw.variant is None:
            inputs["local"] = images.local(draw.frames, draw.flipped, draw.shift, draw.scan)
        else:
            stored = np.load(self.token_files[sweep], mmap_mode="r")
            inputs["tokens"] = torch.from_numpy(np.array(stored[draw.variant, draw.positions], dtype=np.float32))
        if stage in ("fusion", "finetune1", "finetune2", "heads"):
            inputs["whole"] = images.whole(draw.frames[:: self._every], draw.flipped, draw.scan)
        return inputs

    def _motions(self, sweep: int, draw: Draw) -> np.ndarray:
        source = self.sweeps.sweeps[sweep]
        valid = source.tracked.valid & source.frame_valid
        return targets(source.tracked.poses, valid, draw, self.card.spacing_mm)

    def _positions_and_frames(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Positions for the network, and the frames at these places of the sweep or the reversed sweep."""
        sampling, augmentation = self.recipe.sampling, self.recipe.augmentation
        if self.recipe.stage in WINDOW_STAGES:
            start = int(random.integers(count - sampling.window + 1))
            frames = np.arange(start, start + sampling.window)
            return frames, frames
        start = int(random.integers(max(count - self._positions, 0) + 1))
        frames = np.arange(start, min(start + self._positions, count))
        if self.recipe.stage == "global":
            chosen = np.sort(random.permutation(len(frames))[: sampling.random_frames])
            return chosen, frames[chosen]
        if random.random() < augmentation.drop:
            frames = frames[thinned(len(frames), augmentation.drop_fraction, random)]
            return np.arange(len(frames)), frames
        # Stored tokens are indexed by the position in the whole sweep.
        return frames, frames


def variant_index(flipped: bool, reversed_: bool, crop: int) -> int:
    """Row of stored class tokens for one flip, order and crop."""
    return 4 * crop + 2 * reversed_ + flipped


def collate(items: Sequence[Item]) -> Item:
    """One batch; shorter items are padded with zeros, and `frames` [B] holds the number of frames of each."""
    batch = {"frames": torch.tensor([len(item["targets"]) + 1 for item in items])}
    return batch | {name: pad_sequence([item[name] for item in items], batch_first=True) for name in items[0]}
