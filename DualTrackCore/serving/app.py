"""The server's two answers: `GET /status`, and `POST /runs` from the first byte of frames to the last of the result.

A run lives as long as its connection: when the client goes, in whatever step, its run is ended and its files deleted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from DualTrackCore import __version__
from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.memory import format_bytes
from DualTrackCore.path_error import TRUST
from DualTrackCore.remote import wire
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.serving.computer import Computer, ComputerEnded, NoPlace, Queue, free_disk
from DualTrackCore.sweep import Sweep
from DualTrackCore.worker.job import FRAMES, begin_frames, read_frames, write_facts
from DualTrackCore.worker.protocol import PROGRESS_FIELDS

#: Most frames of a sweep: what is kept of each in memory is small, and the frames themselves lie on the disk.
MOST_FRAMES = 200_000
#: Longest time that what a refused client still sends is read, so that it reads the answer, s.
_DRAIN_S = 5.0
#: What of a result is sent, by the names of its files.
_TRAJECTORY, _GRID = ("poses", "valid", "sigma"), {"origin_mm": "grid_origin_mm", "axes": "grid_axes"}
_VOLUME = ("volume", "coverage", "filled")


@dataclass
class Desk:
    """What a server has: its models, its key, its queue and its computer.

    Attributes:
        models: {name: {"title", "sha256"}} of what it offers.
        device: of the runs, as in RunSettings.
        device_text: the same in words.
        key: what clients have to know; empty where none is asked for.
        most_bytes: largest frames of a sweep.
        folder: for what clients send; of this server alone.
        queue, computer: who waits, and what computes.
        log: takes a line on each run: times and sizes, nothing else.
    """

    models: Mapping[str, Mapping[str, Any]]
    device: str
    device_text: str
    key: str
    most_bytes: int
    folder: Path
    queue: Queue
    computer: Computer
    log: Callable[[str], None]
    hosts: tuple[str, ...] = ("*",)
    runs: int = field(default=0, init=False)

    def app(self) -> Starlette:
        """The application, for a server of the ASGI kind."""
        routes = [Route("/status", self._status), Route("/runs", _Runs(self), methods=["POST"])]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(self.hosts), www_redirect=False)
        return Starlette(routes=routes, middleware=[hosts])

    def refusal(self, request: Request) -> JSONResponse | None:
        """An answer if the client does not know the key."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        digests = [hashlib.sha256(text.encode()).digest() for text in (given, self.key)]  # of one length
        if not self.key or hmac.compare_digest(*digests):
            return None
        return said(401, "input", "The key is missing or wrong; give the key file of this server.")

    async def _status(self, request: Request) -> JSONResponse:
        facts = {"models": self.models, "device": self.device_text, "most_bytes": self.most_bytes}
        facts |= {"free_places": self.queue.free, "places": self.queue.places}
        named = {"name": "DualTrack", "version": __version__, "protocol": wire.PROTOCOL}
        return self.refusal(request) or JSONResponse({**named, **facts})


def said(status: int, kind: str, message: str) -> JSONResponse:
    """A refusal in one sentence."""
    return JSONResponse({"kind": kind, "message": message}, status, {"Connection": "close"})


class _Refused(DualTrackError):
    """A client gets an answer instead of a run."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.answer = said(status, kind, message)


class _Gone(Exception):
    """The client has closed the connection, or neither sends nor reads any more."""


class _Runs:
    """`POST /runs` of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk, request = self._desk, Request(scope)
        answer = desk.refusal(request)
        if answer is None and request.headers.get("content-type") != wire.CONTENT_TYPE:
            answer = said(415, "input", f"A run is sent as {wire.CONTENT_TYPE}.")
        if answer is None:
            try:
                desk.queue.enter()
            except NoPlace as error:
                answer = said(503, "busy", str(error))
        if answer is not None:
            await _drained(receive)
            await answer(scope, receive, send)
            return
        desk.runs += 1
        visit = Visit(desk, desk.runs, receive, send)
        try:
            await visit.serve()
        except _Refused as error:
            if not visit.is_received:
                await _drained(receive)
            await error.answer(scope, receive, send)
        except _Gone:
            visit.outcome = "the client has gone"
        except Exception as error:
            visit.outcome = f"a fault of the program ({type(error).__name__})"
            raise
        finally:
            desk.queue.leave()
            desk.log(visit.record())


async def _drained(receive: Receive) -> None:
    """Read what a client still sends: it looks for an answer after that, and a connection that is closed loses it."""
    with anyio.move_on_after(_DRAIN_S):
        while (await receive()).get("more_body", False):
            pass


