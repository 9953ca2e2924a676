"""NRRD sequence metafiles: every variant that recordings come in, and what Slicer makes of the written ones."""

import gzip

import numpy as np
import pytest
from sequence_files import nrrd, pixels, pose, text

from DualTrackCore import Sweep, Trajectory, load_sweep, save_sweep
from DualTrackCore.errors import InputError


@pytest.mark.parametrize("compress", [False, True])
def test_frames_are_those_of_the_file(tmp_path, compress):
    sweep = load_sweep(nrrd(tmp_path / "a.dat", pixels(3, 4, 5), compress=compress))
    np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5))
    assert sweep.spacing_mm is None


def test_missing_kinds_mean_that_the_last_axis_is_time(tmp_path):
    sweep = load_sweep(nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5), drop=["kinds", "space directions"]))
    np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5))


@pytest.mark.parametrize(("sizes", "shape"), [("3 5 4 2", (2, 4, 5, 3)), ("3 4 1 2", (2, 4, 3))])
def test_without_kinds_a_first_axis_of_three_is_colour_unless_the_third_is_single(tmp_path, sizes, shape):
    changes = {"dimension": "4", "sizes": sizes}
    path = nrrd(tmp_path / "a.nrrd", pixels(*shape), drop=["kinds", "space directions"], **changes)
    assert load_sweep(path).frames.shape == shape[:3]


def test_a_list_axis_that_comes_first_is_moved(tmp_path):
    stored = np.moveaxis(pixels(3, 4, 5), 0, -1)
    changes = {"sizes": "3 5 4", "kinds": "list domain domain", "space_directions": "none (0.2,0) (0,0.1)"}
    sweep = load_sweep(nrrd(tmp_path / "a.nrrd", stored, **changes))
    np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5))
    assert sweep.spacing_mm == (0.2, 0.1)


def test_four_axes_with_times_as_index_are_read(tmp_path):
    changes = {
        "dimension": "4",
        "sizes": "5 4 1 3",
        "kinds": "domain domain domain list",
        "space_directions": "(0.2,0,0) (0,0.1,0) (0,0,1) none",
        "units": '"" "" "" "s"',
    }
    keys = [("axis 3 index type", "numeric"), ("axis 3 index values", "1.5 2.5 4")]
    sweep = load_sweep(nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5), keys, **changes))
    np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5))
    assert sweep.timestamps_s.tolist() == [1.5, 2.5, 4]
    assert sweep.spacing_mm == (0.2, 0.1)


@pytest.mark.parametrize("axis", [3, 4])
def test_a_sequence_in_colour_keeps_its_times_whichever_way_its_axes_are_counted(tmp_path, axis):
    changes = {
        "dimension": "5",
        "sizes": "3 5 4 1 3",
        "kinds": "vector domain domain domain list",
        "space_directions": "none (0.2,0,0) (0,0.1,0) (0,0,1) none",
        "units": '"" "" "" "" "s"',
    }
    path = nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5, 3), [(f"axis {axis} index values", "1.5 2.5 4")], **changes)
    assert load_sweep(path).timestamps_s.tolist() == [1.5, 2.5, 4]


def test_an_index_that_is_no_time_gives_no_times(tmp_path):
    changes = {"dimension": "4", "sizes": "5 4 1 3", "kinds": "domain domain domain list"}
    keys = [("axis 3 index values", "0 1 2")]
    path = nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5), keys, drop=["space directions"], **changes)
    assert load_sweep(path).timestamps_s is None


@pytest.mark.parametrize("count", [1, 3])
def test_colour_becomes_grey(tmp_path, count):
    frames = pixels(count, 4, 5, 3)
    changes = (
        {"dimension": "4", "sizes": f"3 5 4 {count}", "kinds": "vector domain domain list"}
        if count > 1
        else {"sizes": "3 5 4", "kinds": "vector domain domain"}
    )
    sweep = load_sweep(nrrd(tmp_path / "a.nrrd", frames, drop=["space directions"], **changes))
    assert np.abs(sweep.frames - frames @ np.array([0.299, 0.587, 0.114])).max() <= 0.5 + 1e-9


