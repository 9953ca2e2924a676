"""A network made ready on one device in one precision: the only way in which tracking computes with it.

The network of a model stays on the CPU. On another device a session holds a copy of what runs there, sent once and kept
until it is released. On the CPU it holds the layers that the compiled engine prepares, and the network itself.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn

from DualTrackCore.network.dualtrack import PooledTrunk
from DualTrackCore.network.fast import ENGINE_VARIABLE, PreparedTrunk, choose_backend, is_compiled

if TYPE_CHECKING:
    from DualTrackCore.network.dualtrack import DualTrack, NetworkOutput
    from DualTrackCore.network.fast import ChunkedTrunk

#: Number format of the convolutional trunks by the name of a precision; all else is in fp32.
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Global images through their trunk at a time.
_MOST_IMAGES = 128
_setting = threading.RLock()
_all: WeakSet[InferenceSession] = WeakSet()


class MapStream(Protocol):
    """The local trunk over a sweep, frame by frame."""

    def push(self, images: Tensor, last: bool = False) -> Tensor:
        """Process the next frames of the sweep.

        Args:
            images: [n, crop, crop] float32 in 0 to 1.
            last: whether the sweep ends with these frames; the remaining maps are then returned as well.

        Returns:
            Feature maps [m, width, h, w] of the frames that have become complete, in order; m may be 0.
        """
        ...


def runs_in_chunks(device: torch.device) -> bool:
    """Whether the trunks run in whole chunks there, in place of the stream that keeps what layers share."""
    return device.type == "cuda"


class InferenceSession:
    """The parts of a network on a device. Several threads may use one session.

    Args:
        network: in evaluation mode, or one whose parts in use have no dropout; it is not changed and not moved.
        device: where the session computes.
        precision: "fp32", "tf32", "bf16" or "fp16", of the convolutional trunks; "tf32" is what graphics cards call
            fp32 products of 11 bits. The transformers are in fp32.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        self.device, self.precision, self.dtype = device, precision, DTYPES[precision]
        #: Equal as long as the weights are those that the session was made of.
        self.made_of = _weights_version(network)
        self._host = network
        self._lock = threading.RLock()
        self._parts: dict[str, object] = {}
        _all.add(self)

    @property
    def network(self) -> DualTrack:
        """The network on the device, without the trunks that run in chunks; on the CPU the model's own."""
        return self._part("network", self._make_network)

    def tokens(self, crops: Tensor) -> Tensor:
        """Class tokens [N, C] float32 of the crops [N, crop, crop], 0 to 1, of a whole sweep, on the device."""
        return self.stream().push(crops, last=True)

    def stream(self) -> TokenStream:
        """:meth:`tokens` for a sweep that comes in pieces."""
        return TokenStream(self)

    def maps(self) -> MapStream:
        """The local trunk alone, over a sweep that comes in pieces."""
        return self._part("local", lambda: self._make_trunk(self._host.local.trunk)).stream()

    def class_tokens(self, maps: Tensor) -> Tensor:
        """Class tokens [m, C] float32 of feature maps [m, width, h, w]; m may be 0."""
        spatial = self.network.local.spatial
        if not len(maps):
            return maps.new_empty((0, *spatial.layernorm.normalized_shape), dtype=torch.float32)
        with self.exact():
            return spatial(maps.float())

    def pooled(self, images: Tensor) -> Tensor:
        """Pooled features [n, F] float32 of global images [n, S, S] float32, normalised, on the device."""
        with self.convolving():
            if trunk := self._global_trunk():
                return torch.cat([trunk(part).float().mean(dim=(2, 3)) for part in images.split(_MOST_IMAGES)])
            half = None if self.dtype == torch.float32 else self.dtype
            with torch.autocast(self.device.type, half, enabled=half is not None):
                return self.network.global_encoder.image_features(images[None])[0].float()

    def poses(self, tokens: Tensor, pooled: Tensor) -> NetworkOutput:
        """What the transformers find in a sweep or a window of it: [1, N - 1, 6] and what belongs to it.

        Args:
            tokens: class tokens [N, C] of all frames.
            pooled: features [K, F] of frames `network.global_frames(N)`.

        Raises InputError: more frames than the network has positions, or another number of pooled features.
        """
        with self.exact():
            return self.network.output_from_features(tokens[None], pooled[None])

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """Compute in fp32 as it stands, whatever surrounds the block."""
        with self._computing(tf32=False), torch.autocast(self.device.type, enabled=False):
            yield

    @contextlib.contextmanager
    def convolving(self) -> Iterator[None]:
        """Compute fp32 as the precision says."""
        with self._computing(tf32=self.precision == "tf32"):
            yield

    def release(self) -> None:
        """Let go of what was made; it is made again when it is needed. Streams that run keep theirs."""
        with self._lock:
            self._parts.clear()

    def _computing(self, tf32: bool) -> contextlib.AbstractContextManager:
        return single_precision(tf32) if runs_in_chunks(self.device) else contextlib.nullcontext()

    def _part(self, name: str, make: object) -> object:
        with self._lock:
            if name not in self._parts:
                with torch.inference_mode(False), torch.no_grad():
                    self._parts[name] = make()
            return self._parts[name]

    def _make_network(self) -> nn.Module:
        if self.device.type == "cpu" and not runs_in_chunks(self.device):
            return self._host
        trunks = [self._host.local.trunk] if hasattr(self._host, "local") else []
        if runs_in_chunks(self.device) and (pooled := _pooled_trunk(self._host)) is not None:
            trunks.append(pooled)
        return network_on(self._host, self.device, trunks)

    def _make_trunk(self, trunk: nn.Module) -> ChunkedTrunk | PreparedTrunk:
        if not runs_in_chunks(self.device):
            return PreparedTrunk(trunk, choose_backend(trunk, self.device, self.dtype))
        from DualTrackCore.network.fast import ChunkedTrunk

        return ChunkedTrunk(trunk, self.device, self.dtype)

    def _global_trunk(self) -> ChunkedTrunk | PreparedTrunk | None:
        trunk = _pooled_trunk(self._host)
        if trunk is None or not (runs_in_chunks(self.device) or is_compiled(trunk, self.device, self.dtype)):
            return None
        return self._part("global", lambda: self._make_trunk(trunk))


