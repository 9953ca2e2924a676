"""Errors that a user reads: each message is one sentence with what, where, the limit and the remedy.

Everything that bad input can cause derives from :class:`DualTrackError`; the command line turns it into exit code 2.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping


class DualTrackError(Exception):
    """Base of every error whose message is written for the user."""


class InputError(DualTrackError, ValueError):
    """A file, an array or an option that cannot be used as it is.

    Attributes:
        about: name of the setting that is wrong, for who shows it beside that; empty where nobody says it.
    """

    about = ""


class DatasetError(InputError):
    """A data set, or one sweep of it, that cannot be used as it is."""


class SweepError(DatasetError):
    """One sweep of a data set that cannot be used as it is.

    Attributes:
        path: its file.
        problem, remedy: what is wrong and what to do, clauses without a full stop.
        reason: the sentence of the error that showed it, or empty.
    """

    def __init__(self, path: object, problem: str, remedy: str, reason: str = "") -> None:
        super().__init__(f"{path} {problem}; {remedy}." + (f" ({reason})" if reason else ""))
        self.path, self.problem, self.remedy, self.reason = path, problem, remedy, reason


class CheckpointError(InputError):
    """A weights file that is damaged, unsafe or of another network."""


class MissingDependencyError(DualTrackError, ImportError):
    """An optional package is needed; the message names the package and how to get it."""


class OutputError(DualTrackError, OSError):
    """A result that could not be written; what stood there before is untouched."""


class OutOfMemoryError(DualTrackError, MemoryError):
    """The device has too little memory even for the smallest piece of work; the message names a way out."""


def _in_python(setting: str, value: object) -> str:
    return setting if value is None else f"{setting}={value!r}"


#: How the program that runs calls a setting with a value; the one of Python, unless another front end is at work.
_called: Callable[[str, object], str] = _in_python


def named(setting: str, value: object = None) -> str:
    """What the user of the program that runs calls a setting, for a sentence about it.

    Args:
        setting: its name in Python.
        value: to be given for it; None where the sentence names none.

    Returns:
        `poses_are='measured'` in Python, `--poses-are measured` on the command line, in a panel the label of a widget.
    """
    return _called(setting, value)


def call_settings(called: Callable[[str, object], str] | None) -> None:
    """Let sentences of all threads name settings as a front end does, `called(setting, value)`; None: as in Python."""
    global _called
    _called = called or _in_python


@contextlib.contextmanager
def settings_called(called: Callable[[str, object], str]) -> Iterator[None]:
    """The same for what is done within."""
    before = _called
    call_settings(called)
    try:
        yield
    finally:
        call_settings(before)


def labelled(labels: Mapping[str, str]) -> Callable[[str, object], str]:
    """For :func:`call_settings`: settings by the texts of their widgets, those without one in words."""

    def called(setting: str, value: object) -> str:
        name = f"“{labels.get(setting, setting.replace('_', ' '))}”"
        return name if value is None or value is True else f"{name}: {value}"

    return called


@contextlib.contextmanager
def about(setting: str) -> Iterator[None]:
    """Let input errors of what is done within say which setting they are about."""
    try:
        yield
    except InputError as error:
        error.about = error.about or setting
        raise


class ServerError(DualTrackError):
    """Another computer that was to compute cannot be reached, was lost or failed; the message says what to do."""


class TrackingWarning(UserWarning):
    """The trajectory is less reliable than usual; the message says why."""


class SweepWarning(UserWarning):
    """Something about the frames of a sweep is doubtful; the message says what and how to avoid it."""


class Doubt(str):
    """A note that belongs among the warnings of a result as well."""


def doubts(notes: Iterable[str]) -> dict[str, list[str]]:
    """The warnings among notes as a part of a provenance; nothing where there are none."""
    found = [str(note) for note in notes if isinstance(note, Doubt)]
    return {"warnings": found} if found else {}


class Cancelled(DualTrackError):
    """The caller asked to stop; nothing half-written is left behind."""


#: What another program says of a fault is quoted up to this many characters.
_LONGEST_REASON = 160
#: How Python writes an object in memory.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


def reason_of(error: BaseException) -> str:
    """What an error of another package says, for a sentence in brackets: one line, and not longer than is read."""
    said = getattr(error, "strerror", None) or _ADDRESS.sub("", str(error))
    said = str(said).split("Traceback (most recent call last)")[0]  # pydicom puts a whole one into its message
    text = " ".join(said.split()).removesuffix(".") or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
