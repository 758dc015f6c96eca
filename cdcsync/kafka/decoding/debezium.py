"""Debezium's change events: an envelope of before, after, source, op and times, in JSON or Avro, with or without schema.

Source: Debezium's documentation, "Data change events" of the MySQL and PostgreSQL connectors.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED, Change, Message, Operation
from cdcsync.kafka.decoding.layouts import Layouts, Versions
from cdcsync.kafka.decoding.opening import Opened, fields_in
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Item, Row
    from cdcsync.kafka.decoding.columns import Layout
    from cdcsync.kafka.decoding.opening import Opener

PLACEHOLDER: Final = "__debezium_unavailable_value"
_ROWS: Final = {"c": Operation.INSERT, "r": Operation.READ, "u": Operation.UPDATE, "d": Operation.DELETE}


class Debezium:
    """Decodes the records of one topic."""

    def __init__(self, keys: Opener, values: Opener, layouts: Layouts, placeholder: str = PLACEHOLDER) -> None:
        self._keys = keys
        self._values = values
        self._layouts = layouts
        self._versions = Versions()
        self._placeholders = _forms(placeholder)
        self._marks = (placeholder.encode(), b64encode(placeholder.encode()), placeholder.encode().hex().encode())
        self._numbers = list(placeholder.encode())
        self._rows: dict[int, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {}
        """By the id of an envelope's schema, kept alive beside that of its rows."""

    def decode(self, record: Record) -> Decoded:
        """Return the change; nothing for a tombstone, whose delete came before it."""
        data = record.value
        if data is None:
            return Decoded((), record.time_us)
        opened = self._values.open(data)
        envelope = fields_in(opened.payload, "value")
        op = envelope.get("op")
        source = envelope.get("source")
        if not isinstance(op, str):
            raise Malformed("it has no `op`: it is no change event of Debezium's")
        if op == "m":
            return Decoded((_message(envelope),), _time_us(source, envelope, record), "")
        if not isinstance(source, dict) or not source.get("table"):
            raise Malformed("its `source` names no table")
        place = str(source.get("schema") or source.get("db") or ""), str(source["table"])
        time_us, transaction = _time_us(source, envelope, record), _transaction(envelope, source)
        return Decoded(self._items(record, op, opened, place), time_us, transaction)

    def _items(self, record: Record, op: str, opened: Opened, place: tuple[str, str]) -> list[Item]:
        envelope = opened.payload
        before, after = envelope.get("before"), envelope.get("after")
        key = self._key(record)
        schema = self._row_schema(opened.schema)
        if op == "t":
            table = self._versions.latest(*place) or self._layouts.of(place, schema, (), ()).table
            return [Change(table, Operation.TRUNCATE, None, None)]
        operation = _ROWS.get(op)
        if operation is None:
            msg = f"its operation {op!r} is none that Debezium has"
            raise Malformed(msg)
        wanted = before if operation is Operation.DELETE else after
        row = wanted if wanted is not None else before
        if row is None and operation is Operation.DELETE:
            row = before = key
        fields = fields_in(row, "`after`" if operation is not Operation.DELETE else "`before`")
        if operation is not Operation.DELETE and after is None:
            raise Malformed("its `after` is missing")
        layout = self._layouts.of(place, schema, tuple(fields) if schema is None else (), tuple(key))
        change = self._change(layout, operation, before, after, key, record)
        new = self._versions.look(layout.table)
        return [change] if new is None else [new, change]

    def _change(
        self,
        layout: Layout,
        operation: Operation,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
        key: dict[str, Any],
        record: Record,
    ) -> Change:
        data = record.value or b""
        if any(mark in data for mark in self._marks):
            before, after = self._carried(before), self._carried(after)
        try:
            new = layout.row(after) if after is not None and operation is not Operation.DELETE else None
            if operation in {Operation.INSERT, Operation.READ}:
                return Change(layout.table, operation, None, new)
            return Change(layout.table, operation, self._before(layout, before, new, key), new)
        except ValueError as error:
            raise Malformed(str(error)) from error

    def _before(self, layout: Layout, before: dict[str, Any] | None, new: Row | None, key: dict[str, Any]) -> Row:
        """Return the row before: where nothing but its key was carried, the rest is not known."""
        table = layout.table
        if before is not None:
            names = set(table.key)
            if any(value is not None for name, value in before.items() if name not in names) or not table.key:
                return layout.row(before)
        if before is None and new is not None:
            at = frozenset(table.key_at)
            return tuple(value if index in at else UNCHANGED for index, value in enumerate(new))
        known = before if before is not None else key
        keyed = {column.name: UNCHANGED for column in table.columns} | {name: known.get(name) for name in table.key}
        return layout.row(keyed)

    def _key(self, record: Record) -> dict[str, Any]:
        if record.key is None:
            return {}
        payload = self._keys.open(record.key).payload
        return payload if isinstance(payload, dict) else {}

    def _row_schema(self, schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the schema of the rows in an envelope's."""
        if schema is None:
            return None
        found = self._rows.get(id(schema))
        if found is None:
            fields = schema.get("fields") or ()
            inner = next((each for name in ("after", "before") for each in fields if each.get("field") == name), None)
            found = self._rows[id(schema)] = (schema, inner)
        return found[1]

    def _carried(self, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        """Put UNCHANGED where Debezium says that the log did not carry a value."""
        if fields is None:
            return None
        return {name: UNCHANGED if self._is_placeholder(value) else value for name, value in fields.items()}

    def _is_placeholder(self, value: Any) -> bool:
        if isinstance(value, list):
            return value == self._numbers or (len(value) == 1 and self._is_placeholder(value[0]))
        return isinstance(value, str | bytes) and value in self._placeholders


def _forms(placeholder: str) -> frozenset[str | bytes]:
    raw = placeholder.encode()
    return frozenset({placeholder, raw, b64encode(raw).decode(), raw.hex()})


def _message(envelope: Mapping[str, Any]) -> Message:
    inner = fields_in(envelope.get("message"), "`message`")
    content = inner.get("content")
    raw = content if isinstance(content, bytes) else b64decode(content or "")
    return Message(str(inner.get("prefix", "")), raw, transactional=True)


def _time_us(source: Any, envelope: Mapping[str, Any], record: Record) -> int:
    for holder in (source, envelope) if isinstance(source, dict) else (envelope,):
        for name, unit in (("ts_us", 1), ("ts_ms", 1000)):
            found = holder.get(name)
            if isinstance(found, int) and found > 0:
                return found * unit
    return record.time_us


def _transaction(envelope: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    block = envelope.get("transaction")
    if isinstance(block, dict) and block.get("id"):
        return str(block["id"])
    return str(source.get("gtid") or source.get("txId") or "")
