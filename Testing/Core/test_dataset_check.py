"""What `dualtrack dataset check` finds: for every kind of damage one broken data set."""

import json
import shutil

import h5py
import numpy as np
import pytest
from dataset_folders import (
    FRAMES,
    SCANS_2025,
    SIZE,
    change_h5,
    dualtrack_table,
    frames,
    landmark_rows,
    plus_folder,
    plus_recording,
    tus_rec_train,
    tus_rec_validation,
    write_h5,
)
from hdf5_files import calibration_csv, random_poses
from sequence_files import metafile

from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, DatasetError, OutOfMemoryError
from DualTrackCore.research.datasets import check_dataset, open_dataset, simulated_dataset, usable

SCAN = "001/RH_Per_L_DtP"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """One clean data set of each layout, built once."""
    root = tmp_path_factory.mktemp("pristine")
    tus_rec_train(root / "train")
    tus_rec_validation(root / "val")
    dualtrack_table(root / "table")
    plus_folder(root / "plus")
    return root


@pytest.fixture
def place(pristine, tmp_path):
    """Give a copy of a clean data set to break."""
    return lambda layout: shutil.copytree(pristine / layout, tmp_path / layout)


def only(place, **options):
    """The one finding of a data set."""
    findings = check_dataset(place, **options)
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def scan_of(root):
    return root / "frames_transfs" / "001" / "RH_Per_L_DtP.h5"


@pytest.mark.parametrize("layout", ["train", "val", "table", "plus"])
@pytest.mark.parametrize("deep", [False, True])
def test_nothing_is_found_in_a_clean_data_set(pristine, layout, deep):
    assert check_dataset(pristine / layout, deep=deep) == []


def test_nothing_is_found_in_the_rotations_of_2025_under_both_spellings(tmp_path):
    root = tus_rec_validation(tmp_path, scans=SCANS_2025, folder="landmarks", landmarks=100)
    for part in ("frames", "transfs"):
        (root / part / "051" / "LH_rotation.h5").rename(root / part / "051" / "LH_rotating.h5")
    assert check_dataset(root) == []


def test_a_truncated_file_is_found(place):
    root = place("train")
    path = scan_of(root)
    path.write_bytes(path.read_bytes()[:-100])
    found = only(root)
    assert (found.path, found.sweep) == (path, SCAN)
    assert "damaged or cut short" in found.reason
    assert found.remedy == "copy the file again, or leave the sweep out"


def test_frames_whose_chunks_fail_are_found_by_a_deep_look(place):
    root = place("train")
    path = scan_of(root)
    with h5py.File(path, "a") as file:
        del file["frames"]
        data = file.create_dataset("frames", data=frames(40), chunks=(1, *SIZE), compression="gzip")
        change = data.id.get_chunk_info(7)
        del file["tforms"]
        file["tforms"] = random_poses(40)
    with path.open("r+b") as stream:
        stream.seek(change.byte_offset)
        stream.write(b"\xff" * change.size)
    assert check_dataset(root) == []
    found = only(root, deep=True)
    assert (found.path, found.sweep) == (path, SCAN)
    assert "damaged or cut short" in found.reason


def test_frames_and_poses_of_different_number_are_found(place):
    root = place("train")
    change_h5(scan_of(root), tforms=random_poses(FRAMES - 1))
    found = only(root)
    assert found.sweep == SCAN
    assert "6 frames" in found.reason
    assert "5 poses" in found.reason


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "1 poses that are not finite"),
        (3.0, "1 poses that are invalid or not rigid"),
    ],
)
def test_a_pose_that_is_no_motion_is_found(place, value, told):
    root = place("train")
    poses = random_poses(FRAMES, seed=1)
    poses[4, 0, 0] = value
    change_h5(scan_of(root), tforms=poses)
    found = only(root)
    assert found.sweep == SCAN
    assert f"1 of 6 frames cannot be used, the first is frame 4 ({told})" in found.problem
    assert check_dataset(root, tolerated=0.2) == []
    assert only(root, tolerated=0.1) == found
    with pytest.raises(DatasetError, match="must lie in 0 to 1"):
        check_dataset(root, tolerated=2)


