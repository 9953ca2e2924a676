"""Detection of the image area of a clip, without the frame and the text that the scanner draws around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction.area import Fan
from DualTrackCore.sweep import Sweep

#: Frames that are read, spread over the sweep.
SAMPLED_FRAMES = 24
#: Grey value from which a pixel is not background.
LEAST_GREY = 3
#: Pieces smaller than this part of the frame are text and marks.
LEAST_PIECE = 0.002
#: An image area that fills this much of its bounding rectangle is a rectangle.
RECTANGLE_FILL = 0.97
#: A fan must contain this part of the content, and content must fill this part of the fan.
FAN_RECALL, FAN_PRECISION = 0.985, 0.85


@dataclass(frozen=True)
class ImageArea:
    """The part of the frames that shows ultrasound.

    Attributes:
        clip: (x, y, width, height) in pixels, upper bound included, as `clip` of the reconstruction takes it.
        fan: the sector within it, or None where the area is a rectangle or of another shape.
    """

    clip: tuple[int, int, int, int]
    fan: Fan | None


def detect_fan(sweep: Sweep) -> ImageArea:
    """Return the image area, a rectangle or a fan: the pixels that are not black and change over the sweep.

    A static frame, logo or caption does not change and is left out (a single frame cannot show the difference). The
    area is a fan only where two straight edges and two arcs fit the content, and otherwise the bounding rectangle of
    the content, which contains all of it.

    Raises InputError: the sweep has no images, or nothing in them changes.
    """
    sweep.require_images()
    content = _content(sweep)
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if len(rows) < 2 or len(columns) < 2:
        raise InputError(
            "No image area was found: the frames are black, or nothing in them changes; give a clip rectangle."
        )
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    clip = (left, top, right - left, bottom - top)
    if content[top : bottom + 1, left : right + 1].mean() >= RECTANGLE_FILL:
        return ImageArea(clip, None)
    spacing = sweep.spacing_mm or (1.0, 1.0)
    fan = _fitted_fan(content, spacing[1] / spacing[0])
    if fan is None:
        return ImageArea(clip, None)
    inside = fan.mask(content.shape)
    common = np.count_nonzero(inside & content)
    contains_most = common >= FAN_RECALL * np.count_nonzero(content)
    is_filled = common >= FAN_PRECISION * np.count_nonzero(inside)
    return ImageArea(clip, fan if contains_most and is_filled else None)


def _content(sweep: Sweep) -> np.ndarray:
    """[H, W] bool: pixels of the image area, gaps closed and small pieces removed."""
    import SimpleITK as sitk

    numbers = np.unique(np.linspace(0, len(sweep) - 1, SAMPLED_FRAMES).round().astype(int)).tolist()
    frames = [sweep.window(number, number + 1)[0] for number in numbers if sweep.frame_valid[number]]
    if not frames:
        return np.zeros(sweep.frame_size, bool)
    brightest = np.maximum.reduce(frames)
    drawn = brightest >= LEAST_GREY
    if len(frames) > 1:
        drawn &= brightest > np.minimum.reduce(frames)
    height, width = drawn.shape
    radius = max(1, round(0.015 * min(height, width)))
    margin = 2 * radius
    # Padded, because closing at the border of an image would remove the content there.
    image = sitk.GetImageFromArray(np.pad(drawn, margin).astype(np.uint8))
    image = sitk.BinaryMorphologicalClosing(image, [radius, radius])
    image = sitk.BinaryMorphologicalOpening(image, [max(1, radius // 3)] * 2)
    image = sitk.BinaryFillhole(image)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(image), minimumObjectSize=round(LEAST_PIECE * drawn.size))
    return sitk.GetArrayFromImage(pieces)[margin : margin + height, margin : margin + width] > 0


def _fitted_fan(content: np.ndarray, aspect: float) -> Fan | None:
    """The fan whose straight sides and arcs fit the border of the content, or None where there is none."""
    rows = np.flatnonzero(content.any(axis=1))
    first = content[rows].argmax(axis=1)
    last = content.shape[1] - 1 - content[rows, ::-1].argmax(axis=1)
    down = rows * aspect
    left = _side(down, -first.astype(float), -content.shape[1])
    right = _side(down, last.astype(float), content.shape[1] - 1)
    if left is None or right is None:
        return None
    # Left: -x = a y + b, right: x = c y + d; they meet at the origin of the beams.
    (a, b), (c, d) = left, right
    if a + c <= 0.05:
        return None
    origin_down = -(b + d) / (a + c)
    origin = (c * origin_down + d, origin_down / aspect)
    radii = _radii(content, origin, aspect, (-a, c))
    if radii is None:
        return None
    angles = (-float(np.rad2deg(np.arctan(a))), float(np.rad2deg(np.arctan(c))))
    return Fan(origin, angles, radii, aspect) if angles[0] < angles[1] else None


def _side(down: np.ndarray, outward: np.ndarray, border: int) -> tuple[float, float] | None:
    """Slope and offset of a straight side that moves outwards going down, or None.

    Rows below the widest one belong to the lower arc, rows at the border of the frame to a cut-off side.
    """
    widest = int(np.argmax(outward))
    chosen = (np.arange(len(down)) < widest) & (outward != border) & (outward < outward[widest])
    if chosen.sum() < 12:
        return None
    y, x = down[chosen], outward[chosen]
    for _ in range(5):
        slope, offset = np.polyfit(y, x, 1)
        residual = np.abs(x - slope * y - offset)
        near = residual <= max(1.5, 2.0 * float(np.median(residual)))
        if near.all() or near.sum() < 12:
            break
        y, x = y[near], x[near]
    return float(slope), float(offset)


def _radii(
    content: np.ndarray, origin: tuple[float, float], aspect: float, slopes: tuple[float, float]
) -> tuple[float, float] | None:
    """Distances from the origin to the upper and the lower arc, along beams.

    A beam that leaves the frame within the content does not reach the lower arc; where all do so, the fan ends beyond
    the frame.
    """
    height, width = content.shape
    reach = float(np.hypot(width + abs(origin[0]), (height + abs(origin[1])) * aspect))
    distances = np.arange(0.0, reach, 0.5)
    starts, stops = [], []
    low, high = np.arctan(slopes)
    for angle in np.linspace(low, high, 41)[4:-4]:
        column = np.round(origin[0] + distances * np.sin(angle)).astype(int)
        row = np.round(origin[1] + distances * np.cos(angle) / aspect).astype(int)
        framed = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        on = np.flatnonzero(content[row[framed], column[framed]])
        if len(on) == 0:
            continue
        starts.append(distances[framed][on[0]])
        if on[-1] < np.count_nonzero(framed) - 4:
            stops.append(distances[framed][on[-1]])
    if len(starts) < 10:
        return None
    # Smoothing has removed about two pixels of the content on either side.
    start = max(0.0, float(np.median(starts)) - 2.0)
    stop = float(np.median(stops)) + 2.0 if len(stops) >= 5 else reach
    return (start, stop) if start < stop else None
