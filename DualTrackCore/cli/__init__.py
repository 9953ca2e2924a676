"""The `dualtrack` command: `python -m DualTrackCore.cli` is the same.

Exit codes: 0 done; 1 cancelled or a fault of the program; 2 input, options or place that cannot be used as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from DualTrackCore.cli.console import Console
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import Cancelled, DualTrackError

DONE, FAILED, REFUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; `sys.argv` by default.

    Returns:
        The exit code.
    """
    options = build_parser().parse_args(arguments)
    console = Console(json_output=options.json, quiet=options.quiet)
    try:
        with console.warnings_as_sentences():
            options.command(options, console)
    except (Cancelled, KeyboardInterrupt) as error:
        console.fail(str(error) if isinstance(error, Cancelled) else "Cancelled; nothing was written.")
        return FAILED
    except DualTrackError as error:
        console.fail(str(error))
        return REFUSED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; Python would complain about it once more at exit
        return FAILED
    finally:
        console.close()
    return DONE
