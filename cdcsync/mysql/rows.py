"""Decodes the events that change rows: WRITE, UPDATE and DELETE_ROWS, versions 1 and 2, and PARTIAL_UPDATE_ROWS.

MySQL internals, "Rows_event"; MariaDB knowledge base, "Rows Event". The hot path: plain Python here, C types in
`rows.pxd`.
"""
# ruff: noqa: PLR2004  the codes of `values`, types of events and bits are literals: names would be looked up per value

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED, Change, Operation
from cdcsync.errors import Fatal
from cdcsync.mysql.binary_json import changed
from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.table_map import HINT, lenenc
from cdcsync.mysql.temporal import KEPT_MAX, Dates, ZeroDate, clock, no_calendar, of_day
from cdcsync.mysql.values import decimal_groups, plan_of

if TYPE_CHECKING:
    from cdcsync.change import Table
    from cdcsync.mysql.table_map import Layout

_INSERT: Final = Operation.INSERT
_UPDATE: Final = Operation.UPDATE
_DELETE: Final = Operation.DELETE
_change: Final = Change
_missing: Final = UNCHANGED
_double: Final = struct.Struct("<d").unpack_from
FLAGS: Final = 0x8F
"""End of statement, no foreign key checks, relaxed unique checks, complete rows; MariaDB: no check constraints."""
_IMAGES_MAX: Final = 256
"""Sets of columns that a table's decoder keeps; sessions choose them."""


