"""Draws Docs/pictures/frames.png, the picture of Docs/frames.md, from the sample: `python Docs/draw_frames.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image

from DualTrackCore.reconstruction import VoxelGrid, plan_grid
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep

PICTURE = Path(__file__).resolve().parent / "pictures" / "frames.png"
#: Colours of the axes x, y, z, the same in all parts; dark enough for white paper.
COLOURS = ("#c22b2b", "#2b8a3e", "#1f5fb4")
INK, GREY = "#20242c", "#8a90a0"
#: Frames of the sample that are drawn in space: the first, one in between, the last.
FRAMES = (0, 84, 167)


def draw_pixels(axes: Axes, sweep: Sweep) -> None:
    """A frame with the axes of pixels and of the image."""
    height, width = sweep.frame_size
    axes.imshow(sweep.window(0, 1)[0], cmap="gray")
    middle = ((width - 1) / 2, (height - 1) / 2)
    for origin, length, names in (((0, 0), 34, ("u", "v")), (middle, 40, ("x, mm", "y, mm"))):
        for axis, name in enumerate(names):
            step = np.eye(2)[axis] * length
            arrow = {"arrowstyle": "-|>", "color": COLOURS[axis], "lw": 2.5, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", origin + step, origin, arrowprops=arrow)
            place = {"ha": "left", "va": "center"} if axis == 0 else {"ha": "center", "va": "top"}
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axes.text(*(origin + 1.06 * step), name, color=COLOURS[axis], bbox=box, fontsize=11, **place)
    axes.plot(*middle, "o", color="white", markeredgecolor=INK)
    axes.set_title("pixel (u, v) and image (x, y; mm)\norigin: first pixel, and centre of the picture", fontsize=12)
    axes.set_xlabel("columns, across the probe")
    axes.set_ylabel("rows, down the beam")


def draw_space(axes: Axes, sweep: Sweep, grid: VoxelGrid) -> None:
    """Frames and volume in frame0; drawn with x to the right, z into the page and y down, as the frames are seen."""
    height, width = sweep.frame_size
    corners = np.array([[0, 0, 0, 1], [width - 1, 0, 0, 1], [width - 1, height - 1, 0, 1], [0, height - 1, 0, 1]])
    for number in FRAMES:
        outline = (sweep.tracked.poses[number] @ sweep.image_from_pixel @ corners[[0, 1, 2, 3, 0]].T)[:3]
        axes.plot(outline[0], outline[2], outline[1], color=INK, lw=1.6 if number else 2.6)
        axes.text(outline[0][1], outline[2][1], outline[1][1] - 1.5, f"frame {number}", fontsize=9)
    box = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    ends = (grid.frame0_from_voxel @ (box * [*(np.array(grid.size) - 1), 1]).T).T[:, :3]
    for one in range(8):
        for other in range(one):
            if np.abs(box[one] - box[other]).sum() == 1:
                pair = ends[[one, other]]
                axes.plot(pair[:, 0], pair[:, 2], pair[:, 1], color=GREY, lw=1, ls="--")
    for axis, name in enumerate(("x = L", "y = P", "z = S")):
        step = 16 * np.eye(3)[axis]
        axes.quiver(0, 0, 0, step[0], step[2], step[1], color=COLOURS[axis], lw=2.5, arrow_length_ratio=0.18)
        axes.text(1.15 * step[0], 1.15 * step[2], 1.15 * step[1], name, color=COLOURS[axis], fontsize=11)
    axes.invert_zaxis()
    axes.set_box_aspect([np.ptp(limits()) for limits in (axes.get_xlim, axes.get_ylim, axes.get_zlim)])
    axes.view_init(elev=24, azim=-58)
    axes.set_axis_off()
    axes.set_title(
        "frame0 (mm) = the image of the first frame\nL, P, S are its own, not the patient's", fontsize=12, y=0.99
    )


def draw_red_slice(axes: Axes, sweep: Sweep) -> None:
    """The first frame as Slicer's Red slice shows it, with the directions of both conventions."""
    across, down = sweep.image_from_pixel[:2, 3]
    axes.imshow(sweep.window(0, 1)[0], cmap="gray", extent=(across, -across, -down, down))
    signs = {"L": (1, 0), "P": (0, 1), "R": (-1, 0), "A": (0, -1)}
    for name, (x, y) in signs.items():
        colour = COLOURS[0 if y == 0 else 1]
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.5, "ls": "-" if name in "LP" else (0, (2, 1.5))}
        axes.annotate("", (11 * x, 11 * y), (0, 0), arrowprops=arrow)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        axes.text(13 * x, 13 * y, name, color=colour, ha="center", va="center", fontsize=12, weight="bold", bbox=box)
    title = (
        "LPS (files; solid) and RAS (Slicer; dashed) of frame 0,\nnot of the patient; as Slicer's Red slice shows it"
    )
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("x of LPS, mm = -x of RAS")
    axes.set_ylabel("y of LPS, mm = -y of RAS")


def main() -> None:
    """Draw the picture."""
    matplotlib.use("agg")
    sweep = sample_sweep()
    figure = pyplot.figure(figsize=(15, 5.2), dpi=75, layout="constrained")
    draw_pixels(figure.add_subplot(1, 3, 1), sweep)
    draw_space(figure.add_subplot(1, 3, 2, projection="3d"), sweep, plan_grid(sweep, sweep.tracked, spacing_mm=0.5))
    draw_red_slice(figure.add_subplot(1, 3, 3), sweep)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
