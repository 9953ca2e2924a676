"""The trajectory of a growing sweep: a moving window of attention, and poses that may change."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from DualTrackCore.errors import InputError
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.trajectory import matrices_from_parameters


class ProvisionalPath:
    """Poses of the frames whose features are known so far.

    The transformers see the frames of one window. Its motions are estimated again at every update. When it is full, it
    moves on by three quarters of its length, and motions behind it do not change any more. Overlapping windows are
    averaged with weights that fall towards their ends, as for long sweeps. An update costs one window at most.

    Args:
        session: of the network, on the device of the features.
        window_frames: at least twice the network's `global_every`, at most its `positions`.

    Raises InputError: the window is outside these limits.
    """

    def __init__(self, session: InferenceSession, window_frames: int) -> None:
        network = session.network
        every = network.global_every
        if not 2 * every <= window_frames <= network.positions:
            raise InputError(
                f"The window has {window_frames} frames; for this model it must have {2 * every} to "
                f"{network.positions}."
            )
        #: Frames that the transformers see at a time, at most.
        self.window_frames = window_frames
        self._session, self._every = session, every
        self._stride = max(window_frames * 3 // 4 // every, 1) * every
        index = torch.arange(1, window_frames, dtype=torch.float64)[:, None]
        self._ramp = torch.minimum(index, window_frames - index)
        # Sums of weighted motions, and of weights, from earlier windows, starting at the window's first frame.
        self._left = torch.zeros(window_frames - 1, 6, dtype=torch.float64)
        self._left_weight = torch.zeros(window_frames - 1, 1, dtype=torch.float64)
        self._start = 0
        self._tokens: list[Tensor] = []
        self._pooled: list[Tensor] = []
        self._poses = np.eye(4)[None]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, tokens: Tensor, pooled: list[Tensor]) -> None:
        """Add features of the next frames; no pose changes until :meth:`update`.

        Args:
            tokens: [m, C] class tokens, m may be 0.
            pooled: pieces [k, F] of the global backbone's features; may be ahead of the tokens.
        """
        self._tokens.append(tokens)
        self._pooled.extend(pooled)

    def update(self, tail: Tensor | None = None) -> int:
        """Estimate the motions of the window again.

        Args:
            tail: class tokens [m, C] of the frames that follow, which are not known for good; they are not kept.

        Returns:
            The first frame whose pose is new or may have changed; `len(self)` if there is none.
        """
        known, pooled = torch.cat(self._tokens), torch.cat(self._pooled)
        tokens = known if tail is None else torch.cat([known, tail])
        changed = self._start + 1 if self._count else 0
        while len(tokens) > self.window_frames:
            self._move_on(tokens, pooled)
            tokens, known = tokens[self._stride :], known[self._stride :]
            pooled = pooled[self._stride // self._every :]
        self._tokens, self._pooled = [known.clone()], [pooled.clone()]  # a slice keeps the whole tensor in memory
        if len(tokens) < 2:
            return self._count
        motions = self._motions(tokens, pooled)
        n = len(motions)
        self._write((self._left[:n] + self._ramp[:n] * motions) / (self._left_weight[:n] + self._ramp[:n]))
        return changed

    def poses(self, start: int) -> np.ndarray:
        """frame0_from_image [n, 4, 4] float64 of the frames from `start` on, mm."""
        return self._poses[start : self._count].copy()

    def _move_on(self, tokens: Tensor, pooled: Tensor) -> None:
        """Fix the motions in the first part of the full window, and start the next window with the others."""
        weighted = self._left + self._ramp * self._motions(tokens[: self.window_frames], pooled)
        weight = self._left_weight + self._ramp
        self._write((weighted / weight)[: self._stride])
        shift = (0, 0, 0, self._stride)  # zeros behind the last row
        self._left, self._left_weight = F.pad(weighted[self._stride :], shift), F.pad(weight[self._stride :], shift)
        self._start += self._stride

    def _motions(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        count = -(-len(tokens) // self._every)
        return self._session.poses(tokens, pooled[:count]).motions[0].cpu().double()

    def _write(self, motions: Tensor) -> None:
        """Compute the poses of the frames after the window's first one from motions [n, 6]."""
        stop = self._start + 1 + len(motions)
        if stop > len(self._poses):
            self._poses = np.concatenate([self._poses, np.empty((max(stop, len(self._poses)), 4, 4))])  # at least twice
        for frame, step in enumerate(matrices_from_parameters(motions.numpy()), self._start):
            self._poses[frame + 1] = self._poses[frame] @ step
        self._count = max(self._count, stop)
