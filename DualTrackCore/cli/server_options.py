"""Options of runs at a server, and of the server itself. Nothing heavy is imported here."""

from __future__ import annotations

import argparse

from DualTrackCore.errors import InputError

#: What the command `serve` does.
SERVING = "run the network for other computers: a server for --server and for the panel"


def add_server(parser: argparse.ArgumentParser) -> None:
    """Options of a run whose network is to run on another computer."""
    section = parser.add_argument_group("server")
    text = "let the server at this address run the network, in place of --device (Docs/server.md)"
    section.add_argument("--server", dest="device", metavar="URL", type=_address, default=argparse.SUPPRESS, help=text)
    text = "file with the key of the server (else DUALTRACK_SERVER_KEY or DUALTRACK_SERVER_KEY_FILE)"
    section.add_argument("--server-key-file", metavar="FILE", help=text)
    text = "PEM file of the server's own certificate (else DUALTRACK_SERVER_CERTIFICATE)"
    section.add_argument("--server-certificate", metavar="FILE", help=text)
    text = "agree that frames are sent to this server; remembered for its address"
    section.add_argument("--yes", action="store_true", help=text)


def _address(value: str) -> str:
    from DualTrackCore.remote.consent import checked_address

    try:
        return checked_address(value)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Options of the command that is such a server."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer alone)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    text = "file with the key that clients must know; made if it is not there; needed unless --host is this computer"
    parser.add_argument("--key-file", metavar="FILE", help=text)
    parser.add_argument("--certificate", metavar="FILE", help="PEM file of the certificate, for https")
    parser.add_argument("--private-key", metavar="FILE", help="PEM file of its private key")
    text = "listen without https elsewhere than on this computer: for networks that are safe themselves"
    parser.add_argument("--insecure", action="store_true", help=text)
    parser.add_argument("--models", metavar="NAME,...", help="offer these models alone (default: all installed ones)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0, ... or mps (default: %(default)s)")
    text = "largest sweep that is taken, GB of frames (default: %(default)s)"
    parser.add_argument("--most-gb", metavar="GB", type=float, default=4.0, help=text)
    text = "clients at the same time, those that wait included (default: %(default)s)"
    parser.add_argument("--places", metavar="N", type=int, default=8, help=text)
    text = "how long the model stays loaded without a run, minutes (default: %(default)s)"
    parser.add_argument("--idle-minutes", metavar="MIN", type=float, default=15.0, help=text)