def test_frames_of_another_size_are_found(place):
    root = place("train")
    change_h5(scan_of(root), frames=frames(size=(20, 24)))
    found = only(root)
    assert found.sweep == SCAN
    assert "24 x 20 pixels, those of most sweeps 16 x 12" in found.problem


def test_a_missing_calibration_is_found_once_and_the_scans_are_looked_at_all_the_same(place):
    root = place("train")
    (root / "calib_matrix.csv").unlink()
    found = only(root)
    assert (found.path, found.sweep) == (root, None)
    assert "calib_matrix.csv is missing" in found.problem
    poses = random_poses(FRAMES)
    poses[0] = np.nan
    change_h5(scan_of(root), tforms=poses)
    assert [finding.sweep for finding in check_dataset(root)] == [None, SCAN]
    calibration = root.parent / "mine.csv"
    calibration_csv(calibration)
    assert [finding.sweep for finding in check_dataset(root, calibration=calibration)] == [SCAN]


def test_a_calibration_that_is_not_rigid_is_found_once(place):
    root = place("train")
    calibration_csv(root / "calib_matrix.csv", rigid=2 * np.eye(4))
    found = only(root)
    assert found.path == root / "calib_matrix.csv"
    assert "not a rigid motion" in found.reason


def test_missing_scans_are_found_by_landmarks_and_by_the_other_subjects(place):
    root = place("train")
    scan_of(root).unlink()
    by_key, by_subjects = check_dataset(root)
    assert by_key.path == root / "landmarks" / "landmark_001.h5"
    assert "the key RH_Per_L_DtP has no scan" in by_key.problem
    assert by_subjects.path == scan_of(root)
    assert by_subjects.sweep == by_key.sweep == SCAN


def test_keys_without_scans_and_scans_without_keys_are_found(place):
    root = place("val")
    change_h5(root / "dataset_keys.h5", sub050__RH_Per_L_DtP=None, sub099__LH_Par_S_DtP=0)
    without_scan, without_key = check_dataset(root)
    assert without_scan.sweep == "099/LH_Par_S_DtP"
    assert "key sub099__LH_Par_S_DtP has no scan" in without_scan.problem
    assert without_key.sweep == "050/RH_Per_L_DtP"
    (root / "dataset_keys.h5").write_bytes(b"nothing")
    assert "the list of scans cannot be read" in only(root).problem


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ((FRAMES, 1, 1), "Landmark 0 lies in frame 6"),
        ((-1, 1, 1), "Landmark 0 lies in frame -1"),
        ((0, SIZE[1] + 5, 1), "outside the image of 16 x 12 pixels"),
        ((0, 1, np.nan), "not finite"),
    ],
)
def test_a_landmark_outside_of_its_scan_is_found(place, row, told):
    root = place("val")
    rows = landmark_rows().astype(float)
    rows[0] = row
    path = change_h5(root / "landmark" / "landmark_051.h5", RH_Per_L_DtP=rows)
    found = only(root)
    assert (found.path, found.sweep) == (path, "051/RH_Per_L_DtP")
    assert told in found.reason


def test_landmarks_that_are_missing_or_cannot_be_read_are_found(place):
    root = place("val")
    (root / "landmark" / "landmark_050.h5").unlink()
    change_h5(root / "landmark" / "landmark_051.h5", RH_Per_L_DtP=None)
    path = root / "landmark" / "landmark_052.h5"
    path.write_bytes(path.read_bytes()[:200])
    findings = check_dataset(root)
    assert [f.sweep for f in findings if "no landmarks" in f.problem] == [
        "050/LH_Par_C_PtD",
        "050/RH_Per_L_DtP",
        "051/RH_Per_L_DtP",
    ]
    assert "cannot be read" in next(f for f in findings if f.path == path and f.sweep is None).problem


