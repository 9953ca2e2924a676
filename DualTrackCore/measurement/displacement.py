"""The uncertainty volume: how far each voxel is expected to lie from its true place, as its frame 0 sees it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.path_error import path_error
from DualTrackCore.progress import finished
from DualTrackCore.reconstruction import PlacedFrames, Reconstruction
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.uncertainty import twist_covariances

#: Most nodes along an axis at which it is computed, and most frames, spread evenly; between nodes it is interpolated.
_NODES, _FRAMES = 48, 512
#: Frames whose pixels are placed at a time; digits after the point that are kept, as more do not compress.
_TOGETHER, _DIGITS = 8, 2


class Displacement(NamedTuple):
    """Root mean square distances at nodes that lie evenly over a volume.

    Attributes:
        values: [nz, ny, nx] float64, mm; 0 at nodes that no frame passes.
        seen: [nz, ny, nx] bool, the nodes that frames pass.
        voxel_from_node: [3] voxels from node to node along x, y, z; the first node is the first voxel.
        node_mm: [3] the same in mm.
    """

    values: np.ndarray
    seen: np.ndarray
    voxel_from_node: np.ndarray
    node_mm: np.ndarray


def displacement_volume(volume: Reconstruction, trajectory: Trajectory) -> np.ndarray:
    """Root mean square distance, mm, of what each voxel shows from its true place, relative to the first frame.

    Pixels move with their frames, to first order and with the lever arms of the turns. Where several frames pass, the
    mean square of theirs counts. By the rule of thumb, and for a path that was corrected, all pixels of a frame are
    off by as much as its centre.

    Args:
        volume: that knows its frames.
        trajectory: of the sweep that its frames are counted in.

    Returns:
        [nz, ny, nx] float32 on the grid of the volume; 0 where the volume shows nothing.

    Raises InputError: how far the path is off is not known for all frames.
    """
    from scipy.ndimage import distance_transform_edt

    made = finished(displacement_in_pieces(volume.grid, volume.require_placed(), trajectory))
    nearest = distance_transform_edt(~made.seen, made.node_mm[::-1], return_distances=False, return_indices=True)
    return _interpolated(made.values[tuple(nearest)], volume)


def displacement_in_pieces(
    grid: VoxelGrid, placed: PlacedFrames, trajectory: Trajectory
) -> Generator[None, None, Displacement]:
    """What :func:`displacement_volume` interpolates, made in pieces of some milliseconds.

    Raises InputError: how far the path is off is not known for all frames.
    """
    squares = _squares(trajectory)[placed.numbers]
    if not np.isfinite(squares).all():
        raise InputError("How far the path is off is not known for all of its frames.")
    size = np.array(grid.size)
    nodes = np.minimum(size, _NODES)
    # Between the centres of the outermost voxels the nodes lie evenly.
    node_from_voxel = (nodes - 1) / np.maximum(size - 1, 1)
    node_mm = np.array(grid.spacing_mm) * size / nodes
    pixels = _lattice(placed.frame0_from_pixel[0], placed.runs, node_mm)
    total, count = np.zeros(nodes.prod()), np.zeros(nodes.prod())
    frames = np.unique(np.linspace(0, len(squares) - 1, min(len(squares), _FRAMES)).astype(int))
    for start in range(0, len(frames), _TOGETHER):
        yield
        part = frames[start : start + _TOGETHER]
        points = np.swapaxes(placed.frame0_from_pixel[part] @ pixels, 1, 2)
        at = np.rint((points @ grid.voxel_from_frame0.T)[..., :3] * node_from_voxel).astype(int)
        inside = ((at >= 0) & (at < nodes)).all(axis=2)
        index = np.ravel_multi_index(tuple(at[inside].T[::-1]), tuple(nodes[::-1]))
        values = np.einsum("npi,nij,npj->np", points, squares[part], points)[inside]
        total += np.bincount(index, np.maximum(values, 0), len(total))
        count += np.bincount(index, minlength=len(count))
    seen = (count > 0).reshape(nodes[::-1])
    values = np.sqrt(total / np.maximum(count, 1)).reshape(nodes[::-1])
    return Displacement(values, seen, np.maximum(size - 1, 1) / np.maximum(nodes - 1, 1), node_mm)


def write_displacement(volume: Reconstruction, trajectory: Trajectory, path: Path) -> list[str]:
    """Write :func:`displacement_volume` as the volume is written; a sentence where there is nothing to write.

    Raises OutputError: the file cannot be written.
    """
    from DualTrackCore.reconstruction.volume_files import image_of, write_image

    try:
        values = displacement_volume(volume, trajectory)
    except InputError as error:
        return [f"No uncertainty volume was written: {error}"]
    write_image(lambda: image_of(values, volume), path, volume)
    return []


def _squares(trajectory: Trajectory) -> np.ndarray:
    """[N, 4, 4] quadratic form of each frame: mean square displacement (mm2) of a point (x, y, z, 1) in frame0.

    A point p is moved by moment + turn x p. The mean square of that has the traces of the two covariances, and the part
    in which moment and turn go together.
    """
    frames = np.flatnonzero(trajectory.valid)
    squares, known = np.full((len(trajectory), 4, 4), np.nan), trajectory.chosen(frames)
    if known.sigma is not None and known.path_covariance is None:
        covariance = twist_covariances(known.poses, known.sigma, known.step_error_correlation)
        moment, both, turn = covariance[:, :3, :3], covariance[:, :3, 3:], covariance[:, 3:, 3:]
        found = np.zeros((len(frames), 4, 4))
        found[:, :3, :3] = np.trace(turn, axis1=1, axis2=2)[:, None, None] * np.eye(3) - turn
        for axis, (one, other) in enumerate(((1, 2), (2, 0), (0, 1))):
            found[:, axis, 3] = found[:, 3, axis] = both[:, one, other] - both[:, other, one]
        found[:, 3, 3] = np.trace(moment, axis1=1, axis2=2)
        squares[frames] = found
    elif (error := path_error(trajectory)) is not None:
        squares[frames] = 0
        squares[frames, 3, 3] = np.trace(error.covariance_mm2[frames], axis1=1, axis2=2)
    return squares


def _lattice(frame0_from_pixel: np.ndarray, runs: np.ndarray, node_mm: np.ndarray) -> np.ndarray:
    """[4, p] pixels (column, row, 0, 1) of the runs, at least two of them to each node along the frame."""
    across, down = (max(int(node_mm.min() / np.linalg.norm(frame0_from_pixel[:3, axis]) / 2), 1) for axis in (0, 1))
    rows = np.unique(np.concatenate([runs[::down, 0], runs[-1:, 0]]))
    found = [
        [column, row, 0, 1]
        for row, first, stop in runs[np.isin(runs[:, 0], rows)].tolist()
        for column in {*range(first, stop, across), stop - 1}
    ]
    return np.array(found, dtype=np.float64).T


def _interpolated(coarse: np.ndarray, volume: Reconstruction) -> np.ndarray:
    """Values at nodes on all voxels, linear between them; 0 where the volume shows nothing."""
    along_z, along_y, along_x = (
        _weights(nodes, size) for nodes, size in zip(coarse.shape, volume.grid.shape, strict=True)
    )
    found = np.zeros(volume.grid.shape, np.float32)
    for layer, weights in enumerate(along_z):
        values = along_y @ np.tensordot(weights, coarse, 1) @ along_x.T
        shown = (volume.coverage[layer] > 0) | volume.filled[layer]
        found[layer][shown] = values.round(_DIGITS)[shown]
    return found


def _weights(nodes: int, size: int) -> np.ndarray:
    """[size, nodes] of linear interpolation between nodes that lie evenly from the first voxel to the last."""
    at = np.linspace(0, nodes - 1, size)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(nodes)), 0)
