"""Methods side by side: hand-worked baselines, means and what they are of, failures, and the written tables."""

import csv
import json

import numpy as np
import pytest
from evaluation_sets import Failing, Given, Shortened, Wobbling, straight_sweep, wobbling_sweep
from oracle import tiny_model
from training_data import tracked_sweep

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.evaluation.definitions import PooledCorrelation
from DualTrackCore.files import json_text
from DualTrackCore.progress import Stage
from DualTrackCore.research.comparison import (
    Identity,
    MeanMotion,
    Method,
    Network,
    OwnMeanMotion,
    make_methods,
    run_methods,
)
from DualTrackCore.research.comparison.methods import parameter_count
from DualTrackCore.research.comparison.summaries import SHOWN
from DualTrackCore.research.comparison.table_files import text_table, write_tables
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


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
    invalid = Trajectory(np.tile(np.eye(4), (5, 1, 1)), np.zeros(5, bool), origin="measured")
    with pytest.raises(InputError, match="no two neighbouring frames"):
        MeanMotion.calibrated([straight_sweep(0.1, tracked=invalid)])
    with pytest.raises(InputError, match="6 finite numbers"):
        MeanMotion(np.zeros(5))


def test_every_method_keeps_to_the_interface_and_the_network_names_its_head_and_size():
    model = tiny_model()
    methods = [Identity(), MeanMotion(np.zeros(6)), OwnMeanMotion(), Network(model), Network(model, "local")]
    assert all(isinstance(method, Method) for method in methods)
    assert [method.name for method in methods[3:]] == ["tiny", "tiny (local alone)"]
    assert parameter_count(methods[0]) is None
    assert parameter_count(methods[3]) == sum(p.numel() for p in model.network.parameters())
    with pytest.raises(InputError, match="'middle' is unknown"):
        Network(model, "middle")


def test_methods_are_made_by_name_and_calibrated_only_where_one_needs_it():
    def none():
        raise AssertionError("calibration was opened")

    names = ["own-mean-motion", "identity", "own-mean-motion"]
    assert [method.name for method in make_methods(names, none)] == ["own-mean-motion", "identity"]
    mean = make_methods(["calibrated-mean-motion"], lambda: Given(a=straight_sweep(0.2)))[0]
    assert mean.parameters[2] == pytest.approx(0.2)
    for name in ("guess", "model:", "baseline", "middle:mini"):
        with pytest.raises(InputError, match=f"{name!r} is unknown"):
            make_methods([name], none)


def test_means_are_over_sweeps_whatever_their_length(tmp_path):
    given = Given(a=straight_sweep(0.5, frames=3), b=straight_sweep(0.5, frames=5))
    result = run_methods([Identity()], given, tmp_path)
    figures = result.summaries[0].figures
    assert figures["gpe_mm"].mean == pytest.approx((0.75 + 1.25) / 2)
    assert figures["gpe_mm"].median == pytest.approx(1.0)
    assert (figures["gpe_mm"].low, figures["gpe_mm"].high) == pytest.approx((0.75, 1.25))
    assert figures["lpe_mm"].mean == pytest.approx(0.5)
    assert figures["fdr_percent"].mean == pytest.approx(100)
    assert figures["max_drift_mm"].mean == pytest.approx((1 + 2) / 2)
    assert [row.sweep for row in result.rows] == ["a", "b"]
    assert np.isnan(figures["correlation_tz"].mean)
    assert figures["correlation_tz"].count == 0


def test_pooled_correlation_is_that_of_all_steps_joined():
    random = np.random.default_rng(0)
    parts = [(random.normal(size=(n, 6)) + 3, random.normal(size=(n, 6)) - 2) for n in (7, 2, 30)]
    parts[0][0][3] = np.nan
    parts = [(predicted + 0.7 * np.nan_to_num(true), true) for predicted, true in parts]
    pooled = PooledCorrelation()
    for predicted, true in [*parts, (np.full((2, 6), np.nan), np.ones((2, 6)))]:
        stored = json_text(PooledCorrelation.of(predicted, true))
        pooled.add(PooledCorrelation(**json.loads(stored)))
    one, other = (np.concatenate(values) for values in zip(*parts, strict=True))
    known = np.isfinite(one).all(axis=1)
    wanted = [np.corrcoef(one[known, i], other[known, i])[0, 1] for i in range(6)]
    np.testing.assert_allclose(list(pooled.values().values()), wanted, atol=1e-12)


