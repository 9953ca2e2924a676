"""Opens DICOM files, with or without preamble, deflated or not; and reads numbers, also badly written ones."""

from __future__ import annotations

import contextlib
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.memory import naming_memory
from DualTrackCore.pixels import Spool, WindowSource

if TYPE_CHECKING:
    from pydicom import Dataset

_PREAMBLE_BYTES, _PREFIX = 128, b"DICM"
_DEFLATED = "1.2.840.10008.1.2.1.99"

#: Elements above this size are read on demand.
DEFERRED_BYTES = 1 << 20

#: Of a deflated file: largest size of everything before the pixels, largest expansion of deflate, bytes at a time.
_HEAD_BYTES, _MAX_RATIO, _PIECE_BYTES = 1 << 24, 1032, 1 << 20

#: Length of an element whose end is marked by a delimiter, such as compressed pixels.
_UNDEFINED = 0xFFFFFFFF

#: First groups of files without preamble, and largest size of their first element, bytes.
_FIRST_GROUPS, _FIRST_BYTES = (2, 8), 1024


def is_dicom(head: bytes) -> bool:
    """Whether a file with these first bytes is DICOM: by the prefix after its preamble, or its first two elements."""
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == _PREFIX:
        return True
    first = _element(head, 0)
    second = None if first is None else _element(head, first[2])
    return second is not None and first[0] in _FIRST_GROUPS and (first[0], first[1]) < second[:2] <= (0x10, 0xFFFF)


def _element(head: bytes, at: int) -> tuple[int, int, int] | None:
    """Group, number and end of a short little-endian element; None if there is none."""
    tag = head[at : at + 8]
    if len(tag) < 8:
        return None
    has_kind = tag[4:6].isalpha() and tag[4:6].isupper()
    length = int.from_bytes(tag[6:8] if has_kind else tag[4:8], "little")
    if length > _FIRST_BYTES:
        return None
    return int.from_bytes(tag[:2], "little"), int.from_bytes(tag[2:4], "little"), at + 8 + length


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Dataset, io.BufferedReader]]:
    """Context with all elements but large ones, such as the pixels, and the open file for these.

    A deflated file is inflated into a temporary one, up to the end of its pixels.

    Raises InputError: a damaged file.
    """
    with contextlib.ExitStack() as stack:
        try:
            with naming_memory(f"Reading {path.name}"):
                file = stack.enter_context(BoundedFile(io.FileIO(str(path)), path.name, path.stat().st_size))
                dataset, file = _parsed(path, file)
        except DualTrackError:
            raise
        except Exception as error:  # pydicom's parser raises many types
            raise InputError(f"{path.name} cannot be read as DICOM, it is damaged ({reason_of(error)}).") from error
        yield dataset, file


