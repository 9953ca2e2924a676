"""Trajectories from one encoder alone, by the heads that training gave the local and the global encoder."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.network.model import Model
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import Estimate, motions_in_windows
from DualTrackCore.tracking.device import Precision
from DualTrackCore.tracking.engine import estimate_trajectory, run_network
from DualTrackCore.trajectory import Trajectory, accumulate, matrices_from_parameters

Head = Literal["fusion", "local", "global"]
#: Frames of a sweep that the global head sees by default.
GLOBAL_SAMPLES = 32


def estimate_with_head(
    sweep: Sweep,
    model: Model,
    head: Head,
    *,
    samples: int = GLOBAL_SAMPLES,
    test_time_augmentation: int = 1,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    chunk_frames: int | str = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Trajectory:
    """The trajectory by the whole network or by one of its encoders, for comparing what each brings.

    "local": class tokens, temporal transformer and its own linear layer, as the stage local3 trains them. "global":
    the global encoder on `samples` frames evenly over the sweep, as the stage global trains it; poses between those
    frames are interpolated. Weights whose heads were not trained give meaningless motions.

    Args:
        sweep, model, device, precision, chunk_frames, progress, cancelled: as in
            :func:`~DualTrackCore.tracking.estimate_trajectory`; the precision "auto" of one encoder is fp32, as what
            others change was measured on the whole network.
        head: "fusion" is the whole network.
        test_time_augmentation: as there; more than one for "fusion" only.
        samples: for "global": frames that the encoder sees; a sweep longer than the position table is taken in pieces
            of that length, each with so many.

    Raises:
        InputError: an unknown head, one that the weights do not have, test-time augmentation of one encoder, or as in
            `estimate_trajectory`.
    """
    options = {"device": device, "precision": precision, "chunk_frames": chunk_frames}
    if head == "fusion":
        options |= {"test_time_augmentation": test_time_augmentation, "progress": progress, "cancelled": cancelled}
        return estimate_trajectory(sweep, model, **options)
    if test_time_augmentation != 1:
        raise InputError(f"The head {head!r} has no test-time augmentation; choose 1, or the head fusion.")
    options["precision"] = "fp32" if precision == "auto" else precision
    reporter = Reporter(progress, cancelled)
    if head == "local":
        poses, provenance = _local(sweep, model, reporter, options)
    elif head == "global":
        poses, provenance = _global(sweep, model, samples, reporter, options)
    else:
        raise InputError(f"The head {head!r} is unknown; choose fusion, local or global.")
    return Trajectory(poses, provenance={**provenance, "head": head})


def _local(sweep: Sweep, model: Model, reporter: Reporter, options: dict) -> tuple[np.ndarray, dict]:
    _require_trained(model.network.local.temporal_encoder.fc, "local", model)

    def head(session: InferenceSession, tokens: Tensor, _: Tensor, reporter: Reporter) -> Estimate:
        network, local = session.network, session.network.local

        def motions(start: int, stop: int) -> Tensor:
            with session.exact():
                return local.temporal_encoder.fc(local.temporal(tokens[None, start:stop]))[0, 1:]

        every = network.global_every
        return Estimate(motions_in_windows(len(tokens), network.positions, every, motions, reporter).numpy())

    found, provenance = run_network(sweep, model, head, global_frames=(), reporter=reporter, **options)
    return accumulate(matrices_from_parameters(found.motions)), provenance


def _global(sweep: Sweep, model: Model, samples: int, reporter: Reporter, options: dict) -> tuple[np.ndarray, dict]:
    if samples < 2:
        raise InputError(f"The global head was given {samples} frames of a sweep; it needs at least 2.")
    _require_trained(model.network.global_encoder.fc, "global", model)
    pieces = _pieces(len(sweep), model.network.positions, samples)
    chosen = np.unique(np.concatenate(pieces))

    def head(session: InferenceSession, _: Tensor, pooled: Tensor, reporter: Reporter) -> Estimate:
        encoder, parts = session.network.global_encoder, []
        for done, piece in enumerate(pieces):
            reporter.report(Stage.ATTENTION, done, len(pieces))
            features = pooled[torch.from_numpy(np.searchsorted(chosen, piece)).to(pooled.device)]
            index = torch.from_numpy(piece - piece[0]).to(pooled.device)
            with session.exact():
                parts.append(encoder.fc(encoder(features[None], index))[0, 1:])
        return Estimate(torch.cat(parts).cpu().numpy())

    found, provenance = run_network(sweep, model, head, global_frames=chosen, local=False, reporter=reporter, **options)
    return interpolated_poses(chosen, accumulate(matrices_from_parameters(found.motions))), provenance


def _require_trained(linear: nn.Linear, name: str, model: Model) -> None:
    """Refuse weights that came without the head."""
    if not linear.weight.any():
        raise InputError(
            f"The weights {model.card.name!r} hold no {name} head; take those of the stage that trains it."
        )


def _pieces(frames: int, positions: int, samples: int) -> list[np.ndarray]:
    """Frames for the global head in each piece of at most `positions` frames; neighbours share a frame."""
    if frames < 2:
        return [np.arange(frames)]  # refused later, with the sentence for it
    pieces = []
    for start in range(0, frames - 1, positions - 1):
        last = min(start + positions - 1, frames - 1)
        pieces.append(np.unique(np.rint(np.linspace(start, last, min(samples, last - start + 1))).astype(np.int64)))
    return pieces


def interpolated_poses(frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Poses of all frames from those of some.

    Between two of them the position moves evenly along a straight line and the rotation evenly about one axis.

    Args:
        frames: [K] rising frame indices, the first 0.
        poses: [K, 4, 4] rigid.

    Returns:
        [frames[-1] + 1, 4, 4].
    """
    every = np.arange(frames[-1] + 1)
    if len(frames) == 1:
        return np.repeat(poses, len(every), axis=0)
    result = np.tile(np.eye(4), (len(every), 1, 1))
    result[:, :3, :3] = Slerp(frames, Rotation.from_matrix(poses[:, :3, :3]))(every).as_matrix()
    result[:, :3, 3] = np.stack([np.interp(every, frames, positions) for positions in poses[:, :3, 3].T], axis=1)
    return result
