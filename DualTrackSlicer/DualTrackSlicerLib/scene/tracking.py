"""Tracked poses of the frames of a clip, as far as the scene holds any."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import slicer

from DualTrackCore.io.sequence_parts import FrameFields, TransformTrack
from DualTrackCore.io.tracked_poses import trace_image
from DualTrackSlicerLib.scene.frames import ITEMS
from DualTrackSlicerLib.scene.nodes import matrix_to_parent, nodes_of_class
from DualTrackSlicerLib.scene.wiring import is_result_sequence, parent_of_clip, sequences_of

#: PLUS names: ImageToReference, ProbeToTracker. Slicer puts the name of the file before it, a browser a number behind.
_NAME = re.compile(r"(?:.*-)?([A-Z]\w*?)To([A-Z][A-Za-z0-9]*?)(?:Transform)?:?(?:[ _(-].*)?")
#: Where the node of the image lies, in mm: what the transforms of this project's files for Slicer are about.
_PLACED = "PlacedImage"
#: Difference of logarithms below which the size of pixels is as well explained by the node as by the transforms.
_TIE = 0.02


class SceneTracking(NamedTuple):
    """Where the pixels of each frame lie in a world that does not move.

    Attributes:
        sentence: how it was found, or why there is none.
        world_from_pixel: [N, 4, 4] float64, mm; NaN where a frame has no pose. None where the clip is not tracked.
        sequence: the transform sequence next to the image, or None.
        moving: all sequences that the poses are made of.
    """

    sentence: str
    world_from_pixel: np.ndarray | None = None
    sequence: slicer.vtkMRMLSequenceNode | None = None
    moving: tuple[slicer.vtkMRMLSequenceNode, ...] = ()


def find_tracking(
    browser: slicer.vtkMRMLSequenceBrowserNode,
    images: slicer.vtkMRMLSequenceNode,
    node_from_pixel: np.ndarray,
    fields: FrameFields,
    given: slicer.vtkMRMLSequenceNode | None = None,
) -> Generator[None, None, SceneTracking]:
    """The tracking of a clip; of a long one in pieces.

    What the scene shows counts first: the transforms above the image. Where none of these moves, transforms with names
    as PLUS gives them (ImageToReference, ...) are multiplied out from the image to the reference: those that the file
    of the images brought with it, and transform sequences of the browser. The results of earlier runs do not count.

    Args:
        node_from_pixel: [N, 4, 4], where each image lies in its node, mm.
        fields: of the file of the images.
        given: the transforms that are to be taken, in place of those that are found.
    """
    if given is not None:
        is_named = (_step(given) or ("",))[0] in ("Image", "CroppedImage")
        world = _of_pixels((yield from _track(given, images)).matrices, node_from_pixel, is_named)
        return SceneTracking(f"Tracked: {given.GetName()}, as it was chosen.", world, given, (given,))
    others = [node for node in sequences_of(browser) if _is_tracking(node)]
    tracking = yield from _above_image(browser, images, node_from_pixel)
    tracking = tracking or (yield from _by_name(others, images, node_from_pixel, fields))
    if tracking is not None:
        return tracking
    if not others:
        return SceneTracking("Not tracked: the browser holds no transform sequence.")
    names = ", ".join(sorted(node.GetName() for node in others))
    return SceneTracking(
        f"Not tracked: the browser holds {names}, but neither is the image below one of them, nor do their names "
        "lead from Image to Reference; put the image below the transform that places it."
    )


def trackingSequences(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLSequenceNode]:
    """The sequences of transforms in a scene that no run has made."""
    return [node for node in nodes_of_class(scene, "vtkMRMLSequenceNode") if _is_tracking(node)]


def _of_pixels(world: np.ndarray, node_from_pixel: np.ndarray, is_named: bool) -> np.ndarray:
    """[N, 4, 4] world_from_pixel of transforms that are about the pixels, as in PLUS, or about the node of the image.

    Transforms of PLUS bring pixels to mm by themselves, also where a program gave the node the size of its pixels, or
    directions, in addition: the size must not count twice. So what their scale is nearer to decides: the size of a
    pixel, or one.

    Args:
        world: [N, 4, 4], mm; NaN where there is none.
        node_from_pixel: [N, 4, 4], mm.
        is_named: whether the name says that it is about the image, which decides where the node says 1 mm a pixel.
    """
    scales = np.linalg.norm(world[:, :3, :2], axis=1)
    usable = scales[np.isfinite(scales).all(axis=1) & (scales > 0).all(axis=1)]
    if not len(usable):
        return world @ node_from_pixel
    scale, size = np.median(usable, axis=0), np.linalg.norm(node_from_pixel[0, :3, :2], axis=0)
    lead = np.abs(np.log(scale)).sum() - np.abs(np.log(scale / size)).sum()
    return world if lead > (-_TIE if is_named else _TIE) else world @ node_from_pixel


def _is_tracking(node: slicer.vtkMRMLSequenceNode) -> bool:
    kind = node.GetDataNodeClassName() if node.GetNumberOfDataNodes() else ""
    return kind == "vtkMRMLLinearTransformNode" and not is_result_sequence(node)


def _above_image(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode, node_from_pixel: np.ndarray
) -> Generator[None, None, SceneTracking | None]:
    """The product of the transforms above the image, if one of them comes from a sequence of the browser."""
    moving, world_from_node = [], np.tile(np.eye(4), (images.GetNumberOfDataNodes(), 1, 1))
    link = parent_of_clip(browser, images)
    is_named = (_step(link) or ("",))[0] in ("Image", "CroppedImage")
    while link is not None:
        sequence = browser.GetSequenceNode(link)
        if sequence is not None and _is_tracking(sequence):
            moving.append(sequence)
            matrices = (yield from _track(sequence, images)).matrices
        else:
            matrices = matrix_to_parent(link)
            if matrices is None:
                return None
        world_from_node = matrices @ world_from_node
        link = link.GetParentTransformNode()
    if not moving:
        return None
    names = " and ".join(node.GetName() for node in moving)
    world_from_pixel = _of_pixels(world_from_node, node_from_pixel, is_named)
    return SceneTracking(f"Tracked: the image lies below {names}.", world_from_pixel, moving[0], tuple(moving))


def _step(node: slicer.vtkMRMLNode | None) -> tuple[str, str] | None:
    """(from, to) in the name of a transform, or in the one that Slicer remembers of its file; None for other names."""
    names = () if node is None else (node.GetAttribute("Sequences.Source"), node.GetName())
    matches = (_NAME.fullmatch(name or "") for name in names)
    return next((match.groups() for match in matches if match is not None), None)


def _by_name(
    sequences: list[slicer.vtkMRMLSequenceNode],
    images: slicer.vtkMRMLSequenceNode,
    node_from_pixel: np.ndarray,
    fields: FrameFields,
) -> Generator[None, None, SceneTracking | None]:
    named = {}
    for node in sequences:
        named.setdefault(_step(node), node)
    named.pop(None, None)
    count = images.GetNumberOfDataNodes()
    # The fields of the file say which poses are good; Slicer's transforms do not.
    tracks = {}
    for step, node in named.items():
        tracks[step] = yield from _track(node, images)
    tracks |= fields.transforms(count)
    if any(_PLACED in step for step in tracks):
        tracks["Image", _PLACED] = TransformTrack(node_from_pixel, np.ones(count, bool))
    chain = trace_image(tracks, count, {})
    if chain.world_from_pixel is None:
        return None
    steps = [named.get(step) or named.get(step[::-1]) for step in pairwise(chain.way)]
    moving = tuple(node for node in steps if node is not None)
    world_from_pixel = _of_pixels(chain.world_from_pixel.matrices, node_from_pixel, True)
    return SceneTracking(f"Tracked: {' to '.join(chain.way)}.", world_from_pixel, next(iter(moving), None), moving)


def _track(
    transforms: slicer.vtkMRMLSequenceNode, images: slicer.vtkMRMLSequenceNode
) -> Generator[None, None, TransformTrack]:
    """The transform of each image; images without one of exactly their index value are not valid."""
    count = images.GetNumberOfDataNodes()
    matrices = np.full((count, 4, 4), np.nan)
    for number in range(count):
        if number and number % ITEMS == 0:
            yield
        item = transforms.GetItemNumberFromIndexValue(images.GetNthIndexValue(number), True)
        matrix = None if item < 0 else matrix_to_parent(transforms.GetNthDataNode(item))
        if matrix is not None:
            matrices[number] = matrix
    return TransformTrack(matrices, np.isfinite(matrices).all(axis=(1, 2)))
