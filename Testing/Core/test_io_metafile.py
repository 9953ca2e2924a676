"""MetaImage sequence metafiles: every variant that recordings come in, and what is written back."""

import numpy as np
import pytest
from sequence_files import PROBES, config, metafile, pixels, pose, text, world_from_pixel
from shared_files import shared_path

from DualTrackCore import load_sweep
from DualTrackCore.errors import InputError

CALIBRATION = pose(10, -5, 3, 20, 30, 40) @ np.diag([0.08, 0.07, 0.075, 1.0])

SPINE_CALIBRATION = (
    "-0.00157821 0.0785919 -0.00803285 15.3978 -0.0839128 0.00372697 0.0153803 49.5705 "
    "0.0159024 0.00714276 0.0803604 -8.63446 0 0 0 1"
)

#: Name, frames, rows, columns of every recording beside the checkout.
RECORDINGS = [
    ("SpinePhantomFreehand.igs.mha", 21, 616, 820),
    ("NwirePhantomFreehand.igs.mha", 97, 616, 820),
    ("NwirePhantomFreehand.igs.nrrd", 97, 616, 820),
    ("NwirePhantomFreehandCropped.igs.mha", 20, 150, 200),
    ("NwirePhantomFreehandCropped_4D.seq.nrrd", 20, 150, 200),
    ("fCal_Test_Validation_3NWires_fCal2.0.igs.mha", 103, 616, 820),
    ("SlidingProbeTrackingData.igs.mha", 85, 0, 0),
    ("Prostate10_tracker.igs.mha", 10, 0, 0),
    ("TransformInterpolationTest.igs.mha", 500, 0, 0),
    ("ColorNrrdSample.igs.nrrd", 1, 648, 1152),
    ("BkCurvilinearScanConvertedData.igs.mha", 1, 400, 600),
]

#: Recording, its configuration, length of its path in mm as an independent reader found it.
TRACKED = [
    ("SpinePhantomFreehand", "SpinePhantomFreehandReconstructionOnly", 33.6),
    ("NwirePhantomFreehand", "NwirePhantomFreehand_vtkVolumeReconstructorTest2", 61.4),
    ("fCal_Test_Validation_3NWires_fCal2.0", "fCal_Sim_VolumeReconstruction", 48.2),
]


def tracked_fields(probe_poses, reference_poses=None, status="OK"):
    fields = []
    for i, probe in enumerate(probe_poses):
        fields.append((f"Seq_Frame{i:04d}_ProbeToTrackerTransform", text(probe) + " "))
        fields.append((f"Seq_Frame{i:04d}_ProbeToTrackerTransformStatus", f"{status} "))
        if reference_poses is not None:
            fields.append((f"Seq_Frame{i:04d}_ReferenceToTrackerTransform", text(reference_poses[i])))
        fields.append((f"Seq_Frame{i:04d}_Timestamp", f"{10 + i / 8}"))
    return fields


REFERENCES = [pose(-9, 8, 7, 50, -20, 10), pose(-9, 8, 7.1, 50, -20, 10), pose(-9, 8, 7, 51, -20, 10)]


@pytest.mark.parametrize(("name", "count", "rows", "columns"), RECORDINGS)
def test_every_reference_recording_is_read_with_its_size(name, count, rows, columns):
    sweep = load_sweep(shared_path(f"data/seq/{name}"))
    assert sweep.frames.shape == (count, rows, columns)
    assert sweep.spacing_mm is None
    assert sweep.provenance["source"] == name
    assert sweep.provenance["spacing_source"] == "unknown"
    assert not sweep.has_images or sweep.window(0, count).std() > 5


