"""The compiled kernels: vector instructions, written as LLVM code, and the loops around them, compiled by numba.

numba compiles loops well, but keeps the sums of a matrix product in registers only where the code says so. The
innermost pieces (upper half of this file) are therefore vector instructions over one group of channels; the loops
(lower half) convolve a block of tiles or pixels over all frames of a chunk.

Everything takes addresses and distances in bytes, as int64, and single-precision numbers. Images are [frame, row,
column, channel] with a border of one pixel. The caller gives scratch memory. Where a kernel covers three frames, n + 2
input frames give n output frames. README.md in this folder says more.

Pieces and loops share a file because numba compiles again only what changed in the file of the loops.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int64, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from DualTrackCore.compilation import kernel

#: a and b of Winograd's F(4, 3). Lavin and Gray take 1 and 2; these two keep the transformed values closer to one size,
#: which makes the rounding of single precision about half as large.
POINTS = (0.5**0.5, 2.0**0.5)
#: Instruction sets that numba compiles for: those of this processor, or what NUMBA_CPU_FEATURES names.
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
#: Channels a vector register holds.
LANES = 16 if "+avx512f" in _FEATURES else 8 if "+avx2" in _FEATURES else 4
#: Whether a b + c is one instruction: on every ARM of 64 bits, on Intel and AMD since 2013.
HAS_FUSED_MULTIPLY_ADD = platform.machine().lower() in ("arm64", "aarch64") or "+fma" in _FEATURES
#: Rows and vectors of the product held in registers: 12 x 2 sums of 32 registers, 6 x 2 of 16; FEW rows at its end.
ROWS, VECTORS, FEW = (12, 2, 4) if LANES == 16 else (6, 2, 3)
#: Columns that one pass over the rows takes.
PANEL = LANES * VECTORS
_BYTES = 4 * LANES
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT = ir.IntType(64)


class Emitter:
    """Vector instructions of one piece; a value is an LLVM vector of LANES floats, an address an int64 in bytes."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")

    def offset(self, address: ir.Value, distance: ir.Value | int, times: int = 1) -> ir.Value:
        """The address `times` distances further."""
        if isinstance(distance, int):
            distance, times = ir.Constant(_INT, distance * times), 1
        if times == 0:
            return address
        if times > 1:
            distance = self.builder.mul(distance, ir.Constant(_INT, times))
        return self.builder.add(address, distance)

    def load(self, address: ir.Value) -> ir.Value:
        """LANES floats from memory."""
        return self.builder.load(self.builder.inttoptr(address, _VECTOR.as_pointer()), align=4)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        """LANES floats to memory."""
        self.builder.store(value, self.builder.inttoptr(address, _VECTOR.as_pointer()), align=4)

    def in_all_lanes(self, number: ir.Value) -> ir.Value:
        """One float in all lanes."""
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

    def load_in_all_lanes(self, address: ir.Value) -> ir.Value:
        """One float from memory in all lanes."""
        return self.in_all_lanes(self.builder.load(self.builder.inttoptr(address, _FLOAT.as_pointer()), align=4))

    def constant(self, number: float) -> ir.Value:
        """The same number in all lanes."""
        return ir.Constant(_VECTOR, [float(number)] * LANES)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b."""
        return self.builder.fadd(a, b)

    def scaled(self, factor: float, a: ir.Value, b: ir.Value) -> ir.Value:
        """factor a + b."""
        return self.fma(self.constant(factor), a, b)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def at_least(self, a: ir.Value, floor: ir.Value) -> ir.Value:
        """The larger of the two, lane by lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, floor), a, floor)


def _piece(*kinds: types.Type) -> Callable[[Callable], Any]:
    """Make a function of (emitter, *values) callable in compiled code."""

    def decorate(emit: Callable) -> Any:
        def typed(_, *arguments):
            def generate(context, builder, signature, values):
                emit(Emitter(builder), *values)
                return context.get_dummy_value()

            return types.void(*kinds), generate

        names = ", ".join(f"a{i}" for i in range(len(kinds)))  # numba wants one name for each argument
        space: dict[str, Any] = {"typed": typed}
        exec(f"def piece(context, {names}):\n    return typed(context, {names})", space)
        return intrinsic(space["piece"])

    return decorate


