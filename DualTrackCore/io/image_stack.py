"""Folders of numbered images, multi-page TIFF files and single images, read with SimpleITK."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.grey import grey_clip, to_grey_uint8
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.sweep import Sweep

FORMAT = "Images"

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

#: First bytes of an image, and the SimpleITK reader for it.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNGImageIO",
    b"\xff\xd8\xff": "JPEGImageIO",
    b"II*\x00": "TIFFImageIO",
    b"MM\x00*": "TIFFImageIO",
    b"II+\x00": "TIFFImageIO",
    b"MM\x00+": "TIFFImageIO",
    b"BM": "BMPImageIO",
}

_HEAD_BYTES = 64


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is a folder, or a PNG, JPEG, TIFF or BMP file.

    Every folder is: :func:`read` says what is missing in one without images.
    """
    return _reader_name(head) is not None if head else path.is_dir()


def read(path: Path, *, calibration: Path | np.ndarray | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of a folder of images in the order of their numbers, or of the pages of one image file.

    Sizes stated inside image files are those of print or screen, so the pixel spacing comes from the user or from a
    calibration; times are unknown.

    Raises:
        InputError: no images, damaged ones, or images that differ in size or depth.
    """
    if path.is_dir():
        frames, notes = grey_clip(_images_of(path))
    else:
        pages, colour_axis = _pages(path)
        try:
            frames, notes = to_grey_uint8(pages, colour_axis=colour_axis)
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None
    return choose_pixel_size(None, calibration, spacing_mm).sweep(frames, path, FORMAT, notes)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key under which frame2 comes before frame10."""
    words = re.split(r"([0-9]+)", name.lower())
    return [(1, 0, word) if i % 2 == 0 else (0, int(word), word) for i, word in enumerate(words)]


def _reader_name(head: bytes) -> str | None:
    return next((reader for signature, reader in _SIGNATURES.items() if head.startswith(signature)), None)


def _files_of(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their numbers."""
    try:
        files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"The folder {folder.name} cannot be read: {error.strerror or error}.") from None
    images = sorted((f for f in files if f.suffix.lower() in _SUFFIXES), key=lambda f: natural_key(f.name))
    if images:
        return images
    if not files:
        raise InputError(f"The folder {folder.name} holds no files; choose one with numbered images.")
    if any(f.suffix.lower() in (".dcm", ".dicom", ".ima") for f in files):
        raise InputError(
            f"The folder {folder.name} holds DICOM files; folders of single DICOM frames are not read: open one "
            "multi-frame DICOM file, or convert the frames to PNG."
        )
    raise InputError(f"The folder {folder.name} holds no images ({', '.join(_SUFFIXES)}); choose one that does.")


def _images_of(folder: Path) -> Iterator[np.ndarray]:
    """[H, W] or [H, W, channels] of each image of a folder; those of 8 bits may mix grey and colour."""
    files = _files_of(folder)
    shape: tuple[int, ...] = ()
    for file in files:
        pages, _ = _pages(file)
        if len(pages) != 1:
            raise InputError(f"{file.name} has {len(pages)} pages; each image of a folder must have one.")
        image = pages[0]
        if not shape:
            shape, dtype = image.shape, image.dtype
            require_plausible_clip(folder, len(files), *shape[:2])
        if image.shape[:2] != shape[:2]:
            raise InputError(
                f"{file.name} has {image.shape[1]} x {image.shape[0]} pixels and {files[0].name} "
                f"{shape[1]} x {shape[0]}; all images of a folder must be of one size."
            )
        if image.dtype != dtype or (image.shape != shape and dtype != np.uint8):
            raise InputError(
                f"{file.name} holds {image.dtype} pixels of another kind than {files[0].name} ({dtype}); "
                "all images of a folder must be of one kind."
            )
        yield image


def _pages(path: Path) -> tuple[np.ndarray, int | None]:
    """[pages, H, W] or [pages, H, W, channels] of one image file, and the colour axis."""
    import SimpleITK as sitk

    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    name = _reader_name(head)
    if name is None:
        raise InputError(f"{path.name} is not a PNG, JPEG, TIFF or BMP image.")
    try:
        reader = sitk.ImageFileReader()
        reader.SetImageIO(name)
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        width, height, *pages = reader.GetSize()
        require_plausible_clip(path, int(np.prod(pages, dtype=np.int64)) if pages else 1, height, width)
        if head.startswith(b"BM"):
            _require_whole_bitmap(path, head)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path.name} cannot be read as an image, it is damaged or cut short ({reason}).") from error
    array = sitk.GetArrayFromImage(image)
    colour_axis = 3 if image.GetNumberOfComponentsPerPixel() > 1 else None
    return array if image.GetDimension() == 3 else array[None], colour_axis


def _require_whole_bitmap(path: Path, head: bytes) -> None:
    """Refuse a bitmap whose rows are cut short, which SimpleITK would fill with whatever the memory held."""
    if int.from_bytes(head[30:34], "little") != 0:
        return  # a packed bitmap, whose size the header does not tell
    offset, width, height = (int.from_bytes(head[i : i + 4], "little", signed=True) for i in (10, 18, 22))
    row_bytes = (width * int.from_bytes(head[28:30], "little") + 31) // 32 * 4
    need, held = offset + row_bytes * abs(height), path.stat().st_size
    if need > held:
        raise InputError(f"{path.name} needs {need} bytes and holds {held}; it is cut short: copy it again.")
