"""Displacement fields as the TUS-REC challenges ask for them, and a check that reads them back.

A displacement is what a pose adds to the place of a pixel, in mm, in the image axes of the frame that it leads to:
global fields lead from every frame but the first to frame 0, local ones to the frame before. There are four: GP and LP
[N - 1, 3, H W] for all pixels, row by row, GL and LL [3, L] for the landmarks. The official code counts pixels from 1
where the calibration is applied, so its fields are those of places one pixel further to the right and down than the
centres of the pixels: `tus_rec_pixels`. Fields are affine in the pixel, so they are made in fp64 and rounded once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.evaluation import definitions
from DualTrackCore.files import replacing
from DualTrackCore.io.calibration import split_affine
from DualTrackCore.io.hdf5_frames import member, opened
from DualTrackCore.io.tus_rec import read_calib_matrix
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.network import load_model
from DualTrackCore.network.catalogue import DEFAULT_MODEL
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.datasets import Dataset
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    import torch

#: The fields in the order of the challenge, and the names of their mean errors.
FIELDS = {"GP": "gpe_mm", "GL": "gle_mm", "LP": "lpe_mm", "LL": "lle_mm"}
#: Bytes of frames of one field at a time.
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of one trajectory, made when they are asked for.

    Attributes:
        maps: "G" and "L": [N - 1, 3, 3] float64, (column, row, 1) of a frame from the second on to its displacement,
            mm; NaN where a pose is.
        frame_size: (rows, columns).
        landmarks: of the sweep, perhaps none.
    """

    maps: Mapping[str, np.ndarray]
    frame_size: tuple[int, int]
    landmarks: Landmarks

    @classmethod
    def of(
        cls, trajectory: Trajectory, sweep: Sweep, landmarks: Landmarks | None, tus_rec_pixels: bool = True
    ) -> Fields:
        """The fields of a trajectory of a sweep.

        Raises InputError: another number of poses than frames, unknown spacing, no images, or landmarks elsewhere.
        """
        if len(trajectory) != len(sweep) or len(sweep) < 2:
            raise InputError(
                f"There are {len(trajectory)} poses of {len(sweep)} frames; fields need one a frame, 2 or more."
            )
        sweep.require_images()
        landmarks = Landmarks(np.zeros(0), np.zeros((0, 2))) if landmarks is None else landmarks
        landmarks.require_inside(len(sweep), sweep.frame_size)
        image_from_pixel = definitions.image_from_pixel(sweep, tus_rec_pixels)
        known = np.where(trajectory.valid[:, None, None], trajectory.poses, np.nan)
        moved = {"G": definitions.invert_rigid(known[:1]) @ known[1:], "L": trajectory.relative}
        maps = {name: ((poses - np.eye(4)) @ image_from_pixel)[:, :3][:, :, [0, 1, 3]] for name, poses in moved.items()}
        return cls(maps, sweep.frame_size, landmarks)

    def __len__(self) -> int:
        return len(self.maps["G"])

    def of_pixels(self, kind: str, start: int, stop: int) -> np.ndarray:
        """[n, 3, H W] float64, mm: the entries start to stop - 1 of the global ("G") or local ("L") field."""
        height, width = self.frame_size
        across, down, constant = self.maps[kind][start:stop].transpose(2, 0, 1)[..., None]
        rows = down * np.arange(height) + constant
        return (rows[..., None] + (across * np.arange(width))[:, :, None]).reshape(len(across), 3, height * width)

    def of_landmarks(self, kind: str) -> np.ndarray:
        """[3, L] float64, mm. A landmark in frame 0 gets the field of the last frame, as in the official code."""
        places = np.column_stack([self.landmarks.pixels, np.ones(len(self.landmarks))])
        return (self.maps[kind][self.landmarks.frames - 1] @ places[..., None])[..., 0].T

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First entry and one past the last of blocks that fit into little memory."""
        size = max(1, _BLOCK_BYTES // (24 * self.frame_size[0] * self.frame_size[1]))
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    @property
    def bytes(self) -> int:
        """Of the four fields in a file."""
        return 24 * (len(self) * self.frame_size[0] * self.frame_size[1] + len(self.landmarks))


def predict_ddfs(
    frames: np.ndarray,
    landmark: np.ndarray,
    data_path_calib: str | Path,
    device: str | torch.device = "auto",
    *,
    model: str | Path = DEFAULT_MODEL,
    tus_rec_pixels: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four fields of one scan; takes the place of the function of this name in the challenge's container.

    Args:
        frames: [N, H, W] uint8.
        landmark: [L, 3] frame from 0, column and row from 1.
        data_path_calib: the challenge's `calib_matrix.csv`.
        device: for the network.
        model: a name of `dualtrack models list`, or weights.
        tus_rec_pixels: count pixels from 1, as the official code does.

    Returns:
        GP, GL, LP, LL, float32, mm.

    Raises:
        InputError: frames, landmarks or calibration that cannot be used.
        CheckpointError: weights that cannot be used.
    """
    frames = np.asarray(frames)
    spacing = split_affine(read_calib_matrix(Path(data_path_calib)), frames.shape[1:]).spacing_mm
    sweep = Sweep(frames, tuple(spacing.tolist()))
    trajectory = estimate_trajectory(sweep, load_model(model), device=device)
    fields = Fields.of(trajectory, sweep, Landmarks.from_tus_rec(landmark), tus_rec_pixels)
    _require_complete(fields, "the scan")
    dense = {kind: np.empty((len(fields), 3, frames[0].size), np.float32) for kind in "GL"}
    for start, stop in fields.blocks():
        for kind, field in dense.items():
            field[start:stop] = fields.of_pixels(kind, start, stop)
    marked = {kind: fields.of_landmarks(kind).astype(np.float32) for kind in "GL"}
    return dense["G"], marked["G"], dense["L"], marked["L"]


