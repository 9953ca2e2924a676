"""Clips with a name burned into the border beside the ultrasound, and the same clips without it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory

NAME = "DOE^JANE 1970"
#: (x, y, width, height) of the ultrasound in pixels.
SHOWN = (20, 40, 150, 90)


def speckle(frames=16, height=90, width=150, seed=0):
    """[N, H, W] uint8: speckle that drifts by a pixel a frame and comes anew, smooth as a scanner's."""
    random = np.random.default_rng(seed)
    field = random.normal(size=(2, height + 4, width + frames + 4, 2))
    clip = []
    for frame in range(frames):
        angle = frame / frames * np.pi / 2
        mixed = np.cos(angle) * field[0] + np.sin(angle) * field[1]
        part = mixed[:, frame : frame + width + 4]
        smooth = sum(part[y : y + height, x : x + width] for y in range(4) for x in range(4)) / 4
        clip.append(np.hypot(*np.moveaxis(smooth, -1, 0)) * 45)
    return np.clip(clip, 0, 255).astype(np.uint8)


def lettering(size=(150, 200), name=NAME):
    """[H, W] uint8: the name in grey letters on black, in the border above the ultrasound."""
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    draw.text((6, 4), name, fill=220, font=ImageFont.load_default(16))
    draw.text((6, 134), "G 54 dB", fill=130, font=ImageFont.load_default(10))
    return np.asarray(image)


def named_frames(name=NAME, frames=16):
    """[N, 150, 200] uint8: ultrasound with black around it, and the name in it where there is one."""
    x, y, width, height = SHOWN
    clip = np.zeros((frames, 150, 200), np.uint8)
    clip[:, y : y + height, x : x + width] = speckle(frames, height, width)
    return clip if name is None else np.maximum(clip, lettering(name=name))


def straight_poses(frames, step_mm=0.5):
    """Poses of a probe that moves along z."""
    motion = np.tile([0, 0, step_mm, 0, 0, 0], (frames - 1, 1))
    return Trajectory.from_parameters(motion, origin=PoseOrigin.MEASURED)


def named_sweep(name=NAME, frames=16, **changes):
    """A tracked sweep of :func:`named_frames` with pixels of 0.2 mm."""
    return Sweep(named_frames(name, frames), **{"spacing_mm": 0.2, "tracked": straight_poses(frames), **changes})
