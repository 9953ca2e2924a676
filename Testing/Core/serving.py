"""Real servers on the loopback address for tests: the command itself, and one whose worker needs no torch."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from worker_processes import comes_true

from DualTrackCore.worker.process import core_environment

#: Chunk sizes by which a test tells the light worker what to do.
QUICK, SLOW, CRASH, NO_MEMORY, LOUD = 1, 2, 3, 4, 5
#: Speaks the protocol as the worker does, and takes a straight path for the trajectory.
LIGHT_WORKER = """
import os, sys, time
import numpy as np
from dataclasses import replace
from DualTrackCore.progress import Stage
from DualTrackCore.run.pipeline import run_frames
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker import __main__ as start, serve

def run(sweep, settings, reporter, models, path=None, repeats=None):
    code = settings.chunk_frames
    if code == 2:
        for done in range(600):
            reporter.report(Stage.NETWORK, done, 600)
            time.sleep(0.1)
    if code == 3:
        os._exit(3)
    if code == 4:
        raise MemoryError
    steps = np.zeros((len(sweep) - 1, 6))
    steps[:, 2] = [float(frame.mean()) for frame in sweep.window(1, len(sweep))]
    facts = {"model": settings.model, "warnings": [], "device": "light", "direction": "as told"}
    tracked = Trajectory.from_parameters(steps, facts, sigma=np.abs(steps), origin="estimated")
    return run_frames(replace(sweep, tracked=tracked), replace(settings, poses="tracked"), reporter)

serve.run_frames = run
serve.preflight = lambda device: {"ready": True, "sentence": "Ready: torch 0 on CPU with 1 core."}
start.main()
"""
LIGHT_SERVER = """
import functools, signal, sys
from DualTrackCore.remote import wire
from DualTrackCore.serving import ServerSettings, start
wire.SILENCE_S = 2.0
told, say = [], functools.partial(print, flush=True)
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
start(ServerSettings(port=0, **eval(sys.argv[1])), say, functools.partial(say, "LOG"), stopped=lambda: bool(told))
"""


@dataclass
class RunningServer:
    """A server in a process of its own.

    Attributes:
        process: its process.
        address: where it listens.
        said: its lines so far.
        temporary: the folder for its temporary files.
    """

    process: subprocess.Popen
    temporary: Path
    address: str = ""
    said: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """Whether nothing of any run is left."""
        found = [name for _, folders, files in os.walk(self.temporary) for name in (*folders, *files)]
        return not [name for name in found if name.startswith("job-") or name.endswith((".npy", ".npz"))]

    @property
    def log(self) -> list[str]:
        """What it noted of runs."""
        return [line for line in self.said if line.startswith("LOG ")]


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[RunningServer]:
    temporary = folder / "server-temporary"
    temporary.mkdir(exist_ok=True)
    environment = {**core_environment(os.environ), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        server = RunningServer(process, temporary)
        reader = threading.Thread(target=lambda: server.said.extend(iter(process.stdout.readline, "")), daemon=True)
        reader.start()
        try:
            assert comes_true(lambda: any("Stop it" in line for line in server.said) or process.poll() is not None, 300)
            assert process.poll() is None, "".join(server.said)
            server.address = re.search(r"https?://\S+?:\d+", "".join(server.said))[0]
            yield server
        finally:
            process.terminate()
            process.wait(20)
            reader.join(5)
    assert comes_true(lambda: not list(temporary.glob(".dualtrack*")), 10)


def light_server(folder: Path, **settings: object) -> contextlib.AbstractContextManager[RunningServer]:
    """A server whose worker is :data:`LIGHT_WORKER`; `settings` are ServerSettings."""
    worker = folder / "light_worker.py"
    worker.write_text(LIGHT_WORKER, encoding="utf-8")
    values = {"worker": (sys.executable, str(worker)), **settings}
    return _running([sys.executable, "-c", LIGHT_SERVER, repr(values)], folder)


def real_server(folder: Path, *options: str) -> contextlib.AbstractContextManager[RunningServer]:
    """`dualtrack serve` on a free port."""
    return _running([sys.executable, "-m", "DualTrackCore.cli", "serve", "--port", "0", *options], folder)


@contextlib.contextmanager
def cutting(address: str, up: int | None = None, down: int | None = None) -> Iterator[str]:
    """The address of a proxy on this computer that cuts each connection after so many bytes up or down."""
    host, port = address.rpartition("//")[2].split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def forward(source: socket.socket, target: socket.socket, most: int | None) -> None:
            passed = 0
            with contextlib.suppress(OSError):
                while (piece := source.recv(4096)) and (most is None or passed < most):
                    target.sendall(piece if most is None else piece[: most - passed])
                    passed += len(piece)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection((host, int(port)))
                    for ends in ((client, server, up), (server, client, down)):
                        threading.Thread(target=forward, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """The address of something that says this to whoever connects, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    held.append(client)
                    if answer is not None:
                        client.recv(1 << 16)
                        client.sendall(answer)
                        client.close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for client in held:
            client.close()


def self_made_certificate(folder: Path) -> tuple[str, str]:
    """Files of a certificate for this computer and of its private key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(own, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return str(paths[0]), str(paths[1])
