"""Frozen dataclasses of settings: each field has its type, default, limits, unit and the sentence that explains it.

Checks, JSON and YAML, command-line options and the limits of widgets are derived from the fields.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from DualTrackCore.errors import InputError

_KEY = "setting"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a field beside its type and default.

    Attributes:
        help: one sentence for people, without a full stop.
        unit: of numbers ("mm"), or empty.
        at_least, at_most, above, below: limits of a number, or of each number of a tuple.
        expects: what the field takes, in words; made of type and limits where empty.
        convert: turns what the caller gave into the value that is checked; for values with several notations.
        group: what the field belongs to; a command takes the options of some groups.
        option: name of the command-line option, where it differs from the field's.
        metavar: placeholder of its value in help texts.
    """

    help: str = ""
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    expects: str = ""
    convert: Callable[[Any], Any] | None = None
    group: str = ""
    option: str = ""
    metavar: str = ""

    @property
    def limits(self) -> str:
        """The limits in words, with a space before them; empty without limits."""
        if self.at_least is not None and self.at_most is not None:
            return f" from {self.at_least} to {self.at_most}"
        words = {"of at least": self.at_least, "above": self.above, "of at most": self.at_most, "below": self.below}
        parts = [f"{word} {limit}" for word, limit in words.items() if limit is not None]
        return " " + " and ".join(parts) if parts else ""

    def admits(self, number: float) -> bool:
        """Whether a number is finite and within the limits."""
        return (
            abs(number) <= sys.float_info.max
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def setting(default: Any = dataclasses.MISSING, **facts: Any) -> Any:
    """A dataclass field with a :class:`Setting`, whose attributes are `facts`."""
    return dataclasses.field(default=default, metadata={_KEY: Setting(**facts)})


def setting_of(field: dataclasses.Field) -> Setting:
    """The :class:`Setting` of a field; one without limits where the field has none."""
    return field.metadata.get(_KEY, Setting())


def check_settings(settings: Any, owner: str = "The setting") -> None:
    """Check every field of a frozen dataclass; call it in `__post_init__`.

    Args:
        settings: the dataclass.
        owner: what stands before the name of a field in messages.

    Raises InputError: a value of another type or outside the limits; names field, value and what is expected.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = fitted(field, hints[field.name], getattr(settings, field.name), f"{owner} {field.name}")
        object.__setattr__(settings, field.name, value)


def build(kind: type, values: object, where: str, key: str = "") -> Any:
    """A dataclass from a mapping, as JSON and YAML give it; nested dataclasses and tuples are built by annotation.

    Args:
        kind: a dataclass.
        values: the mapping.
        where: name of the file, for messages.
        key: dotted name of the place, for messages; empty at the top.

    Raises InputError: an unknown or missing key, or a value that does not fit; one sentence with key and file.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{_place(where, key)} is {short_text(values)}; expected a mapping of keys to values.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            place = _place(where, _join(key, str(name)[:60]))
            raise InputError(f"{place} is no known key; {known_keys(str(name), fields)}.")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = fitted(field, hints[name], values[name], where, _join(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_place(where, _join(key, name))} is missing.")
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{_place(where, key)}: {error}") from None


def fitted(field: dataclasses.Field, hint: Any, value: object, where: str, key: str = "") -> Any:
    """The value of one field, converted and checked.

    Raises InputError: it does not fit; the message begins with `key` and `where`.
    """
    facts = setting_of(field)
    try:
        return _fit_any(hint, facts, value, where, key)
    except _Misfit:
        raise InputError(f"{_place(where, key)} is {short_text(value)}; expected {expected(hint, facts)}.") from None


def value_of_text(field: dataclasses.Field, hint: Any, text: str) -> Any:
    """The value that a text on the command line stands for: itself, a number, or numbers with commas between them.

    Raises InputError: none of these fits; says what is expected.
    """
    for value in (text, *_numbers(text)):
        with contextlib.suppress(_Misfit):
            return _fit_any(hint, setting_of(field), value, "", "")
    raise InputError(f"{short_text(text)} is not {expected(hint, setting_of(field))}.")


def _numbers(text: str) -> list[Any]:
    """What a text may be as numbers: one of them, or a list."""
    words = text.replace("x", ",").split(",")
    with contextlib.suppress(ValueError):
        numbers = [int(word) if word.strip().lstrip("+-").isdigit() else float(word) for word in words]
        return numbers if len(numbers) == 1 else [numbers]
    return []


def expected(hint: Any, facts: Setting) -> str:
    """What a field of this type takes, in words: "a number of mm above 0 or 'auto'"."""
    if facts.expects:
        return facts.expects
    kinds = _alternatives(hint)
    words = [_expected(kind, facts) for kind in kinds if kind is not type(None)]
    return " or ".join([*words, *(["none"] if type(None) in kinds else [])])


def _expected(kind: Any, facts: Setting) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        names = ", ".join(map(str, parts))
        return f"one of {names}" if len(parts) > 1 else f"{names!r}"
    if origin is tuple:
        count = "any number of" if Ellipsis in parts else str(len(parts))
        return f"{count} {_NAMES.get(parts[0], 'values').removeprefix('a ')}s{facts.limits}"
    unit = f" of {facts.unit}" if facts.unit else ""
    if kind in (int, float):
        return f"{_NAMES[kind]}{unit}{facts.limits}"
    return _NAMES.get(kind, "a mapping")


def _fit_any(hint: Any, facts: Setting, value: object, where: str, key: str) -> Any:
    if facts.convert is not None:
        value = facts.convert(value)
    for kind in _alternatives(hint):
        with contextlib.suppress(_Misfit):
            return _fit_one(kind, facts, value, where, key)
    raise _Misfit


def _fit_one(kind: Any, facts: Setting, value: object, where: str, key: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return _require(value is None, value)
    if origin is Literal:
        return _require(any(value == part and type(value) is type(part) for part in parts), value)
    if origin is tuple:
        _require(isinstance(value, list | tuple), value)
        if len(parts) == 2 and parts[1] is Ellipsis:
            parts = (parts[0],) * len(value)
        _require(len(parts) == len(value), value)
        return tuple(_fit_one(part, facts, item, where, key) for part, item in zip(parts, value, strict=True))
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        return build(kind, _require(isinstance(value, Mapping), value), where, key)
    if origin is not None and issubclass(origin, Mapping):
        return types.MappingProxyType(dict(_require(isinstance(value, Mapping), value)))
    return _fit_plain(kind, facts, value)


def _fit_plain(kind: type, facts: Setting, value: object) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            value = float(value)  # YAML 1.1 reads 1e-4 as text, so text that is a number counts as one
        except (TypeError, ValueError, OverflowError):
            raise _Misfit from None
    _require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), value)
    return _require(kind not in (int, float) or facts.admits(value), value)


class _Misfit(Exception):
    """A value does not fit one of the types that a field can have."""


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise _Misfit
    return value


def _alternatives(hint: Any) -> tuple:
    """The types that a union names, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _place(where: str, key: str) -> str:
    return f"{key} in {where}" if key else where


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def short_list(names: Iterable[str], most: int = 6) -> str:
    """Names for a message, in their order: the first few, each cut at 60 characters, and how many more there are."""
    names = list(names)
    shown = ", ".join(name[:60] for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def known_keys(name: str, known: Iterable[str]) -> str:
    """What a message says after an unknown key: all known ones, or of a long list the nearest."""
    known = list(known)
    if len(known) <= 8:
        return f"known are {', '.join(known)}"
    return f"the nearest known are {', '.join(difflib.get_close_matches(name[:60], known, n=3, cutoff=0))}"


def short_text(value: object) -> str:
    """What a value looks like in Python, for a message: long texts and collections cut in the middle."""
    return _SHORT.repr(value)
