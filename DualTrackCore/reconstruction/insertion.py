"""Placing the pixels of a frame among the voxels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch

#: How far outside the outermost voxel centres rounding may place a pixel that lies on them, voxels.
EDGE_TOLERANCE = 1e-6
#: Pixels that lie midway between voxel centres go to the upper one, whatever the rounding of their position.
TIE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Block:
    """Rows of one frame.

    Attributes:
        values: [rows, columns] uint8.
        keep: [rows, columns] bool, or None where all pixels are kept.
        first_row, first_column: pixel coordinates of values[0, 0].
        voxel_from_pixel: [4, 4] float64.
        first_key: number of values[0, 0] in the order of insertion over the whole sweep.
        inside: all pixels lie well inside the grid, so that none needs to be checked.
    """

    values: np.ndarray
    keep: np.ndarray | None
    first_row: int
    first_column: int
    voxel_from_pixel: np.ndarray
    first_key: int
    inside: bool


@dataclass(frozen=True)
class Placement:
    """Pixels among voxels.

    Attributes:
        index: [n] int64, flat index of the voxel (nearest) or of the lowest corner of the cell (linear).
        values: [n] uint8.
        keys: [n] int64, rising in the order of insertion.
        parts: position within the cell along x, y, z, each [n] float32 in 0 to 1; None for nearest.
        steps: what an upper corner adds to `index` along x, y, z.
    """

    index: torch.Tensor
    values: torch.Tensor
    keys: torch.Tensor
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    steps: tuple[int, int, int] = (0, 0, 0)

    def corners(self) -> list[tuple[int, torch.Tensor]]:
        """(offset to `index`, weights [n] float32) of the voxels that each pixel goes to: eight, or one."""
        if self.parts is None:
            return [(0, torch.ones(len(self.index)))]
        x, y, z = self.parts
        step_x, step_y, step_z = self.steps
        weights = []
        for (dz, wz), (dy, wy) in itertools.product(((0, 1 - z), (step_z, z)), ((0, 1 - y), (step_y, y))):
            upper = wz * wy
            weights += [(dz + dy, upper * (1 - x)), (dz + dy + step_x, upper * x)]
        return weights


def place_nearest(block: Block, shape: tuple[int, int, int], reject_below: int) -> Placement:
    """Each pixel in the voxel of [nz, ny, nx] whose centre is closest; pixels outside are left out."""
    cells, values, keys = _positions(block, reject_below, 0.5 + TIE_TOLERANCE)
    for cell in cells:
        cell.floor_()
    if not block.inside:
        cells, values, keys = _inside(cells, values, keys, shape, 0.0)
    return Placement(_flat_index(cells, shape), values, keys)


def place_linear(block: Block, shape: tuple[int, int, int], reject_below: int) -> Placement:
    """Each pixel in the cell between eight voxel centres of [nz, ny, nx]; pixels in no cell are left out."""
    positions, values, keys = _positions(block, reject_below, 0.0)
    if block.inside:
        cells = [p.floor() for p in positions]
    else:
        positions, values, keys = _inside(positions, values, keys, shape, EDGE_TOLERANCE)
        # A pixel on the last voxel centre belongs to the last cell, with all its weight on the upper corner.
        cells = [
            p.clamp_(0, n - 1).floor().clamp_(max=max(n - 2, 0)) for p, n in zip(positions, shape[::-1], strict=True)
        ]
    x, y, z = (p.sub_(cell).float() for p, cell in zip(positions, cells, strict=True))
    strides = (1, shape[2], shape[2] * shape[1])
    # Along an axis of a single voxel the upper corner has no weight, and must not point past the end.
    step_x, step_y, step_z = (s if n > 1 else 0 for s, n in zip(strides, shape[::-1], strict=True))
    return Placement(_flat_index(cells, shape), values, keys, (x, y, z), (step_x, step_y, step_z))


def _positions(block: Block, reject_below: int, shift: float) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Positions (x, y, z) + shift in voxels [n] float64, grey values [n] and keys [n] of the kept pixels of a block."""
    rows, columns = block.values.shape
    matrix = block.voxel_from_pixel
    u = np.arange(columns) + block.first_column
    v = np.arange(rows)[:, None] + block.first_row
    positions = [
        torch.from_numpy(np.add(matrix[a, 1] * v + (matrix[a, 3] + shift), matrix[a, 0] * u)).flatten()
        for a in range(3)
    ]
    values = torch.from_numpy(np.array(block.values)).flatten()
    keys = torch.arange(block.first_key, block.first_key + rows * columns)
    keep = None if block.keep is None else torch.from_numpy(block.keep.copy()).flatten()
    if reject_below > 0:
        bright = values >= reject_below
        keep = bright if keep is None else keep & bright
    if keep is None:
        return positions, values, keys
    chosen = torch.nonzero(keep).squeeze(1)
    return [position[chosen] for position in positions], values[chosen], keys[chosen]


def _inside(
    positions: list[torch.Tensor],
    values: torch.Tensor,
    keys: torch.Tensor,
    shape: tuple[int, int, int],
    margin: float,
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Those of the pixels that lie within `margin` of the box of voxel centres."""
    x, y, z = ((p >= -margin) & (p <= n - 1 + margin) for p, n in zip(positions, shape[::-1], strict=True))
    chosen = torch.nonzero(x & y & z).squeeze(1)
    return [position[chosen] for position in positions], values[chosen], keys[chosen]


def _flat_index(cells: list[torch.Tensor], shape: tuple[int, int, int]) -> torch.Tensor:
    # Whole numbers below 2^53 are exact in float64, so that one conversion at the end is enough.
    x, y, z = cells
    return (z * (shape[1] * shape[2])).add_(y, alpha=shape[2]).add_(x).long()
