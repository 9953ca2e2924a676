"""Draws how a probe is slid along a ruler, for the panel's scanner profile: `python Docs/draw_profile.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Polygon

PICTURE = Path(__file__).resolve().parents[1] / "DualTrackSlicer" / "Resources" / "Pictures" / "profile-slide.png"
INK, SKIN, CUT, BEAM, RULER = "#20242c", "#f3d9c4", "#e6bfa3", "#2f6fb0", "#f7e7a9"
#: Where the probe stands, mm along the ruler, and how strongly it is drawn.
PLACES = ((5, 1.0), (30, 0.25), (55, 1.0))


def seen(along: object, back: object, up: object) -> np.ndarray:
    """[..., 2] where points lie in the drawing: mm along the ruler, away from the reader, and up."""
    along, back, up = np.broadcast_arrays(along, back, up)
    return np.stack([along + 0.5 * back, up + 0.38 * back], axis=-1)


def draw_box(axes: Axes, along: tuple, back: tuple, up: tuple, colours: tuple, **style: object) -> None:
    """Front, right and upper side of a box between two numbers along each direction."""
    front = seen([along[0], along[1], along[1], along[0]], back[0], [up[0], up[0], up[1], up[1]])
    right = seen(along[1], [back[0], back[1], back[1], back[0]], [up[0], up[0], up[1], up[1]])
    upper = seen([along[0], along[1], along[1], along[0]], [back[0], back[0], back[1], back[1]], up[1])
    for side, colour in zip((front, right, upper), colours, strict=True):
        axes.add_patch(Polygon(side, facecolor=colour, edgecolor=INK, lw=1.1, joinstyle="round", **style))


def draw_ruler(axes: Axes) -> None:
    """A ruler of 60 mm that lies on the skin, before the probe."""
    axes.add_patch(Polygon(seen([-4, 66, 66, -4], [2, 2, 13, 13], 0), facecolor=RULER, edgecolor=INK, lw=1.1))
    for mm in range(61):
        ends = seen([mm, mm], [13, 13 - (5 if mm % 10 == 0 else 3.5 if mm % 5 == 0 else 2)], 0)
        axes.plot(*ends.T, color=INK, lw=0.8)
        if mm % 10 == 0:
            axes.text(
                *seen(mm, 5, 0), "60 mm" if mm == 60 else f"{mm}", ha="center", va="center", fontsize=8, color=INK
            )


def draw_probe(axes: Axes, at_mm: float, strength: float) -> None:
    """A probe whose picture lies across the ruler, and that picture in the tissue."""
    picture = seen(at_mm, [17, 39, 39, 17], [0, 0, -20, -20])
    axes.add_patch(Polygon(picture, facecolor=BEAM, edgecolor=BEAM, alpha=0.45 * strength, zorder=3))
    style, greys = {"alpha": strength, "zorder": 4}, ("#b9c1ce", "#dfe3ea", "#cdd4de")
    draw_box(axes, (at_mm - 2, at_mm + 2), (17, 39), (0, 9), greys, **style)
    draw_box(axes, (at_mm - 1.6, at_mm + 1.6), (24, 32), (9, 24), greys, **style)


def main() -> None:
    """Write the picture."""
    matplotlib.use("Agg")
    figure, axes = pyplot.subplots(figsize=(3.7, 2.3), dpi=100)
    draw_box(axes, (-12, 72), (0, 45), (-26, 0), (CUT, CUT, SKIN), zorder=0)
    draw_ruler(axes)
    for at_mm, strength in PLACES:
        draw_probe(axes, at_mm, strength)
    ends = seen([PLACES[0][0] + 4, PLACES[-1][0] - 4], 28, 17)
    axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=20, color=BEAM, lw=3, zorder=5))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    text = {"ha": "center", "va": "bottom", "fontsize": 12, "color": BEAM, "weight": "bold", "zorder": 6}
    axes.text(*seen(30, 28, 20.5), "50 mm", bbox=box, **text)
    for (at_mm, _strength), text in zip(PLACES[::2], ("start still", "end still"), strict=True):
        axes.text(*seen(at_mm, 28, 27.5), text, ha="center", va="bottom", fontsize=9, color=INK)
    axes.set_xlim(-13, 96)
    axes.set_ylim(-27, 43)
    axes.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
