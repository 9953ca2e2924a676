"""The pages of one image file: PNG, JPEG, BMP or TIFF.

Pillow decodes, for the one format of the file. tifffile parses TIFF files, and reads uncompressed pages, which may have
more bits than Pillow supports. Sizes are checked before decoding.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.io.tiff_stacks import Stack, described_stack
from DualTrackCore.memory import naming_memory

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile
    from tifffile import TiffFile, TiffPage

#: First bytes of an image, and Pillow's class for it.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PngImageFile",
    b"\xff\xd8\xff": "JpegImageFile",
    b"BM": "BmpImageFile",
    b"II*\x00": "TiffImageFile",
    b"MM\x00*": "TiffImageFile",
    b"II+\x00": "TiffImageFile",
    b"MM\x00+": "TiffImageFile",
}

_HEAD_BYTES = 64

#: Modes of Pillow with grey or RGB pixels, perhaps with alpha; others are converted.
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B", "I", "F")

#: The orientation tag of TIFF and EXIF, 1 (upright) to 8.
_ORIENTATION = 274

_SILENT = logging.NullHandler()

_UPPER_BITS = "Took the upper 8 of the 16 bits of each colour."


class Pages(NamedTuple):
    """The pages of an image file.

    Attributes:
        count: number of frames.
        size: their stored (H, W) in pixels.
        images: [H, W], [H, W, 2] (with alpha), [H, W, 3] or [H, W, 4] each, upright.
        notes: sentences for the user; complete after the last image.
        stack: the description by ImageJ or OME.
    """

    count: int
    size: tuple[int, int]
    images: Iterator[np.ndarray]
    notes: list[str]
    stack: Stack = Stack()


def is_image(head: bytes) -> bool:
    """Whether a file with the first bytes `head` is a PNG, JPEG, BMP or TIFF file."""
    return _reader_name(head) is not None


@contextlib.contextmanager
def open_pages(path: Path) -> Iterator[Pages]:
    """Context with the pages of an image file, which are decoded on demand.

    Raises:
        InputError: it cannot be read, has an unknown format, is damaged, truncated, or implausibly large.
        OutOfMemoryError: too little memory.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    with stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(0)
        name = _reader_name(head)
        if name is None:
            raise InputError(f"{path.name} is not a PNG, JPEG, TIFF or BMP image.")
        pages = _tiff_pages(path, stream) if name == "TiffImageFile" else _single_page(path, stream, name, head)
        require_plausible_clip(path, pages.count, *pages.size)
        yield pages


def _reader_name(head: bytes) -> str | None:
    return next((reader for signature, reader in _SIGNATURES.items() if head.startswith(signature)), None)


def _opened(stream: BinaryIO, name: str) -> ImageFile:
    """Pillow's image, not decoded. Its class is chosen by name, so that Pillow tries no other formats."""
    stream.seek(0)
    return getattr(import_module(f"PIL.{name.removesuffix('File')}Plugin"), name)(stream)


def _single_page(path: Path, stream: BinaryIO, name: str, head: bytes) -> Pages:
    with _as_sentence(path.name):
        image = _opened(stream, name)
    notes = []
    if name == "PngImageFile" and head[24] == 16 and head[25] != 0:  # bits and colour type in the first chunk
        notes.append(_UPPER_BITS)
    return Pages(1, image.size[::-1], _decoded(path, image, notes), notes)


def _decoded(path: Path, image: ImageFile, notes: list[str]) -> Iterator[np.ndarray]:
    with _as_sentence(path.name):
        pixels = _pixels(image, notes)
    yield pixels


def _pixels(image: ImageFile, notes: list[str]) -> np.ndarray:
    """The pixels of the current page, upright."""
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels can be right if EXIF is damaged
        orientation = 1
    if image.mode not in _PLAIN_MODES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    return _turned(_native(np.asarray(image)), orientation, notes)


