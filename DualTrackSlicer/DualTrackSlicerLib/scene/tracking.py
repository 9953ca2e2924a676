"""Tracked poses of the frames of a clip, as far as the scene holds any."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import slicer

from DualTrackCore.io.sequence_parts import TransformTrack
from DualTrackCore.io.tracked_poses import trace_image
from DualTrackSlicerLib.scene.nodes import matrix_to_parent
from DualTrackSlicerLib.scene.wiring import is_result_sequence, parent_of_clip, sequences_of

#: PLUS names: ImageToReference, ProbeToTracker; a browser may add a number to make them unique.
_NAME = re.compile(r"([A-Z][A-Za-z0-9]*?)To([A-Z][A-Za-z0-9]*?)(?:Transform)?(?:[ _(].*)?")


@dataclass(frozen=True)
class SceneTracking:
    """Where the image node of each frame lies in a world that does not move.

    Attributes:
        world_from_node: [N, 4, 4] float64, mm; NaN where `valid` is false.
        valid: [N] bool.
        sequence: the transform sequence next to the image.
        sentence: how it was found.
    """

    world_from_node: np.ndarray
    valid: np.ndarray
    sequence: slicer.vtkMRMLSequenceNode
    sentence: str


def find_tracking(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode
) -> tuple[SceneTracking | None, str]:
    """The tracking of a clip, and a sentence that says how it was found or why there is none.

    What the scene shows counts first: the transforms above the image. Where none of these moves, transform sequences
    of the browser with names as PLUS gives them (ImageToReference, ...) are multiplied out from the image to the
    reference. The results of earlier runs do not count.
    """
    above = _above_image(browser, images)
    if above is not None:
        return above, above.sentence
    others = [node for node in sequences_of(browser) if _is_tracking(node)]
    named = _by_name(others, images)
    if named is not None:
        return named, named.sentence
    if not others:
        return None, "Not tracked: the browser holds no transform sequence."
    names = ", ".join(sorted(node.GetName() for node in others))
    return None, (
        f"Not tracked: the browser holds {names}, but neither is the image below one of them, nor do their names "
        "lead from Image to Reference; put the image below the transform that places it."
    )


def _is_tracking(node: slicer.vtkMRMLSequenceNode) -> bool:
    kind = node.GetDataNodeClassName() if node.GetNumberOfDataNodes() else ""
    return kind == "vtkMRMLLinearTransformNode" and not is_result_sequence(node)


def _above_image(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode
) -> SceneTracking | None:
    """The product of the transforms above the image, if one of them comes from a sequence of the browser."""
    count, moving = images.GetNumberOfDataNodes(), []
    product = TransformTrack(np.broadcast_to(np.eye(4), (count, 4, 4)), np.ones(count, bool))
    link = parent_of_clip(browser, images)
    while link is not None:
        sequence = browser.GetSequenceNode(link)
        if sequence is not None and _is_tracking(sequence):
            moving.append(sequence)
            track = _track(sequence, images)
        else:
            still = matrix_to_parent(link)
            if still is None:
                return None
            track = TransformTrack(np.broadcast_to(still, (count, 4, 4)), np.ones(count, bool))
        product = TransformTrack(track.matrices @ product.matrices, track.valid & product.valid)
        link = link.GetParentTransformNode()
    if not moving:
        return None
    names = " and ".join(node.GetName() for node in moving)
    return SceneTracking(product.matrices, product.valid, moving[0], f"Tracked: the image lies below {names}.")


def _by_name(sequences: list[slicer.vtkMRMLSequenceNode], images: slicer.vtkMRMLSequenceNode) -> SceneTracking | None:
    named = {}
    for node in sequences:
        match = _NAME.fullmatch(node.GetName() or "")
        if match is not None:
            named.setdefault((match[1], match[2]), node)
    tracks = {step: _track(node, images) for step, node in named.items()}
    chain = trace_image(tracks, images.GetNumberOfDataNodes(), None)
    if chain.world_from_pixel is None:
        return None
    step = chain.way[:2]
    return SceneTracking(
        chain.world_from_pixel.matrices,
        chain.world_from_pixel.valid,
        named.get(step) or named[step[::-1]],
        f"Tracked: {' to '.join(chain.way)}.",
    )


def _track(transforms: slicer.vtkMRMLSequenceNode, images: slicer.vtkMRMLSequenceNode) -> TransformTrack:
    """The transform of each image; images without one of exactly their index value are not valid."""
    count = images.GetNumberOfDataNodes()
    matrices = np.full((count, 4, 4), np.nan)
    for number in range(count):
        item = transforms.GetItemNumberFromIndexValue(images.GetNthIndexValue(number), True)
        matrix = None if item < 0 else matrix_to_parent(transforms.GetNthDataNode(item))
        if matrix is not None:
            matrices[number] = matrix
    return TransformTrack(matrices, np.isfinite(matrices).all(axis=(1, 2)))
