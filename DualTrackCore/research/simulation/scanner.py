"""From echo levels to the picture: the effects of a scanner, applied when frames are loaded.

In this order: stationary clutter and electronic noise are added to the power of the echoes; compounding averages
neighbouring lines; gain, range and gamma give grey values; the picture is smoothed; frames are averaged over time.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from DualTrackCore.research.simulation.acquisition import Scanner, View
from DualTrackCore.research.simulation.probe import Probe

#: Frames before an item that persistence needs; at .7, all earlier ones have a weight of 6 %.
WARM_UP_FRAMES = 8
_DECIBEL = float(np.log(10) / 10)


def scanned(
    levels_db: Tensor,
    scanner: Scanner,
    probe: Probe,
    spacing_mm: tuple[float, float],
    random: np.random.Generator,
    *,
    warm_up: int = 0,
    first_row: int = 0,
    picture_rows: int | None = None,
) -> Tensor:
    """The pictures of a scanner.

    Args:
        levels_db: [n, H, W] float32 echo levels after time-gain compensation, dB over reference tissue, minus infinity
            without a beam; in the order of recording.
        scanner: its effects; with every effect off, the result is that of :meth:`Probe.grey`.
        probe: its range and gain.
        spacing_mm: (across columns, down rows).
        random: source of clutter and noise.
        warm_up: number of first frames that only serve persistence; they are not returned.
        first_row: row of the whole picture that is row 0 of the levels.
        picture_rows: rows of the whole picture; None: H.

    Returns:
        [n - warm_up, H, W] uint8.
    """
    rows = levels_db.shape[1]
    depth_mm = (np.arange(rows) + first_row) * spacing_mm[1]
    picture_mm = (picture_rows or rows) * spacing_mm[1]
    inside = torch.isfinite(levels_db[:1])
    added = _clutter(levels_db.shape[1:], scanner, probe, spacing_mm, depth_mm, random)
    dynamic_range = probe.dynamic_range_db if scanner.dynamic_range_db is None else scanner.dynamic_range_db
    top = probe.top_db if scanner.top_db is None else scanner.top_db
    if scanner.standoff_mm:
        levels_db = levels_db.masked_fill(_column(depth_mm < scanner.standoff_mm), -np.inf)
    if added is not None or scanner.noise_db is not None or scanner.compounding_angles > 1:
        power = (levels_db * _DECIBEL).exp()
        if added is not None:
            power = power + added
        if scanner.noise_db is not None:
            power = power + _noise(power.shape, scanner.noise_db + probe.gain_db(depth_mm), random)
        levels_db = _compounded(power, scanner, probe, spacing_mm).clamp(min=1e-12).log() * (1 / _DECIBEL)
    if scanner.gain_curve_db:
        places = np.linspace(0, picture_mm, len(scanner.gain_curve_db))
        levels_db = levels_db + _column(np.interp(depth_mm, places, scanner.gain_curve_db))
    grey = (255 + (levels_db - top) * (255 / dynamic_range)).clamp(0, 255)
    if scanner.gamma != 1.0:
        grey = 255 * (grey / 255) ** scanner.gamma
    if scanner.speckle_filter_mm:
        sigma = tuple(scanner.speckle_filter_mm / spacing for spacing in spacing_mm[::-1])
        grey = torch.from_numpy(gaussian_filter(grey.numpy(), (0, *sigma), truncate=2.5))
    grey = torch.where(inside, grey, 0)
    return _lasting(grey, scanner)[warm_up:].round().to(torch.uint8)


def _column(values: np.ndarray) -> Tensor:
    """[rows] as a tensor [rows, 1], for all columns."""
    column = torch.from_numpy(np.ascontiguousarray(values))[:, None]
    return column if column.dtype == torch.bool else column.float()


def _clutter(
    size: tuple[int, int],
    scanner: Scanner,
    probe: Probe,
    spacing_mm: tuple[float, float],
    depth_mm: np.ndarray,
    random: np.random.Generator,
) -> Tensor | None:
    """Power [H, W] of stationary clutter with the probe's speckle cell, or None."""
    if scanner.clutter_db is None:
        return None
    cell = probe.axial_sigma_mm / spacing_mm[1], float(probe.lateral_sigma_mm(5.0)) / spacing_mm[0]
    field = gaussian_filter(random.standard_normal((2, *size), dtype=np.float32), (0, *np.maximum(cell, 0.5)))
    power = np.square(field).sum(axis=0)
    below = np.maximum(depth_mm - scanner.standoff_mm, 0)
    fall_db = scanner.clutter_db - 20 / np.log(10) * below / scanner.clutter_depth_mm
    return torch.from_numpy(power / power.mean()) * _column(10 ** (fall_db / 10))


def _noise(size: torch.Size, level_db: np.ndarray, random: np.random.Generator) -> Tensor:
    """Power [n, H, W] of electronic noise, new in every frame: exponential with a mean for each row."""
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    return torch.empty(size).exponential_(generator=generator) * _column(10 ** (level_db / 10))


def _compounded(power: Tensor, scanner: Scanner, probe: Probe, spacing_mm: tuple[float, float]) -> Tensor:
    """The mean of one line per angle, a speckle cell apart, so that their speckle is independent."""
    angles = scanner.compounding_angles
    if angles == 1:
        return power
    apart = max(1, round(float(probe.lateral_sigma_mm(probe.transmit_focus_mm)) / spacing_mm[0]))
    reach = apart * (angles - 1)
    padded = torch.nn.functional.pad(power, (reach // 2, reach - reach // 2), mode="replicate")
    return sum(padded[:, :, i * apart : i * apart + power.shape[2]] for i in range(angles)) / angles


def _lasting(grey: Tensor, scanner: Scanner) -> Tensor:
    """Frames averaged over time: moving average, then persistence."""
    if scanner.averaged_frames > 1:
        sums = grey.cumsum(dim=0)
        sums[scanner.averaged_frames :] -= grey.cumsum(dim=0)[: -scanner.averaged_frames]
        counts = torch.arange(1, len(grey) + 1).clamp(max=scanner.averaged_frames)
        grey = sums / counts[:, None, None]
    if scanner.persistence:
        shown = [grey[0]]
        for frame in grey[1:]:
            shown.append(torch.lerp(frame, shown[-1], scanner.persistence))
        grey = torch.stack(shown)
    return grey


def framed(frames: Tensor, view: View, spacing_mm: tuple[float, float], random: np.random.Generator) -> Tensor:
    """Whole pictures [n, H, W] uint8 with the black borders and burned-in marks of a view."""
    if not view.overlay and not any(view.border_mm):
        return frames
    frames = frames.clone()
    left, right = (round(width / spacing_mm[0]) for width in view.border_mm)
    frames[:, :, :left] = 0
    frames[:, :, frames.shape[2] - right :] = 0
    for _ in range(random.integers(1, 5) if view.overlay else 0):
        rows, columns = frames.shape[1:]
        height, width = int(random.integers(2, 8)), int(random.integers(4, max(5, columns // 4)))
        row = int(random.integers(rows - height))
        column = int(random.choice([0, columns - width]))
        mark = random.random((height, width)) < 0.5
        frames[:, row : row + height, column : column + width][:, torch.from_numpy(mark)] = 255
    return frames
