"""Data sets written as DualTrack files, in one go, after a kill, and with damaged sweeps among them."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_folders import (
    FRAMES,
    SIZE,
    change_h5,
    dualtrack_table,
    frames,
    plus_folder,
    plus_recording,
    tus_rec_train,
    tus_rec_validation,
)
from hdf5_files import calibration_csv, random_poses
from named_clips import named_frames, named_sweep

from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, DatasetError
from DualTrackCore.io import save_sweep
from DualTrackCore.research.datasets import check_dataset, convert_dataset, open_dataset, with_said_splits

SCAN = "001/RH_Per_L_DtP"
SUBJECTS = ("000", "001")

#: A conversion that kills itself as it is about to give its third sweep its name.
KILLED = """
import os, signal, sys
from DualTrackCore.research.datasets import convert_dataset, open_dataset
real, moved = os.replace, []
def replace(source, target):
    if str(target).endswith(".h5"):
        moved.append(target)
        if len(moved) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
convert_dataset(open_dataset(sys.argv[1]), sys.argv[2])
"""


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def rows(folder):
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scan_of(root):
    return root / "frames_transfs" / "001" / "RH_Per_L_DtP.h5"


def test_a_converted_set_holds_the_same_sweeps_landmarks_and_splits(tmp_path):
    tus_rec_train(tmp_path / "in" / "train", SUBJECTS)
    tus_rec_validation(tmp_path / "in" / "val", ("050",))
    who = "subject,split\n" + "".join(f"{s},{'val' if s == '050' else 'train'}\n" for s in (*SUBJECTS, "050"))
    (tmp_path / "splits.csv").write_text(who)
    source, out = open_dataset(tmp_path / "in"), tmp_path / "out"
    done = convert_dataset(with_said_splits(source, tmp_path / "splits.csv"), out)
    assert done.written == source.names
    assert (done.kept, done.skipped) == ((), ())
    assert check_dataset(out, deep=True) == []
    copy = open_dataset(out)
    assert copy.names == source.names
    assert [entry.split for entry in copy] == ["train"] * 4 + ["val"] * 2
    for name in source.names:
        one, other = source.load(name), copy.load(name)
        np.testing.assert_array_equal(one.window(0, FRAMES), other.window(0, FRAMES))
        np.testing.assert_allclose(one.tracked.poses, other.tracked.poses, atol=1e-9)
        np.testing.assert_allclose(one.spacing_mm, other.spacing_mm)
        np.testing.assert_array_equal(source.landmarks(name).pixels, copy.landmarks(name).pixels)
    assert rows(out)[0] == {
        "index": "0",
        "sweep_id": "000/LH_Par_C_PtD",
        "processed_sweep_path": "000/LH_Par_C_PtD.h5",
        "split": "train",
        "subject": "000",
        "landmarks_path": "000/LH_Par_C_PtD.landmarks.csv",
    }


def test_a_killed_conversion_goes_on_and_keeps_what_was_finished(tmp_path):
    source, out = tus_rec_train(tmp_path / "in", SUBJECTS), tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, out], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = [name for name in files(out) if name.endswith(".h5") and "/." not in name]
    half = [name for name in files(out) if "/." in name]
    assert (len(finished), len(half)) == (2, 1)
    assert not (out / "metadata.csv").exists()
    times = {name: (out / name).stat().st_mtime_ns for name in finished}
    done = convert_dataset(open_dataset(source), out)
    assert [f"{name}.h5" for name in done.kept] == finished
    assert len(done.written) == 2
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == times
    assert not [name for name in files(out) if "/." in name]
    assert [row["sweep_id"] for row in rows(out)] == list(open_dataset(source).names)


def test_a_cancelled_conversion_keeps_whole_sweeps_only(tmp_path):
    source, out = open_dataset(tus_rec_train(tmp_path / "in", SUBJECTS)), tmp_path / "out"
    with pytest.raises(Cancelled):
        convert_dataset(source, out, cancelled=lambda: (out / "000" / "RH_Per_L_DtP.landmarks.csv").exists())
    assert [name for name in files(out) if name.endswith(".h5")] == ["000/LH_Par_C_PtD.h5"]
    assert len(convert_dataset(source, out).kept) == 1


def test_a_damaged_file_of_an_earlier_run_is_written_again(tmp_path):
    source, out = open_dataset(tus_rec_train(tmp_path / "in", ("000",))), tmp_path / "out"
    convert_dataset(source, out)
    path = out / "000" / "LH_Par_C_PtD.h5"
    path.write_bytes(path.read_bytes()[:-50])
    done = convert_dataset(source, out)
    assert (done.written, done.kept) == (("000/LH_Par_C_PtD",), ("000/RH_Per_L_DtP",))
    assert [finding.problem for finding in check_dataset(out, deep=True)] == ["the split val is empty"]


def test_a_file_of_another_sweep_is_never_kept_for_this_one(tmp_path):
    root, out = tus_rec_train(tmp_path / "in", ("000",)), tmp_path / "out"
    convert_dataset(open_dataset(root), out)
    calibration_csv(root / "calib_matrix.csv", scales=(0.3, 0.2))
    with pytest.raises(DatasetError, match=r"LH_Par_C_PtD\.h5 holds another sweep than .*choose another folder"):
        convert_dataset(open_dataset(root), out, on_bad="skip")


@pytest.mark.parametrize("damage", ["truncated", "NaN", "lengths", "landmarks"])
def test_a_bad_sweep_is_refused_or_left_out_by_name_as_the_option_says(tmp_path, damage, capsys):
    root, out = tus_rec_train(tmp_path / "in", SUBJECTS), tmp_path / "out"
    path = scan_of(root)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "landmarks":
        path = change_h5(root / "landmarks" / "landmark_001.h5", RH_Per_L_DtP=np.full((20, 3), 1000))
    else:
        poses = random_poses(FRAMES if damage == "NaN" else FRAMES + 1)
        poses[2] = np.nan if damage == "NaN" else poses[2]
        change_h5(path, tforms=poses)
    assert main(["dataset", "convert", str(root), "-o", str(out)]) == 2
    err = capsys.readouterr().err
    assert "1 of 4 sweeps of in cannot be used" in err
    assert str(path) in err
    assert not out.exists()
    assert main(["dataset", "convert", str(root), "-o", str(out), "--on-bad", "skip", "--json"]) == 0
    output = capsys.readouterr()
    assert f"Left out {SCAN}. {path}: " in output.err
    result = json.loads(output.out)
    assert [found["sweep"] for found in result["skipped"]] == [SCAN]
    assert SCAN not in open_dataset(out).names
    assert len(open_dataset(out)) == len(result["written"]) == 3


def test_without_a_calibration_nothing_is_converted(tmp_path):
    root = tus_rec_train(tmp_path / "in", SUBJECTS)
    (root / "calib_matrix.csv").unlink()
    for on_bad in ("refuse", "skip"):
        with pytest.raises(DatasetError, match=r"has no poses.*calib_matrix\.csv"):
            convert_dataset(open_dataset(root), tmp_path / "out", on_bad=on_bad)
    assert not (tmp_path / "out").exists()


def test_damage_that_shows_only_in_copying_is_refused_or_left_out_too(tmp_path):
    root = tus_rec_train(tmp_path / "in", SUBJECTS)
    with h5py.File(scan_of(root), "a") as file:
        del file["frames"], file["tforms"]
        data = file.create_dataset("frames", data=frames(40), chunks=(1, *SIZE), compression="gzip")
        chunk = data.id.get_chunk_info(7)
        file["tforms"] = random_poses(40)
    with scan_of(root).open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    with pytest.raises(DatasetError, match=r"RH_Per_L_DtP\.h5: .*damaged.*3 of 4 sweeps are finished and stay"):
        convert_dataset(open_dataset(root), tmp_path / "out")
    assert not [name for name in files(tmp_path / "out") if "001/RH" in name and name.endswith(".h5")]
    done = convert_dataset(open_dataset(root), tmp_path / "out", on_bad="skip")
    assert (len(done.kept), done.written) == (3, ())
    assert [finding.sweep for finding in done.skipped] == [SCAN]
    assert SCAN not in open_dataset(tmp_path / "out").names


def test_sets_converted_one_after_the_other_share_a_table(tmp_path):
    out = tmp_path / "out"
    convert_dataset(open_dataset(tus_rec_train(tmp_path / "train", ("000",))), out)
    convert_dataset(open_dataset(tus_rec_validation(tmp_path / "val", ("050",))), out, default_split="val")
    assert check_dataset(out) == []
    assert [(row["index"], row["split"]) for row in rows(out)] == [
        ("0", "train"),
        ("1", "train"),
        ("2", "val"),
        ("3", "val"),
    ]
    assert len(open_dataset(out).landmarks("000/LH_Par_C_PtD")) == 20


def test_recordings_of_plus_are_converted_with_their_calibration_and_lost_poses(tmp_path):
    root, out = plus_folder(tmp_path / "in"), tmp_path / "out"
    plus_recording(root / "b.mha", invalid=(1,))
    with pytest.raises(DatasetError, match="1 of 3 frames cannot be used"):
        convert_dataset(open_dataset(root), out)
    convert_dataset(open_dataset(root), out, tolerated=0.5, default_split="val")
    copy = open_dataset(out, split="val")
    assert copy.names == ("a", "b", "other/a")
    assert copy.load("b").tracked.valid.tolist() == [True, False, True]
    assert copy.load("other/a").spacing_mm == pytest.approx((0.3, 0.2))
    assert convert_dataset(open_dataset(root), out, tolerated=0.5).kept == copy.names


def test_a_name_beside_the_ultrasound_is_blacked_out_unless_that_is_switched_off(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    save_sweep(named_sweep(), tmp_path / "in" / "scan.igs.mha")
    clean, named = named_frames(None), named_frames()

    def converted(folder, *options):
        assert main(["dataset", "convert", str(tmp_path / "in"), "-o", str(tmp_path / folder), *options]) == 0
        (entry,) = open_dataset(tmp_path / folder)
        return entry.load().window(0, len(named))

    np.testing.assert_array_equal(converted("out"), clean)
    assert "kept 1" in (converted("out"), capsys.readouterr().out)[1]
    np.testing.assert_array_equal(converted("named", "--mask", "none"), named)
    boxed = named.copy()
    boxed[:, 4:24, :100] = 0
    np.testing.assert_array_equal(converted("boxed", "--mask", "0,4,100,20"), boxed)
    # What was written with the name is not kept as if it had none.
    assert main(["dataset", "convert", str(tmp_path / "in"), "-o", str(tmp_path / "named")]) == 2
    assert "written with another mask" in capsys.readouterr().err


def test_a_set_is_not_converted_into_itself(tmp_path):
    root = dualtrack_table(tmp_path / "set")
    with pytest.raises(DatasetError, match="of the data set itself; convert into another folder"):
        convert_dataset(open_dataset(root), root / "sweeps")


def test_names_that_no_file_can_have_stay_inside_the_folder(tmp_path):
    root = dualtrack_table(tmp_path / "set")
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace("sweep_0", "../../a b:c").replace("sweep_1", "d\\e"))
    done = convert_dataset(open_dataset(root), tmp_path / "deep" / "er" / "out")
    assert [row["processed_sweep_path"] for row in rows(done.table.parent)] == ["_/_/a_b_c.h5", "d/e.h5", "sweep_2.h5"]
    table.write_text(table.read_text().replace("d\\e", "SWEEP_2"))
    with pytest.raises(DatasetError, match="SWEEP_2 and sweep_2 would both be written to"):
        convert_dataset(open_dataset(root), tmp_path / "out")


def test_an_interrupted_command_says_that_finished_sweeps_stay(tmp_path, monkeypatch, capsys):
    from DualTrackCore.cli import research

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(research, "convert_dataset", interrupted)
    assert main(["dataset", "convert", str(dualtrack_table(tmp_path / "set")), "-o", str(tmp_path / "out")]) == 1
    assert "the same command continues from there" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert (
        main(["dataset", "convert", str(dualtrack_table(tmp_path / "set")), "-o", str(tmp_path / "file" / "out")]) == 2
    )
    assert f"Cannot write {tmp_path / 'file' / 'out'}" in capsys.readouterr().err
