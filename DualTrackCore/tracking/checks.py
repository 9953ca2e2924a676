"""Checks that run once per computer: a device against the CPU, and a reduced precision against fp32.

Each verdict is a file in the user's cache folder. The check runs again if the file cannot be read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from DualTrackCore import __version__
from DualTrackCore.errors import OutputError
from DualTrackCore.files import json_text, replacing
from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM
from DualTrackCore.network.dualtrack import DualTrack
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.tracking.device import CHECKED_FRAMES, MOST_PRECISION_ERROR
from DualTrackCore.tracking.preprocessing import Preprocessor

#: Largest difference between a device and the CPU, as a part of the range of the numbers. float32 differs by 1e-5.
MOST_DEVICE_ERROR = 1e-3
#: Sizes of the network for the check: the published widths, so that the same kernels are chosen.
_SIZES = {"crop_size": 64, "global_size": 48, "global_every": 4, "positions": 64, "local_blocks": 1, "global_blocks": 1}
_LAYERS = {"spatial_layers": 1, "temporal_layers": 1, "global_layers": 1, "fusion_layers": 1}


@dataclass(frozen=True)
class Verdict:
    """Result of a check: whether it passed, and a sentence for people."""

    passed: bool
    sentence: str


def verdict_folder() -> Path:
    """Where verdicts are kept."""
    from pooch import os_cache

    return os_cache("dualtrack") / "checks"


def recall(subject: Mapping[str, str]) -> Verdict | None:
    """The stored verdict on a subject; None if it is missing or cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
        values = json.loads(_path(subject).read_text(encoding="utf-8"))
        passed, sentence = values.get("passed"), values.get("sentence")
        if values.get("subject") == subject and isinstance(passed, bool) and isinstance(sentence, str):
            return Verdict(passed, sentence)
    return None


def remember(subject: Mapping[str, str], verdict: Verdict) -> None:
    """Store a verdict: the whole file or none."""
    with contextlib.suppress(OSError, OutputError), replacing(_path(subject)) as path:
        text = json_text({"subject": subject, "passed": verdict.passed, "sentence": verdict.sentence})
        path.write_text(text, encoding="utf-8")


def _path(subject: Mapping[str, str]) -> Path:
    return verdict_folder() / f"{hashlib.sha256(json_text(subject).encode()).hexdigest()[:32]}.json"


