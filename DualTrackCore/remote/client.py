"""The client of a server: asks what it offers, sends frames and settings, and gives the trajectory back."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from DualTrackCore import __version__
from DualTrackCore.errors import InputError, OutOfMemoryError, ServerError, named, reason_of
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.remote import consent, wire
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Longest wait for a connection, s.
CONNECT_S = 10.0
_FRAMES_AT_ONCE_BYTES = 1 << 22


@dataclass(frozen=True)
class Offer:
    """What a server says of itself.

    Attributes:
        version: of its DualTrack.
        models: {name: {"title", "sha256"}} of those that it offers.
        device: what it computes on, in words.
        free_places, places: how many more clients it takes now, and how many at most.
        most_bytes: largest sweep that it takes.
    """

    version: str
    models: Mapping[str, Mapping[str, Any]]
    device: str
    free_places: int
    places: int
    most_bytes: int

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        names = ", ".join(self.models) or "none"
        free = f"{self.free_places} of {self.places} places are free"
        return f"Reachable: DualTrack {self.version} on {self.device}, models {names}; {free}."


@dataclass(frozen=True, eq=False)
class RemoteVolume:
    """A volume that a server made.

    Attributes:
        volume: [nz, ny, nx] uint8 grey values.
        coverage: [nz, ny, nx] float32, how much was seen of each voxel, 0 is unseen.
        filled: [nz, ny, nx] bool, voxels that were filled from their neighbours.
        origin_mm: [3] centre of the first voxel in frame0, mm.
        axes: [3, 3] columns are the directions of x, y and z in frame0.
        spacing_mm: size of a voxel along x, y, z.
        facts: how it was made, plain values.
    """

    volume: np.ndarray
    coverage: np.ndarray
    filled: np.ndarray
    origin_mm: np.ndarray
    axes: np.ndarray
    spacing_mm: tuple[float, float, float]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Server:
    """One server, by its address. Every call makes a connection of its own, and ends in a result or one sentence.

    Attributes:
        address: `https://host:port`, or `http://` where it is not encrypted.
        key: what the server asks for; empty for a server that asks for none.
        certificate: file of certificates (PEM) to trust besides those of the system, for a server with its own.
        agreed: whether the user has agreed to frames going there, where that is not remembered.

    Raises InputError: not an address, or a certificate that cannot be read.
    """

    address: str
    key: str = field(default="", repr=False)
    certificate: str = ""
    agreed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", consent.checked_address(self.address))
        if not self.key.isascii() or not self.key.isprintable():
            raise InputError("The key of the server has characters that no key has; give the file that it is in.")

    @classmethod
    def at(
        cls,
        address: str,
        key_file: str | os.PathLike | None = None,
        certificate: str | None = None,
        agreed: bool = False,
    ) -> Server:
        """A server with the key and the certificate that files or, where they are None, variables hold.

        Raises InputError: not an address, or a file that cannot be read.
        """
        key, key_file = os.environ.get(consent.KEY_VARIABLE, ""), key_file or os.environ.get(consent.KEY_FILE_VARIABLE)
        if key_file:
            key = read_key(key_file)
        return cls(address, key, certificate or os.environ.get(consent.CERTIFICATE_VARIABLE, ""), agreed)

    def offer(self) -> Offer:
        """What the server offers.

        Raises:
            InputError: the key is wrong, or a certificate cannot be read.
            ServerError: it cannot be reached, is no DualTrack server, or one of another version.
        """
        with self._connection() as connection:
            said = self._json(connection.get("/status"))
        if not isinstance(said, dict) or said.get("name") != "DualTrack":
            raise self._stranger()
        if (said.get("protocol"), said.get("version")) != (wire.PROTOCOL, __version__):
            raise ServerError(
                f"The server {self.address} is DualTrack {str(said.get('version'))[:40]} and this is {__version__}; "
                "install the same version on both."
            )
        try:
            return Offer(**{name: said[name] for name in Offer.__dataclass_fields__})
        except KeyError:
            raise self._stranger() from None

    def track(
        self,
        sweep: Sweep,
        settings: Mapping[str, Any],
        reporter: Reporter | None = None,
        volume: Mapping[str, Any] | None = None,
    ) -> tuple[Trajectory, RemoteVolume | None]:
        """The trajectory of a sweep, every frame of it a new picture, computed by the server.

        Args:
            sweep: frames, spacing, validity and the distance of times are sent, nothing else.
            settings: :data:`~DualTrackCore.remote.wire.TRACKING_SETTINGS`, those that differ from the defaults.
            reporter: receives `Stage.SENDING` (frames), `Stage.QUEUED` (place) and what the server reports; asked about
                once a second whether to stop, which closes the connection and so ends the run at the server.
            volume: settings of a volume (:data:`~DualTrackCore.remote.wire.VOLUME_SETTINGS`) that the server is to make
                as well; None for no volume.

        Raises:
            InputError: sweep, settings or key cannot be used, or the user has not agreed to frames going there.
            ServerError: the server cannot be reached, was lost, is full, or failed.
            OutOfMemoryError: its memory does not suffice.
            Cancelled: the reporter said so.
        """
        reporter = reporter or Reporter()
        self.require_agreed()
        arrays: dict[str, Any] = {"frame_valid": sweep.frame_valid}
        if sweep.timestamps_s is not None:
            arrays["timestamps_s"] = sweep.timestamps_s - sweep.timestamps_s[0]
        facts = {
            "version": __version__,
            "settings": dict(settings),
            "volume": volume,
            "sweep": {
                "spacing_mm": sweep.require_spacing(),
                "skew_deg": sweep.skew_deg,
                "simulated": sweep.is_simulated,
            },
        }
        blocks = [wire.block_of(*entry) for entry in [*arrays.items(), ("frames", sweep.frames)]]
        head = wire.head_line(facts, blocks)
        length = len(head) + sum(block.size for block in blocks)
        headers = {"Content-Type": wire.CONTENT_TYPE, "Content-Length": str(length)}
        request = {"content": _parcel(head, arrays, sweep, reporter), "headers": headers}
        with self._connection() as connection, connection.stream("POST", "/runs", **request) as said:
            if said.status_code != 200:
                said.read()
                self._json(said)
            return self._result(_Stream(said.iter_raw()), reporter)

    def require_agreed(self) -> None:
        """Raise InputError if frames would leave this computer and the user has not agreed."""
        if not (self.agreed or consent.is_agreed(self.address)):
            raise InputError(f"{consent.notice(self.address)} Agree once: {named('agreed', True)}.")

    def _result(self, stream: _Stream, reporter: Reporter) -> tuple[Trajectory, RemoteVolume | None]:
        while True:
            line = stream.line()
            reporter.check()
            if not line:
                continue
            try:
                event = json.loads(line)
                kind = event["event"]
                if kind == "waiting":
                    reporter.report(Stage.QUEUED, 0, 1, f"place {int(event['place'])}")
                elif kind == "progress":
                    report = Progress(Stage(event["stage"]), int(event["done"]), int(event["total"]), event["detail"])
                    reporter.forward(report)
                elif kind == "failed":
                    raise _failure(event["kind"], str(event["message"]))
                elif kind == "done":
                    return self._received(line, stream, reporter)
                else:
                    raise self._stranger()
            except (ValueError, KeyError, TypeError) as error:
                if isinstance(error, InputError):
                    raise
                raise self._stranger() from None

    def _received(self, line: bytes, stream: _Stream, reporter: Reporter) -> tuple[Trajectory, RemoteVolume | None]:
        head, blocks = wire.read_head(line)
        arrays = {}
        for number, block in enumerate(blocks):
            reporter.report(Stage.RECEIVING, number, len(blocks))
            arrays[block.name] = block.array(stream.take(block.size))
        source = head["trajectory"]
        known = {name: arrays[name] for name in ("poses", "valid", "sigma") if name in arrays}
        provenance = {**source["provenance"], "server": self.address}
        trajectory = Trajectory(**known, provenance=provenance, origin=source["origin"])
        if head.get("volume") is None:
            return trajectory, None
        values = {name: arrays[name] for name in ("volume", "coverage", "filled", "origin_mm", "axes")}
        return trajectory, RemoteVolume(
            **values, spacing_mm=tuple(head["volume"]["spacing_mm"]), facts=head["volume"]["facts"]
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[httpx.Client]:
        """A connection; what goes wrong with it becomes one sentence."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx.Timeout(wire.SILENCE_S, connect=CONNECT_S)
        # Without the proxies of the environment: frames go to the server that is named, and nowhere else.
        options = {"verify": self._trusted(), "timeout": timeout, "trust_env": False, "headers": headers}
        try:
            with httpx.Client(base_url=self.address, **options) as client:
                yield client
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if "certificate" in str(error).lower():
                raise ServerError(
                    f"The certificate of the server {self.address} is not trusted ({reason_of(error)}); give the file "
                    "of its certificate, and name the server as the certificate does."
                ) from None
            raise ServerError(
                f"The server {self.address} cannot be reached ({reason_of(error)}); check the address, and whether "
                "`dualtrack serve` runs there."
            ) from None
        except httpx.TimeoutException:
            raise ServerError(
                f"The server {self.address} has not answered for {wire.SILENCE_S:g} s; run it again, and look at the "
                "server if that does not help."
            ) from None
        except (httpx.HTTPError, _Cut) as error:
            raise ServerError(
                f"The connection to the server {self.address} was cut ({reason_of(error)}); nothing was kept there; "
                "run it again."
            ) from None

    def _trusted(self) -> ssl.SSLContext | bool:
        if not self.address.startswith("https"):
            return False  # nothing to verify
        import certifi

        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        if self.certificate:
            try:
                context.load_verify_locations(self.certificate)
            except OSError as error:
                raise InputError(
                    f"The certificate {self.certificate} cannot be read ({reason_of(error)}); give a PEM file."
                ) from None
        return context

    def _json(self, response: httpx.Response) -> Any:
        """What an answer says. Raises InputError or ServerError with the server's own sentence if it refuses."""
        try:
            said = response.json()
            if response.status_code == 200:
                return said
            raise _failure(said["kind"], str(said["message"]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise self._stranger() from None

    def _stranger(self) -> ServerError:
        return ServerError(f"At {self.address} is something else than a DualTrack server; check address and port.")


def read_key(path: str | os.PathLike) -> str:
    """The key in a file. Raises InputError: it cannot be read, is empty or no text."""
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"The key file {path} cannot be read: {reason_of(error)}.") from None
    if not key:
        raise InputError(f"The key file {path} is empty; write the key of the server into it.")
    return key


class _Cut(Exception):
    """The answer ended before it was whole."""


class _Stream:
    """Lines and bytes from pieces of any length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, bytearray()

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > wire.MOST_HEAD_BYTES:
                raise _Cut("a line without an end")
            self._more()
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def take(self, count: int) -> bytearray:
        """The next so many bytes."""
        while len(self._rest) < count:
            self._more()
        taken = self._rest[:count]
        del self._rest[:count]
        return taken

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise _Cut("the answer is not whole")
        self._rest += piece


def _parcel(head: bytes, arrays: Mapping[str, np.ndarray], sweep: Sweep, reporter: Reporter) -> Iterator[bytes]:
    yield head
    for array in arrays.values():
        yield from wire.pieces(array)
    size = max(1, _FRAMES_AT_ONCE_BYTES // max(1, sweep.frame_size[0] * sweep.frame_size[1]))
    for first, frames in sweep.windows(size):
        reporter.report(Stage.SENDING, first, len(sweep))
        yield from wire.pieces(frames)
    reporter.report(Stage.SENDING, len(sweep), len(sweep))


def _failure(kind: object, message: str) -> Exception:
    """What a server said as an error of the same kind."""
    sentence = f"The server says: {message[:600]}"
    kinds = {"memory": OutOfMemoryError, "input": InputError}
    return kinds.get(str(kind), ServerError)(sentence)
