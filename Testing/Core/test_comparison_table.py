"""Methods side by side: hand-worked baselines, the table, what fails, and the command."""

import csv
import json

import numpy as np
import pytest
from oracle import tiny_model
from training_data import tracked_sweep

from DualTrackCore.cli import main
from DualTrackCore.comparison import (
    Identity,
    MeanMotion,
    Method,
    Network,
    OwnMeanMotion,
    calibration_simulations,
    compare,
    held_out_simulations,
    simulate_all,
)
from DualTrackCore.comparison.report import text_table, write_comparison
from DualTrackCore.comparison.table import METRICS, PooledCorrelation
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import save_sweep
from DualTrackCore.network.checkpoint import save_model
from DualTrackCore.simulation import FAMILIES
from DualTrackCore.sweep import Sweep
from DualTrackCore.training import load_recipe
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


def straight_sweep(step_mm, frames=5, **changes):
    """Black frames moving by a constant elevational step."""
    motions = np.tile([0, 0, step_mm, 0, 0, 0], (frames - 1, 1))
    values = {"spacing_mm": 0.5, "tracked": Trajectory.from_parameters(motions), **changes}
    return Sweep(np.zeros((frames, 10, 12), np.uint8), **values)


def opened(**sweeps):
    return [(name, lambda sweep=sweep: sweep) for name, sweep in sweeps.items()]


class Failing:
    """Fails on sweeps of one length."""

    name, uses = "failing", "images"

    def __init__(self, frames, error):
        self.frames, self.error = frames, error

    def estimate(self, sweep, *, progress=None, cancelled=None):
        if len(sweep) == self.frames:
            raise self.error
        return Trajectory(sweep.tracked.poses)


def test_identity_stays_where_the_first_frame_is():
    sweep = straight_sweep(0.5)
    trajectory = Identity().estimate(sweep)
    np.testing.assert_array_equal(trajectory.poses, np.tile(np.eye(4), (5, 1, 1)))
    assert evaluate(trajectory, sweep).metrics["gpe_mm"] == pytest.approx(0.5 * (1 + 2 + 3 + 4) / 4)


def test_mean_motion_is_the_mean_over_all_steps_of_the_calibration_sweeps():
    method = MeanMotion.calibrated([straight_sweep(0.1, frames=5), straight_sweep(0.4, frames=3)])
    np.testing.assert_allclose(method.parameters, [0, 0, (4 * 0.1 + 2 * 0.4) / 6, 0, 0, 0], atol=1e-12)
    assert method.estimate(straight_sweep(1.0, frames=4)).centres_mm[-1, 2] == pytest.approx(0.6)


def test_own_mean_motion_is_what_the_evaluation_calls_mean_motion_and_says_that_it_needs_the_truth():
    sweep = tracked_sweep(1)
    evaluation = evaluate(OwnMeanMotion().estimate(sweep), sweep)
    for name in ("gpe_mm", "lpe_mm", "max_drift_mm"):
        assert evaluation.metrics[name] == pytest.approx(evaluation.baselines["mean_motion"][name])
    assert "truth" in OwnMeanMotion.uses


def test_calibration_without_tracking_is_refused():
    untracked = straight_sweep(0.1, tracked=None)
    for call in (lambda: MeanMotion.calibrated([untracked]), lambda: OwnMeanMotion().estimate(untracked)):
        with pytest.raises(InputError, match="no tracking"):
            call()
    invalid = Trajectory(untracked_poses := np.tile(np.eye(4), (5, 1, 1)), np.zeros(len(untracked_poses), bool))
    with pytest.raises(InputError, match="no two neighbouring frames"):
        MeanMotion.calibrated([straight_sweep(0.1, tracked=invalid)])
    with pytest.raises(InputError, match="6 finite numbers"):
        MeanMotion(np.zeros(5))


def test_every_method_keeps_to_the_interface_and_the_network_names_its_head():
    model = tiny_model()
    methods = [Identity(), MeanMotion(np.zeros(6)), OwnMeanMotion(), Network(model), Network(model, "local")]
    assert all(isinstance(method, Method) for method in methods)
    assert [method.name for method in methods[3:]] == ["tiny", "tiny (local alone)"]
    with pytest.raises(InputError, match="'middle' is unknown"):
        Network(model, "middle")


def test_means_are_over_sweeps_whatever_their_length():
    result = compare([Identity()], opened(a=straight_sweep(0.5, frames=3), b=straight_sweep(0.5, frames=5)))
    summary = result.summaries[0]
    assert summary.means["gpe_mm"] == pytest.approx((0.75 + 1.25) / 2)
    assert summary.means["lpe_mm"] == pytest.approx(0.5)
    assert summary.means["fdr_percent"] == pytest.approx(100)
    assert summary.means["max_drift_mm"] == pytest.approx((1 + 2) / 2)
    assert [row.sweep for row in result.rows] == ["a", "b"]
    assert np.isnan(summary.means["correlation_tz"])
    assert summary.defined["correlation_tz"] == 0


