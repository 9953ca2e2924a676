"""A real server on the loopback address and its client: runs, refusals, and whatever can be cut or killed."""

import json
import os
import re
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
from documents import run_server_page
from oracle import noise_sweep, tiny_model
from serving import (
    CRASH,
    NO_MEMORY,
    QUICK,
    SLOW,
    answering,
    cutting,
    light_server,
    real_server,
    self_made_certificate,
)
from worker_processes import comes_true, is_running, tracked_sweep

from DualTrackCore import __version__, estimate_trajectory, save_sweep
from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, InputError, OutOfMemoryError, ServerError
from DualTrackCore.network import load_model, save_model
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.remote import RemoteModel, Server, client, wire
from DualTrackCore.run import RunSettings, run

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Ends servers by signals, which Windows has not."),
    pytest.mark.filterwarnings("ignore::DualTrackCore.errors.TrackingWarning"),
]


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    with light_server(tmp_path_factory.mktemp("light"), places=3, most_gb=0.001) as server:
        yield server


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    certificate, private_key = self_made_certificate(folder)
    key_file = str(folder / "made-at-start.key")
    with light_server(folder, key_file=key_file, certificate=certificate, private_key=private_key) as server:
        yield server, key_file, certificate


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """`dualtrack serve` with a small model, and that model."""
    folder, model = tmp_path_factory.mktemp("real"), tiny_model()
    models = folder / "models"
    models.mkdir()
    save_model(model.network, model.card, models / "tiny.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALTRACK_MODELS", str(models))
        with real_server(folder, "--models", "tiny", "--device", "cpu") as server:
            yield server


def order(code=QUICK, **changes):
    return {"model": "mini", "chunk_frames": code, **changes}


def without_times(provenance):
    return {name: value for name, value in provenance.items() if name not in ("estimated_at", "server")}


def test_a_run_at_a_server_is_the_local_one_to_the_last_bit(real):
    sweep = noise_sweep(20)
    twice = np.concatenate([sweep.frames[:9], sweep.frames[8:]])  # a frame is shown again
    sweep = type(sweep)(twice, sweep.spacing_mm, np.arange(21) / 20 + 1e9)
    settings = {"model": "tiny", "voxel_mm": 1.0}
    here, there = run(sweep, RunSettings(**settings)), run(sweep, RunSettings(**settings, device=real.address))
    np.testing.assert_array_equal(there.trajectory.poses, here.trajectory.poses)
    np.testing.assert_array_equal(there.volume, here.volume)
    np.testing.assert_array_equal(there.coverage, here.coverage)
    assert there.trajectory.provenance["server"] == real.address
    assert there.report.trajectory["source"]["server"] == real.address
    assert without_times(there.trajectory.provenance) == without_times(here.trajectory.provenance)
    assert there.warnings == here.warnings
    pictures = here.sweep.chosen(np.delete(np.arange(21), 9))
    seen = []
    _, made = Server(real.address).track(pictures, {"model": "tiny"}, Reporter(seen.append), volume={"voxel_mm": 1.0})
    assert Stage.COMPARING not in {report.stage for report in seen}, "whoever sends frames has searched them"
    np.testing.assert_array_equal(made.volume, here.volume)
    np.testing.assert_array_equal(made.origin_mm, here.grid.origin_mm)
    assert made.spacing_mm == here.grid.spacing_mm
    assert comes_true(real.is_clean)


def test_a_script_names_a_server_in_place_of_a_device(real):
    sweep, model = noise_sweep(12), load_model("tiny")
    there = estimate_trajectory(sweep, model, device=real.address)
    np.testing.assert_array_equal(there.poses, estimate_trajectory(sweep, model).poses)
    other = type(model)(model.network, model.card, "0" * 64)
    with pytest.raises(InputError, match="other weights"):
        estimate_trajectory(sweep, other, device=real.address)


def test_the_code_of_the_page_on_servers_runs_at_a_server(real, tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "clip.h5")
    names = run_server_page(real.address, "tiny", tmp_path / "clip.h5", noise_sweep(6).frames)
    assert len(names["trajectory"]) == len(names["result"].trajectory) == 6


