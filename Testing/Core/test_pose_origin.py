"""Poses say where they are from through every format and operation, and only measured and simulated ones are truth."""

import csv
import itertools
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from dataset_folders import CONFIGURATION, dualtrack_table, plus_recording, tus_rec_train, write_h5
from training_data import tiny_recipe

from DualTrackCore.cli import main
from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.progress import Reporter
from DualTrackCore.research.comparison.methods import MeanMotion
from DualTrackCore.research.datasets import check_dataset, convert_dataset, open_dataset
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.sweeps import training_sweeps
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory
from DualTrackCore.worker.job import read_sweep, write_sweep

FRAMES = 6
SUFFIXES = (".igs.mha", ".seq.nrrd", ".h5")
GUESS = "On this sweep\nits motion is a guess."
MODEL = {"model": "mini", "weights_sha256": "ab" * 32, "warnings": [GUESS]}
NOT_TRUE = ("unknown", "estimated")


def path_of(origin, **source):
    motions = np.tile([0.1, 0.0, 0.5, 0.0, 1.0, 0.0], (FRAMES - 1, 1))
    return Trajectory.from_parameters(motions, source, origin)


def sweep_of(origin, **source):
    pixels = np.random.default_rng(1).integers(0, 256, (FRAMES, 72, 80), dtype=np.uint8)
    return Sweep(pixels, (0.5, 0.4), np.arange(FRAMES) / 20, tracked=path_of(origin, **source))


