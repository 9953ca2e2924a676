"""Detection of the image area of a clip, and of the text and marks that stand still around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError, named
from DualTrackCore.reconstruction import Fan
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
#: How sure an area of one frame can be: it cannot show what stands still.
ONE_FRAME_CONFIDENCE = 0.5
#: Grey values from one pixel to the next that make the edge of a letter.
LEAST_STEP = 32
#: Edges that a piece of text has at least, and columns in which they lie: the border of a picture has one or two.
LEAST_EDGES, LEAST_EDGE_COLUMNS = 16, 5
#: Part of what surrounds a text that may be picture.
MOST_BESIDE = 0.25
#: In video the letters shake: their steps are so many standard deviations high, of pictures that move by so many grey
#: values (standard deviation) where they move most, in at least so many frames.
STEADY_STEP, LEAST_MOTION, LEAST_FRAMES = 3.0, 16.0, 5
#: Grey values (standard deviation) that the coder of a video makes where nothing moves.
CODER_NOISE = 2.0


@dataclass(frozen=True)
class ImageArea:
    """The part of the frames that shows ultrasound.

    Attributes:
        clip: (x, y, width, height) in pixels, upper bound included, as `clip` of the reconstruction takes it.
        fan: the sector within it, or None where the area is a rectangle or of another shape.
        confidence: 0 to 1, how much of the area and of what moves in the pictures is common to both (intersection over
            union); at most :data:`ONE_FRAME_CONFIDENCE` from one frame.
    """

    clip: tuple[int, int, int, int]
    fan: Fan | None
    confidence: float


@dataclass(frozen=True, eq=False)
class PictureParts:
    """What the frames consist of.

    Attributes:
        area: the part that shows ultrasound; None where nothing is found.
        marks: [H, W] bool, pixels of text and marks that stand still outside of it.
        regions: (x, y, width, height) in pixels around each piece of the marks.
    """

    area: ImageArea | None
    marks: np.ndarray
    regions: tuple[tuple[int, int, int, int], ...] = ()


def detect_fan(sweep: Sweep) -> ImageArea:
    """Return the image area, a rectangle or a fan: the pixels that are not black and change over the sweep.

    A static frame, logo or caption does not change and is left out (a single frame cannot show the difference). The
    area is a fan only where two straight edges and two arcs fit the content, and otherwise the bounding rectangle of
    the content, which contains all of it.

    Raises InputError: the sweep has no images, or nothing in them changes.
    """
    area = picture_parts(sweep).area
    if area is None:
        raise InputError(
            "No image area was found: the frames are black, or nothing in them changes; give a clip rectangle "
            f"({named('clip')}) in place of the fan auto."
        )
    return area


def sampled(sweep: Sweep) -> Sweep:
    """The frames that :func:`picture_parts` reads, spread over the sweep, as a sweep of their own."""
    numbers = np.unique(np.linspace(0, len(sweep) - 1, SAMPLED_FRAMES).round().astype(int))
    return sweep.chosen(numbers) if len(numbers) < len(sweep) else sweep


def picture_parts(sweep: Sweep) -> PictureParts:
    """Find the image area as :func:`detect_fan` does, and text and marks beside it.

    Text has edges that stand still: steps in grey between neighbours in a row that never change; in video, steps that
    are far higher than they shake. What lies on the picture or along its border is left, and so is what ever changes in
    clips that are no video. Without an area, or from one frame, no text is found.

    Raises InputError: the sweep has no images.
    """
    sweep.require_images()
    none, sweep = np.zeros(sweep.frame_size, bool), sampled(sweep)
    frames = [sweep.window(number, number + 1)[0] for number in np.flatnonzero(sweep.frame_valid).tolist()]
    if not frames:
        return PictureParts(None, none)
    brightest, darkest = np.maximum.reduce(frames), np.minimum.reduce(frames)
    changes = brightest > darkest
    moving = (brightest >= LEAST_GREY) & (changes | (len(frames) == 1))
    level, shake = brightest, np.where(changes, np.inf, 0)  # nothing but what never changes stands still
    is_video = sweep.provenance.get("is_video") is True and len(frames) >= LEAST_FRAMES
    if is_video:
        level, deviation = _mean_and_deviation(frames)
        is_video = bool(moving.any() and np.percentile(deviation[moving], 95) >= LEAST_MOTION)
    if is_video:
        shake, moving = STEADY_STEP * deviation, moving & (deviation >= CODER_NOISE)
    content = _content(moving)
    marks = _marks(level, shake, content, moving if is_video else None) if len(frames) > 1 and content.any() else none
    if is_video and marks.any():  # what shakes around letters is no picture
        content = _content(moving & ~marks)
    area = _area(sweep, content, len(frames))
    marks = none if area is None else marks & ~content & (is_video | ~changes)
    return PictureParts(area, marks, _regions(marks))


def _regions(marks: np.ndarray) -> tuple[tuple[int, int, int, int], ...]:
    import SimpleITK as sitk

    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(marks.astype(np.uint8)), True))
    return tuple(shapes.GetBoundingBox(label) for label in shapes.GetLabels())


def _mean_and_deviation(frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[H, W] float32 each, of frames that are not put together in memory."""
    total, squares = np.zeros((2, *frames[0].shape), np.float32)
    for frame in frames:
        total += frame
        squares += np.square(frame, dtype=np.float32)
    mean = total / len(frames)
    return mean, np.sqrt(np.maximum(squares / len(frames) - mean**2, 0))


