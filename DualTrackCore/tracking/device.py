"""The device of a run: choice, precision, memory, and transfer of frames to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.memory import available_memory_bytes
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.dualtrack import DualTrack
from DualTrackCore.network.fast import forget_prepared, has_compiled_kernels
from DualTrackCore.network.model import Model
from DualTrackCore.sweep import Sweep

Precision = Literal["auto", "fp32", "bf16", "fp16"]
#: Largest change of a motion, mm or degrees, up to which "auto" takes a reduced precision.
MOST_PRECISION_ERROR = 0.03
#: Frames of a sweep that a reduced precision is checked on.
CHECKED_FRAMES = 64
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Frames at a time in fp32 on the CPU and on Apple's GPU: enough to keep the cores busy, few enough for the memory of a
#: laptop. Half precision takes twice as many, as activations need half the memory.
_DEFAULT_CHUNK = 16
#: Activation bytes that one frame needs at the published size (256-pixel crop, 64 channels in stage 1).
_PUBLISHED_FRAME_BYTES = 48e6
#: Attribute of a network that holds its placement.
_PLACEMENT = "_placement"


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
    """ "fp32", "bf16" or "fp16", and for "auto" a sentence if a check decided.

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

    Raises InputError: an unknown name, or fp16 on the CPU, where its range of numbers is not safe.
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
    if precision not in _DTYPES:
        raise InputError(f"There is no precision {precision!r}; use auto, fp32, bf16 or fp16.")
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


def half_precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context for the convolutional trunks. On CUDA, fp32 excludes TF32, which is no more precise than fp16."""
    if precision == "fp32":
        flags = torch.backends.cudnn.flags
        return flags(enabled=True, allow_tf32=False) if device.type == "cuda" else contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def choose_chunk(chunk_frames: int | str, network: DualTrack, device: torch.device, precision: str = "fp32") -> int:
    """Frames that go through the trunk at a time.

    "auto" is 16 (32 in half precision), or fewer if a third of the free memory holds fewer; on CUDA as many as that
    third holds (4 to 128).

    Raises InputError: not "auto" and not a whole number of at least 1.
    """
    if chunk_frames == "auto":
        width = network.local.trunk.stem[3].out_channels
        frame_bytes = _PUBLISHED_FRAME_BYTES * (network.crop_size / 256) ** 2 * width / 64
        if device.type != "cuda":
            usual = _DEFAULT_CHUNK if precision == "fp32" else 2 * _DEFAULT_CHUNK
            return int(min(usual, max(available_memory_bytes() / 3 / frame_bytes, 1)))
        free, _ = torch.cuda.mem_get_info(device)
        return int(min(max(free / 3 / frame_bytes, 4), 128))
    if isinstance(chunk_frames, bool) or not isinstance(chunk_frames, int) or chunk_frames < 1:
        raise InputError(f"chunk_frames is {chunk_frames!r}; it must be 'auto' or a whole number of at least 1.")
    return chunk_frames


def release_memory(device: torch.device) -> None:
    """Free cached memory of the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class _Placement:
    """Device of a network and its number of users there; a copy of the network starts with none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.device, self.users = torch.device("cpu"), 0

    def __reduce__(self) -> tuple[type, tuple]:
        return _Placement, ()


@contextlib.contextmanager
def on_device(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Context that keeps a network on a device; the last user to leave moves it to the CPU and frees device memory.

    Raises InputError: another thread, or a live tracker, uses the network on another device.
    """
    place: _Placement = network.__dict__.setdefault(_PLACEMENT, _Placement())
    device = torch.empty(0, device=device).device  # "cuda" is the current one of several
    with place.lock:
        if place.users and place.device != device:
            raise InputError(
                f"The model is in use on {place.device} and cannot run on {device} meanwhile; wait for that run, or "
                "load the model a second time."
            )
        try:
            network.to(device)
        except BaseException:
            if not place.users:
                _take_back(network, device)
            raise
        place.device, place.users = device, place.users + 1
    try:
        yield
    finally:
        with place.lock:
            place.users -= 1
            if not place.users:
                _take_back(network, device)


def _take_back(network: nn.Module, device: torch.device) -> None:
    if device.type != "cpu":
        for trunk in (module for module in network.modules() if isinstance(module, Trunk)):
            forget_prepared(trunk)
    network.to("cpu")
    release_memory(device)


class FramesAhead:
    """Reads the frames of a sweep in order, each once, in a thread that is one chunk ahead.

    Use as a context manager: its end stops the thread.

    Args:
        sweep: with images.
        device: where the frames are wanted.
    """

    def __init__(self, sweep: Sweep, device: torch.device) -> None:
        self._sweep, self._device = sweep, device
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dualtrack-frames")
        self._next: Future[Tensor] | None = None
        self._held = torch.empty(0)
        self._start = self._read = 0

    def __enter__(self) -> FramesAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self, start: int, count: int) -> Tensor:
        """Frames [n, H, W] uint8 on the device, from `start`; n is at most `count`, less at the end of a chunk.

        `start` may go back to the chunk taken last, for smaller pieces of it without a new read, but not further.
        """
        while start >= self._start + len(self._held):
            waiting, self._next = self._next, None  # a failed read is repeated at the next call
            frames = self._fetch(count) if waiting is None else waiting.result()
            if self._copying is not None:
                computing = torch.cuda.current_stream(self._device)
                computing.wait_stream(self._copying)
                frames.record_stream(computing)
            self._start, self._held = self._start + len(self._held), frames
            self._next = self._thread.submit(self._fetch, count) if self._read < len(self._sweep) else None
        first = start - self._start
        return self._held[first : first + count]

    def _fetch(self, count: int) -> Tensor:
        stop = min(self._read + count, len(self._sweep))
        frames = torch.from_numpy(np.require(self._sweep.window(self._read, stop), requirements="CW"))
        if self._copying is None:
            frames = frames.to(self._device)
        else:
            with torch.cuda.stream(self._copying):
                frames = frames.pin_memory().to(self._device, non_blocking=True)
        self._read = stop
        return frames
