"""The device of a run: choice, precision, memory, and transfer of frames to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.errors import InputError
from DualTrackCore.memory import available_memory_bytes
from DualTrackCore.network.dualtrack import DualTrack
from DualTrackCore.network.fast import has_compiled_kernels
from DualTrackCore.network.model import Model
from DualTrackCore.network.session import DTYPES, runs_in_chunks
from DualTrackCore.sweep import Sweep

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
#: Largest change of a motion, mm or degrees, up to which "auto" takes a reduced precision.
MOST_PRECISION_ERROR = 0.03
#: Frames of a sweep that a reduced precision is checked on.
CHECKED_FRAMES = 64
#: Frames at a time in fp32 on the CPU and on Apple's GPU: enough to keep the cores busy, few enough for the memory of a
#: laptop. Half precision takes twice as many, as activations need half the memory.
_DEFAULT_CHUNK = 16
#: Activation bytes that one frame needs at the published size (256-pixel crop, 64 channels in stage 1).
_PUBLISHED_FRAME_BYTES = 48e6
#: On a graphics card: the part of the free memory that a sweep may take, and the most, bytes.
_SHARE, _MOST_BYTES = 0.25, 3e9
#: Fewest and most frames of a chunk there, and the maps of the first stage that are alive at a time, with what is
#: smaller than they are.
_CHUNKS, _MAPS = (4, 512), 3.5
#: Frames that are copied to a graphics card at a time.
_FRAMES_SENT = 32


def choose_device(device: str | torch.device = "auto") -> tuple[torch.device, str]:
    """The device by name, without a check; "auto" takes CUDA or Apple's MPS if it agrees with the CPU, else the CPU.

    Returns:
        The device, and a sentence if "auto" rejected a device, else "".

    Raises InputError: this machine or this torch does not have the device.
    """
    if str(device) == "auto":
        fastest = fastest_device()
        if fastest.type == "cpu":
            return fastest, ""
        from DualTrackCore.tracking.checks import device_verdict

        verdict = device_verdict(fastest)
        return (fastest, "") if verdict.passed else (torch.device("cpu"), verdict.sentence)
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"There is no device {str(device)!r}; use auto, cpu, cuda, cuda:0, ... or mps.") from None
    is_missing = (chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()) or (
        chosen.type == "mps" and not torch.backends.mps.is_available()
    )
    if is_missing or chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"The device {str(device)!r} is not available on this machine; use auto or cpu.")
    return chosen, ""


def fastest_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(
    precision: Precision, device: torch.device, model: Model, measure: Callable[[str], float] | None = None
) -> tuple[str, str]:
    """ "fp32", "tf32", "bf16" or "fp16", and for "auto" a sentence if a check decided.

    "auto" takes the fastest precision of the device if it is precise enough by the model card, or else by a check
    (:func:`~DualTrackCore.tracking.checks.precision_verdict`); otherwise fp32.

    Half precision is for the convolutional trunks, which take nearly all of the time. The transformers always run in
    fp32: their sums over the whole sweep lose most from rounding. On CUDA fp16 is the fastest. On the CPU the compiled
    kernels in fp32 are about as fast as bfloat16 (measured), and exact. Without them, bfloat16 is twice as fast for the
    published network if the processor has instructions for it, else several times slower.

    Args:
        precision: a name; "auto" as above.
        device: where the network runs.
        model: its card and checksum.
        measure: as for `precision_verdict`.

    Raises InputError: an unknown name, fp16 on the CPU, where its range of numbers is not safe, or tf32 elsewhere than
    on CUDA.
    """
    if precision == "auto":
        if (fastest := fastest_precision(device)) == "fp32":
            return "fp32", ""
        stated = {"bf16": model.card.bf16_error, "fp16": model.card.fp16_error}[fastest]
        if stated is not None:
            return fastest if stated <= MOST_PRECISION_ERROR else "fp32", ""
        from DualTrackCore.tracking.checks import precision_verdict

        verdict = precision_verdict(fastest, device, model.sha256, measure)
        return fastest if verdict.passed else "fp32", verdict.sentence
    if precision not in DTYPES:
        raise InputError(f"There is no precision {precision!r}; use auto, fp32, tf32, bf16 or fp16.")
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"tf32 is a number format of NVIDIA's cards and not of {device.type}; use fp32.")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("fp16 is not supported on the CPU; use fp32 or bf16.")
    return precision, ""


def fastest_precision(device: torch.device) -> str:
    """Fp16 on CUDA, bf16 on a CPU with instructions for it and without the compiled kernels, else fp32."""
    if device.type == "cpu":
        return "bf16" if computes_in_bf16() and not has_compiled_kernels() else "fp32"
    return "fp16" if device.type == "cuda" else "fp32"


def computes_in_bf16() -> bool:
    """Whether this processor has instructions for bfloat16 (AVX-512 BF16 or AMX) that this torch uses."""
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.backends.mkldnn.is_available() and any(ask() for ask in asks if ask is not None)


def choose_chunk(
    chunk_frames: int | str,
    network: DualTrack,
    device: torch.device,
    precision: str = "fp32",
    frames: int | None = None,
) -> int:
    """Frames that go through the trunk at a time.

    "auto" is 16 (32 in half precision), or fewer if a third of the free memory holds fewer. On CUDA it is as many as a
    quarter of the free memory holds, at most 3 GB, with the network (4 to 512); a sweep of so many `frames` is then
    taken in equal parts.

    Raises InputError: not "auto" and not a whole number of at least 1.
    """
    if chunk_frames == "auto":
        width, side = network.local.trunk.stem[3].out_channels, network.crop_size
        if not runs_in_chunks(device):
            frame_bytes = _PUBLISHED_FRAME_BYTES * (side / 256) ** 2 * width / 64
            usual = _DEFAULT_CHUNK if precision == "fp32" else 2 * _DEFAULT_CHUNK
            return int(min(usual, max(available_memory_bytes() / 3 / frame_bytes, 1)))
        held = sum(tensor.nbytes for tensor in network.parameters())
        room = min(_SHARE * torch.cuda.mem_get_info(device)[0], _MOST_BYTES) - held
        fitting = room / (_MAPS * width * (side // 2) ** 2 * DTYPES[precision].itemsize)
        chunk = int(min(max(fitting - 2 * network.local.trunk.reach_frames, _CHUNKS[0]), _CHUNKS[1]))
        return chunk if frames is None else -(-frames // -(-frames // chunk))
    if isinstance(chunk_frames, bool) or not isinstance(chunk_frames, int) or chunk_frames < 1:
        raise InputError(f"chunk_frames is {chunk_frames!r}; it must be 'auto' or a whole number of at least 1.")
    return chunk_frames


def release_memory(device: torch.device) -> None:
    """Free cached memory of the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def frames_ahead(sweep: Sweep, device: torch.device, count: int) -> Iterator[Tensor]:
    """Frames [n, H, W] uint8 of a sweep on a device, `count` at a time, in order.

    A thread reads and sends those that come next while those before are at work.
    """
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fetch(start: int) -> Tensor:
        frames = sweep.window(start, min(start + count, len(sweep)))
        if copying is None:
            return torch.from_numpy(np.require(frames, requirements="CW")).to(device)
        with torch.cuda.stream(copying):
            return _sent(frames, device)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="dualtrack-frames") as thread:
        coming = thread.submit(fetch, 0)
        for start in range(0, len(sweep), count):
            frames = coming.result()
            if copying is not None:
                computing = torch.cuda.current_stream(device)
                computing.wait_stream(copying)
                frames.record_stream(computing)
            if start + count < len(sweep):
                coming = thread.submit(fetch, start + count)
            yield frames


def _sent(frames: np.ndarray, device: torch.device) -> Tensor:
    """Frames on a graphics card, through pinned memory in pieces: one is copied while the one before is under way."""
    there = torch.empty(frames.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(frames), _FRAMES_SENT):
        piece = frames[start : start + _FRAMES_SENT]
        pinned = torch.empty(piece.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        np.copyto(pinned.numpy(), piece)
        there[start : start + _FRAMES_SENT].copy_(pinned, non_blocking=True)
    return there
