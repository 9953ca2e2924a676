"""Sequence metafiles that are written: read back by us, by SimpleITK and by Slicer."""

import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_files import PROBES, config, metafile, pixels, pose, text, world_from_pixel
from shared_files import shared_path

from DualTrackCore import Sweep, Trajectory, load_sweep, save_sweep
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.trajectory import RAS_FROM_LPS, matrices_from_parameters


def example_sweep(count=5, skew_deg=0.0, spacing_mm=(0.2, 0.1), reference=None, seed=0, valid=None):
    rng = np.random.default_rng(seed)
    poses = matrices_from_parameters(rng.uniform(-30, 30, (count, 6)))
    return Sweep(
        rng.integers(0, 256, (count, 6, 7), dtype=np.uint8),
        spacing_mm,
        100 + np.cumsum(rng.uniform(0.01, 0.1, count)),
        rng.random(count) < 0.8,
        Trajectory(poses, valid, reference) if spacing_mm else None,
        skew_deg,
    )


def assert_same_sweep(one, other):
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.timestamps_s, other.timestamps_s)
    np.testing.assert_array_equal(one.frame_valid, other.frame_valid)
    assert one.spacing_mm == other.spacing_mm
    assert one.skew_deg == other.skew_deg
    assert (one.tracked is None) == (other.tracked is None)
    if one.tracked is not None:
        np.testing.assert_array_equal(one.tracked.valid, other.tracked.valid)
        good = one.tracked.valid
        np.testing.assert_allclose(world_from_pixel(one)[good], world_from_pixel(other)[good], rtol=0, atol=1e-11)


@settings(max_examples=25)
@given(
    count=st.integers(1, 6),
    skew=st.floats(-5, 5),
    spacing=st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)),
    placed=st.booleans(),
    form=st.sampled_from(["a.igs.mha", "a.igs.nrrd", "a.seq.nrrd"]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_whatever_is_written_is_read_back_the_same(tmp_path_factory, count, skew, spacing, placed, form, seed, data):
    path = tmp_path_factory.mktemp("trip") / form
    valid = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    reference = pose(100, 200, -300, 10, 20, 30) if placed else None
    sweep = example_sweep(count, skew, spacing, reference, seed, valid)
    save_sweep(sweep, path)
    assert_same_sweep(load_sweep(path), sweep)


@pytest.mark.parametrize("form", ["a.igs.mha", "a.igs.nrrd", "a.seq.nrrd"])
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.1, 0.3)])
def test_a_sweep_without_tracking_is_read_back_the_same(tmp_path, form, spacing):
    sweep = Sweep(pixels(3, 4, 5), spacing)
    save_sweep(sweep, tmp_path / form)
    again = load_sweep(tmp_path / form)
    assert again.spacing_mm == spacing
    assert again.tracked is None
    assert again.timestamps_s is None
    np.testing.assert_array_equal(again.frames, sweep.frames)


@pytest.mark.parametrize("form", ["spine.igs.mha", "spine.igs.nrrd", "spine.seq.nrrd"])
def test_a_real_recording_survives_writing_with_its_skew(tmp_path, form):
    sweep = load_sweep(
        shared_path("data/seq/SpinePhantomFreehand.igs.mha"),
        calibration=config("SpinePhantomFreehandReconstructionOnly"),
    )
    save_sweep(sweep, tmp_path / form)
    assert_same_sweep(load_sweep(tmp_path / form), sweep)


def test_tracking_without_images_survives_writing(tmp_path):
    sweep = Sweep(np.zeros((3, 0, 0), np.uint8), (0.2, 0.2), tracked=Trajectory(np.array(PROBES)))
    save_sweep(sweep, tmp_path / "a.igs.mha")
    again = load_sweep(tmp_path / "a.igs.mha")
    assert again.frames.shape == (3, 0, 0)
    np.testing.assert_allclose(world_from_pixel(again), world_from_pixel(sweep), atol=1e-12)


