"""Debezium's change events: an envelope of before, after, source, op and times; a delete is followed by a tombstone.

Source: Debezium's documentation, "Data change events" of the PostgreSQL and MySQL connectors.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import PLACE_BITS, UNCHANGED, Change, Operation, Table
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.rows import Partial, Rows
from cdcsync.kafka.encoding.schemas import envelope_schema, key_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.change import Item, Message, Row, Transaction
    from cdcsync.kafka.encoding.modes import Modes
    from cdcsync.kafka.encoding.records import Encoded, Sender
    from cdcsync.kafka.encoding.transactions import Counter

_dumps: Final = orjson.dumps
_NO_TABLE: Final = Table("", "", ())
OPS: Final = {
    Operation.INSERT: "c",
    Operation.UPDATE: "u",
    Operation.DELETE: "d",
    Operation.READ: "r",
    Operation.TRUNCATE: "t",
}
_PLACE: Final = (1 << PLACE_BITS) - 1


class DebeziumTable:
    """Writes the changes of one table version."""

    def __init__(self, table: Table, modes: Modes, sender: Sender, *, tombstones: bool = True) -> None:
        self._rows = Rows.of(table, modes)
        self._sender = sender
        self._tombstones = tombstones
        self._table = table
        self._before_value = self._before_key = self._end_value = self._end_key = b""
        if modes.schemas:
            self._before_value = b'{"schema":%b,"payload":' % _dumps(envelope_schema(self._rows, sender))
            self._end_value = b"}"
        if modes.schemas and not self._rows.text_key:
            self._before_key = b'{"schema":%b,"payload":' % _dumps(key_schema(self._rows, sender))
            self._end_key = b"}"
        self._plain_key = bool(self._rows.key_at) and not self._rows.text_key and not modes.schemas
        """The key is an object, and nothing around it."""
        self._open = self._before_value + b'{"before":'
        self._insert = self._open + b'null,"after":'
        self._at: Transaction | None = None
        self._tails: dict[Operation, bytes] = {}
        self.counter: Counter | None = None
        """Places each event in its transaction, where that is asked for."""

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return the records of one change, in order. Raises Partial, Unfit."""
        _, operation, before, after = change
        tail = self._tail_of(operation, transaction, now_us)
        if after is None:
            return self._without_after(operation, before, tail)
        if before is None:
            return [self._new(after, tail)]
        same = self._same_key(before, after, tail)
        return self._moved(before, after, tail, transaction, now_us) if same is None else [same]

    def encode_run(
        self, changes: Sequence[Item], start: int, transaction: Transaction, now_us: int, into: list[Encoded]
    ) -> int:
        """Append the records of this table's changes from `start` on, one for one item until another comes.

        Return where to go on: at another table's change, or at one that is left to `encode`: more or less than one
        record, a count in its transaction, or a reason why it is none.
        """
        if self.counter is not None:
            return start
        tail = b""
        of: Operation | None = None
        at = start
        end = len(changes)
        table = None
        while at < end:
            item = changes[at]
            if type(item) is not Change:
                break
            its, operation, before, after = item
            table = its if table is None else table
            if its is not table or after is None:
                break
            if operation is not of:
                of = operation
                tail = self._tail_of(operation, transaction, now_us)
            try:
                made = self._new(after, tail) if before is None else self._same_key(before, after, tail)
            except (Partial, Unfit):
                break
            if made is None:
                break
            into.append(made)
            at += 1
        return at

    def _tail_of(self, operation: Operation, transaction: Transaction, now_us: int) -> bytes:
        """Return what all events of an operation in this transaction end with."""
        if transaction is not self._at:
            self._at = transaction
            self._tails.clear()
        tail = self._tails.get(operation)
        if tail is None or self.counter is not None:
            tail = self._tails[operation] = self._tail(operation, transaction, now_us)
        return tail

    def _new(self, after: Row, tail: bytes) -> Encoded:
        """Return the event of a new row; the shortest way where all of it was logged."""
        rows = self._rows
        if self._plain_key:
            made, key = rows.whole(after), rows.keyed(after)
            if made is not None and key is not None:
                return _dumps(key), self._insert + _dumps(made) + tail
        return self._key(after), self._insert + _dumps(rows.object(after)) + tail

    def _without_after(self, operation: Operation, before: Row | None, tail: bytes) -> list[Encoded]:
        if operation is Operation.TRUNCATE or before is None:
            return [(None, self._insert + b"null" + tail)]
        key = self._key(before)
        made: list[Encoded] = [(key, self._open + _dumps(self._rows.known(before)) + b',"after":null' + tail)]
        return [*made, (key, None)] if self._tombstones and key is not None else made

    def _same_key(self, before: Row, after: Row, tail: bytes) -> Encoded | None:
        """Return the event of an update; None when it moves the key."""
        rows = self._rows
        if rows.key_differs(before, after):
            return None
        was = b"null"
        if not rows.carries_key_alone(before):
            was = _dumps(rows.known(before))
        whole = completed(before, after)
        return self._key(after), self._open + was + b',"after":' + _dumps(rows.object(whole)) + tail

    def _moved(self, before: Row, after: Row, tail: bytes, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return what Debezium makes of a key that moves: a delete, its tombstone, and a create."""
        deleted = tail.replace(b'"op":"u"', b'"op":"d"')
        gone = self._without_after(Operation.DELETE, before, deleted)
        came = _dumps(self._rows.full(completed(before, after)))
        return [*gone, (self._key(after), self._insert + came + self._tail(Operation.INSERT, transaction, now_us))]

    def _key(self, row: Row) -> bytes | None:
        made = self._rows.key_bytes(row)
        return made if made is None or not self._before_key else self._before_key + made + self._end_key

    def _tail(self, operation: Operation, transaction: Transaction, now_us: int) -> bytes:
        source = _dumps(source_of(self._sender, self._table, transaction, operation))
        block = b"null" if self.counter is None else self.counter.next(self._table)
        return b',"source":%b,"transaction":%b,"op":"%b","ts_ms":%d,"ts_us":%d,"ts_ns":%d}%b' % (
            source,
            block,
            OPS[operation].encode(),
            now_us // 1000,
            now_us,
            now_us * 1000,
            self._end_value,
        )


def source_of(sender: Sender, table: Table, transaction: Transaction, operation: Operation) -> dict[str, Any]:
    """Return the `source` block: common fields, then those of the source's own connector."""
    time_us = transaction.commit_time_us
    snapshot = "true" if operation is Operation.READ else "false"
    made: dict[str, Any] = {
        "version": sender.version,
        "connector": sender.connector,
        "name": sender.pipeline,
        "ts_ms": time_us // 1000,
        "snapshot": snapshot,
        "db": sender.database or table.schema,
        "sequence": None,
        "ts_us": time_us,
        "ts_ns": time_us * 1000,
    }
    place = transaction.version & _PLACE
    if sender.connector == "mysql":
        return made | {"table": table.name, "server_id": 0, **_binlog_place(transaction, place)}
    made |= {"schema": table.schema, "table": table.name, "txId": _number(transaction.id)}
    if sender.connector == "postgresql":
        made |= {"lsn": place, "xmin": None}
    return made


def _binlog_place(transaction: Transaction, place: int) -> Mapping[str, Any]:
    gtid = transaction.id if ":" in transaction.id or transaction.id.count("-") == 2 else None  # noqa: PLR2004  MariaDB's
    file = getattr(transaction.position, "file", "")
    return {"gtid": gtid, "file": file, "pos": place & ((1 << 33) - 1), "row": 0, "thread": None, "query": None}


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def completed(before: Row, after: Row) -> Row:
    """Take from the row before what the log did not carry of the row after."""
    if UNCHANGED not in after:
        return after
    return tuple(old if new is UNCHANGED else new for old, new in zip(before, after, strict=True))


def message_event(message: Message, sender: Sender, transaction: Transaction, now_us: int) -> Encoded:
    """Return Debezium's event of a logical message."""
    source = source_of(sender, _NO_TABLE, transaction, Operation.INSERT)
    value = {
        "op": "m",
        "ts_ms": now_us // 1000,
        "source": source,
        "message": {"prefix": message.prefix, "content": b64encode(message.content).decode()},
    }
    return _dumps({"prefix": message.prefix}), _dumps(value)
