"""Run settings, results and their way through files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import noise_sweep

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.jobs import JobFailed, JobResult, RunSettings, plain_values
from DualTrackCore.progress import Progress, Reporter
from DualTrackCore.reconstruction import Fan, VoxelGrid
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker.job_files import read_result, read_sweep, write_result, write_sweep

STEPS = np.array([[0.1, -0.2, 0.3, 1.0, -2.0, 0.5]])


def steady_trajectory(frames: int, **changes) -> Trajectory:
    return Trajectory.from_parameters(np.repeat(STEPS, frames - 1, axis=0), **changes)


fans = st.builds(
    Fan,
    origin_pixel=st.tuples(st.floats(-999, 999), st.floats(-999, 999)),
    angles_deg=st.tuples(st.floats(-89, 0), st.floats(1, 89)),
    radii_pixel=st.tuples(st.floats(0, 99), st.floats(100, 999)),
    aspect=st.floats(0.1, 10),
)


@given(
    settings=st.builds(
        RunSettings,
        model=st.text(min_size=1),
        card=st.none() | st.text(),
        chunk_frames=st.just("auto") | st.integers(1, 10**6),
        views=st.sampled_from([1, 2, 4]),
        poses=st.sampled_from(["estimate", "tracked"]),
        reconstruct=st.booleans(),
        first_frame=st.integers(0, 50),
        last_frame=st.none() | st.integers(50, 10**6),
        clip=st.none() | st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 999)] * 2),
        fan=st.sampled_from(["none", "auto"]) | fans,
        voxel_mm=st.none() | st.floats(1e-6, 1e6),
        compounding=st.sampled_from(["mean", "maximum", "latest"]),
    )
)
def test_settings_come_back_from_json_as_they_were(settings):
    assert RunSettings.from_json(settings.to_json()) == settings


def test_missing_settings_have_their_defaults():
    assert RunSettings.from_json('{"voxel_mm": 0.5}') == RunSettings(voxel_mm=0.5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", "", "a name or a file"),
        ("model", 3, "a name or a file"),
        ("device", None, "a device's name"),
        ("precision", "fp8", "one of auto, fp32, bf16, fp16"),
        ("precision", ["fp32"], "one of auto, fp32"),
        ("chunk_frames", 0, "at least 1"),
        ("chunk_frames", True, "at least 1"),
        ("chunk_frames", "16", "at least 1"),
        ("views", 3, "one of 1, 2, 4"),
        ("views", True, "one of 1, 2, 4"),
        ("views", "4", "one of 1, 2, 4"),
        ("poses", "guessed", "estimate, tracked"),
        ("reconstruct", 1, "true or false"),
        ("first_frame", -1, "at least 0"),
        ("first_frame", 1.0, "at least 0"),
        ("last_frame", -2, "the first frame"),
        ("clip", [0, 0, 10], "x, y, width, height"),
        ("clip", (0, 0, 0, 10), "x, y, width, height"),
        ("clip", "0,0,5,5", "x, y, width, height"),
        ("fan", "maybe", "a fan or one of none, auto"),
        ("fan", None, "a fan or one of none, auto"),
        ("voxel_mm", 0, "mm above 0"),
        ("voxel_mm", float("nan"), "mm above 0"),
        ("voxel_mm", True, "mm above 0"),
        ("interpolation", "cubic", "nearest, linear"),
        ("compounding", "median", "mean, maximum, latest"),
        ("hole_filling", "magic", "stick"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(name, value, words):
    with pytest.raises(InputError, match=f"setting {name} is") as refusal:
        RunSettings.from_dict({name: value})
    assert words in str(refusal.value)


SECTOR = {"origin_pixel": [3, -2], "angles_deg": [-30, 30], "radii_pixel": [5, 20]}


def test_a_fan_in_json_is_a_fan():
    fan = RunSettings.from_dict({"fan": SECTOR}).fan
    assert fan == Fan((3, -2), (-30, 30), (5, 20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": 3}, "fan has the fields .*, radius; it takes origin_pixel, angles_deg, radii_pixel, aspect"),
        ({"angles_deg": [30, -30]}, "fan angles 30 to -30"),
        ({"radii_pixel": [5]}, "not two finite numbers"),
        ({"aspect": 0}, "aspect 0 is out of range"),
        ({"aspect": "1"}, "a fan with a number as aspect"),
    ],
)
def test_a_fan_that_is_none_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        RunSettings.from_dict({"fan": {**SECTOR, **changes}})


def test_a_fan_with_a_field_missing_is_refused():
    with pytest.raises(InputError, match="fan has the fields origin_pixel; it takes"):
        RunSettings.from_dict({"fan": {"origin_pixel": [3, -2]}})


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not readable JSON"), ("[]", "Settings are list"), ('{"modle": "mini"}', "There is no setting modle")],
)
def test_settings_that_are_none_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        RunSettings.from_json(text)


def test_the_frame_range_counts_both_ends():
    assert RunSettings(first_frame=2, last_frame=4).frame_range(10) == (2, 5)
    assert RunSettings().frame_range(10) == (0, 10)
    assert RunSettings(first_frame=9).frame_range(10) == (9, 10)


@pytest.mark.parametrize("changes", [{"last_frame": 10}, {"first_frame": 10}])
def test_a_frame_range_beyond_the_sweep_is_refused(changes):
    with pytest.raises(InputError, match="which has the frames 0 to 9"):
        RunSettings(**changes).frame_range(10)


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
    sweep = noise_sweep(
        7,
        timestamps_s=np.arange(7) / 3,
        frame_valid=np.arange(7) != 5,
        tracked=tracked,
        skew_deg=0.25,
        provenance={"format": "test", "sizes": (1, 2)},
    )
    write_sweep(tmp_path, sweep, 0, 7, Reporter())
    read = read_sweep(tmp_path)
    np.testing.assert_array_equal(read.frames, sweep.frames)
    np.testing.assert_array_equal(read.timestamps_s, sweep.timestamps_s)
    np.testing.assert_array_equal(read.frame_valid, sweep.frame_valid)
    np.testing.assert_array_equal(read.tracked.poses, tracked.poses)
    np.testing.assert_array_equal(read.tracked.valid, tracked.valid)
    np.testing.assert_array_equal(read.tracked.reference_from_frame0, tracked.reference_from_frame0)
    assert read.tracked.provenance == {"device": "a tracker"}
    assert (read.spacing_mm, read.skew_deg) == (sweep.spacing_mm, 0.25)
    assert read.provenance == {"format": "test", "sizes": [1, 2]}


def test_a_part_of_a_sweep_is_written_as_a_slice_of_it(tmp_path):
    sweep = noise_sweep(70, timestamps_s=np.arange(70) / 20, tracked=steady_trajectory(70))
    reports: list[Progress] = []
    write_sweep(tmp_path, sweep, 3, 61, Reporter(reports.append))
    read, expected = read_sweep(tmp_path), sweep.slice(3, 61)
    np.testing.assert_array_equal(read.frames, expected.frames)
    np.testing.assert_array_equal(read.timestamps_s, expected.timestamps_s)
    np.testing.assert_array_equal(read.tracked.poses, expected.tracked.poses)
    assert [(r.done, r.total) for r in reports] == [(0, 58), (32, 58), (58, 58)]


def test_frames_that_are_read_when_asked_for_are_written_too(tmp_path):
    class Backwards:
        """A source that is no array: frame i is filled with i."""

        shape, dtype = (40, 4, 5), np.dtype(np.uint8)

        def __getitem__(self, key):
            return np.broadcast_to(np.arange(40, dtype=np.uint8)[key, None, None], (len(range(40)[key]), 4, 5))

    sweep = noise_sweep(1)
    sweep = type(sweep)(Backwards(), sweep.spacing_mm)
    write_sweep(tmp_path, sweep, 5, 40, Reporter())
    np.testing.assert_array_equal(read_sweep(tmp_path).frames[:, 2, 3], np.arange(5, 40))


def test_writing_a_sweep_stops_when_it_is_cancelled(tmp_path):
    with pytest.raises(Cancelled):
        write_sweep(tmp_path, noise_sweep(3), 0, 3, Reporter(None, lambda: True))


def result(**changes) -> JobResult:
    grid = VoxelGrid([1.0, 2.0, 1 / 3], (0.5, 0.25, 0.1), (4, 3, 2), np.eye(3)[:, [1, 2, 0]], note="coarsened")
    values = {
        "trajectory": steady_trajectory(5, provenance={"model": "tiny", "warnings": ["Beware."]}),
        "first_frame": 3,
        "volume": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "coverage": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4),
        "grid": grid,
        "evaluation": {"metrics": {"gpe_mm": 1 / 3}},
        "warnings": ["Beware."],
        "provenance": {"settings": RunSettings().as_dict()},
        "seconds": {"total": 0.1},
    }
    return JobResult(**{**values, **changes})


def test_a_result_comes_back_from_its_files_as_it_was(tmp_path):
    written = result()
    write_result(tmp_path / "result", written)
    read = read_result(tmp_path / "result")
    for name in ("volume", "coverage"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    np.testing.assert_array_equal(read.trajectory.poses, written.trajectory.poses)
    assert read.trajectory.estimated_by == "tiny"
    np.testing.assert_array_equal(read.grid.mm_from_voxel, written.grid.mm_from_voxel)
    assert (read.grid.size, read.grid.note) == (written.grid.size, "coarsened")
    for name in ("first_frame", "evaluation", "warnings", "provenance", "seconds"):
        assert getattr(read, name) == getattr(written, name)


def test_the_volume_of_a_result_can_be_changed_and_outlives_its_file(tmp_path):
    write_result(tmp_path / "result", result())
    read = read_result(tmp_path / "result")
    read.volume[0, 0, 0] = 99
    assert read_result(tmp_path / "result").volume[0, 0, 0] == 0
    for path in (tmp_path / "result").iterdir():
        path.unlink()
    assert read.volume[0, 0, 0] == 99
    assert read.volume[1, 2, 3] == 23


def test_a_result_without_a_volume_has_none_when_it_comes_back(tmp_path):
    write_result(tmp_path / "result", result(volume=None, coverage=None, grid=None, evaluation=None))
    read = read_result(tmp_path / "result")
    assert (read.volume, read.coverage, read.grid, read.evaluation) == (None, None, None, None)
