"""Consistency: what runs of the network on the same sweep seen otherwise disagree about."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from all_knowing import FRAMES, SIZE, SPACING, all_knowing, numbered_sweep, random_poses
from oracle import noise_sweep, tiny_model

import DualTrackCore.tracking.consistency as module
import DualTrackCore.tracking.engine as engine
from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.io import read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.jobs import RunSettings
from DualTrackCore.network.checkpoint import save_model
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.consistency import NOTE, VARIANTS, Consistency, consistency, crop_shift, with_consistency
from DualTrackCore.tracking.engine import run_network
from DualTrackCore.tracking.speckle.likeness import LAGS, SweepLikeness
from DualTrackCore.tracking.speckle.patches import PatchGrid
from DualTrackCore.tracking.views import flipped_sweep, reversed_sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker import run_job

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
RUNS = ("reverse", "flip", "crop")


@pytest.fixture(scope="module")
def model():
    plain = tiny_model()
    return replace(plain, card=replace(plain.card, spacing_mm=SPACING))


def test_a_network_that_is_right_about_every_view_is_consistent(model, monkeypatch):
    poses = random_poses()
    monkeypatch.setattr(engine, "run_network", all_knowing(poses))
    found = consistency(numbered_sweep(), model, trajectory=Trajectory(poses), variants=RUNS)
    assert tuple(found.parts) == RUNS
    for name, values in found.parts.items():
        assert math.isnan(values[0])
        np.testing.assert_allclose(values[1:], 0, atol=1e-9, err_msg=name)
    assert found.sweep_mm == pytest.approx(0, abs=1e-9)
    assert found.path_mm == pytest.approx(0, abs=1e-9)


def test_disagreement_by_hand(model, monkeypatch):
    """Without rotation, runs that go 0.3 and 0.4 mm too far at every step are that far off in every point."""
    poses = Trajectory.from_parameters(np.tile([0.1, 0, 0.5, 0, 0, 0], (FRAMES - 1, 1))).poses
    monkeypatch.setattr(engine, "run_network", all_knowing(poses, {"reverse": 0.3, "flip": 0.4}))
    found = consistency(numbered_sweep(), model, trajectory=Trajectory(poses), variants=RUNS)
    np.testing.assert_allclose(found.parts["reverse"][1:], 0.3)
    np.testing.assert_allclose(found.parts["flip"][1:], 0.4)
    np.testing.assert_allclose(found.parts["crop"][1:], 0, atol=1e-12)
    expected = math.sqrt((0.3**2 + 0.4**2) / 3)
    np.testing.assert_allclose(found.per_frame[1:], expected)
    assert found.sweep_mm == pytest.approx(expected)
    assert found.path_mm == pytest.approx(expected * np.arange(1, FRAMES).mean())


def test_the_elevational_steps_are_compared_with_speckle_up_to_one_factor(model, monkeypatch):
    """Speckle says the steps are as long again as estimated, but for one that it does not see at all."""
    tz = np.array([0.2, 0.3, 0.1, 0.2, 0.25, 0.2, 0.15, 0.2])
    told = 2 * tz
    told[3] = 0
    monkeypatch.setattr(module, "sweep_likeness", lambda sweep, reporter: None)
    monkeypatch.setattr(module.DecorrelationCurves, "fitted", lambda sweeps: None)
    monkeypatch.setattr(module, "elevational_steps", lambda curves, seen: np.stack([told] * 3, axis=1))
    trajectory = Trajectory.from_parameters([[0, 0, -step, 0, 0, 0] for step in tz])
    found = consistency(numbered_sweep(), model, trajectory=trajectory, variants=["decorrelation"])
    expected = np.zeros(FRAMES - 1)
    expected[3] = tz[3]
    np.testing.assert_allclose(found.parts["decorrelation"][1:], expected, atol=1e-12)
    assert math.isnan(found.path_mm)


def test_speckle_that_changes_as_the_estimate_says_agrees_and_one_wrong_step_stands_out(model, monkeypatch):
    grid = PatchGrid((96, 128))
    rng = np.random.default_rng(1)
    tz = rng.uniform(0.05, 0.3, 60)
    wrong = tz.copy()
    wrong[30] = 0.9

    def seen(sweep, reporter):
        likeness = np.full((60, LAGS, grid.rows * grid.columns), np.nan)
        for lag in range(1, LAGS + 1):
            distance = np.convolve(tz, np.ones(lag), "valid")
            noise = rng.normal(0, 0.005, (len(distance), likeness.shape[2]))
            likeness[: len(distance), lag - 1] = np.exp(-(distance[:, None] ** 2) / (2 * 0.35**2)) + noise
        return SweepLikeness(grid, np.zeros((60, LAGS, 3)), np.zeros((60, LAGS)), likeness)

    monkeypatch.setattr(module, "sweep_likeness", seen)
    sweep = Sweep(np.zeros((61, *SIZE), np.uint8), SPACING)
    for steps, outlier in ((tz, None), (wrong, 30)):
        trajectory = Trajectory.from_parameters([[0, 0, step, 0, 0, 0] for step in steps])
        part = consistency(sweep, model, trajectory=trajectory, variants=["decorrelation"]).parts["decorrelation"][1:]
        assert np.median(part) < 0.04
        if outlier is not None:
            assert np.argmax(part) == outlier
            assert part[outlier] > 0.4


def test_every_variant_of_a_real_run_gives_a_figure_for_every_frame_but_the_first(model):
    seen = []
    found = consistency(noise_sweep(12, spacing_mm=SPACING), model, variants=RUNS, progress=seen.append)
    for values in (found.per_frame, *found.parts.values()):
        assert values.shape == (12,)
        assert math.isnan(values[0])
        assert (values[1:] > 0).all()
    stages = {report.stage for report in seen}
    for what in ("estimate", "reversed", "mirrored", "crop elsewhere"):
        assert f"consistency, {what}: network" in stages
    assert found.left_out == {}


def test_what_a_sweep_cannot_have_is_left_out_and_named(model):
    model = replace(model, card=replace(model.card, spacing_mm=(0.2, 0.2)))
    found = consistency(noise_sweep(6, 64, 64, spacing_mm=0.2), model)
    assert tuple(found.parts) == ("reverse", "flip")
    assert "64 x 64 crop no room" in found.left_out["crop"]
    assert "patches" in found.left_out["decorrelation"]
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["left_out"] == found.left_out


def test_a_run_can_be_stopped_in_every_part(model):
    sweep = noise_sweep(8, spacing_mm=SPACING)
    trajectory = Trajectory(np.tile(np.eye(4), (8, 1, 1)))
    for variant in VARIANTS:
        with pytest.raises(Cancelled):
            consistency(sweep, model, trajectory=trajectory, variants=[variant], cancelled=lambda: True)


def test_what_cannot_be_compared_is_refused_with_a_sentence(model):
    sweep, still = noise_sweep(4, spacing_mm=SPACING), np.tile(np.eye(4), (4, 1, 1))
    with pytest.raises(InputError, match="no variant sideways; choose of reverse, flip, crop, decorrelation"):
        consistency(sweep, model, variants=["sideways"])
    with pytest.raises(InputError, match="3 valid poses for 4 frames"):
        consistency(sweep, model, trajectory=Trajectory(still[:3]))
    with pytest.raises(InputError, match="3 valid poses for 4 frames"):
        consistency(sweep, model, trajectory=Trajectory(still, [True, True, False, True]))


class Recorder:
    """A source of frames that remembers how many were asked for at a time."""

    def __init__(self, frames):
        self.frames, self.shape, self.dtype, self.most = frames, frames.shape, frames.dtype, 0

    def __getitem__(self, key):
        self.most = max(self.most, len(range(*key.indices(self.shape[0]))))
        return self.frames[key]


def test_views_are_what_numpy_makes_of_the_frames_and_read_no_more_than_is_asked_for():
    source = Recorder(np.random.default_rng(0).integers(0, 255, (11, 4, 6), dtype=np.uint8))
    sweep = Sweep(source, SPACING, frame_valid=np.arange(11) > 2)
    for view, expected in (
        (reversed_sweep(sweep), source.frames[::-1]),
        (flipped_sweep(sweep), source.frames[:, :, ::-1]),
        (reversed_sweep(flipped_sweep(sweep)), source.frames[::-1, :, ::-1]),
    ):
        source.most = 0
        for start, images in view.windows(4):
            np.testing.assert_array_equal(images, expected[start : start + 4])
        assert source.most == 4
        np.testing.assert_array_equal(view.frames[1:9:3], expected[1:9:3])
        assert len(view.frames[5:5]) == 0
    np.testing.assert_array_equal(reversed_sweep(sweep).frame_valid, np.arange(11) < 8)


def test_a_crop_elsewhere_is_the_crop_of_frames_moved_the_other_way(model):
    sweep = noise_sweep(5, spacing_mm=SPACING)
    shift = crop_shift(sweep, model)
    assert shift == (16, 32)
    moved = replace(sweep, frames=np.roll(sweep.frames, (-16, -32), axis=(1, 2)))
    reporter = Reporter()

    def tokens(seen, **options):
        kept = {}

        def read_out(local, pooled, reporter):
            kept["local"] = local.numpy()
            return torch.zeros(len(local) - 1, 6)

        run_network(seen, model, read_out, whole_frames=(), reporter=reporter, **options)
        return kept["local"]

    np.testing.assert_allclose(tokens(sweep, crop_shift=shift), tokens(moved), atol=1e-5)
    assert np.abs(tokens(sweep) - tokens(moved)).max() > 1e-3


def told() -> Consistency:
    values = np.array([np.nan, 0.25, 0.5])
    return Consistency(values, {"reverse": values}, 0.7, {"crop": "no room."})


def test_the_figures_travel_in_the_trajectory_as_plain_values():
    trajectory = with_consistency(Trajectory(np.tile(np.eye(4), (3, 1, 1)), provenance={"model": "m"}), told())
    plain = json.loads(json.dumps(dict(trajectory.provenance), allow_nan=False))
    assert plain["consistency"] == [None, 0.25, 0.5]
    assert plain["model"] == "m"
    assert plain["consistency_summary"] == {
        "note": NOTE,
        "mean_mm": 0.375,
        "path_mm": 0.7,
        "parts_mean_mm": {"reverse": 0.375},
        "left_out": {"crop": "no room."},
    }
    assert "not accuracy" in NOTE
    with pytest.raises(InputError, match="3 frames came with 2 poses"):
        with_consistency(Trajectory(np.tile(np.eye(4), (2, 1, 1))), told())


def test_the_table_of_a_trajectory_has_a_column_of_it(tmp_path):
    path = tmp_path / "t.csv"
    trajectory = with_consistency(Trajectory(np.tile(np.eye(4), (3, 1, 1))), told())
    write_trajectory_csv(trajectory, path)
    lines = path.read_text().splitlines()
    assert lines[0].endswith(",m33,consistency_mm")
    assert [line.rpartition(",")[2] for line in lines[1:]] == ["", "0.25", "0.5"]
    assert read_trajectory_csv(path).provenance["consistency"] == [None, 0.25, 0.5]
    write_trajectory_csv(trajectory.slice(0, 2), path)
    assert "consistency" not in path.read_text()
    path.write_text("\n".join([*lines[:2], lines[2].replace("0.25", "-1")]))
    with pytest.raises(InputError, match=r"line 3 says consistency_mm = '-1'"):
        read_trajectory_csv(path)


@pytest.fixture
def files(tmp_path):
    """A small untrained model, as a file."""
    plain = tiny_model()
    save_model(plain.network, plain.card, tmp_path / "tiny.safetensors")
    return tmp_path


def test_a_job_gives_it_where_the_settings_ask_for_it(files):
    settings = RunSettings(model=str(files / "tiny.safetensors"), reconstruct=False, consistency=True)
    result = run_job(noise_sweep(5), RunSettings.from_json(settings.to_json()))
    assert np.shape(result.trajectory.provenance["consistency"]) == (5,)
    assert result.seconds["consistency"] > 0
    told = result.provenance["trajectory"]
    assert "consistency" not in told
    assert told["consistency_summary"]["mean_mm"] > 0
    with pytest.raises(InputError, match="consistency"):
        RunSettings(consistency="yes")


def test_the_report_and_the_table_of_a_run_have_it_where_it_is_asked_for(files, capsys):
    save_sweep(noise_sweep(5), files / "sweep.h5")
    arguments = ["run", files / "sweep.h5", "--model", files / "tiny.safetensors", "--voxel", "2", "--no-pictures"]
    assert main([str(word) for word in (*arguments, "--consistency", "-o", files / "out")]) == 0
    assert "agreement is not accuracy" in capsys.readouterr().out
    report = json.loads((files / "out" / "report.json").read_text())
    found = report["consistency"]
    assert found["note"] == NOTE
    assert found["per_frame_mm"][0] is None
    assert found["mean_mm"] == pytest.approx(np.mean(found["per_frame_mm"][1:]))
    assert not [name for name in report["trajectory"]["source"] if name.startswith("consistency")]
    told = read_trajectory_csv(files / "out" / "trajectory.csv").provenance["consistency"]
    assert told == found["per_frame_mm"]
    assert main([str(word) for word in (*arguments, "-o", files / "plain")]) == 0
    assert json.loads((files / "plain" / "report.json").read_text())["consistency"] is None
