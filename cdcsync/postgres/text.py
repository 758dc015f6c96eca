"""PostgreSQL's text form of dates, times and arrays, to the neutral form and back.

The session has TimeZone UTC, DateStyle ISO and IntervalStyle iso_8601 (`connection.FORMATS`). PostgreSQL writes a
year before 1 as "0044-03-15 BC"; the neutral form counts it as ISO 8601 does: "-0043-03-15".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cdcsync.types import BoundedArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.change import Value

_DATE_CHARS: Final = 10
"""Of a date from year 1 to 9999."""
_YEAR_DIGITS: Final = 4
_BC: Final = " BC"
_INFINITIES: Final = ("infinity", "-infinity")


def read_date(raw: bytes) -> str:
    """Return ISO 8601 of PostgreSQL's date."""
    text = raw.decode()
    return text if len(text) == _DATE_CHARS else _unusual(text, "")


def read_timestamp(raw: bytes) -> str:
    """Return ISO 8601 of PostgreSQL's timestamp without time zone."""
    text = raw.decode()
    if text[_DATE_CHARS : _DATE_CHARS + 1] == " " and text[-1] != "C":
        return f"{text[:_DATE_CHARS]}T{text[_DATE_CHARS + 1 :]}"
    return _unusual(text, "")


def read_timestamptz(raw: bytes) -> str:
    """Return ISO 8601, in UTC, of PostgreSQL's timestamp with time zone."""
    text = raw.decode()
    if text[_DATE_CHARS : _DATE_CHARS + 1] == " " and text[-3:] == "+00":
        return f"{text[:_DATE_CHARS]}T{text[_DATE_CHARS + 1 : -3]}Z"
    return _unusual(text, "Z")


def read_timetz(raw: bytes) -> str:
    """Return the time with an offset that has minutes."""
    text = raw.decode()
    sign = max(text.rfind("+"), text.rfind("-"))
    return text if ":" in text[sign:] else f"{text}:00"


def _unusual(text: str, zone: str) -> str:
    """Return ISO 8601 of what lies before year 1, after 9999, or at infinity."""
    if text in _INFINITIES:
        return text
    before_christ = text.endswith(_BC)
    year, dash, rest = text.removesuffix(_BC).partition("-")
    day, space, time = rest.partition(" ")
    if zone:
        time = time.removesuffix("+00") + zone
    if before_christ:
        year = f"-{int(year) - 1:04d}" if int(year) > 1 else "0000"
    elif len(year) > _YEAR_DIGITS:
        year = f"+{year}"
    return f"{year}{dash}{day}{'T' if space else ''}{time}"


def write_date(value: str) -> str:
    """Return PostgreSQL's input form of a neutral date or timestamp."""
    first = value[0]
    if (first.isdigit() and not value.startswith("0000")) or value in _INFINITIES:
        return value
    if first == "+":
        return value[1:]
    year, dash, rest = value.removeprefix("-").partition("-")
    return f"{int(year) + 1:04d}{dash}{rest}{_BC}"


def is_plain(values: Sequence[str]) -> bool:
    """Return whether these dates and timestamps, one at least, all lie in years 1 to 9999, where both forms are one."""
    return min(values) >= "0001" and max(values) < ":"


def array_reader(element: Callable[[bytes], Value], delimiter: str) -> Callable[[bytes], tuple[Value, ...]]:
    """Return a reader of arrays in text form (PostgreSQL manual, 8.15.6), nested tuples with None for NULL."""
    mark = re.escape(delimiter)
    token = re.compile(rf'([{{}}])|"((?:[^"\\]|\\.)*)"|([^{{}}"{mark}]+)|{mark}', re.DOTALL)

    def read(raw: bytes) -> tuple[Value, ...]:
        text = raw.decode()
        if text[0] != "[":
            return _nested(token.finditer(text), element)
        dimensions, _, body = text.partition("=")
        bounds = tuple(int(bound) for bound in re.findall(r"\[(-?\d+):", dimensions))
        return BoundedArray.of(_nested(token.finditer(body), element), bounds)

    return read


_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def _nested(tokens: Iterator[re.Match[str]], element: Callable[[bytes], Value]) -> tuple[Value, ...]:
    levels: list[list[Value]] = [[]]
    for match in tokens:
        brace, quoted, plain = match.groups()
        if quoted is not None:
            levels[-1].append(element(_ESCAPE.sub(r"\1", quoted).encode()))
        elif plain is not None:
            levels[-1].append(None if plain == "NULL" else element(plain.encode()))
        elif brace == "{":
            levels.append([])
        elif brace == "}":
            done = tuple(levels.pop())
            levels[-1].append(done)
    array: tuple[Value, ...] = levels[0][0]
    return array


def array_writer(element: Callable[[Value], str], delimiter: str) -> Callable[[tuple[Value, ...]], str]:
    """Return a writer of arrays in text form."""

    def braced(values: tuple[Value, ...]) -> str:
        return "{" + delimiter.join(map(one, values)) + "}"

    def one(value: Value) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, tuple):
            return braced(value)
        text = element(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'

    def write(values: tuple[Value, ...]) -> str:
        if not isinstance(values, BoundedArray):
            return braced(values)
        level: Value = values
        head = ""
        for bound in values.bounds:
            head += f"[{bound}:{bound + len(level) - 1}]"
            level = level[0]
        return f"{head}={braced(values)}"

    return write
