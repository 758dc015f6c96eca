"""When two values are the same: equal, or equal in every form that both ends can hold."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING

from cdcsync.lines import encode_row
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cdcsync.change import Row, Table, Value
    from cdcsync.types import Type


def differing(table: Table, row: Row, other: Row, by_value: Collection[str] = ()) -> list[str]:
    """Return the names of the columns whose values differ.

    JSON is compared to the byte, except in the columns `by_value`, whose target keeps no text (jsonb).
    """
    return [
        column.name
        for column, value, held in zip(table.columns, row, other, strict=True)
        if not (
            value is held
            or value == held
            or _same(column.type, value, held)
            or (column.name in by_value and value is not None and held is not None and _json(value) == _json(held))
        )
    ]


def digest(table: Table, row: Row, by_value: Collection[str] = ()) -> bytes:
    """Return one hash for all rows that do not differ."""
    plain = tuple(
        _plain(column.type, value, by_value=column.name in by_value)
        for column, value in zip(table.columns, row, strict=True)
    )
    return hashlib.blake2b(encode_row(table, plain), digest_size=16).digest()


def _same(kind: Type, value: Value, held: Value) -> bool:
    """Return whether two values that are not equal mean the same."""
    if value is None or held is None:
        return False
    if kind.kind is Kind.FLOAT:
        return bool(value != value and held != held)  # noqa: PLR0124  NaN alone is not itself
    if kind.kind is Kind.DECIMAL:
        return kind.scale is not None and Decimal(value) == Decimal(held)
    if kind.kind is Kind.TEXT and kind.fixed:
        return bool(value.rstrip(" ") == held.rstrip(" "))
    if kind.kind is Kind.ARRAY and kind.element is not None:
        return _same_array(kind.element, value, held)
    return False


def _same_array(element: Type, values: Sequence[Value], held: Sequence[Value]) -> bool:
    if len(values) != len(held) or getattr(values, "bounds", None) != getattr(held, "bounds", None):
        return False
    for value, other in zip(values, held, strict=True):
        if isinstance(value, tuple) and isinstance(other, tuple):
            if not _same_array(element, value, other):
                return False
        elif value != other and not _same(element, value, other):
            return False
    return True


def _plain(kind: Type, value: Value, *, by_value: bool = False) -> Value:
    """Return one form of values that mean the same."""
    if value is None:
        return None
    if by_value:
        return json.dumps(json.loads(value, parse_float=_plain_number, parse_int=_plain_number), sort_keys=True)
    if kind.kind is Kind.TEXT and kind.fixed:
        return value.rstrip(" ")
    if kind.kind is Kind.FLOAT:
        return value + 0.0
    if kind.kind is Kind.DECIMAL and kind.scale is not None:
        return _plain_number(value)
    if kind.kind is Kind.ARRAY and kind.element is not None and type(value) is tuple:
        element = kind.element
        return tuple(_plain(kind if isinstance(each, tuple) else element, each) for each in value)
    return value


def _plain_number(text: str) -> str:
    number = Decimal(text)
    return f"{number.normalize():f}" if number.is_finite() and number else ("0" if number == 0 else text)


def _json(text: str) -> object:
    return json.loads(text, parse_float=Decimal)