def test_keys_of_frames_and_images_are_used(tmp_path):
    calibration = pose(1, 2, 3, 10, 20, 30) @ np.diag([0.2, 0.1, 0.1, 1])
    keys = [("ultrasound image orientation", "MN"), ("ultrasound image type", "BRIGHTNESS")]
    for i in range(3):
        keys += [
            (f"Seq_Frame{i:04d}_ProbeToTrackerTransform", text(pose(0, 0, i))),
            (f"Seq_Frame{i:04d}_ProbeToTrackerTransformStatus", "INVALID" if i == 2 else "OK"),
            (f"Seq_Frame{i:04d}_Status", "INVALID" if i == 0 else "OK"),
            (f"Seq_Frame{i:04d}_Timestamp", f"{i / 10}"),
        ]
    sweep = load_sweep(nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5), keys), calibration=calibration)
    np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5)[:, ::-1])
    assert sweep.frame_valid.tolist() == [False, True, True]
    assert sweep.tracked.valid.tolist() == [True, True, False]
    world = sweep.tracked.reference_from_frame0 @ sweep.tracked.poses @ sweep.image_from_pixel
    np.testing.assert_allclose(world[1][:, (0, 1, 3)], (pose(0, 0, 1) @ calibration)[:, (0, 1, 3)], atol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_in_a_second_file_are_read_without_an_empty_line(tmp_path, packed):
    data = pixels(3, 4, 5).tobytes()
    (tmp_path / "a.raw").write_bytes(gzip.compress(data) if packed else data)
    header = nrrd(tmp_path / "a.nhdr", b"", data_file="a.raw", encoding="gzip" if packed else "raw").read_bytes()
    (tmp_path / "a.nhdr").write_bytes(header.split(b"\n\n")[0] + b"\n")
    np.testing.assert_array_equal(load_sweep(tmp_path / "a.nhdr").frames, pixels(3, 4, 5))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "hex"}, "encoding"),
        ({"type": "block"}, "type"),
        ({"sizes": "5 4"}, "dimension"),
        ({"dimension": "9" * 1000}, "dimension 99999"),
        ({"sizes": "5 -4 3"}, "whole numbers"),
        ({"sizes": "5 4 99"}, "cut short"),
        ({"data_file": "../a.raw"}, "same folder"),
        ({"data_file": "absent.raw"}, "does not exist"),
        ({"kinds": "list domain list"}, "axes"),
        ({"endian": "middle"}, "endian"),
        ({"line_skip": "2"}, "skip"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_with_the_reason(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        load_sweep(nrrd(tmp_path / "a.nrrd", pixels(3, 4, 5), **changes))
    assert "a.nrrd" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_volumes_over_time_are_refused(tmp_path):
    changes = {"dimension": "4", "sizes": "5 4 2 3", "kinds": "domain domain domain list"}
    with pytest.raises(InputError, match="5 domain, 4 domain, 2 domain, 3 list"):
        load_sweep(nrrd(tmp_path / "a.nrrd", pixels(3, 2, 4, 5), drop=["space directions"], **changes))


@pytest.mark.parametrize("timed", [True, False])
def test_slicer_reads_the_frames_that_are_written(tmp_path, timed):
    slicer = pytest.importorskip("slicer")
    from vtk.util.numpy_support import vtk_to_numpy

    times = np.array([10.0, 10.1, 10.25]) if timed else np.array([10.0, 10.0001, 10.2])
    frames = pixels(3, 4, 5)
    sweep = Sweep(frames, (0.2, 0.1), times, tracked=Trajectory(np.array([pose(0, 0, i) for i in range(3)])))
    save_sweep(sweep, tmp_path / "a.seq.nrrd")
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    storage = slicer.vtkMRMLVolumeSequenceStorageNode()
    storage.SetFileName(str(tmp_path / "a.seq.nrrd"))
    assert storage.ReadData(node)
    assert node.GetNumberOfDataNodes() == 3
    assert [node.GetNthIndexValue(i) for i in range(3)] == (["10", "10.1", "10.25"] if timed else ["0", "1", "2"])
    for i in range(3):
        volume = node.GetNthDataNode(i)
        assert volume.GetSpacing() == pytest.approx((0.2, 0.1, 1.0))
        values = vtk_to_numpy(volume.GetImageData().GetPointData().GetScalars())
        np.testing.assert_array_equal(values.reshape(4, 5), frames[i])
    kept = np.array(node.GetAttribute("Seq_Frame0002_PlacedImageToReferenceTransform").split(), float).reshape(4, 4)
    np.testing.assert_array_equal(kept, pose(0, 0, 2))


def test_simpleitk_reads_the_frames_that_are_written(tmp_path):
    import SimpleITK as sitk

    sweep = Sweep(pixels(3, 4, 5), (0.2, 0.1))
    save_sweep(sweep, tmp_path / "a.seq.nrrd")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.seq.nrrd")))
    np.testing.assert_array_equal(np.moveaxis(array, -1, 0).reshape(3, 4, 5), sweep.frames)


def test_tracking_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="without images"):
        save_sweep(Sweep(np.zeros((3, 0, 0), np.uint8)), tmp_path / "a.seq.nrrd")
