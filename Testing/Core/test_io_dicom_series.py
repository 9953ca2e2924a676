"""Folders and directories of DICOM objects; all files are made here."""

import os
import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import series_of_frames, speckle
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MediaStorageDirectoryStorage
from test_io_dicom import make, region

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.run.settings import RunSettings

FRAMES = speckle(5, 20, 30)
ONE = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 3, "SeriesDescription": "thyroid"}
TWO = {"SeriesInstanceUID": "1.2.4", "SeriesNumber": 1, "SeriesDescription": "carotid"}


def notes_of(sweep):
    return sweep.provenance["conversions"]


@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_single_frames_are_one_sweep_in_the_order_of_their_instance_numbers(tmp_path, suffix):
    order = [3, 0, 4, 1, 2]
    folder = series_of_frames(tmp_path / "a", FRAMES, order, suffix, regions=[region(5, 2, 24, 17)], **ONE)
    (folder / ".hidden").write_bytes(b"no frame")
    sweep = load_sweep(folder)
    np.testing.assert_array_equal(sweep.frames, FRAMES[:, 2:18, 5:25])
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))
    assert sweep.timestamps_s is None
    assert {os.path.basename(name) for name in sweep.files} == {"a", *(f"IM_{place:04d}{suffix}" for place in order)}


@pytest.mark.parametrize("numbers", [[None] * 5, [1] * 5])
def test_without_numbers_of_their_own_frames_come_in_the_order_of_their_names(tmp_path, numbers):
    folder = series_of_frames(tmp_path / "a", FRAMES, **ONE)
    for place, number in enumerate(numbers):
        path = folder / f"IM_{place:04d}"
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = number
        dataset.save_as(path.with_name(f"frame{2 * place}"))
        path.unlink()
    sweep = load_sweep(folder)
    np.testing.assert_array_equal(sweep.frames, FRAMES)
    assert any("in the order of their names" in note for note in notes_of(sweep))


def test_numbers_that_are_missing_between_frames_are_noted(tmp_path):
    folder = series_of_frames(tmp_path / "a", FRAMES, **ONE)
    (folder / "IM_0002").unlink()
    sweep = load_sweep(folder)
    assert len(sweep) == 4
    assert "Instance numbers that are missing between the first and the last: 1." in notes_of(sweep)


def test_the_same_object_twice_counts_once_and_what_is_no_picture_is_left_out(tmp_path):
    folder = series_of_frames(tmp_path / "a", FRAMES, **ONE)
    shutil.copy(folder / "IM_0002", folder / "copy")
    make(folder / "report", FRAMES[:1], PixelData=None, Rows=None)
    (folder / "broken").write_bytes((folder / "IM_0001").read_bytes()[:300])
    sweep = load_sweep(folder)
    np.testing.assert_array_equal(sweep.frames, FRAMES)
    assert "Left out 2 files without pictures that can be read, such as broken." in notes_of(sweep)


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("AcquisitionDateTime", "2026112912000{}.5", [0, 1, 2, 3, 4]),
        ("AcquisitionTime", "12000{}.25", [0, 1, 2, 3, 4]),
        ("ContentTime", "120000.0{}0", [0, 0.01, 0.02, 0.03, 0.04]),
    ],
)
def test_times_of_single_frames_are_those_of_their_acquisition(tmp_path, name, form, expected):
    folder = series_of_frames(tmp_path / "a", FRAMES, **ONE)
    for number in range(5):
        dataset = pydicom.dcmread(folder / f"IM_{number:04d}")
        setattr(dataset, name, form.format(number))
        dataset.save_as(folder / f"IM_{number:04d}")
    sweep = load_sweep(folder)
    np.testing.assert_allclose(sweep.timestamps_s, expected, atol=1e-9)
    assert sweep.provenance["rate_field"] == name


def test_times_that_stand_still_give_way_to_a_frame_time(tmp_path):
    folder = series_of_frames(tmp_path / "a", FRAMES, ContentTime="120000", FrameTime=50, **ONE)
    assert load_sweep(folder).frame_rate_hz == pytest.approx(20)


def test_frames_that_are_not_alike_are_refused_with_both_names(tmp_path):
    folder = series_of_frames(tmp_path / "a", FRAMES, regions=[region(0, 0, 29, 19)], **ONE)
    make(
        folder / "z", FRAMES[:1], NumberOfFrames=None, InstanceNumber=9, regions=[region(0, 0, 29, 19, dx=0.05)], **ONE
    )
    with pytest.raises(InputError, match=r"z has another region, pixel size or kind of pixels than IM_0000; all fr"):
        load_sweep(folder)


