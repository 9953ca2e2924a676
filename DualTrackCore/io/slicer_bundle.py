"""Scene bundles (.mrb) that 3D Slicer opens by drag and drop, without an extension: frames, moving transform, volume.

A bundle is a zip of a scene (.mrml, XML) and the data that its nodes name, in the formats of Slicer's own storage
nodes: the frames as .seq.nrrd, the transforms as .seq.mha, the volume as .nrrd. The image hangs below the transform,
and a browser plays both.
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

#: Names of the data in the bundle. The image is the first frame: Slicer fills the nodes that it plays when they move.
_FRAMES, _IMAGE, _POSES, _VOLUME = "frames.seq.nrrd", "image.nrrd", "poses.seq.mha", "volume.nrrd"
#: Frames a second in the player where the times are unknown.
_DEFAULT_RATE_HZ = 20.0
#: A zip needs another header for larger members.
_LARGE_BYTES = 1 << 31


def write_bundle(
    sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter, volume: Path | None = None
) -> None:
    """Write a scene bundle.

    Args:
        sweep: N frames with images.
        path: the file; it appears complete or not at all.
        trajectory: N poses, or None for an image that does not move.
        reporter: told about every window of frames.
        volume: an .nrrd file that goes into the scene, in the world of the trajectory.

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
    """The scene with the first frame at `pose` [4, 4]; what its nodes leave out is as Slicer has it by default.

    Nodes that the poses placed or moved have `marks` as their attributes.
    """
    scene = _Scene(name, frame_index(sweep)[0], marks)
    played, below = ["ScalarVolume"], ""
    scene.add_sequence(0, "frames", "Volume", _FRAMES)
    if pose is not None:
        scene.add_sequence(1, "poses", "LinearTransform", _POSES)
        matrix = " ".join(f"{value:.17g}" for value in pose.ravel())
        said = {"matrixTransformToParent": matrix, **scene.said}
        scene.add("LinearTransform", "LinearTransform", 1, name=f"{name} pose", **said)
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
    """Nodes as XML; the names begin with that of the bundle, and `unit` is that of the index of the frames.

    `said` holds what is said of the poses, in the form in which Slicer keeps the attributes of a node.
    """

    def __init__(self, name: str, unit: str, marks: Mapping[str, str]) -> None:
        self.root = ElementTree.Element("MRML", version="Slicer 5.0.0", userTags="")
        self._name, self._unit = name, unit
        # A semicolon ends an attribute, and Slicer decodes these two alone.
        texts = (f"{key}:{text.replace('%', '%25').replace(';', '%3B')}" for key, text in marks.items())
        self.said = {"attributes": ";".join(texts)} if marks else {}

    def add(self, tag: str, kind: str, number: int | str, references: str = "", **attributes: str) -> None:
        attributes |= {"references": references} if references else {}
        ElementTree.SubElement(self.root, tag, id=_id(kind, number), **attributes)

    def add_sequence(self, number: int, content: str, stored: str, data_name: str) -> None:
        kind, name = f"{stored}SequenceStorage", f"{self._name} {content}"
        index = {"indexName": "time" if self._unit else "frame", "indexUnit": self._unit, "indexType": "numeric"}
        self.add("Sequence", "Sequence", number, f"storage:{_id(kind, number)};", name=name, **index, **self.said)
        self.add(kind, kind, number, fileName=f"Data/{data_name}")

    def add_volume(self, number: int, content: str, data_name: str, references: str = "") -> None:
        display, storage = "ScalarVolumeDisplay", "VolumeArchetypeStorage"
        references += f"display:{_id(display, number)};storage:{_id(storage, number)};"
        self.add("Volume", "ScalarVolume", number, references, name=f"{self._name} {content}", **self.said)
        self.add(storage, storage, number, fileName=f"Data/{data_name}")
        look = {"window": "255", "level": "127.5", "autoWindowLevel": "0", "colorNodeID": "vtkMRMLColorTableNodeGrey"}
        self.add("VolumeDisplay", display, number, **look)

    def add_browser(self, played: list[str], rate_hz: float) -> None:
        """Play sequence number i in the node number i of the kind `played[i]`."""
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
    """ID of a node. Slicer gives numbers alone, and a browser added to a scene would take the nodes that have them."""
    return f"vtkMRML{kind}Node{number}" if isinstance(number, str) else f"vtkMRML{kind}NodeDualTrack{number}"