def test_the_command_line_runs_at_a_server_and_says_where(real, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", noise_sweep(6).frames)
    command = ["run", str(tmp_path / "clip.npy"), "--spacing", "0.3", "--model", "tiny", "--no-pictures", "--quiet"]
    assert main([*command, "--server", real.address, "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["trajectory"]["source"]["server"] == real.address
    assert report["settings"]["device"] == real.address
    assert main([*command, "--server-key-file", "k", "-o", str(tmp_path / "none")]) == 2
    assert "name it with --server" in capsys.readouterr().err


def test_a_server_offers_what_it_was_told_to_and_says_so_at_its_start(real):
    assert "127.0.0.1" in real.said[0]
    assert "Models: tiny. Device: CPU.\n" in real.said[0]
    offer = Server(real.address).offer()
    assert offer.sentence == f"Reachable: DualTrack {__version__} on CPU, models tiny; 8 of 8 places are free."
    with pytest.raises(InputError, match="has no model 'mini'; it offers tiny"):
        RemoteModel.at(Server(real.address), "mini")


def test_a_server_ends_at_a_signal_with_its_worker_and_leaves_nothing(tmp_path):
    with light_server(tmp_path) as server:
        stages, lost = [], []

        def work():
            with pytest.raises(ServerError) as caught:
                Server(server.address).track(tracked_sweep(4), order(SLOW), Reporter(stages.append))
            lost.append(str(caught.value))

        thread = threading.Thread(target=work)
        thread.start()
        assert comes_true(lambda: any(report.stage == Stage.NETWORK for report in stages))
        server.process.terminate()
        assert server.process.wait(15) == 0
        thread.join(15)
        assert "was cut" in lost[0]
        assert "nothing of its runs is left" in server.said[-1]


def test_a_server_without_work_lets_go_of_its_model_and_takes_the_next_run(tmp_path):
    with light_server(tmp_path, idle_minutes=0.005) as server:
        assert comes_true(lambda: not _children(server.process.pid))
        assert len(Server(server.address).track(tracked_sweep(4), order())[0]) == 4
        assert comes_true(lambda: not _children(server.process.pid))


@pytest.mark.parametrize("stage", [Stage.NETWORK, pytest.param(Stage.SENDING, marks=pytest.mark.slow)])
def test_a_server_that_is_killed_is_a_sentence_for_all_its_clients_and_its_files_go(tmp_path, stage):
    with light_server(tmp_path) as server:
        lost, waiting, worker = [], [], _children(server.process.pid)

        def wait():
            with pytest.raises(ServerError) as caught:
                Server(server.address).track(tracked_sweep(4), order(), Reporter(waiting.append))
            lost.append(str(caught.value))

        second = threading.Thread(target=wait)

        def kill(report):
            if report.stage == stage and server.process.poll() is None:
                if stage == Stage.NETWORK:
                    second.start()
                    assert comes_true(lambda: any(report.stage == Stage.QUEUED for report in waiting))
                server.process.kill()
                server.process.wait()

        with pytest.raises(ServerError, match="was cut"):
            Server(server.address).track(tracked_sweep(600, 64, 64), order(SLOW), Reporter(kill))
        if stage == Stage.NETWORK:
            second.join(30)
            assert "was cut" in lost[0]
        assert comes_true(lambda: not any(map(is_running, worker)), 20)
        assert comes_true(server.is_clean, 20)


def _children(pid):
    tasks = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    return [int(child) for child, parent in zip(tasks[::2], tasks[1::2], strict=True) if int(parent) == pid]


def test_cancelling_ends_the_run_at_the_server_and_the_next_client_is_served(light):
    stages = []
    with pytest.raises(Cancelled):
        Server(light.address).track(
            tracked_sweep(4),
            order(SLOW),
            Reporter(stages.append, lambda: any(r.stage == Stage.NETWORK for r in stages)),
        )
    assert comes_true(lambda: light.log and "the client has gone" in light.log[-1], 10)
    assert light.is_clean()
    trajectory, _ = Server(light.address).track(tracked_sweep(4), order())
    assert len(trajectory) == 4


def test_two_clients_are_served_one_after_the_other_and_told_their_place(light):
    stop, first, second, result = threading.Event(), [], [], []

    def busy():
        with pytest.raises(Cancelled):
            Server(light.address).track(tracked_sweep(4), order(SLOW), Reporter(first.append, stop.is_set))

    def waiting():
        result.append(Server(light.address).track(tracked_sweep(5), order(), Reporter(second.append)))

    threads = [threading.Thread(target=busy), threading.Thread(target=waiting)]
    threads[0].start()
    assert comes_true(lambda: any(report.stage == Stage.NETWORK for report in first))
    threads[1].start()
    assert comes_true(lambda: any(report.stage == Stage.QUEUED for report in second))
    assert {report.detail for report in second if report.stage == Stage.QUEUED} == {"place 1"}
    assert Server(light.address).offer().free_places == 1
    third = threading.Thread(target=busy)
    third.start()
    assert comes_true(lambda: Server(light.address).offer().free_places == 0)
    with pytest.raises(ServerError, match="All 3 places of the server are taken"):
        Server(light.address).track(tracked_sweep(4), order())
    stop.set()
    for thread in (*threads, third):
        thread.join(30)
    assert len(result[0][0]) == 5
    assert comes_true(light.is_clean)


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (CRASH, ServerError, "The server says: The worker process ended with code 3"),
        (NO_MEMORY, OutOfMemoryError, "The server says: The memory is too small for this run"),
    ],
)
def test_a_run_that_fails_at_the_server_is_its_sentence(light, code, error, words):
    with pytest.raises(error, match=words):
        Server(light.address).track(tracked_sweep(4), order(code))
    assert comes_true(light.is_clean)


@pytest.mark.parametrize("way", [{"up": 20_000}, {"up": 400}, {"down": 150}, {"down": 700}, {"down": 2000}])
def test_a_connection_that_is_cut_is_a_sentence_on_one_side_and_nothing_on_the_other(light, way):
    with cutting(light.address, **way) as proxy, pytest.raises(ServerError, match=r"was cut .*run it again"):
        Server(proxy).track(tracked_sweep(12), order())
    assert comes_true(light.is_clean)
    assert comes_true(lambda: Server(light.address).offer().free_places == 3)


def test_frames_beyond_the_limit_are_refused_before_they_are_sent(light):
    sweep, sent = tracked_sweep(100), []
    remote = RemoteModel.at(Server(light.address), "mini")
    with pytest.raises(InputError, match=r"1\.23 MB of frames and the server .* takes 1 MB; crop it"):
        remote.estimate_trajectory(sweep, progress=lambda r: sent.append(r.stage is Stage.SENDING))
    assert not any(sent)
    with pytest.raises(InputError, match=r"100 frames of 1\.23 MB are too many"):
        Server(light.address).track(sweep, order())
    assert comes_true(light.is_clean)


def test_a_server_with_a_key_and_its_own_certificate_serves_who_has_both(secure):
    server, key_file, certificate = secure
    assert server.address.startswith("https://127.0.0.1:")
    assert os.stat(key_file).st_mode & 0o077 == 0
    trajectory, _ = Server.at(server.address, key_file, certificate).track(tracked_sweep(4), order())
    assert trajectory.provenance["server"] == server.address
    for key in ("", "of somebody else entirely"):
        with pytest.raises(InputError, match="The key is missing or wrong"):
            Server(server.address, key, certificate).offer()
        with pytest.raises(InputError, match="The key is missing or wrong"):
            Server(server.address, key, certificate).track(tracked_sweep(4), order())
    with pytest.raises(ServerError, match=r"is not trusted .*; give the file of its certificate"):
        Server.at(server.address, key_file).offer()
    with pytest.raises(ServerError, match=r"cannot be reached|was cut"):
        Server(server.address.replace("https", "http")).offer()
    assert len(server.log) == 1  # what knows no key is no run
    assert comes_true(server.is_clean)


def test_what_is_no_server_of_this_version_is_one_sentence(light, monkeypatch):
    monkeypatch.setattr(wire, "SILENCE_S", 0.3)
    other_site = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with answering(other_site) as other, pytest.raises(ServerError, match="something else than a DualTrack server"):
        Server(other).offer()
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as other, pytest.raises(ServerError, match="was cut"):
        Server(other).offer()
    with answering(None) as silent, pytest.raises(ServerError, match=r"has not answered for 0\.3 s"):
        Server(silent).offer()
    with pytest.raises(ServerError, match=r"cannot be reached .* whether `dualtrack serve` runs there"):
        Server(silent).offer()
    monkeypatch.setattr(client, "__version__", "99.0")
    with pytest.raises(ServerError, match=rf"is DualTrack {__version__} and this is 99\.0; install the same"):
        Server(light.address).offer()
    with pytest.raises(ServerError, match="install the same version on both"):
        Server(light.address).track(tracked_sweep(4), order())


def parcel(changes=None, settings=None, arrays=None, body=None):
    """A request as the client sends it, but for what a test changes."""
    frames = np.zeros((3, 4, 5), np.uint8)
    facts = {
        "version": __version__,
        "settings": order(**settings or {}),
        "volume": None,
        "sweep": {"spacing_mm": 0.2, "skew_deg": 0.0, "simulated": False},
        "arrays": arrays or [["frame_valid", "bool", [3]], ["frames", "uint8", [3, 4, 5]]],
        **(changes or {}),
    }
    return json.dumps(facts).encode() + b"\n" + (b"\x01" * 3 + frames.tobytes() if body is None else body)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"\x80\x04\x95pickle\n", 422, "no message of DualTrack"),
        (b"[" * 100_000 + b"\n", 422, "no message of DualTrack"),
        (b"x" * 1_100_000, 400, "a line without an end"),
        (
            parcel(arrays=[["frame_valid", "bool", [3]], ["frames", "object", [3, 4, 5]]]),
            422,
            "no message of DualTrack",
        ),
        (parcel(arrays=[["frames", "uint8", [3, 4, 5]]]), 422, "its validity, its times and its frames"),
        (parcel(arrays=[["frame_valid", "bool", [4]], ["frames", "uint8", [3, 4, 5]]]), 422, "another type or shape"),
        (parcel(arrays=[["frame_valid", "bool", [0]], ["frames", "uint8", [0, 4, 5]]]), 422, "no frames"),
        (parcel(arrays=[["frame_valid", "bool", [3]], ["frames", "uint8", [3, 4 << 30, 5]]]), 413, "too many"),
        (parcel(settings={"model": "/etc/passwd"}), 422, "no model '/etc/passwd' here"),
        (parcel(settings={"card": "/etc/passwd"}), 422, "'card' cannot be sent"),
        (parcel(settings={"device": "cpu"}), 422, "'device' cannot be sent"),
        (parcel(settings={"precision": "fp1"}), 422, "precision"),
        (parcel({"volume": {"poses": "/etc/passwd"}}), 422, "'poses' cannot be sent"),
        (parcel({"sweep": {"spacing_mm": -1, "skew_deg": 0, "simulated": 1}}), 422, "out of range"),
        (parcel({"sweep": None}), 400, "lacks what a run needs"),
        (parcel(body=b"\x01" * 20), 400, "shorter than its head says"),
    ],
)
def test_a_request_that_is_none_is_refused_in_a_sentence(light, content, status, words):
    answer = httpx.post(
        f"{light.address}/runs", content=content, headers={"Content-Type": wire.CONTENT_TYPE}, trust_env=False
    )
    assert (answer.status_code, answer.json()["kind"]) == (status, "input")
    assert words in answer.json()["message"]
    assert comes_true(light.is_clean)


