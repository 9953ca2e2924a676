"""Repeated frames: found also after lossy coding, never in what a probe saw anew, and told."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from oracle import anatomical_model, noise_sweep, tiny_model
from shared_files import shared_path
from video_files import make

from DualTrackCore import repeats as module
from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep
from DualTrackCore.network import load_model, save_model
from DualTrackCore.repeats import Repeats, find_repeats
from DualTrackCore.research.comparison.measure import Work, measure_sweep
from DualTrackCore.research.comparison.methods import Identity
from DualTrackCore.research.simulation import rendered, simulated_sweep
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import LiveTracker, estimate_trajectory
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


def shown(sweep: Sweep, pictures: np.ndarray, rate_hz: float = 60.0) -> Sweep:
    """A recording that shows at each frame the picture of this index."""
    return replace(sweep.chosen(pictures), timestamps_s=np.arange(len(pictures)) / rate_hz)


def first_shown(pictures: np.ndarray) -> np.ndarray:
    """What `find_repeats` has to say of it."""
    return np.searchsorted(pictures, pictures)


def frozen_sample() -> Sweep:
    """The sample at 20 Hz with 3 s in which it stands still: frames 45 to 104."""
    return shown(sample_sweep(), np.r_[0:45, np.full(60, 44), 45:90], 20.0)


RECORDINGS = {
    "20 Hz in 60 Hz": np.arange(120) // 3,
    "25 Hz in 60 Hz": np.arange(120) * 25 // 60,
    "frozen": np.r_[0:20, np.full(60, 19), 20:40],
    "lost frames": np.delete(np.arange(80), [])[np.r_[0:10, 9, 11:40, 39, 39, 42:80]],
    "no repeats": np.arange(80),
}


@pytest.mark.parametrize("coded", ["not coded", "fine", "usual", "coarse"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_repeats_are_found_also_after_lossy_coding_and_nothing_else_is(tmp_path, name, coded):
    pictures = RECORDINGS[name]
    sweep = shown(sample_sweep(), pictures)
    if coded != "not coded":
        pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")
        crf = {"fine": "8", "usual": "23", "coarse": "28"}[coded]
        path, frames = tmp_path / "clip.mp4", sweep.window(0, len(sweep))
        # x264's assembler reads memory that nobody set, so that without no-asm equal frames give other files each time.
        options = {"crf": crf, "threads": "1", "x264-params": "no-asm=1"}
        make(path, frames, "libx264", "yuv420p", rate=60, options=options)
        sweep = load_sweep(path)
    found, wanted = find_repeats(sweep).source, first_shown(pictures)
    if coded == "coarse":  # so coarse a coder hides one repeat now and then
        missed = (found != wanted) & (found == np.arange(len(found)))
        assert missed.sum() <= 1
        found = np.where(missed, wanted, found)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("noise_db", [-60, -40])
def test_a_slow_or_still_probe_with_noise_shows_no_repeats(noise_db):
    frames = simulated_sweep(1, frames=2, frame_size=(64, 80)).frames
    frames = replace(frames, probe=replace(frames.probe, noise_db=noise_db))
    for step_mm in (0.0, 0.005, 0.02):
        steps = np.zeros((15, 6))
        steps[:, 2] = step_mm
        assert not find_repeats(Sweep(replace(frames, poses=accumulate(matrices_from_parameters(steps)))[:]))


def test_a_probe_that_stops_and_goes_shows_no_repeats():
    frames = simulated_sweep(5, frames=2, frame_size=(64, 80)).frames
    steps = np.zeros((39, 6))
    steps[:, 2] = np.where(np.arange(39) // 8 % 2, 0.3, 0.01)
    assert not find_repeats(Sweep(replace(frames, poses=accumulate(matrices_from_parameters(steps)))[:]))


@pytest.mark.parametrize(
    "file",
    [
        *("real/ultrabones_leg_0138.h5", "real/ultrabones_leg_0221.h5", "seq/SpinePhantomFreehand.igs.mha"),
        *("seq/NwirePhantomFreehand.igs.mha", "seq/fCal_Test_Validation_3NWires_fCal2.0.igs.mha"),
    ],
)
def test_in_recorded_sweeps_frames_that_are_equal_to_the_last_bit_are_repeats_and_no_others(file):
    sweep = load_sweep(shared_path(f"data/{file}"))
    frames = sweep.window(0, len(sweep))
    equal = np.flatnonzero((frames[1:] == frames[:-1]).all(axis=(1, 2))) + 1
    repeats = find_repeats(sweep)
    np.testing.assert_array_equal(np.setdiff1d(np.arange(len(sweep)), repeats.kept), equal)


def test_slow_change_does_not_add_up_unseen():
    """Each frame differs from the one before by less than a coder's rounding, and the last one a lot from the first."""
    first = sample_sweep().window(0, 1)[0] * 0.8
    frames = np.array([np.minimum(first + 0.2 * number, 255) for number in range(60)]).astype(np.uint8)
    repeats = find_repeats(Sweep(frames))
    apart = np.abs(frames[repeats.source].astype(float) - frames).mean(axis=(1, 2))
    assert repeats
    assert apart.max() <= 1.01


