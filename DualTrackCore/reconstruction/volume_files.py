"""Volumes in files that keep origin, spacing and direction, and say where the poses of the volume are from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import replacing
from DualTrackCore.io.pose_marks import AXES, AXES_FIELD, header_marks_of
from DualTrackCore.path_error import TRUST
from DualTrackCore.trajectory import RAS_FROM_LPS

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.builder import Reconstruction

#: File formats that keep origin, spacing and direction.
VOLUME_SUFFIXES = (".nrrd", ".mha", ".nii.gz", ".nii")
#: Steps of a pixel in which files keep the coverage; a power of two.
COVERAGE_STEPS = 64


def image_of(array: np.ndarray, volume: Reconstruction) -> sitk.Image:
    """Values [nz, ny, nx] on the grid of a volume as an image, placed and marked as :meth:`Reconstruction.to_sitk`."""
    image, grid = sitk.GetImageFromArray(array), volume.grid
    lps_from_grid = (np.eye(4) if grid.frame == "frame0" else RAS_FROM_LPS)[:3, :3]
    image.SetOrigin((lps_from_grid @ grid.origin_mm).tolist())
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection((lps_from_grid @ grid.axes).ravel().tolist())
    source, origin = volume.provenance.get("trajectory", {}), volume.provenance.get("poses_origin", "unknown")
    for name, text in header_marks_of(source, origin).items():
        image.SetMetaData(name, text)
    image.SetMetaData(AXES_FIELD, AXES[grid.frame])
    return image


def in_steps(coverage: np.ndarray) -> np.ndarray:
    """[nz, ny, nx] float32 coverage in whole steps, at least one where anything was seen; counts stay as they are.

    The last digits of sums of weights are noise, and a file that keeps them is six times as large.
    """
    steps = coverage * np.float32(COVERAGE_STEPS)
    np.maximum(np.rint(steps, out=steps), coverage > 0, out=steps)
    steps /= COVERAGE_STEPS
    return steps


def write_image(make: Callable[[], sitk.Image], path: Path, volume: Reconstruction) -> Path:
    """Write what `make` gives, an image of :func:`image_of`, compressed; errors as for :meth:`Reconstruction.write`."""
    if not path.name.lower().endswith(VOLUME_SUFFIXES):
        raise InputError(f"{path.name} is not a volume file; choose one of {', '.join(VOLUME_SUFFIXES)}.")
    image = make()
    if ".nii" in path.suffixes and (line := volume.provenance.get("trajectory", {}).get(TRUST)):
        image.SetMetaData("ITK_FileNotes", line[:79])  # SimpleITK refuses more than the header has room for
    with replacing(path) as temporary:
        temporary.touch()  # says why, where a file cannot even be made
        try:
            with contextlib.nullcontext() if path.suffix.lower() == ".nrrd" else _quiet_libraries():
                sitk.WriteImage(image, str(temporary), useCompression=True)
                written = sitk.ReadImage(str(temporary))  # ITK does not report every write that failed
            whole = np.array_equal(sitk.GetArrayViewFromImage(written), sitk.GetArrayViewFromImage(image))
        except RuntimeError:
            whole = False
        if not whole:
            raise OutputError(f"Cannot write {path}: the disk takes no more; choose another folder or free some space.")
    return path


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the lines of the libraries for .nii and .mha off stderr, and with them all that other threads say there."""
    try:
        kept = os.dup(2)
    except OSError:  # a program without a terminal
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
