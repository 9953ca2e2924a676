"""A Python that has loaded what a run needs, and splits off a process for each program: a start takes moments.

Loading torch and the first run take seconds of each new process; tests that only want a worker need not wait for them.
As a program this is one of its clients: `python -IS warm_python.py ADDRESS -m MODULE ARGUMENT...` hands its streams,
variables and folder over, and ends as what was split off ends; the other one is ended where the client is. What
takes other variables as it starts, or is no module of DualTrackCore, is started as usual.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

#: Beginnings of the names of variables that are read once, when Python or a library is loaded.
AT_START = ("PYTHON", "OMP_", "KMP_", "GOMP_", "MKL_", "NUMBA_", "ONEDNN_", "ATEN_", "LD_", "CUDA_", "COV_")
#: Splitting off is safe where no library has started threads, which is known of Linux.
IS_POSSIBLE = sys.platform == "linux"
_MOST_BYTES = 1 << 20


def main(address: str, arguments: list[str]) -> None:
    """Be the program that the arguments of Python name."""
    if arguments[:1] == ["-m"] and arguments[1].startswith("DualTrackCore."):
        _hand_over(address, arguments[1:])
    os.execv(sys.executable, [sys.executable, *arguments])


def _hand_over(address: str, arguments: list[str]) -> None:
    """End as a split off process ends; returns where it would not be as one that is started."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        try:
            server.connect(address)
            socket.send_fds(server, [request], [0, 1, 2])
            answer = server.recv(64)
        except OSError:  # nobody is there
            return
        if not answer:
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(int(answer), number))
        code = int(server.recv(64) or -signal.SIGKILL)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


class WarmPython:
    """The process that others are split off from.

    Args:
        folder: of the program that stands for it.
        variables: of its environment; those of :data:`AT_START` have to be the same for what is split off.

    Attributes:
        program: what takes the place of Python.
        is_warm: whether it can be used; a library may have started threads, which what is split off would wait for.
    """

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        address = folder / "warm"
        self.program = folder / "python-real"
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{address}" "$@"\n')
        self.program.chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(address))
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--serve", str(listener.fileno())],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[listener.fileno()],
            )
        self.is_warm = self._process.stdout.read() == b"warm"

    def close(self) -> None:
        """End it, and all that is split off."""
        self._process.stdout.close()
        self._process.stdin.close()
        self._process.wait(60)


def serve(listener: int) -> None:
    """Warm up; split off processes until standard input ends. Goes on in each process that is split off."""
    import gc
    import runpy

    _warm_up()
    if len(os.listdir("/proc/self/task")) > 1:
        return
    gc.freeze()
    os.write(1, b"warm")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.close(nothing)
    with socket.socket(fileno=listener) as server:
        arguments = _split_off(server)
    if arguments is None:
        return
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _warm_up() -> None:
    """What the first run of a process does."""
    import warnings

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))
    import oracle

    del sys.path[0]
    import DualTrackCore.cli
    import DualTrackCore.worker.serve  # noqa: F401 - is loaded for what is split off
    from DualTrackCore.progress import Reporter
    from DualTrackCore.run.pipeline import run_frames
    from DualTrackCore.run.settings import RunSettings

    model = oracle.tiny_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_frames(oracle.noise_sweep(5), RunSettings(), Reporter(lambda report: None), lambda settings: model)


def _split_off(listener: socket.socket) -> list[str] | None:
    """The arguments of a program in the process that is to be it; None where standard input has ended."""
    clients: dict[socket.socket, int] = {}
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([0, wakeup, listener, *clients], [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
        _tell_ends(clients)
        for client, pid in clients.items():
            if client in ready or 0 in ready:  # it has gone, or all have
                _end(pid)
        if 0 in ready:
            return None
        if listener in ready and (arguments := _accepted(listener, clients)) is not None:
            os.close(wakeup)
            os.close(waker)
            return arguments


def _accepted(listener: socket.socket, clients: dict[socket.socket, int]) -> list[str] | None:
    """Take the next client; its arguments in the process that is split off for it, None in this one."""
    client = listener.accept()[0]
    request, streams, _, _ = socket.recv_fds(client, _MOST_BYTES, 3)
    # One that was ended meanwhile says no more: what is split off for it would end too, and take its folder along.
    has_gone = not request or bool(select.select([client], [], [], 0)[0])
    arguments, folder, variables = ([], "", {}) if has_gone else json.loads(request)
    pid = os.fork() if not has_gone and _at_start(variables) == _at_start(os.environ) else None
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (client, *clients):
            other.close()
        _become(streams, folder, variables)
        return arguments
    for stream in streams:
        os.close(stream)
    if pid is None:
        client.close()
    else:
        clients[client] = pid
        with contextlib.suppress(OSError):  # it has just been ended, which is seen next
            client.send(str(pid).encode())
    return None


def _tell_ends(clients: dict[socket.socket, int]) -> None:
    """Tell the clients of processes that have ended how they have."""
    for client, pid in list(clients.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with contextlib.suppress(OSError):  # it has gone
                client.send(str(os.waitstatus_to_exitcode(status)).encode())
            client.close()
            del clients[client]


def _end(pid: int) -> None:
    """End a process, with its group where it leads one; its client has gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        os.kill(pid, signal.SIGKILL)


def _at_start(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(AT_START)}


def _become(streams: list[int], folder: str, variables: dict[str, str]) -> None:
    """Take over what a client was started with."""
    import tempfile

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]))
    else:
        main(sys.argv[1], sys.argv[2:])