def _product(vectors):
    """c = a b, or c += a b where `more` is not 0, `vectors` registers wide; ROWS rows if `many` is 1, FEW if 0."""

    def emit(e, a, a_row, b, c, c_row, depth, more, many):
        for height, is_meant in ((ROWS, 1), (FEW, 0)):
            with e.builder.if_then(e.builder.icmp_signed("==", many, ir.Constant(_INT, is_meant))):
                sums = _sums(e, height, vectors, a, a_row, b, depth)
                places = [e.offset(e.offset(c, c_row, r), _BYTES * j) for r in range(height) for j in range(vectors)]
                for is_fresh, sign in ((True, "=="), (False, "!=")):
                    with e.builder.if_then(e.builder.icmp_signed(sign, more, ir.Constant(_INT, 0))):
                        for value, place in zip(sums, places, strict=True):
                            e.store(value if is_fresh else e.add(e.load(place), value), place)

    return _piece(*[types.int64] * 8)(emit)


def _sums(e, height, vectors, a, a_row, b, depth):
    """The sums of `height` rows of a product, in registers while a loop runs over the depth."""
    builder, rows = e.builder, [a]
    for _ in range(1, height):
        rows.append(builder.add(rows[-1], a_row))
    before, body, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    index, panel = builder.phi(_INT), builder.phi(_INT)
    sums = [builder.phi(_VECTOR) for _ in range(height * vectors)]
    weights = [e.load(e.offset(panel, _BYTES * j)) for j in range(vectors)]
    here = builder.shl(index, ir.Constant(_INT, 2))
    new_sums = []
    for r in range(height):
        value = e.load_in_all_lanes(builder.add(rows[r], here))
        new_sums += [e.fma(value, weights[j], sums[r * vectors + j]) for j in range(vectors)]
    following = builder.add(index, ir.Constant(_INT, 1))
    for phi, start, later in [
        (index, ir.Constant(_INT, 0), following),
        (panel, b, builder.add(panel, ir.Constant(_INT, _BYTES * vectors))),
        *((s, e.constant(0.0), g) for s, g in zip(sums, new_sums, strict=True)),
    ]:
        phi.add_incoming(start, before)
        phi.add_incoming(later, body)
    builder.cbranch(builder.icmp_signed("<", following, depth), body, after)
    builder.position_at_end(after)
    return new_sums


product_panel, product_vector = _product(VECTORS), _product(1)


