"""Plain values of a YAML file into frozen dataclasses, with one sentence for whatever does not fit."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from DualTrackCore.errors import InputError

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


def build(kind: type, values: object, where: str, key: str = "") -> Any:
    """A dataclass from a mapping; nested dataclasses, tuples, optional values and numbers are checked by annotation.

    Args:
        kind: a dataclass.
        values: what YAML gave.
        where: name of the file, for messages.
        key: dotted name of the place, for messages; empty at the top.

    Raises:
        InputError: an unknown or missing key, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{_place(where, key)} is {values!r}; expected a mapping of keys to values.")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise InputError(f"{_place(where, _join(key, name))} is no known key; known are {', '.join(fields)}.")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], where, _join(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_place(where, _join(key, name))} is missing.")
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{_place(where, key) if key else where}: {error}") from None


def _convert(hint: Any, value: object, where: str, key: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return _convert(next(p for p in parts if p is not type(None)), value, where, key)
    if origin is tuple:
        return _convert_tuple(parts, value, where, key)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(dict, value, where, key)
        return types.MappingProxyType(dict(value))
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, key)
    return _convert_plain(hint, value, where, key)


def _convert_tuple(parts: tuple, value: object, where: str, key: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise InputError(f"{_place(where, key)} is {value!r}; expected a list.")
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise InputError(f"{_place(where, key)} has {len(value)} values; expected {len(parts)}.")
    return tuple(_convert(part, item, where, key) for part, item in zip(parts, value, strict=True))


def _convert_plain(kind: type, value: object, where: str, key: str) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as text, so text that is a number counts as one
        except (TypeError, ValueError):
            raise _wrong(kind, value, where, key) from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(kind, value, where, key)
    return value


def _wrong(kind: type, value: object, where: str, key: str) -> InputError:
    return InputError(f"{_place(where, key)} is {value!r}; expected {_NAMES.get(kind, kind.__name__)}.")


def _place(where: str, key: str) -> str:
    return f"{key} in {where}" if key else where


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
