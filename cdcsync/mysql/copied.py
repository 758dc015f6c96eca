"""Decodes the answer to a SELECT, out of what the socket gives, into rows that were read.

Manual, "COM_QUERY Response", "Text Resultset". The hot path of a copy: plain Python here, C types in `copied.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pymysql.constants import CR, FIELD_TYPE

from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.errors import said
from cdcsync.mysql.select import SelectedRows
from cdcsync.mysql.temporal import KEPT_MAX, Dates, ZeroDate, no_calendar
from cdcsync.types import Kind

if TYPE_CHECKING:
    from cdcsync.change import Table
    from cdcsync.types import Type

OTHER, TEXT, INTEGER, DECIMAL, MOMENT, DATE = range(6)
"""Codes that the loop has as literals; OTHER is decoded, and parsed by the column's own function."""
_BINARY: Final = 63
"""The character set of bytes."""
_STRINGS: Final = frozenset(
    {
        FIELD_TYPE.VARCHAR, FIELD_TYPE.BIT, FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB,
        FIELD_TYPE.BLOB, FIELD_TYPE.VAR_STRING, FIELD_TYPE.STRING, FIELD_TYPE.GEOMETRY,
    }
)  # fmt: skip
"""Types whose values are bytes where their character set is that of bytes; all others are text."""
_CODES: Final = {
    Kind.INTEGER: INTEGER,
    Kind.DECIMAL: DECIMAL,
    Kind.TIMESTAMP: MOMENT,
    Kind.TIMESTAMPTZ: MOMENT,
    Kind.DATE: DATE,
}
_FIELD_NAMES: Final = 6
"""Texts before a column's fixed fields: catalogue, schema, table and column, each twice but the first."""