def test_pooled_correlation_shows_the_sign_that_means_over_sweeps_hide(tmp_path):
    class Distance:
        name, uses, fingerprint = "distance", "images", "distance"

        def estimate(self, sweep, *, progress=None, cancelled=None):
            motions = sweep.tracked.parameters.copy()
            motions[:, 2] *= np.sign(motions[:, 2].sum())
            return Trajectory.from_parameters(motions)

    motions = np.zeros((20, 6))
    motions[:, 2] = 0.3 + 0.1 * np.random.default_rng(0).random(20)
    paths = [Trajectory.from_parameters(sign * motions, origin="measured") for sign in (1, -1)]
    there, back = (straight_sweep(0, 21, tracked=path) for path in paths)
    summary = run_methods([Distance()], Given(there=there, back=back), tmp_path).summaries[0]
    assert summary.figures["correlation_tz"].mean == pytest.approx(0)
    assert abs(summary.pooled["tz"]) < 0.1
    own = run_methods([Failing(0, None)], Given(there=there, back=back), tmp_path).summaries[0]
    assert own.pooled["tz"] == pytest.approx(1)


@pytest.mark.parametrize("error", [InputError("Too dark."), np.linalg.LinAlgError("Singular matrix")])
def test_a_method_that_fails_on_a_sweep_is_named_and_enters_no_mean(error, tmp_path):
    given = Given(good=straight_sweep(0.5, frames=3), bad=straight_sweep(0.5, frames=4))
    result = run_methods([Identity(), Failing(4, error)], given, tmp_path / "items")
    identity, failing = result.summaries
    assert (identity.sweeps, identity.failed) == (2, ())
    assert (failing.sweeps, failing.failed) == (1, ("bad",))
    assert failing.figures["gpe_mm"].mean == pytest.approx(0, abs=1e-12)
    assert (identity.figures["gpe_mm"].mean, identity.common["gpe_mm"]) == pytest.approx((0.875, 0.75))
    assert result.common == ("good",)
    text = text_table(result)
    assert f"failing on bad: {'' if isinstance(error, InputError) else 'LinAlgError: '}{error}" in text
    assert "1 of 2" in text
    assert "means of failing are over 1 of 2 sweeps, without bad" in text
    assert "on common sweeps" in text
    write_tables(result, result.pairs(), tmp_path, {"data_set": "two"})
    assert str(error) in (tmp_path / "table.md").read_text()
    rows = list(csv.DictReader((tmp_path / "sweeps.csv").open()))
    assert [row["error"] != "" for row in rows] == [False, False, False, True]
    assert json.loads((tmp_path / "evaluation.json").read_text())["methods"][1]["failed_on"] == ["bad"]


def test_the_tables_hold_every_figure_of_every_method_and_sweep(tmp_path):
    result = run_methods([Identity(), Shortened("half", 0.5)], Wobbling(6), tmp_path / "items")
    files = write_tables(result, result.pairs(), tmp_path, {"data_set": "wobbling"})
    assert {path.name for path in tmp_path.iterdir()} == {*files, "items"}
    rows = list(csv.DictReader((tmp_path / "sweeps.csv").open()))
    truth = evaluate(Identity().estimate(wobbling_sweep(0)), wobbling_sweep(0)).metrics
    assert len(rows) == 12
    for name in SHOWN:
        assert (float(rows[0][name]) if rows[0][name] else np.nan) == pytest.approx(truth[name], nan_ok=True)
    summary = {row["method"]: row for row in csv.DictReader((tmp_path / "summary.csv").open())}
    gpe = [float(row["gpe_mm"]) for row in rows if row["method"] == "half"]
    assert float(summary["half"]["gpe_mm"]) == pytest.approx(np.mean(gpe))
    assert float(summary["half"]["gpe_mm_median"]) == pytest.approx(np.median(gpe))
    assert float(summary["half"]["gpe_mm_low"]) < np.mean(gpe) < float(summary["half"]["gpe_mm_high"])
    pairs = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert {(row["metric"], row["count"]) for row in pairs} >= {("gpe_mm", "6"), ("lpe_mm", "6")}
    assert "| GPE (mm) |" in (tmp_path / "table.md").read_text()


def test_text_fits_120_columns_however_many_methods(tmp_path):
    methods = [Shortened(f"a method with a rather long name number {number}", number) for number in range(8)]
    for method in methods:
        method.uses = "images, true direction"
    text = text_table(run_methods(methods, Given(a=straight_sweep(0.5)), tmp_path))
    assert max(len(line) for line in text.splitlines()) <= 120
    assert text.count("GPE (mm)") == 2


def test_a_run_can_be_cancelled_and_reports_each_sweep_and_method(tmp_path):
    reports = []
    run_methods([Network(tiny_model(), "local")], Given(a=tracked_sweep(0)), tmp_path, progress=reports.append)
    assert (reports[-1].stage, reports[-1].detail) == (Stage.SWEEPS, "")
    assert {report.detail for report in reports[:-1]} == {"a, tiny (local alone)"}
    with pytest.raises(Cancelled):
        run_methods([Identity()], Given(a=straight_sweep(0.5)), tmp_path, cancelled=lambda: True)