def _native(pixels: np.ndarray) -> np.ndarray:
    """Pixels in the byte order of this machine."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _turned(pixels: np.ndarray, orientation: object, notes: list[str]) -> np.ndarray:
    """A view of pixels [H, W, ...], turned upright from an EXIF orientation (2.32, 4.6.5.1); others change nothing."""
    if orientation not in (2, 3, 4, 5, 6, 7, 8):
        return pixels
    _add(notes, f"Turned the pictures as their orientation ({orientation}) says.")
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    rows_reversed, columns_reversed = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]


def _tiff_pages(path: Path, stream: BinaryIO) -> Pages:
    import tifffile

    logging.getLogger("tifffile").addHandler(_SILENT)  # errors here have their own sentences
    with _as_sentence(path.name):
        tiff = tifffile.TiffFile(stream)
        pages, notes = _frames_of(path, _chain(path, stream, tiff))
        count = _stack_count(tiff) if len(pages) == 1 else 1
        stack = described_stack(path.name, tiff, count * len(pages))
        size = index(pages[0].imagelength), index(pages[0].imagewidth)  # damaged tags may be no numbers
    if count > 1:
        images = _stack(path, stream, tiff, count, notes)
    else:
        images = _tiff_images(path, stream, pages, notes)
    return Pages(count * len(pages), size, images, notes, stack)


def _chain(path: Path, stream: BinaryIO, tiff: TiffFile) -> list[TiffPage]:
    """All pages. Raises InputError: a page is missing, or pages refer to each other in a circle.

    tifffile itself stops silently at a missing page, and does not notice a long circle.
    """
    pages, offsets = [], set()
    with contextlib.suppress(IndexError):
        while True:
            page = tiff.pages[len(pages)]
            if page.offset in offsets:
                raise InputError(
                    f"The pages of {path.name} refer to each other in a circle; it is damaged: copy it again."
                )
            pages.append(page)
            offsets.add(page.offset)
    stream.seek(tiff.pages.next_page_offset)
    if any(stream.read(tiff.tiff.offsetsize) or b"cut short"):
        raise InputError(f"Page {len(pages) + 1} of {path.name} is not there; the file is cut short: copy it again.")
    return pages


def _frames_of(path: Path, pages: list[TiffPage]) -> tuple[list[TiffPage], list[str]]:
    """The frames, which are the largest pages, and a note on others: reduced copies, masks and thumbnails."""
    frames = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages
    size = max(((page.imagelength, page.imagewidth) for page in frames), key=lambda size: size[0] * size[1])
    smaller = [page for page in frames if (page.imagelength, page.imagewidth) != size]
    odd = [page for page in smaller if page.imagelength >= size[0] or page.imagewidth >= size[1]]
    if odd or 2 * len(smaller) > len(frames):
        other = (odd or smaller)[0]
        raise InputError(
            f"{path.name} has pages of {size[1]} x {size[0]} and of {other.imagewidth} x {other.imagelength} pixels; "
            "all must be of one size."
        )
    frames = [page for page in frames if (page.imagelength, page.imagewidth) == size]
    left_out = len(pages) - len(frames)
    notes = [f"Left out {left_out} of {len(pages)} pages, which are thumbnails or masks."] if left_out else []
    return frames, notes


def _stack_count(tiff: TiffFile) -> int:
    """Number of frames of an ImageJ stack that is stored as one page; 1 for other files."""
    images = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    page = tiff.pages[0]
    is_one = isinstance(images, int) and len(tiff.pages) == 1 and _is_plain(page) and page.is_contiguous
    return images if is_one else 1


def _stack(path: Path, stream: BinaryIO, tiff: TiffFile, count: int, notes: list[str]) -> Iterator[np.ndarray]:
    page = tiff.pages[0]
    start = page.dataoffsets[0]
    needed, held = start + count * page.nbytes, path.stat().st_size
    if needed > held:
        raise InputError(f"{path.name} needs {needed} bytes and holds {held}; it is cut short: copy it again.")
    for place in range(start, needed, page.nbytes):
        stream.seek(place)
        pixels = np.frombuffer(stream.read(page.nbytes), page.dtype.newbyteorder(tiff.byteorder))
        yield _finished(page, pixels.reshape(page.shape), notes)


def _tiff_images(path: Path, stream: BinaryIO, pages: list[TiffPage], notes: list[str]) -> Iterator[np.ndarray]:
    image = None
    for page in pages:
        compression = "no" if page.compression == 1 else getattr(page.compression, "name", page.compression)
        with _as_sentence(
            f"Page {page.index + 1} of {path.name} ({page.bitspersample} bits, {compression} compression)",
            "it is damaged, cut short or of a kind that is not read: copy it again, or save it without compression",
        ):
            if _is_plain(page):
                pixels = _finished(page, page.asarray(maxworkers=1), notes)
            else:
                image = image or _opened(stream, "TiffImageFile")
                image.seek(page.index)
                pixels = _pixels(image, notes)
                if pixels.dtype == np.uint8 and page.bitspersample == 16:
                    _add(notes, _UPPER_BITS)
                elif pixels.dtype != np.uint8 and page.photometric == 0:
                    pixels = _inverted(pixels, notes)
        yield pixels


def _is_plain(page: TiffPage) -> bool:
    """Whether the file stores the pixels like a numpy array."""
    whole_bytes = page.bitspersample in (8, 16, 32, 64) and page.dtype is not None
    return page.compression == 1 and whole_bytes and page.photometric in (0, 1, 2) and page.axes in ("YX", "YXS", "SYX")


def _finished(page: TiffPage, pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Pixels with channels last, white as the largest value, upright."""
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == 0:
        pixels = _inverted(pixels, notes)
    return _turned(_native(pixels), page.tags.valueof(_ORIENTATION), notes)


def _inverted(pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Invert grey values if zero is white; Pillow does so only for 8 bits."""
    _add(notes, "Inverted the greys, as zero is white in the file.")
    return ~pixels if pixels.dtype.kind in "ui" else -pixels


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


@contextlib.contextmanager
def _as_sentence(
    what: str, why: str = "it is damaged, cut short or of a kind that is not read: copy it again"
) -> Iterator[None]:
    """Context that turns any error of a library into an InputError of one sentence."""
    try:
        with naming_memory(f"Reading {what}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about damaged details
            yield
    except DualTrackError:
        raise
    except Exception as error:
        raise InputError(f"{what} cannot be read as an image; {why}.") from error
