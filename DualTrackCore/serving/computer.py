"""What computes behind a server: one warm worker process, asked from an event loop, and the queue before it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from DualTrackCore.errors import DualTrackError, InputError, ServerError
from DualTrackCore.worker.process import core_environment, described_ending, end_tree, last_lines
from DualTrackCore.worker.protocol import decoded_event, encoded, mismatch

#: Longest wait for the greeting of the process, s.
HELLO_TIMEOUT_S = 120.0
_MOST_LINE_BYTES = 1 << 22


class Computer:
    """One warm worker process: started by the first request, ended where a request is cancelled, then started anew.

    Args:
        command: how to start it.
        folder: of this server alone; the process removes it if the server has gone without doing so.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = tuple(command), folder
        self._log = folder / "worker.log"
        self._process: asyncio.subprocess.Process | None = None
        self._number, self._is_busy, self._rests_since_s = 0, False, time.monotonic()

    async def events(self, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The events of a request, up to "done" or "failed"; one request at a time. Whoever stops listening cancels it.

        Raises ServerError: the process did not start, or ended.
        """
        self._number += 1
        number, ended = self._number, False
        self._is_busy = True
        try:
            if self._process is None or self._process.returncode is not None:
                await self._start()
            self._process.stdin.write(encoded({"id": number, **request}))
            while not ended:
                event = await self._event()
                ended = event["event"] in ("done", "failed")
                if event.get("id") == number:
                    yield event
        finally:
            if not ended:
                with anyio.CancelScope(shield=True):
                    await self.stop()
            self._is_busy, self._rests_since_s = False, time.monotonic()

    async def rest(self, most_s: float) -> None:
        """End the process if it has had nothing to do for so long: it holds a model, and memory of the card."""
        if not self._is_busy and time.monotonic() - self._rests_since_s > most_s:
            await self.stop()

    async def stop(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is not None:
            end_tree({process.pid})
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> None:
        await self.stop()
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._command, "--folder", str(self._folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=core_environment(os.environ),
                start_new_session=True,
                limit=_MOST_LINE_BYTES,
            )
        try:
            greeting = await asyncio.wait_for(self._event(), HELLO_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise ServerError(f"The worker process did not answer within {HELLO_TIMEOUT_S:g} s; try again.") from None
        if greeting["event"] != "hello" or (mismatch(greeting) is not None):
            raise ServerError("The worker process of the server is of another version; install one version there.")

    async def _event(self) -> dict[str, Any]:
        """The next event. Raises ServerError: the process has ended, or says nothing that can be read."""
        try:
            line = await self._process.stdout.readline()
            if line:
                return decoded_event(line)
        except (InputError, ValueError):
            raise ServerError("The worker process wrote something unreadable and was ended; run it again.") from None
        kind, ending = described_ending(await self._process.wait(), last_lines(self._log))
        raise ComputerEnded(f"The worker process {ending}.", kind)


class ComputerEnded(ServerError):
    """The worker process has ended in a run; `kind` is as in :class:`~DualTrackCore.worker.JobFailed`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class NoPlace(DualTrackError):
    """All places of a server are taken."""


class Queue:
    """Who is served next: clients in the order in which they came, so many at most.

    Args:
        places: clients that are there at most, those that still send or already receive included.
    """

    def __init__(self, places: int) -> None:
        self.places, self._taken = places, 0
        self._line: list[object] = []
        self._moved = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more clients may come."""
        return self.places - self._taken

    def enter(self) -> None:
        """Take a place. Raises NoPlace: none is free."""
        if not self.free:
            raise NoPlace(f"All {self.places} places of the server are taken; try again later.")
        self._taken += 1

    def leave(self) -> None:
        """Give the place back."""
        self._taken -= 1

    async def turn(self, client: object) -> AsyncIterator[int]:
        """Stand in the line: the place whenever it changes, 0 where it is the turn of the client, who then calls
        :meth:`step_out`."""
        self._line.append(client)
        place = -1
        while place:
            if (now := self._line.index(client)) != place:
                place = now
                yield place
            else:
                await self._moved.wait()

    def step_out(self, client: object) -> None:
        """Leave the line, served or not."""
        if client in self._line:
            self._line.remove(client)
            self._moved.set()
            self._moved = asyncio.Event()


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies."""
    return shutil.disk_usage(folder).free