def test_pooled_correlation_is_that_of_all_steps_joined():
    random = np.random.default_rng(0)
    parts = [(random.normal(size=(n, 6)) + 3, random.normal(size=(n, 6)) - 2) for n in (7, 2, 30)]
    parts[0][0][3] = np.nan
    pooled = PooledCorrelation()
    for predicted, true in parts:
        pooled.add(predicted + 0.7 * np.nan_to_num(true), true)
    one, other = (np.concatenate(values) for values in zip(*[(p + 0.7 * t, t) for p, t in parts], strict=True))
    known = np.isfinite(one).all(axis=1)
    wanted = [np.corrcoef(one[known, i], other[known, i])[0, 1] for i in range(6)]
    np.testing.assert_allclose(list(pooled.values().values()), wanted, atol=1e-12)


def test_pooled_correlation_shows_the_sign_that_means_over_sweeps_hide():
    class Distance:
        name, uses = "distance", "images"

        def estimate(self, sweep, *, progress=None, cancelled=None):
            motions = sweep.tracked.parameters.copy()
            motions[:, 2] *= np.sign(motions[:, 2].sum())
            return Trajectory.from_parameters(motions)

    motions = np.zeros((20, 6))
    motions[:, 2] = 0.3 + 0.1 * np.random.default_rng(0).random(20)
    there, back = (straight_sweep(0, 21, tracked=Trajectory.from_parameters(s * motions)) for s in (1, -1))
    summary = compare([Distance()], opened(there=there, back=back)).summaries[0]
    assert summary.means["correlation_tz"] == pytest.approx(0)
    assert abs(summary.pooled["tz"]) < 0.1
    own = compare([Failing(0, None)], opened(there=there, back=back)).summaries[0]
    assert own.pooled["tz"] == pytest.approx(1)


@pytest.mark.parametrize("error", [InputError("Too dark."), np.linalg.LinAlgError("Singular matrix")])
def test_a_method_that_fails_on_a_sweep_is_named_and_enters_no_mean(error, tmp_path):
    sweeps = opened(good=straight_sweep(0.5, frames=3), bad=straight_sweep(0.5, frames=4))
    result = compare([Identity(), Failing(4, error)], sweeps)
    identity, failing = result.summaries
    assert (identity.sweeps, identity.failed) == (2, 0)
    assert (failing.sweeps, failing.failed) == (1, 1)
    assert failing.means["gpe_mm"] == pytest.approx(0, abs=1e-12)
    text = text_table(result)
    assert f"failing on bad: {'' if isinstance(error, InputError) else 'LinAlgError: '}{error}" in text
    assert "1 of 2" in text
    write_comparison(result, tmp_path, {"sweeps_compared": "two"})
    assert str(error) in (tmp_path / "table.md").read_text()
    rows = list(csv.DictReader((tmp_path / "sweeps.csv").open()))
    assert [row["error"] != "" for row in rows] == [False, False, False, True]


def test_a_sweep_that_cannot_be_used_fails_for_every_method_with_its_reason():
    def broken():
        raise InputError("The file is cut short.")

    estimated = straight_sweep(0.5, tracked=Trajectory(np.tile(np.eye(4), (5, 1, 1)), provenance={"model": "mini"}))
    sweeps = [("broken", broken), *opened(untracked=straight_sweep(0.5, tracked=None), estimated=estimated)]
    result = compare([Identity(), OwnMeanMotion()], sweeps)
    assert len(result.failures) == len(result.rows) == 6
    reasons = [row.error for row in result.rows[::2]]
    assert "cut short" in reasons[0]
    assert "no tracking" in reasons[1]
    assert "estimated, not measured" in reasons[2]
    assert np.isnan(result.summaries[0].means["gpe_mm"])


def test_names_must_differ_and_there_must_be_something_to_compare():
    sweep = opened(a=straight_sweep(0.1))
    for methods, sweeps, words in (
        ([], sweep, "no method"),
        ([Identity()], [], "no sweep"),
        ([Identity(), Identity()], sweep, "'identity' is given twice"),
        ([Identity()], sweep + sweep, "sweep 'a' is given twice"),
    ):
        with pytest.raises(InputError, match=words):
            compare(methods, sweeps)


def test_a_comparison_can_be_cancelled_and_reports_each_sweep():
    reports = []
    sweeps = opened(a=straight_sweep(0.5))
    compare([Network(tiny_model(), "local")], opened(a=tracked_sweep(0)), progress=reports.append)
    assert {report.stage.split(":")[0] for report in reports} == {"sweep 1/1, tiny (local alone)"}
    with pytest.raises(Cancelled):
        compare([Identity()], sweeps, cancelled=lambda: True)


def test_text_fits_120_columns_however_many_methods():
    methods = [Failing(0, None) for _ in range(8)]
    for number, method in enumerate(methods):
        method.name, method.uses = f"a method with a rather long name number {number}", "images, true direction"
    text = text_table(compare(methods, opened(a=straight_sweep(0.5))))
    assert max(len(line) for line in text.splitlines()) <= 120
    assert text.count("GPE, all pixels (mm)") == 2


