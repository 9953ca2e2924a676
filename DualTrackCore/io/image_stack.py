"""Folders of numbered images, multi-page TIFF files and single images, read with SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    import SimpleITK as sitk

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
    path = Path(path)
    frames, notes = _read_folder(path) if path.is_dir() else _read_pages(path)
    size = choose_pixel_size(None, calibration, spacing_mm)
    return Sweep(
        frames,
        size.spacing_mm,
        skew_deg=size.skew_deg,
        provenance=size.provenance(path, FORMAT, notes + size.notes),
    )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key under which frame2 comes before frame10."""
    words = re.split(r"([0-9]+)", name.lower())
    return [(1, 0, word) if i % 2 == 0 else (0, int(word), word) for i, word in enumerate(words)]


def _reader_name(head: bytes) -> str | None:
    return next((reader for signature, reader in _SIGNATURES.items() if head.startswith(signature)), None)


def _images_in(folder: Path) -> list[Path]:
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


def _read_folder(folder: Path) -> tuple[np.ndarray, list[str]]:
    images = _images_in(folder)
    kept: list[np.ndarray] = []
    notes: list[str] = []
    for image in images:
        pages, colour_axis = _pages(image)
        if len(pages) != 1:
            raise InputError(f"{image.name} has {len(pages)} pages; each image of a folder must have one.")
        if pages.dtype == np.uint8:
            pages, told = to_grey_uint8(pages, colour_axis=colour_axis)
            notes += [sentence for sentence in told if sentence not in notes]
        if kept and pages.shape[1:3] != kept[0].shape[:2]:
            raise InputError(
                f"{image.name} has {pages.shape[2]} x {pages.shape[1]} pixels and {images[0].name} "
                f"{kept[0].shape[1]} x {kept[0].shape[0]}; all images of a folder must be of one size."
            )
        if kept and (pages.dtype != kept[0].dtype or pages.shape[1:] != kept[0].shape):
            raise InputError(
                f"{image.name} holds {pages.dtype} pixels of another kind than {images[0].name} ({kept[0].dtype}); "
                "all images of a folder must be of one kind."
            )
        if not kept:
            require_plausible_clip(folder, len(images), *pages.shape[1:3])
        kept.append(pages[0])
    frames = np.stack(kept)
    if frames.dtype != np.uint8:
        frames, notes = to_grey_uint8(frames, colour_axis=3 if frames.ndim == 4 else None)
    return frames, notes


def _read_pages(path: Path) -> tuple[np.ndarray, list[str]]:
    pages, colour_axis = _pages(path)
    try:
        return to_grey_uint8(pages, colour_axis=colour_axis)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


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
        _require_whole_bitmap(path, head)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path.name} cannot be read as an image, it is damaged or cut short ({reason}).") from error
    return _as_pages(image)


def _require_whole_bitmap(path: Path, head: bytes) -> None:
    """Refuse a bitmap whose rows are cut short, which SimpleITK would fill with whatever the memory held."""
    if not head.startswith(b"BM") or int.from_bytes(head[30:34], "little") != 0:
        return  # another format, or a packed bitmap, whose size the header does not tell
    offset, width, height = (int.from_bytes(head[i : i + 4], "little", signed=True) for i in (10, 18, 22))
    row_bytes = (width * int.from_bytes(head[28:30], "little") + 31) // 32 * 4
    need, held = offset + row_bytes * abs(height), path.stat().st_size
    if need > held:
        raise InputError(f"{path.name} needs {need} bytes and holds {held}; it is cut short: copy it again.")


def _as_pages(image: sitk.Image) -> tuple[np.ndarray, int | None]:
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    colour = image.GetNumberOfComponentsPerPixel() > 1
    array = array if image.GetDimension() == 3 else array[None]
    return array, 3 if colour else None
