"""Data sets in the published layouts, opened as named tracked sweeps."""

import pickle

import numpy as np
import pytest
from dataset_folders import (
    CONFIGURATION,
    FRAMES,
    SCANS_2025,
    SIZE,
    change_h5,
    dualtrack_table,
    frames,
    landmark_rows,
    plus_folder,
    plus_recording,
    seed_of,
    tus_rec_train,
    tus_rec_validation,
    write_h5,
)
from hdf5_files import SPACING, random_poses

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.io.hdf5_frames import Hdf5Frames
from DualTrackCore.research.datasets import Dataset, open_dataset, simulated_dataset
from DualTrackCore.research.datasets.entries import read_landmarks, write_landmarks_csv


def test_tus_rec_training_scans_are_opened_with_poses_and_landmarks(tmp_path):
    dataset = open_dataset(tus_rec_train(tmp_path / "train"))
    assert dataset.name == "train"
    assert dataset.names[:3] == ("000/LH_Par_C_PtD", "000/RH_Per_L_DtP", "001/LH_Par_C_PtD")
    sweep = dataset.load("001/RH_Per_L_DtP")
    assert isinstance(sweep.frames, Hdf5Frames)
    assert sweep.spacing_mm == pytest.approx(SPACING)
    assert sweep.tracked.valid.all()
    np.testing.assert_array_equal(sweep.window(0, FRAMES), frames(seed=seed_of("001", "RH_Per_L_DtP")))
    marks = dataset.landmarks("001/RH_Per_L_DtP")
    np.testing.assert_array_equal(marks.frames, landmark_rows()[:, 0])
    np.testing.assert_array_equal(marks.pixels, landmark_rows()[:, 1:] - 1)


def test_tus_rec_validation_scans_are_opened_from_frames_and_transfs(tmp_path):
    dataset = open_dataset(tus_rec_validation(tmp_path))
    assert len(dataset) == 6
    assert {(entry.split, entry.subject) for entry in dataset} == {(None, s) for s in ("050", "051", "052")}
    assert len(dataset.load("050/LH_Par_C_PtD").tracked) == FRAMES
    assert len(dataset.landmarks("052/LH_Par_C_PtD")) == 20


def test_the_rotations_of_2025_are_found_under_both_spellings(tmp_path):
    root = tus_rec_validation(tmp_path, scans=SCANS_2025, folder="landmarks", landmarks=100)
    for part in ("frames", "transfs"):
        (root / part / "051" / "LH_rotation.h5").rename(root / part / "051" / "LH_rotating.h5")
    dataset = open_dataset(root)
    assert "051/LH_rotating" in dataset.names
    assert len(dataset.load("051/LH_rotating").tracked) == FRAMES
    assert len(dataset.landmarks("051/LH_rotating")) == 100


def test_a_folder_of_several_tus_rec_sets_is_one_data_set(tmp_path):
    tus_rec_train(tmp_path / "2024" / "train")
    tus_rec_train(tmp_path / "2025" / "train", scans=SCANS_2025)
    tus_rec_validation(tmp_path / "2024" / "val")
    assert len(open_dataset(tmp_path)) == 18
    with pytest.raises(DatasetError, match=r"no sweep whose split is test \(splits there: none, for folders"):
        open_dataset(tmp_path, split="test")


@pytest.mark.parametrize("place", ["frames_transfs", "frames_transfs/001"])
def test_a_part_of_a_tus_rec_folder_can_be_opened(tmp_path, place):
    tus_rec_train(tmp_path)
    dataset = open_dataset(tmp_path / place)
    assert "001/RH_Per_L_DtP" in dataset.names
    assert len(dataset) == (2 if place.endswith("001") else 6)
    assert len(dataset.landmarks("001/RH_Per_L_DtP")) == 20


def test_opening_reads_no_sweep_and_loading_reads_only_one(tmp_path):
    root = tus_rec_train(tmp_path)
    for path in (root / "frames_transfs").rglob("*.h5"):
        if "000" not in path.parts:
            path.write_bytes(b"no HDF5")
    dataset = open_dataset(root)
    assert len(dataset) == 6
    assert len(dataset.load("000/RH_Per_L_DtP")) == FRAMES
    with pytest.raises(DatasetError, match=r"001.RH_Per_L_DtP\.h5"):
        dataset.load("001/RH_Per_L_DtP")


def test_scans_without_a_calibration_are_refused_with_the_remedy(tmp_path):
    root = tus_rec_train(tmp_path / "a" / "b")
    given = (root / "calib_matrix.csv").rename(tmp_path / "mine.csv")
    with pytest.raises(DatasetError, match=r"LH_Par_C_PtD\.h5 has no poses.*put calib_matrix\.csv.*give calibration"):
        open_dataset(root).load("000/LH_Par_C_PtD")
    assert open_dataset(root, calibration=given).load("000/LH_Par_C_PtD").spacing_mm == pytest.approx(SPACING)


