"""Files by drag and drop, and the sample: every format that is read is offered, and Slicer's own readers come first."""

import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
from oracle import noise_sweep
from PIL import Image

from DualTrackCore import save_sweep
from DualTrackCore.trajectory import Trajectory

PAGE = Path(__file__).resolve().parents[2] / "Docs" / "files.md"
#: What Slicer's own readers and that of SlicerIGSIO open by the ends of names, as their sources list them.
VOLUMES = "hdr nhdr nrrd mhd mha vti nii nii.gz mgh mgz mgh.gz img img.gz pic dcm ima png tif tiff jpg jpeg bmp"
SEQUENCES, TRANSFORMS = "seq.mrb mrb seq.nrrd seq.nhdr nrrd nhdr", "seq.mha tfm h5 mat txt"
SEQUENCE_METAFILES = "igs.mha igs.mhd igs.nrrd igs.nhdr"


def confidence_of_others(name, ends):
    """By the rule of Slicer's base class: 0.5, and 0.01 for each character of the longest end that fits."""
    return max((0.51 + 0.01 * len(end) for end in ends.split() if name.endswith(f".{end}")), default=0.5)


@pytest.fixture
def reader(host):
    return host.reader()[0]


def confidence(reader, folder, name):
    path = folder / name
    path.write_bytes(b"content")
    found = reader.canLoadFileConfidence(str(path))
    assert type(found) is float  # Slicer takes anything else for 0
    return found


@pytest.mark.parametrize("end", f"{VOLUMES} {SEQUENCES} {TRANSFORMS}".split())
def test_what_slicer_opens_itself_is_opened_by_slicer(reader, tmp_path, end):
    others = f"{VOLUMES} {SEQUENCES} {TRANSFORMS}"
    assert confidence(reader, tmp_path, f"a clip.{end}") < confidence_of_others(f"a clip.{end}", others)


@pytest.mark.parametrize("end", SEQUENCE_METAFILES.split())
def test_a_tracked_sequence_is_no_block_of_voxels_and_left_to_slicerigsio_where_it_is_there(reader, tmp_path, end):
    name = f"Sweep.{end}".upper()
    found = confidence(reader, tmp_path, name)
    assert found > confidence_of_others(name.lower(), f"{VOLUMES} {SEQUENCES}")
    assert found < confidence_of_others(name.lower(), SEQUENCE_METAFILES)


def read_formats():
    """The ends of names in the table of what is read."""
    table = PAGE.read_text(encoding="utf-8").partition("## What it reads")[2].partition("The content decides")[0]
    video = re.search(r"video: ([^|]*)\|", table)[1]
    ends = {word.strip() for word in video.split(",") if re.fullmatch(r"\s*[a-z0-9]+\s*", word)}
    return sorted(ends | set(re.findall(r"`\.([a-z.]+)`", table)) | {"h5", "dcm", "png", "jpg", "tiff", "bmp"})


def test_every_format_that_is_read_is_offered(reader, tmp_path):
    ends = read_formats()
    assert {"igs.mha", "seq.nrrd", "mp4", "y4m", "npy", "nii.gz"} <= set(ends)
    for end in ends:
        if end != "h5":  # looked into
            assert confidence(reader, tmp_path, f"clip.{end}") > 0, end
    assert confidence(reader, tmp_path, "clip.mp4") > confidence_of_others("clip.mp4", VOLUMES)
    for end in ("txt", "pdf", "stl", "mha.txt"):
        assert confidence(reader, tmp_path, f"clip.{end}") == 0
    assert reader.canLoadFileConfidence(str(tmp_path / "nothing.h5")) == 0


def test_h5_files_are_looked_into(reader, tmp_path):
    import h5py

    text, other, sweep = tmp_path / "notes.h5", tmp_path / "transform.h5", tmp_path / "scan.h5"
    text.write_text("no HDF5 at all")
    with h5py.File(other, "w") as file:
        file["TransformGroup"] = [1, 2]
    save_sweep(noise_sweep(6, 20, 30), sweep)
    found = [reader.canLoadFileConfidence(str(path)) for path in (text, other, sweep)]
    slicers = confidence_of_others("a.h5", TRANSFORMS)
    assert found[0] == 0
    assert 0 < found[1] < slicers < found[2]
    assert not reader.load({"fileName": str(other)})
    assert "is a transform file of Slicer or ITK" in reader.parent.userMessages().texts[0]


@pytest.mark.parametrize("name", ["scan.h5", "scan.igs.mha", "scan.seq.nrrd", "scan.npy", "scan.tif"])
def test_a_file_that_is_dropped_becomes_a_clip_with_its_frames(reader, tmp_path, name):
    poses = Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (5, 1)), origin="measured")
    sweep, path = noise_sweep(6, 20, 30, tracked=poses), tmp_path / name
    sweep = replace(sweep, provenance={"scanner": {"device": "Maker One", "depth_mm": 40.0}})
    frames = sweep.window(0, 6)
    if name.endswith("npy"):
        np.save(path, frames)
    elif name.endswith("tif"):
        first, *others = map(Image.fromarray, frames)
        first.save(path, save_all=True, append_images=others)
    else:
        save_sweep(sweep, path)
    assert reader.canLoadFileConfidence(str(path)) > 0
    assert reader.load({"fileName": str(path)}), reader.parent.userMessages().texts
    sequence, browser = map(slicer.mrmlScene.GetNodeByID, reader.parent.loadedNodes)
    assert browser.GetMasterSequenceNode() is sequence
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(sequence.GetNthDataNode(3))[0], frames[3])
    is_tracked = browser.GetNumberOfSynchronizedSequenceNodes(True) == 2
    assert is_tracked == (not name.endswith(("npy", "tif")))
    if is_tracked:
        np.testing.assert_allclose(sequence.GetNthDataNode(3).GetSpacing()[:2], sweep.spacing_mm)
        assert (sequence.GetAttribute("DeviceName"), sequence.GetAttribute("DepthMm")) == ("Maker One", "40.0")


def test_sample_data_opens_the_sample_by_name_without_a_network(host, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    slicer.app.complete_startup()
    images = host.download_sample("DualTrackSample")
    assert images.IsA("vtkMRMLSequenceNode")
    assert images.GetNumberOfDataNodes() == 168
    assert images.GetName() == "DualTrackSample"
    (sample,) = host.samples
    (browser,) = sample.customDownloader(sample)
    assert browser.GetMasterSequenceNode() is images  # the button takes what is there already
