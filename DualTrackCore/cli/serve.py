"""`dualtrack serve`, and the options of a run that name a server."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

from DualTrackCore.cli.console import Console
from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.run.pipeline import ModelSource, settings_model
from DualTrackCore.run.settings import RunSettings


def serve(options: Namespace, console: Console) -> None:
    """Compute for other computers until the command is stopped."""
    from DualTrackCore.serving import ServerSettings, start

    names = [name.strip() for name in (options.models or "").split(",") if name.strip()]
    settings = ServerSettings(
        host=options.host,
        port=options.port,
        key_file=options.key_file,
        certificate=options.certificate,
        private_key=options.private_key,
        insecure=options.insecure,
        models=names,
        device=options.device,
        most_gb=options.most_gb,
        places=options.places,
        idle_minutes=options.idle_minutes,
    )

    def say(sentence: str) -> None:
        console.say(sentence)
        sys.stdout.flush()

    def log(line: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)

    def ready(facts: Mapping[str, Any]) -> None:
        console.result(facts)
        sys.stdout.flush()

    start(settings, say, log, ready, console.cancelled)


def models_of(options: Namespace, settings: RunSettings, console: Console) -> ModelSource:
    """What gives the model of a run: for a server with the key of the options, once frames may go there.

    Raises InputError: the user has not agreed to that, or the options do not fit.
    """
    if not settings.server:
        if options.server_key_file or options.server_certificate:
            raise InputError("A key file or certificate is for a server; name it with --server.")
        return settings_model
    from DualTrackCore.remote import Server, is_agreed, notice, remember

    server = Server.at(settings.server, options.server_key_file, options.server_certificate, options.yes)
    if not is_agreed(server.address):
        if not options.yes and not console.confirm(f"{notice(server.address)} Do you agree?"):
            server.require_agreed()
        console.warn(notice(server.address))
        try:
            remember(server.address)
        except OutputError as error:
            console.warn(f"That you agree could not be remembered: {error}")
        server = Server(server.address, server.key, server.certificate, agreed=True)
    return partial(settings_model, server=server)
