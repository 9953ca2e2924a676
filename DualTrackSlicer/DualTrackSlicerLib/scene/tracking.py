"""Tracked poses of the frames of a clip, as far as the scene holds any."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import slicer

from DualTrackCore.io.sequence_parts import TransformTrack
from DualTrackCore.io.tracked_poses import trace_image
from DualTrackSlicerLib.scene.nodes import matrix_to_parent
from DualTrackSlicerLib.scene.wiring import is_result_sequence, parent_of_clip, sequences_of

#: PLUS names: ImageToReference, ProbeToTracker; a browser may add a number to make them unique.
_NAME = re.compile(r"([A-Z]\w*?)To([A-Z][A-Za-z0-9]*?)(?:Transform)?(?:[ _(].*)?")


class SceneTracking(NamedTuple):
    """Where the image node of each frame lies in a world that does not move.

    Attributes:
        sentence: how it was found, or why there is none.
        world_from_node: [N, 4, 4] float64, mm; NaN where a frame has no pose. None where the clip is not tracked.
        sequence: the transform sequence next to the image, or None.
        moving: all sequences that the poses are made of.
    """

    sentence: str
    world_from_node: np.ndarray | None = None
    sequence: slicer.vtkMRMLSequenceNode | None = None
    moving: tuple[slicer.vtkMRMLSequenceNode, ...] = ()


def find_tracking(browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode) -> SceneTracking:
    """The tracking of a clip.

    What the scene shows counts first: the transforms above the image. Where none of these moves, transform sequences
    of the browser with names as PLUS gives them (ImageToReference, ...) are multiplied out from the image to the
    reference. The results of earlier runs do not count.
    """
    others = [node for node in sequences_of(browser) if _is_tracking(node)]
    tracking = _above_image(browser, images) or _by_name(others, images)
    if tracking is not None:
        return tracking
    if not others:
        return SceneTracking("Not tracked: the browser holds no transform sequence.")
    names = ", ".join(sorted(node.GetName() for node in others))
    return SceneTracking(
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
    moving, world_from_node = [], np.tile(np.eye(4), (images.GetNumberOfDataNodes(), 1, 1))
    link = parent_of_clip(browser, images)
    while link is not None:
        sequence = browser.GetSequenceNode(link)
        if sequence is not None and _is_tracking(sequence):
            moving.append(sequence)
            matrices = _track(sequence, images).matrices
        else:
            matrices = matrix_to_parent(link)
            if matrices is None:
                return None
        world_from_node = matrices @ world_from_node
        link = link.GetParentTransformNode()
    if not moving:
        return None
    names = " and ".join(node.GetName() for node in moving)
    return SceneTracking(f"Tracked: the image lies below {names}.", world_from_node, moving[0], tuple(moving))


def _by_name(sequences: list[slicer.vtkMRMLSequenceNode], images: slicer.vtkMRMLSequenceNode) -> SceneTracking | None:
    named = {}
    for node in sequences:
        match = _NAME.fullmatch(node.GetName() or "")
        if match is not None:
            named.setdefault((match[1], match[2]), node)
    tracks = {step: _track(node, images) for step, node in named.items()}
    chain = trace_image(tracks, images.GetNumberOfDataNodes(), {})
    if chain.world_from_pixel is None:
        return None
    moving = tuple(named.get(step) or named[step[::-1]] for step in pairwise(chain.way))
    return SceneTracking(f"Tracked: {' to '.join(chain.way)}.", chain.world_from_pixel.matrices, moving[0], moving)


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
