"""The start of a server: what is allowed where, what it offers, and its life until somebody stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from DualTrackCore.errors import DualTrackError, InputError, OutputError, named, reason_of
from DualTrackCore.files import file_sha256
from DualTrackCore.memory import format_bytes
from DualTrackCore.network.catalogue import installed_card, installed_models
from DualTrackCore.remote.client import read_key
from DualTrackCore.remote.consent import DEFAULT_PORT, is_loopback
from DualTrackCore.serving.app import Desk
from DualTrackCore.serving.computer import Computer, Queue
from DualTrackCore.settings import known_keys
from DualTrackCore.worker.process import session_folder

#: Shortest key, characters.
LEAST_KEY = 16
#: Connections that end with the server get this long for their last bytes, s.
_LAST_BYTES_S = 1
#: Time between two looks whether to stop, s.
_LOOK_S = 0.2


@dataclass(frozen=True)
class ServerSettings:
    """How a server is started; the defaults serve this computer alone.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        key_file: holds the key that clients must know; a key is made where there is no such file.
        certificate, private_key: PEM files for TLS.
        insecure: listen without TLS elsewhere than on the loopback address.
        models: names of the models that it offers; empty for all that are installed.
        device: as in :class:`~DualTrackCore.run.RunSettings`.
        most_gb: largest frames of one sweep.
        places: clients at the same time, those that wait included.
        idle_minutes: how long the process that computes keeps its model, and memory of the card, without a run.
        worker: how to start the process that computes.

    Raises InputError: frames could be read on their way, or anybody could send some; says what to add.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    key_file: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    insecure: bool = False
    models: Sequence[str] = ()
    device: str = "auto"
    most_gb: float = 4.0
    places: int = 8
    idle_minutes: float = 15.0
    worker: Sequence[str] = field(default=(sys.executable, "-m", "DualTrackCore.worker"), repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InputError(f"TLS needs both files: give {named('certificate')} and {named('private_key')}.")
        if not is_loopback(self.host):
            if self.key_file is None:
                raise InputError(
                    f"On the address {self.host} others can reach the server, so it needs a key: "
                    f"add {named('key_file')}."
                )
            if self.certificate is None and not self.insecure:
                raise InputError(
                    f"On the address {self.host} frames and key could be read on their way: add "
                    f"{named('certificate')} and {named('private_key')}, or {named('insecure', True)} where the "
                    "network itself is safe (a VPN, a container)."
                )
        if not 0 <= self.port < 1 << 16 or self.places < 1 or not (self.most_gb > 0 and self.idle_minutes > 0):
            raise InputError(
                "The port lies between 0 and 65535; places, gigabytes and minutes are above 0; correct them."
            )
        if "://" in self.device:
            raise InputError(
                f"A server computes on its own device; give {named('device')} as auto, cpu, cuda, cuda:0, ... or mps."
            )


def start(
    settings: ServerSettings,
    say: Callable[[str], None],
    log: Callable[[str], None],
    ready: Callable[[Mapping[str, Any]], None] = lambda facts: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until it is told to stop; nothing stays behind then.

    Args:
        settings: where and how.
        say: takes the sentences of the start.
        log: takes a line on each run.
        ready: takes "address", "models", "device", "asks_for_key", "most_bytes" and "places" once clients may come.
        stopped: asked several times a second whether to stop.

    Raises InputError, OutputError, ServerError: it cannot start; says why.
    """
    key = "" if settings.key_file is None else _key(Path(settings.key_file), say)
    models = _offered(settings.models)
    with session_folder() as folder, _listening(settings) as listener:
        desk = Desk(
            models=models,
            device=settings.device,
            device_text="",
            key=key,
            most_bytes=int(settings.most_gb * 1e9),
            folder=folder,
            queue=Queue(settings.places),
            computer=Computer(settings.worker, folder),
            log=log,
            hosts=("*",) if key or ":" in settings.host else ("localhost", "127.0.0.1", settings.host),
        )
        config = uvicorn.Config(
            desk.app(),
            log_config=None,
            lifespan="off",
            access_log=False,
            server_header=False,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
            timeout_graceful_shutdown=_LAST_BYTES_S,
        )
        _load_certificate(config, settings)
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it logs of requests is nobody's business
        asyncio.run(_until(stopped, settings.idle_minutes, desk, _Server(config), listener, say, ready))
    say("The server has stopped; nothing of its runs is left.")


class _Server(uvicorn.Server):
    """A server that leaves the signals of the process to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until(stopped: Callable[[], bool], idle: float, desk: Desk, server: _Server, *others: Any) -> None:
    """Serve until it is to stop, and end the computer."""
    work = asyncio.ensure_future(_serve(desk, server, *others))
    try:
        while not work.done() and not stopped():
            await asyncio.wait({work}, timeout=_LOOK_S)
            await desk.computer.rest(60 * idle)
        server.should_exit = True
        if not server.started:
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        await desk.computer.stop()


async def _serve(
    desk: Desk,
    server: _Server,
    listener: socket.socket,
    say: Callable[[str], None],
    ready: Callable[[Mapping[str, Any]], None],
) -> None:
    readiness = await _readiness(desk)
    if not readiness["ready"]:
        raise InputError(str(readiness["sentence"]))
    desk.device_text = str(readiness["sentence"]).partition(" on ")[2].partition(" with ")[0] or desk.device
    host, port = listener.getsockname()[:2]
    address = f"{'https' if server.config.is_ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    asked = "asks for its key" if desk.key else "asks for no key"
    say(f"Listening on {address}, which {asked}. Models: {', '.join(desk.models)}. Device: {desk.device_text}.")
    say(f"Sweeps of up to {format_bytes(desk.most_bytes)}; {desk.queue.places} places. Stop it with Ctrl-C.")
    facts = {
        "address": address,
        "models": list(desk.models),
        "device": desk.device_text,
        "asks_for_key": bool(desk.key),
    }
    ready({**facts, "most_bytes": desk.most_bytes, "places": desk.queue.places})
    await server.serve(sockets=[listener])


async def _readiness(desk: Desk) -> dict[str, Any]:
    """Whether the worker process is ready; it stays, warm."""
    async with contextlib.aclosing(desk.computer.events({"do": "preflight", "device": desk.device})) as events:
        last = [event async for event in events][-1]
    return last["result"] if last["event"] == "done" else {"ready": False, "sentence": last["message"]}


def _key(path: Path, say: Callable[[str], None]) -> str:
    """The key in a file, which is made where it is missing. Raises InputError, OutputError: neither is possible."""
    if not path.exists():
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        except OSError as error:
            raise OutputError(f"The key file {path} cannot be written: {reason_of(error)}.") from None
        say(f"A key was made: {path}. Give this file to those who may use the server.")
    key = read_key(path)
    if len(key) < LEAST_KEY:
        raise InputError(
            f"The key in {path} has {len(key)} characters and must have at least {LEAST_KEY}; delete the file to have "
            "one made."
        )
    return key


def _offered(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The models by name, all that are here where none are named. Raises InputError: one is not here."""
    found = {}
    for model in installed_models():
        if names and model.name not in names:
            continue
        with contextlib.suppress(DualTrackError):
            card = installed_card(model)
            title = model.name if card is None or not card.title else card.title
            found[model.name] = {"title": title, "sha256": model.sha256 or file_sha256(model.path)}
    for name in names:
        if name not in found:
            known = known_keys(name, [model.name for model in installed_models()])
            raise InputError(f"There is no model {name!r} on this computer that can be used; {known}.")
    return found


@contextlib.contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    """The socket that clients come to. Raises InputError: the address is taken, or none of this computer."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {settings.host}, port {settings.port}: {reason_of(error)}; choose another "
            "port or address."
        ) from None
    with listener:
        yield listener


def _load_certificate(config: uvicorn.Config, settings: ServerSettings) -> None:
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"The certificate {settings.certificate} with the private key {settings.private_key} cannot be used: "
            f"{reason_of(error)}; give PEM files that belong together, the key without a password."
        ) from None