def device_name(device: torch.device) -> str:
    """Name of the card, or the system and the instruction set that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type} {platform.platform()}"  # on Apple's GPUs the kernels come with the system


def _subject(device: torch.device, **more: str) -> dict[str, str]:
    versions = {"torch": str(torch.__version__), "dualtrack": __version__}
    return {"device": device_name(device), **versions, **more}


def precision_verdict(
    precision: str, device: torch.device, sha256: str | None, measure: Callable[[str], float] | None
) -> Verdict:
    """Whether a model may run in a reduced precision.

    Args:
        precision: "bf16" or "fp16".
        device: where it runs.
        sha256: of the weights; None stores nothing.
        measure: from a precision to the largest change of a motion on the first `CHECKED_FRAMES` frames, mm or degrees;
            None if there are too few frames.
    """
    subject = _subject(device, check="precision", precision=precision, weights=sha256 or "")
    if sha256 is not None and (stored := recall(subject)) is not None:
        return stored
    if measure is None:
        frames = f"a sweep of more than {CHECKED_FRAMES} frames checks it"
        return Verdict(False, f"{precision} was not checked for this model on this computer ({frames}): fp32 was used.")
    error = measure(precision)
    passed = error <= MOST_PRECISION_ERROR  # False for NaN
    verdict = Verdict(
        passed,
        f"{precision} changed a motion of {CHECKED_FRAMES} frames by up to {error:.2g} mm or degrees when it was "
        f"checked on this computer; the limit is {MOST_PRECISION_ERROR}{'' if passed else ': fp32 was used'}.",
    )
    if sha256 is not None:
        remember(subject, verdict)
    return verdict


def device_verdict(device: torch.device) -> Verdict:
    """Whether a device gives the results of the CPU with the kernels of tracking.

    A check that ends with an error, such as too little memory, is not stored.
    """
    subject = _subject(device, check="device")
    if (stored := recall(subject)) is not None:
        return stored
    rest = f"the run goes on the CPU; name the device {device} to use it anyway."
    try:
        differences = parity(device)
    except Exception as error:  # drivers raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Verdict(False, f"{device_name(device)} could not be checked against the CPU ({reason}): {rest}")
    wrong = [f"{what} by {error:.2g}" for what, error in differences.items() if not error <= MOST_DEVICE_ERROR]
    text = f"{device_name(device)} does not compute as the CPU does ({', '.join(wrong)} of the range): {rest}"
    verdict = Verdict(not wrong, text if wrong else "")
    remember(subject, verdict)
    return verdict


def parity(device: torch.device) -> dict[str, float]:
    """Difference between tracking on a device and the plain network on the CPU, for each step and a small sweep.

    Returns:
        By the name of the step: the largest difference as a part of the range of the numbers on the CPU.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network = DualTrack(**_SIZES, **_LAYERS).eval()
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.01, 0.03)  # numbers keep their size from layer to layer
            elif any(part in name for part in ("distance_embedding", "query", "key")):
                tensor.mul_(3)  # attention differs between frames, as in trained networks
        frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 96, 128), dtype=np.uint8))
        expected = plain_steps(network, frames)
        own = engine_steps(network, frames, device)
    return {name: _difference(own[name].cpu(), expected[name]) for name in expected}


def plain_steps(network: DualTrack, frames: Tensor) -> dict[str, Tensor]:
    """Output of every step of tracking by the plain layers, for frames [n, H, W] uint8 on the CPU."""
    crops, images = _images(network, frames)
    maps = network.local.trunk(crops[None, None])
    tokens, pooled = network.local.frame_features(maps), network.global_encoder.image_features(images[None])
    motions = network.output_from_features(tokens, pooled).motions
    return _steps(crops, images, maps[0].transpose(0, 1), tokens[0], pooled[0], motions)


def engine_steps(network: DualTrack, frames: Tensor, device: torch.device) -> dict[str, Tensor]:
    """:func:`plain_steps` on a device, by a session, as in tracking."""
    session = InferenceSession(network, device)
    with session.exact():
        crops, images = _images(network, frames.to(device))
        stream = session.maps()
        maps = torch.cat([stream.push(crops[:4]).clone(), stream.push(crops[4:], last=True)])
    tokens, pooled = session.class_tokens(maps), session.pooled(images)
    return _steps(crops, images, maps, tokens, pooled, session.poses(tokens, pooled).motions)


def _images(network: DualTrack, frames: Tensor) -> tuple[Tensor, Tensor]:
    spacing_mm = (0.3, 0.15)  # differs from the network's, so that frames are resampled
    sizes = network.crop_size, network.global_size, 0.5, 0.25
    prepare = Preprocessor(tuple(frames.shape[1:]), spacing_mm, PUBLISHED_SPACING_MM, *sizes)
    return prepare.local(frames), prepare.global_image(frames[:: network.global_every])


def _steps(
    crops: Tensor, images: Tensor, maps: Tensor, tokens: Tensor, pooled: Tensor, motions: Tensor
) -> dict[str, Tensor]:
    return {
        "resampling": crops,
        "resizing": images,
        "3D convolution": maps,
        "2D convolution": pooled,
        "attention within frames": tokens,
        "attention over the sweep": motions[0],
    }


def _difference(own: Tensor, expected: Tensor) -> float:
    varies = (expected - expected.mean(dim=0)).abs().max()
    return float((own - expected).abs().max() / varies)
