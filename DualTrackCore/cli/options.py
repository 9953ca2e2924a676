"""Command-line options derived from the fields of a dataclass of settings."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from DualTrackCore.errors import InputError
from DualTrackCore.settings import setting_of, value_of_text


def add_settings(parser: argparse.ArgumentParser, kind: type, groups: Sequence[str]) -> None:
    """Add an option for every field of the groups; what the user leaves out is no attribute of the parsed options."""
    hints = typing.get_type_hints(kind)
    for group in groups:
        section = parser.add_argument_group(group)
        for field in dataclasses.fields(kind):
            if setting_of(field).group == group:
                _add_option(section, field, hints[field.name])


def given_settings(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The settings that the user gave as options."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _add_option(section: argparse._ArgumentGroup, field: dataclasses.Field, hint: Any) -> None:
    facts = setting_of(field)
    name = "--" + (facts.option or field.name.replace("_", "-"))
    common = {"dest": field.name, "default": argparse.SUPPRESS, "help": _help(field)}
    if hint is bool:
        section.add_argument(name, action=argparse.BooleanOptionalAction, **common)
        return
    section.add_argument(name, metavar=facts.metavar or _choices(hint), type=_parser_of(field, hint), **common)


def _help(field: dataclasses.Field) -> str:
    """The sentence of the field, unit and default; argparse wants percent signs doubled."""
    facts = setting_of(field)
    unit = f", {facts.unit}" if facts.unit else ""
    default = "" if field.default is None else f" (default: {field.default})"
    if isinstance(field.default, bool):
        default = ""  # argparse says it
    return f"{facts.help}{unit}{default}".replace("%", "%%")


def _choices(hint: Any) -> str:
    """The values of a Literal as argparse shows choices."""
    return f"{{{','.join(map(str, typing.get_args(hint)))}}}" if typing.get_origin(hint) is Literal else "VALUE"


def _parser_of(field: dataclasses.Field, hint: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return value_of_text(field, hint, text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse
