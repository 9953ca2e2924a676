"""Calibrations as other programs save them, and the device that they are of."""

import numpy as np
import pytest
import SimpleITK as sitk
from sequence_files import PROBES, metafile, pixels, pose, text, world_from_pixel

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep, read_calibration

MATRIX = pose(10, -5, 3, 20, 30, 40) @ np.diag([0.08, 0.07, 0.075, 1.0])
OTHER = pose(1, 2, 3, 4, 5, 6) @ np.diag([0.2, 0.2, 0.2, 1.0])
FLIP = np.diag([-1.0, -1, 1, 1])


def plus(tmp_path, *transforms):
    """A PLUS configuration with (from, to, matrix)."""
    lines = [f'<Transform From="{a}" To="{b}" Matrix="{text(m)}"/>' for a, b, m in transforms]
    path = tmp_path / "cal.xml"
    path.write_text("<PlusConfiguration>" + "".join(lines) + "</PlusConfiguration>", encoding="utf-8")
    return path


def recording(tmp_path, *devices):
    """A tracked recording whose poses are those of each of the devices; later ones stand still."""
    fields = []
    for number, device in enumerate(devices):
        name = f"{device}ToTrackerTransform"
        for i, probe in enumerate(PROBES):
            fields.append((f"Seq_Frame{i:04d}_{name}", text(probe if number == 0 else np.eye(4))))
            fields.append((f"Seq_Frame{i:04d}_{name}Status", "OK"))
    return metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields)


def assert_follows(sweep, matrix=MATRIX):
    np.testing.assert_allclose(world_from_pixel(sweep), (np.array(PROBES) @ matrix)[..., (0, 1, 3)], atol=1e-9)


@pytest.mark.parametrize("suffix", ["tfm", "h5", "txt"])
@pytest.mark.parametrize("inverse", [False, True], ids=["the map itself", "inverse, as Slicer writes it"])
def test_an_itk_transform_is_read_in_ras_numbers_whichever_way_it_was_saved(tmp_path, suffix, inverse):
    lps = FLIP @ (np.linalg.inv(MATRIX) if inverse else MATRIX) @ FLIP
    transform = sitk.AffineTransform(3)
    transform.SetCenter((3, 4, 5))  # part of the map, not of the matrix
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation((lps[:3, :3] @ [3, 4, 5] - [3, 4, 5] + lps[:3, 3]).tolist())
    sitk.WriteTransform(transform, str(tmp_path / f"ImageToProbe.{suffix}"))
    np.testing.assert_allclose(read_calibration(tmp_path / f"ImageToProbe.{suffix}"), MATRIX, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: sitk.WriteTransform(sitk.Transform(2, sitk.sitkAffine), str(path)), "no 4x4 matrix"),
        (lambda path: path.write_text("#Insight Transform File V1.0\nTransform: Nonsense"), "cannot be read"),
        (lambda path: path.write_bytes(b"#Insight Transform File V1.0\nTransform: Non\xffsense"), "cannot be read"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "cannot be read"),
    ],
    ids=["of pictures", "damaged text", "damaged name", "damaged HDF5"],
)
def test_other_itk_files_are_refused_by_a_sentence(tmp_path, make, said):
    path = tmp_path / "a.tfm"
    make(path)
    with pytest.raises(InputError, match=said) as caught:
        read_calibration(path)
    assert "a.tfm" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("device", ["Probe", "Transducer", "UsProbe_1", "StylusTip"])
def test_a_configuration_is_used_whatever_its_device_is_called(tmp_path, device):
    others = ("Image", "TransducerOriginPixel", OTHER), ("Tip", "Needle", OTHER)
    path = plus(tmp_path, ("Image", device, MATRIX), *others)
    sweep = load_sweep(recording(tmp_path, device, "Needle"), calibration=path)
    assert_follows(sweep)
    assert sweep.provenance["tracking"] == f"Tracked: Image to {device} to Tracker."


def test_an_image_of_another_name_is_found_and_two_are_named(tmp_path):
    np.testing.assert_array_equal(read_calibration(plus(tmp_path, ("Video", "Probe", MATRIX))), MATRIX)
    with pytest.raises(InputError, match="LeftImage and RightImage"):
        read_calibration(plus(tmp_path, ("LeftImage", "Probe", MATRIX), ("RightImage", "Probe", OTHER)))


def test_the_one_calibrated_device_that_is_tracked_is_taken(tmp_path):
    path = plus(tmp_path, ("Image", "Transducer", OTHER), ("Image", "UsProbe", MATRIX))
    assert_follows(load_sweep(recording(tmp_path, "UsProbe"), calibration=path))


def test_of_several_tracked_devices_the_option_chooses(tmp_path, capsys):
    path = plus(tmp_path, ("Image", "Left", OTHER), ("Image", "Right", MATRIX))
    for clip in (recording(tmp_path, "Right", "Left"), recording(tmp_path)):
        with pytest.raises(InputError, match=r"Left and Right.*probe='Left'"):
            load_sweep(clip, calibration=path)
    with pytest.raises(InputError, match=r"cal.xml holds calibrations of Left and Right"):
        load_sweep(recording(tmp_path, "Right", "Left"), calibration=path, probe="Middle")
    clip = recording(tmp_path, "Right", "Left")
    sweep = load_sweep(clip, calibration=path, probe="Right")
    assert_follows(sweep)
    assert sweep.provenance["calibration"] == "cal.xml (Right)"
    assert main(["info", str(clip), "--calibration", str(path), "--probe", "Right"]) == 0
    assert "3 of 3 frames" in capsys.readouterr().out
    assert main(["info", str(clip), "--probe", "Right"]) == 2
    assert "give the calibration too" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["xml", "text", "array"])
def test_the_option_says_which_device_of_the_recording_a_calibration_is_of(tmp_path, form):
    calibration = {"xml": plus(tmp_path, ("Image", "Probe", MATRIX)), "text": tmp_path / "cal.txt", "array": MATRIX}
    calibration["text"].write_text(text(MATRIX))
    clip = recording(tmp_path, "Probe_1", "Needle")
    sweep = load_sweep(clip, calibration=calibration[form])
    assert sweep.tracked is None
    assert "NeedleToTracker, Probe_1ToTracker" in sweep.provenance["tracking"]
    assert "name that one" in sweep.provenance["tracking"]
    assert_follows(load_sweep(clip, calibration=calibration[form], probe="Probe_1"))
