"""Who is for training and who for validation: as the user says, not as a folder is called; nobody on both sides."""

import csv
import os
import shutil
from dataclasses import replace

import pytest
from dataset_folders import CONFIGURATION, SCANS_2024, SCANS_2025, plus_recording, tus_rec_train, tus_rec_validation

from DualTrackCore.cli import main
from DualTrackCore.errors import DatasetError
from DualTrackCore.network import ModelCard
from DualTrackCore.network.catalogue import published_models
from DualTrackCore.progress import Reporter
from DualTrackCore.research.datasets import check_dataset, dealt, open_dataset
from DualTrackCore.research.datasets.check import content_of
from DualTrackCore.research.training.recipe import Data
from DualTrackCore.research.training.sweeps import training_sweeps


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folders of both years as their pages describe them, with names of the right form and few frames."""
    root = tmp_path_factory.mktemp("published")
    tus_rec_train(root / "train-2024", ("000", "001"))
    tus_rec_train(root / "train-2025", ("000", "001"), SCANS_2025, landmarks=100)
    apart = tus_rec_validation(root / "apart-2025", ("000", "001", "002", "003", "004"), SCANS_2025, landmarks=100)
    shutil.rmtree(apart / "transfs" / "004")
    shutil.rmtree(apart / "frames" / "004")
    os.remove(apart / "landmark" / "landmark_004.h5")
    os.remove(apart / "dataset_keys.h5")
    tus_rec_validation(root / "val-2024", ("050", "051"))
    tus_rec_validation(root / "val-2025", ("050", "051"), SCANS_2025, folder="landmarks", landmarks=100)
    return root


def splits(table):
    with table.open(newline="") as file:
        return {row["sweep_id"]: row["split"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("layout", ["train-2024", "train-2025", "apart-2025", "val-2024", "val-2025"])
def test_no_folder_of_the_challenge_tells_a_split_by_its_name(published, layout):
    dataset = open_dataset(published / layout)
    assert {entry.split for entry in dataset} == {None}
    assert {entry.subject for entry in dataset} == {name.split("/")[0] for name in dataset.names}
    assert check_dataset(published / layout) == []
    with pytest.raises(DatasetError, match=r"no sweep whose split is train .*folders say nothing of splits; convert"):
        open_dataset(published / layout, split="train")


def test_the_test_data_of_2024_are_scans_to_estimate_and_none_to_train_on(tmp_path):
    """Their poses are not given out."""
    place = tus_rec_validation(tmp_path / "test-2024", ("060", "061"))
    shutil.rmtree(place / "transfs")
    dataset = open_dataset(place)
    assert [(entry.name, entry.subject, entry.split) for entry in dataset] == [
        (f"{subject}/{scan}", subject, None) for subject in ("060", "061") for scan in SCANS_2024
    ]
    seen = dataset.entry("060/LH_Par_C_PtD").pictures()
    assert seen.tracked is None
    assert seen.spacing_mm is not None
    with pytest.raises(DatasetError, match=r"060.LH_Par_C_PtD\.h5 has no poses, .*; put its poses beside it"):
        dataset.load("060/LH_Par_C_PtD")


def test_training_data_of_2025_in_frames_and_transfs_trains(published, tmp_path):
    """They were taken for validation, so that a table made of them held nothing to train on."""
    data = Data(kind="tusrec", folder=str(published / "apart-2025"), validation_folder=str(published / "val-2025"))
    training, validation = training_sweeps(data, ModelCard(name="tiny"), tmp_path, 1, Reporter())
    assert (len(training), len(validation)) == (8, 4)
    assert main(["dataset", "convert", str(published / "apart-2025"), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert set(splits(tmp_path / "out" / "metadata.csv").values()) == {"train"}


def test_subjects_are_dealt_to_folds_and_none_lies_on_both_sides(published, tmp_path, capsys):
    deal = ["--split", "by-subject", "--folds", "4", "--seed", "3", "--quiet"]
    assert main(["dataset", "convert", str(published / "apart-2025"), "-o", str(tmp_path), *deal]) == 0
    assert "metadata.csv" in capsys.readouterr().out
    folds = [splits(tmp_path / f"fold-{number}.csv") for number in range(4)]
    assert splits(tmp_path / "metadata.csv") == folds[0]
    held_out = [{name.split("/")[0] for name, split in fold.items() if split == "val"} for fold in folds]
    assert sorted(subject for part in held_out for subject in part) == ["000", "001", "002", "003"]
    for number, fold in enumerate(folds):
        trained = {name.split("/")[0] for name, split in fold.items() if split == "train"}
        assert trained | held_out[number] == {"000", "001", "002", "003"}
        assert not trained & held_out[number]
        assert len(open_dataset(tmp_path / f"fold-{number}.csv", split="val")) == 2
        assert check_dataset(tmp_path / f"fold-{number}.csv") == []


def test_a_set_that_joins_the_table_is_dealt_with_the_others_of_its_subjects(published, tmp_path, capsys):
    """A subject has the same number in both years, so both of its sweeps go to one side."""
    deal = ["-o", str(tmp_path), "--quiet", "--split", "by-subject"]
    assert main(["dataset", "convert", str(published / "apart-2025"), *deal, "--folds", "3"]) == 0
    assert main(["dataset", "convert", str(published / "train-2024"), *deal, "--folds", "2"]) == 0
    assert sorted(path.name for path in tmp_path.glob("fold-*.csv")) == ["fold-0.csv", "fold-1.csv"]
    joint = splits(tmp_path / "fold-1.csv")
    assert len(joint) == 12
    for subject in ("000", "001"):
        assert len({split for name, split in joint.items() if name.startswith(subject)}) == 1
    capsys.readouterr()
    assert main(["dataset", "convert", str(published / "val-2025"), "-o", str(tmp_path), "--quiet"]) == 2
    assert "dealt; deal all of them again" in capsys.readouterr().err


def test_the_same_subjects_and_seed_give_the_same_folds_and_another_seed_others(published):
    entries = [
        replace(e, name=f"{i}/a", subject=str(i)) for i, e in enumerate([*open_dataset(published / "val-2025")] * 3)
    ]
    assert dealt(entries, 5, 1) == dealt(entries[::-1], 5, 1)
    assert dealt(entries, 5, 1) != dealt(entries, 5, 2)
    kept = dealt([replace(entries[0], split="test"), *entries[1:]], 2, 0)
    assert all("0/a" not in fold for fold in kept)


@pytest.mark.parametrize(
    ("folds", "words"), [(1, "1 folds were asked for, of 4"), (5, "5 folds were asked for, of 4 subjects")]
)
def test_folds_without_enough_subjects_are_refused_before_the_work(published, tmp_path, folds, words, capsys):
    out = tmp_path / "out"
    deal = ["--split", "by-subject", "--folds", str(folds)]
    assert main(["dataset", "convert", str(published / "apart-2025"), "-o", str(out), *deal]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_recordings_that_say_nothing_of_their_subject_are_dealt_by_a_file_only(tmp_path, capsys):
    for name in ("a", "b"):
        plus_recording(tmp_path / "in" / f"{name}.igs.mha")
    (tmp_path / "in" / "probe.xml").write_text(CONFIGURATION)
    command = ["dataset", "convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--split", "by-subject"]
    assert main([*command, "--folds", "2"]) == 2
    assert "Nothing says of whom the sweep a is; put the recordings of each subject" in capsys.readouterr().err
    (tmp_path / "who.csv").write_text("sweep_id,subject\na,Ann\nb,Bob\n")
    assert main([*command, "--folds", "2", "--splits", str(tmp_path / "who.csv")]) == 0
    assert set(splits(tmp_path / "out" / "metadata.csv").values()) == {"train", "val"}
    assert [entry.subject for entry in open_dataset(tmp_path / "out")] == ["Ann", "Bob"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject,split\n000,train\n001,val\n", None),
        ("sweep_id,split\n000/LH_rotation,train\n", "has no row for the sweep 000/RH_rotation; add one"),
        ("subject,split\n000,train\n", "has no row for the sweep 001/LH_rotation, of the subject 001,; add one"),
        ("subject,split\n000,train\n000,val\n001,val\n", "says two things of 000"),
        ("who,split\n000,train\n", "needs the column sweep_id or subject"),
        (
            "sweep_id,split\n000/LH_rotation,train\n000/RH_rotation,val\n001/LH_rotation,val\n001/RH_rotation,val\n",
            "the subject 000 is in two splits, train and val; keep all sweeps of a subject in one split",
        ),
    ],
)
def test_a_file_of_splits_is_followed_or_refused_with_the_remedy(published, tmp_path, text, words, capsys):
    (tmp_path / "splits.csv").write_text(text)
    out, given = tmp_path / "out", ["--splits", str(tmp_path / "splits.csv")]
    code = main(["dataset", "convert", str(published / "train-2025"), "-o", str(out), *given])
    if words is None:
        assert code == 0
        assert splits(out / "metadata.csv") == {
            f"{subject}/{side}_rotation": split
            for subject, split in (("000", "train"), ("001", "val"))
            for side in ("LH", "RH")
        }
        return
    assert code == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_second_set_whose_subjects_are_on_the_other_side_is_refused_before_the_work(published, tmp_path, capsys):
    assert main(["dataset", "convert", str(published / "train-2024"), "-o", str(tmp_path), "--quiet"]) == 0
    before = (tmp_path / "metadata.csv").read_text()
    command = ["dataset", "convert", str(published / "apart-2025"), "-o", str(tmp_path), "--default-split", "val"]
    assert main(command) == 2
    assert "the subject 000 is in two splits, train and val" in capsys.readouterr().err
    assert (tmp_path / "metadata.csv").read_text() == before
    assert not list(tmp_path.rglob("*rotation*"))


def test_training_refuses_a_subject_or_a_linked_file_on_both_sides(published, tmp_path):
    def sweeps(folder, validation):
        data = Data(kind="tusrec", folder=str(folder), validation_folder=str(validation))
        return training_sweeps(data, ModelCard(name="tiny"), tmp_path, 1, Reporter())

    with pytest.raises(DatasetError, match="the subject 000 is in two splits, train and val"):
        sweeps(published / "train-2024", published / "apart-2025")
    linked = tmp_path / "linked"
    shutil.copytree(published / "train-2024", linked)
    (linked / "frames_transfs" / "000").rename(linked / "frames_transfs" / "070")
    (linked / "frames_transfs" / "001").rename(linked / "frames_transfs" / "071")
    path = linked / "frames_transfs" / "070" / "LH_Par_C_PtD.h5"
    path.unlink()
    os.link(published / "train-2024" / "frames_transfs" / "000" / "LH_Par_C_PtD.h5", path)
    with pytest.raises(DatasetError, match=r"the sweep 070/LH_Par_C_PtD is in two splits.*the other file is"):
        sweeps(published / "train-2024", linked)


def test_the_cards_of_the_published_models_name_the_probe_of_the_challenge():
    for entry in published_models().values():
        assert "curvilinear probe (4DC7-3/40, 6 MHz, 83 dB, depth 9 cm)" in entry.card.training_data
        assert " linear" not in entry.card.training_data


def test_a_copy_under_the_name_of_another_subject_is_found_and_not_trained_on(published, tmp_path):
    """Whatever its format: here the data set that `convert` makes of some of the training sweeps."""
    copied = tmp_path / "copied"
    shutil.copytree(published / "train-2024", copied / "other")
    for old, new in (("000", "070"), ("001", "071")):
        (copied / "other" / "frames_transfs" / old).rename(copied / "other" / "frames_transfs" / new)
        (copied / "other" / "landmarks" / f"landmark_{old}.h5").rename(
            copied / "other" / "landmarks" / f"landmark_{new}.h5"
        )
    data = Data(
        kind="tusrec",
        folder=str(published / "train-2024"),
        validation_folder=str(copied / "other"),
    )
    with pytest.raises(
        DatasetError, match=r"070.LH_Par_C_PtD\.h5, for validation, is a copy of .*000.LH_Par_C_PtD\.h5"
    ):
        training_sweeps(data, ModelCard(name="tiny"), tmp_path, 1, Reporter())
    shutil.copytree(published / "train-2024", copied / "first")
    found = check_dataset(copied)
    assert [finding.sweep for finding in found if "one is a copy" in finding.problem] == [
        f"{subject}/{scan}" for subject in ("070", "071") for scan in ("LH_Par_C_PtD", "RH_Per_L_DtP")
    ]
    assert main(["dataset", "convert", str(copied / "other"), "-o", str(tmp_path / "h5"), "--quiet"]) == 0
    one, other = (
        open_dataset(tmp_path / "h5").load("070/LH_Par_C_PtD"),
        open_dataset(copied / "first").load("000/LH_Par_C_PtD"),
    )
    assert content_of(one) == content_of(other)
