"""Changes of bytes and words that make faulty files of valid ones."""

from __future__ import annotations

import random
import re

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]{2,}")
#: Values that programs stumble over, as text.
_TOKENS = (
    b"0", b"-1", b"1", b"-0.5", b"255", b"65536", b"2147483648", b"4294967295", b"99999999999", b"1e308", b"1e999",
    b"-1e-320", b"nan", b"inf", b"-inf", b"", b"0x10", b"1,5", b"9" * 400, b"true", b"null", b"[]", b"{}", b"~",
)  # fmt: skip
#: The same as bytes, in both orders.
_VALUES = tuple(
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in {0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 2 ** (4 * size)}
    for order in ("little", "big")
)
#: Where headers lie.
_HEADER = 8192
_MOST = 4


def mutate(content: bytes, other: bytes, text: bool, numbers: random.Random) -> bytes:
    """Change content once to a few times.

    Args:
        content: of a valid file.
        other: of another one, to splice with.
        text: whether words, too, are changed everywhere; else only in the header.
        numbers: decides everything.
    """
    for _ in range(numbers.choice((1, 1, 1, 2, 3, _MOST))):
        ways = [_token] * 6 + [_word, _line] if text else [_flip, _value, _value, _header_value, _header_value, _token]
        way = numbers.choice([*ways, _flip, _cut, _insert, _repeat, _drop])
        content = way(content, numbers)
    if numbers.random() < 0.04:
        content = content[: numbers.randrange(len(content) + 1)] + other[numbers.randrange(len(other) + 1) :]
    return content


def _place(content: bytes, numbers: random.Random) -> int:
    return numbers.randrange(len(content)) if content else 0


def _flip(content: bytes, numbers: random.Random) -> bytes:
    at = _place(content, numbers)
    return content[:at] + bytes(byte ^ (1 << numbers.randrange(8)) for byte in content[at : at + 1]) + content[at + 1 :]


def _overwrite(content: bytes, at: int, numbers: random.Random) -> bytes:
    value = numbers.choice(_VALUES)
    return content[:at] + value + content[at + len(value) :]


def _value(content: bytes, numbers: random.Random) -> bytes:
    return _overwrite(content, _place(content, numbers), numbers)


def _header_value(content: bytes, numbers: random.Random) -> bytes:
    return _overwrite(content, _place(content[:256], numbers), numbers)


def _cut(content: bytes, numbers: random.Random) -> bytes:
    return content[: _place(content, numbers)]


def _insert(content: bytes, numbers: random.Random) -> bytes:
    at = _place(content, numbers)
    return content[:at] + numbers.randbytes(numbers.choice((1, 2, 7, 64))) + content[at:]


def _block(content: bytes, numbers: random.Random) -> tuple[int, int]:
    start = _place(content, numbers)
    return start, start + numbers.choice((1, 4, 16, 128, 1024))


def _repeat(content: bytes, numbers: random.Random) -> bytes:
    start, stop = _block(content, numbers)
    return content[:stop] + content[start:stop] * numbers.choice((1, 3)) + content[stop:]


def _drop(content: bytes, numbers: random.Random) -> bytes:
    start, stop = _block(content, numbers)
    return content[:start] + content[stop:]


def _token(content: bytes, numbers: random.Random) -> bytes:
    found = list(_NUMBER.finditer(content[:_HEADER]))
    return _exchange(content, numbers.choice(found).span(), numbers.choice(_TOKENS)) if found else content


def _word(content: bytes, numbers: random.Random) -> bytes:
    found = list(_WORD.finditer(content[:_HEADER]))
    if not found:
        return content
    return _exchange(content, numbers.choice(found).span(), numbers.choice((*_TOKENS, *(word[0] for word in found))))


def _line(content: bytes, numbers: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = numbers.randrange(len(lines))
    return b"\n".join([*lines[:at], *numbers.choice(([], [lines[at]] * 2, [b""])), *lines[at + 1 :]])


def _exchange(content: bytes, span: tuple[int, int], new: bytes) -> bytes:
    return content[: span[0]] + new + content[span[1] :]
