"""The neutral set of column types in which all systems meet, and the values that go with them.

A value is None (SQL NULL), `change.UNCHANGED`, or the Python form that its kind names below. Kinds whose values
are text carry the exact canonical text, so that no digit, fraction or unusual date is lost between two systems;
a mapping's expression parses what it computes with.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """What a column holds, with the Python form of its values."""

    BOOLEAN = "boolean"
    """bool"""
    INTEGER = "integer"
    """int; `bits` 8, 16, 24, 32 or 64, `unsigned`"""
    FLOAT = "float"
    """float, NaN and infinities included; `bits` 32 or 64"""
    DECIMAL = "decimal"
    """str in plain notation, scale kept: "-1.50"; "NaN", "Infinity", "-Infinity"; `precision`, `scale`"""
    TEXT = "text"
    """str; `length` in characters, `fixed` when blank-padded"""
    BYTES = "bytes"
    """bytes; `length` in bytes"""
    DATE = "date"
    """str, ISO 8601: "2026-11-23"; BC in astronomical years "-0043-03-15"; beyond 9999 "+12345-01-01";
    "infinity", "-infinity" """
    TIME = "time"
    """str: "23:59:59.5"; `precision` is the digits of the fraction"""
    TIMETZ = "timetz"
    """str: "23:59:59.5+02:00" """
    TIMESTAMP = "timestamp"
    """str without zone: "2026-11-23T10:00:00.5"; years and infinities as for date"""
    TIMESTAMPTZ = "timestamptz"
    """str in UTC: "2026-11-23T10:00:00.5Z"; years and infinities as for date"""
    INTERVAL = "interval"
    """str, ISO 8601 duration: "P1Y2M3DT4H5M6.7S" """
    UUID = "uuid"
    """str, lower case with hyphens"""
    JSON = "json"
    """str: the JSON text, to the byte as the source gave it"""
    BIT = "bit"
    """str of "0" and "1"; `length` in bits, `fixed` unless varying"""
    ENUM = "enum"
    """str: the label; `labels` in order"""
    SET = "set"
    """tuple of str: the labels that are set"""
    ARRAY = "array"
    """tuple of values of `element`, nested for more dimensions, None for NULL elements; a `BoundedArray`
    where its lower bounds are not all 1"""
    GEOMETRY = "geometry"
    """bytes: EWKB, with its SRID"""
    OPAQUE = "opaque"
    """str: the source's own text of a type that has no neutral form (range, composite, hstore, inet, money,
    tsvector, point, or one nobody knows); `name` says which"""


@dataclass(frozen=True, slots=True)
class Type:
    """One column's type: a kind and what limits it."""

    kind: Kind
    bits: int = 0
    """Width of an integer or a float."""
    unsigned: bool = False
    length: int | None = None
    """Characters, bytes or bits; None when unlimited."""
    fixed: bool = False
    """Padded to `length`, as CHAR(n) and BIT(n) are."""
    precision: int | None = None
    scale: int | None = None
    element: Type | None = None
    """An array's element type, without its dimensions."""
    labels: tuple[str, ...] = ()
    """An enum's or a set's labels in order; a hint from the catalogue."""
    name: str = ""
    """The type's own name at its source, qualified where it is not built in: "inet", "shop.mood"."""
    system: str = field(default="", compare=False)
    """The system whose name that is ("postgres"); a sink of the same system declares the type by it."""


class BoundedArray(tuple[Any, ...]):  # noqa: SLOT001  a tuple cannot have slots of its own
    """An array whose lower bounds are not all 1; a plain tuple of the same values is another value."""

    bounds: tuple[int, ...] = ()
    """Lower bound of each dimension."""

    @classmethod
    def of(cls, values: tuple[Any, ...], bounds: tuple[int, ...]) -> BoundedArray:
        """Return the array of these values."""
        array = cls(values)
        array.bounds = bounds
        return array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundedArray) and self.bounds == other.bounds and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        """Return the values' hash."""
        return tuple.__hash__(self)

    def __repr__(self) -> str:
        return f"BoundedArray.of({super().__repr__()}, {self.bounds})"