def submit_dataset(
    dataset: Dataset,
    folder: str | Path,
    estimate: Callable[[Sweep], Trajectory],
    *,
    tus_rec_pixels: bool = True,
    check_only: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the fields of every sweep as `SUBJECT/SCAN.h5` with GP, GL, LP and LL, read them back and measure them.

    Args:
        dataset: sweeps need images and a pixel size; poses only to be measured.
        folder: for the files; each appears whole or not at all, and takes the place of an earlier one.
        estimate: gives the trajectory of a sweep.
        tus_rec_pixels: count pixels from 1, as the official code does.
        check_only: read and measure files of an earlier call and write none.
        progress: receives `Stage.SWEEPS`, and within a sweep `Stage.WRITING` and `Stage.MEASURING` (frames).
        cancelled: asked between blocks of frames.

    Returns:
        By sweep: the figures of :func:`measure_fields`, and `file`.

    Raises:
        InputError: a sweep, a trajectory or a file that cannot be used.
        OutputError: the folder cannot be written, or the disk has too little room for a sweep.
        Cancelled: the caller asked to stop; finished files stay.
    """
    reporter, results = Reporter(progress, cancelled), {}
    for done, entry in enumerate(dataset):
        reporter.report(Stage.SWEEPS, done, len(dataset))
        path = Path(folder, f"{entry.name}.h5")
        sweep, landmarks = entry.pictures(), entry.landmarks()
        if not check_only:
            fields = Fields.of(estimate(sweep), sweep, landmarks, tus_rec_pixels)
            _require_complete(fields, entry.name)
            _write(fields, path, Reporter(progress, cancelled, entry.name))
        results[entry.name] = {"file": str(path), **measure_fields(path, sweep, landmarks, tus_rec_pixels, reporter)}
    reporter.report(Stage.SWEEPS, len(dataset), len(dataset))
    return results


def measure_fields(
    path: Path, sweep: Sweep, landmarks: Landmarks | None, tus_rec_pixels: bool, reporter: Reporter
) -> dict[str, float]:
    """Read fields back and measure them against the true poses, in fp64 over every pixel.

    Returns:
        `gpe_mm`, `gle_mm`, `lpe_mm`, `lle_mm` and `tus_rec_score`
        (:data:`~DualTrackCore.evaluation.METRICS`); NaN without true poses or landmarks. Landmarks in frame 0 do not
        count.

    Raises InputError: not the four fields of this sweep: shape, type, or a number that is not finite.
    """
    truth = Trajectory.from_parameters(np.zeros((len(sweep) - 1, 6))) if sweep.truth is None else sweep.truth
    true = Fields.of(truth, sweep, landmarks, tus_rec_pixels)
    shapes = {name: (3, len(true.landmarks)) for name in FIELDS}
    shapes |= {name: (len(true), 3, int(np.prod(sweep.frame_size))) for name in ("GP", "LP")}
    errors: dict[str, float] = {}
    still: dict[str, float] = {}
    with opened(path) as file:
        for name, metric in FIELDS.items():
            stored = member(file, name)
            if stored is None or stored.shape != shapes[name] or stored.dtype != np.float32:
                found = "nothing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
                raise InputError(f"{path} has {found} as {name}; expected float32 {list(shapes[name])}: make it anew.")
            measured = (
                _landmarks(stored[()], true, name, path) if name[1] == "L" else _pixels(stored, true, path, reporter)
            )
            if sweep.truth is None:
                measured = (np.nan, np.nan)
            errors[metric], still[metric] = measured
    return {**errors, "tus_rec_score": definitions.scores(errors, still)["tus_rec_score"]}


def _pixels(stored: Any, true: Fields, path: Path, reporter: Reporter) -> tuple[float, float]:
    """Mean error of a dense field, and that of no motion, over all pixels of the frames with a true pose."""
    kind, sums, frames = stored.name[1], np.zeros(2), 0
    for start, stop in true.blocks():
        reporter.report(Stage.MEASURING, start, len(true), stored.name[1:])
        given, expected = stored[start:stop].astype(np.float64), true.of_pixels(kind, start, stop)
        _require_finite(given, stored.name[1:], path)
        counted = np.isfinite(expected[:, 0, 0])
        frames += int(counted.sum())
        for i, vectors in enumerate((given - expected, expected)):
            sums[i] += np.sqrt(np.square(vectors[counted]).sum(axis=1)).mean(axis=1).sum()
    return tuple(sums / frames) if frames else (np.nan, np.nan)


def _landmarks(given: np.ndarray, true: Fields, name: str, path: Path) -> tuple[float, float]:
    """The same of a field of landmarks."""
    _require_finite(given, name, path)
    expected = true.of_landmarks(name[0])
    counted = (true.landmarks.frames > 0) & np.isfinite(expected).all(axis=0)
    if not counted.any():
        return np.nan, np.nan
    return tuple(np.sqrt(np.square(vectors[:, counted]).sum(axis=0)).mean() for vectors in (given - expected, expected))


def _require_finite(values: np.ndarray, name: str, path: Path) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{path} has a number in {name} that is not finite, and no score comes of it; make it anew.")


def _require_complete(fields: Fields, what: str) -> None:
    """Refuse poses that are missing: the challenge gives no score then."""
    if len(lost := np.flatnonzero(~np.isfinite(fields.maps["G"]).all(axis=(1, 2)))):
        raise InputError(
            f"Frame {lost[0] + 1} of {what} has no pose, so it has no field; a submission needs all of them."
        )


def _write(fields: Fields, path: Path, reporter: Reporter) -> None:
    import h5py

    place = next(folder for folder in path.absolute().parents if folder.exists())
    if (free := shutil.disk_usage(place).free) < fields.bytes:
        raise OutputError(
            f"The fields of {path} take {fields.bytes / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; choose "
            "another disk, or submit fewer sweeps at a time."
        )
    os.makedirs(path.parent, exist_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        shape = (len(fields), 3, fields.frame_size[0] * fields.frame_size[1])
        dense = {kind: file.create_dataset(f"{kind}P", shape, np.float32) for kind in "GL"}
        for kind in "GL":
            file.create_dataset(f"{kind}L", data=fields.of_landmarks(kind).astype(np.float32))
        for start, stop in fields.blocks():
            reporter.report(Stage.WRITING, start, len(fields))
            for kind, stored in dense.items():
                stored[start:stop] = fields.of_pixels(kind, start, stop).astype(np.float32)
        reporter.report(Stage.WRITING, len(fields), len(fields))
