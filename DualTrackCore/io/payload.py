"""The pixel block of a sequence metafile: mapped where it is plain, decompressed within bounds where it is not."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from DualTrackCore.errors import InputError, OutOfMemoryError
from DualTrackCore.io.limits import MAX_CLIP_BYTES

#: A deflate stream expands at most 1032-fold; a claim beyond that, and a little for short files, is false.
_MAX_RATIO = 1032
_RATIO_SLACK_BYTES = 4096

_COMPRESSED_PIECE_BYTES = 1 << 20
_PLAIN_PIECE_BYTES = 1 << 24

#: Window sizes of zlib.decompressobj that select the two containers.
ZLIB, GZIP = 15, 31


@dataclass(frozen=True)
class Payload:
    """Where the pixels lie.

    Attributes:
        path: the file that holds them; not always the one with the header.
        offset: byte of the first one.
        length: bytes that belong to them; None for all up to the end of the file.
        compression: None, :data:`ZLIB` or :data:`GZIP`.
    """

    path: Path
    offset: int = 0
    length: int | None = None
    compression: int | None = None

    def read(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The pixels as an array of `shape`, slowest axis first; memory-mapped unless they are compressed.

        Nothing is allocated before the claimed size is known to be possible for the bytes that are there.

        Raises:
            InputError: fewer or more bytes than claimed, a damaged stream, an impossible claim.
            OutOfMemoryError: the memory does not suffice.
        """
        wanted = math.prod(shape) * dtype.itemsize
        available = max(self.path.stat().st_size - self.offset, 0)
        length = available if self.length is None else self.length
        if length > available:
            raise InputError(
                f"{self.path.name} is cut short: its header announces {length} bytes of compressed pixels and "
                f"{available} are there; copy the file again."
            )
        if self.compression is not None:
            return self._decompressed(wanted, length).view(dtype).reshape(shape)
        if wanted > length:
            raise InputError(
                f"{self.path.name} is cut short or its header is wrong: {wanted} bytes of pixels are announced and "
                f"{length} are there; copy the file again."
            )
        return np.memmap(self.path, dtype=dtype, mode="r", offset=self.offset, shape=shape)

    def _decompressed(self, wanted: int, length: int) -> np.ndarray:
        if wanted > length * _MAX_RATIO + _RATIO_SLACK_BYTES or wanted > MAX_CLIP_BYTES:
            raise InputError(
                f"{self.path.name} claims {wanted} bytes of pixels in {length} compressed ones; at most "
                f"{_MAX_RATIO} times as many and {MAX_CLIP_BYTES >> 30} GiB are possible, so the file is damaged."
            )
        try:
            buffer = np.empty(wanted, np.uint8)
        except MemoryError:
            raise OutOfMemoryError(
                f"{self.path.name} needs {wanted / 2**30:.1f} GiB of memory for its pixels; close other programs "
                "or cut the clip into shorter ones."
            ) from None
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                self._inflate(stream, length, buffer)
        except zlib.error as error:
            raise InputError(f"{self.path.name} has damaged compressed pixels ({error}); copy it again.") from None
        return buffer

    def _inflate(self, stream: BinaryIO, length: int, buffer: np.ndarray) -> None:
        """Fill `buffer` from the stream; the stream must end exactly where the buffer does."""
        engine, filled = zlib.decompressobj(self.compression), 0
        while not engine.eof:
            packed = engine.unconsumed_tail
            if not packed:
                packed = stream.read(min(_COMPRESSED_PIECE_BYTES, length))
                length -= len(packed)
            # One byte more than announced is asked for: a stream that has it is refused, and never expanded.
            piece = engine.decompress(packed, min(len(buffer) - filled + 1, _PLAIN_PIECE_BYTES))
            if filled + len(piece) > len(buffer):
                raise InputError(
                    f"{self.path.name} has more pixels than the {len(buffer)} bytes that its header announces."
                )
            buffer[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
            if not piece and not packed:
                break
        if filled < len(buffer) or not engine.eof:
            raise InputError(
                f"{self.path.name} is cut short: {filled} of {len(buffer)} bytes of pixels could be decompressed; "
                "copy the file again."
            )
