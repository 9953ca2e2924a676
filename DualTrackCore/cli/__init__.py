"""The `dualtrack` command: `python -m DualTrackCore.cli` is the same.

Exit codes: 0 done; 1 cancelled or a fault of the program; 2 input, options or place that cannot be used as they are. A
command that has said all there is to say about bad input itself returns false for 2.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from DualTrackCore.cli.console import Console
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.cli.shell import FIRST_HELP, option_of
from DualTrackCore.errors import Cancelled, DualTrackError, settings_called
from DualTrackCore.memory import memory_limit, naming_memory
from DualTrackCore.settings import short_text
from DualTrackCore.threads import thread_variables

DONE, FAILED, REFUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; `sys.argv` by default.

    Returns:
        The exit code.
    """
    is_program = arguments is None
    arguments = sys.argv[1:] if is_program else list(arguments)
    if is_program:
        os.environ |= thread_variables(os.environ)  # before torch is loaded, which some of the commands do
    console = Console("--json" in arguments, "--quiet" in arguments, arguments)
    try:
        with console.warnings_as_sentences(), console.signals_as_interrupt(is_program), settings_called(option_of):
            if not arguments:
                console.say(FIRST_HELP)
                return DONE
            console.start()
            options = build_parser().parse_args(arguments)
            console.command = options.command_name
            with memory_limit(getattr(options, "memory_gb", None)), naming_memory(f"The command {console.command}"):
                accepted = options.command(options, console) is not False
    except (Cancelled, KeyboardInterrupt) as error:
        console.fail(str(error) if isinstance(error, Cancelled) else "Cancelled; nothing was written.")
        return FAILED
    except DualTrackError as error:
        console.fail(str(error))
        return REFUSED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads the output any more; Python would report that again at exit
        return FAILED
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENAMETOOLONG, errno.ELOOP):
            console.fail(
                f"{short_text(error.filename)} cannot be used as a name ({error.strerror}); choose another one."
            )
            return REFUSED
        console.fail(f"A fault of the program: {error}; please report it with the lines above.", traceback.format_exc())
        return FAILED
    finally:
        console.close()
    return DONE if accepted else REFUSED