@pytest.fixture
def dualtrack(capsys):
    """Run a command in this process: (exit code, stdout and stderr)."""

    def command(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


@pytest.fixture
def recorded(tmp_path):
    """A recording without tracking, and a table of its poses from another program."""
    sweep = sweep_of("unknown")
    save_sweep(replace(sweep, tracked=None), tmp_path / "clip.h5")
    write_trajectory_csv(sweep.tracked, tmp_path / "own.csv")
    rows = list(csv.reader((tmp_path / "own.csv").open()))
    (tmp_path / "elsewhere.csv").write_text("".join(",".join(row[:19]) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_estimate_never_becomes_the_truth_of_a_later_run(dualtrack, recorded, model_file, suffix):
    table, made = recorded / "estimate.csv", recorded / f"made{suffix}"
    options = ("--model", model_file)
    assert dualtrack("track", recorded / "clip.h5", *options, "-o", table)[0] == 0
    code, words = dualtrack("convert", recorded / "clip.h5", made, "--poses", table)
    assert code == 0
    assert "estimated by tiny" in words
    assert load_sweep(made).tracked.origin is PoseOrigin.ESTIMATED
    assert load_sweep(made).tracked.provenance["weights_sha256"]
    assert "poses " in dualtrack("info", made)[1]
    facts = json.loads(dualtrack("info", made, "--json")[1])
    assert (facts["tracked_frames"], facts["poses_origin"]) == (None, "estimated")
    assert dualtrack("run", made, *options, "--no-reconstruct", "--no-pictures", "-o", recorded / "out")[0] == 0
    report = json.loads((recorded / "out" / "report.json").read_text())
    assert report["evaluation"] is None
    assert report["trajectory"]["origin"] == "estimated"
    code, words = dualtrack("run", made, *options, "--poses-are", "measured", "-o", recorded / "again")
    assert code == 2
    assert "estimated by tiny (a guess), so they cannot be taken as measured" in words
    assert not (recorded / "again").exists()


@pytest.mark.parametrize("origin", [member.value for member in PoseOrigin])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_every_format_keeps_where_poses_are_from(tmp_path, origin, suffix):
    sweep, path = sweep_of(origin, **(MODEL if origin == "estimated" else {})), tmp_path / f"file{suffix}"
    if suffix == ".csv":
        write_trajectory_csv(sweep.tracked, path)
        read = read_trajectory_csv(path)
    else:
        save_sweep(sweep, path)
        read = load_sweep(path).tracked
    assert read.origin == origin
    if origin == "estimated":
        kept = {name: read.provenance[name] for name in MODEL}
        assert kept == {**MODEL, "warnings": [" ".join(GUESS.split())]}
    np.testing.assert_allclose(read.poses, sweep.tracked.poses, atol=1e-12)


def test_a_worker_is_told_where_poses_are_from(tmp_path):
    for origin in PoseOrigin:
        folder = tmp_path / origin.value
        folder.mkdir()
        list(write_sweep(folder, sweep_of(origin)))
        assert read_sweep(folder).tracked.origin is origin


def test_a_table_from_elsewhere_is_no_truth_until_the_user_says_that_it_was_measured(dualtrack, recorded):
    clip, table = recorded / "clip.h5", recorded / "elsewhere.csv"
    assert read_trajectory_csv(table).origin is PoseOrigin.UNKNOWN
    code, words = dualtrack("convert", clip, recorded / "doubted.igs.mha", "--poses", table)
    assert code == 0
    assert "--poses-are measured" in words
    assert load_sweep(recorded / "doubted.igs.mha").truth is None
    said = ("--poses-are", "measured")
    assert dualtrack("convert", clip, recorded / "said.igs.mha", "--poses", table, *said)[0] == 0
    assert load_sweep(recorded / "said.igs.mha").truth is not None
    # What was converted without the word can be mended later.
    assert dualtrack("convert", recorded / "doubted.igs.mha", recorded / "mended.h5", *said)[0] == 0
    assert load_sweep(recorded / "mended.h5").truth is not None


@pytest.mark.parametrize(("said", "is_measured"), [(None, False), ("measured", True), ("estimated", False)])
def test_a_run_measures_its_error_against_poses_that_the_user_vouches_for(model_file, said, is_measured):
    settings = RunSettings(model=str(model_file), reconstruct=False, poses_are=said)
    result = run(sweep_of("unknown"), settings)
    assert (result.evaluation is not None) == is_measured
    assert any("poses_are='measured'" in text for text in result.warnings) == (said is None)


@pytest.mark.parametrize("others", ["measured", "simulated", "", "Measured", "unknown"])
def test_a_table_is_as_good_as_its_worst_line(tmp_path, others):
    path = tmp_path / "mixed.csv"
    write_trajectory_csv(path_of("measured"), path)
    rows = list(csv.reader(path.open()))
    rows[3][19] = others
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    expected = others if others in ("measured", "simulated") else "unknown"
    assert read_trajectory_csv(path).origin == expected
    rows[4][19] = "estimated"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    assert read_trajectory_csv(path).origin == "estimated"


@pytest.mark.parametrize("word", ["true", "", "measured by hand", b"\xff"])
def test_words_that_a_file_makes_up_are_no_truth(tmp_path, word):
    path = tmp_path / "sweep.h5"
    save_sweep(sweep_of("measured"), path)
    with h5py.File(path, "a") as file:
        file["tracking"].attrs["origin"] = word
    assert load_sweep(path).tracked.origin is PoseOrigin.UNKNOWN


def test_a_file_that_names_a_model_holds_estimates_whatever_else_it_says(tmp_path):
    path = tmp_path / "sweep.mha"
    save_sweep(sweep_of("measured"), path)
    field = b"DualTrackPosesOrigin = measured\n"
    content = path.read_bytes()
    assert field in content
    path.write_bytes(content.replace(field, field + b"DualTrackPosesEstimatedBy = mini\n"))
    assert load_sweep(path).truth is None


def test_recordings_of_trackers_without_our_mark_are_measured(tmp_path):
    plus_recording(tmp_path / "plus" / "a.igs.mha")
    (tmp_path / "plus" / "probe.xml").write_text(CONFIGURATION)
    root = tus_rec_train(tmp_path / "tus")
    challenge = next((root / "frames_transfs").rglob("*.h5"))
    write_h5(tmp_path / "other.h5", images=np.zeros((3, 4, 5), np.uint8), tracking=np.tile(np.eye(4), (3, 1, 1)))
    calibrated = load_sweep(tmp_path / "plus" / "a.igs.mha", calibration=tmp_path / "plus" / "probe.xml")
    for sweep in (calibrated, load_sweep(challenge), load_sweep(tmp_path / "other.h5")):
        assert sweep.truth.origin is PoseOrigin.MEASURED


@pytest.mark.parametrize("origin", NOT_TRUE)
def test_nothing_is_measured_against_poses_that_are_no_truth(origin):
    sweep = sweep_of(origin)
    with pytest.raises(InputError, match="so they are no truth"):
        evaluate(path_of("estimated"), sweep)
    with pytest.raises(InputError, match="so they are no truth"):
        MeanMotion.calibrated([sweep])


@pytest.mark.parametrize("origin", NOT_TRUE)
def test_data_sets_and_training_refuse_poses_that_are_no_truth(tmp_path, origin):
    root = dualtrack_table(tmp_path / "set")
    with h5py.File(root / "sweeps" / "0.h5", "a") as file:
        file["tracking"].attrs["origin"] = origin
    (finding,) = check_dataset(root)
    assert origin in finding.problem
    with pytest.raises(DatasetError, match=origin):
        convert_dataset(open_dataset(root), tmp_path / "out")
    recipe = tiny_recipe("local1", root / "metadata.csv")
    with pytest.raises(DatasetError, match=origin):
        training_sweeps(recipe.data, recipe_card(recipe), tmp_path, 1, Reporter())


@pytest.fixture
def doubted(tmp_path):
    """A table of files whose poses are of unknown origin."""
    root = dualtrack_table(tmp_path / "set")
    for path in root.rglob("*.h5"):
        with h5py.File(path, "a") as file:
            file["tracking"].attrs["origin"] = "unknown"
    return root


def test_a_data_set_of_unknown_poses_is_measured_where_the_user_says_so(dualtrack, doubted, tmp_path, monkeypatch):
    monkeypatch.setattr("DualTrackCore.research.report.write_report", lambda *_, **__: [])
    said, out = ("--poses-are", "measured"), tmp_path / "out"
    evaluation = ("evaluate", doubted, "-o", out, "--method", "identity")
    for command in (evaluation, ("dataset", "check", doubted), ("dataset", "convert", doubted, "-o", tmp_path / "h5")):
        code, words = dualtrack(*command)
        assert code == 2
        assert "--poses-are measured" in words
        assert dualtrack(*command, *said)[0] == 0
    values = json.loads((out / "evaluation.json").read_text())
    assert list(values["true_poses"]) == ["measured"]
    assert values["poses_are"].startswith("measured, says the user")
    converted = open_dataset(tmp_path / "h5")
    assert {entry.load().tracked.origin for entry in converted} == {PoseOrigin.MEASURED}
    # What the user says later is not taken from results that are finished.
    assert dualtrack(*evaluation, "--poses-are", "simulated")[0] == 0
    assert list(json.loads((out / "evaluation.json").read_text())["true_poses"]) == ["simulated"]


def test_training_takes_unknown_poses_where_the_recipe_says_that_they_were_measured(doubted, tmp_path):
    recipe = tiny_recipe("local1", doubted / "metadata.csv")
    with pytest.raises(DatasetError, match=r"data\.poses_are"):
        training_sweeps(recipe.data, recipe_card(recipe), tmp_path, 1, Reporter())
    data = replace(recipe.data, poses_are="measured")
    for part in training_sweeps(data, recipe_card(recipe), tmp_path, 1, Reporter()):
        assert {sweep.tracked.origin for sweep in part.sweeps} == {PoseOrigin.MEASURED}


def test_a_data_set_whose_files_say_where_their_poses_are_from_is_not_made_another(dualtrack, tmp_path):
    root = dualtrack_table(tmp_path / "set")
    code, words = dualtrack("dataset", "check", root, "--poses-are", "simulated")
    assert code == 2
    assert "measured by a tracker, not simulated; leave --poses-are out" in words
    assert dualtrack("dataset", "check", root, "--poses-are", "measured")[0] == 0


def test_a_conversion_does_not_keep_a_file_that_says_another_origin(tmp_path):
    dataset = open_dataset(dualtrack_table(tmp_path / "set"))
    convert_dataset(dataset, tmp_path / "out")
    first = next((tmp_path / "out").rglob("*.h5"))
    with h5py.File(first, "a") as file:
        file["tracking"].attrs["origin"] = "unknown"
    with pytest.raises(DatasetError, match="holds another sweep"):
        convert_dataset(dataset, tmp_path / "out")


@pytest.mark.parametrize("origin", list(PoseOrigin))
def test_a_part_of_a_path_is_of_the_same_origin(origin):
    assert path_of(origin).slice(2, 5).origin is origin
    assert sweep_of(origin).slice(2, 5).tracked.origin is origin


def test_what_was_made_from_several_kinds_has_the_worst_origin():
    order = ["measured", "simulated", "unknown", "estimated"]
    for better, worse in itertools.pairwise(order):
        assert PoseOrigin.worst([better, worse, better]) == worse
    assert PoseOrigin.worst([]) is PoseOrigin.UNKNOWN
    assert Trajectory(np.tile(np.eye(4), (2, 1, 1))).origin is PoseOrigin.UNKNOWN
    with pytest.raises(InputError, match="'tracked'; expected one of measured, simulated, unknown, estimated"):
        path_of("tracked")
