"""The worker process from inside: requests in, progress and results out, the last model kept loaded."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from DualTrackCore.errors import DualTrackError, InputError, MissingDependencyError, OutOfMemoryError
from DualTrackCore.files import plain_values
from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.reconstruction.detect import picture_parts
from DualTrackCore.repeats import Repeats
from DualTrackCore.run.pipeline import run_frames, settings_model
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker.job import read_path, read_sweep, write_parts, write_result
from DualTrackCore.worker.process import LESS_MEMORY, end_tree
from DualTrackCore.worker.protocol import encoded, hello
from DualTrackCore.worker.readiness import preflight

if TYPE_CHECKING:
    from DualTrackCore.network import Model
    from DualTrackCore.remote import RemoteModel

#: Least time between two reports of progress within a stage, s.
PROGRESS_INTERVAL_S = 0.05
#: Longest wait for a result that is being written when the client ends, s.
WRITING_TIMEOUT_S = 5.0
#: Time without a request after which the model gives back what it holds to compute, on a graphics card too, s.
IDLE_S = 300.0


def serve(requests: BinaryIO, answers: BinaryIO, folder: Path | None) -> None:
    """Answer requests until the input ends, then end this process.

    Args:
        requests, answers: lines of the protocol.
        folder: the client's, removed when the client has gone without doing so; None for a client that keeps none.
    """
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    writing = threading.Lock()
    listener = threading.Thread(target=_listen, args=(requests, inbox, folder, writing), daemon=True)
    listener.start()
    worker = Worker(Speaker(answers), writing)
    # Nobody reads the answers any more: the listener ends the process.
    with contextlib.suppress(OSError):
        worker.speaker.say(hello())
        while True:
            worker.answer(next_request(inbox, worker))
    listener.join()


def next_request(inbox: queue.SimpleQueue[bytes], worker: Worker) -> bytes:
    """The next line that comes; while none does for long, the worker rests."""
    try:
        return inbox.get(timeout=IDLE_S)
    except queue.Empty:
        worker.rest()
        return inbox.get()


class Speaker:
    """Writes events; of the progress of a stage the first, the last, and some in between."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._stage: tuple[Stage, str] | None = None
        self._written_s = 0.0

    def say(self, message: Mapping[str, Any]) -> None:
        """Write one event now."""
        self._answers.write(encoded(message))
        self._answers.flush()

    def progress(self, request: int, report: Progress) -> None:
        """Write the progress of a request, unless a report of the stage was written a moment ago."""
        now = time.monotonic()
        due = (report.stage, report.detail) != self._stage or report.done >= report.total
        if due or now - self._written_s >= PROGRESS_INTERVAL_S:
            self._stage, self._written_s = (report.stage, report.detail), now
            self.say({"id": request, "event": "progress", **vars(report)})


class WarmModel:
    """The model that was used last, loaded again only when settings name another or its files have changed."""

    def __init__(self) -> None:
        self._key: object = None
        self._model: Model | None = None

    def load(self, settings: RunSettings) -> Model | RemoteModel:
        """The model that settings name; that of a server is asked for anew."""
        if settings.server:
            return settings_model(settings)
        key = _model_key(settings)
        if self._model is None or key != self._key:
            self.forget()  # first: memory may not suffice for two
            self._model, self._key = settings_model(settings), key
        return self._model

    def release(self) -> None:
        """Give back what the model holds to compute; it stays loaded."""
        if self._model is not None:
            self._model.release()

    def forget(self) -> None:
        """Release the model and its memory."""
        self._model = self._key = None