def test_frames_without_poses_and_poses_without_frames_are_found(place):
    root = place("val")
    (root / "transfs" / "050" / "RH_Per_L_DtP.h5").unlink()
    (root / "frames" / "051" / "RH_Per_L_DtP.h5").unlink()
    findings = {finding.path.relative_to(root).as_posix(): finding for finding in check_dataset(root)}
    assert "has no poses" in findings["frames/050/RH_Per_L_DtP.h5"].problem
    assert "no file of its frames" in findings["transfs/051/RH_Per_L_DtP.h5"].problem


def test_a_scan_that_is_there_twice_is_found(place, tmp_path):
    place("train")
    shutil.copytree(place("val") / "frames" / "050", tmp_path / "val" / "frames" / "002")
    shutil.copytree(tmp_path / "val" / "transfs" / "050", tmp_path / "val" / "transfs" / "002")
    shared = [f for f in check_dataset(tmp_path) if "is listed twice, the other file is" in f.problem]
    assert [finding.sweep for finding in shared] == ["002/LH_Par_C_PtD", "002/RH_Per_L_DtP"]


def test_an_empty_split_is_found(place):
    root = place("train")
    shutil.rmtree(root / "frames_transfs" / "000")
    for subject in ("000", "001", "002"):
        shutil.rmtree(root / "frames_transfs" / subject, ignore_errors=True)
        (root / "landmarks" / f"landmark_{subject}.h5").unlink()
    assert "the folder holds no .h5 scans" in only(root).problem
    table = place("table")
    assert "the split test is empty" in only(table, split="test").problem
    text = (table / "metadata.csv").read_text()
    (table / "metadata.csv").write_text(text.replace(",val", ",train"))
    assert "the split val is empty" in only(table).problem


def test_rows_without_files_and_files_without_rows_are_found(place):
    root = place("table")
    (root / "sweeps" / "1.h5").rename(root / "sweeps" / "new.h5")
    without_row, without_file = check_dataset(root)
    assert without_row.path == root / "sweeps" / "new.h5"
    assert "no row of metadata.csv names it" in without_row.problem
    assert without_file.sweep == "sweep_1"
    assert without_file.path == root / "sweeps" / "1.h5"
    assert (without_file.problem, without_file.remedy) == ("is missing", "copy it in, or leave the sweep sweep_1 out")


def test_a_row_without_a_split_and_the_same_file_twice_are_found(place):
    root = place("table")
    with (root / "metadata.csv").open("a") as file:
        file.write("3,again,sweeps/0.h5,val\n4,nowhere,sweeps/2.h5,\n")
    problems = [finding.problem for finding in check_dataset(root)]
    assert problems == [
        "its row has no split",
        "the sweep again is in two splits, train and val",
        "the sweep nowhere is listed twice",
    ]


def test_a_recording_without_a_calibration_or_with_lost_tracking_is_found(place):
    root = place("plus")
    plus_recording(root / "a.igs.mha", invalid=(1,))
    found = only(root)
    assert found.sweep == "a"
    assert "1 of 3 frames cannot be used, the first is frame 1" in found.problem
    (root / "PlusDeviceSet.xml").unlink()
    uncalibrated = check_dataset(root)
    assert [finding.sweep for finding in uncalibrated] == ["a", "b"]
    assert all("has no poses" in f.problem and "give calibration" in f.remedy for f in uncalibrated)


def test_a_recording_cut_short_is_found(place):
    root = place("plus")
    path = root / "b.mha"
    path.write_bytes(path.read_bytes()[:-10])
    found = only(root)
    assert (found.path, found.sweep) == (path, "b")
    assert "cut short" in found.reason


def test_a_folder_without_recordings_and_a_broken_configuration_are_found(tmp_path, place):
    (tmp_path / "empty").mkdir()
    assert "no tracked recording" in only(tmp_path / "empty").problem
    broken = tmp_path / "broken.xml"
    broken.write_text("<a/>")
    findings = check_dataset(place("plus"), calibration=broken)
    assert findings[0].path == broken
    assert "no transform from Image to a probe" in findings[0].reason
    assert [finding.sweep for finding in findings[1:]] == ["a", "b", "other/a"]


