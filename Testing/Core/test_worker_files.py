"""What goes through files from one process to the other: sweeps, results and failures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from oracle import noise_sweep

from DualTrackCore.errors import InputError
from DualTrackCore.files import plain_values
from DualTrackCore.reconstruction import Reconstruction, VoxelGrid
from DualTrackCore.run.results import RunReport, RunResult, run_report
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker import JobFailed
from DualTrackCore.worker.job import read_result, read_sweep, write_result, write_sweep

STEPS = np.array([[0.1, -0.2, 0.3, 1.0, -2.0, 0.5]])


def steady_trajectory(frames: int, **changes) -> Trajectory:
    return Trajectory.from_parameters(np.repeat(STEPS, frames - 1, axis=0), **changes)


def test_plain_values_are_what_json_knows():
    values = {"a": np.arange(2), 3: (np.float32(0.5), float("nan")), "p": np.bool_(True), "s": {1}, "o": object}
    plain = plain_values(values)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain == {"a": [0, 1], "3": [0.5, None], "p": True, "s": [1], "o": str(object)}


def test_a_failure_is_a_sentence_with_what_a_report_needs(tmp_path):
    failure = JobFailed("It failed.", tmp_path / "a.log", "last lines", "memory")
    assert (str(failure), failure.log_path, failure.details, failure.kind) == (
        "It failed.",
        tmp_path / "a.log",
        "last lines",
        "memory",
    )


def test_a_sweep_comes_back_from_its_files_as_it_was(tmp_path):
    tracked = Trajectory.from_reference(
        steady_trajectory(7).poses, np.arange(7) != 3, provenance={"device": "a tracker"}
    )
    tracked = replace(tracked, sigma=np.where(np.arange(6)[:, None] == 2, np.nan, np.linspace(0, 1 / 3, 6)))
    sweep = noise_sweep(
        7,
        timestamps_s=np.arange(7) / 3,
        frame_valid=np.arange(7) != 5,
        tracked=tracked,
        skew_deg=0.25,
        provenance={"format": "test", "sizes": (1, 2)},
    )
    list(write_sweep(tmp_path, sweep))
    read = read_sweep(tmp_path)
    np.testing.assert_array_equal(read.frames, sweep.frames)
    np.testing.assert_array_equal(read.timestamps_s, sweep.timestamps_s)
    np.testing.assert_array_equal(read.frame_valid, sweep.frame_valid)
    np.testing.assert_array_equal(read.tracked.poses, tracked.poses)
    np.testing.assert_array_equal(read.tracked.valid, tracked.valid)
    np.testing.assert_array_equal(read.tracked.reference_from_frame0, tracked.reference_from_frame0)
    np.testing.assert_array_equal(read.tracked.sigma, tracked.sigma)
    assert read.tracked.provenance == {"device": "a tracker"}
    assert (read.spacing_mm, read.skew_deg) == (sweep.spacing_mm, 0.25)
    assert read.provenance == {"format": "test", "sizes": [1, 2]}


def test_a_part_of_a_sweep_is_written_as_a_slice_of_it(tmp_path, monkeypatch):
    sweep = noise_sweep(70, timestamps_s=np.arange(70) / 20, tracked=steady_trajectory(70))
    monkeypatch.setattr("DualTrackCore.worker.job.WINDOW_PIXELS", 32 * math.prod(sweep.frame_size))
    written = list(write_sweep(tmp_path, sweep.slice(3, 61)))
    read, expected = read_sweep(tmp_path), sweep.slice(3, 61)
    np.testing.assert_array_equal(read.frames, expected.frames)
    np.testing.assert_array_equal(read.timestamps_s, expected.timestamps_s)
    np.testing.assert_array_equal(read.tracked.poses, expected.tracked.poses)
    assert written == [(0, 58), (32, 58), (58, 58)]


def test_frames_that_are_read_when_asked_for_are_written_too(tmp_path):
    class Backwards:
        """A source that is no array: frame i is filled with i."""

        shape, dtype = (40, 4, 5), np.dtype(np.uint8)

        def __getitem__(self, key):
            return np.broadcast_to(np.arange(40, dtype=np.uint8)[key, None, None], (len(range(40)[key]), 4, 5))

    sweep = noise_sweep(1)
    sweep = type(sweep)(Backwards(), sweep.spacing_mm)
    list(write_sweep(tmp_path, sweep.slice(5, 40)))
    np.testing.assert_array_equal(read_sweep(tmp_path).window(0, 35)[:, 2, 3], np.arange(5, 40))


SWEEP = noise_sweep(5)


def result(volume: bool = True) -> RunResult:
    grid = VoxelGrid([1.0, 2.0, 1 / 3], (0.5, 0.25, 0.1), (4, 3, 2), np.eye(3)[:, [1, 2, 0]], note="coarsened")
    grey = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    seen = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    reconstruction = Reconstruction(grey, seen, seen == 0, grid, 4, 1, {"reject_below": 3}) if volume else None
    trajectory = steady_trajectory(
        5, provenance={"model": "tiny", "warnings": ["Beware."]}, sigma=np.full((4, 6), 1 / 7)
    )
    trajectory = replace(trajectory, path_covariance=np.full((5, 7), 1 / 3))
    report = run_report(RunSettings(first_frame=3), SWEEP, trajectory, reconstruction, None)
    report = replace(report, evaluation={"metrics": {"gpe_mm": 1 / 3}})
    return RunResult(SWEEP, trajectory, reconstruction, report, {"total": 0.1})


def test_a_result_comes_back_from_its_files_as_it_was(tmp_path):
    written = result()
    write_result(tmp_path / "result", written)
    read = read_result(tmp_path / "result", SWEEP)
    for name in ("volume", "coverage", "filled"):
        array, expected = getattr(read.reconstruction, name), getattr(written.reconstruction, name)
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype
    np.testing.assert_array_equal(read.trajectory.poses, written.trajectory.poses)
    np.testing.assert_array_equal(read.trajectory.sigma, written.trajectory.sigma)
    np.testing.assert_array_equal(read.trajectory.path_covariance, written.trajectory.path_covariance)
    assert read.trajectory.estimated_by == "tiny"
    np.testing.assert_array_equal(read.grid.mm_from_voxel, written.grid.mm_from_voxel)
    assert (read.grid.size, read.grid.note) == (written.grid.size, "coarsened")
    assert (read.reconstruction.frames_used, read.reconstruction.frames_skipped) == (4, 1)
    for name in ("first_frame", "evaluation", "warnings", "report", "seconds"):
        assert getattr(read, name) == getattr(written, name)


def test_the_volume_of_a_result_can_be_changed_and_outlives_its_file(tmp_path):
    write_result(tmp_path / "result", result())
    read = read_result(tmp_path / "result", SWEEP)
    read.volume[0, 0, 0] = 99
    assert read_result(tmp_path / "result", SWEEP).volume[0, 0, 0] == 0
    for path in (tmp_path / "result").iterdir():
        path.unlink()
    assert read.volume[0, 0, 0] == 99
    assert read.volume[1, 2, 3] == 23


def test_a_result_without_a_volume_has_none_when_it_comes_back(tmp_path):
    write_result(tmp_path / "result", result(volume=False))
    read = read_result(tmp_path / "result", SWEEP)
    assert (read.volume, read.coverage, read.grid, read.report.volume) == (None, None, None, None)


def test_a_report_of_another_schema_is_refused():
    values = result().report.as_dict()
    assert RunReport.from_dict(values) == result().report
    with pytest.raises(InputError, match="schema version 99; this version reads 2"):
        RunReport.from_dict({**values, "schema_version": 99})