class Worker:
    """Does what it is asked for, one request after the other.

    Args:
        speaker: for progress and results.
        writing: held while results are written.
    """

    def __init__(self, speaker: Speaker, writing: threading.Lock) -> None:
        self.speaker = speaker
        self._writing = writing
        self._models = WarmModel()
        self._tasks = {"run": self._run, "parts": _parts, "loops": _loops}
        self._tasks["preflight"] = lambda request: preflight(str(request.get("device")))

    def rest(self) -> None:
        """Give back what the next run makes again in moments."""
        self._models.release()

    def answer(self, line: bytes) -> None:
        """Carry out the request of one line and write its result, or its failure as a sentence."""
        number = 0
        try:
            request = _request(line)
            number = request["id"]
            result = self._tasks[request["do"]](request)
        except Exception as error:
            kind, message = described_failure(error)
            details = "".join(traceback.format_exception(error))
            print(details, file=sys.stderr, flush=True)
            if kind == "memory":
                self._models.forget()
            event = {"event": "failed", "kind": kind, "message": message, "details": details}
            event["about"] = getattr(error, "about", "")
        else:
            event = {"event": "done", "result": plain_values(result)}
        self.speaker.say({"id": number, **event})

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        folder = Path(request["folder"])
        settings = RunSettings.from_dict(request["settings"])

        def progress(report: Progress) -> None:
            self.speaker.progress(request["id"], report)

        sweep = read_sweep(folder)
        repeats = Repeats.none(len(sweep)) if request.get("searched") is True else None
        result = run_frames(sweep, settings, Reporter(progress), self._models.load, read_path(folder), repeats)
        with self._writing:
            write_result(folder / "result", result)
        return {"folder": str(folder / "result")}


def _parts(request: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(request["folder"])
    return write_parts(folder, picture_parts(read_sweep(folder)))


def _loops(request: Mapping[str, Any]) -> dict[str, Any]:
    from DualTrackCore.corrections import propose_loops

    folder = Path(request["folder"])
    found = propose_loops(read_sweep(folder), read_path(folder))
    return {"loops": [(place.frames, alike) for place, alike in found]}


def described_failure(error: BaseException) -> tuple[str, str]:
    """(kind of failure as in `JobFailed`, one sentence) of an exception that ended a request."""
    if is_out_of_memory(error):
        own = isinstance(error, OutOfMemoryError)
        return "memory", str(error) if own else f"The memory is too small for this run; {LESS_MEMORY}."
    if isinstance(error, MissingDependencyError):
        return "missing", str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk", f"The disk of {tempfile.gettempdir()} is full; free some space or set TMPDIR to another folder."
    if isinstance(error, DualTrackError):
        return "input", str(error)
    if isinstance(error, ImportError):
        return "missing", f"A package is missing or does not load ({error}); install the packages of DualTrack again."
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return "fault", f"A fault of the program ({reason}); please report it with the log."


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("id"), int):
        raise InputError(f"The worker was sent no request: {line[:200]!r}.")
    if request.get("do") not in ("run", "parts", "loops", "preflight"):
        raise InputError(f"The worker was asked for {request.get('do')!r}; supported: run, parts, loops and preflight.")
    return request


def _model_key(settings: RunSettings) -> object:
    """The settings that name a model, and the state of its files."""
    from DualTrackCore.network.catalogue import card_path, installed_path

    path = Path(settings.model)
    if not os.path.isfile(path):
        # Other names are known to load_model alone, or unknown, and then it says so.
        with contextlib.suppress(InputError):
            path = installed_path(settings.model)
    files = [path, card_path(path), *([Path(settings.card)] if settings.card else [])]
    key: list[object] = [settings.model, settings.card]
    for file in files:
        key.append(str(file))
        with contextlib.suppress(OSError):
            status = file.stat()
            key += [status.st_mtime_ns, status.st_size]
    return key


def _listen(requests: BinaryIO, inbox: queue.SimpleQueue[bytes], folder: Path | None, writing: threading.Lock) -> None:
    """Queue the requests; when the input ends the client has ended, and all its files are removed."""
    with contextlib.suppress(OSError, ValueError):
        for line in requests:
            inbox.put(line)
    if folder is not None:
        writing.acquire(timeout=WRITING_TIMEOUT_S)  # kept: nothing may be written after the folder is removed
        shutil.rmtree(folder, ignore_errors=True)
        end_tree({os.getpid() if os.name == "nt" else os.getpgrp()})
    os._exit(0)
