"""Training items from sweeps of echo levels: applies a scanner to their frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.research.simulation.acquisition import Acquisition, Scanner
from DualTrackCore.research.simulation.render import levels_of_codes
from DualTrackCore.research.simulation.scanner import framed, scanned


@dataclass(frozen=True, eq=False)
class Scan:
    """The scanner for the frames of one item.

    Attributes:
        acquisition: with its probe and scanner.
        before: [b] indices of the frames before the item, for persistence.
        seed: of clutter, noise and burned-in marks.
    """

    acquisition: Acquisition
    before: np.ndarray
    seed: tuple[int, ...]

    def shown(self, codes: Tensor, spacing_mm: tuple[float, float], first_row: int, picture_rows: int) -> Tensor:
        """Frames [n, h, w] uint8 of a part of the picture.

        Args:
            codes: [b + n, h, w] uint8 codes of echo levels, the b frames of `before` first.
            spacing_mm: (across columns, down rows).
            first_row, picture_rows: first row of the part, and number of rows of the whole picture.
        """
        place = {"warm_up": len(self.before), "first_row": first_row, "picture_rows": picture_rows}
        return self._scanned(self.acquisition.scanner, codes, spacing_mm, np.random.default_rng(self.seed), **place)

    def pictures(self, codes: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        """Whole pictures [n, H, W] uint8 of codes of frames that are not neighbours, so without persistence."""
        random = np.random.default_rng(self.seed)
        alone = replace(self.acquisition.scanner, persistence=0.0, averaged_frames=1)
        shown = self._scanned(alone, codes, spacing_mm, random)
        return framed(shown, self.acquisition.view, spacing_mm, random)

    def _scanned(
        self,
        scanner: Scanner,
        codes: Tensor,
        spacing_mm: tuple[float, float],
        random: np.random.Generator,
        **place: int,
    ) -> Tensor:
        levels = torch.from_numpy(levels_of_codes(codes.numpy()))
        return scanned(levels, scanner, self.acquisition.probe, spacing_mm, random, **place)
