"""Common parts of all pictures: size, colours, scale bars, and writing a figure to a file."""

from __future__ import annotations

import math
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.files import replacing
from DualTrackCore.memory import importing
from DualTrackCore.path_error import UNUSABLE, Trust, trust_line
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH_INCHES = 16.0
#: Colour of voxels that no frame crossed, RGB 0 to 255: not black, because black is what a frame may have seen.
UNSEEN_RGB = (36, 40, 80)
#: Ground, text and fine lines of dark pictures; text, tracked and estimated curves of white ones.
DARK, LIGHT, FAINT = "#101216", "#e8eaf0", "#8a90a0"
INK, GREY, BLUE = "#20242c", "#9aa0ac", "#1f6fb4"
#: Text that warns, readable on dark and on white.
WARNING = "#e0622a"
#: Names of the axes of frame0.
FRAME0_AXES = ("x lateral", "y depth", "z elevational")


def new_figure(height_inches: float, colour: str) -> Figure:
    """Return an empty figure of the common width; raise MissingDependencyError without matplotlib."""
    with importing("The package matplotlib, which pictures need,", 'install it: pip install "dualtrack[report]"'):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write the figure as PNG, replaced as a whole, with its label as a text inside; returns the path."""
    path, said = Path(path), {"Description": figure.get_label()} if figure.get_label() else {}
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor=figure.get_facecolor(), metadata=said)
    return path


def say_origin(
    figure: Figure, left: float, inches_below_top: float, text: str, is_guess: bool, trust: str = ""
) -> None:
    """Say below the title where the poses are from and, at its right end, what they are good for; a guess stands out.

    Why they are good for no more is said at the bottom of the picture, in its lowest half inch.

    Args:
        figure: with its title.
        left: of the text, a fraction of the width.
        inches_below_top: of the middle of the line.
        text: as :attr:`~DualTrackCore.trajectory.Trajectory.origin_text` has it, after its beginning.
        is_guess: whether any of the poses are a guess.
        trust: :attr:`~DualTrackCore.path_error.Trust.text`, empty for poses that have none. The file carries it, too.
    """
    stamp_trust(figure, inches_below_top, trust)
    if trust:
        lines = textwrap.fill(f"Trust: {trust}", int(10.5 * (figure.get_figwidth() * (1 - left) - 0.6)))
        figure.text(left, 0.12 / figure.get_figheight(), lines, color=FAINT, fontsize=12, va="bottom", gid="why")
    if is_guess:
        text += ": the model never saw such sweeps, do not use this"
    height = 1 - inches_below_top / figure.get_figheight()
    figure.text(
        *(left, height, text),
        color=WARNING if is_guess else FAINT,
        fontsize=14,
        weight="bold" if is_guess else "normal",
        va="center",
        gid="origin",
    )


def say_origin_of(trajectory: Trajectory, figure: Figure, left: float, inches_below_top: float) -> None:
    """Do :func:`say_origin` for the poses of a trajectory."""
    text = f"Poses: {trajectory.origin_text}"
    say_origin(figure, left, inches_below_top, text, trajectory.is_guess, trust_line(trajectory))


def stamp_trust(figure: Figure, inches_below_top: float, trust: str) -> None:
    """Put the level of a line on trust at the right end, and the line into the label of the figure; see above."""
    if (said := Trust.from_text(trust)) is None:
        return
    height, colour = 1 - inches_below_top / figure.get_figheight(), WARNING if said.level == UNUSABLE else FAINT
    look = {"color": colour, "fontsize": 14, "weight": "bold", "va": "center", "ha": "right"}
    figure.text(0.97, height, said.level, **look, gid="trust")
    figure.set_label(f"Trust: {trust}")


def scale_bar_mm(extent_mm: float) -> float:
    """Return the length of the scale bar of a picture: the longest of 1, 2, 5 x 10^n that is at most a third of it."""
    power = 10.0 ** math.floor(math.log10(extent_mm / 3))
    return max(step * power for step in (1, 2, 5) if step * power <= extent_mm / 3 * (1 + 1e-9))


def tinted(grey: np.ndarray, has_value: np.ndarray) -> np.ndarray:
    """Return grey values [h, w] uint8 as [h, w, 3] uint8, with the tint where `has_value` [h, w] is false."""
    return np.where(has_value[..., None], grey[..., None], np.array(UNSEEN_RGB, np.uint8)).astype(np.uint8)


def set_title(axes: Axes, text: str) -> None:
    """Set the title of a plot on white, above its left end."""
    axes.set_title(text, loc="left", color=INK, fontsize=14, weight="bold")


def label_axes(axes: Axes, across: str, down: str) -> None:
    """Set the labels of a plot on white, and the size of its ticks."""
    axes.set_xlabel(across, color=INK, fontsize=12)
    axes.set_ylabel(down, color=INK, fontsize=12)
    axes.tick_params(labelsize=11, colors=INK)


def style_plot(axes: Axes, across: str, down: str) -> None:
    """Set labels and grid, and remove the frame above and to the right."""
    label_axes(axes, across, down)
    axes.grid(color="#e4e7ec", lw=0.8)
    axes.margins(x=0.01)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
