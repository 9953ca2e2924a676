"""Axes of unlabelled stacks: arrays of NumPy, HDF5 and MATLAB files.

Python stores frames, rows, columns, and perhaps colour. MATLAB stores rows, columns, perhaps colour, frames, and its
files list the axes in reverse order. A known number of frames or size of the pictures decides. Else the convention of
the program counts, and implausible shapes are refused, as pictures on their side also look like tissue.
"""

from __future__ import annotations

from itertools import permutations

from DualTrackCore.errors import Doubt, InputError
from DualTrackCore.io.sequence_parts import Axes

#: Largest ratio of the sides of an ultrasound picture.
_MOST_ASPECT = 5


def stack_axes(
    shape: tuple[int, ...],
    what: str,
    *,
    backwards: bool = False,
    count: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Axes, list[str]]:
    """The axes of an array, and sentences for the user.

    Args:
        shape: of the stored array, the slowest axis first.
        what: the array, for messages.
        backwards: whether MATLAB wrote it.
        count: number of frames, if something else in the file states it.
        size: (H, W) of the pictures, if something else in the file states it.

    Raises InputError: no stack of pictures, or one with ambiguous axes.
    """
    colour = _colour_axis(shape, backwards)
    stack = [axis for axis in range(len(shape)) if axis != colour]
    if len(stack) != 3:
        raise InputError(
            f"{what} has the axes {_text(shape)}; expected frames, rows, columns, and perhaps 1 to 4 colours."
        )
    custom = (stack[0], stack[2], stack[1]) if backwards else tuple(stack)

    def fits(order: tuple[int, ...]) -> bool:
        frames, *sides = (shape[axis] for axis in order)
        return count in (None, frames) and size in (None, tuple(sides))

    fitting = [order for order in permutations(stack) if fits(order)]
    upright = [order for order in fitting if (order[1] < order[2]) != backwards]
    order = custom if custom in fitting else (upright or fitting or [custom])[0]
    notes = []
    if count is None and size is None:
        notes = _checked(shape, what, order, backwards)
    if order != custom or backwards:
        sides = f"{shape[order[2]]} x {shape[order[1]]}"
        notes.append(f"Took the axes {_text(shape)} as {shape[order[0]]} frames of {sides} pixels (width x height).")
    last = len(shape) - 1
    return Axes(last - order[2], last - order[1], last - order[0], None if colour is None else last - colour), notes


def _colour_axis(shape: tuple[int, ...], backwards: bool) -> int | None:
    """The axis of colour of a 4D array: one of 1 to 4 entries at the most usual place."""
    if len(shape) != 4:
        return None
    usual = (1, 0, 2, 3) if backwards else (3, 1, 2, 0)
    return next((axis for sizes in ((3, 4), (1, 2)) for axis in usual if shape[axis] in sizes), None)


def _checked(shape: tuple[int, ...], what: str, order: tuple[int, ...], backwards: bool) -> list[str]:
    """Doubts about axes by convention alone. Raises InputError: another axis is more likely that of the frames."""
    frames, rows, columns = (shape[axis] for axis in order)
    # The other usual order: frames last in Python, first in MATLAB.
    others = (frames, columns) if backwards else (frames, rows)
    place, remedy = "first", "numpy.moveaxis(frames, -1, 0) in Python"
    if backwards:
        place, remedy = "last", "permute(frames, [2 3 1]) in MATLAB"
    other_count = rows if backwards else columns
    if max(others) > _MOST_ASPECT * min(others) or other_count > min(others):
        return []
    if max(rows, columns) > _MOST_ASPECT * min(rows, columns):
        raise InputError(
            f"{what} has the axes {_text(shape)}, which would be {frames} pictures of {columns} x {rows} pixels "
            f"(width x height); store the axis of the frames {place}: {remedy}."
        )
    if backwards:
        return []
    return [
        Doubt(
            f"{what} has the axes {_text(shape)} and was taken as {frames} frames of {columns} x {rows} pixels "
            f"(width x height); if that is wrong, store the axis of the frames first: {remedy}."
        )
    ]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
