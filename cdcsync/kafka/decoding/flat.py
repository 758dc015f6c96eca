"""Flat rows, as Debezium's ExtractNewRecordState and cdcsync write them: the row alone, its key in the record's key.

A record without a value deletes the key's row, as does `__deleted: true` or `__op: d`. Fields that begin with two
underscores are about the change, not of the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED, Change, Operation
from cdcsync.kafka.decoding.layouts import Layouts, Versions
from cdcsync.kafka.decoding.opening import Opened, fields_in
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record, Unregistered, table_of_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Item
    from cdcsync.kafka.decoding.columns import Layout
    from cdcsync.kafka.decoding.opening import Opener

_META: Final = "__"
_TRUE: Final = frozenset({"true", True})
_NO_KEY: Final = Opened({}, None)
_OPERATIONS: Final = {"c": Operation.INSERT, "r": Operation.READ, "u": Operation.UPDATE, "d": Operation.DELETE}


class Flat:
    """Decodes the records of one topic, which is one table."""

    def __init__(self, keys: Opener, values: Opener, layouts: Layouts) -> None:
        self._keys = keys
        self._values = values
        self._layouts = layouts
        self._versions = Versions()
        self._last: dict[tuple[str, str], Layout] = {}
        self._trimmed: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def decode(self, record: Record) -> Decoded:
        """Return the change of one row."""
        place = table_of_topic(record.topic)
        key = self._key(record, place)
        if record.value is None:
            return Decoded([self._delete(place, key)], record.time_us)
        opened = self._values.open(record.value)
        fields = fields_in(opened.payload, "value")
        meta = {name: value for name, value in fields.items() if name.startswith(_META)}
        if meta:
            fields = {name: value for name, value in fields.items() if name not in meta}
        layout = self._layouts.of(place, self._schema(opened), tuple(fields), tuple(key.payload))
        self._last[place] = layout
        items = self._items(layout, fields, meta)
        return Decoded(items, _time_us(meta, record))

    def _items(self, layout: Layout, fields: dict[str, Any], meta: Mapping[str, Any]) -> list[Item]:
        operation = _OPERATIONS.get(str(meta.get("__op", "")))
        if meta.get("__deleted") in _TRUE:
            operation = Operation.DELETE
        table = layout.table
        try:
            row = layout.row(fields)
        except ValueError as error:
            raise Malformed(str(error)) from error
        at = frozenset(table.key_at)
        keyed = tuple(value if index in at else UNCHANGED for index, value in enumerate(row))
        if operation is Operation.DELETE:
            change = Change(table, operation, keyed, None)
        elif operation in {Operation.INSERT, Operation.READ} or not table.key:
            change = Change(table, operation or Operation.INSERT, None, row)
        else:
            change = Change(table, Operation.UPDATE, keyed, row)
        new = self._versions.look(table)
        return [change] if new is None else [new, change]

    def _delete(self, place: tuple[str, str], opened: Opened) -> Change:
        """Return the delete that a record without a value is."""
        key: dict[str, Any] = opened.payload
        if not key:
            raise Malformed(
                "it has neither a value nor a key that is a JSON object: it deletes nothing that can be told"
            )
        layout = self._last.get(place)
        if layout is None or set(layout.table.key) != set(key):
            layout = self._layouts.of(place, opened.schema, tuple(key), tuple(key))
        fields = {column.name: key.get(column.name, UNCHANGED) for column in layout.table.columns}
        try:
            return Change(layout.table, Operation.DELETE, layout.row(fields), None)
        except ValueError as error:
            raise Malformed(str(error)) from error

    def _key(self, record: Record, place: tuple[str, str]) -> Opened:
        """Return the key's fields; one that is no object is the value of the one key column that is declared."""
        if record.key is None:
            return _NO_KEY
        said = self._layouts.declaration(place)
        only = said.key[0] if said is not None and said.key is not None and len(said.key) == 1 else None
        try:
            opened = self._keys.open(record.key)
        except Unregistered:
            raise
        except Malformed:
            opened = Opened(record.key.decode(errors="replace"), None)
        if isinstance(opened.payload, dict):
            return opened
        return Opened({only: opened.payload}, None) if only is not None else _NO_KEY

    def _schema(self, opened: Opened) -> Mapping[str, Any] | None:
        """Return the schema without the fields that are about the change."""
        schema = opened.schema
        if schema is None:
            return None
        found = self._trimmed.get(id(schema))
        if found is None:
            kept = [field for field in schema.get("fields") or () if not str(field.get("field")).startswith(_META)]
            found = self._trimmed[id(schema)] = (schema, {**schema, "fields": kept})
        return found[1]


def _time_us(meta: Mapping[str, Any], record: Record) -> int:
    for name, unit in (("__source_ts_us", 1), ("__source_ts_ms", 1000), ("__ts_ms", 1000)):
        found = meta.get(name)
        if isinstance(found, int) and found > 0:
            return found * unit
    return record.time_us
