"""Vector instructions for numba: short straight pieces of LLVM code over one group of channels.

numba writes loops well and vector registers badly: a matrix product needs its sums held in registers, which no loop
over arrays promises. So the innermost pieces are given to LLVM as vector instructions, and numba compiles the loops
around them. All of them take addresses and distances in bytes, as int64, and work on single-precision numbers.

numba's cache looks at the file of the loops only: after a change here, blocks.py must be saved anew.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from DualTrackCore.network.fast.winograd import POINTS

#: Instruction sets that numba compiles for: those of this processor, or what NUMBA_CPU_FEATURES names.
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
#: Channels a vector register holds.
LANES = 16 if "+avx512f" in _FEATURES else 8 if "+avx2" in _FEATURES else 4
#: Whether a b + c is one instruction: on every ARM of 64 bits, on Intel and AMD since 2013.
HAS_FUSED_MULTIPLY_ADD = platform.machine().lower() in ("arm64", "aarch64") or "+fma" in _FEATURES
#: Rows and vectors of the matrix product held in registers: 12 x 2 sums of 32 registers, 6 x 2 of 16.
ROWS, VECTORS = (12, 2) if LANES == 16 else (6, 2)
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

    def everywhere(self, number: ir.Value) -> ir.Value:
        """One float in all lanes."""
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

    def load_everywhere(self, address: ir.Value) -> ir.Value:
        """One float from memory in all lanes."""
        return self.everywhere(self.builder.load(self.builder.inttoptr(address, _FLOAT.as_pointer()), align=4))

    def constant(self, number: float) -> ir.Value:
        """The same number in all lanes."""
        return ir.Constant(_VECTOR, [float(number)] * LANES)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b."""
        return self.builder.fadd(a, b)

    def subtract(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a - b."""
        return self.builder.fsub(a, b)

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
        def typed(_: object, *arguments: types.Type) -> tuple[Any, Callable]:
            def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
                emit(Emitter(builder), *values)
                return context.get_dummy_value()

            return types.void(*kinds), generate

        return intrinsic(_with_arguments(typed, len(kinds)))

    return decorate


def _with_arguments(typed: Callable, count: int) -> Callable:
    """`typed` with `count` named arguments, which numba insists on."""
    names = ", ".join(f"a{i}" for i in range(count))
    space: dict[str, Any] = {"typed": typed}
    exec(f"def piece(context, {names}):\n    return typed(context, {names})", space)
    return space["piece"]


def _product(vectors: int) -> Any:
    """ROWS rows of a matrix product, `vectors` registers wide: c = a b, or c += a b where `more` is not 0."""

    def emit(e: Emitter, a: Any, a_row: Any, b: Any, c: Any, c_row: Any, depth: Any, more: Any) -> None:
        builder, zero = e.builder, ir.Constant(_INT, 0)
        rows = [a]
        for _ in range(1, ROWS):
            rows.append(builder.add(rows[-1], a_row))
        before, body, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        index, panel = builder.phi(_INT), builder.phi(_INT)
        sums = [builder.phi(_VECTOR) for _ in range(ROWS * vectors)]
        weights = [e.load(e.offset(panel, _BYTES * j)) for j in range(vectors)]
        here = builder.shl(index, ir.Constant(_INT, 2))
        grown = []
        for r in range(ROWS):
            value = e.load_everywhere(builder.add(rows[r], here))
            grown += [e.fma(value, weights[j], sums[r * vectors + j]) for j in range(vectors)]
        following = builder.add(index, ir.Constant(_INT, 1))
        for phi, start, later in [
            (index, zero, following),
            (panel, b, builder.add(panel, ir.Constant(_INT, _BYTES * vectors))),
            *((s, e.constant(0.0), g) for s, g in zip(sums, grown, strict=True)),
        ]:
            phi.add_incoming(start, before)
            phi.add_incoming(later, body)
        builder.cbranch(builder.icmp_signed("<", following, depth), body, after)
        builder.position_at_end(after)
        places = [e.offset(e.offset(c, c_row, r), _BYTES * j) for r in range(ROWS) for j in range(vectors)]
        with builder.if_else(builder.icmp_signed("==", more, zero)) as (fresh, continued):
            with fresh:
                for value, place in zip(grown, places, strict=True):
                    e.store(value, place)
            with continued:
                for value, place in zip(grown, places, strict=True):
                    e.store(e.add(e.load(place), value), place)

    return _piece(*[types.int64] * 7)(emit)


product_panel, product_vector = _product(VECTORS), _product(1)


def _into_winograd(e: Emitter, d: list) -> list:
    """B^T d of F(4, 3) for six values; see winograd.py for the matrices."""
    a, b = POINTS
    even_a, odd_a = e.scaled(-b * b, d[2], d[4]), e.scaled(-b * b, d[1], d[3])
    even_b, odd_b = e.scaled(-a * a, d[2], d[4]), e.scaled(-a * a, d[1], d[3])
    first = e.scaled(a * a * b * b, d[0], e.scaled(-(a * a + b * b), d[2], d[4]))
    last = e.scaled(a * a * b * b, d[1], e.scaled(-(a * a + b * b), d[3], d[5]))
    return [
        first,
        e.scaled(a, odd_a, even_a),
        e.scaled(-a, odd_a, even_a),
        e.scaled(b, odd_b, even_b),
        e.scaled(-b, odd_b, even_b),
        last,
    ]


def _from_winograd(e: Emitter, m: list) -> list:
    """A^T m of F(4, 3) for six values."""
    a, b = POINTS
    even_a, odd_a = e.add(m[1], m[2]), e.subtract(m[1], m[2])
    even_b, odd_b = e.add(m[3], m[4]), e.subtract(m[3], m[4])
    return [
        e.add(e.add(m[0], even_a), even_b),
        e.builder.fmul(e.constant(a), e.scaled(b / a, odd_b, odd_a)),
        e.builder.fmul(e.constant(a * a), e.scaled((b / a) ** 2, even_b, even_a)),
        e.scaled(a**3, odd_a, e.scaled(b**3, odd_b, m[5])),
    ]


def _both_ways(transform: Callable, e: Emitter, square: list[list]) -> list[list]:
    """A one-dimensional transform along the rows, then along the columns: [y][x] to [y][x]."""
    along = [transform(e, line) for line in square]
    across = [transform(e, [line[x] for line in along]) for x in range(len(along[0]))]
    return [list(line) for line in zip(*across, strict=True)]


@_piece(*[types.int64] * 5)
def tile_to_winograd(e: Emitter, x: Any, row: Any, pixel: Any, v: Any, apart: Any) -> None:
    """6 x 6 pixels, rows `row` and pixels `pixel` apart, to 36 values `apart` from one another."""
    starts = [e.offset(x, row, i) for i in range(6)]
    square = [[e.load(e.offset(start, pixel, j)) for j in range(6)] for start in starts]
    for i, value in enumerate(chain.from_iterable(_both_ways(_into_winograd, e, square))):
        e.store(value, e.offset(v, apart, i))


@_piece(*[types.int64] * 9)
def tile_from_winograd(
    e: Emitter,
    m: Any,
    apart: Any,
    bias: Any,
    rest: Any,
    rest_row: Any,
    rest_pixel: Any,
    y: Any,
    row: Any,
    pixel: Any,
) -> None:
    """36 values to 4 x 4 pixels, plus the bias and the shortcut `rest`, negative numbers to 0."""
    square = [[e.load(e.offset(m, apart, 6 * i + j)) for j in range(6)] for i in range(6)]
    offset, zero = e.load(bias), e.constant(0.0)
    for i, line in enumerate(_both_ways(_from_winograd, e, square)):
        here, shortcut = e.offset(y, row, i), e.offset(rest, rest_row, i)
        for j, value in enumerate(line):
            whole = e.add(e.add(value, offset), e.load(e.offset(shortcut, rest_pixel, j)))
            e.store(e.at_least(whole, zero), e.offset(here, pixel, j))


@_piece(*[types.int64] * 4)
def pair_to_winograd(e: Emitter, d: Any, frame: Any, t: Any, apart: Any) -> None:
    """Four frames to the four factors of F(2, 3) in time, which gives the middle two."""
    d0, d1, d2, d3 = (e.load(e.offset(d, frame, i)) for i in range(4))
    for i, value in enumerate([e.subtract(d0, d2), e.add(d1, d2), e.subtract(d2, d1), e.subtract(d1, d3)]):
        e.store(value, e.offset(t, apart, i))


@_piece(*[types.int64] * 4)
def single_to_winograd(e: Emitter, d: Any, frame: Any, t: Any, apart: Any) -> None:
    """Three frames to the three factors of F(2, 3) that the first of its two outputs needs."""
    d0, d1, d2 = (e.load(e.offset(d, frame, i)) for i in range(3))
    for i, value in enumerate([e.subtract(d0, d2), e.add(d1, d2), e.subtract(d2, d1)]):
        e.store(value, e.offset(t, apart, i))


@_piece(*[types.int64] * 4)
def pair_from_winograd(e: Emitter, m: Any, apart: Any, y: Any, frame: Any) -> None:
    """Four products to two frames."""
    m0, m1, m2, m3 = (e.load(e.offset(m, apart, i)) for i in range(4))
    e.store(e.add(m0, e.add(m1, m2)), y)
    e.store(e.subtract(e.subtract(m1, m2), m3), e.offset(y, frame))


@_piece(*[types.int64] * 3)
def single_from_winograd(e: Emitter, m: Any, apart: Any, y: Any) -> None:
    """Three products to one frame."""
    m0, m1, m2 = (e.load(e.offset(m, apart, i)) for i in range(3))
    e.store(e.add(m0, e.add(m1, m2)), y)


@_piece(types.int64, types.int64)
def copy_vector(e: Emitter, x: Any, y: Any) -> None:
    """LANES numbers from x to y."""
    e.store(e.load(x), y)


@_piece(types.int64, types.int64, types.int64, types.float32)
def finish_vector(e: Emitter, m: Any, bias: Any, y: Any, floor: Any) -> None:
    """m plus the bias, at least `floor`, to y."""
    e.store(e.at_least(e.add(e.load(m), e.load(bias)), e.everywhere(floor)), y)