@pytest.fixture
def several(tmp_path):
    """A folder with two series of single frames and a clip."""
    folder = series_of_frames(tmp_path / "a", FRAMES, suffix=".1", **ONE)
    series_of_frames(folder, FRAMES[:, ::-1], suffix=".2", **TWO)
    make(folder / "clip.dcm", FRAMES[:3, 2:], InstanceNumber=7, **TWO)
    return folder


def test_several_series_are_listed_and_one_is_chosen(several):
    with pytest.raises(InputError) as caught:
        load_sweep(several)
    assert str(caught.value) == (
        "a holds 3 series (1: 5 frames of 30 x 20 pixels, carotid; 2: 3 frames of 30 x 18 pixels in clip.dcm, carotid; "
        "3: 5 frames of 30 x 20 pixels, thyroid); choose one by number (series)."
    )
    for name in ("3", "1.2.3", "thyroid"):
        np.testing.assert_array_equal(load_sweep(several, series=name).frames, FRAMES)
    for name in ("2", "clip.dcm", "clip"):
        np.testing.assert_array_equal(load_sweep(several, series=name).frames, FRAMES[:3, 2:])
    sweep = load_sweep(several, series="1")
    np.testing.assert_array_equal(sweep.frames, FRAMES[:, ::-1])
    assert "Read series 1 of 3: 5 frames of 30 x 20 pixels, carotid." in notes_of(sweep)


@pytest.mark.parametrize(("name", "count"), [("4", 0), ("kidney", 0), ("carotid", 2)])
def test_a_choice_that_names_none_or_several_is_refused_with_the_list(several, name, count):
    with pytest.raises(InputError, match=rf"a holds 3 series \(1: .*\), and '{name}' names {count} of them; choose"):
        load_sweep(several, series=name)


def test_the_command_line_takes_the_choice(several, capsys):
    assert main(["info", str(several), "--series", "thyroid"]) == 0
    assert "5 of 30 x 20 pixels" in capsys.readouterr().out
    assert main(["info", str(several)]) == 2
    assert "choose one by number (--series)" in capsys.readouterr().err
    assert RunSettings(series="2").reading["series"] == "2"


def test_a_choice_among_what_are_no_series_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    clip = make(tmp_path / "b.dcm", FRAMES)
    with pytest.raises(InputError, match=r"b\.dcm is one clip; leave out series, which is for a folder"):
        load_sweep(clip, series="1")
    from sequence_files import metafile

    with pytest.raises(InputError, match=r"c\.mha is not DICOM; leave out series"):
        load_sweep(metafile(tmp_path / "c.mha", FRAMES), series="1")


def directory(folder, names, file="DICOMDIR"):
    """A DICOMDIR that lists the files."""
    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", name
        records.append(record)
    series = Dataset()
    series.DirectoryRecordType = "SERIES"
    make(folder / file, FRAMES[:1], PixelData=None, DirectoryRecordSequence=Sequence([series, *records]))
    dataset = pydicom.dcmread(folder / file)
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.save_as(folder / file)
    return folder / file


@pytest.mark.parametrize("by", ["file", "folder"])
@pytest.mark.parametrize("is_lower", [False, True])
def test_a_dicomdir_stands_for_the_files_that_it_lists(tmp_path, by, is_lower):
    place = tmp_path / ("dicom" if is_lower else "DICOM")
    series_of_frames(place, FRAMES, **ONE)
    series_of_frames(tmp_path / "other", FRAMES, **TWO)
    if is_lower:
        for file in place.iterdir():
            file.rename(file.with_name(file.name.lower()))
    path = directory(tmp_path, [["DICOM", f"IM_{number:04d}"] for number in range(5)] + [["DICOM", "GONE"]])
    sweep = load_sweep(path if by == "file" else tmp_path)
    np.testing.assert_array_equal(sweep.frames, FRAMES)


def test_a_dicomdir_leads_out_of_its_folder_nowhere(tmp_path):
    series_of_frames(tmp_path / "secret", FRAMES, **ONE)
    (tmp_path / "disc").mkdir()
    names = [["..", "secret", f"IM_{number:04d}"] for number in range(5)]
    names.append(str(tmp_path / "secret" / "IM_0001"))
    with pytest.raises(InputError, match="DICOMDIR lists or holds no DICOM pictures that are there; copy all of its"):
        load_sweep(directory(tmp_path / "disc", names))


def test_a_folder_of_mostly_other_files_is_not_taken_for_dicom(tmp_path):
    from PIL import Image

    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    make(tmp_path / "one.dcm", FRAMES[:1])
    assert load_sweep(tmp_path).provenance["format"] == "Images"
