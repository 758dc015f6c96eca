"""Flat rows: the row alone, as Debezium's ExtractNewRecordState leaves it, its key in the record's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import Operation
from cdcsync.kafka.config import Deletes
from cdcsync.kafka.encoding.debezium import OPS, completed, source_of
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.rows import Rows
from cdcsync.kafka.encoding.schemas import STRINGS, base_name, key_schema, row_schema

if TYPE_CHECKING:
    from cdcsync.change import Change, Row, Table, Transaction
    from cdcsync.kafka.config import KafkaSink
    from cdcsync.kafka.encoding.records import Encoded, Sender

_dumps: Final = orjson.dumps
_DELETED: Final = "__deleted"


class FlatTable:
    """Writes the changes of one table version."""

    def __init__(self, table: Table, config: KafkaSink, sender: Sender) -> None:
        self._rows = Rows.of(table, config.modes)
        self._sender = sender
        self._table = table
        self._deletes = config.delete_tombstone_handling_mode
        self._rewrites = self._deletes in {Deletes.REWRITE, Deletes.REWRITE_WITH_TOMBSTONE}
        self._fields = config.add_fields
        self._value = self._key = self._end = self._end_key = b""
        if config.schemas:
            self._value = b'{"schema":%b,"payload":' % _dumps(self.value_schema(self._rows))
            self._end = b"}"
        if config.schemas and not self._rows.text_key:
            self._key = b'{"schema":%b,"payload":' % _dumps(key_schema(self._rows, sender))
            self._end_key = b"}"
        self._at: Transaction | None = None
        self._tails: dict[Operation, bytes] = {}

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return the records of one change, in order. Raises Partial, Unfit."""
        _, operation, before, after = change
        if transaction is not self._at:
            self._at = transaction
            self._tails.clear()
        if after is None:
            if operation is Operation.TRUNCATE or before is None:
                raise Unfit("flat rows cannot say that a table was emptied: map `truncate: ignore`")
            return self._deleted(before, self._tail(Operation.DELETE, transaction, now_us))
        gone: list[Encoded] = []
        if before is not None:
            if self._rows.key_differs(before, after):
                gone = self._deleted(before, self._tail(Operation.DELETE, transaction, now_us))
                operation = Operation.INSERT
            after = completed(before, after)
        value = _dumps(self._rows.full(after))[:-1] + self._tail(operation, transaction, now_us)
        return [*gone, (self._keyed(after), self._value + value)]

    def _deleted(self, before: Row, tail: bytes) -> list[Encoded]:
        key = self._keyed(before)
        made: list[Encoded] = []
        if self._rewrites:
            made.append((key, self._value + _dumps(self._rows.known(before))[:-1] + tail))
        if self._deletes in {Deletes.TOMBSTONE, Deletes.REWRITE_WITH_TOMBSTONE}:
            if key is None:
                raise Unfit("a row without a key cannot be deleted by a tombstone: map a `key`")
            made.append((key, None))
        return made

    def _keyed(self, row: Row) -> bytes | None:
        made = self._rows.key_bytes(row)
        return made if made is None or not self._key else self._key + made + self._end_key

    def _tail(self, operation: Operation, transaction: Transaction, now_us: int) -> bytes:
        tail = self._tails.get(operation)
        if tail is None:
            added = _dumps(self.added(operation, transaction, now_us))
            tail = (b"," + added[1:] if len(added) > len(b"{}") else b"}") + self._end
            self._tails[operation] = tail
        return tail

    def added(self, operation: Operation, transaction: Transaction, now_us: int) -> dict[str, Any]:
        """Return what is added to a row."""
        made: dict[str, Any] = {}
        if self._rewrites:
            made[_DELETED] = "true" if operation is Operation.DELETE else "false"
        if self._fields:
            source = source_of(self._sender, self._table, transaction, operation)
            envelope = {"op": OPS[operation], "ts_ms": now_us // 1000, "ts_us": now_us, "ts_ns": now_us * 1000}
            for name in self._fields:
                inner = name.removeprefix("source.")
                found = source.get(inner) if inner != name else envelope.get(name, source.get(name))
                made["__" + name.replace(".", "_")] = found
        return made

    def value_schema(self, rows: Rows) -> dict[str, Any]:
        """Return the struct of a row with what is added to it."""
        schema = row_schema(rows, f"{base_name(rows, self._sender)}.Value", optional=False)
        if self._rewrites:
            schema["fields"].append({"type": "string", "optional": True, "field": _DELETED})
        for name in self._fields:
            inner = name.removeprefix("source.")
            kind = "string" if inner in STRINGS | {"op"} else "int64"
            schema["fields"].append({"type": kind, "optional": True, "field": "__" + name.replace(".", "_")})
        return schema