def test_a_table_gives_ids_splits_and_files_relative_to_it(tmp_path):
    root = dualtrack_table(tmp_path / "set")
    for place in (root, root / "metadata.csv"):
        dataset = open_dataset(place)
        assert dataset.name == "set"
        assert dataset.names == ("sweep_0", "sweep_1", "sweep_2")
        assert open_dataset(place, split="val").names == ("sweep_2",)
        with pytest.raises(DatasetError, match=r"no sweep whose split is test \(splits there: train, val\)"):
            open_dataset(place, split="test")
    np.testing.assert_array_equal(dataset.load("sweep_1").window(0, 1), frames(seed=1)[:1])
    assert dataset.landmarks("sweep_1") is None
    (root / "metadata.csv").rename(root / "other.csv")
    assert len(open_dataset(root)) == 3
    (root / "third.csv").write_text((root / "other.csv").read_text())
    with pytest.raises(DatasetError, match=r"several tables of sweeps: other\.csv, third\.csv"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep_id,split\n1,train\n", "lacks the columns processed_sweep_path"),
        ("processed_sweep_path,split\n", "There are no sweeps in"),
        ("processed_sweep_path,split\n,train\n", "no processed_sweep_path in line 2"),
        ("sweep_id,processed_sweep_path,split\na,x.h5,train\na,y.h5,train\n", "the sweep a is listed twice"),
        ("sweep_id,processed_sweep_path,split\na,x.h5,train\nb,./x.h5,val\n", "the sweep b is in two splits"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "metadata.csv")


def test_recordings_of_plus_take_the_nearest_calibration(tmp_path):
    dataset = open_dataset(plus_folder(tmp_path))
    assert dataset.names == ("a", "b", "other/a")
    assert dataset.load("b").spacing_mm == pytest.approx((0.1, 0.2))
    assert dataset.load("other/a").spacing_mm == pytest.approx((0.3, 0.2))
    assert len(dataset.load("a").tracked) == 3
    own = tmp_path / "b.xml"
    own.write_text(CONFIGURATION.replace("0.1 0 0 5", "0.4 0 0 5"))
    assert open_dataset(tmp_path).load("b").spacing_mm == pytest.approx((0.4, 0.2))
    given = open_dataset(tmp_path, calibration=own)
    assert given.load("other/a").spacing_mm == pytest.approx((0.4, 0.2))


def test_two_configurations_in_one_folder_are_not_guessed_between(tmp_path):
    plus_recording(tmp_path / "a.igs.mha")
    for name in ("one.xml", "two.xml"):
        (tmp_path / name).write_text(CONFIGURATION)
    with pytest.raises(DatasetError, match=r"a\.igs\.mha has no poses.*give calibration"):
        open_dataset(tmp_path).load("a")


def test_recordings_of_one_name_keep_their_endings(tmp_path):
    plus_recording(tmp_path / "a.igs.mha")
    plus_recording(tmp_path / "a.mha")
    assert open_dataset(tmp_path).names == ("a.igs.mha", "a.mha")


def test_a_single_tracked_file_is_a_data_set_of_one(tmp_path):
    path = plus_recording(tmp_path / "clip.igs.mha")
    (tmp_path / "probe.xml").write_text(CONFIGURATION)
    dataset = open_dataset(path)
    assert dataset.names == ("clip",)
    assert dataset.load("clip").spacing_mm == pytest.approx((0.1, 0.2))


def test_places_that_hold_no_data_set_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"There is no data set at .*none"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match="is empty"):
        open_dataset("")
    with pytest.raises(DatasetError, match="There are no sweeps in"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="There is no calibration at"):
        open_dataset(tmp_path, calibration=tmp_path / "none.csv")


def test_a_scan_that_is_there_twice_is_refused(tmp_path):
    tus_rec_train(tmp_path / "train")
    tus_rec_validation(tmp_path / "val", subjects=("002",))
    with pytest.raises(DatasetError, match=r"002/LH_Par_C_PtD is listed twice, the other file is"):
        open_dataset(tmp_path)


def test_landmarks_outside_of_their_scan_are_refused_by_name(tmp_path):
    root = tus_rec_train(tmp_path)
    path = root / "landmarks" / "landmark_001.h5"
    rows = landmark_rows()
    rows[3, 0] = FRAMES
    change_h5(path, LH_Par_C_PtD=rows, RH_Per_L_DtP=landmark_rows()[:, :2])
    dataset = open_dataset(root)
    with pytest.raises(
        DatasetError,
        match=r"landmark_001\.h5 has landmarks of 001/LH_Par_C_PtD that do not fit.*Landmark 3 lies in frame 6",
    ):
        dataset.landmarks("001/LH_Par_C_PtD")
    with pytest.raises(DatasetError, match=r"landmark_001\.h5.*expected \[n, 3\]"):
        dataset.landmarks("001/RH_Per_L_DtP")


