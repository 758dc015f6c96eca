"""Casts at run time: the value of one kind from that of another, or Failure."""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cdcsync.mapping.expressions import json_text, moments
from cdcsync.mapping.failures import Failure
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.types import Type

EXACT: Final = Context(prec=4000, Emax=9999, Emin=-9999, rounding=ROUND_HALF_UP)
"""Wide enough that sums and products of what a database holds are exact."""
INTEGER_MAX: Final = (1 << 63) - 1
TRUE: Final = frozenset({"t", "true", "y", "yes", "on", "1"})
FALSE: Final = frozenset({"f", "false", "n", "no", "off", "0"})
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER: Final = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*", re.ASCII)
_SPECIAL: Final = {
    "nan": "NaN",
    "infinity": "Infinity",
    "inf": "Infinity",
    "-infinity": "-Infinity",
    "-inf": "-Infinity",
}
_UUID: Final = re.compile(r"(\{)?([0-9a-fA-F]{4}(?:-?[0-9a-fA-F]{4}){7})(?(1)\})", re.ASCII)
"""The forms that PostgreSQL takes: in braces or not, a hyphen after any four digits or none."""


def plain(value: Decimal) -> str:
    """Return a decimal's canonical text."""
    text = str(value)
    if "E" in text:
        text = f"{value:f}"
    return text[1:] if text[0] == "-" and not value else text


def to_integer(value: Any) -> int:
    """Return the nearest integer; halves of a decimal go away from zero, halves of a float to the even."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Failure("not a number that an integer holds")
        return round(value)
    if not value.is_finite():
        raise Failure("not a number that an integer holds")
    return int(value.to_integral_value(ROUND_HALF_UP))


def integer_of_text(text: str) -> int:
    """Return the integer that a text is."""
    if len(text) > 100 or _INTEGER.fullmatch(text) is None:  # noqa: PLR2004  no integer is longer
        raise Failure("the text is no integer")
    return int(text)


def decimal_of_text(text: str) -> Decimal:
    """Return the decimal that a text is."""
    if _NUMBER.fullmatch(text) is not None:
        value = Decimal(text.strip())
        return EXACT.create_decimal(f"{value:f}") if "e" in text or "E" in text else value
    special = _SPECIAL.get(text.strip().lower())
    if special is None:
        raise Failure("the text is no number")
    return Decimal(special)


def float_of_text(text: str) -> float:
    """Return the float that a text is."""
    if _NUMBER.fullmatch(text) is None and text.strip().lower() not in _SPECIAL:
        raise Failure("the text is no number")
    value = float(text)
    if math.isinf(value) and "inf" not in text.lower():
        raise Failure("the number is out of range")
    return value


def decimal_of_float(value: float) -> Decimal:
    """Return the decimal with the float's shortest text."""
    return (
        Decimal(_SPECIAL.get(str(value), repr(value)))
        if not math.isfinite(value)
        else Decimal(f"{Decimal(repr(value)):f}")
    )


def text_of_float(value: float) -> str:
    """Return PostgreSQL's text of a float: the shortest that reads back, no fraction where it is whole."""
    if not math.isfinite(value):
        return _SPECIAL.get(str(value), "NaN")
    text = repr(value)
    text = text.removesuffix(".0")
    if "e" not in text and abs(value) >= 1e15:  # noqa: PLR2004  PostgreSQL writes an exponent from here on
        digits = text.rstrip("0") if "." not in text else text
        sign, digits = ("-", digits[1:]) if digits[0] == "-" else ("", digits)
        exponent = len(text.lstrip("-")) - 1
        return f"{sign}{digits[0]}{'.' + digits[1:] if len(digits) > 1 else ''}e+{exponent:02d}"
    return text


def boolean_of_text(text: str) -> bool:
    """Return the boolean that a text is."""
    word = text.strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise Failure("the text is neither true nor false")


def uuid_of_text(text: str) -> str:
    """Return the canonical text of a UUID."""
    found = _UUID.fullmatch(text)
    if found is None:
        raise Failure("the text is no UUID")
    digits = found[2].replace("-", "").lower()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def json_of_text(text: str) -> str:
    """Return the text, proved to be JSON."""
    json_text.loads(text)
    return text