@pytest.mark.parametrize(("name", "configuration", "path_mm"), TRACKED)
def test_poses_agree_with_those_of_an_independent_reader(name, configuration, path_mm):
    sweep = load_sweep(shared_path(f"data/seq/{name}.igs.mha"), calibration=config(configuration))
    table = shared_path(f"data/poses/{name}_ImageToReference.csv")
    numbers = np.loadtxt(table, delimiter=",", skiprows=1, usecols=[1, *range(3, 19)])
    expected = numbers[:, 1:].reshape(-1, 4, 4)[..., (0, 1, 3)]
    # The table has nine digits, so half a unit of the ninth is all that may differ.
    np.testing.assert_allclose(world_from_pixel(sweep), expected, rtol=5.1e-9, atol=1e-15)
    np.testing.assert_array_equal(sweep.timestamps_s, numbers[:, 0])
    assert sweep.tracked.valid.all()
    assert sweep.tracked.path_length_mm == pytest.approx(path_mm, abs=0.05)


def test_poses_equal_the_product_of_the_matrices_in_the_file():
    path = shared_path("data/seq/SpinePhantomFreehand.igs.mha")
    sweep = load_sweep(path, calibration=config("SpinePhantomFreehandReconstructionOnly"))
    fields = dict(line.split(b" = ", 1) for line in path.read_bytes()[:60000].split(b"\n") if b" = " in line)
    calibration = np.array(SPINE_CALIBRATION.split(), float).reshape(4, 4)
    for frame in (0, 7, 20):
        probe, reference = (
            np.array(fields[b"Seq_Frame%04d_%sToTrackerTransform" % (frame, name)].split(), float).reshape(4, 4)
            for name in (b"Probe", b"Reference")
        )
        expected = np.linalg.solve(reference, probe @ calibration)[:, (0, 1, 3)]
        np.testing.assert_allclose(world_from_pixel(sweep)[frame], expected, rtol=1e-9, atol=1e-12)
    assert sweep.skew_deg == pytest.approx(-2.745, abs=1e-3)
    assert sweep.spacing_mm == pytest.approx((0.0854, 0.0790), abs=5e-5)


def test_a_cropped_recording_lies_where_its_part_of_the_whole_one_lies():
    configuration = config("NwirePhantomFreehand_vtkVolumeReconstructorTest2")
    whole = load_sweep(shared_path("data/seq/NwirePhantomFreehand.igs.mha"), calibration=configuration)
    for name in ("NwirePhantomFreehandCropped.igs.mha", "NwirePhantomFreehandCropped_4D.seq.nrrd"):
        part = load_sweep(shared_path(f"data/seq/{name}"), calibration=configuration)
        np.testing.assert_array_equal(part.frames, whole.frames[:20, 285:435, 335:535])
        offset = np.array([[1, 0, 335], [0, 1, 285], [0, 0, 1]])
        np.testing.assert_allclose(world_from_pixel(part), world_from_pixel(whole)[:20] @ offset, atol=1e-9)


def test_the_two_forms_of_one_recording_are_equal():
    configuration = config("NwirePhantomFreehand_vtkVolumeReconstructorTest2")
    one, other = (
        load_sweep(shared_path(f"data/seq/NwirePhantomFreehand.igs.{form}"), calibration=configuration)
        for form in ("mha", "nrrd")
    )
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.tracked.poses, other.tracked.poses)
    np.testing.assert_array_equal(one.timestamps_s, other.timestamps_s)


def test_a_tracking_only_recording_keeps_its_poses_and_its_invalid_frame():
    sweep = load_sweep(
        shared_path("data/seq/TransformInterpolationTest.igs.mha"),
        calibration=config("NwirePhantomFreehand_vtkVolumeReconstructorTest2"),
    )
    assert not sweep.has_images
    assert np.flatnonzero(~sweep.tracked.valid).tolist() == [7]


def test_the_reference_is_the_tracker_where_no_reference_was_tracked(tmp_path):
    path = metafile(tmp_path / "a.mha", pixels(3, 4, 5), tracked_fields(PROBES))
    sweep = load_sweep(path, calibration=CALIBRATION)
    np.testing.assert_allclose(world_from_pixel(sweep), (np.array(PROBES) @ CALIBRATION)[..., (0, 1, 3)], atol=1e-12)
    np.testing.assert_array_equal(sweep.timestamps_s, [10, 10.125, 10.25])