class Answers:
    """The rows of one SELECT of a table's `expressions`: the same values as `SelectedRows` gives."""

    def __init__(self, table: Table, zero_dates: ZeroDates = ZeroDates.STOP) -> None:
        self._table = table
        self._size = len(table.columns)
        self._parsers = SelectedRows(table, zero_dates).parsers
        self._dates = Dates(zero_dates)
        self._days: dict[bytes, str | None] = {}
        """Texts of dates, as columns have few days."""
        self._zones = ["Z" if column.type.kind is Kind.TIMESTAMPTZ else "" for column in table.columns]
        self._codes = b""
        self._is_text = b""
        """By column, whether an OTHER is text."""
        self._fields: list[tuple[int, int]] = []
        """Of the columns described so far: type and character set."""
        self._state = 0
        """0: the head comes next; 1: descriptions; 2: rows; 3: the end was there."""
        self._chunks: list[bytes] = []
        """What is not decoded yet."""
        self._have = 0
        self._wanted = 4
        """Bytes that the next packet takes, as far as that is known."""
        self._parts: list[bytes] = []
        """Of a row in several packets, those that are here."""
        self._column = 0
        """Of the value being read, where it may be a date that no calendar has."""

    def take(self, data: bytes, rows: list[Any]) -> bool:
        """Append the rows that are whole with what the socket gave next; return whether the last was among them.

        Raises MysqlError where the server says so, Fatal at a date as `SelectedRows` does.
        """
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._wanted:
            return False
        if len(self._chunks) > 1:
            data = b"".join(self._chunks)
        try:
            at = self._packets(data, rows)
        except ZeroDate:
            name = self._table.columns[self._column].name
            where = f"{self._table.qualified}, column {name}"
            raise no_calendar(where) from None
        self._chunks = [data[at:]]
        self._have = len(data) - at
        return self._state == 3  # noqa: PLR2004

    def _packets(self, data: bytes, rows: list[Any]) -> int:
        """Read all packets that are whole; return where the rest begins."""
        at = 0
        have = len(data)
        self._wanted = 4
        while have - at >= 4:  # noqa: PLR2004  a packet's head
            size = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            end = at + 4 + size
            if end > have:
                self._wanted = size + 4
                break
            first = at + 4
            at = end
            if size == 0xFFFFFF or self._parts:  # noqa: PLR2004  continued by the next
                self._parts.append(data[first:end])
                if size == 0xFFFFFF:  # noqa: PLR2004
                    continue
                joined = b"".join(self._parts)
                self._parts = []
                rows.append(self._row(joined, 0, len(joined)))
            elif (self._state == 2 and data[first] < 0xFE) or not self._other(data[first:end]):  # noqa: PLR2004  a row, mostly
                rows.append(self._row(data, first, end))
        return at

    def _row(self, data: bytes, at: int, end: int) -> Any:
        """Return a row: each value after its length (manual, "Length-Encoded Integers"), 0xFB for NULL."""
        codes = self._codes
        row: list[Any] = [None] * self._size
        count = self._size
        index = 0
        while at < end and index < count:
            size = data[at]
            at += 1
            if size >= 0xFB:  # noqa: PLR2004
                if size == 0xFB:  # noqa: PLR2004
                    index += 1
                    continue
                width = 2 if size == 0xFC else 3 if size == 0xFD else 8  # noqa: PLR2004
                size = _length(data, at, width)
                at += width
            start = at
            at += size
            if at > end:
                break
            code = codes[index]
            if code == 1:
                row[index] = data[start:at].decode("utf-8")
            elif code == 2:  # noqa: PLR2004
                row[index] = _integer(data, start, at)
            elif code == 3 and data[start] != 48:  # noqa: PLR2004  no zero before it
                row[index] = data[start:at].decode("utf-8")
            elif code == 4:  # noqa: PLR2004
                row[index] = self._moment(data, start, at, index)
            else:
                row[index] = self._parsed(data[start:at], index)
            index += 1
        if at != end or index != count:
            raise said(CR.CR_MALFORMED_PACKET, "a row has another number of values than the table has columns")
        return tuple(row)

    def _moment(self, data: bytes, start: int, end: int, index: int) -> Any:
        """Return a DATETIME or a TIMESTAMP without zeros at its end."""
        day = self._day(data[start : start + 10], index)
        if day is None:
            return None
        if end - start > 19:  # noqa: PLR2004  there is a fraction
            while data[end - 1] == 48:  # noqa: PLR2004
                end -= 1
            if data[end - 1] == 46:  # noqa: PLR2004
                end -= 1
        return day + "T" + data[start + 11 : end].decode("utf-8") + self._zones[index]

    def _day(self, text: bytes, index: int) -> Any:
        """Return a date, None where it becomes NULL. Raises ZeroDate."""
        days = self._days
        if text in days:
            return days[text]
        self._column = index
        found = self._dates.checked(text.decode())
        if len(days) >= KEPT_MAX:
            days.clear()
        days[text] = found
        return found

    def _parsed(self, raw: bytes, index: int) -> Any:
        if self._codes[index] == 5:  # noqa: PLR2004
            return self._day(raw, index)
        value: Any = raw.decode("utf-8") if self._is_text[index] else raw
        parse = self._parsers[index]
        return value if parse is None else parse(value)

    def _other(self, packet: bytes) -> bool:
        """Take a packet that is no row; return False when it is one after all."""
        if packet[:1] == b"\xff":
            words = packet[9:] if packet[3:4] == b"#" else packet[3:]
            raise said(int.from_bytes(packet[1:3], "little"), words.decode(errors="replace"))
        is_end = packet[:1] == b"\xfe" and len(packet) < 9  # noqa: PLR2004  else a value's length
        if self._state == 0:
            self._state = 1
        elif self._state == 1 and is_end:
            self._describe()
            self._state = 2
        elif self._state == 1:
            self._fields.append(_field(packet))
        elif is_end:
            self._state = 3
        else:
            return False
        return True

    def _describe(self) -> None:
        """Settle how each column is read."""
        if len(self._fields) != self._size:
            raise said(CR.CR_MALFORMED_PACKET, "an answer has another number of columns than was asked for")
        columns = zip(self._table.columns, self._fields, self._parsers, strict=True)
        self._is_text = bytes(_is_text(*field) for field in self._fields)
        self._codes = bytes(
            _code(column.type, is_text=_is_text(*field), is_parsed=parser is not None)
            for column, field, parser in columns
        )


def _code(kind: Type, *, is_text: bool, is_parsed: bool) -> int:
    if not is_parsed:
        return TEXT if is_text else OTHER
    return _CODES.get(kind.kind, OTHER)


def _is_text(field_type: int, charset: int) -> bool:
    return charset != _BINARY or field_type not in _STRINGS


def _field(packet: bytes) -> tuple[int, int]:
    """Return type and character set of a described column (manual, "Column Definition")."""
    at = 0
    for _ in range(_FIELD_NAMES):
        size = packet[at]
        at += 1
        if size == 0xFC:  # noqa: PLR2004
            size = int.from_bytes(packet[at : at + 2], "little")
            at += 2
        at += size
    return packet[at + 7], int.from_bytes(packet[at + 1 : at + 3], "little")


def _length(data: bytes, at: int, width: int) -> int:
    size = 0
    for place in range(width):
        size |= data[at + place] << 8 * place
    return size


def _integer(data: bytes, start: int, end: int) -> Any:
    """Return a number; of up to 18 digits it fits into a machine's word."""
    if end - start > 18:  # noqa: PLR2004
        return int(data[start:end])
    word = 0
    at = start + 1 if data[start] == 45 else start  # noqa: PLR2004  a minus
    while at < end:
        word = word * 10 + data[at] - 48
        at += 1
    return -word if data[start] == 45 else word  # noqa: PLR2004
