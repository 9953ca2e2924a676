"""Whole frames of recorded sweeps on disk, resized for the global encoder: one file of uint8 for each sweep.

A stage that sees whole frames draws them anew for every item. Of the 307,200 bytes of a frame of TUS-REC the encoder
sees 50,176, so that `paper/global` would read 118 TB of frames in its 5000 epochs, and resize each for about 2 ms. The
resized ones take 37 GB for all 736,000 frames. Files are mapped into memory: what there is room for, the system keeps
once for all processes of a machine. Grey values are rounded to whole ones, as the published training does; that changes
poses by about 0.002 mm.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.memory import available_memory_bytes
from DualTrackCore.network import DualTrack
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.baselines import MotionNetwork
from DualTrackCore.research.training.recipe import GLOBAL_STAGES, Recipe
from DualTrackCore.research.training.stored import alone, content_key, require_room
from DualTrackCore.research.training.sweeps import SweepSet, simulating_processes, training_sweeps
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.preprocessing import Preprocessor

#: Changes with the way in which frames are resized.
_METHOD = "bilinear, antialiased, rounded"
_WINDOW_FRAMES = 64


def ready_sweeps(
    recipe: Recipe,
    network: DualTrack | MotionNetwork,
    card: ModelCard,
    cache: Path,
    reporter: Reporter,
    say: Callable[[str], None] | None = None,
) -> tuple[SweepSet, SweepSet]:
    """Sweeps to train on and sweeps to validate on, with all that items of the stage read made ready.

    Whole frames of recorded sweeps are resized and stored, if the stage sees them. What it reads of frames beside these
    is taken into memory, as far as `data.memory_gb` goes, divided by the processes of the machine, and half of what is
    free; the rest stays in the files.

    Args:
        recipe: gives data, stage and processes.
        network: gives the size of whole frames.
        card: gives the spacing.
        cache: folder for what is kept between runs.
        reporter: receives `Stage.SWEEPS` and `Stage.IMAGES` (frames).
        say: receives sentences on what was made anew, and on waiting for other processes.

    Raises:
        InputError, DatasetError: as :func:`~DualTrackCore.research.training.sweeps.training_sweeps`, or a frame that
            cannot be read.
        OutputError: no room for the images, or their folder cannot be written.
        Cancelled: the caller asked to stop; the images of finished sweeps stay.
    """
    sets = training_sweeps(recipe.data, card, cache / "sweeps", simulating_processes(recipe), reporter)
    reads_frames = True
    if recipe.data.kind != "simulated" and recipe.stage in GLOBAL_STAGES:
        store = ImageStore(cache / "images", network.global_size, card.spacing_mm, recipe.workers)
        sets = store.filled(sets, reporter, say)
    if recipe.data.kind != "simulated":
        reads_frames = recipe.stage not in ("global", "direction") and not recipe.sampling.stored_crops
    memory = min(recipe.data.memory_gb * 1e9, available_memory_bytes() / 2) / recipe.devices if reads_frames else 0
    validation = sets[1].in_memory(memory / 4, reporter)
    return sets[0].in_memory(memory * 3 / 4, reporter), validation


class ImageStore:
    """Resized whole frames of sweeps, of one size.

    Args:
        folder: of all such stores.
        size: rows and columns of an image.
        spacing_mm: the model's (columns, rows), which sweeps of another one are resampled to.
        workers: processes that resize; 0 does it in this one.
    """

    def __init__(self, folder: Path, size: int, spacing_mm: tuple[float, float], workers: int) -> None:
        self.folder = folder / f"{size}-{spacing_mm[0]:g}x{spacing_mm[1]:g}"
        self.size, self._spacing, self._workers = size, spacing_mm, workers

    def filled(
        self, sets: Sequence[SweepSet], reporter: Reporter, say: Callable[[str], None] | None = None
    ) -> tuple[SweepSet, ...]:
        """The sets with the files of their images, after making those that are missing, cut short or of other frames.

        Raises: see :func:`ready_sweeps`.
        """
        sets = tuple(replace(part, image_files=tuple(map(self._file, part.names, part.sweeps))) for part in sets)
        pairs = [pair for part in sets for pair in zip(part.image_files, part.sweeps, strict=True)]
        if not all(self._is_whole(*pair) for pair in pairs):
            with alone(self.folder, reporter, say):
                self._make([pair for pair in pairs if not self._is_whole(*pair)], reporter, say)
        return sets

    def _file(self, name: str, sweep: Sweep) -> Path:
        """The first part of the name tells the sweep, the second one what its images are made of."""
        made_of = f"{_METHOD} {content_key(name, sweep)}"
        told, known = (hashlib.sha256(text.encode()).hexdigest()[:24] for text in (os.path.realpath(name), made_of))
        return self.folder / f"{told}-{known}.npy"

    def _is_whole(self, path: Path, sweep: Sweep) -> bool:
        try:
            stored = np.load(path, mmap_mode="r")  # refuses a file that is shorter than it says
        except (OSError, ValueError, EOFError):
            return False
        return (stored.shape, stored.dtype) == ((len(sweep), self.size, self.size), np.uint8)

    def _make(
        self, missing: Sequence[tuple[Path, Sweep]], reporter: Reporter, say: Callable[[str], None] | None
    ) -> None:
        """Make the files of these sweeps, those of other frames of them removed."""
        others = {path for wanted, _ in missing for path in self.folder.glob(f"{wanted.name.partition('-')[0]}-*.npy")}
        for path in others:
            path.unlink()
        if others and say is not None:
            say(f"{len(others)} files in {self.folder} are cut short or of frames that have changed; made anew.")
        frames = sum(len(sweep) for _, sweep in missing)
        require_room(self.folder, frames * self.size**2, f"The resized images of {frames} frames")
        windows = [(sweep, start) for _, sweep in missing for start in range(0, len(sweep), _WINDOW_FRAMES)]
        loader = DataLoader(_Resized(windows, self.size, self._spacing), batch_size=None, num_workers=self._workers)
        pieces, done = iter(loader), 0
        for path, sweep in missing:
            images = np.empty((len(sweep), self.size, self.size), np.uint8)
            for start in range(0, len(sweep), _WINDOW_FRAMES):
                reporter.report(Stage.IMAGES, done + start, frames)
                piece = next(pieces)
                if isinstance(piece, InputError):
                    raise piece
                images[start : start + len(piece)] = piece.numpy()
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, images)
            done += len(sweep)
        reporter.report(Stage.IMAGES, frames, frames)


class _Resized(Dataset):
    """Windows of sweeps, resized, [n, size, size] uint8; an InputError in place of one that cannot be read.

    A loader would put the error of another process into the text of a new one, with all that was called.
    """

    def __init__(self, windows: Sequence[tuple[Sweep, int]], size: int, spacing_mm: tuple[float, float]) -> None:
        self._windows, self._size, self._spacing = windows, size, spacing_mm

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, item: int) -> Tensor | InputError:
        sweep, start = self._windows[item]
        prepared = Preprocessor(sweep.frame_size, sweep.require_spacing(), self._spacing, 1, self._size)
        try:
            frames = np.ascontiguousarray(sweep.window(start, min(start + _WINDOW_FRAMES, len(sweep))))
        except InputError as error:
            return error
        return prepared.global_image(torch.from_numpy(frames)).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
