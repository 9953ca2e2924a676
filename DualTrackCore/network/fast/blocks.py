"""Convolutions of a block of tiles or pixels over all frames of a chunk, compiled by numba.

Images are float32, [frame, row, column, channel], with a border of one pixel around them. Whoever calls gives addresses
and distances in bytes, and scratch memory of the size that :func:`winograd_scratch` and :func:`direct_scratch` say.
A block of output frames n is computed from n + 2 input frames where kernels reach over three frames.
"""

from __future__ import annotations

from numba import float32, int64

from DualTrackCore.compilation import kernel
from DualTrackCore.network.fast.vectors import (
    LANES,
    PANEL,
    ROWS,
    copy_vector,
    finish_vector,
    pair_from_winograd,
    pair_to_winograd,
    product_panel,
    product_vector,
    single_from_winograd,
    single_to_winograd,
    tile_from_winograd,
    tile_to_winograd,
)


def winograd_scratch(frames: int, tiles: int, channels: int) -> int:
    """Floats of scratch memory for `tiles` tiles of `frames` output frames."""
    return 36 * (frames + 2) * tiles * channels + 8 * ((frames + 1) // 2 * tiles + ROWS) * channels


def direct_scratch(frames: int, pixels: int, inputs: int, outputs: int, temporal: bool) -> int:
    """Floats of scratch memory for `pixels` output pixels of `frames` output frames."""
    factors, groups = (4, (frames + 1) // 2) if temporal else (1, frames)
    return factors * (groups * pixels + ROWS) * (inputs + outputs) + (frames + 1) * pixels * outputs


@kernel()
def multiply(a: int, a_row: int, b: int, c: int, c_row: int, rows: int, depth: int, columns: int, more: int) -> None:
    """c = a b or c += a b; b in panels, rows rounded up to ROWS (what lies behind them must be scratch)."""
    for column in range(0, columns, PANEL):
        for row in range(0, rows, ROWS):
            if columns - column >= PANEL:
                product_panel(
                    a + row * a_row, a_row, b + 4 * column * depth, c + row * c_row + 4 * column, c_row, depth, more
                )
            else:
                for part in range(column, columns, LANES):
                    product_vector(
                        a + row * a_row, a_row, b + 4 * part * depth, c + row * c_row + 4 * part, c_row, depth, more
                    )


@kernel()
def pairs_to_winograd(d: int, frame: int, run: int, frames: int, t: int, apart: int, step: int) -> None:
    """Runs of numbers of all frames to factors in time; `frames` outputs, an odd last one on its own."""
    for pair in range(frames // 2):
        for i in range(0, run, 4 * LANES):
            pair_to_winograd(d + 2 * pair * frame + i, frame, t + pair * step + i, apart)
    if frames % 2:
        pair = frames // 2
        for i in range(0, run, 4 * LANES):
            single_to_winograd(d + 2 * pair * frame + i, frame, t + pair * step + i, apart)


@kernel()
def pairs_from_winograd(m: int, apart: int, run: int, frames: int, y: int, frame: int) -> None:
    """Products in time to runs of numbers of `frames` frames."""
    for pair in range(frames // 2):
        for i in range(0, run, 4 * LANES):
            pair_from_winograd(m + pair * run + i, apart, y + 2 * pair * frame + i, frame)
    if frames % 2:
        pair = frames // 2
        for i in range(0, run, 4 * LANES):
            single_from_winograd(m + pair * run + i, apart, y + 2 * pair * frame + i)


@kernel()
def winograd_block(
    x: int,
    x_frame: int,
    x_row: int,
    weights: int,
    bias: int,
    rest: int,
    rest_frame: int,
    rest_row: int,
    rest_pixel: int,
    y: int,
    y_frame: int,
    y_row: int,
    channels: int,
    frames: int,
    across: int,
    first: int,
    count: int,
    scratch: int,
) -> None:
    """3 x 3 x 3 convolution, F(4x4, 3x3) nested with F(2, 3): tiles first to first + count of all frames."""
    pixel, run = 4 * channels, 4 * channels * count
    apart = (frames + 2) * run
    pairs = (frames + 1) // 2
    factor = (pairs * count + ROWS) * pixel
    times = scratch + 36 * apart
    products = times + 4 * factor
    for frame in range(frames + 2):
        for tile in range(count):
            ty, tx = (first + tile) // across, (first + tile) % across
            source = x + frame * x_frame + 4 * ty * x_row + 4 * tx * pixel
            for c in range(0, pixel, 4 * LANES):
                tile_to_winograd(source + c, x_row, pixel, scratch + frame * run + tile * pixel + c, apart)
    for place in range(36):
        here = scratch + place * apart
        pairs_to_winograd(here, run, run, frames, times, factor, run)
        for k in range(4):
            rows = (frames // 2 if k == 3 else pairs) * count
            matrix = weights + (4 * place + k) * pixel * channels
            multiply(times + k * factor, pixel, matrix, products + k * factor, pixel, rows, channels, channels, 0)
        pairs_from_winograd(products, factor, run, frames, here, run)
    for frame in range(frames):
        for tile in range(count):
            ty, tx = (first + tile) // across, (first + tile) % across
            target = y + frame * y_frame + 4 * ty * y_row + 4 * tx * pixel
            beside = rest + frame * rest_frame + 4 * ty * rest_row + 4 * tx * rest_pixel
            source = scratch + frame * run + tile * pixel
            for c in range(0, pixel, 4 * LANES):
                along = c if rest_pixel else 0
                tile_from_winograd(
                    source + c, apart, bias + c, beside + along, rest_row, rest_pixel, target + c, y_row, pixel
                )


@kernel()
def direct_block(
    x: int,
    x_frame: int,
    x_row: int,
    weights: int,
    bias: int,
    y: int,
    y_frame: int,
    y_row: int,
    inputs: int,
    outputs: int,
    frames: int,
    kernel: int,
    stride: int,
    temporal: int,
    across: int,
    first: int,
    count: int,
    scratch: int,
    floor: float,
) -> None:
    """kernel x kernel pixels, three frames (F(2, 3)) or one: output pixels first to first + count of all frames."""
    groups, factors = ((frames + 1) // 2, 4) if temporal else (frames, 1)
    x_pixel, y_pixel = 4 * inputs, 4 * outputs
    x_apart, y_apart = (groups * count + ROWS) * x_pixel, (groups * count + ROWS) * y_pixel
    products = scratch + factors * x_apart
    results = products + factors * y_apart if temporal else products
    for tap in range(kernel * kernel):
        for p in range(count):
            row, column = (first + p) // across * stride + tap // kernel, (first + p) % across * stride + tap % kernel
            source, target = x + row * x_row + column * x_pixel, scratch + p * x_pixel
            if temporal:
                pairs_to_winograd(source, x_frame, x_pixel, frames, target, x_apart, count * x_pixel)
            else:
                for frame in range(frames):
                    for c in range(0, x_pixel, 4 * LANES):
                        copy_vector(source + frame * x_frame + c, target + frame * count * x_pixel + c)
        for k in range(factors):
            rows = (frames // 2 if k == 3 else groups) * count
            matrix = weights + (factors * tap + k) * x_pixel * outputs
            target = products + k * y_apart
            multiply(scratch + k * x_apart, x_pixel, matrix, target, y_pixel, rows, inputs, outputs, tap)
    if temporal:
        pairs_from_winograd(products, y_apart, count * y_pixel, frames, results, count * y_pixel)
    for frame in range(frames):
        for p in range(count):
            target = y + frame * y_frame + (first + p) // across * y_row + (first + p) % across * y_pixel
            for c in range(0, y_pixel, 4 * LANES):
                finish_vector(results + (frame * count + p) * y_pixel + c, bias + c, target + c, floor)


#: The one signature of each kernel.
SIGNATURES = {
    multiply: (int64,) * 9,
    pairs_to_winograd: (int64,) * 7,
    pairs_from_winograd: (int64,) * 6,
    winograd_block: (int64,) * 18,
    direct_block: (*(int64,) * 18, float32),
}