def test_a_scan_of_one_frame_is_found(place):
    root = place("train")
    change_h5(scan_of(root), frames=frames(1), tforms=random_poses(1))
    (root / "landmarks" / "landmark_001.h5").unlink()
    findings = [f for f in check_dataset(root) if f.path == scan_of(root)]
    assert [f.problem for f in findings] == ["it has 1 frame, and a trajectory needs 2"]


def test_tracking_without_images_and_poses_that_were_estimated_are_found(place):
    root = place("table")
    change_h5(root / "sweeps" / "0.h5", dimensions=None)
    with h5py.File(root / "sweeps" / "0.h5", "a") as file:
        file["tracking"].attrs["estimated_by"] = "mini"
    found = only(root)
    assert found.sweep == "sweep_0"
    assert found.problem == "has poses that are estimated by mini, and a data set needs measured ones"
    plus = place("plus")
    metafile(plus / "b.mha", np.zeros((2, 0, 0), np.uint8), DimSize="0 0 2", ElementType="MET_OTHER")
    found = only(plus)
    assert (found.sweep, found.problem) == ("b", "has tracking and no images")


def test_a_check_can_be_cancelled(pristine):
    reports = []
    with pytest.raises(Cancelled):
        check_dataset(pristine / "train", progress=reports.append, cancelled=lambda: len(reports) > 2)
    assert len(reports) == 3


def test_bad_sweeps_are_refused_or_skipped_by_name(place):
    root = place("train")
    path = scan_of(root)
    path.write_bytes(path.read_bytes()[:-100])
    dataset = open_dataset(root)
    with pytest.raises(
        DatasetError, match=r"1 of 6 sweeps of train cannot be used.*001.RH_Per_L_DtP\.h5.*on_bad='skip'"
    ):
        usable(dataset)
    good, findings = usable(dataset, "skip")
    assert SCAN not in good.names
    assert len(good) == 5
    assert [finding.sweep for finding in findings] == [SCAN]
    with pytest.raises(DatasetError, match="None of the 1 sweeps"):
        usable(dataset.subset([SCAN]), "skip")
    with pytest.raises(DatasetError, match="choose refuse or skip"):
        usable(dataset, "ignore")


def test_simulated_sweeps_are_not_rendered_to_be_checked(monkeypatch):
    from DualTrackCore.research.datasets.entries import SimulatedEntry

    monkeypatch.setattr(SimulatedEntry, "load", lambda self: pytest.fail("a sweep was simulated"))
    dataset = simulated_dataset(count=3)
    good, findings = usable(dataset)
    assert (good.names, findings) == (dataset.names, [])


def test_the_command_says_what_it_found_and_ends_with_2(place, capsys):
    root = place("train")
    assert main(["dataset", "check", str(root)]) == 0
    assert "Nothing is wrong: 6 sweeps of the TUS-REC folder" in capsys.readouterr().out
    path = scan_of(root)
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["dataset", "check", str(root), "--deep"]) == 2
    out = capsys.readouterr().out
    assert f"{path}: " in out
    assert "Found 1 problem in 6 sweeps" in out
    assert main(["dataset", "check", str(root), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["sweeps"] == 6
    assert [(f["path"], f["sweep"]) for f in result["findings"]] == [(str(path), SCAN)]
    assert main(["dataset", "check", str(root / "none")]) == 2
    assert "There is no data set at" in capsys.readouterr().err


def test_memory_stays_that_of_a_window_while_all_frames_are_read(tmp_path):
    import tracemalloc

    write_h5(tmp_path / "a.h5", frames=np.zeros((400, 480, 640), np.uint8), tforms=random_poses(400))
    calibration_csv(tmp_path / "calib_matrix.csv")
    tracemalloc.start()
    assert check_dataset(tmp_path, deep=True) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # of 123 MB of frames


def test_a_lack_of_memory_is_not_called_a_damaged_sweep(place, monkeypatch):
    def fail(*arguments, **options):
        raise OutOfMemoryError("The clip needs more memory.")

    monkeypatch.setattr("DualTrackCore.research.datasets.entries.load_sweep", fail)
    findings = check_dataset(place("table"))
    assert findings
    assert all("needs more memory than there is" in str(finding) for finding in findings)
    assert not any("copy the file" in str(finding) for finding in findings)
