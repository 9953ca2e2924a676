"""What the two processes say to each other: one JSON object a line.

The worker speaks first: `{"event": "hello", "protocol": 1, "version": "0.1.0", "pid": 4711}`. It is then sent requests,
one at a time: `{"id": 1, "do": "run", "folder": ..., "settings": {...}}` or `{"id": 1, "do": "preflight", "device":
"auto"}`. A run that says `"searched": true` is not searched for repeats and turns again. To each it answers any number
of `{"id", "event": "progress", "stage", "done", "total", "detail"}`, and then
`{"id", "event": "done", "result": {...}}` or `{"id", "event": "failed", "kind", "message", "details", "about"}`. Frames
and results lie in the folder of the job (:mod:`DualTrackCore.worker.job`). When its input ends, the worker ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from DualTrackCore import __version__
from DualTrackCore.errors import InputError
from DualTrackCore.progress import Stage

PROTOCOL = 1
#: What an event "progress" says besides its request.
PROGRESS_FIELDS = ("stage", "done", "total", "detail")
#: Keys that an event has besides "event", and their kinds.
_EVENTS: Mapping[str, Mapping[str, type]] = {
    "hello": {"protocol": int, "version": str, "pid": int},
    "progress": {"id": int, "stage": Stage, "done": int, "total": int, "detail": str},
    "done": {"id": int, "result": dict},
    "failed": {"id": int, "kind": str, "message": str, "details": str},
}


def hello() -> dict[str, Any]:
    """What the worker says first."""
    return {"event": "hello", "protocol": PROTOCOL, "version": __version__, "pid": os.getpid()}


def mismatch(greeting: Mapping[str, Any]) -> str | None:
    """A sentence if the worker that said hello is of another version than this, else None."""
    if greeting["protocol"] == PROTOCOL and greeting["version"] == __version__:
        return None
    return (
        f"The worker process is DualTrack {greeting['version']} (protocol {greeting['protocol']}) and this is "
        f"{__version__} (protocol {PROTOCOL}); restart the application, and if that does not help, install one version."
    )


def encoded(message: Mapping[str, Any]) -> bytes:
    """A message as the line that is sent, pure ASCII."""
    return json.dumps(message, allow_nan=False).encode("ascii") + b"\n"


def decoded_event(line: bytes) -> dict[str, Any]:
    """What a line of the worker says, with every key there and of its kind.

    Raises InputError: the line is not an event of this protocol.
    """
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and event.get("event") == "progress":
        with contextlib.suppress(ValueError):
            event["stage"] = Stage(event.get("stage"))
    keys = _EVENTS.get(str(event.get("event"))) if isinstance(event, dict) else None
    if keys is None or not all(isinstance(event.get(key), kind) for key, kind in keys.items()):
        raise InputError(f"not an event of the protocol: {line[:200]!r}")
    return event
