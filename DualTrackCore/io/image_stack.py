"""Folders of numbered images, multi-page TIFF files and single images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.grey import grey_clip
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.image_file import Pages, is_image, open_pages
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.io.tiff_stacks import Stack
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "Images"

#: Largest number of different values in a mask: labels or their colours.
_MOST_MASK_VALUES = 8

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is a folder, or a PNG, JPEG, TIFF or BMP file.

    Every folder is accepted; :func:`read` raises the error for one without images.
    """
    return is_image(head) if head else path.is_dir()


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of a folder of images in the order of their numbers, or of the pages of one image file.

    The resolution in image files is that of print or screen. So the pixel spacing comes from the user or a calibration,
    and times are unknown; stacks of ImageJ and OME may state both.

    Raises InputError: no images, damaged ones, or images of different size or depth.
    """
    notes: list[str] = []
    try:
        stack = Stack()
        if path.is_dir():
            frames, grey_notes = grey_clip(_images_of(path, notes))
        else:
            with open_pages(path) as pages:
                frames, grey_notes = grey_clip(_alike(path, pages))
                notes, stack = pages.notes, pages.stack
    except InputError as error:
        raise error if path.name in str(error) else InputError(f"{path.name}: {error}") from None
    notes += grey_notes
    times = None if stack.step_s is None else np.arange(len(frames)) * stack.step_s
    facts = {} if times is None else {"rate_field": stack.rate_field}
    size = choose_pixel_size(stack.spacing_mm, calibration, spacing_mm)
    return size.sweep(frames, path, FORMAT, notes, facts, timestamps_s=times)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key with frame2 before frame10."""
    words = re.split(r"([0-9]+)", name.lower())
    return [(1, 0, word) if i % 2 == 0 else (0, int(word), word) for i, word in enumerate(words)]


def _files_of(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their numbers."""
    try:
        files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"The folder {folder.name} cannot be read: {error.strerror or error}.") from None
    images = sorted((f for f in files if f.suffix.lower() in _SUFFIXES), key=lambda f: natural_key(f.name))
    if images:
        return images
    folders = sorted(f"{entry.name}" for entry in folder.iterdir() if entry.is_dir())
    if not files and folders:
        raise InputError(
            f"The folder {folder.name} holds no files but the folders {', '.join(folders[:5])}; choose the one that "
            "holds the frames."
        )
    if not files:
        raise InputError(f"The folder {folder.name} holds no files; choose one with numbered images.")
    raise InputError(f"The folder {folder.name} holds no images ({', '.join(_SUFFIXES)}); choose one that does.")


def _frames_among(folder: Path, files: list[Path], notes: list[str]) -> list[Path]:
    """The files without masks: series of images of few values whose numbers another series has as well."""
    series = defaultdict(list)
    for file in files:
        series[re.sub("[0-9]+", "#", file.name.lower())].append(file)
    kinds = list(series.values())
    paired = [one for one in kinds if any(_are_paired(one, other) for other in kinds if other is not one)]
    frames = [files for files in paired if not _are_masks(files)]
    if not paired:
        return files
    if len(frames) != 1:
        named = " and ".join(f"{len(files)} like {files[0].name}" for files in paired)
        raise InputError(
            f"The folder {folder.name} holds images of several kinds with the same numbers: {named}; put those that "
            "are no frames of the clip into another folder."
        )
    masks = {file for files in paired if files is not frames[0] for file in files}
    example = min(masks, key=lambda file: natural_key(file.name)).name
    notes.append(f"Left out {len(masks)} masks: images of few values beside the frames, such as {example}.")
    return [file for file in files if file not in masks]


def _are_paired(files: list[Path], others: list[Path]) -> bool:
    """Whether most numbers of the smaller of two series occur in the other one."""
    own, their = ([tuple(re.findall("[0-9]+", file.stem)) for file in part] for part in (files, others))
    length = min(len(own[0]), len(their[0]))
    common = {numbers[:length] for numbers in own} & {numbers[:length] for numbers in their}
    return length > 0 and len(common) >= 2 and 2 * len(common) > min(len(own), len(their))


def _are_masks(files: list[Path]) -> bool:
    """Whether the first, the middle and the last image have as few values as masks."""
    for file in {files[0], files[len(files) // 2], files[-1]}:
        with open_pages(file) as pages:
            require_plausible_clip(file, 1, *pages.size)
            if len(np.unique(next(pages.images))) > _MOST_MASK_VALUES:
                return False
    return True


def _alike(path: Path, pages: Pages) -> Iterator[np.ndarray]:
    """The pages of one image file. Raises InputError: pages of different kinds."""
    first = None
    for index, image in enumerate(pages.images):
        first = image if first is None else first
        _require_alike(image, f"Page {index + 1} of {path.name}", first, "page 1", "all pages must be of one")
        yield image


def _images_of(folder: Path, notes: list[str]) -> Iterator[np.ndarray]:
    """Each image of a folder, [H, W] or [H, W, channels]; images of 8 bits may mix grey and colour."""
    files = _frames_among(folder, _files_of(folder), notes)
    first = None
    for file in files:
        with open_pages(file) as pages:
            if pages.count != 1:
                raise InputError(f"{file.name} has {pages.count} pages; each image of a folder must have one.")
            image = next(pages.images)
        if first is None:
            first = image
            require_plausible_clip(folder, len(files), *first.shape[:2])
        _require_alike(image, file.name, first, files[0].name, "all images of a folder must be of one")
        notes += [note for note in pages.notes if note not in notes]
        yield image


def _require_alike(image: np.ndarray, name: str, first: np.ndarray, first_name: str, rule: str) -> None:
    if image.shape[:2] != first.shape[:2]:
        raise InputError(
            f"{name} has {image.shape[1]} x {image.shape[0]} pixels and {first_name} "
            f"{first.shape[1]} x {first.shape[0]}; {rule} size."
        )
    if image.dtype != first.dtype or (image.shape != first.shape and first.dtype != np.uint8):
        raise InputError(
            f"{name} holds {image.dtype} pixels of another kind than {first_name} ({first.dtype}); {rule} kind."
        )
