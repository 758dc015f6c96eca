"""Maxwell's JSON: `database, table, type, ts, xid, data, old`. Source: Maxwell's documentation, "Data Format"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Change, Operation
from cdcsync.kafka.decoding.layouts import Layouts, Versions
from cdcsync.kafka.decoding.opening import fields_in
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.change import Item
    from cdcsync.kafka.decoding.opening import Opener

_ROWS: Final = {
    "insert": Operation.INSERT,
    "bootstrap-insert": Operation.READ,
    "update": Operation.UPDATE,
    "delete": Operation.DELETE,
}
_SILENT: Final = frozenset({
    "bootstrap-start", "bootstrap-complete", "table-create", "table-alter", "table-drop", "database-create",
    "database-alter", "database-drop", "heartbeat",
})  # fmt: skip
"""What is no change of a row; a table's structure is seen in its rows."""
_KEY: Final = "pk."


class Maxwell:
    """Decodes the records of one topic, which may hold many tables."""

    def __init__(self, keys: Opener, values: Opener, layouts: Layouts) -> None:
        self._keys = keys
        self._values = values
        self._layouts = layouts
        self._versions = Versions()

    def decode(self, record: Record) -> Decoded:
        """Return the change of one row; nothing for a tombstone, whose delete came before it."""
        if record.value is None:
            return Decoded((), record.time_us)
        message = fields_in(self._values.open(record.value).payload, "value")
        kind = message.get("type")
        time_us = _time_us(message, record)
        if kind in _SILENT:
            return Decoded((), time_us)
        operation = _ROWS.get(str(kind))
        if operation is None or not message.get("table"):
            raise Malformed("it has no `table` or no `type` that Maxwell writes")
        items = self._items(message, operation, self._key(message, record))
        return Decoded(items, time_us, str(message.get("xid") or ""))

    def _items(self, message: Mapping[str, Any], operation: Operation, key: Sequence[str]) -> list[Item]:
        place = str(message.get("database") or ""), str(message["table"])
        data = fields_in(message.get("data"), "`data`")
        layout = self._layouts.of(place, None, tuple(data), key)
        table = layout.table
        try:
            row = layout.row(data)
            if operation is Operation.DELETE:
                change = Change(table, operation, row, None)
            elif operation is Operation.UPDATE:
                old = fields_in(message.get("old") or {}, "`old`")
                change = Change(table, operation, layout.row(data | old), row)
            else:
                change = Change(table, operation, None, row)
        except ValueError as error:
            raise Malformed(str(error)) from error
        new = self._versions.look(table)
        return [change] if new is None else [new, change]

    def _key(self, message: Mapping[str, Any], record: Record) -> tuple[str, ...]:
        """Return the key's columns: as the message names them, else as the record's key does."""
        named = message.get("primary_key_columns")
        if isinstance(named, list):
            return tuple(map(str, named))
        if record.key is None:
            return ()
        payload = self._keys.open(record.key).payload
        if not isinstance(payload, dict):
            return ()
        return tuple(name[len(_KEY) :] for name in payload if name.startswith(_KEY))


def _time_us(message: Mapping[str, Any], record: Record) -> int:
    found = message.get("ts")
    return found * 1_000_000 if isinstance(found, int) and found > 0 else record.time_us
