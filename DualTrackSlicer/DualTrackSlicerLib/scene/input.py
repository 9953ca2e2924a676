"""Clips in the scene, and the sweep that one of them makes.

Frames of reference: *pixel*, *image* and *frame0* as in the core; *node* is the local RAS of the image node, from its
IJKToRAS, before any transform above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import choose_pixel_size, contradicts, image_pose, require_agreement, split_affine
from DualTrackCore.io.metafile import SIMULATED_FIELD, SIMULATED_VALUE
from DualTrackCore.io.tracked_poses import trajectory_from_tracker
from DualTrackCore.progress import CancelledCallback, Reporter
from DualTrackCore.sweep import Sweep, validated_spacing
from DualTrackCore.trajectory import Trajectory
from DualTrackSlicerLib.scene.frames import FrameLayout, layout_of, read_frames
from DualTrackSlicerLib.scene.nodes import ijk_to_ras, nodes_of_class
from DualTrackSlicerLib.scene.tracking import find_tracking
from DualTrackSlicerLib.scene.volume_clip import SOURCE_REFERENCE
from DualTrackSlicerLib.scene.wiring import ROLE, sequences_of

Spacing = tuple[float, float]

#: Seconds in a unit of the index of a sequence.
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3}


@dataclass(frozen=True)
class Clip:
    """One line of the clip chooser.

    Attributes:
        name: what the user calls the clip.
        frames: how many.
        size: (width, height) in pixels; (0, 0) where `problem` says that there is none.
        spacing_mm: (across columns, down rows), or None where unknown; Slicer shows that as 1 x 1 mm.
        rate_hz, duration_s: from the index of the sequence where that is a time; None where unknown.
        browser, sequence: the nodes; None for a 3D volume.
        volume: a 3D volume, to be turned into a browser by `sequenceFromVolume` first; None for a sequence.
        problem: why it cannot be used, in one sentence; None where it can.
    """

    name: str
    frames: int
    size: tuple[int, int]
    spacing_mm: Spacing | None
    rate_hz: float | None
    duration_s: float | None
    browser: slicer.vtkMRMLSequenceBrowserNode | None
    sequence: slicer.vtkMRMLSequenceNode | None
    volume: slicer.vtkMRMLVolumeNode | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class SceneSweep:
    """A sweep, and where its frames lie in the scene.

    Attributes:
        sweep: frames, spacing, times and tracking. 8-bit frames are views of the scene's images, not copies.
        node_from_image: [4, 4] float64 rigid: image frame (mm) of the first frame to node.
        image_from_node: [N, 4, 4] float64: node to the image frame of each frame (mm); the inverse of
            `node_from_image` where all frames have the same IJKToRAS and the spacing is that of the scene.
        browser, image_sequence: where the frames come from.
        transform_sequence: the tracking that was used, or None.
    """

    sweep: Sweep
    node_from_image: np.ndarray
    image_from_node: np.ndarray
    browser: slicer.vtkMRMLSequenceBrowserNode
    image_sequence: slicer.vtkMRMLSequenceNode
    transform_sequence: slicer.vtkMRMLSequenceNode | None = None


def clips(scene: slicer.vtkMRMLScene) -> list[Clip]:
    """What can be chosen: every image sequence of every browser, then volumes of several slices."""
    found = [
        _clip_of_sequence(browser, sequence)
        for browser in nodes_of_class(scene, "vtkMRMLSequenceBrowserNode")
        for sequence in sequences_of(browser)
        if _holds_images(sequence)
    ]
    return found + [_clip_of_volume(volume) for volume in _loose_volumes(scene)]


def sweepFromBrowser(
    browserNode: slicer.vtkMRMLSequenceBrowserNode,
    imageSequenceNode: slicer.vtkMRMLSequenceNode | None = None,
    spacing_mm: float | Spacing | None = None,
    cancelled: CancelledCallback | None = None,
) -> SceneSweep:
    """The sweep of a clip.

    Args:
        browserNode: a browser with an image sequence.
        imageSequenceNode: which of its sequences; None is the only one with images (or the master).
        spacing_mm: (across columns, down rows) or one number; overrules what the scene says, except that it must agree
            with tracking within 1 %.
        cancelled: asked for every frame.

    Raises:
        InputError: no image sequence, frames that cannot be used, a spacing that contradicts the tracking.
        Cancelled: the caller asked to stop.
    """
    if browserNode is None or not browserNode.IsA("vtkMRMLSequenceBrowserNode"):
        given = "nothing" if browserNode is None else f"{browserNode.GetName()}, a {browserNode.GetClassName()}"
        raise InputError(f"The clip is {given}; give the sequence browser (vtkMRMLSequenceBrowserNode) that shows it.")
    reporter = Reporter(cancelled=cancelled)
    images = _image_sequence(browserNode) if imageSequenceNode is None else imageSequenceNode
    if browserNode.GetProxyNode(images) is None:
        raise InputError(f"{images.GetName()} is not shown by the browser {browserNode.GetName()}; add it there first.")
    layout = layout_of(images)
    frames, conversions = read_frames(images, layout, reporter)
    node_from_pixel = np.array([ijk_to_ras(node) @ layout.ijk_from_pixel for node in _items(images)])
    place = _place(browserNode, images, layout, node_from_pixel, validated_spacing(spacing_mm))
    provenance = {
        "source": images.GetName(),
        "format": "MRML sequence",
        "conversions": conversions + place.notes,
        "spacing_source": place.spacing_source,
        "tracking": place.tracking,
        # Slicer keeps the header fields of a .seq.nrrd as attributes of the sequence.
        **({"simulated": True} if images.GetAttribute(SIMULATED_FIELD) == SIMULATED_VALUE else {}),
    }
    sweep = Sweep(
        frames,
        place.spacing_mm,
        timestamps_s=_timestamps(images),
        tracked=place.tracked,
        skew_deg=place.skew_deg,
        provenance=provenance,
    )
    shown_mm = place.spacing_mm or _shown_spacing(node_from_pixel[0], layout)
    height, width = sweep.frame_size
    node_from_shown = image_pose(node_from_pixel, np.asarray(shown_mm), place.skew_deg, (height, width))
    rigid = split_affine(node_from_pixel[0], (height, width)).x_from_image
    return SceneSweep(sweep, rigid, np.linalg.inv(node_from_shown), browserNode, images, place.sequence)


@dataclass(frozen=True, eq=False)
class _Place:
    """Size of the pixels and tracking of a clip."""

    spacing_mm: Spacing | None
    skew_deg: float
    spacing_source: str
    tracked: Trajectory | None
    sequence: slicer.vtkMRMLSequenceNode | None
    tracking: str
    notes: list[str]


def _place(
    browser: slicer.vtkMRMLSequenceBrowserNode,
    images: slicer.vtkMRMLSequenceNode,
    layout: FrameLayout,
    node_from_pixel: np.ndarray,
    given_mm: Spacing | None,
) -> _Place:
    size = layout.size[::-1]
    stated = _known_spacing(node_from_pixel[0], layout)
    skew_deg = float(split_affine(node_from_pixel[0], size).skew_deg)
    found, sentence = find_tracking(browser, images)
    world_from_pixel = None if found is None else found.world_from_node @ node_from_pixel
    if found is None and np.ptp(node_from_pixel, axis=0).max() > 1e-6:
        world_from_pixel, sentence = node_from_pixel, "Tracked: each frame has an IJKToRAS of its own."
    measured, measured_skew = _measured_spacing(world_from_pixel, size)
    if measured is None:
        if world_from_pixel is not None:
            sentence = "Not tracked: the transforms cannot be used, for neither they nor the image give pixels a size."
        chosen = choose_pixel_size(stated, None, given_mm)
        return _Place(chosen.spacing_mm, skew_deg, chosen.source, None, None, sentence, chosen.notes)
    require_agreement(measured, given_mm)
    poses = image_pose(world_from_pixel, np.asarray(measured), measured_skew, size)
    tracked, notes = trajectory_from_tracker(poses, {"source": images.GetName()})
    if stated is not None and contradicts(stated, measured):
        notes.append("Used the pixel spacing of the transforms in place of that of the image.")
    sequence = None if found is None else found.sequence
    return _Place(measured, measured_skew, "tracking", tracked, sequence, sentence, notes)


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


def _shown_spacing(node_from_pixel: np.ndarray, layout: FrameLayout) -> Spacing:
    across, down = split_affine(node_from_pixel, layout.size[::-1]).spacing_mm
    return float(across), float(down)


def _known_spacing(node_from_pixel: np.ndarray, layout: FrameLayout) -> Spacing | None:
    shown = _shown_spacing(node_from_pixel, layout)
    return None if _is_placeholder(shown) else shown


def _is_placeholder(spacing_mm: Spacing) -> bool:
    """Whether a spacing is the 1 x 1 mm that stands in Slicer for an unknown one; no ultrasound image is as coarse."""
    return bool(np.allclose(spacing_mm, 1.0, rtol=0, atol=1e-4))


def _items(sequence: slicer.vtkMRMLSequenceNode) -> Iterator[slicer.vtkMRMLVolumeNode]:
    return (sequence.GetNthDataNode(number) for number in range(sequence.GetNumberOfDataNodes()))


def _timestamps(sequence: slicer.vtkMRMLSequenceNode) -> np.ndarray | None:
    """[N] seconds, or None where the index is no time or does not advance."""
    scale = _SECONDS.get((sequence.GetIndexUnit() or "").lower())
    if scale is None or sequence.GetIndexType() != slicer.vtkMRMLSequenceNode.NumericIndex:
        return None
    values = [sequence.GetNthIndexValue(number) for number in range(sequence.GetNumberOfDataNodes())]
    times = np.array([float(value) for value in values]) * scale
    return times if len(times) and np.isfinite(times).all() and (np.diff(times) >= 0).all() else None


def _image_sequence(browser: slicer.vtkMRMLSequenceBrowserNode) -> slicer.vtkMRMLSequenceNode:
    candidates = [sequence for sequence in sequences_of(browser) if _holds_images(sequence)]
    if not candidates:
        raise InputError(f"{browser.GetName()} shows no image sequence; load an ultrasound clip and choose it.")
    master = browser.GetMasterSequenceNode()
    if len(candidates) > 1 and master not in candidates:
        names = ", ".join(node.GetName() for node in candidates)
        raise InputError(f"{browser.GetName()} shows several image sequences ({names}); choose one of them.")
    return master if master in candidates else candidates[0]


def _holds_images(sequence: slicer.vtkMRMLSequenceNode) -> bool:
    first = sequence.GetNthDataNode(0) if sequence.GetNumberOfDataNodes() else None
    return first is not None and first.IsA("vtkMRMLVolumeNode") and not first.IsA("vtkMRMLLabelMapVolumeNode")


def _clip_of_sequence(browser: slicer.vtkMRMLSequenceBrowserNode, sequence: slicer.vtkMRMLSequenceNode) -> Clip:
    frames, name = sequence.GetNumberOfDataNodes(), sequence.GetName()
    try:
        layout = layout_of(sequence)
    except InputError as error:
        return Clip(name, frames, (0, 0), None, None, None, browser, sequence, problem=str(error))
    spacing = _known_spacing(ijk_to_ras(sequence.GetNthDataNode(0)) @ layout.ijk_from_pixel, layout)
    times = _timestamps(sequence)
    step = 0.0 if times is None else float(np.median(np.diff(times)))
    duration = None if times is None else float(times[-1] - times[0])
    return Clip(name, frames, layout.size, spacing, 1 / step if step > 0 else None, duration, browser, sequence)


def _loose_volumes(scene: slicer.vtkMRMLScene) -> Iterator[slicer.vtkMRMLVolumeNode]:
    """Volumes of several slices that belong to no sequence, are no result, and are not offered as a clip already."""
    browsers = nodes_of_class(scene, "vtkMRMLSequenceBrowserNode")
    copied = {node.GetNodeReferenceID(SOURCE_REFERENCE) for node in nodes_of_class(scene, "vtkMRMLSequenceNode")}
    for volume in nodes_of_class(scene, "vtkMRMLScalarVolumeNode"):
        image = volume.GetImageData()
        several = image is not None and image.GetDimensions()[2] > 1
        if not several or volume.IsA("vtkMRMLLabelMapVolumeNode") or volume.GetAttribute(ROLE):
            continue
        if volume.GetID() not in copied and not any(browser.IsProxyNode(volume) for browser in browsers):
            yield volume


def _clip_of_volume(volume: slicer.vtkMRMLVolumeNode) -> Clip:
    width, height, frames = volume.GetImageData().GetDimensions()
    layout = FrameLayout((width, height, 1), 1, 0)
    spacing = _known_spacing(ijk_to_ras(volume), layout)
    return Clip(volume.GetName(), frames, (width, height), spacing, None, None, None, None, volume)
