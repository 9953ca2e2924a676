"""Displacement fields of the TUS-REC challenge: definition, files, check, and the function for its container."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_folders import change_h5, landmark_rows, seed_of, tus_rec_validation
from hdf5_files import SPACING, random_poses

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.research import submission
from DualTrackCore.research.datasets import open_dataset
from DualTrackCore.research.submission import Fields, submit_dataset
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
SIZE = (9, 7)
MARKS = np.array([[1, 1, 1], [4, 7, 9], [2, 3, 5], [5, 7, 1]])


def challenge_fields(tool_poses, rigid, places):
    """The definition, step by step in fp64: mm from the top left, tool to tool; `places` [3, P] are pixels from 1."""
    inverse, scale = np.linalg.inv, np.diag([*SPACING, 1, 1])
    points = scale @ np.vstack([places, np.zeros(places.shape[1]), np.ones(places.shape[1])])
    fields = {"G": [], "L": []}
    for i in range(1, len(tool_poses)):
        for kind, other in (("G", 0), ("L", i - 1)):
            motion = inverse(rigid) @ inverse(tool_poses[other]) @ tool_poses[i] @ rigid
            fields[kind].append((motion @ points - points)[:3])
    return {kind: np.array(field) for kind, field in fields.items()}


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """Two scans of the validation layout of 2025, with the poses, and a copy as the test set comes: without them."""
    root = tmp_path_factory.mktemp("challenge")
    tus_rec_validation(root / "val", ("050",), ("LH_rotation", "RH_rotation"), folder="landmarks", landmarks=100)
    shutil.copytree(root / "val", root / "test")
    shutil.rmtree(root / "test" / "transfs")
    return root


def straight(sweep):
    return Trajectory.from_parameters(np.tile([0.1, 0, 0.3, 0, 2, 0], (len(sweep) - 1, 1)))


@pytest.fixture(scope="module")
def submitted(challenge, tmp_path_factory):
    """Folder of the fields of the scans without poses, and what was measured."""
    folder = tmp_path_factory.mktemp("submitted")
    return folder, submit_dataset(open_dataset(challenge / "test"), folder, straight)


def test_fields_of_true_poses_are_those_that_the_challenge_computes(challenge):
    """On every pixel and landmark, from the tool poses and the calibration as the published pages say."""
    from DualTrackCore.io.tus_rec import read_calib_matrix

    entry = open_dataset(challenge / "val").entry("050/LH_rotation")
    sweep, landmarks = entry.load(), entry.landmarks()
    rigid = read_calib_matrix(challenge / "val" / "calib_matrix.csv") @ np.diag([1 / SPACING[0], 1 / SPACING[1], 1, 1])
    rows, columns = np.mgrid[: sweep.frame_size[0], : sweep.frame_size[1]]
    tool = random_poses(len(sweep), seed_of("050", "LH_rotation"))
    for from_one in (True, False):
        fields = Fields.of(sweep.tracked, sweep, landmarks, from_one)
        places = np.array([columns.ravel(), rows.ravel()]) + from_one
        expected = challenge_fields(tool, rigid, places)
        for kind in "GL":
            np.testing.assert_allclose(fields.of_pixels(kind, 0, len(fields)), expected[kind], atol=1e-6)
            marks = landmark_rows(100)
            at = expected[kind].reshape(len(fields), 3, *sweep.frame_size)
            official = at[marks[:, 0] - 1, :, marks[:, 2] - 1, marks[:, 1] - 1].T
            np.testing.assert_allclose(fields.of_landmarks(kind), official, atol=1e-6)


def test_a_submission_holds_four_fields_a_scan_in_float32_and_needs_no_poses(submitted):
    folder, results = submitted
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.h5")) == [
        "050/LH_rotation.h5",
        "050/RH_rotation.h5",
    ]
    with h5py.File(folder / "050" / "LH_rotation.h5") as file:
        assert {name: (file[name].shape, file[name].dtype) for name in file} == {
            "GP": ((5, 3, 192), np.float32),
            "LP": ((5, 3, 192), np.float32),
            "GL": ((3, 100), np.float32),
            "LL": ((3, 100), np.float32),
        }
    assert all(np.isnan(results["050/LH_rotation"][name]) for name in ("gpe_mm", "gle_mm", "tus_rec_score"))


def test_the_check_reads_the_fields_back_and_gives_our_own_score(challenge, submitted):
    folder, _ = submitted
    dataset = open_dataset(challenge / "val")
    for name, found in submit_dataset(dataset, folder, straight, check_only=True).items():
        sweep = dataset.load(name)
        landmarks = dataset.landmarks(name)
        inside = landmarks.frames > 0
        landmarks = Landmarks(landmarks.frames[inside], landmarks.pixels[inside])
        ours = evaluate(straight(sweep), sweep, landmarks=landmarks, tus_rec_pixels=True).metrics
        for figure in ("gpe_mm", "lpe_mm", "gle_mm", "lle_mm", "tus_rec_score"):
            assert found[figure] == pytest.approx(ours[figure], rel=1e-6)


@pytest.mark.parametrize("from_one", [False, True])
def test_means_over_all_pixels_are_those_of_brute_force_in_fp64(from_one):
    random = np.random.default_rng(3)
    truth, other = (Trajectory.from_parameters(random.normal(size=(5, 6)), origin="measured") for _ in range(2))
    sweep = Sweep(np.zeros((6, *SIZE), np.uint8), SPACING, tracked=truth)
    found = evaluate(other, sweep, landmarks=Landmarks.from_tus_rec(MARKS), tus_rec_pixels=from_one).metrics
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    centre = (np.array(SIZE[::-1]) - 1) / 2
    places = (np.array([columns.ravel(), rows.ravel()]).T + from_one - centre) * SPACING
    points = np.column_stack([places, np.zeros(len(places)), np.ones(len(places))]).T
    steps = [np.array([np.linalg.inv(p[i]) @ p[i + 1] for i in range(5)]) for p in (other.poses, truth.poses)]
    for name, (one, two) in {"gpe_mm": (other.poses[1:], truth.poses[1:]), "lpe_mm": steps}.items():
        brute = np.mean([np.linalg.norm((a - b)[:3] @ points, axis=0).mean() for a, b in zip(one, two, strict=True)])
        assert found[name] == pytest.approx(brute, rel=1e-12)
        landmark = {"gpe_mm": "gle_mm", "lpe_mm": "lle_mm"}[name]
        at = [(frame - 1, (row - 1) * SIZE[1] + column - 1) for frame, column, row in MARKS]
        brute = np.mean([np.linalg.norm((one[f] - two[f])[:3] @ points[:, place]) for f, place in at])
        assert found[landmark] == pytest.approx(brute, rel=1e-12)


def test_counting_pixels_from_one_changes_the_errors_and_not_the_five_points():
    sweep = Sweep(
        np.zeros((6, *SIZE), np.uint8),
        SPACING,
        tracked=Trajectory.from_parameters(np.tile([0, 0, 0.3, 2, 1, 0], (5, 1)), origin="measured"),
    )
    one, two = (evaluate(straight(sweep), sweep, tus_rec_pixels=flag).metrics for flag in (False, True))
    assert one["gpe_mm"] != pytest.approx(two["gpe_mm"], rel=1e-4)
    assert one["gpe_five_point_mm"] == two["gpe_five_point_mm"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"LP": None}, "has nothing as LP"),
        ({"GP": np.zeros((5, 3, 191), np.float32)}, r"has float32 \[5, 3, 191\] as GP; expected float32 \[5, 3, 192\]"),
        ({"GL": np.zeros((3, 100))}, r"has float64 \[3, 100\] as GL"),
        ({"LL": np.full((3, 100), np.nan, np.float32)}, "a number in LL that is not finite"),
        ({"GP": np.full((5, 3, 192), np.inf, np.float32)}, "a number in GP that is not finite"),
    ],
)
def test_the_check_refuses_what_the_challenge_could_not_score(challenge, submitted, tmp_path, damage, words):
    shutil.copytree(submitted[0], tmp_path / "copy")
    change_h5(tmp_path / "copy" / "050" / "RH_rotation.h5", **damage)
    with pytest.raises(InputError, match=words):
        submit_dataset(open_dataset(challenge / "val"), tmp_path / "copy", straight, check_only=True)


def test_a_frame_without_a_pose_and_a_full_disk_are_refused_and_nothing_is_written(challenge, tmp_path, monkeypatch):
    def lost(sweep):
        valid = np.arange(len(sweep)) != 3
        return Trajectory(straight(sweep).poses, valid)

    dataset = open_dataset(challenge / "test")
    with pytest.raises(InputError, match="Frame 3 of 050/LH_rotation has no pose"):
        submit_dataset(dataset, tmp_path / "out", lost)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(submission.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OutputError, match=r"take 0\.0 GB and the disk has 0\.0 GB left"):
        submit_dataset(dataset, tmp_path / "out", straight)
    assert not (tmp_path / "out").exists()


def test_large_scans_are_written_in_blocks_with_the_same_numbers(challenge, submitted, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "_BLOCK_BYTES", 24 * 192 * 2)
    submit_dataset(open_dataset(challenge / "test"), tmp_path, straight)
    with h5py.File(tmp_path / "050" / "LH_rotation.h5") as one, h5py.File(submitted[0] / "050/LH_rotation.h5") as two:
        for name in two:
            np.testing.assert_array_equal(one[name][()], two[name][()])


def test_the_function_of_the_container_gives_what_the_command_writes(
    challenge, tmp_path, model_file, monkeypatch, capsys
):
    command = ["submit", str(challenge / "val"), "-o", str(tmp_path), "--model", str(model_file), "--quiet"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "050/RH_rotation" in table
    assert "gpe_mm" in table
    scan = challenge / "val" / "frames" / "050" / "LH_rotation.h5"
    with h5py.File(scan) as file:
        given = file["frames"][()]
    calibration = challenge / "val" / "calib_matrix.csv"
    shutil.copytree(model_file.parent, tmp_path / "models")
    (tmp_path / "models" / model_file.name).rename(tmp_path / "models" / "dualtrack-tusrec2025.safetensors")
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    page = (Path(__file__).parents[2] / "Docs" / "evaluation.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], names)  # what the page says to put into the container
    made = names["predict_ddfs"](given, landmark_rows(100), calibration, "cpu")
    with h5py.File(tmp_path / "050" / "LH_rotation.h5") as file:
        for name, field in zip(("GP", "GL", "LP", "LL"), made, strict=True):
            assert field.dtype == np.float32
            np.testing.assert_array_equal(field, file[name][()])
    assert main([*command[:-1], "--check", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "dualtrack submit/1"
    assert result["means"]["gpe_mm"] > 0
    assert result["sweeps"]["050/LH_rotation"]["tus_rec_score"] is not None
