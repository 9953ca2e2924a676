"""The motion from frame to frame, component by component."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from DualTrackCore.pictures import drawing
from DualTrackCore.trajectory import Trajectory

_MOTIONS = (
    ("x lateral", "mm a frame"),
    ("y depth", "mm a frame"),
    ("z elevational", "mm a frame"),
    ("rotation about x", "degrees a frame"),
    ("rotation about y", "degrees a frame"),
    ("rotation about z", "degrees a frame"),
)


def write_motion(
    trajectory: Trajectory,
    path: str | os.PathLike,
    truth: Trajectory | None = None,
    timestamps_s: np.ndarray | None = None,
) -> Path:
    """The six components of the motion from each frame to the next, each with its mean as a thin line.

    Args:
        trajectory: poses of N frames; motions from or to an invalid pose are gaps.
        path: PNG file to write, replaced as a whole.
        truth: tracked poses of the same frames, drawn in grey.
        timestamps_s: [N] seconds for the axis across; frame numbers without.

    Returns:
        The path.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    figure = drawing.new_figure(8.5, "white")
    across, unit = np.arange(1, len(trajectory)), "frame"
    if timestamps_s is not None:
        across, unit = np.asarray(timestamps_s)[1:] - timestamps_s[0], "time, s"
    motions = trajectory.parameters
    true_motions = None if truth is None else truth.parameters
    for component, (name, motion_unit) in enumerate(_MOTIONS):
        axes = figure.add_subplot(2, 3, component + 1)
        if true_motions is not None:
            axes.plot(across, true_motions[:, component], color=drawing.GREY, lw=2.2, label="tracked")
        axes.plot(across, motions[:, component], color=drawing.BLUE, lw=1.0, label="this trajectory")
        values = motions[np.isfinite(motions[:, component]), component]
        mean = f"mean {_signed(values.mean())}" if len(values) else "no valid motion"
        if len(values):
            axes.axhline(values.mean(), color=drawing.INK, lw=0.8, ls=(0, (6, 4)))
        axes.set_title(name, loc="left", color=drawing.INK, fontsize=14, weight="bold")
        axes.set_title(mean, loc="right", color=drawing.INK, fontsize=12)
        drawing.style_plot(axes, unit if component >= 3 else "", motion_unit if component % 3 == 0 else "")
    if truth is not None:
        # Above the panels, where it covers no curve.
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=13, ncols=2, loc="upper right")
    title = f"Motion from frame to frame, {len(trajectory)} frames"
    figure.text(0.05, 0.95, title, color=drawing.INK, fontsize=19, weight="bold")
    figure.subplots_adjust(left=0.06, right=0.985, top=0.87, bottom=0.085, wspace=0.2, hspace=0.3)
    return drawing.save(figure, path)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
