"""Canal's flat JSON: `database, table, type, data, old, pkNames, mysqlType, es`; every value is a string.

Source: Canal's `FlatMessage` and its wiki. Its columns have types: `mysqlType` says MySQL's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Change, Column, Operation, Table
from cdcsync.kafka.decoding.columns import TEXT, How, Layout, declared, plain_converter, text_of
from cdcsync.kafka.decoding.layouts import LAYOUTS_MAX, Layouts, Versions
from cdcsync.kafka.decoding.opening import fields_in
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Item
    from cdcsync.kafka.decoding.opening import Opener

_ROWS: Final = {"INSERT": Operation.INSERT, "UPDATE": Operation.UPDATE, "DELETE": Operation.DELETE}
_SILENT: Final = frozenset({
    "CREATE", "ALTER", "ERASE", "RENAME", "CINDEX", "DINDEX", "QUERY", "GTID", "XACOMMIT", "XAROLLBACK", "MHEARTBEAT",
})  # fmt: skip
"""What is no change of a row; a table's structure is seen in its rows."""
_HOW: Final = How(binary="latin-1")
"""A BLOB is written as ISO 8859-1 text."""


class Canal:
    """Decodes the records of one topic, which may hold many tables."""

    def __init__(self, values: Opener, layouts: Layouts) -> None:
        self._values = values
        self._layouts = layouts
        self._versions = Versions()
        self._typed: dict[tuple[Any, ...], Layout] = {}

    def decode(self, record: Record) -> Decoded:
        """Return the changes of all rows of a message."""
        if record.value is None:
            return Decoded((), record.time_us)
        message = fields_in(self._values.open(record.value).payload, "value")
        kind, time_us = str(message.get("type")), _time_us(message, record)
        place = str(message.get("database") or ""), str(message.get("table") or "")
        if kind == "TRUNCATE":
            table = self._versions.latest(*place) or self._layouts.of(place, None, (), ()).table
            return Decoded([Change(table, Operation.TRUNCATE, None, None)], time_us)
        if kind in _SILENT or message.get("isDdl") is True:
            return Decoded((), time_us)
        operation = _ROWS.get(kind)
        rows = message.get("data")
        if operation is None or not place[1] or not isinstance(rows, list):
            raise Malformed("it has no `table`, no `data`, or no `type` that Canal writes")
        return Decoded(self._items(message, operation, place, rows), time_us, str(message.get("gtid") or ""))

    def _items(
        self, message: Mapping[str, Any], operation: Operation, place: tuple[str, str], rows: list[Any]
    ) -> list[Item]:
        olds = message.get("old")
        items: list[Item] = []
        for at, each in enumerate(rows):
            fields = fields_in(each, "`data`")
            layout = self._layout(message, place, fields)
            new = self._versions.look(layout.table)
            if new is not None:
                items.append(new)
            old = olds[at] if isinstance(olds, list) and at < len(olds) and isinstance(olds[at], dict) else {}
            try:
                items.append(_change(layout, operation, fields, old))
            except ValueError as error:
                raise Malformed(str(error)) from error
        return items

    def _layout(self, message: Mapping[str, Any], place: tuple[str, str], fields: Mapping[str, Any]) -> Layout:
        key = tuple(map(str, message.get("pkNames") or ()))
        types = message.get("mysqlType")
        said = self._layouts.declaration(place)
        if not isinstance(types, dict) or (said is not None and said.columns):
            return self._layouts.of(place, None, tuple(fields), key)
        if said is not None and said.key is not None:
            key = said.key
        wanted = (place, key, tuple(fields), tuple(types.get(name, "") for name in fields))
        found = self._typed.get(wanted)
        if found is None:
            if len(self._typed) >= LAYOUTS_MAX:
                self._typed.clear()
            found = self._typed[wanted] = _typed(place, key, {name: str(types.get(name, "")) for name in fields})
        return found


def _change(layout: Layout, operation: Operation, fields: dict[str, Any], old: dict[str, Any]) -> Change:
    row = layout.row(fields)
    if operation is Operation.DELETE:
        return Change(layout.table, operation, row, None)
    if operation is Operation.UPDATE:
        return Change(layout.table, operation, layout.row(fields | old), row)
    return Change(layout.table, operation, None, row)


def _typed(place: tuple[str, str], key: tuple[str, ...], types: Mapping[str, str]) -> Layout:
    """Return the layout of MySQL's types; one that is not known stays text."""
    columns: list[Column] = []
    converters: dict[int, Any] = {}
    for at, (name, text) in enumerate(types.items()):
        try:
            kind = declared(text)
        except ValueError:
            kind = TEXT
        columns.append(Column(name, kind, nullable=name not in key))
        converter = plain_converter(kind, _HOW)
        converters[at] = converter if converter is not None else text_of
    missing = [name for name in key if name not in types]
    if missing:
        msg = f"its row lacks the key column {', '.join(missing)}"
        raise Malformed(msg)
    return Layout(Table(*place, tuple(columns), key), converters)


def _time_us(message: Mapping[str, Any], record: Record) -> int:
    for name in ("es", "ts"):
        found = message.get(name)
        if isinstance(found, int) and found > 0:
            return found * 1000
    return record.time_us
