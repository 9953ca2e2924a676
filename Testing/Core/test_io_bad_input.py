"""Damaged and hostile sequence metafiles: one sentence each, little memory, never another exception."""

import contextlib
import os
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from sequence_files import metafile, nrrd, pixels, pose, text

from DualTrackCore import Sweep, Trajectory, load_sweep, save_sweep
from DualTrackCore.errors import DualTrackError, InputError, OutputError, reason_of
from DualTrackCore.io.metafile import SKEW_FIELD, SPACING_FIELD

CALIBRATION = np.diag([0.1, 0.2, 0.1, 1.0])


@contextlib.contextmanager
def memory_below(megabytes):
    """Fail if the block allocates more at its peak."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"\x00" * 5000, b"just some words\n", b"ObjectType = Scene\n", b"NRRD", b"\xff"])
def test_what_is_no_sweep_is_refused_with_what_can_be_read(tmp_path, content):
    path = tmp_path / "thing.mha"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"MetaImage.*NRRD") as caught:
        load_sweep(path)
    assert "thing.mha" in str(caught.value)


def test_absent_and_empty_files_are_refused(tmp_path):
    (tmp_path / "empty.mha").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_sweep(tmp_path / "empty.mha")
    with pytest.raises(InputError, match="no sweep at"):
        load_sweep(tmp_path / "absent.mha")
    with pytest.raises(InputError, match="no sweep at"):
        load_sweep("a\0b.mha")
    with pytest.raises(InputError, match="no calibration at"):
        load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5)), calibration=tmp_path / "absent.xml")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("size", ["1000000 1000000 1", "100000 10000 1000", "8000 8000 15000", "99999999999999999 9 9"])
def test_a_small_file_that_claims_absurdly_many_pixels_allocates_nothing(tmp_path, size, compress):
    meta = metafile(tmp_path / "a.mha", b"123", DimSize=size, compress=compress)
    other = nrrd(tmp_path / "a.nrrd", b"123", sizes=size, compress=compress)
    for path in (meta, other):
        with memory_below(2), pytest.raises(InputError, match=r"claims|cut short"):
            load_sweep(path)


def test_absurdly_many_frames_without_pixels_are_refused(tmp_path):
    path = metafile(tmp_path / "a.mha", b"", DimSize="0 0 1000000000000", ElementType="MET_OTHER")
    with memory_below(2), pytest.raises(InputError, match="1000000000000 frames"):
        load_sweep(path)


@pytest.mark.parametrize("maker", [metafile, nrrd])
def test_a_stream_that_expands_beyond_its_claim_stops_there(tmp_path, maker):
    bomb = np.zeros(40 * 2**20, np.uint8)
    path = maker(tmp_path / "a", bomb, compress=True)
    del bomb
    with memory_below(4), pytest.raises(InputError, match="more pixels than the 60 bytes"):
        load_sweep(path)


def test_a_stream_that_holds_less_than_its_claim_is_refused(tmp_path):
    path = metafile(tmp_path / "a.mha", pixels(2, 4, 5), compress=True)
    with pytest.raises(InputError, match="40 of 60 bytes"):
        load_sweep(path)


@pytest.mark.parametrize("damage", [b"\x00" * 9, b"not zlib at all"])
def test_damaged_compressed_pixels_are_refused(tmp_path, damage):
    path = metafile(
        tmp_path / "a.mha", np.frombuffer(damage, np.uint8), CompressedData="True", CompressedDataSize=str(len(damage))
    )
    with pytest.raises(InputError, match="damaged"):
        load_sweep(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"DimSize": "5 4 0"}, "0 frames"),
        ({"DimSize": "a b c"}, "whole numbers"),
        ({"DimSize": ""}, "whole numbers"),
        ({"DimSize": "5 4 4"}, "cut short"),
        ({"ElementType": "MET_STRING"}, "MET_STRING"),
        ({"BinaryData": "False"}, "text"),
        ({"UltrasoundImageType": "RF_IQ_LINE"}, "radio-frequency"),
        ({"ElementDataFile": "/etc/passwd"}, "same folder"),
        ({"ElementDataFile": "../b.raw"}, "same folder"),
        ({"ElementDataFile": "slice%03d.raw"}, "many files"),
        ({"ElementDataFile": "b.raw"}, "does not exist"),
        ({"Kinds": "domain list list"}, "axes"),
        ({"ElementNumberOfChannels": "7"}, "cut short|channels"),
        ({"CompressedData": "True", "CompressedDataSize": "1000"}, "cut short"),
        ({"CompressedData": "True", "CompressedDataSize": "-3"}, "whole numbers"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_with_the_reason(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), **changes))
    assert "a.mha" in str(caught.value) or "b.raw" in str(caught.value)


def test_a_line_that_is_no_field_is_named(tmp_path):
    path = metafile(tmp_path / "a.mha", pixels(3, 4, 5))
    path.write_bytes(path.read_bytes().replace(b"NDims = 3\n", b"NDims 3\n"))
    with pytest.raises(InputError, match="line 2"):
        load_sweep(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    frames = np.ones((3, 4, 5), "<f4")
    frames[1, 2, 3] = value
    with pytest.raises(InputError, match="finite"):
        load_sweep(metafile(tmp_path / "a.mha", frames, ElementType="MET_FLOAT"))


def test_poses_that_fit_no_pixel_size_at_all_are_refused(tmp_path):
    fields = [(f"Seq_Frame{i:04d}_ProbeToTrackerTransform", text(np.diag([2.0, 2, 2, 1]))) for i in range(3)]
    with pytest.raises(InputError, match="rigid"):
        load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields), calibration=CALIBRATION)


def test_all_invalid_tracking_is_kept_as_invalid(tmp_path):
    fields = []
    for i in range(3):
        fields.append((f"Seq_Frame{i:04d}_ImageToReferenceTransform", text(pose(0, 0, i) @ CALIBRATION)))
        fields.append((f"Seq_Frame{i:04d}_ImageToReferenceTransformStatus", "INVALID"))
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields))
    assert not sweep.tracked.valid.any()
    assert sweep.spacing_mm is None


def test_an_impossible_spacing_in_the_file_is_ignored_and_reported(tmp_path):
    for bad in ("0 0 1", "nan nan 1", "-1 2 3", "500 500 1", "10.5 10.5 1", "words", "1e999 1 1"):
        sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), ElementSpacing=bad))
        assert sweep.spacing_mm is None
    assert load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), ElementSpacing="10 10 1")).spacing_mm == (10, 10)


def test_a_skew_that_is_no_number_is_none(tmp_path):
    fields = [(SPACING_FIELD, "0.2 0.1"), (SKEW_FIELD, "steep")]
    sweep = load_sweep(metafile(tmp_path / "a.mha", pixels(3, 4, 5), fields))
    assert (sweep.spacing_mm, sweep.skew_deg) == ((0.2, 0.1), 0)


def written_files(folder):
    """Small files of every form, with tracking and times."""
    poses = np.array([pose(0, 0, i, 0, i, 0) for i in range(3)])
    rng = np.random.default_rng(5)
    sweep = Sweep(
        rng.integers(0, 255, (3, 4, 5), dtype=np.uint8),
        (0.1, 0.2),
        np.array([1.0, 2.0, 3.0]),
        tracked=Trajectory(poses),
    )
    save_sweep(sweep, folder / "w.igs.mha")
    save_sweep(sweep, folder / "w.seq.nrrd")
    metafile(folder / "plain.mha", pixels(3, 4, 5))
    metafile(folder / "deep.mha", np.ones((3, 4, 5), "<f4"), ElementType="MET_FLOAT")
    nrrd(folder / "plain.nrrd", pixels(3, 4, 5))
    return ["w.igs.mha", "w.seq.nrrd", "plain.mha", "deep.mha", "plain.nrrd"]


def test_a_file_cut_at_any_byte_is_refused_with_one_sentence(tmp_path):
    for name in written_files(tmp_path):
        data = (tmp_path / name).read_bytes()
        assert len(load_sweep(tmp_path / name)) == 3
        path = tmp_path / f"cut-{name}"
        # Every byte of the last part, where pixels begin and end, and a prime step before it.
        for length in {*range(0, len(data), 7), *range(max(len(data) - 250, 0), len(data))}:
            path.write_bytes(data[:length])
            with pytest.raises(InputError):
                load_sweep(path)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_flipped_bytes_give_a_sweep_or_one_sentence(tmp_path):
    rng = np.random.default_rng(11)
    for name in written_files(tmp_path):
        data = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        path = tmp_path / f"bad-{name}"
        for _ in range(150):
            broken = data.copy()
            where = rng.integers(0, len(data), rng.integers(1, 4))
            broken[where] = rng.choice(
                np.frombuffer(b"09 -=:.\n\x00\xff" + bytes(rng.integers(0, 256, 4)), np.uint8), len(where)
            )
            path.write_bytes(broken.tobytes())
            with contextlib.suppress(DualTrackError):
                assert len(load_sweep(path)) >= 1


def test_a_compressed_stream_without_its_checksum_is_refused(tmp_path):
    data = zlib.compress(pixels(3, 4, 5).tobytes())
    path = metafile(
        tmp_path / "a.mha",
        np.frombuffer(data[:-4], np.uint8),
        CompressedData="True",
        CompressedDataSize=str(len(data) - 4),
    )
    with pytest.raises(InputError, match="cut short"):
        load_sweep(path)


def test_an_unknown_suffix_and_poses_of_another_number_are_refused(tmp_path):
    sweep = Sweep(pixels(3, 4, 5), 0.1)
    with pytest.raises(InputError, match=r"\.igs\.mha"):
        save_sweep(sweep, tmp_path / "a.txt")
    with pytest.raises(InputError, match="3 frames and the trajectory 2"):
        save_sweep(sweep, tmp_path / "a.mha", trajectory=Trajectory(np.stack([np.eye(4)] * 2)))
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("a.igs.mha", "a.seq.nrrd"):
        with pytest.raises(OutputError, match="Cannot write"):
            save_sweep(Sweep(pixels(3, 4, 5), 0.1), tmp_path / "file" / name)


@pytest.mark.parametrize(
    ("maker", "field"), [(metafile, "ElementType"), (nrrd, "type"), (nrrd, "encoding"), (nrrd, "endian")]
)
def test_a_value_that_fills_pages_is_quoted_in_short(tmp_path, maker, field):
    path = maker(tmp_path / ("a.mha" if maker is metafile else "a.nrrd"), pixels(3, 4, 5), **{field: "9" * 3000})
    with pytest.raises(InputError) as caught:
        load_sweep(path)
    assert "99...99" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_whose_names_are_no_text_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[b"im\x80ges"], file["spacing"] = [1], [1]
    with pytest.raises(InputError, match="holds neither images nor frames"):
        load_sweep(tmp_path / "a.h5")


def test_the_words_of_other_packages_are_told_without_numbers_of_errors_and_addresses():
    assert reason_of(OSError(28, "No space left on device", "name")) == "No space left on device"
    assert reason_of(ValueError(f"cannot identify image file {object()!r}")) == "cannot identify image file"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(ValueError("no string.\nTraceback (most recent call last):\n  File x\nValueError")) == "no string"
    assert len(reason_of(ValueError("9" * 1000))) < 180