class BoundedFile(io.BufferedReader):
    """A DICOM file that refuses to read elements longer than the file, before memory is allocated for them."""

    def __init__(self, raw: io.RawIOBase, name: str, size: int) -> None:
        super().__init__(raw)
        self._name, self.size = name, size

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes.

        Raises InputError: far fewer bytes are left in the file.
        """
        left = max(self.size - self.tell(), 0)
        if size is not None and size > left + DEFERRED_BYTES:
            raise InputError(
                f"{self._name} announces {size} bytes where {left} are left; it is cut short: copy it again."
            )
        return super().read(size)


class SpooledBytes(io.RawIOBase):
    """The bytes of a :class:`~DualTrackCore.pixels.Spool` as a file."""

    name = ""  # pydicom reads it

    def __init__(self, values: np.ndarray | WindowSource) -> None:
        self._values, self._at = values, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As in :class:`io.RawIOBase`."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._values)}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        """As in :class:`io.RawIOBase`."""
        piece = np.asarray(self._values[self._at : self._at + len(buffer)]).tobytes()
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _parsed(path: Path, file: BoundedFile) -> tuple[Dataset, io.BufferedReader]:
    from pydicom import dcmread, uid
    from pydicom.filereader import read_dataset, read_preamble

    read_preamble(file, True)
    about_file = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if about_file.get("TransferSyntaxUID") == _DEFLATED:
        file = _inflated(path, file, about_file)
    file.seek(0)
    dataset = dcmread(file, defer_size=DEFERRED_BYTES, force=True)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        element = dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None
        if element is not None and element.length != _UNDEFINED:
            implicit, little = dataset.original_encoding
            explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset, file


def _inflated(path: Path, file: BoundedFile, about_file: Dataset) -> BoundedFile:
    """The same file up to the end of its pixels, inflated, in a spool."""
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import ExplicitVRLittleEndian

    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    packed_bytes = path.stat().st_size - file.tell()
    try:
        piece = engine.decompress(file.read(min(packed_bytes, _HEAD_BYTES)), _HEAD_BYTES)
        head = BoundedFile(io.BytesIO(piece), path.name, len(piece))
        read_dataset(head, False, True, stop_when=lambda tag, *_: tag == 0x7FE00010, defer_size=DEFERRED_BYTES)
        length = int.from_bytes(piece[head.tell() + 8 : head.tell() + 12], "little")
        wanted = head.tell() + (12 + length if length else 0)
        if wanted > packed_bytes * _MAX_RATIO + DEFERRED_BYTES:
            raise InputError(
                f"{path.name} claims {length} bytes of pixels in {packed_bytes} deflated ones, which is impossible; "
                "it is damaged: copy it again."
            )
        about_file.TransferSyntaxUID = ExplicitVRLittleEndian
        start = io.BytesIO()
        start.write(bytes(_PREAMBLE_BYTES) + _PREFIX)
        write_file_meta_info(start, about_file, enforce_standard=False)
        spool, done = Spool(path.name), 0
        spool.require_room(start.tell() + wanted)
        spool.write(start.getvalue())
        while done < wanted:
            spool.write(piece[: wanted - done])
            done += len(piece)
            packed = engine.unconsumed_tail or file.read(min(_PIECE_BYTES, path.stat().st_size - file.tell()))
            if done < wanted and (engine.eof or not packed):
                raise InputError(f"{path.name} is cut short: {done} of {wanted} bytes are there; copy it again.")
            piece = engine.decompress(packed, _PIECE_BYTES) if done < wanted else b""
    except zlib.error as error:
        raise InputError(f"{path.name} has damaged deflated content ({reason_of(error)}); copy it again.") from None
    size = start.tell() + wanted
    return BoundedFile(SpooledBytes(spool.finished((size,), np.dtype(np.uint8))), path.name, size)


def numbers(dataset: Dataset, name: str, notes: list[str]) -> list[float]:
    """The finite values of an element; none if it is missing or empty.

    Adds faults to `notes`: a decimal comma, which is read as a point, or anything but numbers, which is left out.
    """
    try:
        value = dataset.get(name)
        values = [] if value is None or value == "" else [float(number) for number in np.atleast_1d(value)]
    except Exception:  # pydicom's conversion raises many types, at every access
        written = dataset.get_item(name).value
        words = [written] if isinstance(written, str | bytes) else written
        text = "\\".join(word.decode("ascii", "replace") if isinstance(word, bytes) else str(word) for word in words)
        text = text.strip("\0 ")
        try:
            values = [float(word) for word in text.replace(",", ".").split("\\")]
            _add(notes, f"{name} is written with a decimal comma ({text[:40]}); took it as a point.")
        except ValueError:
            values = []
            _add(notes, f"{name} is not a number ({text[:40]}) and was left out.")
    if not all(map(math.isfinite, values)):
        _add(notes, f"{name} is not a finite number and was left out.")
        return []
    return values


def number(dataset: Dataset, name: str, notes: list[str]) -> float | None:
    """The first of :func:`numbers`; None without any."""
    return next(iter(numbers(dataset, name, notes)), None)


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)