def test_a_page_in_a_browser_cannot_use_the_server(light):
    simple = httpx.post(f"{light.address}/runs", content=parcel(), trust_env=False)
    assert simple.status_code == 415
    rebound = httpx.get(f"{light.address}/status", headers={"Host": "evil.example"}, trust_env=False)
    assert rebound.status_code == 400


def test_a_client_that_sends_nothing_more_loses_its_place(light):
    host, port = light.address.rpartition("//")[2].split(":")
    head = f"POST /runs HTTP/1.1\r\nHost: {host}\r\nContent-Type: {wire.CONTENT_TYPE}\r\nContent-Length: 900\r\n\r\n"
    with socket.create_connection((host, int(port))) as half:
        half.sendall(head.encode() + parcel()[:50])
        assert comes_true(lambda: Server(light.address).offer().free_places == 2)
        assert comes_true(lambda: Server(light.address).offer().free_places == 3)  # the connection is still open
    assert comes_true(light.is_clean)


def test_a_server_notes_times_and_sizes_alone(light):
    Server(light.address).track(tracked_sweep(4), order())
    assert comes_true(lambda: light.log and light.log[-1].endswith("done\n"))
    number, size = r"\d+(\.\d+)?", r"\d+(\.\d+)? [kM]?B|\d+ bytes"
    times = rf"received {number} s, waited {number} s, computed {number} s, in all {number} s"
    assert re.fullmatch(rf"LOG run \d+: 4 frames, ({size}) in, ({size}) out, {times}: done\n", light.log[-1])


def test_the_client_needs_numpy_and_httpx_alone(light, tmp_path):
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "torchvision", "timm", "scipy", "numba", "SimpleITK", "h5py", "tqdm",
                "pydicom", "safetensors", "pooch", "yaml", "PIL", "tifffile", "starlette", "uvicorn", "av"}}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import numpy as np
from DualTrackCore import Sweep
from DualTrackCore.remote import RemoteModel, Server
frames = np.random.default_rng(0).integers(0, 255, (5, 20, 30), dtype=np.uint8)
sweep, server = Sweep.from_array(frames, spacing_mm=0.2), Server({light.address!r})
print(RemoteModel.at(server, "mini").estimate_trajectory(sweep, chunk_frames={QUICK}).poses.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(5, 4, 4)\n"
