"""The demo: the sample sweep through the model that ships, measured against its true poses."""

import contextlib
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from shipped_stand_in import ship_stand_in

from DualTrackCore.cli import demo, main
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import load_sweep, read_trajectory_csv
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

RESULTS = {
    *("volume.nrrd", "coverage.nrrd", "sweep.igs.mha", "trajectory.csv", "report.json", "settings.yaml"),
    *("slices.png", "trajectory.png", "motion.png", "comparison.png", "true-volume.nrrd", "true-trajectory.csv"),
}


def short_sample() -> Sweep:
    """The first frames of the sample, enough to fill a volume."""
    return sample_sweep().slice(0, 24)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The demo on a short sweep with a small model, run twice into one folder: (folder, stdout, stderr)."""
    folder, out, err = tmp_path_factory.mktemp("demo"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ship_stand_in(folder / "weights", patch)
        patch.setattr(demo, "sample_sweep", short_sample)
        for _ in range(2):
            out.seek(0)
            out.truncate()
            assert main(["demo", "-o", str(folder / "out")]) == 0, err.getvalue()
    return folder / "out", out.getvalue(), err.getvalue()


@pytest.fixture
def report(ran):
    return json.loads((ran[0] / "report.json").read_text())


def test_the_demo_writes_every_result_also_over_an_older_one(ran, report):
    assert {path.name for path in ran[0].iterdir()} == RESULTS
    assert set(report["files"]) == RESULTS


def test_it_names_every_file_and_what_it_is(ran):
    for name in RESULTS:
        assert f"\n  {name} " in ran[1]


def test_it_estimates_with_the_model_that_ships_and_not_from_the_truth(ran, report):
    assert report["trajectory"]["source"]["model"] == "mini"
    estimated, true = (
        read_trajectory_csv(ran[0] / "trajectory.csv"),
        read_trajectory_csv(ran[0] / "true-trajectory.csv"),
    )
    assert np.abs(estimated.poses - true.poses).max() > 0.1
    np.testing.assert_allclose(true.poses, short_sample().tracked.poses, atol=1e-9)
    assert load_sweep(ran[0] / "sweep.igs.mha").tracked.estimated_by == "mini"


def test_its_table_holds_the_figures_of_the_evaluation(ran, report):
    sweep = short_sample()
    expected = evaluate(read_trajectory_csv(ran[0] / "trajectory.csv"), sweep)
    rows = {line.split("  ")[1]: line for line in ran[1].splitlines() if line.startswith("  ")}
    for key, unit, name, meaning in demo._ROWS:
        metrics = [expected.metrics, expected.baselines["identity"], expected.baselines["mean_motion"]]
        cells = [demo._figure(values[key], unit) for values in metrics]
        assert " ".join([name, *cells, meaning]).split() == rows[name].split()
        assert report["evaluation"]["metrics"][key] == pytest.approx(expected.metrics[key], rel=1e-6)


def test_it_warns_of_nothing_about_simulation_because_the_sample_is_simulated(ran, report):
    assert not any("simulated sweeps" in warning for warning in report["warnings"])
    assert "only ever seen" not in ran[2]


def test_it_says_that_simulated_figures_say_nothing_about_patients(ran, report):
    assert "say nothing about patients" in ran[1]
    assert "say nothing about patients" in report["about"]
    assert "not for diagnosis" in ran[1]


def test_the_demo_for_machines_is_one_json_object(tmp_path, monkeypatch, capsys):
    ship_stand_in(tmp_path / "weights", monkeypatch)
    monkeypatch.setattr(demo, "sample_sweep", short_sample)
    assert main(["demo", "-o", str(tmp_path / "out"), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["output"] == str(tmp_path / "out")
    assert result["evaluation"]["baselines"]["mean_motion"]["gpe_mm"] >= 0
    assert set(result["files"]) == RESULTS


def test_without_the_weights_the_demo_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    ship_stand_in(tmp_path / "weights", monkeypatch).unlink()
    assert main(["demo", "-o", str(tmp_path / "out")]) == 2
    assert "this installation lacks its file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_demo_writes_all_but_pictures(tmp_path, monkeypatch, capsys):
    ship_stand_in(tmp_path / "weights", monkeypatch)
    monkeypatch.setattr(demo, "sample_sweep", short_sample)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {n for n in RESULTS if not n.endswith(".png")}
    printed = capsys.readouterr()
    assert "No pictures were written" in printed.err
    assert "comparison.png" not in printed.out


def test_a_perfect_estimate_has_no_error_and_gives_the_true_volume(tmp_path, monkeypatch, capsys):
    ship_stand_in(tmp_path / "weights", monkeypatch)
    sweep = short_sample()
    estimate = Trajectory(sweep.tracked.poses, provenance={"model": "mini"})
    monkeypatch.setattr(demo, "sample_sweep", lambda: replace(sweep))
    monkeypatch.setattr("DualTrackCore.tracking.estimate_trajectory", lambda *_, **__: estimate)
    assert main(["demo", "-o", str(tmp_path / "out")]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  GPE")]
    assert row.split()[1:3] == ["0.00", "mm"]
    estimated, true = (sitk.ReadImage(str(tmp_path / "out" / name)) for name in ("volume.nrrd", "true-volume.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(estimated), sitk.GetArrayFromImage(true))
    assert estimated.GetOrigin() == true.GetOrigin()
    assert estimated.GetDirection() == true.GetDirection()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "undefined"), (0.0674, "0.0674 mm"), (5.7, "5.70 mm"), (99.96, "100 mm"), (212.4, "212 mm")],
)
def test_a_figure_has_three_digits_and_its_unit(value, text):
    assert demo._figure(value, "mm") == text