def test_poses_are_relative_to_the_reference_where_it_was_tracked(tmp_path):
    path = metafile(tmp_path / "a.mha", pixels(3, 4, 5), tracked_fields(PROBES, REFERENCES))
    sweep = load_sweep(path, calibration=CALIBRATION)
    expected = np.linalg.inv(REFERENCES) @ PROBES @ CALIBRATION
    np.testing.assert_allclose(world_from_pixel(sweep), expected[..., (0, 1, 3)], atol=1e-12)


@pytest.mark.parametrize("name", ["ProbeToReference", "ImageToReference", "ImageToTracker", "ImageToWorld"])
def test_direct_transforms_are_used(tmp_path, name):
    matrices = [p if name.startswith("Probe") else p @ CALIBRATION for p in PROBES]
    fields = [(f"Seq_Frame{i:04d}_{name}Transform", text(m)) for i, m in enumerate(matrices)]
    calibration = CALIBRATION if name.startswith("Probe") else None
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields), calibration=calibration)
    np.testing.assert_allclose(world_from_pixel(sweep), (np.array(PROBES) @ CALIBRATION)[..., (0, 1, 3)], atol=1e-12)
    assert sweep.spacing_mm == pytest.approx((0.08, 0.07), rel=1e-12)
    assert sweep.provenance["spacing_source"] == ("calibration" if name.startswith("Probe") else "file")


def test_a_calibration_inside_the_file_counts(tmp_path):
    fields = tracked_fields(PROBES)
    fields += [(f"Seq_Frame{i:04d}_ImageToProbeTransform", text(CALIBRATION)) for i in range(3)]
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields))
    np.testing.assert_allclose(world_from_pixel(sweep), (np.array(PROBES) @ CALIBRATION)[..., (0, 1, 3)], atol=1e-12)
    assert sweep.provenance["spacing_source"] == "file"


def test_without_a_calibration_there_is_no_tracking_and_the_report_says_what_is_missing(tmp_path):
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), tracked_fields(PROBES)))
    assert sweep.tracked is None
    assert "ProbeToTracker" in sweep.provenance["tracking"]
    assert "calibration" in sweep.provenance["tracking"]


def test_poses_with_another_status_than_ok_and_missing_poses_are_kept_as_invalid(tmp_path):
    fields = tracked_fields(PROBES, REFERENCES)
    fields = [f for f in fields if not f[0].startswith("Seq_Frame0002")]
    fields.append(("Seq_Frame0001_ReferenceToTrackerTransformStatus", "OUT_OF_VIEW"))
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields), calibration=CALIBRATION)
    assert sweep.tracked.valid.tolist() == [True, False, False]
    assert len(sweep) == 3
    assert any("no fields" in note for note in sweep.provenance["conversions"])


@pytest.mark.parametrize("bad", ["nan " * 16, "1 2 3", "words " * 16, text(np.diag([2.0, 2, 2, 1]))])
def test_one_unusable_pose_among_good_ones_is_marked_invalid(tmp_path, bad):
    fields = [*tracked_fields(PROBES), ("Seq_Frame0001_ProbeToTrackerTransform", bad)]
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields), calibration=CALIBRATION)
    assert sweep.tracked.valid.tolist() == [True, False, True]


def test_missing_times_are_filled_in_and_the_report_says_so(tmp_path):
    fields = [(f"Seq_Frame{i:04d}_Timestamp", str(i / 4)) for i in (0, 1, 3, 4)]
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(6, 4, 5), fields, DimSize="5 4 6"))
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(6) / 4)
    assert any("times of 2 of 6" in note for note in sweep.provenance["conversions"])


def test_an_invalid_image_status_marks_the_frame(tmp_path):
    fields = [("Seq_Frame0001_ImageStatus", "INVALID"), ("Seq_Frame0002_ImageStatus", "OK")]
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields))
    assert sweep.frame_valid.tolist() == [True, False, True]