def transforms(outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """B^T [r + 2, r + 2] and A^T [r, r + 2] of F(r, 3), r up to 4, for G g of F(4, 3) (`compiled_layers.py`).

    The rows of G belong to the points a, -a, infinity, 0, b and -b; F(r, 3) takes the first r + 2 of them.
    """
    a, b = POINTS
    points = (a, -a, 0.0, b, -b)
    used, unused = points[: outputs + 1], points[outputs + 1 :]
    rows = [[*np.poly([q for q in used if q != p])[::-1] * np.prod([p - q for q in unused]), 0.0] for p in used]
    sums = [[p**power for power in range(outputs)] for p in used]
    into, out_of = np.insert(rows, 2, np.poly(used)[::-1], 0), np.insert(sums, 2, np.eye(outputs)[-1], 0)
    return into, out_of.T


def _combined(e, matrix: np.ndarray, values: list) -> list:
    """A matrix of constants times values; factors of 0 cost nothing, nor does one of 1 in a row."""
    results = []
    for row in matrix:
        terms = sorted(((f, v) for f, v in zip(row, values, strict=True) if f), key=lambda term: term[0] != 1)
        (first, total), *others = terms
        total = total if first == 1 else e.builder.fmul(e.constant(first), total)
        for factor, value in others:
            total = e.scaled(factor, value, total)
        results.append(total)
    return results


def _both_ways(matrix: np.ndarray, e, square: list[list]) -> list[list]:
    """A one-dimensional transform along the rows, then along the columns: [y][x] to [y][x]."""
    along = [_combined(e, matrix, line) for line in square]
    across = [_combined(e, matrix, [line[x] for line in along]) for x in range(len(along[0]))]
    return [list(line) for line in zip(*across, strict=True)]


@_piece(*[types.int64] * 5)
def tile_to_winograd(e, x, row, pixel, v, apart):
    """6 x 6 pixels, rows `row` and pixels `pixel` apart, to 36 values `apart` from one another."""
    square = [[e.load(e.offset(e.offset(x, row, i), pixel, j)) for j in range(6)] for i in range(6)]
    for i, value in enumerate(chain.from_iterable(_both_ways(transforms(4)[0], e, square))):
        e.store(value, e.offset(v, apart, i))


@_piece(*[types.int64] * 9)
def tile_from_winograd(e, m, apart, bias, rest, rest_row, rest_pixel, y, row, pixel):
    """36 values to 4 x 4 pixels, plus the bias and the shortcut `rest`, negative numbers to 0."""
    square = [[e.load(e.offset(m, apart, 6 * i + j)) for j in range(6)] for i in range(6)]
    offset, zero = e.load(bias), e.constant(0.0)
    for i, line in enumerate(_both_ways(transforms(4)[1], e, square)):
        here, shortcut = e.offset(y, row, i), e.offset(rest, rest_row, i)
        for j, value in enumerate(line):
            whole = e.add(e.add(value, offset), e.load(e.offset(shortcut, rest_pixel, j)))
            e.store(e.at_least(whole, zero), e.offset(here, pixel, j))


def _in_time(which):
    """Vectors of frames, `x_apart` from one another, to their factors, or of products to frames: F(outputs, 3)."""

    def emit(e, x, x_apart, y, y_apart, outputs):
        for count in (1, 2, 3, 4):
            with e.builder.if_then(e.builder.icmp_signed("==", outputs, ir.Constant(_INT, count))):
                matrix = transforms(count)[which]
                values = [e.load(e.offset(x, x_apart, i)) for i in range(count + 2)]
                for i, value in enumerate(_combined(e, matrix, values)):
                    e.store(value, e.offset(y, y_apart, i))

    return _piece(*[types.int64] * 5)(emit)


into_time, from_time = _in_time(0), _in_time(1)


@_piece(types.int64, types.int64)
def copy_vector(e, x, y):
    """LANES numbers from x to y."""
    e.store(e.load(x), y)


@_piece(types.int64, types.int64, types.int64, types.float32)
def finish_vector(e, m, bias, y, floor):
    """m plus the bias, at least `floor`, to y."""
    e.store(e.at_least(e.add(e.load(m), e.load(bias)), e.in_all_lanes(floor)), y)


@kernel()
def multiply(a, a_row, b, c, c_row, rows, depth, columns, more):
    """c = a b or c += a b; b in panels, rows rounded up to ROWS (what lies behind them must be scratch)."""
    for column in range(0, columns, PANEL):
        row = 0
        while row < rows:
            left, target, many = a + row * a_row, c + row * c_row, int64(rows - row > ROWS - FEW)
            if columns - column >= PANEL:
                product_panel(left, a_row, b + 4 * column * depth, target + 4 * column, c_row, depth, more, many)
            else:
                for part in range(column, columns, LANES):
                    product_vector(left, a_row, b + 4 * part * depth, target + 4 * part, c_row, depth, more, many)
            row += ROWS if many else FEW


@kernel()
def frames_to_winograd(d, frame, run, frames, group, t, apart, step):
    """Runs of numbers of all frames to factors in time; `frames` outputs in groups of 4 or 2, a smaller one last."""
    for first in range(0, frames, group):
        for i in range(0, run, 4 * LANES):
            into_time(d + first * frame + i, frame, t + first // group * step + i, apart, min(group, frames - first))


@kernel()
def frames_from_winograd(m, apart, run, frames, group, y, frame):
    """Products in time to runs of numbers of `frames` frames."""
    for first in range(0, frames, group):
        for i in range(0, run, 4 * LANES):
            from_time(m + first // group * run + i, apart, y + first * frame + i, frame, min(group, frames - first))


@kernel()
def winograd_block(x_place, weights, bias, rest_place, y_place, channels, frames, across, first, count, scratch, group):
    """3 x 3 convolution, F(4x4, 3x3), over three frames (nested with F(group, 3)) or one: tiles first to first + count.

    A place is (address, bytes between frames, bytes between rows); for the shortcut `rest` also between pixels.
    """
    (x, x_frame, x_row), (rest, rest_frame, rest_row, rest_pixel), (y, y_frame, y_row) = x_place, rest_place, y_place
    pixel, run = 4 * channels, 4 * channels * count
    inputs = frames + 2 if group else frames
    apart = inputs * run if group else (frames * count + ROWS) * pixel
    start = scratch if group else scratch + apart  # without time, products go where the place before has been
    factor = (-(-frames // max(group, 1)) * count + ROWS) * pixel
    times = scratch + 36 * apart
    products = times + (group + 2) * factor
    for frame in range(inputs):
        for tile in range(count):
            ty, tx = (first + tile) // across, (first + tile) % across
            source = x + frame * x_frame + 4 * ty * x_row + 4 * tx * pixel
            for c in range(0, pixel, 4 * LANES):
                tile_to_winograd(source + c, x_row, pixel, start + frame * run + tile * pixel + c, apart)
    for place in range(36):
        here = start + place * apart
        if not group:
            matrix = weights + place * pixel * channels
            multiply(here, pixel, matrix, here - apart, pixel, frames * count, channels, channels, 0)
            continue
        frames_to_winograd(here, run, run, frames, group, times, factor, run)
        for k in range(group + 2):
            rows = (frames + group - max(k - 1, 1)) // group * count  # of the groups that have this factor
            matrix = weights + ((group + 2) * place + k) * pixel * channels
            multiply(times + k * factor, pixel, matrix, products + k * factor, pixel, rows, channels, channels, 0)
        frames_from_winograd(products, factor, run, frames, group, here, run)
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
def finish(results, bias, y_place, outputs, frames, across, first, count, floor):
    """Results [frame, pixel] plus the bias, at least `floor`, to pixels first to first + count of all frames."""
    (y, y_frame, y_row), pixel = y_place, 4 * outputs
    for frame in range(frames):
        for p in range(count):
            target = y + frame * y_frame + (first + p) // across * y_row + (first + p) % across * pixel
            for c in range(0, pixel, 4 * LANES):
                finish_vector(results + (frame * count + p) * pixel + c, bias + c, target + c, floor)


@kernel()
def direct_block(x_place, weights, bias, y_place, shape, first, count, scratch, floor):
    """side x side pixels, three frames (F(group, 3)) or one: output pixels first to first + count of all frames."""
    x, x_frame, x_row = x_place
    inputs, outputs, frames, side, stride, group, across = shape
    groups, factors = (-(-frames // group), group + 2) if group else (frames, 1)
    x_pixel, y_pixel = 4 * inputs, 4 * outputs
    x_apart, y_apart = (groups * count + ROWS) * x_pixel, (groups * count + ROWS) * y_pixel
    products = scratch + factors * x_apart
    results = products + factors * y_apart if group else products
    for tap in range(side * side):
        for p in range(count):
            row, column = (first + p) // across * stride + tap // side, (first + p) % across * stride + tap % side
            source, target = x + row * x_row + column * x_pixel, scratch + p * x_pixel
            if group:
                frames_to_winograd(source, x_frame, x_pixel, frames, group, target, x_apart, count * x_pixel)
            else:
                for frame in range(frames):
                    for c in range(0, x_pixel, 4 * LANES):
                        copy_vector(source + frame * x_frame + c, target + frame * count * x_pixel + c)
        for k in range(factors):
            rows = ((frames + group - max(k - 1, 1)) // group if group else frames) * count
            matrix = weights + (factors * tap + k) * x_pixel * outputs
            target = products + k * y_apart
            multiply(scratch + k * x_apart, x_pixel, matrix, target, y_pixel, rows, inputs, outputs, tap)
    if group:
        frames_from_winograd(products, y_apart, count * y_pixel, frames, group, results, count * y_pixel)
    finish(results, bias, y_place, outputs, frames, across, first, count, floor)


@kernel()
def image_block(x_place, weights, bias, y_place, shape, first, count, scratch):
    """side x side pixels of images of one channel, padded; output pixels first to first + count of all, not below 0."""
    (x, x_frame, x_row), (outputs, frames, side, stride, across) = x_place, shape
    patch = 4 * (side * side + LANES)  # the last row is copied in whole vectors
    products = scratch + (frames * count + ROWS) * patch
    for frame in range(frames):
        for p in range(count):
            source = x + frame * x_frame + (first + p) // across * stride * x_row + (first + p) % across * stride * 4
            for row in range(side):
                target = scratch + (frame * count + p) * patch + 4 * side * row
                for c in range(0, 4 * side, 4 * LANES):
                    copy_vector(source + row * x_row + c, target + c)
    multiply(scratch, patch, weights, products, 4 * outputs, frames * count, side * side, outputs, 0)
    finish(products, bias, y_place, outputs, frames, across, first, count, float32(0))


_PLACE = types.UniTuple(int64, 3)
#: The one signature of each kernel.
SIGNATURES = {
    multiply: (int64,) * 9,
    frames_to_winograd: (int64,) * 8,
    frames_from_winograd: (int64,) * 7,
    finish: (int64, int64, _PLACE, *[int64] * 5, float32),
    winograd_block: (_PLACE, int64, int64, types.UniTuple(int64, 4), _PLACE, *[int64] * 7),
    direct_block: (_PLACE, int64, int64, _PLACE, types.UniTuple(int64, 7), *[int64] * 3, float32),
    image_block: (_PLACE, int64, int64, _PLACE, types.UniTuple(int64, 5), *[int64] * 3),
}