class RowsDecoder:
    """Decodes the rows of one table version; its layout is `types.described`. Without a table it only counts them."""

    def __init__(self, layout: Layout, table: Table | None, zero_dates: ZeroDates = ZeroDates.STOP) -> None:
        self.starts: list[int] = []
        """Where each row of the event taken last begins."""
        self._table = table
        self._layout = layout
        self._size = len(layout.type_codes)
        self._dates = Dates(zero_dates)
        self._visible = [index for index, hidden in enumerate(layout.hidden) if not hidden]
        self._hides = len(self._visible) < len(layout.hidden)
        """Whether the log has columns that the table does not."""
        kinds: list[Any] = [None] * self._size
        if table is not None:
            for index, column in zip(self._visible, table.columns, strict=True):
                kinds[index] = column.type
        plans = [plan_of(layout, index, kinds[index], self._dates) for index in range(self._size)]
        self._codes = bytes([plan.code for plan in plans])
        self._widths = bytes([plan.width for plan in plans])
        self._readers: list[Any] = [plan.reader for plan in plans]
        self._scales = [meta >> 8 for meta in layout.metas]
        self._groups = [_groups(plan.code, meta) for plan, meta in zip(plans, layout.metas, strict=True)]
        """Of each DECIMAL: bytes of its groups of digits, and what to multiply by before each."""
        self._blank: list[Any] = [UNCHANGED] * self._size
        self._shown: dict[bytes, list[int]] = {}
        """Indexes of the columns in an image, by its bitmap."""
        self._first: list[int] = []
        self._second: list[int] = []
        self._end = 0
        """Where the image read last ends."""
        self._packed: dict[int, str] = {}
        self._joined: dict[int, str] = {}
        self._days: dict[int, str] = {}
        self._clocks: dict[int, str] = {}
        self._second_last = -1
        self._second_text = ""
        """What the TIMESTAMP read last was, without its fraction: rows of one moment are logged together."""
        self._documents: dict[int, bytes] = {}
        """JSON documents of the image before, while a partial update is read."""
        self._partial = 0
        """1 in the image before of a partial update, 2 in the one after."""
        self._differing: set[int] = set()
        """Columns that hold differences in the image after."""

    def decode(self, event: bytes, at: int, end: int, kind: int) -> list[Any]:
        """Return the event's changes; sets `starts`.

        `at` is after the header, `end` before the checksum, `kind` the event's type. Raises Fatal, saying which
        table and column, for what it does not know and for what does not fit the table; nothing is skipped.
        """
        starts: list[int] = []
        changes: list[Any] = []
        table = self._table
        at = self._head(event, at, end, kind)
        first = self._first
        if kind == 30 or kind == 23:  # noqa: PLR1714  C compares
            while at < end:
                starts.append(at)
                after = self._row(event, at, end, first)
                if self._hides:
                    after = self._without(after)
                changes.append(tuple.__new__(_change, (table, _INSERT, None, after)))
                at = self._end
        elif kind == 32 or kind == 25:  # noqa: PLR1714  C compares
            while at < end:
                starts.append(at)
                before = self._row(event, at, end, first)
                if self._hides:
                    before = self._without(before)
                changes.append(tuple.__new__(_change, (table, _DELETE, before, None)))
                at = self._end
        else:
            while at < end:
                starts.append(at)
                if kind == 39:
                    self._partial = 1
                    self._documents.clear()
                before = self._row(event, at, end, first)
                after = self._after(event, end, before, kind)
                if self._hides:
                    before, after = self._without(before), self._without(after)
                changes.append(tuple.__new__(_change, (table, _UPDATE, before, after)))
                at = self._end
        self.starts = starts
        return changes

    def count(self, event: bytes, at: int, end: int, kind: int) -> int:
        """Return how many rows the event has, without reading their values; sets `starts`. Raises Fatal."""
        starts: list[int] = []
        at = self._head(event, at, end, kind)
        first = self._first
        second = self._second if kind in (24, 31, 39) else None
        while at < end:
            starts.append(at)
            at = self._skip(event, at, end, first)
            if second is not None:
                if kind == 39:
                    at = self._partials(event, at)
                at = self._skip(event, at, end, second)
        self._partial = 0
        self.starts = starts
        return len(starts)

    def _without(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row without the columns that the table does not have."""
        return tuple([row[index] for index in self._visible])

    def _after(self, event: bytes, end: int, before: tuple[Any, ...], kind: int) -> tuple[Any, ...]:
        """Return the image after, what it does not carry as it was before."""
        at = self._end
        second = self._second
        if kind == 39:
            at = self._partials(event, at)
        after = self._row(event, at, end, second)
        self._partial = 0
        if len(second) == self._size:
            return after
        row = list(after)
        for index in range(self._size):
            if row[index] is _missing:
                row[index] = before[index]
        return tuple(row)

    def _head(self, event: bytes, at: int, end: int, kind: int) -> int:
        """Read what stands before the rows; return where they begin."""
        try:
            flags = event[at + 6] | event[at + 7] << 8
            if flags & ~FLAGS:
                what = f"it has flags {flags:#x}, which nobody knows"
                raise self._fault(what)
            at += 8
            if kind not in (23, 24, 25):
                if kind not in (30, 31, 32, 39):
                    what = f"its type {kind} is not one of those that change rows"
                    raise self._fault(what)
                at += event[at] | event[at + 1] << 8
            count, at = lenenc(event, at)
            if count != self._size:
                what = f"it has {count} columns, and the table map {self._size}"
                raise self._fault(what)
            width = (count + 7) >> 3
            self._first = self._columns(event[at : at + width])
            at += width
            if kind in (24, 31, 39):
                self._second = self._columns(event[at : at + width])
                at += width
        except IndexError:
            raise self._fault("it is cut off") from None
        if at > end:
            raise self._fault("it is cut off")
        return at

    def _columns(self, bitmap: bytes) -> list[int]:
        """Return the indexes of the columns that an image has."""
        shown = self._shown.get(bitmap)
        if shown is None:
            shown = [index for index in range(self._size) if bitmap[index >> 3] >> (index & 7) & 1]
            if len(self._shown) >= _IMAGES_MAX:
                self._shown.clear()
            self._shown[bitmap] = shown
        return shown

    def _row(  # noqa: C901, PLR0912, PLR0915  the hot path: a call per value would halve its speed
        self, data: bytes, at: int, end: int, columns: list[int]
    ) -> tuple[Any, ...]:
        """Return the image at `at`; sets `_end`."""
        codes = self._codes
        widths = self._widths
        values = self._blank.copy()
        nulls = at
        place = 0
        index = 0
        at += (len(columns) + 7) >> 3
        try:
            for index in columns:
                if data[nulls + (place >> 3)] >> (place & 7) & 1:
                    values[index] = None
                    place += 1
                    continue
                place += 1
                code = codes[index]
                width = widths[index]
                if code == 1 or code == 17 or code == 18 or code == 20:  # noqa: PLR1714  preceded by their length
                    size = data[at]
                    if width > 1:
                        size |= data[at + 1] << 8
                        if width > 2:
                            size |= self._upper(data, at, width)
                    start = at + width
                    at = start + size
                    if at > end:
                        raise IndexError(at)  # noqa: TRY301  told with its column
                    if code == 1:
                        values[index] = data[start:at].decode("utf-8")
                    elif code == 17:
                        values[index] = data[start:at]
                    elif code == 18:
                        values[index] = self._readers[index](data[start:at])
                    else:
                        values[index] = self._document(index, data[start:at])
                    continue
                if code == 2 or code == 3:  # noqa: PLR1714  int
                    word = data[at + 3]
                    word = word << 24 | data[at + 2] << 16 | data[at + 1] << 8 | data[at]
                    if code == 2 and word > 0x7FFFFFFF:
                        word -= 0x100000000
                    values[index] = word
                elif code == 4 or code == 5:  # noqa: PLR1714  bigint
                    word = data[at + 3]
                    word = word << 24 | data[at + 2] << 16 | data[at + 1] << 8 | data[at]
                    high = data[at + 7]
                    high = high << 24 | data[at + 6] << 16 | data[at + 5] << 8 | data[at + 4]
                    if high > 0x7FFFFFFF:
                        values[index] = int.from_bytes(data[at : at + 8], "little", signed=code == 4)
                    else:
                        values[index] = high << 32 | word
                elif code == 6:
                    values[index] = self._datetime(data, at, width - 5)
                elif code == 7:
                    values[index] = self._timestamp(data, at, width - 4)
                elif code == 8:
                    values[index] = self._decimal(data, at, index)
                else:
                    values[index] = self._fixed(code, data, at, index)
                at += width
            if at > end:
                raise IndexError(at)  # noqa: TRY301  told with its column
        except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
            raise self._misread(index, error) from None
        self._end = at
        return tuple(values)

    def _upper(self, data: bytes, at: int, width: int) -> int:
        """Return what the third and fourth byte of a length add to it."""
        size = data[at + 2] << 16
        if width > 3:
            high = data[at + 3]
            size |= high << 24
        return size

    def _fixed(self, code: int, data: bytes, at: int, index: int) -> Any:
        """Return a value of one of the rarer types that have one width."""
        if code == 10 or code == 11:  # noqa: PLR1714  tinyint
            word = data[at]
            return word - 0x100 if code == 10 and word > 0x7F else word
        if code == 12 or code == 13:  # noqa: PLR1714  smallint
            word = data[at] | data[at + 1] << 8
            return word - 0x10000 if code == 12 and word > 0x7FFF else word
        if code == 14 or code == 15:  # noqa: PLR1714  mediumint
            word = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            return word - 0x1000000 if code == 14 and word > 0x7FFFFF else word
        if code == 9:
            word = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            text = self._packed.get(word)
            return self._kept(self._packed, word, self._dates.of_packed(word)) if text is None else text
        if code == 16:
            return _double(data, at)[0]
        return self._readers[index](data[at : at + self._widths[index]])

    def _datetime(self, data: bytes, at: int, rest: int) -> Any:
        """Return DATETIME since 5.6: 5 bytes big-endian, the first bit set, and `rest` bytes of a fraction."""
        word = data[at]
        word = word << 8 | data[at + 1]
        word = word << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4]
        word -= 0x8000000000
        joined = word >> 17
        date = self._joined.get(joined)
        if date is None:
            date = self._kept(self._joined, joined, self._dates.of_joined(joined))
            if date is None:
                return None
        text = date + "T" + self._clock(word & 0x1FFFF)
        return text + self._fraction(data, at + 5, rest) if rest else text

    def _timestamp(self, data: bytes, at: int, rest: int) -> Any:
        """Return TIMESTAMP since 5.6: seconds, 4 bytes big-endian, and `rest` bytes of a fraction; all 0 is no time."""
        word = data[at]
        word = word << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
        if word == self._second_last:
            return (self._second_text + self._fraction(data, at + 4, rest) if rest else self._second_text) + "Z"
        day = word // 86400
        date = self._days.get(day)
        if date is None:
            date = self._kept(self._days, day, of_day(day))
        if word == 0 and not any(data[at + 4 : at + 4 + rest]):
            date = self._dates.text(0, 0, 0)
            if date is None:
                return None
        second = word - day * 86400
        text = date + "T" + self._clock((second // 3600) << 12 | (second // 60 % 60) << 6 | second % 60)
        if word:
            self._second_last, self._second_text = word, text
        return (text + self._fraction(data, at + 4, rest) if rest else text) + "Z"

    def _clock(self, packed: int) -> str:
        text = self._clocks.get(packed)
        return self._kept(self._clocks, packed, clock(packed)) if text is None else text

    def _kept(self, texts: dict[int, str], packed: int, text: Any) -> Any:
        """Keep a text that was made, but not too many; return it."""
        if text is not None:
            if len(texts) >= KEPT_MAX:
                texts.clear()
            texts[packed] = text
        return text

    def _fraction(self, data: bytes, at: int, rest: int) -> str:
        word = 0
        for place in range(at, at + rest):
            word = word << 8 | data[place]
        if word == 0:
            return ""
        if rest == 3:
            text = f".{word:06d}"
        elif rest == 2:
            text = f".{word:04d}"
        else:
            text = f".{word:02d}"
        return text.rstrip("0")

    def _decimal(self, data: bytes, at: int, index: int) -> str:
        """Return a decimal of up to 18 digits: big-endian groups of digits, all bits turned where it is negative."""
        mask = 0 if data[at] & 0x80 else 0xFF
        total = 0
        word = data[at] ^ mask ^ 0x80
        groups = self._groups[index]
        for size, factor in groups:
            while size > 1:
                at += 1
                size -= 1  # noqa: PLW2901  bytes left
                word = word << 8 | (data[at] ^ mask)
            total = total * factor + word
            at += 1
            word = data[at] ^ mask if at < len(data) else 0
        text = f"{total}"
        scale = self._scales[index]
        if scale:
            if len(text) <= scale:
                text = text.zfill(scale + 1)
            text = text[:-scale] + "." + text[-scale:]
        return "-" + text if mask else text

    def _document(self, index: int, raw: bytes) -> Any:
        """Return a JSON document, in a partial update's image after from the one before."""
        if self._partial == 1:
            self._documents[index] = raw
        elif self._partial == 2 and index in self._differing:
            before = self._documents.get(index)
            if before is None:
                raise self._partial_fault(index)
            return changed(before, raw)
        return self._readers[index](raw)

    def _partials(self, data: bytes, at: int) -> int:
        """Read which columns of a partial update's image after hold differences; return where the image begins."""
        options, at = lenenc(data, at)
        if options > 1:
            what = f"it has row value options {options:#x}, which nobody knows"
            raise self._fault(what)
        self._partial = 2
        self._differing.clear()
        if options:
            documents = [index for index in range(self._size) if self._codes[index] == 20]
            for place, index in enumerate(documents):
                if data[at + (place >> 3)] >> (place & 7) & 1:
                    self._differing.add(index)
            at += (len(documents) + 7) >> 3
        return at

    def _skip(self, data: bytes, at: int, end: int, columns: list[int]) -> int:
        """Return where the image at `at` ends."""
        nulls = at
        place = 0
        at += (len(columns) + 7) >> 3
        try:
            for index in columns:
                if not data[nulls + (place >> 3)] >> (place & 7) & 1:
                    code = self._codes[index]
                    width = self._widths[index]
                    if code == 1 or code == 17 or code == 18 or code == 20:  # noqa: PLR1714  preceded by their length
                        size = data[at] | data[at + 1] << 8 if width > 1 else data[at]
                        if width > 2:
                            size |= self._upper(data, at, width)
                        at += size
                    at += width
                place += 1
        except IndexError:
            at = end + 1
        if at > end:
            raise self._fault("it is cut off")
        return at

    def _fault(self, what: str) -> Fatal:
        msg = f"rows of {self._layout.qualified}: {what}"
        return Fatal(msg, hint=HINT)

    def _partial_fault(self, index: int) -> Fatal:
        msg = f"rows of {self._layout.qualified}: column {self._name(index)} holds differences from a document that the log does not have"
        hint = (
            "SET GLOBAL binlog_row_image = 'FULL', or binlog_row_value_options = '' (each session may have set its own); "
            "what was logged before cannot be read: copy the table again"
        )
        return Fatal(msg, hint=hint)

    def _name(self, index: int) -> str:
        return self._layout.names[index] if self._layout.names else str(index + 1)

    def _misread(self, index: int, error: Exception) -> Fatal:
        """Return the verdict on a value that cannot be read, without it."""
        self._partial = 0
        where = f"{self._layout.qualified}, column {self._name(index)}"
        if isinstance(error, ZeroDate):
            return no_calendar(where)
        if isinstance(error, UnicodeDecodeError):
            msg = f"{where} holds bytes that are no text of its character set"
            return Fatal(
                msg,
                hint="mend the row at the source (ALTER the column to a binary type, then to the right character set), "
                "and leave the column out of the mapping until the pipeline has passed this place",
            )
        msg = f"{where} cannot be read: {type(error).__name__}"
        return Fatal(msg, hint=HINT)


def _groups(code: int, meta: int) -> tuple[tuple[int, int], ...]:
    return tuple([(size, 10**digits) for size, digits in decimal_groups(meta & 0xFF, meta >> 8)]) if code == 8 else ()
