"""The base class of the networks of earlier methods: crops in, relative motions out, in pieces for long sweeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError

#: Key of the network's name among the arguments that build it again, in weights files too.
KIND_KEY = "baseline"
#: State of a network between two pieces of a sweep: None, or tensors of bounded size.
State = Any


class MotionNetwork(nn.Module, ABC):
    """Base of the networks.

    An output is the motion from one frame to the next, or, with `window_frames` W above 2, the mean of the W - 1
    motions in a window of W frames. Output j belongs to the window that starts at frame j.

    Args:
        crop_size: pixels a side of the central crop that the network sees, at the card's spacing.

    Attributes:
        head: the last layer, to (tx, ty, tz) in mm and rotations about x, y, z in degrees.
        arguments: of the constructor, and the name of the architecture under :data:`KIND_KEY`.
    """

    #: Name in recipes and weights files.
    architecture: ClassVar[str]
    #: Frames that an output belongs to.
    window_frames: int = 2
    #: Sizes that training reads from every network: no whole frames here, and no limit to the length of a sweep.
    global_size, global_every, positions = 1, 1, 1 << 31

    head: nn.Linear

    def __init__(self, crop_size: int, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.crop_size = crop_size
        sizes = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self.arguments = {KIND_KEY: self.architecture, **sizes}

    @abstractmethod
    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the outputs of consecutive frames.

        Args:
            images: [B, n, crop, crop] in 0 to 1, n at least `window_frames`.
            state: returned by the call for the frames before, whose last `window_frames` - 1 frames come first in
                `images`; None at the start of a sweep.

        Returns:
            [B, n - window_frames + 1, 6] and the state for the frames that follow.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Return motions [B, n - 1, 6] of images [B, n, crop, crop], 0 to 1; row i is of frame i + 1 in frame i."""
        return self.motions(self.outputs(images)[0])

    def motions(self, outputs: Tensor) -> Tensor:
        """Motions [B, n - 1, 6] from the outputs [B, m, 6] of n frames: the mean over the windows that hold a step."""
        steps, count = self.window_frames - 1, outputs.shape[1]
        total = outputs.new_zeros(outputs.shape[0], count + steps - 1, 6)
        windows = outputs.new_zeros(count + steps - 1, 1)
        for first in range(steps):
            total[:, first : first + count] += outputs
            windows[first : first + count] += 1
        return total / windows

    def wanted(self, targets: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets of the outputs of n frames.

        Args:
            targets: [B, n - 1, 6] motions.
            known: [B, n - 1] bool.

        Returns:
            [B, m, 6] and [B, m] bool: means over windows, known where every step of the window is known.
        """
        steps = self.window_frames - 1
        return targets.unfold(1, steps, 1).mean(dim=-1), known.unfold(1, steps, 1).all(dim=-1)


def motions_in_pieces(
    network: MotionNetwork,
    images: Callable[[int, int], Tensor],
    frames: int,
    size: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return the motions of a whole sweep in bounded memory, the same as of all frames at once.

    Args:
        network: in evaluation mode.
        images: [B, n, crop, crop] in 0 to 1 of frames start to stop - 1.
        frames: of the sweep.
        size: frames a piece; neighbours share as many as a window needs.
        report: called with the frames that are done and their total.

    Returns:
        [B, frames - 1, 6] float32.

    Raises InputError: the sweep is shorter than a window.
    """
    shared = network.window_frames - 1
    if frames <= shared:
        raise InputError(
            f"The sweep has {frames} frames; the {network.architecture} network needs at least {shared + 1}."
        )
    parts, state, start = [], None, 0
    report(0, frames)
    while start < frames - shared:
        stop = min(start + shared + max(size, 1), frames)
        outputs, state = network.outputs(images(start, stop), state)
        parts.append(outputs)
        start = stop - shared
        report(stop, frames)
    return network.motions(torch.cat(parts, dim=1))
