"""Neutral types as SQLite columns, and values both ways, exactly.

SQLite has five storage classes and converts by a column's affinity, so a kind is declared by the affinity that keeps
its values as they are. Integers are INTEGER; an unsigned one of 64 bits does not fit and is TEXT. Booleans are INTEGER
0 and 1. Floats are REAL, with two values that REAL cannot hold kept beside it: NaN as the text 'NaN' (SQLite would
store NULL) and negative zero as the blob '-0.0' (SQLite drops the sign). Bytes and geometry are BLOB. All else is TEXT:
decimals with every digit, dates and times in ISO 8601, JSON as it came, arrays and sets as JSON (`cdcsync.lines`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Column, Table
from cdcsync.lines import decode_row, encode_row
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Value
    from cdcsync.sql import ColumnThere

NEGATIVE_ZERO: Final = b"-0.0"
INTEGER_BITS: Final = 64

_DECLARED: Final = {
    Kind.BOOLEAN: "INTEGER",
    Kind.INTEGER: "INTEGER",
    Kind.FLOAT: "REAL",
    Kind.BYTES: "BLOB",
    Kind.GEOMETRY: "BLOB",
}

_TAKEN: Final = {
    "INTEGER": {"INTEGER", "NUMERIC", "BLOB"},
    "REAL": {"REAL", "BLOB"},
    "TEXT": {"TEXT", "BLOB"},
    "BLOB": {"INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB"},
}
"""Affinities that leave a value alone, by how we declare it."""


def declare(kind: Type) -> str:
    """Return the column type for a kind."""
    if kind.kind is Kind.INTEGER and kind.unsigned and kind.bits >= INTEGER_BITS:
        return "TEXT"
    return _DECLARED.get(kind.kind, "TEXT")


def affinity(declared: str) -> str:
    """Return the affinity of a declared type (sqlite.org/datatype3.html, 3.1)."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if "CHAR" in name or "CLOB" in name or "TEXT" in name:
        return "TEXT"
    if "BLOB" in name or not name or name == "ANY":
        return "BLOB"
    if "REAL" in name or "FLOA" in name or "DOUB" in name:
        return "REAL"
    return "NUMERIC"


def fits(kind: Type, there: ColumnThere) -> str | None:
    """Return why a column cannot hold the values of a kind exactly."""
    wanted = declare(kind)
    if affinity(there.declared) in _TAKEN[wanted]:
        return None
    return f"declared {there.declared}, which changes values of type {kind.kind}; {wanted} keeps them"


def encoder(kind: Type) -> Callable[[Value], Any] | None:
    """Return the function from a value that is not None to what is bound; None when that is the value itself."""
    if kind.kind is Kind.FLOAT:
        return _from_float
    if declare(kind) == "TEXT" and kind.kind is Kind.INTEGER:
        return str
    if kind.kind in {Kind.ARRAY, Kind.SET}:
        table = Table("", "", (Column("v", kind),))
        return lambda value: encode_row(table, (value,)).decode()[len('{"v":') : -1]
    return None


def decoder(kind: Type) -> Callable[[Any], Value] | None:
    """Return the function from what SQLite gives, not None, back to the value; None when that is the value."""
    if kind.kind is Kind.BOOLEAN:
        return bool
    if kind.kind is Kind.FLOAT:
        return _to_float
    if declare(kind) == "TEXT" and kind.kind is Kind.INTEGER:
        return int
    if kind.kind in {Kind.ARRAY, Kind.SET}:
        table = Table("", "", (Column("v", kind),))
        return lambda text: decode_row(table, '{"v":' + text + "}")[0]
    return None


def _from_float(value: float) -> float | str | bytes:
    if value != value:  # noqa: PLR0124  NaN
        return "NaN"
    if value == 0.0 and math.copysign(1.0, value) < 0:
        return NEGATIVE_ZERO
    return value


def _to_float(value: float | str | bytes) -> float:
    return float(value.decode() if isinstance(value, bytes) else value)