def test_order_padding_line_ends_and_repeated_fields_do_not_matter(tmp_path):
    frames = pixels(3, 4, 5)

    def reversed_with_repeats(header, fields):
        return [header[0], *fields, ("DimSize", "1 1 1"), *header[:0:-1], ("DimSize", "5 4 3          ")]

    path = metafile(tmp_path / "a.mha", frames, tracked_fields(PROBES), order=reversed_with_repeats, end="  \r\n")
    sweep = load_sweep(path, calibration=CALIBRATION)
    np.testing.assert_array_equal(sweep.frames, frames)
    assert sweep.tracked.valid.all()


@pytest.mark.parametrize("compress", [False, True])
def test_frames_are_those_of_the_file(tmp_path, compress):
    frames = pixels(3, 4, 5)
    sweep = load_sweep(metafile(tmp_path / "a.dat", frames, compress=compress, drop=["Kinds"]))
    np.testing.assert_array_equal(sweep.frames, frames)


@pytest.mark.parametrize(
    ("code", "turn"),
    [
        ("MF", lambda f: f),
        ("MFA", lambda f: f),
        ("US_IMG_ORIENT_MF", lambda f: f),
        ("MN", lambda f: f[:, ::-1]),
        ("MND", lambda f: f[:, ::-1]),
        ("UF", lambda f: f[:, :, ::-1]),
        ("UFD", lambda f: f[:, :, ::-1]),
        ("UNA", lambda f: f[:, ::-1, ::-1]),
        ("FM", lambda f: f.swapaxes(1, 2)),
        ("NU", lambda f: f.swapaxes(1, 2)[:, ::-1, ::-1]),
    ],
)
def test_frames_are_turned_to_the_orientation_of_the_calibration(tmp_path, code, turn):
    frames = pixels(3, 4, 5)
    sweep = load_sweep(metafile(tmp_path / "a.mha", frames, UltrasoundImageOrientation=code))
    np.testing.assert_array_equal(sweep.frames, turn(frames))


@pytest.mark.parametrize("code", ["XX", "ZZ", "M", "MFQ", ""])
def test_an_unknown_orientation_leaves_frames_alone_and_is_reported(tmp_path, code):
    frames = pixels(3, 4, 5)
    sweep = load_sweep(metafile(tmp_path / "a.mha", frames, UltrasoundImageOrientation=code))
    np.testing.assert_array_equal(sweep.frames, frames)
    assert any("orientation" in note for note in sweep.provenance["conversions"])


def test_a_single_frame_of_two_dimensions_is_a_sweep_of_one(tmp_path):
    frames = pixels(1, 4, 5)
    path = metafile(tmp_path / "a.mha", frames, NDims="2", DimSize="5 4", Kinds="domain domain", ElementSpacing="1 1")
    np.testing.assert_array_equal(load_sweep(path).frames, frames)


