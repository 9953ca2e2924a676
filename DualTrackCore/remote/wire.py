"""What a client and a server say to each other, over HTTP.

`GET /status` says who the server is, as JSON. `POST /runs` sends a parcel: one line of JSON, its head, and then the
arrays that the head names, as raw bytes in that order, frames last. The answer is lines of JSON, the events: any number
of "waiting" (with the place in the queue) and "progress", empty lines meanwhile, and in the end "failed" (with kind and
message) or "done", which is the head of a parcel with the result. Nothing in it can be code: numbers, text, and arrays
of a few plain types. Whoever closes the connection cancels the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import plain_values

PROTOCOL = 1
#: Says what a body is; a page in a browser cannot send it to another site unasked.
CONTENT_TYPE = "application/x-dualtrack"
#: What a client may choose of a run; everything else is the server's own.
TRACKING_SETTINGS = ("model", "precision", "chunk_frames", "test_time_augmentation", "direction")
VOLUME_SETTINGS = (
    *("voxel_mm", "interpolation", "compounding", "hole_filling", "axes", "clip", "fan", "reject_below"),
)
#: Longest head of a parcel, bytes.
MOST_HEAD_BYTES = 1 << 20
#: Bytes sent at once.
PIECE_BYTES = 1 << 20
#: Time between two signs of life of the server, and longest wait for any answer of the other side, s.
BEAT_S, SILENCE_S = 1.0, 30.0
_TYPES = {name: np.dtype(name) for name in ("bool", "uint8", "int64", "float32", "float64")}
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Block:
    """One array of a parcel: its name, type and shape."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, data: bytes | bytearray) -> np.ndarray:
        """The array that these bytes are."""
        return np.frombuffer(data, self.dtype.newbyteorder("<")).astype(self.dtype).reshape(self.shape)


def head_line(facts: Mapping[str, Any], blocks: Iterable[Block]) -> bytes:
    """The line that a parcel begins with."""
    arrays = [[block.name, block.dtype.name, list(block.shape)] for block in blocks]
    return json.dumps({**plain_values(facts), "arrays": arrays}, allow_nan=False).encode("ascii") + b"\n"


def block_of(name: str, array: Any) -> Block:
    """What a head says of an array, or of anything with its shape and type."""
    return Block(name, np.dtype(array.dtype), tuple(array.shape))


def pieces(array: np.ndarray) -> Iterator[bytes]:
    """The bytes of an array, not too many at once; of one in a file what is needed is read."""
    rows = max(1, PIECE_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)) if array.ndim else 1
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows], array.dtype.newbyteorder("<")).tobytes()


def read_head(line: bytes) -> tuple[dict[str, Any], list[Block]]:
    """The head of a parcel and what follows it.

    Raises InputError: it is none, or an array is of a type or shape that no parcel has.
    """
    try:
        head = json.loads(line)
        blocks = [_block(*entry) for entry in head.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"What was sent is no message of DualTrack: {line[:80]!r}.") from None
    return head, blocks


def _block(name: object, dtype: object, shape: object) -> Block:
    if not (isinstance(name, str) and isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS):
        raise ValueError
    if not all(type(count) is int and 0 <= count < 1 << 40 for count in shape):
        raise ValueError
    return Block(name, _TYPES[str(dtype)], tuple(shape))