def utf8(value: bytes) -> str:
    """Return the text that bytes are."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Failure("the bytes are no UTF-8") from error


def _fits_decimal(wanted: Type) -> Callable[[Decimal], Decimal]:
    """Return what rounds to a declared scale, halves away from zero, and fails past the precision."""
    if wanted.precision is None:
        return lambda value: value
    scale = wanted.scale or 0
    step = Decimal(1).scaleb(-scale)
    limit = Decimal(10) ** (wanted.precision - scale)

    def fitted(value: Decimal) -> Decimal:
        if not value.is_finite():
            if value.is_nan():
                return value
            raise Failure("the number is out of range")
        made = value.quantize(step, ROUND_HALF_UP, EXACT)
        if abs(made) >= limit:
            raise Failure("the number is out of range")
        return made

    return fitted


def _fits_integer(wanted: Type) -> Callable[[int], int]:
    low, high = (
        (0, (1 << wanted.bits) - 1) if wanted.unsigned else (-(1 << wanted.bits - 1), (1 << wanted.bits - 1) - 1)
    )

    def fitted(value: int) -> int:
        if low <= value <= high:
            return value
        raise Failure("the number is out of range")

    return fitted


def _fits_text(wanted: Type) -> Callable[[str], str]:
    length = wanted.length
    if length is None:
        return lambda value: value
    return lambda value: value[:length]


def _fits_float(wanted: Type) -> Callable[[float], float]:
    if wanted.bits != 32:  # noqa: PLR2004  the narrow float
        return lambda value: value
    import struct  # noqa: PLC0415  few expressions cast to it

    narrow = struct.Struct("<f")

    def fitted(value: float) -> float:
        try:
            made: float = narrow.unpack(narrow.pack(value))[0]
        except OverflowError as error:
            raise Failure("the number is out of range") from error
        return made

    return fitted


def _fitting(wanted: Type) -> Callable[[Any], Any]:
    """Return what makes a value of the right kind fit the declared limits."""
    makers: dict[Kind, Callable[[Type], Callable[[Any], Any]]] = {
        Kind.DECIMAL: _fits_decimal,
        Kind.INTEGER: _fits_integer,
        Kind.TEXT: _fits_text,
        Kind.FLOAT: _fits_float,
    }
    make = makers.get(wanted.kind)
    return make(wanted) if make else lambda value: value


CASTS: Final[dict[tuple[Kind, Kind], Callable[[Any], Any]]] = {
    (Kind.INTEGER, Kind.DECIMAL): Decimal,
    (Kind.INTEGER, Kind.FLOAT): float,
    (Kind.INTEGER, Kind.TEXT): str,
    (Kind.INTEGER, Kind.BOOLEAN): bool,
    (Kind.DECIMAL, Kind.INTEGER): to_integer,
    (Kind.DECIMAL, Kind.FLOAT): float,
    (Kind.DECIMAL, Kind.TEXT): plain,
    (Kind.FLOAT, Kind.INTEGER): to_integer,
    (Kind.FLOAT, Kind.DECIMAL): decimal_of_float,
    (Kind.FLOAT, Kind.TEXT): text_of_float,
    (Kind.BOOLEAN, Kind.INTEGER): int,
    (Kind.BOOLEAN, Kind.TEXT): lambda value: "true" if value else "false",
    (Kind.TEXT, Kind.INTEGER): integer_of_text,
    (Kind.TEXT, Kind.DECIMAL): decimal_of_text,
    (Kind.TEXT, Kind.FLOAT): float_of_text,
    (Kind.TEXT, Kind.BOOLEAN): boolean_of_text,
    (Kind.TEXT, Kind.UUID): uuid_of_text,
    (Kind.TEXT, Kind.JSON): json_of_text,
    (Kind.TEXT, Kind.BYTES): str.encode,
    (Kind.TEXT, Kind.DATE): moments.date_of_text,
    (Kind.TEXT, Kind.TIME): moments.time_of_text,
    (Kind.TEXT, Kind.TIMESTAMP): moments.timestamp_of_text,
    (Kind.TEXT, Kind.TIMESTAMPTZ): moments.timestamptz_of_text,
    (Kind.TEXT, Kind.INTERVAL): moments.interval_of_text,
    (Kind.TEXT, Kind.ENUM): str,
    (Kind.DATE, Kind.TIMESTAMP): moments.midnight,
    (Kind.DATE, Kind.TIMESTAMPTZ): lambda value: moments.zoned(moments.midnight(value)),
    (Kind.DATE, Kind.TEXT): str,
    (Kind.TIME, Kind.TEXT): str,
    (Kind.TIMETZ, Kind.TEXT): str,
    (Kind.TIMESTAMP, Kind.DATE): moments.day,
    (Kind.TIMESTAMP, Kind.TIME): moments.clock,
    (Kind.TIMESTAMP, Kind.TIMESTAMPTZ): moments.zoned,
    (Kind.TIMESTAMP, Kind.TEXT): moments.spaced,
    (Kind.TIMESTAMPTZ, Kind.DATE): moments.day,
    (Kind.TIMESTAMPTZ, Kind.TIME): moments.clock,
    (Kind.TIMESTAMPTZ, Kind.TIMESTAMP): moments.unzoned,
    (Kind.TIMESTAMPTZ, Kind.TEXT): lambda value: moments.spaced(moments.unzoned(value)) + "+00",
    (Kind.INTERVAL, Kind.TEXT): moments.iso_interval,
    (Kind.UUID, Kind.TEXT): str,
    (Kind.ENUM, Kind.TEXT): str,
    (Kind.OPAQUE, Kind.TEXT): str,
    (Kind.BIT, Kind.TEXT): str,
    (Kind.JSON, Kind.TEXT): str,
    (Kind.JSON, Kind.INTEGER): lambda value: to_integer(json_text.number(value)),
    (Kind.JSON, Kind.DECIMAL): json_text.number,
    (Kind.JSON, Kind.FLOAT): lambda value: float(json_text.number(value)),
    (Kind.JSON, Kind.BOOLEAN): json_text.boolean,
    (Kind.BYTES, Kind.TEXT): utf8,
    (Kind.SET, Kind.ARRAY): tuple,
    (Kind.ARRAY, Kind.JSON): json_text.dumps,
}
"""Every cast between two kinds; `None` below stands for one that does nothing."""


@lru_cache(maxsize=1024)
def cast(given: Type, wanted: Type) -> Callable[[Any], Any] | None:
    """Return the cast; None when there is none of these types."""
    fit = _fitting(wanted)
    if given.kind is wanted.kind:
        if given.kind is Kind.ARRAY and given.element is not None and wanted.element is not None:
            inner = cast(given.element, wanted.element)
            return None if inner is None else _each(inner)
        return fit
    change = CASTS.get((given.kind, wanted.kind))
    if change is None:
        return None
    if wanted.kind in (Kind.DECIMAL, Kind.INTEGER, Kind.TEXT, Kind.FLOAT):
        return lambda value: fit(change(value))
    return change


def _each(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def every(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            None if value is None else every(value) if isinstance(value, tuple) else inner(value) for value in values
        )

    return every