@pytest.mark.parametrize("layout", ["channels", "vector"])
def test_colour_becomes_grey_by_luma(tmp_path, layout):
    frames = pixels(3, 4, 5, 3)
    change = (
        {"ElementNumberOfChannels": "3"}
        if layout == "channels"
        else {"NDims": "4", "DimSize": "3 5 4 3", "Kinds": "vector domain domain list"}
    )
    sweep = load_sweep(metafile(tmp_path / "a.mha", frames, **change))
    expected = np.rint(frames @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(sweep.frames - expected).max() <= 1
    assert (sweep.frames == expected).mean() > 0.95
    assert any("grey" in note for note in sweep.provenance["conversions"])


@pytest.mark.parametrize(("element", "dtype"), [("MET_SHORT", ">i2"), ("MET_USHORT", ">u2"), ("MET_FLOAT", ">f4")])
def test_deep_pixels_are_scaled_by_the_range_of_their_type_and_real_numbers_by_their_own(tmp_path, element, dtype):
    frames = np.linspace(100, 32000, 60).reshape(3, 4, 5).astype(dtype)
    sweep = load_sweep(metafile(tmp_path / "a.mha", frames, ElementType=element, BinaryDataByteOrderMSB="True"))
    low, high = {"MET_SHORT": (0, 32767), "MET_USHORT": (0, 65535), "MET_FLOAT": (100, 32000)}[element]
    np.testing.assert_array_equal(sweep.frames, np.rint((frames.astype(float) - low) / (high - low) * 255))
    assert any(f"values {low} to {high}" in note for note in sweep.provenance["conversions"])


@pytest.mark.parametrize("suffix", ["raw", "zraw"])
def test_pixels_in_a_second_file_are_read(tmp_path, suffix):
    import zlib

    frames = pixels(3, 4, 5)
    data = frames.tobytes()
    (tmp_path / f"a.{suffix}").write_bytes(zlib.compress(data) if suffix == "zraw" else data)
    path = metafile(
        tmp_path / "a.mhd", frames, end="\r\n", ElementDataFile=f"a.{suffix}", CompressedData=str(suffix == "zraw")
    )
    path.write_bytes(path.read_bytes().rstrip())
    np.testing.assert_array_equal(load_sweep(path).frames, frames)


@pytest.mark.parametrize("header_size", ["7", "-1"])
def test_a_header_in_the_second_file_is_skipped(tmp_path, header_size):
    frames = pixels(3, 4, 5)
    (tmp_path / "a.raw").write_bytes(b"skipped" + frames.tobytes())
    path = metafile(tmp_path / "a.mhd", frames, ElementDataFile="a.raw", HeaderSize=header_size)
    np.testing.assert_array_equal(load_sweep(path).frames, frames)


def test_a_calibration_of_another_recording_is_refused(tmp_path):
    fields = [(f"Seq_Frame{i:04d}_ImageToReferenceTransform", text(p @ CALIBRATION)) for i, p in enumerate(PROBES)]
    path = metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields)
    with pytest.raises(InputError, match="another recording"):
        load_sweep(path, calibration=CALIBRATION @ np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match="contradicts"):
        load_sweep(path, spacing_mm=0.2)


def test_a_plain_volume_is_read_as_a_stack_with_its_spacing(tmp_path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(pixels(3, 4, 5))
    image.SetSpacing((0.3, 0.2, 1.0))
    for name in ("a.mha", "a.mhd", "a.nrrd", "a.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name))
        sweep = load_sweep(tmp_path / name)
        np.testing.assert_array_equal(sweep.frames, pixels(3, 4, 5))
        assert sweep.spacing_mm == (0.3, 0.2)
        assert sweep.provenance["spacing_source"] == "file"
        assert load_sweep(tmp_path / name, spacing_mm=0.5).spacing_mm == (0.5, 0.5)


def test_a_given_spacing_must_agree_with_the_calibration(tmp_path):
    path = metafile(tmp_path / "a.mha", pixels(3, 4, 5), tracked_fields(PROBES))
    assert load_sweep(path, calibration=CALIBRATION, spacing_mm=(0.0804, 0.0699)).spacing_mm == pytest.approx(
        (0.08, 0.07)
    )
    with pytest.raises(InputError, match="contradicts"):
        load_sweep(path, calibration=CALIBRATION, spacing_mm=(0.08, 0.08))


def test_transforms_without_pictures_are_refused_by_their_names(tmp_path):
    fields = [(f"Seq_Frame{i:04d}_Probe_1ToReferenceTransform", text(np.eye(4))) for i in range(3)]
    with pytest.raises(InputError, match=r"transforms \(Probe_1ToReference\) and no pictures; choose the sequence"):
        load_sweep(metafile(tmp_path / "a.seq.mha", np.zeros(0), fields, DimSize="0 0 0"))


@pytest.mark.parametrize("data_file", ["LIST", "f%03d.raw 0 19 1"])
def test_frames_in_many_files_are_refused_with_the_remedy(tmp_path, data_file):
    path = metafile(tmp_path / "a.mhd", pixels(3, 4, 5), ElementDataFile=data_file)
    with pytest.raises(InputError, match=r"frames in many files.*as one \.mha"):
        load_sweep(path)