def test_windows_are_bounded_and_do_not_change_what_is_found(monkeypatch):
    sweep, read = shown(sample_sweep(), RECORDINGS["25 Hz in 60 Hz"]), []
    whole = find_repeats(sweep)

    class Watched:
        shape, dtype = sweep.frames.shape, np.dtype(np.uint8)

        def __getitem__(self, key):
            frames = sweep.frames[key]
            read.append(frames.size)
            return frames

    monkeypatch.setattr(module, "_WINDOW_PIXELS", 7 * 128 * 160)
    np.testing.assert_array_equal(find_repeats(replace(sweep, frames=Watched())).source, whole.source)
    assert max(read) == 7 * 128 * 160


def test_frames_without_image_are_no_repeats():
    sweep = replace(shown(sample_sweep(), np.arange(20) // 2), frame_valid=np.arange(20) != 3)
    assert find_repeats(sweep).source[:6].tolist() == [0, 0, 2, 3, 4, 4]


def test_the_path_of_a_recording_with_repeats_is_that_of_its_pictures_to_the_last_bit():
    model, sweep = anatomical_model(), noise_sweep(24)
    recording = shown(sweep, np.arange(72) // 3)
    plain = estimate_trajectory(sweep, model, device="cpu")
    path = estimate_trajectory(recording, model, device="cpu")
    np.testing.assert_array_equal(path.poses, np.repeat(plain.poses, 3, axis=0))
    assert path.provenance["repeated_frames"] == 48
    every = estimate_trajectory(recording, model, device="cpu", repeats=Repeats.none(72))
    assert np.abs(every.poses[::3] - plain.poses).max() > 1e-3


def test_the_shipped_model_gives_a_capture_of_the_sample_the_path_of_the_sample():
    model, sweep = load_model("mini"), sample_sweep().slice(0, 40)
    plain = estimate_trajectory(sweep, model, device="cpu")
    path = estimate_trajectory(shown(sweep, np.arange(120) // 3), model, device="cpu")
    np.testing.assert_array_equal(path.poses, np.repeat(plain.poses, 3, axis=0))


def test_a_clip_of_one_picture_is_refused_for_tracking():
    with pytest.raises(InputError, match="All 10 frames of the sweep show the same picture"):
        estimate_trajectory(shown(noise_sweep(2), np.zeros(10, int)), tiny_model(), device="cpu")


@pytest.mark.parametrize("size", [1, 7])
def test_a_live_tracker_passes_repeats_over_and_ends_as_offline(size):
    model, recording = anatomical_model(), shown(noise_sweep(30), np.r_[np.arange(75) // 3, np.full(20, 24), 25:30])
    offline = estimate_trajectory(recording, model, device="cpu", chunk_frames=4)
    told = {}
    options = {"device": "cpu"}
    with LiveTracker(model, recording.frame_size, recording.spacing_mm, **options) as tracker:
        for _, frames in recording.windows(size):
            told |= {pose.frame: pose.frame0_from_image for pose in tracker.push(frames)}
        told |= {pose.frame: pose.frame0_from_image for pose in tracker.wait()}
        assert len(tracker) == 100
        finished = tracker.finish(recording.timestamps_s)
    np.testing.assert_array_equal(finished.poses, offline.poses)
    assert finished.provenance["warnings"] == offline.provenance["warnings"]
    assert sorted(told) == list(range(max(told) + 1))
    source = find_repeats(recording).source
    assert all((told[frame] == told[source[frame]]).all() for frame in told)


def test_a_repeat_of_a_live_stream_gets_the_pose_that_was_told_before():
    model, sweep = anatomical_model(), noise_sweep(40)
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu", chunk_frames=1) as tracker:
        tracker.push(sweep.window(0, 40))
        known = tracker.wait()[-1].frame
        assert tracker.push(sweep.window(39, 40)) == []  # nobody knows yet where that picture is
    tracker = LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu", chunk_frames=1)
    with tracker:
        tracker.push(sweep.window(0, known + 18))
        last = {pose.frame: pose.frame0_from_image for pose in tracker.wait()}
        tracker._shown[-1] = 3  # as if it had shown a picture of which the pose is known
        tracker._returned -= 1
        (again,) = tracker.push(np.empty((0, *sweep.frame_size), np.uint8))
    assert again.frame == known + 17
    np.testing.assert_array_equal(again.frame0_from_image, last[3])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A recording at 60 Hz of a scanner of 20 Hz, the same as the scanner gave it, and a small model."""
    folder = tmp_path_factory.mktemp("repeats")
    sweep = rendered(simulated_sweep(0, frames=16, frame_size=(60, 80), spacing_mm=0.4))
    save_sweep(replace(sweep, timestamps_s=np.arange(16) / 20), folder / "plain.h5")
    save_sweep(shown(sweep, np.arange(48) // 3), folder / "recorded.h5")
    save_sweep(frozen_sample(), folder / "frozen.h5")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


def test_a_run_leaves_repeats_out_and_keeps_the_frames_and_times_of_the_clip(files, tmp_path):
    settings = RunSettings(model=str(files / "tiny.safetensors"), pictures=False)
    plain = run(files / "plain.h5", settings)
    result = run(files / "recorded.h5", settings)
    recorded = result.write(tmp_path)
    np.testing.assert_array_equal(result.trajectory.poses, np.repeat(plain.trajectory.poses, 3, axis=0))
    np.testing.assert_array_equal(result.volume, plain.volume)
    assert len(read_trajectory_csv(tmp_path / "trajectory.csv")) == 48
    written = load_sweep(tmp_path / "sweep.igs.mha")
    np.testing.assert_allclose(written.timestamps_s, np.arange(48) / 60, atol=1e-5)
    np.testing.assert_array_equal(written.window(0, 48), np.repeat(load_sweep(files / "plain.h5").window(0, 16), 3, 0))
    facts = json.loads((tmp_path / "report.json").read_text())["sweep"]["repeats"]
    assert (facts["frames"], facts["pictures"], facts["still"]) == (32, 16, [])
    assert facts["pictures_hz"] == pytest.approx(20)
    assert (recorded.sweep["frames"], recorded.volume["frames_used"]) == (48, 16)
    assert plain.report.sweep["repeats"]["frames"] == 0


def test_an_option_keeps_every_frame(files):
    settings = RunSettings(poses="tracked", evaluate=False)
    assert run(files / "recorded.h5", settings).reconstruction.frames_used == 16
    kept = run(files / "recorded.h5", replace(settings, repeats="keep"))
    assert kept.reconstruction.frames_used == 48
    assert kept.report.sweep["repeats"]["frames"] == 32


def test_info_says_how_often_the_picture_changes_and_where_it_stands_still(files, capsys):
    assert main(["info", str(files / "recorded.h5")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"repeats +32 of 48 frames show the picture before them again; 16 different pictures, 20 a s", out)
    assert "60 frames a second" in out
    assert main(["info", str(files / "frozen.h5")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"stands still +frames 45 to 104 \(2\.25 to 5\.2 s\)", out)
    assert main(["info", str(files / "frozen.h5"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repeats"]["still"] == [[45, 104]]


def test_a_frozen_stretch_is_a_warning_with_the_frame_numbers_of_the_whole_clip(files):
    settings = RunSettings(poses="tracked", first_frame=30, reconstruct=False)
    (warning,) = run(files / "frozen.h5", settings).warnings
    assert warning.startswith("The picture stands still in the frames 45 to 104 (0.75 to 3.7 s)")
    assert warning.endswith("record again, or use the frames on one side.")


def test_methods_are_compared_on_the_pictures_and_measured_on_all_frames(files):
    class Watching(Identity):
        def estimate(self, sweep, **options):
            seen.append(len(sweep))
            return super().estimate(sweep, **options)

    class Files:
        def load(self, name):
            return load_sweep(files / name)

        def landmarks(self, name):
            return None

    seen = []
    outcome = measure_sweep("recorded.h5", Work(((Watching(), "watching"),), Files(), frozenset()))
    assert outcome.bad is None
    assert not outcome.failures
    assert seen == [16]
    assert outcome.items[0].frames == 48
