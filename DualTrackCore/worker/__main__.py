"""`python -m DualTrackCore.worker`: the process that a client starts."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import sys
from pathlib import Path

from DualTrackCore.errors import call_settings, labelled
from DualTrackCore.worker.process import LABELS_VARIABLE
from DualTrackCore.worker.serve import serve


def main() -> None:
    """Speak the protocol on standard input and output; everything that is printed goes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m DualTrackCore.worker", description="Compute for DualTrackCore.worker, which starts it."
    )
    parser.add_argument("--folder", type=Path, help="folder of the client, removed when the client has gone")
    options = parser.parse_args()
    if sys.stdin is None or sys.stdin.isatty():
        parser.error("this process is started by DualTrackCore.worker and does not talk to people")
    faulthandler.enable()
    if labels := os.environ.get(LABELS_VARIABLE):
        call_settings(labelled(json.loads(labels)))
    # The head of a tree of its own: it ends its tree when its client has gone, and that of the client is another.
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):  # it is the head already
            os.setsid()
    # Linux ends this process first when memory runs out, not the application that holds the user's scene.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    # Standard input and output are for the protocol alone; libraries that print or ask reach the log and nothing.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    serve(requests, answers, options.folder)


if __name__ == "__main__":
    main()