def test_a_predicted_trajectory_goes_before_the_tracked_one(tmp_path):
    sweep = example_sweep(3)
    predicted = Trajectory(np.array([np.eye(4), pose(0, 0, 1), pose(0, 0, 2)]))
    save_sweep(sweep, tmp_path / "a.igs.mha", trajectory=predicted)
    again = load_sweep(tmp_path / "a.igs.mha")
    np.testing.assert_allclose(again.tracked.poses, predicted.poses, atol=1e-12)


def test_lines_are_short_enough_for_readers_with_a_limit(tmp_path):
    save_sweep(example_sweep(200), tmp_path / "a.igs.mha")
    header = (tmp_path / "a.igs.mha").read_bytes().split(b"ElementDataFile = LOCAL\n")[0]
    assert max(map(len, header.split(b"\n"))) < 999
    save_sweep(example_sweep(200), tmp_path / "a.seq.nrrd")
    lines = (tmp_path / "a.seq.nrrd").read_bytes().split(b"\n\n")[0].split(b"\n")
    assert lines[-1].startswith(b"axis 3 index values:=")
    assert max(map(len, lines[:-1])) < 999


def test_invalid_poses_repeat_the_last_good_one_for_readers_that_ignore_the_status(tmp_path):
    sweep = example_sweep(4, valid=[False, True, False, True])
    save_sweep(sweep, tmp_path / "a.igs.mha")
    lines = (tmp_path / "a.igs.mha").read_bytes().split(b"\n")
    matrices = [line.split(b" = ")[1] for line in lines if b"ReferenceTransform =" in line]
    assert matrices[0] == matrices[1] == matrices[2] != matrices[3]


