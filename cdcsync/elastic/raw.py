"""Takes JSON text apart without reading its values, so that each stays to the byte what it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NESTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,\]}\s]+")
_BLANK: Final = re.compile(rb"\s*")
_OPENING: Final = frozenset(b"[{")


def members(text: bytes) -> dict[str, bytes]:
    """Return the members of an object, each value as its text. Raises ValueError when it is none."""
    found = {}
    at = _begin(text, b"{")
    while text[at : at + 1] != b"}":
        name = _STRING.match(text, at)
        if name is None:
            raise _broken(at)
        at = _blank(text, name.end())
        if text[at : at + 1] != b":":
            raise _broken(at)
        at = _blank(text, at + 1)
        end = _end(text, at)
        found[orjson.loads(name[0])] = text[at:end]
        at = _next(text, end)
    return found


def elements(text: bytes) -> Iterator[bytes]:
    """Yield the elements of an array, each as its text. Raises ValueError when it is none."""
    at = _begin(text, b"[")
    while text[at : at + 1] != b"]":
        end = _end(text, at)
        yield text[at:end]
        at = _next(text, end)


def _begin(text: bytes, bracket: bytes) -> int:
    at = _blank(text, 0)
    if text[at : at + 1] != bracket:
        raise _broken(at)
    return _blank(text, at + 1)


def _blank(text: bytes, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _next(text: bytes, end: int) -> int:
    """Return where the next member begins, or the closing bracket stands."""
    at = _blank(text, end)
    if text[at : at + 1] == b",":
        return _blank(text, at + 1)
    if text[at : at + 1] not in {b"}", b"]"}:
        raise _broken(at)
    return at


def _end(text: bytes, at: int) -> int:
    """Return where the value that begins here ends."""
    if at >= len(text):
        raise _broken(at)
    if text[at] not in _OPENING:
        found = (_STRING if text[at : at + 1] == b'"' else _SCALAR).match(text, at)
        if found is None:
            raise _broken(at)
        return found.end()
    depth = 0
    for each in _NESTED.finditer(text, at):
        if each[0] in {b"{", b"["}:
            depth += 1
        elif each[0] in {b"}", b"]"}:
            depth -= 1
            if not depth:
                return each.end()
    raise _broken(at)


def _broken(at: int) -> ValueError:
    msg = f"not the JSON that was expected, at byte {at}"
    return ValueError(msg)