def test_landmarks_survive_a_csv_file(tmp_path):
    marks = open_dataset(tus_rec_train(tmp_path)).landmarks("000/LH_Par_C_PtD")
    write_landmarks_csv(marks, tmp_path / "marks.csv")
    read = read_landmarks(tmp_path / "marks.csv", "anything")
    np.testing.assert_array_equal(read.frames, marks.frames)
    np.testing.assert_array_equal(read.pixels, marks.pixels)
    for text, message in (("a,b\n", "columns frame, column, row"), ("frame,column,row\n1,2\n", "not three numbers")):
        (tmp_path / "marks.csv").write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_landmarks(tmp_path / "marks.csv", "anything")


def test_subsets_keep_the_order_that_is_asked_for(tmp_path):
    dataset = open_dataset(dualtrack_table(tmp_path))
    part = dataset.subset(["sweep_2", "sweep_0"])
    assert part.names == ("sweep_2", "sweep_0")
    assert part.load("sweep_0").provenance["sweep"] == "sweep_0"
    with pytest.raises(DatasetError, match="has no sweep 'sweep_1'; it has sweep_2, sweep_0"):
        part.load("sweep_1")
    with pytest.raises(DatasetError, match="sweep_0 is twice"):
        Dataset("x", [dataset.entry("sweep_0"), dataset.entry("sweep_0")])


def test_a_data_set_can_go_to_another_process(tmp_path):
    dataset = pickle.loads(pickle.dumps(open_dataset(tus_rec_validation(tmp_path))))
    assert len(dataset.load(dataset.names[0])) == FRAMES
    assert len(dataset.landmarks(dataset.names[0])) == 20


def test_hidden_and_unfinished_files_are_no_sweeps(tmp_path):
    root = tus_rec_train(tmp_path)
    write_h5(root / "frames_transfs" / "000" / "._RH_Per_L_DtP.h5", frames=frames(), tforms=random_poses(FRAMES))
    assert len(open_dataset(root)) == 6


def test_simulated_sets_have_the_seeds_of_the_comparison():
    held_out, calibration = open_dataset("held-out"), open_dataset("simulated")
    assert len(held_out) == len(calibration) == 28
    assert held_out.names[:2] == ("Per_L_DtP 2000000", "Per_L_PtD 2000001")
    assert calibration.names[0] == "Per_L_DtP 0"
    assert held_out.entry("Per_L_PtD 2000001").simulation.speckle_seed == 9001
    with pytest.raises(DatasetError, match="neither splits nor a calibration"):
        open_dataset("held-out", split="val")
    with pytest.raises(DatasetError, match="choose held-out or"):
        simulated_dataset("held_out")
    with pytest.raises(InputError, match="at least 2"):
        simulated_dataset(frames=1)


def test_a_simulated_sweep_is_stored_when_it_is_loaded_and_found_again(tmp_path, monkeypatch):
    from DualTrackCore.research.datasets import entries

    monkeypatch.setattr(entries, "simulator_hash", lambda *_: "simulator")
    sweep = open_dataset(dualtrack_table(tmp_path / "table")).load("sweep_0")
    made = []
    monkeypatch.setattr(entries.Simulation, "sweep", lambda self: made.append(self.seed) or sweep)
    dataset = simulated_dataset(count=2, frames=4, frame_size=SIZE, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    first = dataset.load(dataset.names[1])
    assert made == [2000001]
    np.testing.assert_array_equal(dataset.load(dataset.names[1]).window(0, 2), first.window(0, 2))
    assert made == [2000001]
    simulated_dataset(count=2, frames=4, frame_size=SIZE).load(dataset.names[1])
    assert made == [2000001, 2000001]


def test_a_sweep_that_two_processes_simulate_at_once_can_be_read_by_both(tmp_path, monkeypatch):
    from DualTrackCore.research.datasets import entries

    monkeypatch.setattr(entries, "simulator_hash", lambda *_: "simulator")
    made = open_dataset(dualtrack_table(tmp_path / "table")).load("sweep_0")
    entry = simulated_dataset(count=1, frames=4, frame_size=SIZE, folder=tmp_path / "kept").entry("Per_L_DtP 2000000")
    quicker = []

    def simulated(self):
        if not quicker:  # the other one begins later and is ready first
            quicker.append(None)
            quicker[0] = entry.load().frames.kept_open()
        return made

    monkeypatch.setattr(entries.Simulation, "sweep", simulated)
    later = entry.load()
    for read in (quicker[0], later):
        np.testing.assert_array_equal(read.window(0, 2), made.window(0, 2))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [entry.path.name]