def test_held_out_sweeps_share_nothing_with_those_of_training():
    data = load_recipe("mini/fusion").data
    held_out, calibration = held_out_simulations(), calibration_simulations()
    assert len(held_out) == 2 * len(FAMILIES)
    assert sorted(job.family for job in held_out) == sorted(2 * FAMILIES)
    assert min(job.seed for job in held_out) >= max(*data.seeds, *data.validation_seeds)
    assert min(job.speckle_seed for job in held_out) >= 2 * data.speckles
    assert len({job.seed for job in held_out}) == len(held_out)
    assert all(data.seeds[0] <= job.seed < data.seeds[1] for job in calibration)
    assert {job.family for job in calibration} == set(FAMILIES)
    with pytest.raises(InputError, match="at least 2"):
        held_out_simulations(frames=1)


def test_stored_simulations_are_taken_up_again_and_equal_fresh_ones(tmp_path):
    jobs = held_out_simulations(2, 3, (40, 48), (0.3, 0.3))
    simulate_all(jobs, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    named = simulate_all(jobs, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    assert [name for name, _ in named] == [f"{job.family} {job.seed}" for job in jobs]
    for (_, sweep), job in zip(named, jobs, strict=True):
        np.testing.assert_array_equal(sweep.window(0, 3), job.sweep().window(0, 3))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two tracked sweeps and a small untrained model."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (0, 1):
        save_sweep(tracked_sweep(seed, 12), folder / f"{seed}.h5")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


def test_the_command_compares_methods_on_files_and_writes_the_tables(files, tmp_path, capsys):
    weights = files / "tiny.safetensors"
    given = [str(files / f"{seed}.h5") for seed in (0, 1)]
    names = ["identity", "mean-motion", "own-mean-motion", f"model:{weights}", f"local:{weights}", f"global:{weights}"]
    methods = [word for name in names for word in ("--method", name)]
    out = tmp_path / "out"
    arguments = ["compare", "-o", str(out), *methods, "--sweeps", *given, "--calibrate", *given, "--device", "cpu"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "correlation tz, pooled" in text
    assert max(len(line) for line in text.splitlines() if "Written" not in line) <= 120
    assert {path.name for path in out.iterdir()} == {"comparison.json", "summary.csv", "sweeps.csv", "table.md"}
    values = json.loads((out / "comparison.json").read_text())
    headings = ["identity", "mean-motion", "own-mean-motion", "model:tiny", "local:tiny", "global:tiny"]
    assert [row["method"] for row in values["methods"]] == headings
    assert len(values["sweeps"]) == 2 * len(names)
    truth = evaluate(Identity().estimate(tracked_sweep(0, 12)), tracked_sweep(0, 12)).metrics
    assert all(values["sweeps"][0][name] == pytest.approx(truth[name], nan_ok=True, rel=1e-4) for name in METRICS[:7])
    assert "| own-mean-motion |" in (out / "table.md").read_text()


def test_weights_files_of_one_name_keep_their_folders_in_the_headings(files, tmp_path):
    other = tmp_path / "tiny.safetensors"
    other.write_bytes((files / "tiny.safetensors").read_bytes())
    names = [f"model:{files / 'tiny.safetensors'}", f"model:{other}"]
    methods = [word for name in names for word in ("--method", name)]
    assert main(["compare", "-o", str(tmp_path / "out"), *methods, "--sweeps", str(files / "0.h5")]) == 0
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["method"] for row in values["methods"]] == names


def test_the_command_simulates_its_sweeps_and_keeps_them(tmp_path, capsys):
    small = ["--count", "2", "--calibration-count", "2", "--frames", "6", "--size", "112,72", "--spacing", "0.25"]
    methods = ["--method", "mean-motion", "--method", "decorrelation", "--method", "decorrelation-told"]
    assert main(["compare", "-o", str(tmp_path / "out"), *methods, *small]) == 0
    text = capsys.readouterr().out
    assert "says nothing about patients" in text
    assert len(list((tmp_path / "out" / "sweeps").glob("*.h5"))) == 4


def test_the_command_refuses_what_it_cannot_use_and_writes_nothing(files, tmp_path, capsys):
    out, sweep = tmp_path / "out", str(files / "0.h5")
    for more, words in (
        (["--method", "guess", "--sweeps", sweep], "'guess' is unknown"),
        (["--method", "model:", "--sweeps", sweep], "'model:' is unknown"),
        (["--method", "model:nowhere.safetensors", "--sweeps", sweep], "nowhere.safetensors"),
        (["--method", "identity", "--sweeps", str(files / "none.h5")], "There is no sweep"),
        (["--method", "identity", "--sweeps", "simulated", sweep], "not both"),
    ):
        assert main(["compare", "-o", str(out), *more]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()
