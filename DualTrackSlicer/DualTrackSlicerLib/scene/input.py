"""Clips in the scene, and the sweep that one of them makes.

Frames of reference: *pixel*, *image* and *frame0* as in the core; *node* is the local RAS of the image node, from its
IJKToRAS, before any transform above it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import slicer

from DualTrackCore.errors import InputError, doubts
from DualTrackCore.io.calibration import choose_pixel_size, contradicts, image_pose, require_agreement, split_affine
from DualTrackCore.io.metafile import SIMULATED_FIELD, SIMULATED_VALUE, SKEW_FIELD, SPACING_FIELD
from DualTrackCore.io.pose_marks import errors_in, marked
from DualTrackCore.io.sequence_parts import FrameFields, numbers
from DualTrackCore.io.tracked_poses import trajectory_from_tracker
from DualTrackCore.progress import finished
from DualTrackCore.sweep import Sweep, validated_spacing
from DualTrackCore.trajectory import RAS_FROM_LPS, PoseOrigin, Trajectory
from DualTrackSlicerLib.scene.frames import (
    ITEMS,
    FrameLayout,
    fields_of,
    first_layout,
    frames_in_pieces,
    layout_of,
    placed_pixels,
    timestamps_of,
)
from DualTrackSlicerLib.scene.nodes import (
    HEADER,
    header_text,
    ijk_to_ras,
    nodes_of_class,
    pose_marks,
    scanner_of,
)
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.slices import SOURCE
from DualTrackSlicerLib.scene.tracking import SceneTracking, find_tracking
from DualTrackSlicerLib.scene.wiring import ROLE, parent_of_clip, sequences_of

Spacing = tuple[float, float]


@dataclass(frozen=True)
class Clip:
    """One line of the clip chooser.

    Attributes:
        name: what the user calls the clip.
        frames: how many.
        size: (width, height) in pixels; (0, 0) where `problem` says that there is none.
        spacing_mm: (across columns, down rows), or None where unknown; Slicer shows that as 1 x 1 mm.
        rate_hz, duration_s: from the index of the sequence where that is a time; None where unknown.
        browser, sequence: the nodes; None for a volume that was not copied yet.
        volume: the volume whose slices are the frames; `copyInPieces` makes browser and sequence. None for others.
        problem: why it cannot be used, in one sentence; None where it can.
    """

    name: str
    frames: int
    size: tuple[int, int]
    spacing_mm: Spacing | None
    rate_hz: float | None = None
    duration_s: float | None = None
    browser: slicer.vtkMRMLSequenceBrowserNode | None = None
    sequence: slicer.vtkMRMLSequenceNode | None = None
    volume: slicer.vtkMRMLVolumeNode | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class SceneSweep:
    """A sweep, and where its frames lie in the scene.

    Attributes:
        sweep: frames, spacing, times and tracking. 8-bit frames are views of the scene's images, not copies.
        node_from_image: [4, 4] float64 rigid: image frame (mm) of the first frame to node; where results are laid.
        image_from_node: [N, 4, 4] float64: node to the image frame of each frame (mm), where it was loaded; the inverse
            of `node_from_image` where all frames have the same IJKToRAS, the spacing is that of the scene, and the
            clip was not loaded by SlicerIGSIO.
        browser, image_sequence: where the frames come from.
        transform_sequence: the tracking that was used, or None.
    """

    sweep: Sweep
    node_from_image: np.ndarray
    image_from_node: np.ndarray
    browser: slicer.vtkMRMLSequenceBrowserNode
    image_sequence: slicer.vtkMRMLSequenceNode
    transform_sequence: slicer.vtkMRMLSequenceNode | None = None


def clips(scene: slicer.vtkMRMLScene, known: dict[object, Any] | None = None) -> list[Clip]:
    """What can be chosen: every image sequence of every browser, then volumes of several slices.

    Left out are volumes that belong to a sequence, are a result, or are offered as a clip already.

    Args:
        known: what earlier calls found of sequences that have not changed since, by their state; updated, no nodes.
    """
    before = {} if known is None else dict(known)
    found: dict[object, Any] = {}
    browsers = nodes_of_class(scene, "vtkMRMLSequenceBrowserNode")
    offered = [
        _clip_of_sequence(browser, sequence, before, found)
        for browser in browsers
        for sequence in sequences_of(browser)
        if _holds_images(sequence)
    ]
    copied = {node.GetNodeReferenceID(SOURCE) for node in nodes_of_class(scene, "vtkMRMLSequenceNode")}
    for volume in nodes_of_class(scene, "vtkMRMLScalarVolumeNode"):
        image = volume.GetImageData()
        several = image is not None and image.GetDimensions()[2] > 1
        if not several or volume.IsA("vtkMRMLLabelMapVolumeNode") or volume.GetAttribute(ROLE):
            continue
        if volume.GetID() not in copied and not any(browser.IsProxyNodeID(volume.GetID()) for browser in browsers):
            width, height, frames = image.GetDimensions()
            spacing = _known_spacing(ijk_to_ras(volume), FrameLayout((width, height, 1), 1, 0))
            offered.append(Clip(volume.GetName(), frames, (width, height), spacing, volume=volume))
    if known is not None:
        known.clear()
        known.update(found)
    return offered


def sweepFromBrowser(
    browserNode: slicer.vtkMRMLSequenceBrowserNode,
    imageSequenceNode: slicer.vtkMRMLSequenceNode | None = None,
    spacing_mm: float | Spacing | None = None,
    pictures: bool = True,
    transformSequenceNode: slicer.vtkMRMLSequenceNode | None = None,
) -> SceneSweep:
    """The sweep of a clip.

    Args:
        browserNode: a browser with an image sequence.
        imageSequenceNode: which of its sequences; None is the only one with images (or the master).
        spacing_mm: (across columns, down rows) or one number; overrules what the scene says, except that it must agree
            with tracking within 1 %.
        pictures: whether the pixels can be read; else all are 0, and nothing is looked at for them.
        transformSequenceNode: transforms that place the images; None looks for those of the clip.

    Raises InputError: no image sequence, frames that cannot be used, a spacing that contradicts the tracking.
    """
    return finished(sweepInPieces(browserNode, imageSequenceNode, spacing_mm, pictures, transformSequenceNode))


def sweepInPieces(
    browserNode: slicer.vtkMRMLSequenceBrowserNode,
    imageSequenceNode: slicer.vtkMRMLSequenceNode | None = None,
    spacing_mm: float | Spacing | None = None,
    pictures: bool = True,
    transformSequenceNode: slicer.vtkMRMLSequenceNode | None = None,
) -> Generator[object, None, SceneSweep]:
    """:func:`sweepFromBrowser`; a short clip of 8 bits in one step. Other frames are looked at first, one at each."""
    images = _images_of(browserNode, imageSequenceNode)
    layout = layout_of(images) if pictures else first_layout(images)
    if images.GetNumberOfDataNodes() > ITEMS:
        yield
    frames, conversions = np.broadcast_to(np.uint8(0), (images.GetNumberOfDataNodes(), *layout.size[::-1])), []
    fields, node_from_pixel = fields_of(images), (yield from placed_pixels(images, layout))
    tracking = yield from find_tracking(browserNode, images, node_from_pixel, fields, transformSequenceNode)
    if len(frames) > ITEMS:
        yield
    place = _place(images, layout, node_from_pixel, fields, validated_spacing(spacing_mm), tracking)
    if pictures:
        frames, conversions = yield from frames_in_pieces(images, layout)
    if len(frames) > ITEMS:
        yield
    provenance = {
        "source": images.GetName(),
        "format": "MRML sequence",
        "conversions": conversions + place.notes,
        **doubts(conversions),
        "spacing_source": place.spacing_source,
        "tracking": place.tracking,
        **({"simulated": True} if _is_simulated(images) else {}),
        **scanner_of(images),
    }
    sweep = Sweep(
        frames,
        place.spacing_mm,
        timestamps_s=timestamps_of(images, fields),
        frame_valid=fields.ok("ImageStatus", len(frames)) & fields.ok("Status", len(frames)),
        tracked=place.tracked,
        skew_deg=place.skew_deg,
        provenance=provenance,
    )
    first = split_affine(node_from_pixel[0], sweep.frame_size)
    shown_mm = np.asarray(place.spacing_mm or first.spacing_mm)
    image_from_node = np.linalg.inv(image_pose(node_from_pixel, shown_mm, place.skew_deg, sweep.frame_size))
    node_from_image, directions = first.x_from_image, ijk_to_ras(images.GetNthDataNode(0))[:3, :3]
    if images.GetAttribute(f"{HEADER}Source") == "Image" and np.array_equal(directions, np.diag(directions.diagonal())):
        # SlicerIGSIO puts pixels into the scene as they are, half a turn off. Results are laid as those of files: LPS.
        node_from_image = RAS_FROM_LPS.copy()
        node_from_image[:3, 3] = first.x_from_image[:3, 3]
    return SceneSweep(sweep, node_from_image, image_from_node, browserNode, images, place.sequence)


def _is_simulated(images: slicer.vtkMRMLSequenceNode) -> bool:
    return header_text(images, SIMULATED_FIELD) == SIMULATED_VALUE


class _Place(NamedTuple):
    """Size of the pixels and tracking of a clip."""

    spacing_mm: Spacing | None
    skew_deg: float
    spacing_source: str
    notes: list[str]
    tracking: str
    tracked: Trajectory | None = None
    sequence: slicer.vtkMRMLSequenceNode | None = None


def _place(
    images: slicer.vtkMRMLSequenceNode,
    layout: FrameLayout,
    node_from_pixel: np.ndarray,
    fields: FrameFields,
    given_mm: Spacing | None,
    tracking: SceneTracking,
) -> _Place:
    size = layout.size[::-1]
    stated = numbers(header_text(images, SPACING_FIELD) or "", 2) or _known_spacing(node_from_pixel[0], layout)
    sentence, world_from_pixel, sequence, moving = tracking
    if world_from_pixel is None and np.ptp(node_from_pixel, axis=0).max() > 1e-6:
        world_from_pixel, sentence = node_from_pixel, "Tracked: each frame has an IJKToRAS of its own."
    measured, measured_skew = _measured_spacing(world_from_pixel, size)
    if measured is None:
        if world_from_pixel is not None:
            sentence = "Not tracked: the transforms cannot be used, for neither they nor the image give pixels a size."
        (skew_deg,) = numbers(header_text(images, SKEW_FIELD) or "", 1) or (0.0,)
        chosen = choose_pixel_size(stated, None, given_mm)
        return _Place(chosen.spacing_mm, skew_deg, chosen.source, chosen.notes, sentence)
    require_agreement(measured, given_mm)
    poses = image_pose(world_from_pixel, np.asarray(measured), measured_skew, size)
    tracked, notes = trajectory_from_tracker(poses, {"source": images.GetName()})
    unmarked = PoseOrigin.SIMULATED if _is_simulated(images) else PoseOrigin.MEASURED
    errors = errors_in(fields, len(poses))
    tracked, origin_notes = marked(tracked, pose_marks([*moving, images]), unmarked, *errors)
    notes += [*origin_notes, *tracked.provenance.get("warnings", ())]
    if not tracked.origin.is_truth:
        sentence = f"Not tracked: the poses are {tracked.origin_text}."
    if stated is not None and contradicts(stated, measured):
        notes.append("Used the pixel spacing of the transforms in place of that of the image.")
    return _Place(measured, measured_skew, "tracking", notes, sentence, tracked, sequence)


def _measured_spacing(world_from_pixel: np.ndarray | None, size: tuple[int, int]) -> tuple[Spacing | None, float]:
    """Spacing and skew that most tracked frames agree on; None where nothing is tracked, or at 1 mm for unknown."""
    if world_from_pixel is None:
        return None, 0.0
    usable = np.isfinite(world_from_pixel).all(axis=(1, 2))
    usable[usable] = (np.linalg.norm(world_from_pixel[usable, :3, :2], axis=1) > 1e-6).all(axis=1)
    if not usable.any():
        return None, 0.0
    split = split_affine(world_from_pixel[usable], size)
    spacing = tuple(float(value) for value in np.median(split.spacing_mm, axis=0))
    return (None if _is_placeholder(spacing) else spacing), float(np.median(split.skew_deg))


def _known_spacing(node_from_pixel: np.ndarray, layout: FrameLayout) -> Spacing | None:
    across, down = split_affine(node_from_pixel, layout.size[::-1]).spacing_mm
    return None if _is_placeholder((across, down)) else (float(across), float(down))


def _is_placeholder(spacing_mm: Spacing) -> bool:
    """Whether a spacing is the 1 x 1 mm that stands in Slicer for an unknown one; no ultrasound image is as coarse."""
    return bool(np.allclose(spacing_mm, 1.0, rtol=0, atol=1e-4))


def _images_of(
    browser: slicer.vtkMRMLSequenceBrowserNode | None, images: slicer.vtkMRMLSequenceNode | None
) -> slicer.vtkMRMLSequenceNode:
    """The images that are meant, or those of the browser. Raises InputError: it is none, or does not show them."""
    if browser is None or not browser.IsA("vtkMRMLSequenceBrowserNode"):
        given = "nothing" if browser is None else f"{browser.GetName()}, a {browser.GetClassName()}"
        sentence = _("The clip is {given}; give the sequence browser (vtkMRMLSequenceBrowserNode) that shows it.")
        raise InputError(sentence.format(given=given))
    images = _image_sequence(browser) if images is None else images
    if browser.GetProxyNode(images) is None:
        sentence = _("{name} is not shown by the browser {browser}; add it there first.")
        raise InputError(sentence.format(name=images.GetName(), browser=browser.GetName()))
    return images


def _image_sequence(browser: slicer.vtkMRMLSequenceBrowserNode) -> slicer.vtkMRMLSequenceNode:
    candidates = [sequence for sequence in sequences_of(browser) if _holds_images(sequence)]
    if not candidates:
        sentence = _("{browser} shows no image sequence; load an ultrasound clip and choose it.")
        raise InputError(sentence.format(browser=browser.GetName()))
    master = browser.GetMasterSequenceNode()
    if len(candidates) > 1 and master not in candidates:
        names = ", ".join(node.GetName() for node in candidates)
        sentence = _("{browser} shows several image sequences ({names}); choose one of them.")
        raise InputError(sentence.format(browser=browser.GetName(), names=names))
    return master if master in candidates else candidates[0]


def _holds_images(sequence: slicer.vtkMRMLSequenceNode) -> bool:
    first = sequence.GetNthDataNode(0) if sequence.GetNumberOfDataNodes() else None
    return first is not None and first.IsA("vtkMRMLVolumeNode") and not first.IsA("vtkMRMLLabelMapVolumeNode")


def _clip_of_sequence(
    browser: slicer.vtkMRMLSequenceBrowserNode,
    sequence: slicer.vtkMRMLSequenceNode,
    before: dict[object, Any],
    found: dict[object, Any],
) -> Clip:
    """A clip by what was found `before` where nothing that counts has changed; what is found now is noted."""
    state = _state(browser, sequence)
    facts = found[state] = before.get(state) or _facts(browser, sequence)
    volume = sequence.GetNodeReference(SOURCE)
    name = (volume or sequence).GetName()
    return Clip(name, browser=browser, sequence=sequence, volume=volume, **facts)


def _state(browser: slicer.vtkMRMLSequenceBrowserNode, sequence: slicer.vtkMRMLSequenceNode) -> tuple:
    """What the facts of a clip depend on: its sequences, and the transforms above it that do not move by themselves."""
    state = [(node.GetID(), node.GetMTime()) for node in (sequence, *sequences_of(browser))]
    link = parent_of_clip(browser, sequence)
    while link is not None:
        moves = browser.GetSequenceNode(link) is not None
        state.append((link.GetID(), 0 if moves else link.GetTransformToParent().GetMTime()))
        link = link.GetParentTransformNode()
    return id(browser.GetScene()), *state


def _facts(browser: slicer.vtkMRMLSequenceBrowserNode, sequence: slicer.vtkMRMLSequenceNode) -> dict[str, Any]:
    """The fields of a :class:`Clip` that are no nodes."""
    frames = sequence.GetNumberOfDataNodes()
    try:
        layout, fields = layout_of(sequence), fields_of(sequence)
        node_from_pixel = finished(placed_pixels(sequence, layout))
        tracking = finished(find_tracking(browser, sequence, node_from_pixel, fields))
        spacing = _place(sequence, layout, node_from_pixel, fields, None, tracking).spacing_mm
    except InputError as error:
        return {"frames": frames, "size": (0, 0), "spacing_mm": None, "problem": str(error)}
    times = timestamps_of(sequence, fields)
    step = 0.0 if times is None else float(np.median(np.diff(times)))
    duration, rate = None if times is None else float(times[-1] - times[0]), 1 / step if step > 0 else None
    size = layout.size
    return {"frames": frames, "size": size, "spacing_mm": spacing, "rate_hz": rate, "duration_s": duration}
