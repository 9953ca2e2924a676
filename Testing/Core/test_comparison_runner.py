"""Long evaluations: kept item by item, gone on with after a kill, in processes, on a cluster; what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_sets import Dying, Failing, Given, Shortened, Wobbling, straight_sweep, wobbling_sweep
from oracle import tiny_model
from worker_processes import is_running, noted, watched

from DualTrackCore.errors import Cancelled, InputError, OutOfMemoryError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.research.comparison import Identity, MeanMotion, Network, run_methods, runner
from DualTrackCore.research.comparison.result_files import fingerprint, read_item, sweep_fingerprint
from DualTrackCore.trajectory import Trajectory

#: What a run is when it is started in a process of its own: argument 1 the folder, 2 the log, 3 seconds a sweep.
_RUN = """
import sys
from pathlib import Path
from evaluation_sets import Shortened, Wobbling
from DualTrackCore.research.comparison import run_methods
if __name__ == "__main__":
    folder, log = map(Path, sys.argv[1:])
    methods = [Shortened("half", 0.5, log, 8), Shortened("most", 0.9, log, 8)]
    run_methods(methods, Wobbling(8), folder, workers=2, threads=1)
"""


def methods(log=None):
    return [Shortened("half", 0.5, log), Shortened("most", 0.9, log)]


def figures(result):
    """Everything that does not depend on time and memory."""
    rows = [(row.method, row.sweep, row.error, dict(row.metrics)) for row in result.rows]
    summaries = [
        (s.method, s.sweeps, s.failed, {k: v for k, v in s.figures.items() if not k.startswith(("seconds", "peak"))})
        for s in result.summaries
    ]
    return repr((rows, summaries, [s.pooled for s in result.summaries], result.skipped))


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def test_a_run_that_is_killed_in_two_processes_goes_on_with_nothing_lost_or_done_twice(tmp_path):
    items, log, script = tmp_path / "items", tmp_path / "log", tmp_path / "run.py"
    script.write_text(_RUN)
    environment = watched(tmp_path, stops=False)
    process = subprocess.Popen([sys.executable, str(script), str(items), str(log)], env=environment)
    while len(list(items.glob("*.json"))) < 4:  # however slow the machine is; the suite ends what never ends
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    workers = {int(line.split()[-1]) for line in lines(log)}
    while any(Path(f"/proc/{worker}/status").exists() for worker in workers):
        time.sleep(0.05)
    settings = {process: variables for process, variables in noted(tmp_path) if process in workers}
    assert settings
    for variables in settings.values():  # before torch was loaded: later they come too late
        assert (variables["OMP_NUM_THREADS"], variables["OMP_WAIT_POLICY"]) == ("1", "passive")
    kept = {path: path.stat().st_mtime_ns for path in items.glob("*-*.json")}
    assert 4 <= len(kept) < 16
    started = len(lines(log))
    again = run_methods(methods(log), Wobbling(8), items)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(lines(log)) - started == 16 - len(kept)
    assert len(list(items.glob("*-*.json"))) == 16
    assert figures(again) == figures(run_methods(methods(), Wobbling(8), tmp_path / "undisturbed"))


def test_processes_with_a_card_each_find_the_same_as_one_and_leave_nothing_behind(tmp_path, temporary, monkeypatch):
    alone = run_methods(methods(), Wobbling(6), tmp_path / "one")
    monkeypatch.setattr(runner, "_cards", lambda methods: ["3", "5"])
    log, variables = tmp_path / "log", dict(os.environ)
    result = run_methods(methods(log), Wobbling(6), tmp_path / "two", workers=2, threads=1)
    assert figures(result) == figures(alone)
    cards = {tuple(line.split()[-2:]) for line in lines(log)}
    assert str(os.getpid()) not in {process for _, process in cards}
    assert len(cards) == len({card for card, _ in cards}) == len({process for _, process in cards})
    assert {card for card, _ in cards} <= {"3", "5"}
    left = {name: value for name, value in os.environ.items() if variables.get(name) != value}
    assert left.pop("PYTHONHASHSEED", "random") == "random"
    assert {name for name in left if not name.startswith("__DASK")} == set()


def test_a_process_that_dies_ends_the_run_and_a_cancelled_run_ends_what_is_at_work(tmp_path):
    with pytest.raises(OutOfMemoryError, match="worker process was ended from outside"):
        run_methods([Dying()], Wobbling(3), tmp_path / "three", workers=2, threads=1)
    log = tmp_path / "log"
    hanging = [Shortened("half", 0.5, log, 1)]
    with pytest.raises(Cancelled):
        run_methods(hanging, Wobbling(1), tmp_path / "four", workers=2, cancelled=lambda: bool(lines(log)))
    assert not is_running(int(lines(log)[0].split()[-1]))


def test_cards_are_dealt_as_torch_sees_them_unless_a_method_was_given_one(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    model = tiny_model()
    assert runner._cards([Network(model), Identity()]) == ["0", "1"]
    assert runner._cards([Network(model), Network(model, device="cuda:1")]) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7f")
    assert runner._cards([Network(model, device="cuda")]) == ["4", "GPU-7f"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert runner._cards([Network(model)]) == []


def test_a_cluster_of_two_workers_finds_the_same_and_is_gone_on_with(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the cluster needs Dask distributed")
    alone = run_methods(methods(), Wobbling(4), tmp_path / "one")
    log, items = tmp_path / "log", tmp_path / "cluster"
    run_methods(methods(log), Wobbling(2), items)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        result = run_methods(methods(log), Wobbling(4), items, cluster=client)
    assert figures(result) == figures(alone)
    assert len(lines(log)) == len(set(lines(log))) == 8


def test_a_cluster_is_reached_by_tls_with_the_right_certificate_alone(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the cluster needs Dask distributed")
    if not shutil.which("openssl"):
        pytest.skip("The certificates are made by openssl.")
    for name in ("right", "wrong"):
        key = ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        command = ["openssl", "req", "-x509", *key, "-days", "1", "-subj", f"/CN={name}"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    right, wrong = ((tmp_path / f"{n}.pem", tmp_path / f"{n}.pem", tmp_path / f"{n}.key") for n in ("right", "wrong"))
    sides = {f"tls_{who}_{what}": str(file) for who in ("scheduler", "worker", "client")
             for what, file in (("cert", right[1]), ("key", right[2]))}  # fmt: skip
    security = distributed.Security(tls_ca_file=str(right[0]), require_encryption=True, **sides)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(protocol="tls://", security=security, **options) as cluster:
        address = cluster.scheduler_address
        result = run_methods(methods(), Wobbling(1), tmp_path / "items", cluster=address, tls=right)
        assert len(result.rows) == len(methods())
        for files in (wrong, None):
            with pytest.raises(InputError, match="No Dask scheduler answers"):
                run_methods(methods(), Wobbling(1), tmp_path / "items", cluster=address, tls=files)
    with pytest.raises(InputError, match="There is no file"):
        run_methods(methods(), Wobbling(1), tmp_path / "items", cluster=address, tls=(*right[:2], tmp_path / "none"))


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the cluster needs Dask distributed")
    monkeypatch.setattr("DualTrackCore.research.comparison.runner._CONNECT_S", 0.2)
    with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_methods(methods(), Wobbling(1), tmp_path, cluster="tcp://127.0.0.1:9")


def test_only_what_changed_is_made_anew(tmp_path):
    log = tmp_path / "log"
    sweeps = {"a": wobbling_sweep(0), "b": wobbling_sweep(1)}
    run_methods(methods(log), Given(**sweeps), tmp_path / "items")
    assert len(lines(log)) == 4
    run_methods(methods(log), Given(**sweeps), tmp_path / "items")
    assert len(lines(log)) == 4
    changed = [Shortened("half", 0.4, log), methods(log)[1]]
    assert run_methods(changed, Given(**sweeps), tmp_path / "items").rows[0].metrics["lpe_mm"] > 0.1
    assert len(lines(log)) == 6
    pixels = sweeps["b"].window(0, 12).copy()
    pixels[7, 3, 4] ^= 1
    result = run_methods(methods(log), Given(a=sweeps["a"], b=replace(sweeps["b"], frames=pixels)), tmp_path / "items")
    assert len(lines(log)) == 8
    assert (len(result.rows), result.summaries[0].sweeps) == (4, 2)
    run_methods(methods(log), Given(**sweeps), tmp_path / "items", resume=False)
    assert len(lines(log)) == 12


def test_another_version_of_the_program_makes_everything_anew(tmp_path, monkeypatch):
    log = tmp_path / "log"
    run_methods(methods(log), Wobbling(1), tmp_path / "items")
    monkeypatch.setattr("DualTrackCore.research.comparison.result_files.__version__", "0.0.0")
    run_methods(methods(log), Wobbling(1), tmp_path / "items")
    assert len(lines(log)) == 4


@pytest.mark.parametrize("damage", [b"", b'{"format": 1, "key"', b"\xff\xfe", b"[]"])
def test_a_damaged_item_is_made_anew(tmp_path, damage):
    log = tmp_path / "log"
    first = run_methods(methods(log), Wobbling(2), tmp_path / "items")
    path = first.rows[0].path
    path.with_name(f".12345678-{path.name}").write_bytes(path.read_bytes()[:50])
    path.write_bytes(damage)
    again = run_methods(methods(log), Wobbling(2), tmp_path / "items")
    assert figures(again) == figures(first)
    assert len(lines(log)) == 5


def test_an_item_keeps_poses_and_errors_of_every_frame(tmp_path):
    poses = np.array(wobbling_sweep(3).tracked.poses)
    poses[4] = np.nan
    tracked = Trajectory(poses, np.arange(12) != 4, origin="measured")
    sweep = replace(wobbling_sweep(3), tracked=tracked)
    row = run_methods([Identity()], Given(a=sweep), tmp_path).rows[0]
    item, evaluation = read_item(row.path), evaluate(Identity().estimate(sweep), sweep)
    np.testing.assert_allclose(item.error_mm, evaluation.global_error_mm, atol=1e-6)
    np.testing.assert_allclose(item.trajectory().poses, np.tile(np.eye(4), (12, 1, 1)), atol=1e-6)
    assert np.isnan(item.path_mm[4])
    assert item.path_mm[-1] == pytest.approx(evaluation.metrics["path_length_mm"], abs=1e-5)
    assert (item.frames, item.frames_used) == (12, 11)
    assert item.seconds > 0
    assert not sys.platform.startswith("linux") or item.peak_mebibytes > 10


def test_landmarks_of_the_data_set_give_their_errors_and_the_score(tmp_path):
    class Marked(Given):
        def landmarks(self, name):
            return Landmarks(np.array([3, 7]), np.array([[2.0, 3.0], [8.0, 1.0]]))

    row = run_methods([Identity()], Marked(a=wobbling_sweep(0)), tmp_path).rows[0]
    assert row.metrics["gle_mm"] > 0
    assert row.metrics["tus_rec_score"] == pytest.approx(0)
    assert np.isnan(run_methods([Identity()], Given(a=wobbling_sweep(0)), tmp_path).rows[0].metrics["gle_mm"])


def bad_sweeps():
    """What a sweep may lack, and a word of the sentence that says so."""
    estimated = Trajectory(np.tile(np.eye(4), (5, 1, 1)), provenance={"model": "mini"})
    lost = Trajectory(np.full((5, 4, 4), np.nan), np.zeros(5, bool), origin="measured")
    return {
        "broken": (InputError("The file is cut short."), "cut short"),
        "surprise": (OSError("read failed"), "OSError: read failed"),
        "untracked": (straight_sweep(0.5, tracked=None), "no tracking"),
        "estimated": (straight_sweep(0.5, tracked=estimated), "estimated by mini, so they are no truth"),
        "nan": (straight_sweep(0.5, tracked=lost), "Only 0 of 5 tracked poses are valid"),
        "spacing": (straight_sweep(0.5, spacing_mm=None), "spacing of this sweep is unknown"),
    }


def test_bad_sweeps_are_left_out_by_name_where_that_is_asked_for(tmp_path):
    sweeps = {name: sweep for name, (sweep, _) in bad_sweeps().items()}
    result = run_methods([Identity()], Given(good=straight_sweep(0.5), **sweeps), tmp_path, on_bad="skip")
    assert result.sweeps == ["good"]
    assert result.summaries[0].sweeps == 1
    assert list(result.skipped) == list(sweeps)
    for name, (_, words) in bad_sweeps().items():
        assert words in result.skipped[name]


def test_bad_sweeps_are_refused_by_name_and_what_is_finished_stays(tmp_path):
    for name, (sweep, words) in bad_sweeps().items():
        folder = tmp_path / name
        with pytest.raises(InputError, match=rf"sweep {name} of given cannot be used: .*{words}"):
            run_methods([Identity()], Given(good=straight_sweep(0.5), **{name: sweep}), folder)
        assert len(list(folder.glob("*.json"))) == 1
    with pytest.raises(InputError, match=r"No sweep of given can be used; the first is broken: .*cut short"):
        run_methods([Identity()], Given(broken=InputError("It is cut short.")), tmp_path, on_bad="skip")


def test_frames_that_fail_while_they_are_read_are_a_bad_sweep(tmp_path):
    class Torn:
        shape, dtype = (5, 10, 12), np.dtype(np.uint8)

        def __getitem__(self, key):
            raise OSError("truncated chunk")

    given = Given(good=straight_sweep(0.5), torn=replace(straight_sweep(0.5), frames=Torn()))
    assert "truncated chunk" in run_methods([Identity()], given, tmp_path, on_bad="skip").skipped["torn"]


def test_what_failed_is_tried_again(tmp_path):
    given = Given(a=straight_sweep(0.5, frames=4), b=straight_sweep(0.5, frames=6))
    assert len(run_methods([Failing(4, MemoryError("full"))], given, tmp_path).failures) == 1
    assert not run_methods([Failing(0, None)], given, tmp_path).failures


def test_names_must_differ_and_there_must_be_something_to_run(tmp_path):
    given = Given(a=straight_sweep(0.1))
    for chosen, data, options, words in (
        ([], given, {}, "no method"),
        ([Identity()], Given(), {}, "no sweep in given"),
        ([Identity(), Identity()], given, {}, "'identity' is given twice"),
        ([Identity()], given, {"workers": 0}, "the least is 1"),
        ([Identity()], given, {"on_bad": "ask"}, "choose refuse or skip"),
    ):
        with pytest.raises(InputError, match=words):
            run_methods(chosen, data, tmp_path / "items", **options)
    assert not (tmp_path / "items").exists()


def test_methods_that_cannot_go_to_other_processes_are_refused(tmp_path):
    method = Identity()
    method.open = lambda: None
    with pytest.raises(InputError, match="attribute `fingerprint`"):
        run_methods([method], Wobbling(1), tmp_path)
    method.fingerprint = "identity"
    method_in_data = Given(a=straight_sweep(0.1))
    method_in_data.call = threading.Lock()
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        run_methods([Identity()], method_in_data, tmp_path, workers=2)


def test_a_cancelled_run_keeps_what_is_finished(tmp_path):
    with pytest.raises(Cancelled):
        run_methods([Identity()], Wobbling(5), tmp_path, cancelled=lambda: len(list(tmp_path.glob("*-*.json"))) >= 2)
    assert len(list(tmp_path.glob("*-*.json"))) == 2


def test_equal_contents_have_equal_fingerprints_and_others_do_not():
    model = tiny_model()
    one, other = fingerprint(Network(model)), fingerprint(Network(tiny_model()))
    assert one == other
    next(model.network.parameters()).data.view(-1)[0] += 1e-3
    assert fingerprint(Network(model)) != one
    assert fingerprint(Network(tiny_model(), "local")) != one
    different = [
        [1, 2], [12], ["1", "2"], (None,), {"a": 1}, {"a": 2}, {"b": 1}, np.zeros(3), np.zeros((3, 1)),
        np.zeros(3, np.float32), b"12", "12", 12, 12.0, True, MeanMotion(np.zeros(6)), MeanMotion(np.ones(6)),
    ]  # fmt: skip
    assert len({fingerprint(value) for value in different}) == len(different)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_every_part_of_a_sweep_counts_for_its_fingerprint():
    sweep = wobbling_sweep(0)
    pixels = sweep.window(0, 12).copy()
    pixels[-1, -1, -1] ^= 1
    points = Landmarks(np.array([3]), np.array([[2.0, 3.0]]))
    others = [
        (replace(sweep, frames=pixels), None),
        (replace(sweep, spacing_mm=0.6), None),
        (replace(sweep, tracked=wobbling_sweep(1).tracked), None),
        (replace(sweep, timestamps_s=np.arange(12.0)), None),
        (sweep, points),
        (sweep, None),
    ]
    assert len({sweep_fingerprint(*other) for other in others}) == len(others)
    assert sweep_fingerprint(sweep) == sweep_fingerprint(wobbling_sweep(0))


def test_items_are_plain_small_json(tmp_path):
    run_methods([Identity()], Wobbling(1), tmp_path)
    (path,) = tmp_path.glob("*.json")
    values = json.loads(path.read_text())
    assert (values["method"], values["sweep"]) == ("identity", "Par_L_DtP 0")
    assert values["key"] in path.name
    assert path.stat().st_size < 4000
