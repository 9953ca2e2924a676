"""Pixel size and tracked trajectory of a sequence metafile, from its transforms, its header and the user."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import image_pose, split_affine, validated_calibration
from DualTrackCore.io.sequence_fields import FrameFields, TransformTrack
from DualTrackCore.io.spacing import PixelSize, as_text, choose_pixel_size, contradicts, require_agreement
from DualTrackCore.io.tracked_poses import rigid
from DualTrackCore.io.transform_chain import ImageChain, trace_image
from DualTrackCore.sweep import validated_spacing
from DualTrackCore.trajectory import Trajectory

#: A size measured from rounded poses is replaced by the one that the header states within these differences.
_STATED_SPACING_TOLERANCE = 1e-3
_STATED_SKEW_TOLERANCE_DEG = 0.06


@dataclass(frozen=True)
class PlacedFrames:
    """Where the frames of a recording lie.

    Attributes:
        size: the pixel size; its source is "calibration", "file", "user" or "unknown".
        tracked: the trajectory, or None.
        tracking: a sentence on how the trajectory was found, or why there is none.
        notes: what was converted or ignored.
    """

    size: PixelSize
    tracked: Trajectory | None
    tracking: str
    notes: list[str] = field(default_factory=list)


def place_frames(
    fields: FrameFields,
    shape: tuple[int, int, int],
    calibration: np.ndarray | None,
    stated: PixelSize | None,
    given_mm: tuple[float, float] | None,
    source: str,
) -> PlacedFrames:
    """Pixel size and trajectory of a recording.

    The transforms decide where they say anything about the pixels, then the user, then the header.

    Args:
        fields: the per-frame fields.
        shape: (N, H, W) of the frames.
        calibration: [4, 4] probe_from_pixel that the user gives, or None.
        stated: what the header states, or None.
        given_mm: the spacing that the user gives, or None.
        source: the name of the file, for messages.

    Raises:
        InputError: sizes that contradict each other, or no pose that is rigid.
    """
    count, frame_size = shape[0], (shape[1], shape[2])
    tracks = fields.transforms(count)
    chain = trace_image(tracks, count, calibration)
    measured = _measured(chain, frame_size, stated, source)
    tracking = _sentence(chain, [f"{a}To{b}" for a, b in tracks], calibration is not None)
    if measured is None:
        chosen = choose_pixel_size(None if stated is None else stated.spacing_mm, None, given_mm)
        skewed = replace(chosen, skew_deg=0.0 if stated is None else stated.skew_deg)
        return PlacedFrames(skewed, _unplaced(chain), tracking, chosen.notes)
    require_agreement(measured.spacing_mm, given_mm)
    notes = _overruled(stated, measured)
    tracked = None
    if chain.world_from_pixel is not None:
        tracked = _trajectory(chain.world_from_pixel, measured, frame_size, notes, source)
    origin = "file" if calibration is None else "calibration"
    return PlacedFrames(replace(measured, source=origin), tracked, tracking, notes)


def _unplaced(chain: ImageChain) -> Trajectory | None:
    """The trajectory of a recording whose transforms are invalid in all frames."""
    if chain.world_from_pixel is None:
        return None
    return Trajectory(chain.world_from_pixel.matrices, chain.world_from_pixel.valid)


def _overruled(stated: PixelSize | None, measured: PixelSize) -> list[str]:
    if stated is None or not contradicts(measured.spacing_mm, stated.spacing_mm):
        return []
    used, ignored = as_text(measured.spacing_mm), as_text(stated.spacing_mm)
    return [f"Used the pixel spacing {used} of the transforms in place of {ignored} in the header."]


def _measured(
    chain: ImageChain, frame_size: tuple[int, int], stated: PixelSize | None, source: str
) -> PixelSize | None:
    """The pixel size in the transforms: that of the calibration, or the median over the frames."""
    if chain.probe_from_pixel is not None:
        matrix = validated_calibration(chain.probe_from_pixel, f"{source}, ImageToProbe")
        split = split_affine(matrix, frame_size)
        return PixelSize(validated_spacing(tuple(split.spacing_mm.tolist())), float(split.skew_deg))
    if chain.world_from_pixel is None or not chain.world_from_pixel.valid.any():
        return None
    matrices = chain.world_from_pixel.matrices[chain.world_from_pixel.valid]
    plausible = np.linalg.norm(matrices[:, :3, :2], axis=1).all(axis=1)
    if not plausible.any():
        raise InputError(f"{source}: the transforms of the image give its pixels no size; no pose can be used.")
    split = split_affine(matrices[plausible], frame_size)
    spacing = validated_spacing(tuple(np.median(split.spacing_mm, axis=0).tolist()))
    skew = float(np.median(split.skew_deg))
    if stated is None:
        return PixelSize(spacing, skew)
    ratio = np.divide(stated.spacing_mm, spacing)
    if np.abs(ratio - 1).max() <= _STATED_SPACING_TOLERANCE:
        spacing = stated.spacing_mm
        skew = stated.skew_deg if abs(skew - stated.skew_deg) <= _STATED_SKEW_TOLERANCE_DEG else skew
    return PixelSize(spacing, skew)


def _trajectory(
    world_from_pixel: TransformTrack,
    size: PixelSize,
    frame_size: tuple[int, int],
    notes: list[str],
    source: str,
) -> Trajectory:
    with np.errstate(all="ignore"):
        poses = image_pose(world_from_pixel.matrices, size.spacing_mm, size.skew_deg, frame_size)
        valid = world_from_pixel.valid & rigid(poses)
    dropped = int((world_from_pixel.valid & ~valid).sum())
    if dropped and not valid.any():
        raise InputError(
            f"{source}: none of the {dropped} poses that count as good is a rigid motion at the pixel spacing "
            f"{as_text(size.spacing_mm)}; the calibration belongs to another recording."
        )
    if dropped:
        notes.append(f"Marked {dropped} poses invalid that the file calls good: they are no rigid motions.")
    return Trajectory.from_reference(poses, valid, {"source": source})


def _sentence(chain: ImageChain, names: list[str], calibrated: bool) -> str:
    if chain.way:
        return f"Tracked: {' to '.join(chain.way)}."
    if not names:
        return "Not tracked: the file holds no transforms."
    remedy = (
        "none of them leads from the probe to a reference"
        if calibrated
        else "a calibration (Image to Probe) is needed to use them"
    )
    return f"Not tracked: the file holds {', '.join(sorted(names))}, and {remedy}."
