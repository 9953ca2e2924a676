"""Addresses of servers, and what a user must know before frames go there: said once, and remembered for each address.

The memory is one file of the user, `servers.json` in the models folder: `{"agreed": ["https://gpu.lab:8765"]}`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path
from urllib.parse import urlsplit

from DualTrackCore.errors import InputError
from DualTrackCore.files import json_text, replacing
from DualTrackCore.network.catalogue import models_folder

DEFAULT_PORT = 8765
#: Variables that hold the key of servers, a file of it, and a file of certificates to trust.
KEY_VARIABLE, KEY_FILE_VARIABLE = "DUALTRACK_SERVER_KEY", "DUALTRACK_SERVER_KEY_FILE"
CERTIFICATE_VARIABLE = "DUALTRACK_SERVER_CERTIFICATE"


def checked_address(address: str) -> str:
    """An address as it is remembered: `https://host:port`, without anything after it.

    Raises InputError: not an address of a server.
    """
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        whole = parts.scheme in ("http", "https") and host and not (parts.path.strip("/") or parts.query)
    except ValueError:
        whole = False
    if not whole or parts.username is not None or not host.isascii() or any(c.isspace() for c in host):
        raise InputError(f"{address[:80]!r} is not the address of a server; write it as https://host:{DEFAULT_PORT}.")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this computer."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def leaves_computer(address: str) -> bool:
    """Whether frames that are sent to an address leave this computer."""
    return not is_loopback(urlsplit(address).hostname or "")


def notice(address: str) -> str:
    """What the user must know before frames go to an address, in sentences."""
    address = checked_address(address)
    safe = "encrypted" if address.startswith("https") else "NOT encrypted, so that others on the way can read them"
    return (
        f"The frames of your clips leave this computer: they are sent to {address}, {safe}. Names and times are not "
        "sent, but what is burned into the picture is, unless it is cropped or masked. The server deletes the frames "
        "after the run. Ask whoever is responsible for the data whether this is allowed."
    )


def is_agreed(address: str, folder: Path | None = None) -> bool:
    """Whether frames may go to an address: the user has agreed, or it is this computer.

    Args:
        address: of the server.
        folder: where models are kept, and this; None for the usual one.
    """
    return not leaves_computer(address) or checked_address(address) in _agreed(folder)


def remember(address: str, folder: Path | None = None) -> None:
    """Note that the user knows :func:`notice` of an address and agrees. Raises OutputError: it cannot be written."""
    agreed = sorted({*_agreed(folder), checked_address(address)})
    with replacing(_path(folder)) as temporary:
        temporary.write_text(json_text({"agreed": agreed}), encoding="utf-8")


def _agreed(folder: Path | None) -> list[str]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [str(address) for address in json.loads(_path(folder).read_text(encoding="utf-8"))["agreed"]]
    return []


def _path(folder: Path | None) -> Path:
    return (folder or models_folder()) / "servers.json"