def test_simpleitk_reads_what_is_written(tmp_path):
    import SimpleITK as sitk

    sweep = example_sweep(4)
    save_sweep(sweep, tmp_path / "a.igs.mha")
    image = sitk.ReadImage(str(tmp_path / "a.igs.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sweep.frames)
    assert image.GetSpacing() == (1.0, 1.0, 1.0)
    written = np.array(image.GetMetaData("Seq_Frame0002_ImageToReferenceTransform").split(), float).reshape(4, 4)
    np.testing.assert_array_equal(written, RAS_FROM_LPS @ sweep.tracked.poses[2] @ sweep.image_from_pixel)
    assert image.GetMetaData("Seq_Frame0002_ImageToReferenceTransformStatus") == "OK"


def test_slicer_reads_the_poses_that_are_written(tmp_path):
    slicer = pytest.importorskip("slicer")
    sweep = example_sweep(4)
    save_sweep(sweep, tmp_path / "a.igs.mha")
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    storage = slicer.vtkMRMLLinearTransformSequenceStorageNode()
    storage.SetFileName(str(tmp_path / "a.igs.mha"))
    assert storage.ReadData(node)
    assert node.GetNumberOfDataNodes() == 4
    matrix = node.GetNthDataNode(3).GetMatrixTransformToParent()
    read = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
    np.testing.assert_allclose(read, RAS_FROM_LPS @ sweep.tracked.poses[3] @ sweep.image_from_pixel, atol=1e-5)


@pytest.mark.parametrize("first", [np.eye(4), pose(100, 200, -300, 10, 20, 30)], ids=["frame0", "tracker"])
def test_files_of_version_1_give_the_poses_that_they_gave_and_their_world_in_ras(tmp_path, first):
    sweep = example_sweep(3)
    world = first @ np.linalg.inv(sweep.tracked.poses[0]) @ sweep.tracked.poses
    world[0] = first
    matrices = map(text, world @ sweep.image_from_pixel)
    fields = [(f"Seq_Frame{i:04d}_ImageToReferenceTransform", matrix) for i, matrix in enumerate(matrices)]
    own = {"ElementSpacing": "0.2 0.1 1", "DualTrackSpacingMm": "0.2 0.1", "DualTrackSkewDeg": "0"}
    old = load_sweep(metafile(tmp_path / "old.igs.mha", sweep.frames, fields, DimSize="7 6 3", **own))
    assert old.spacing_mm == (0.2, 0.1)
    np.testing.assert_allclose(old.tracked.poses, np.linalg.inv(first) @ world, atol=1e-12)
    # Without a tracker the numbers were those of frame0, which is LPS.
    expected = RAS_FROM_LPS if np.array_equal(first, np.eye(4)) else first
    np.testing.assert_allclose(old.tracked.reference_from_frame0, expected, atol=1e-12)
    save_sweep(old, tmp_path / "new.igs.mha")
    new = load_sweep(tmp_path / "new.igs.mha")
    np.testing.assert_allclose(new.tracked.poses, old.tracked.poses, atol=1e-12)
    np.testing.assert_allclose(new.tracked.reference_from_frame0, old.tracked.reference_from_frame0, atol=1e-12)


def test_half_a_turn_of_the_world_changes_no_bit_of_the_poses_that_are_read(tmp_path):
    sweep = example_sweep(5)
    for name, turned in (("lps", np.eye(4)), ("ras", RAS_FROM_LPS)):
        matrices = turned @ sweep.tracked.poses @ sweep.image_from_pixel
        fields = [(f"Seq_Frame{i:04d}_ImageToReferenceTransform", text(matrices[i])) for i in range(5)]
        metafile(tmp_path / name, sweep.frames, fields, DimSize="7 6 5", DualTrackSpacingMm="0.2 0.1")
    one, other = load_sweep(tmp_path / "lps"), load_sweep(tmp_path / "ras")
    np.testing.assert_array_equal(one.tracked.poses, other.tracked.poses)


@pytest.mark.parametrize("form", ["a.igs.mha", "a.seq.nrrd"])
@pytest.mark.parametrize(("placed", "whose"), [(False, b"frame 0"), (True, b"the tracker's reference")])
def test_the_header_says_that_its_directions_are_not_those_of_the_patient(tmp_path, form, placed, whose):
    save_sweep(example_sweep(2, reference=pose(1, 2, 3, 4, 5, 6) if placed else None), tmp_path / form)
    assert b"superior are those of " + whose + b", not of the patient\n" in (tmp_path / form).read_bytes()


@pytest.mark.parametrize("form", ["a.igs.mha", "a.seq.nrrd"])
def test_a_file_of_a_later_version_is_refused_with_the_remedy(tmp_path, form):
    save_sweep(example_sweep(2), tmp_path / form)
    written = (tmp_path / form).read_bytes()
    assert written.count(b"DualTrackFormatVersion") == 1
    (tmp_path / form).write_bytes(re.sub(rb"(DualTrackFormatVersion\W+)2", rb"\g<1>3", written))
    with pytest.raises(InputError, match=rf"{form} is of version 3 of DualTrack's format; .* Update DualTrack"):
        load_sweep(tmp_path / form)


@pytest.mark.parametrize(
    ("form", "spacing"), [("a.igs.mha", (1, 1)), ("a.igs.nrrd", (1, 1)), ("a.seq.nrrd", (0.2, 0.1))]
)
def test_files_for_plus_hold_pixels_and_files_for_slicer_millimetres(tmp_path, form, spacing):
    import SimpleITK as sitk

    save_sweep(example_sweep(2), tmp_path / form)
    assert sitk.ReadImage(str(tmp_path / form)).GetSpacing()[:2] == pytest.approx(spacing)


def test_poses_without_a_spacing_are_refused_and_leave_no_file(tmp_path):
    sweep = Sweep(pixels(3, 4, 5))
    with pytest.raises(InputError, match="spacing"):
        save_sweep(sweep, tmp_path / "a.igs.mha", trajectory=Trajectory(np.array(PROBES)))
    assert os.listdir(tmp_path) == []


def test_cancelling_leaves_what_stood_there_before(tmp_path):
    path = tmp_path / "a.igs.mha"
    path.write_bytes(b"before")
    reports = []
    with pytest.raises(Cancelled):
        save_sweep(example_sweep(40), path, progress=reports.append, cancelled=lambda: len(reports) >= 1)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.igs.mha"]
    assert reports[0].total == 40