class TokenStream:
    """Class tokens of a sweep that comes in pieces of any length."""

    def __init__(self, session: InferenceSession) -> None:
        self._session, self._maps = session, session.maps()

    def push(self, crops: Tensor, last: bool = False) -> Tensor:
        """Take the next crops [n, crop, crop] float32, 0 to 1; `last` says that the sweep ends with them.

        Returns:
            Class tokens [m, C] float32 of the frames that have become complete, in order; m may be 0.
        """
        with self._session.convolving():
            maps = self._maps.push(crops, last)
        return self._session.class_tokens(maps)

    @property
    def tail(self) -> Tensor | None:
        """Class tokens [m, C] of the frames that are not complete yet, as if the sweep ended here.

        None where the trunk does not tell: on the CPU, where computing them would take as long as those to come.
        """
        maps = getattr(self._maps, "tail", None)
        return None if maps is None else self._session.class_tokens(maps)


class Sessions:
    """The sessions of a model, each made once; a copy of the model starts with none."""

    #: What a model finds does not depend on what was made before: stored results are known by it.
    fingerprint = ""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple, InferenceSession] = {}

    def get(self, network: nn.Module, device: torch.device, precision: str) -> InferenceSession:
        """The session of the network on a device; a new one where weights have changed since."""
        device = torch.empty(0, device=device).device  # "cuda" is the current one of several
        key = device, precision, os.environ.get(ENGINE_VARIABLE)
        with self._lock:
            found = self._made.get(key)
            if found is None or found.made_of != _weights_version(network):
                self._made.pop(key, None)  # before the new one is made: it is large
                found = self._made[key] = InferenceSession(network, device, precision)
            return found

    def release(self) -> None:
        """Let go of all."""
        with self._lock:
            for session in self._made.values():
                session.release()
            self._made.clear()

    def __deepcopy__(self, memo: object) -> Sessions:
        return Sessions()

    def __reduce__(self) -> tuple:
        return Sessions, ()


def release_others(session: InferenceSession) -> None:
    """Let go of what all other sessions hold on the device of one: memory there has run out."""
    for other in list(_all):
        if other is not session and other.device == session.device:
            other.release()


def network_on(network: nn.Module, device: torch.device, without: list[nn.Module]) -> nn.Module:
    """A copy of a network on a device, sent in one piece; empty modules take the place of those in `without`."""
    from DualTrackCore.network.fast import uploaded

    left_out = {id(tensor) for module in without for tensor in module.state_dict(keep_vars=True).values()}
    tensors = [t for t in (*network.parameters(), *network.buffers()) if id(t) not in left_out]
    memo: dict[int, object] = {id(module): nn.Identity() for module in without}
    for own, there in zip(tensors, uploaded(tensors, device), strict=True):
        memo[id(own)] = nn.Parameter(there, requires_grad=False) if isinstance(own, nn.Parameter) else there
    return copy.deepcopy(network, memo)


def _pooled_trunk(network: nn.Module) -> nn.Module | None:
    """The published global trunk; None for other backbones and networks without one."""
    backbone = network.global_encoder.backbone[0] if hasattr(network, "global_encoder") else None
    return backbone.backbone if isinstance(backbone, PooledTrunk) else None


def _weights_version(network: nn.Module) -> list[tuple[int, int]]:
    """Changes when weights are written, except by `.data`, which goes around the counters of torch."""
    tensors = (*network.parameters(), *network.buffers())
    return [(tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version) for tensor in tensors]


@contextlib.contextmanager
def single_precision(tf32: bool) -> Iterator[None]:
    """Compute fp32 with or without TF32, for this block alone: torch's settings are those of the process.

    One thread at a time; the caller's settings come back at the end.
    """
    with _setting:
        places, convolutions, products = _fp32_places(), True, "highest"
        before = [place.fp32_precision for place in places]
        # Old names raise where new ones have set something else; these come back by the new ones.
        with contextlib.suppress(RuntimeError):
            convolutions = torch.backends.cudnn.allow_tf32
        with contextlib.suppress(RuntimeError):
            products = torch.get_float32_matmul_precision()
        try:
            torch.backends.cudnn.allow_tf32 = tf32
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            for place in places[:2]:  # without a word of their own they take the one for all operations, which is TF32
                place.fp32_precision = "tf32" if tf32 else "ieee"
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = convolutions
            torch.set_float32_matmul_precision(products)
            for place, value in zip(places, before, strict=True):
                place.fp32_precision = value


def _fp32_places() -> list[object]:
    """What says how torch computes fp32, by the kind of operation; none before torch 2.9. Convolutions come first."""
    backends = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    return [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul]