class Visit:
    """One client with one run: frames in, a place in the line, progress and the result out.

    Attributes:
        outcome: how it ended, for the log.
        is_received: whether all that the client sends has been read.
    """

    def __init__(self, desk: Desk, number: int, receive: Receive, send: Send) -> None:
        self.outcome = "refused"
        self._desk, self._number, self._receive, self._send = desk, number, receive, send
        self._frames, self._bytes, self._sent = 0, 0, 0
        self._rest, self.is_received = bytearray(), False
        self._saying = anyio.Lock()
        self._start, self._seconds = time.monotonic(), dict.fromkeys(("received", "waited", "computed"), 0.0)

    def record(self) -> str:
        """Times and sizes of the run, for the log."""
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._seconds.items())
        sizes = f"{self._frames} frames, {format_bytes(self._bytes)} in, {format_bytes(self._sent)} out"
        total = f"in all {time.monotonic() - self._start:.1f} s"
        return f"run {self._number}: {sizes}, {times}, {total}: {self.outcome}"

    async def serve(self) -> None:
        """From the frames to the result; everything is deleted in the end.

        Raises _Refused, _Gone: it came to nothing.
        """
        folder = self._desk.folder / f"job-{self._number}"
        try:
            folder.mkdir()
            with self._timed("received"):
                settings = await self._take_parcel(folder)
            headers = [(b"content-type", wire.CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
            await self._pass({"type": "http.response.start", "status": 200, "headers": headers})
            is_whole = False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                tasks.start_soon(self._beat, tasks.cancel_scope)
                with contextlib.suppress(_Gone):
                    await self._run(folder, settings)
                    is_whole = True
                tasks.cancel_scope.cancel()
            if not is_whole:
                raise _Gone
            await self._pass({"type": "http.response.body", "body": b""})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _take_parcel(self, folder: Path) -> RunSettings:
        """Receive frames and settings into the folder; nothing is read before the sizes that are announced fit."""
        try:
            head, blocks = wire.read_head(await self._line())
            if head.get("version") != __version__:
                raise _Refused(409, "version", f"This is DualTrack {__version__}; install the same version on both.")
            settings = self._settings(head)
            frames = self._checked(blocks)
            arrays = {block.name: block.array(await self._take(block.size)) for block in blocks[:-1]}
            with (folder / FRAMES).open("wb") as file:
                begin_frames(file, frames.shape)
                await self._take(frames.size, file.write)
            facts = head["sweep"]
            sweep = Sweep(
                read_frames(folder / FRAMES),
                facts["spacing_mm"],
                arrays.get("timestamps_s"),
                arrays["frame_valid"],
                skew_deg=float(facts["skew_deg"]),
                provenance={"simulated": facts["simulated"] is True},
            )
            write_facts(folder, sweep)
        except InputError as error:
            raise _Refused(422, "input", str(error)) from None
        except (KeyError, TypeError, AttributeError, ValueError):
            raise _Refused(400, "input", "The request lacks what a run needs.") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _Refused(507, "disk", "The disk of the server is full; try again later.") from None
        self._frames = len(sweep)
        return settings

    def _settings(self, head: Mapping[str, Any]) -> RunSettings:
        """The settings of the run: what the client may choose, and the server's own."""
        wanted, volume = dict(head["settings"]), head.get("volume")
        for given, known in ((wanted, wire.TRACKING_SETTINGS), (volume or {}, wire.VOLUME_SETTINGS)):
            if others := set(given) - set(known):
                raise InputError(f"The setting {min(others)[:60]!r} cannot be sent to a server.")
        if wanted.get("model") not in self._desk.models:
            names = ", ".join(self._desk.models)
            raise InputError(f"There is no model {str(wanted.get('model'))[:60]!r} here; choose {names}.")
        own = {"device": self._desk.device, "repeats": "keep", "profile": "none", "evaluate": False, "pictures": False}
        return RunSettings.from_dict({**wanted, **(volume or {}), **own, "reconstruct": volume is not None})

    def _checked(self, blocks: list[wire.Block]) -> wire.Block:
        """The block of the frames, once names, types and sizes are those of a sweep that fits."""
        kinds = {"frame_valid": ("bool", 1), "timestamps_s": ("float64", 1), "frames": ("uint8", 3)}
        names = [block.name for block in blocks]
        if names not in (["frame_valid", "frames"], ["frame_valid", "timestamps_s", "frames"]):
            raise InputError("A sweep is sent as its validity, its times and its frames.")
        frames = blocks[-1]
        if 0 in frames.shape:
            raise InputError("The sweep has no frames, or frames without pixels.")
        for block in blocks:
            if (block.dtype.name, len(block.shape)) != kinds[block.name] or block.shape[0] != frames.shape[0]:
                raise InputError(f"The array {block.name} of the sweep has another type or shape than it must have.")
        limit = self._desk.most_bytes
        if frames.size > limit or frames.shape[0] > MOST_FRAMES:
            sizes = format_bytes(frames.size), format_bytes(limit)
            text = f"{frames.shape[0]} frames of {sizes[0]} are too many; the limits are {MOST_FRAMES} and {sizes[1]}."
            raise _Refused(413, "input", text)
        if frames.size > free_disk(self._desk.folder):
            raise _Refused(507, "disk", f"The server has no disk for {format_bytes(frames.size)}; try again later.")
        return frames

    async def _run(self, folder: Path, settings: RunSettings) -> None:
        """Wait for the turn, compute, and send what comes of it."""
        desk = self._desk
        try:
            with self._timed("waited"):
                async for place in desk.queue.turn(self):
                    if place:
                        await self._say({"event": "waiting", "place": place})
            with self._timed("computed"):
                request = {"do": "run", "folder": str(folder), "settings": settings.as_dict(), "searched": True}
                async with contextlib.aclosing(desk.computer.events(request)) as events:
                    async for event in events:
                        if event["event"] == "progress":
                            await self._say({"event": "progress", **{k: event[k] for k in PROGRESS_FIELDS}})
        except ComputerEnded as error:
            event = {"event": "failed", "kind": error.kind, "message": str(error)}
        except DualTrackError as error:
            event = {"event": "failed", "kind": "fault", "message": str(error)}
        finally:
            desk.queue.step_out(self)
        self.outcome = event["event"]
        if event["event"] == "failed":
            self.outcome = f"failed ({event['kind']})"
            await self._say({name: event[name] for name in ("event", "kind", "message")})
        else:
            await self._send_result(folder / "result")

    async def _send_result(self, folder: Path) -> None:
        facts = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            found = dict(file)
        arrays = {name: found[name] for name in _TRAJECTORY if name in found}
        source = facts["trajectory"]
        provenance = {name: value for name, value in source["provenance"].items() if name != TRUST}
        head = {"event": "done", "trajectory": {**source, "provenance": provenance}, "volume": None}
        if "grid" in facts:
            arrays |= {name: found[own] for name, own in _GRID.items()}
            arrays |= {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _VOLUME}
            head["volume"] = {"spacing_mm": facts["grid"]["spacing_mm"], "facts": facts["volume"]}
        async with self._saying:
            await self._body(wire.head_line(head, [wire.block_of(*entry) for entry in arrays.items()]))
            for array in arrays.values():
                for piece in wire.pieces(array):
                    await self._body(piece)

    async def _say(self, event: Mapping[str, Any]) -> None:
        async with self._saying:
            await self._body(json.dumps(event, default=str).encode("ascii") + b"\n")

    async def _beat(self, scope: anyio.CancelScope) -> None:
        """Show again and again that the server is there."""
        with contextlib.suppress(_Gone):
            while True:
                await anyio.sleep(wire.BEAT_S)
                async with self._saying:
                    await self._body(b"\n")
        scope.cancel()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """End everything when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _body(self, piece: bytes) -> None:
        self._sent += len(piece)
        await self._pass({"type": "http.response.body", "body": piece, "more_body": True})

    async def _pass(self, message: Message) -> None:
        """Send a message to a client that reads. Raises _Gone: it does not."""
        try:
            with anyio.fail_after(wire.SILENCE_S):
                await self._send(message)
        except (TimeoutError, OSError):
            raise _Gone from None

    async def _line(self) -> bytes:
        """The next line of what the client sends. Raises _Refused: it is too long."""
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > wire.MOST_HEAD_BYTES:
                raise _Refused(400, "input", "What was sent begins with a line without an end.")
            self._rest += await self._more()
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    async def _take(self, count: int, write: Callable[[bytes], object] | None = None) -> bytes:
        """The next so many bytes; written piece by piece, or given back."""
        kept = bytearray()
        while count:
            if not self._rest:
                self._rest += await self._more()
            piece = bytes(self._rest[:count])
            del self._rest[:count]
            (write or kept.extend)(piece)
            count -= len(piece)
        return bytes(kept)

    async def _more(self) -> bytes:
        """What comes next, at least a byte. Raises _Gone: the client has gone, or is silent."""
        while not self.is_received:
            try:
                with anyio.fail_after(wire.SILENCE_S):
                    message = await self._receive()
            except TimeoutError:
                raise _Gone from None
            if message["type"] == "http.disconnect":
                raise _Gone
            self.is_received = not message.get("more_body", False)
            self._bytes += len(message.get("body", b""))
            if message.get("body"):
                return message["body"]
        raise _Refused(400, "input", "What was sent is shorter than its head says.")

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - start
