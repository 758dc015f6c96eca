"""Rows of a SELECT as neutral values, equal to the byte to those that the log gives for the same table version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.temporal import Dates, ZeroDate, moment_parser, no_calendar, trimmed
from cdcsync.mysql.values import bit_reader, ewkb, shortest
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Column, Row, Table, Value
    from cdcsync.errors import Fatal
    from cdcsync.types import Type

    Parser = Callable[[Any], Value]


def expressions(table: Table) -> list[str]:
    """Return what to select for each column, in order, in a session in UTC and utf8mb4 (`connection.SESSION`).

    A FLOAT as text has but six digits, so it is asked for as a DOUBLE. All else is the column itself.
    """
    return [_expression(column) for column in table.columns]


def _expression(column: Column) -> str:
    name = f"`{column.name.replace('`', '``')}`"
    if column.type.kind is Kind.FLOAT and column.type.bits == 32:  # noqa: PLR2004  IEEE single
        return f"{name} * 1e0"
    return name


class SelectedRows:
    """Turns the answers of such a SELECT into rows of the table."""

    def __init__(self, table: Table, zero_dates: ZeroDates = ZeroDates.STOP) -> None:
        dates = Dates(zero_dates)
        self._table = table
        self.parsers = [_parser(column.type, dates) for column in table.columns]
        """By column, what turns an answer, not None, into the value; None when that is the value."""

    def row(self, answer: Sequence[Any]) -> Row:
        """Return the row of an answer: text, or bytes where a value has no character set, or int for integers.

        Raises Fatal, as the log's decoder does, where the pipeline is to stop at a date that no calendar has.
        """
        try:
            return tuple(
                [
                    value if value is None or parse is None else parse(value)
                    for value, parse in zip(answer, self.parsers, strict=True)
                ]
            )
        except ZeroDate:
            raise self._stopped(answer) from None

    def _stopped(self, answer: Sequence[Any]) -> Fatal:
        """Return the verdict on the first such date of a row."""
        name = ""
        for value, parse, column in zip(answer, self.parsers, self._table.columns, strict=True):
            try:
                if value is not None and parse is not None:
                    parse(value)
            except ZeroDate:
                name = column.name
                break
        return no_calendar(f"{self._table.qualified}, column {name}")


def _parser(kind: Type, dates: Dates) -> Parser | None:
    """Return what turns an answer, not None, into the value; None when that is the value."""
    if kind.kind is Kind.INTEGER:
        return int
    if kind.kind is Kind.FLOAT:
        return _single if kind.bits == 32 else float  # noqa: PLR2004  IEEE single
    if kind.kind is Kind.BIT:
        return bit_reader(kind.length or 1)
    if kind.kind is Kind.DATE:
        return dates.checked
    if kind.kind is Kind.TIME:
        return trimmed
    if kind.kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        return moment_parser(dates, "Z" if kind.kind is Kind.TIMESTAMPTZ else "")
    return _PARSERS.get(kind.kind)


def _single(text: str) -> float:
    return shortest(float(text))


def _decimal(text: str) -> str:
    """Return a decimal without the zeros that ZEROFILL puts before it."""
    if text[0] != "0":
        return text
    found = text.lstrip("0")
    return found if found[:1].isdigit() else f"0{found}"


def _label(text: str | bytes) -> str:
    """Return a label; those of a binary character set come as bytes."""
    return text if isinstance(text, str) else text.decode()


def _labels(text: str | bytes) -> tuple[str, ...]:
    return tuple(_label(text).split(",")) if text else ()


_PARSERS: Final[Mapping[Kind, Parser]] = {
    Kind.DECIMAL: _decimal,
    Kind.ENUM: _label,
    Kind.SET: _labels,
    Kind.GEOMETRY: ewkb,
}
