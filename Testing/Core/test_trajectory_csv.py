"""Trajectory tables: full precision there and back, and what is refused."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.io import read_trajectory_csv, write_trajectory_csv
from DualTrackCore.io.trajectory_csv import writing_trajectory_csv
from DualTrackCore.trajectory import Trajectory

MOTION = np.array([[0.1, 0.2, 0.5, 1.0, -2.0, 3.0], [0.3, -0.1, 0.4, 0.2, 0.1, -0.7]])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "trajectory.csv"
    write_trajectory_csv(Trajectory.from_parameters(MOTION), path, np.array([1.5, 1.6, 1.7]))
    return path


def test_the_table_has_the_promised_columns(table):
    lines = table.read_text().split("\n")
    numbers = ",".join(f"m{i}{j}" for i in range(4) for j in range(4))
    assert (
        lines[0]
        == f"frame,timestamp_s,valid,{numbers},origin,estimated_by,weights_sha256,guess,expected_error,warnings"
    )
    assert lines[1] == "0,1.5,1,1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1,unknown,,,,,"
    assert lines[2].split(",")[:3] == ["1", "1.6000000000000001", "1"]
    assert len(lines) == 5
    assert lines[4] == ""


@given(
    motion=st.lists(st.tuples(*[st.floats(-179, 179)] * 6), min_size=1, max_size=6),
    flags=st.lists(st.booleans(), min_size=7, max_size=7),
)
def test_poses_are_read_back_to_the_last_bit(tmp_path_factory, motion, flags):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    poses = Trajectory.from_parameters(np.array(motion)).poses
    trajectory = Trajectory(poses, flags[: len(poses)])
    write_trajectory_csv(trajectory, path)
    again = read_trajectory_csv(path)
    np.testing.assert_array_equal(again.poses, trajectory.poses)
    np.testing.assert_array_equal(again.valid, trajectory.valid)


def test_invalid_poses_may_be_anything(tmp_path):
    poses = np.stack([np.eye(4), np.full((4, 4), np.nan)])
    write_trajectory_csv(Trajectory(poses, [True, False]), tmp_path / "t.csv")
    again = read_trajectory_csv(tmp_path / "t.csv")
    assert again.valid.tolist() == [True, False]
    assert np.isnan(again.poses[1]).all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("frame,", "index,", "first line"),
        ("\n1,", "\n2,", "expected 1"),
        ("\n0,1.5,1,1,0", "\n0,1.5,1,nan,0", "not finite"),
        ("\n0,1.5,1,1,0", "\n0,1.5,1,inf,0", "not finite"),
        ("\n0,1.5,1,1,0", "\n0,1.5,1,x,0", "no number"),
        ("\n0,1.5,1,1,0", "\n0,1.5,1,2,0", "rigid"),
        ("\n0,1.5,1,", "\n0,1.5,yes,", "0 or 1"),
        ("\n0,1.5,1,1,", "\n0,1.5,1,", "columns"),
    ],
)
def test_a_table_that_is_not_right_is_refused_with_its_name(table, old, new, said):
    content = table.read_text()
    assert old in content
    table.write_text(content.replace(old, new, 1))
    with pytest.raises(InputError, match=said) as caught:
        read_trajectory_csv(table)
    assert "trajectory.csv" in str(caught.value)


def test_a_table_cut_anywhere_is_refused_or_is_a_shorter_table(table):
    whole = read_trajectory_csv(table)
    data = table.read_bytes()
    for length in range(0, len(data), 7):
        table.write_bytes(data[:length])
        try:
            part = read_trajectory_csv(table)
        except InputError:
            continue
        np.testing.assert_allclose(part.poses, whole.poses[: len(part)], atol=1)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("binary.csv", "empty.csv", "absent.csv", "."):
        with pytest.raises(InputError):
            read_trajectory_csv(tmp_path / name)


def test_times_of_another_number_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(InputError, match="3 poses came with 2 times"):
        write_trajectory_csv(Trajectory.from_parameters(MOTION), tmp_path / "t.csv", [0.0, 1.0])
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        write_trajectory_csv(Trajectory.from_parameters(MOTION), tmp_path / "file" / "t.csv")


def test_a_long_table_is_written_in_pieces_and_one_that_is_stopped_leaves_no_file(tmp_path):
    long = Trajectory(np.tile(np.eye(4), (450, 1, 1)), origin="measured")
    stopped = writing_trajectory_csv(long, tmp_path / "a.csv")
    next(stopped), next(stopped)
    assert not (tmp_path / "a.csv").exists()
    stopped.close()
    assert not list(tmp_path.iterdir())
    assert len(list(writing_trajectory_csv(long, tmp_path / "a.csv"))) >= 3
    assert len(read_trajectory_csv(tmp_path / "a.csv")) == 450
