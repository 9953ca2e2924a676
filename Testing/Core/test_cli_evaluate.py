"""`dualtrack evaluate`: files and simulated sweeps, what it writes, what it takes up again and what it refuses."""

import json

import numpy as np
import pytest
from oracle import tiny_model
from training_data import tracked_sweep, write_sweeps

from DualTrackCore.cli import main
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import save_sweep
from DualTrackCore.network.model import save_model
from DualTrackCore.research.comparison import Identity
from DualTrackCore.research.comparison.summaries import SHOWN
from DualTrackCore.research.datasets import simulated_dataset
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.research.training import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

_WRITTEN = {
    "errors.png", "evaluation.json", "growth.png", "items", "pairs.csv", "report.html", "summary.csv", "sweeps.csv",
    "table.md",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two tracked sweeps and a small untrained model."""
    folder = tmp_path_factory.mktemp("evaluate")
    for seed in (0, 1):
        save_sweep(tracked_sweep(seed, 12), folder / f"{seed}.h5")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


@pytest.fixture
def without_pictures(monkeypatch):
    """No page: its pictures take longer than all the rest and are tested by themselves."""
    monkeypatch.setattr("DualTrackCore.research.report.write_report", lambda *_, **__: [])


def methods(*names):
    return [word for name in names for word in ("--method", name)]


def test_methods_are_measured_on_files_and_everything_is_written(files, tmp_path, capsys):
    weights = files / "tiny.safetensors"
    given = [str(files / f"{seed}.h5") for seed in (0, 1)]
    names = [
        "identity",
        "calibrated-mean-motion",
        "own-mean-motion",
        f"model:{weights}",
        f"local:{weights}",
        f"global:{weights}",
    ]
    out = tmp_path / "out"
    arguments = ["evaluate", *given, "-o", str(out), *methods(*names), "--calibrate", *given, "--device", "cpu"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "r(tz), pooled" in text
    sentences = ("Written", "do not measure", "rough guide", "usable")
    assert max(len(line) for line in text.splitlines() if not any(word in line for word in sentences)) <= 120
    assert {path.name for path in out.iterdir()} == _WRITTEN
    values = json.loads((out / "evaluation.json").read_text())
    headings = ["identity", "calibrated-mean-motion", "own-mean-motion", "model:tiny", "local:tiny", "global:tiny"]
    assert [row["method"] for row in values["methods"]] == headings
    assert len(values["sweeps"]) == 2 * len(names)
    truth = evaluate(Identity().estimate(tracked_sweep(0, 12)), tracked_sweep(0, 12)).metrics
    for name in SHOWN:
        value = values["sweeps"][0][name]
        assert (np.nan if value is None else value) == pytest.approx(truth[name], rel=1e-4, nan_ok=True)
    assert values["methods"][3]["parameters"] > 1000
    before = {path: path.stat().st_mtime_ns for path in (out / "items").iterdir()}
    assert len(before) == 12
    assert main([*arguments, "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "items").iterdir()} == before
    assert [row["sweeps"] for row in json.loads(capsys.readouterr().out)["methods"]] == [2] * 6


def test_weights_files_and_sweeps_of_one_name_keep_their_folders(files, tmp_path, without_pictures):
    other = tmp_path / "tiny.safetensors"
    other.write_bytes((files / "tiny.safetensors").read_bytes())
    save_sweep(tracked_sweep(2, 12), tmp_path / "0.h5")
    names = [f"local:{files / 'tiny.safetensors'}", f"local:{other}"]
    given = [str(files / "0.h5"), str(tmp_path / "0.h5")]
    assert main(["evaluate", *given, "-o", str(tmp_path / "out"), *methods(*names)]) == 0
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    folders = [files.name, tmp_path.name]
    assert [row["method"] for row in values["methods"]] == [f"local:{folder}/tiny" for folder in folders]
    assert {row["sweep"] for row in values["sweeps"]} == {f"{folder}/0" for folder in folders}


def test_held_out_sweeps_are_simulated_and_kept(tmp_path, capsys):
    small = ["--count", "2", "--calibration-count", "2", "--frames", "6", "--size", "112,72", "--spacing", "0.25"]
    chosen = methods("calibrated-mean-motion", "decorrelation", "decorrelation-oracle-direction")
    assert main(["evaluate", "held-out", "-o", str(tmp_path / "out"), *chosen, *small]) == 0
    assert "held-out sweeps" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "sweeps").glob("*.h5"))) == 4
    assert "says nothing about patients" in (tmp_path / "out" / "report.html").read_text()
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {row["sweep"] for row in values["sweeps"]} == {"Per_L_DtP 2000000", "Per_L_PtD 2000001"}


def test_a_split_is_chosen_and_a_bad_sweep_refused_or_left_out(tmp_path, capsys, without_pictures):
    table = write_sweeps(tmp_path, train=2, val=2, frames=6)
    out = tmp_path / "out"
    common = ["evaluate", str(table), "-o", str(out), "--split", "val", *methods("identity")]
    assert main(common) == 0
    assert "2 sweeps" in capsys.readouterr().out
    (tmp_path / "3.h5").write_bytes((tmp_path / "3.h5").read_bytes()[:700])
    assert main(common) == 2
    assert "sweep 3" in (error := capsys.readouterr().err)
    assert "3.h5" in error
    assert main([*common, "--on-bad", "skip"]) == 0
    said = capsys.readouterr()
    assert "sweep 3 was left out" in said.err
    assert "1 sweep" in said.out
    values = json.loads((out / "evaluation.json").read_text())
    assert list(values["skipped"]) == ["sweep 3"]
    assert values["methods"][0]["sweeps"] == 1


def test_pixels_are_counted_from_one_where_that_is_asked_for_and_the_files_say_so(files, tmp_path, without_pictures):
    command, out = ["evaluate", str(files / "0.h5"), *methods("identity"), "-o"], tmp_path / "out"
    sweep, found = tracked_sweep(0, 12), []
    for option in ([], ["--tus-rec-pixels"]):  # into one folder: the items of one grid are none of the other
        assert main([*command, str(out), *option]) == 0
        values = json.loads((out / "evaluation.json").read_text())
        truth = evaluate(Identity().estimate(sweep), sweep, tus_rec_pixels=bool(option)).metrics
        assert values["sweeps"][0]["gpe_mm"] == pytest.approx(truth["gpe_mm"], rel=1e-5)
        assert ("counted from 1" in (out / "table.md").read_text()) == ("pixels" in values) == bool(option)
        found.append(truth["gpe_mm"])
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def test_what_cannot_be_used_is_refused_and_nothing_is_written(files, tmp_path, capsys):
    out, sweep = tmp_path / "out", str(files / "0.h5")
    table = str(write_sweeps(tmp_path, train=1, val=0, frames=3))
    for arguments, words in (
        ([sweep, *methods("guess")], "'guess' is unknown"),
        ([sweep, *methods("model:")], "'model:' is unknown"),
        ([sweep, *methods("model:nowhere.safetensors")], "nowhere.safetensors"),
        ([sweep, *methods("baseline:nowhere")], "'nowhere'"),
        ([str(files / "none.h5"), *methods("identity")], "none.h5"),
        (["held-out", sweep, *methods("identity")], "not both"),
        (["held-out", "--split", "val", *methods("identity")], "have no splits"),
        ([table, "--split", "val", *methods("identity")], "no sweep whose split is val"),
        ([sweep, "--workers", "0", *methods("identity")], "at least 1"),
        ([sweep, "--workers", "2", "--cluster", "tcp://x:1", *methods("identity")], "either --workers"),
        ([sweep, "--cluster", "tcp://x:1", "--cluster-ca", "a", *methods("identity")], "TLS needs"),
        ([sweep, "--cluster", "tls://x:1", "--cluster-ca", "a", *methods("identity")], "TLS needs"),
        ([sweep, "--cluster", "tcp://127.0.0.1:x", *methods("identity")], "Whoever can reach the scheduler"),
    ):
        assert main(["evaluate", *arguments, "-o", str(out)]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()
    (blocked := tmp_path / "blocked").write_text("")
    assert main(["evaluate", sweep, *methods("identity"), "-o", str(blocked)]) == 2
    assert "it is a file" in capsys.readouterr().err


def test_a_cancelled_command_says_what_is_kept(files, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    arguments = ["evaluate", str(files / "0.h5"), "-o", str(tmp_path / "out"), *methods("identity")]
    monkeypatch.setattr("DualTrackCore.research.comparison.table_files.write_tables", interrupted)
    assert main(arguments) == 1
    assert "1 finished result" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["items"]
    monkeypatch.undo()
    monkeypatch.setattr("DualTrackCore.research.report.write_report", lambda *_, **__: [])
    assert main(arguments) == 0


def test_held_out_sweeps_share_nothing_with_those_of_training():
    data = load_recipe("mini/fusion").data
    held_out, calibration = ([e.simulation for e in simulated_dataset(which)] for which in ("held-out", "simulated"))
    assert len(held_out) == 2 * len(FAMILIES)
    assert sorted(job.family for job in held_out) == sorted(2 * FAMILIES)
    assert min(job.seed for job in held_out) >= max(*data.seeds, *data.validation_seeds)
    assert min(job.speckle_seed for job in held_out) >= 2 * data.speckles
    assert len({job.seed for job in held_out}) == len(held_out)
    assert all(data.seeds[0] <= job.seed < data.seeds[1] for job in calibration)
    assert {job.family for job in calibration} == set(FAMILIES)


def test_stored_simulations_are_taken_up_again_and_equal_fresh_ones(tmp_path):
    small = {"count": 2, "frames": 3, "frame_size": (40, 48), "spacing_mm": (0.3, 0.3)}
    stored, fresh = simulated_dataset(**small, folder=tmp_path), simulated_dataset(**small)
    first = [stored.load(name) for name in stored.names]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = [stored.load(name) for name in stored.names]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    for name, one, other in zip(fresh.names, first, again, strict=True):
        np.testing.assert_array_equal(one.window(0, 3), fresh.load(name).window(0, 3))
        np.testing.assert_array_equal(other.window(0, 3), one.window(0, 3))
