"""What is done to a clip before it is tracked: crop, turn, mirror, pixel size by depth, and text blacked out.

The order is fixed: the frames are chosen, the picture is turned, then mirrored, then cropped; the depth is that of the
rows that are left; text is blacked out last. Every rectangle (crop, mask, area, and the clip and the fan of the volume)
counts pixels of the picture as it is turned and mirrored, before the crop. Frames are read in windows, as before.

Tissue stays where it was: poses become those of the image frame of the new picture. A mirrored picture is the same
plane seen from behind, so x and z of its image frame run the other way; nothing is reflected in space.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan, Rectangle
from DualTrackCore.reconstruction.detect import ImageArea, PictureParts, picture_parts, sampled
from DualTrackCore.sweep import FrameSource, Sweep, image_from_pixel
from DualTrackCore.trajectory import (
    STEP_ERROR_CORRELATION,
    Trajectory,
    invert_rigid,
    matrices_from_parameters,
    parameters_from_matrices,
)

if TYPE_CHECKING:
    from DualTrackCore.landmarks import Landmarks
    from DualTrackCore.run.settings import RunSettings

#: (x, y, width, height) in pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Preparation:
    """A clip as a run takes it, what was done to it, and what a preview draws.

    For a preview draw `turned.window(0, 1)[0]` and over it crop, area and regions, which count its pixels; what the
    network, the volume and files get is `sweep.window(0, 1)[0]`.

    Attributes:
        sweep: frames, pixel size and poses as prepared; `prepared` in its provenance has the facts for reports.
        turned: the same frames turned and mirrored, neither cropped nor masked, without poses.
        crop: (x, y, width, height), the part of `turned` that is `sweep`.
        area: what shows ultrasound within the crop, and how sure that is; None where nothing is found.
        regions: (x, y, width, height) of what is blacked out; ultrasound beside text that was found stays.
        source_from_pixel: [3, 3] pixel (column, row, 1) of `sweep` to that of the clip as it was given.
        first_frame: index in that clip of the first frame of `sweep`.
    """

    sweep: Sweep
    turned: Sweep
    crop: Box
    area: ImageArea | None
    regions: tuple[Box, ...]
    source_from_pixel: np.ndarray
    first_frame: int

    def landmarks(self, given: Landmarks) -> Landmarks:
        """Landmarks of the given clip as landmarks of `sweep`; those of frames that are not used are left out."""
        frames = given.frames - self.first_frame
        used = (frames >= 0) & (frames < len(self.sweep))
        pixels = np.column_stack([given.pixels[used], np.ones(np.count_nonzero(used))])
        return replace(given, frames=frames[used], pixels=pixels @ np.linalg.inv(self.source_from_pixel)[:2].T)


def looked_at(sweep: Sweep, settings: RunSettings) -> Sweep:
    """The few frames in which image area and text are looked for: turned, mirrored and cropped, without poses.

    What :func:`~DualTrackCore.reconstruction.detect.picture_parts` finds in them, :func:`prepare` takes as `parts`.

    Raises InputError: frames, crop or mask are not in the clip, or it has no pictures.
    """
    sweep.require_images()
    bare = replace(sweep.slice(*settings.frame_range(len(sweep))), tracked=None)
    turned = seen(bare, settings)
    for name, box in [("crop", settings.crop), *(("mask", box) for box in settings.mask_regions)]:
        _require_inside(name, box, turned)
    return sampled(seen(bare, settings, settings.crop))


def prepare(sweep: Sweep, settings: RunSettings, parts: PictureParts | None = None) -> Preparation:
    """A clip as the settings prepare it; no frame is copied, and some are read to find area and text.

    Args:
        sweep: the clip.
        settings: which frames, and what is done to them.
        parts: what was found in :func:`looked_at` before; then no frame is read.

    Raises:
        InputError: frames, crop or mask are not in the clip, the depth contradicts the calibration, or there are no
            pictures to prepare.
    """
    start, stop = settings.frame_range(len(sweep))
    if not sweep.has_images and not settings.changes_pictures:
        sweep = sweep.slice(start, stop)
        return Preparation(sweep, sweep, (0, 0, 0, 0), None, (), np.eye(3), start)
    frames = looked_at(sweep, settings)
    parts = parts or picture_parts(frames)
    sweep = sweep.slice(start, stop)
    turned = seen(replace(sweep, tracked=None), settings)
    crop = settings.crop or (0, 0, *turned.frame_size[::-1])
    sweep, depth_notes = _with_depth(sweep, frames, parts.area, settings)
    mask, regions = _mask(parts, crop, settings)
    area = None if parts.area is None else _moved(parts.area, crop)
    size, sweep = sweep.frame_size, seen(sweep, settings, settings.crop, mask)
    facts = {
        **settings.chosen("rotate", "mirror", "crop", "depth_mm"),
        "area": None if area is None else asdict(area),
        "masked": regions,
        "done": [*_notes(settings, area, regions), *depth_notes],
    }
    sweep = replace(sweep, provenance={**sweep.provenance, "prepared": facts})
    matrix = source_from_pixel(settings, settings.crop, size)
    return Preparation(sweep, turned, crop, area, regions, matrix, start)


def cropped_area(crop: Box | None, clip: Box | None, fan: Fan | str) -> tuple[Box | None, Fan | str]:
    """Clip rectangle and fan of the volume, given in the turned picture, as they lie in the cropped one.

    Raises InputError: clip rectangle and crop do not meet.
    """
    if crop is None:
        return clip, fan
    x, y, width, height = crop
    if isinstance(fan, Fan):
        fan = replace(fan, origin_pixel=(fan.origin_pixel[0] - x, fan.origin_pixel[1] - y))
    if clip is None:
        return None, fan
    given = Rectangle(clip[0], clip[1], clip[0] + clip[2], clip[1] + clip[3])  # the upper bounds are included
    common = given.intersect(Rectangle(x, y, x + width - 1, y + height - 1))
    return (common.left - x, common.top - y, common.right - common.left, common.bottom - common.top), fan


class _SeenFrames:
    """Frames of a source turned clockwise by quarter turns, mirrored, cropped and masked."""

    def __init__(self, frames: FrameSource, settings: RunSettings, crop: Box | None, mask: np.ndarray | None) -> None:
        self._frames, self._turns, self._mirror = frames, settings.rotate // 90, settings.mirror
        self._crop, self._mask, self.dtype = crop, mask, frames.dtype
        count, height, width = frames.shape
        if crop is not None:
            width, height = crop[2:]
        elif self._turns % 2:
            width, height = height, width
        self.shape = (count, height, width)

    def __getitem__(self, key: slice) -> np.ndarray:
        images = np.rot90(np.asarray(self._frames[key]), -self._turns, axes=(1, 2))
        if self._mirror:
            images = images[:, :, ::-1]
        if self._crop is not None:
            x, y, width, height = self._crop
            images = images[:, y : y + height, x : x + width]
        return images if self._mask is None else np.where(self._mask, np.uint8(0), images)


def seen(sweep: Sweep, settings: RunSettings, crop: Box | None = None, mask: np.ndarray | None = None) -> Sweep:
    """The sweep turned, mirrored, cropped and masked, with pixel size, skew and poses of the new picture."""
    is_moved = bool(settings.rotate or settings.mirror or crop)
    if not is_moved and mask is None:
        return sweep
    frames = _SeenFrames(sweep.frames, settings, crop, mask)
    if not is_moved:
        return replace(sweep, frames=frames)
    spacing = sweep.spacing_mm if sweep.tracked is None else sweep.require_spacing()
    sized = replace(sweep, spacing_mm=spacing or (1.0, 1.0), tracked=None)
    image_from_seen, lengths, skew = image_from_prepared(sized, settings, crop)
    tracked = None if sweep.tracked is None else _from_seen(sweep.tracked, image_from_seen)
    lengths = None if spacing is None else lengths
    return replace(sweep, frames=frames, spacing_mm=lengths, skew_deg=skew, tracked=tracked)


def image_from_prepared(
    sweep: Sweep, settings: RunSettings, crop: Box | None
) -> tuple[np.ndarray, tuple[float, float], float]:
    """Where the image frame of the turned, mirrored and cropped picture lies in that of a sweep: [4, 4] rigid, mm.

    With it come pixel size and skew of the new picture. Raises InputError: the pixel size of the sweep is unknown.
    """
    pixel = np.eye(4)
    pixel[np.ix_([0, 1, 3], [0, 1, 3])] = source_from_pixel(settings, crop, sweep.frame_size)
    image_from_new = sweep.image_from_pixel @ pixel
    across, down = image_from_new[:2, 0], image_from_new[:2, 1]
    lengths = float(np.hypot(*across)), float(np.hypot(*down))
    skew = float(np.rad2deg(np.arcsin(across @ down / (lengths[0] * lengths[1]))))
    size = _SeenFrames(sweep.frames, settings, crop, None).shape[1:]
    image_from_seen = image_from_new @ np.linalg.inv(image_from_pixel(lengths, skew, size))
    image_from_seen[2, 2] = round(np.linalg.det(image_from_seen[:2, :2]))
    return image_from_seen, lengths, skew


def source_from_pixel(settings: RunSettings, crop: Box | None, frame_size: tuple[int, int]) -> np.ndarray:
    """[3, 3] pixel (column, row, 1) of the new picture to that of one of (H, W) pixels that it is made of."""
    matrix, (height, width) = np.eye(3), frame_size
    for _ in range(settings.rotate // 90):
        matrix = matrix @ [[0, 1, 0], [-1, 0, height - 1], [0, 0, 1]]
        height, width = width, height
    if settings.mirror:
        matrix = matrix @ [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]
    x, y = (0, 0) if crop is None else crop[:2]
    return matrix @ [[1, 0, x], [0, 1, y], [0, 0, 1]]


def _from_seen(poses: Trajectory, image_from_seen: np.ndarray) -> Trajectory:
    """The same poses for an image frame that lies within the image as `image_from_seen` [4, 4], rigid, says."""
    seen_from_image = invert_rigid(image_from_seen)

    def turned(motions: np.ndarray) -> np.ndarray:
        return seen_from_image @ motions @ image_from_seen

    with np.errstate(invalid="ignore"):  # poses that are not valid may be anything
        changes: dict[str, Any] = {"poses": turned(poses.poses), "path_covariance": None}  # of other centres
    if poses.reference_from_frame0 is not None:
        changes["reference_from_frame0"] = poses.reference_from_frame0 @ image_from_seen
    if poses.sigma is not None:
        # To first order, from what a small change of each parameter does to the parameters.
        steps = 1e-4 * np.vstack([np.eye(6), -np.eye(6)])[:, None]
        moved = parameters_from_matrices(turned(matrices_from_parameters(poses.parameters + steps)))
        gains = ((moved[:6] - moved[6:]) / 2e-4) ** 2
        changes["sigma"] = np.sqrt(np.einsum("cnp,nc->np", gains, poses.sigma**2))
        changes["provenance"] = dict(poses.provenance)
        if abs(image_from_seen[0, 0]) < abs(image_from_seen[0, 1]):  # x and y have changed places
            changes["provenance"][STEP_ERROR_CORRELATION] = poses.step_error_correlation[[1, 0, 2, 4, 3, 5]].tolist()
    return replace(poses, **changes)


def _require_inside(name: str, box: Box | None, turned: Sweep) -> None:
    height, width = turned.frame_size
    if box is not None and (box[0] + box[2] > width or box[1] + box[3] > height):
        raise InputError(
            f"The setting {name} reaches to column {box[0] + box[2] - 1} and row {box[1] + box[3] - 1}; the picture "
            f"as it is turned has {width} columns and {height} rows; choose a rectangle within it."
        )


def _with_depth(sweep: Sweep, shown: Sweep, area: ImageArea | None, settings: RunSettings) -> tuple[Sweep, list[str]]:
    """The sweep, not turned yet, with the pixel size that the depth of the shown picture gives, and a note."""
    if settings.depth_mm is None:
        return sweep, []
    rows, where = shown.frame_size[0], "the picture"
    if settings.crop is not None:
        where = "the crop"
    elif area is not None:
        rows = _rows(area, shown.frame_size)
        where = f"the image area (found, confidence {area.confidence:.0%})"
    down = settings.depth_mm / rows
    across = down if shown.spacing_mm is None else down * shown.spacing_mm[0] / shown.spacing_mm[1]
    spacing = (down, across) if settings.rotate % 180 else (across, down)
    if sweep.provenance.get("spacing_source") == "calibration" or (sweep.tracked is not None and sweep.spacing_mm):
        from DualTrackCore.io.calibration import require_agreement

        require_agreement(sweep.require_spacing(), spacing)
        return sweep, []
    note = f"The pixel size is from the depth: {settings.depth_mm:g} mm over {rows} rows of {where}."
    return replace(sweep, spacing_mm=spacing, provenance={**sweep.provenance, "spacing_source": "depth"}), [note]


def _rows(area: ImageArea, frame_size: tuple[int, int]) -> int:
    """Rows from the probe to the greatest depth: of a fan along its middle, which scanners measure."""
    if area.fan is not None and 0 <= (column := round(area.fan.origin_pixel[0])) < frame_size[1]:
        return int(np.count_nonzero(area.fan.mask(frame_size)[:, column])) or area.clip[3] + 1
    return area.clip[3] + 1


def _mask(parts: PictureParts, crop: Box, settings: RunSettings) -> tuple[np.ndarray | None, tuple[Box, ...]]:
    """What is blacked out, [H, W] bool in the crop, or None; and the rectangles around it in the turned picture."""
    if settings.mask == "auto":
        regions = tuple((x + crop[0], y + crop[1], *size) for x, y, *size in parts.regions)
        return (parts.marks, regions) if regions else (None, ())
    mask = np.zeros(parts.marks.shape, bool)
    for x, y, width, height in settings.mask_regions:
        left, top = x - crop[0], y - crop[1]
        mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    return (mask if mask.any() else None), settings.mask_regions


def _moved(area: ImageArea, crop: Box) -> ImageArea:
    """An area of the crop as it lies in the turned picture."""
    x, y = crop[:2]
    fan = area.fan and replace(area.fan, origin_pixel=(area.fan.origin_pixel[0] + x, area.fan.origin_pixel[1] + y))
    return replace(area, clip=(area.clip[0] + x, area.clip[1] + y, *area.clip[2:]), fan=fan)


def _notes(settings: RunSettings, area: ImageArea | None, regions: tuple[Box, ...]) -> list[str]:
    """What was done to the pictures, in sentences."""
    notes = [f"Turned the pictures clockwise by {settings.rotate} degrees."] if settings.rotate else []
    notes += ["Mirrored the pictures left to right: the same planes seen from behind."] if settings.mirror else []
    if settings.crop is not None:
        x, y, width, height = settings.crop
        notes.append(f"Cropped the pictures to columns {x} to {x + width - 1} and rows {y} to {y + height - 1}.")
    if regions:
        found = " that stand still beside the ultrasound, such as text"
        several = f"{len(regions)} regions" if len(regions) > 1 else "a region"
        notes.append(f"Blacked out {several}{found if settings.mask == 'auto' else ''}.")
    elif area is None and settings.mask == "auto":
        notes.append("No image area was found, so no text beside it was looked for.")
    return notes
