"""Columns of a target as neutral values, equal to the byte to what was written: what it came as decides, and what it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Column, Table
from cdcsync.lines import decode_row
from cdcsync.mysql.temporal import trimmed
from cdcsync.mysql.values import bit_reader, ewkb, shortest
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row
    from cdcsync.mysql.target import TargetColumn


def expression(name: str, column: TargetColumn) -> str:
    """Return what to select for a column of that quoted name: a FLOAT as text has but six digits."""
    return f"{name}*1e0" if column.data_type == "float" else name


def reader(kind: Type, column: TargetColumn) -> Callable[[Any], Any] | None:
    """Return what turns the server's answer, not None, into the value; None when that is the value."""
    if kind.kind is Kind.FLOAT:
        return _single if column.data_type == "float" else float
    if kind.kind in {Kind.ARRAY, Kind.SET} and column.data_type != "set":
        table = Table("", "", (Column("v", kind),))
        return lambda text: decode_row(table, '{"v":' + text + "}")[0]
    if kind.kind is Kind.BIT and column.data_type == "bit":
        return bit_reader(kind.length or 1)
    if kind.kind is Kind.TEXT and kind.fixed and column.data_type == "char" and kind.system != "mysql":
        width = kind.length or 1
        return lambda text: text.ljust(width)
    if kind.kind is Kind.INTEGER and not column.is_text:
        return int
    if column.is_text and kind.kind not in {Kind.BOOLEAN, Kind.INTEGER}:
        return None
    return _READERS.get(kind.kind)


def row_reader(table: Table, columns: Sequence[TargetColumn]) -> Callable[[Sequence[Any]], Row]:
    """Return what turns the answer of all columns in order into the row."""
    readers = [reader(column.type, there) for column, there in zip(table.columns, columns, strict=True)]

    def read(answer: Sequence[Any]) -> Row:
        return tuple(
            [
                value if value is None or each is None else each(value)
                for value, each in zip(answer, readers, strict=True)
            ]
        )

    return read


def _single(text: str) -> float:
    return shortest(float(text))


def _moment(text: str) -> str:
    return trimmed(text.replace(" ", "T", 1))


def _moment_utc(text: str) -> str:
    return f"{_moment(text)}Z"


def _labels(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


_READERS: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.BOOLEAN: lambda value: bool(int(value)),
    Kind.INTEGER: int,
    Kind.TIME: trimmed,
    Kind.TIMESTAMP: _moment,
    Kind.TIMESTAMPTZ: _moment_utc,
    Kind.SET: _labels,
    Kind.GEOMETRY: ewkb,
}
