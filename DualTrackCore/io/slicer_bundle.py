"""Scene bundles (.mrb) that 3D Slicer opens by drag and drop, without an extension: frames, moving transform, volume.

A bundle is a zip of a scene (.mrml, XML) and the data of its nodes, in the formats of Slicer's own storage nodes: the
frames as .seq.nrrd, the transforms as .seq.mha, the volume as .nrrd. The transform is the parent of the image, and a
sequence browser plays both.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.pose_marks import header_marks
from DualTrackCore.io.sequence_writer import frame_index, placed_transforms, write_nrrd, write_transforms
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Names of the data in the bundle. The image is the first frame: Slicer updates played nodes only when they change.
_FRAMES, _IMAGE, _POSES, _VOLUME = "frames.seq.nrrd", "image.nrrd", "poses.seq.mha", "volume.nrrd"
#: Frame rate of the player if times are unknown.
_DEFAULT_RATE_HZ = 20.0
#: Larger members of a zip need another header (zip64).
_LARGE_BYTES = 1 << 31


def write_bundle(
    sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter, volume: Path | None = None
) -> None:
    """Write a scene bundle.

    Args:
        sweep: N frames with images.
        path: the file; it appears complete or not at all.
        trajectory: N poses, or None for an image that does not move.
        reporter: receives `Stage.WRITING` (frames).
        volume: an .nrrd file for the scene, in the world of the trajectory; or None.

    Raises:
        InputError: tracking without images, or poses of a sweep whose pixel spacing is unknown.
        OutputError: the file cannot be written.
    """
    if not sweep.has_images:
        raise InputError("A scene for Slicer cannot hold tracking without images; write an .igs.mha file.")
    name = path.stem
    with replacing(path) as temporary:
        files = {data_name: temporary.parent / data_name for data_name in (_FRAMES, _IMAGE)}
        write_nrrd(sweep, files[_FRAMES], trajectory, reporter)
        write_nrrd(sweep.slice(0, 1), files[_IMAGE], None, Reporter())
        pose = None
        if trajectory is not None:
            files[_POSES] = temporary.parent / _POSES
            write_transforms(sweep, files[_POSES], trajectory)
            pose = placed_transforms(trajectory)[0]
        if volume is not None:
            files[_VOLUME] = volume
        with zipfile.ZipFile(temporary, "w") as bundle:
            # Without a date the same content gives the same bytes.
            scene = _scene(sweep, name, pose, header_marks(trajectory), volume is not None)
            bundle.writestr(zipfile.ZipInfo(f"{name}/{name}.mrml"), scene)
            for data_name, file in files.items():
                info, is_large = zipfile.ZipInfo(f"{name}/Data/{data_name}"), file.stat().st_size > _LARGE_BYTES
                with file.open("rb") as source, bundle.open(info, "w", force_zip64=is_large) as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def _scene(sweep: Sweep, name: str, pose: np.ndarray | None, marks: Mapping[str, str], has_volume: bool) -> bytes:
    """The scene with the first frame at `pose` [4, 4]; other properties of nodes have Slicer's defaults.

    Nodes that depend on the poses have `marks` as attributes.
    """
    scene = _Scene(name, frame_index(sweep)[0], marks)
    played, below = ["ScalarVolume"], ""
    scene.add_sequence(0, "frames", "Volume", _FRAMES)
    if pose is not None:
        scene.add_sequence(1, "poses", "LinearTransform", _POSES)
        matrix = " ".join(f"{value:.17g}" for value in pose.ravel())
        pose_attributes = {"matrixTransformToParent": matrix, **scene.marks}
        scene.add("LinearTransform", "LinearTransform", 1, name=f"{name} pose", **pose_attributes)
        played, below = [*played, "LinearTransform"], f"transform:{_id('LinearTransform', 1)};"
    scene.add_volume(0, "image", _IMAGE, below)
    if has_volume:
        scene.add_volume(1, "volume", _VOLUME)
    scene.add_browser(played, sweep.frame_rate_hz or _DEFAULT_RATE_HZ)
    shown = _id("ScalarVolume", int(has_volume))
    scene.add("Selection", "Selection", "Singleton", f"ActiveVolume:{shown};", singletonTag="Singleton")
    for view in ("Red", "Green", "Yellow"):
        layers = f"backgroundVolume:{shown};"
        scene.add("SliceComposite", "SliceComposite", view, layers, name=view, singletonTag=view, layoutName=view)
    ElementTree.indent(scene.root)
    return ElementTree.tostring(scene.root, encoding="utf-8", xml_declaration=True)


class _Scene:
    """Nodes as XML; names begin with that of the bundle, and `unit` is that of the index of the frames.

    `marks` holds the marks of the poses in Slicer's form of node attributes.
    """

    def __init__(self, name: str, unit: str, marks: Mapping[str, str]) -> None:
        self.root = ElementTree.Element("MRML", version="Slicer 5.0.0", userTags="")
        self._name, self._unit = name, unit
        # A semicolon ends an attribute; Slicer decodes only these two characters.
        texts = (f"{key}:{text.replace('%', '%25').replace(';', '%3B')}" for key, text in marks.items())
        self.marks = {"attributes": ";".join(texts)} if marks else {}

    def add(self, tag: str, kind: str, number: int | str, references: str = "", **attributes: str) -> None:
        attributes |= {"references": references} if references else {}
        ElementTree.SubElement(self.root, tag, id=_id(kind, number), **attributes)

    def add_sequence(self, number: int, content: str, stored: str, data_name: str) -> None:
        kind, name = f"{stored}SequenceStorage", f"{self._name} {content}"
        index = {"indexName": "time" if self._unit else "frame", "indexUnit": self._unit, "indexType": "numeric"}
        self.add("Sequence", "Sequence", number, f"storage:{_id(kind, number)};", name=name, **index, **self.marks)
        self.add(kind, kind, number, fileName=f"Data/{data_name}")

    def add_volume(self, number: int, content: str, data_name: str, references: str = "") -> None:
        display, storage = "ScalarVolumeDisplay", "VolumeArchetypeStorage"
        references += f"display:{_id(display, number)};storage:{_id(storage, number)};"
        self.add("Volume", "ScalarVolume", number, references, name=f"{self._name} {content}", **self.marks)
        self.add(storage, storage, number, fileName=f"Data/{data_name}")
        look = {"window": "255", "level": "127.5", "autoWindowLevel": "0", "colorNodeID": "vtkMRMLColorTableNodeGrey"}
        self.add("VolumeDisplay", display, number, **look)

    def add_browser(self, played: list[str], rate_hz: float) -> None:
        """Add a browser that plays sequence i in the node i of kind `played[i]`."""
        pairs = [
            f"dataNodeRef{number}:{_id(kind, number)};sequenceNodeRef{number}:{_id('Sequence', number)};"
            for number, kind in enumerate(played)
        ]
        numbers = range(len(played))
        follow = "playback true recording false overwriteProxyName false saveChanges false "
        more = {f"SynchronizationPropertiesMap{number}": follow for number in numbers}
        more |= {"selectedItemNumber": "0", "virtualNodePostfixes": " ".join(map(str, numbers))}
        more |= {"name": f"{self._name} browser", "playbackRateFps": f"{rate_hz:.6g}"}
        self.add("SequenceBrowser", "SequenceBrowser", 0, "".join(pairs), **more)


def _id(kind: str, number: int | str) -> str:
    """ID of a node. It has a prefix: with plain numbers, as of Slicer, a browser could use nodes of the open scene."""
    return f"vtkMRML{kind}Node{number}" if isinstance(number, str) else f"vtkMRML{kind}NodeDualTrack{number}"