def _area(sweep: Sweep, content: np.ndarray, frames: int) -> ImageArea | None:
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if len(rows) < 2 or len(columns) < 2:
        return None
    most = 1.0 if frames > 1 else ONE_FRAME_CONFIDENCE
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    clip = (left, top, right - left, bottom - top)
    filled = float(content[top : bottom + 1, left : right + 1].mean())
    rectangle = ImageArea(clip, None, min(filled, most))
    if filled >= RECTANGLE_FILL:
        return rectangle
    spacing = sweep.spacing_mm or (1.0, 1.0)
    fan = _fitted_fan(content, spacing[1] / spacing[0])
    if fan is None:
        return rectangle
    inside = fan.mask(content.shape)
    common, shown, drawn = (int(np.count_nonzero(part)) for part in (inside & content, content, inside))
    if common < FAN_RECALL * shown or common < FAN_PRECISION * drawn:
        return rectangle
    return ImageArea(clip, fan, min(common / (shown + drawn - common), most))


def _marks(level: np.ndarray, shake: np.ndarray, content: np.ndarray, moving: np.ndarray | None) -> np.ndarray:
    """[H, W] bool: around letters and marks, which lie apart from the content.

    Args:
        level: [H, W] grey of each pixel.
        shake: [H, W] height of a step that does not stand still.
        content: [H, W] bool, the image area.
        moving: [H, W] bool, of which the content is made where it may hold letters that shake; None where not.
    """
    import SimpleITK as sitk

    none, edges = np.zeros(level.shape, bool), np.zeros(level.shape, bool)
    step = np.abs(np.diff(level.astype(np.float32), axis=1))
    edges[:, 1:] = (step >= LEAST_STEP) & (np.maximum(shake[:, 1:], shake[:, :-1]) <= step)
    if np.count_nonzero(edges) < LEAST_EDGES:
        return none
    radius = max(4, round(0.01 * len(level)))
    wide = sitk.BinaryDilate(sitk.GetImageFromArray(edges.astype(np.uint8)), [radius] * 2, sitk.sitkBox)
    # With all that is bright and never changes, so that the still rim of a picture is known by the picture beside it.
    solid = sitk.GetImageFromArray(((level >= LEAST_STEP) & (shake == 0)).astype(np.uint8))
    pieces = sitk.GetArrayFromImage(sitk.Cast(sitk.ConnectedComponent(wide | solid, True), sitk.sitkUInt16))
    count = int(pieces.max()) + 1
    rows, columns = np.nonzero(edges)
    spread = np.unique(np.stack([pieces[rows, columns], columns]), axis=1)[0]
    many = np.bincount(pieces[edges], minlength=count) >= LEAST_EDGES
    many &= np.bincount(spread, minlength=count) >= LEAST_EDGE_COLUMNS
    if not many.any():
        return none
    marks = many[pieces]
    if moving is not None:
        content = _content(moving & ~marks)
    around = sitk.GetArrayFromImage(sitk.GrayscaleDilate(sitk.GetImageFromArray(pieces * marks), [2, 2], sitk.sitkBox))
    around[marks] = 0
    beside = np.bincount(around[content], minlength=count)
    return (many & (beside <= MOST_BESIDE * np.bincount(around.ravel(), minlength=count)))[pieces]


def _content(drawn: np.ndarray) -> np.ndarray:
    """[H, W] bool: the image area that drawn pixels make, gaps closed and small pieces removed."""
    import SimpleITK as sitk

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
