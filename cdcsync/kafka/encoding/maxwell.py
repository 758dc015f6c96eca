"""Maxwell's JSON: `database, table, type, ts, xid, commit, data, old`. Source: Maxwell's documentation, "Data Format"."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import PLACE_BITS, Operation
from cdcsync.kafka.encoding.debezium import completed
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.rows import Rows
from cdcsync.kafka.encoding.values import Form
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Change, Row, Table, Transaction, Value
    from cdcsync.kafka.encoding.records import Encoded

_dumps: Final = orjson.dumps
_PLACE: Final = (1 << PLACE_BITS) - 1
_TYPES: Final = {
    Operation.INSERT: "insert",
    Operation.UPDATE: "update",
    Operation.DELETE: "delete",
    Operation.READ: "bootstrap-insert",
}


class MaxwellTable:
    """Writes the changes of one table version."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = Rows(table, [Form("", _CONVERTERS.get(column.type.kind)) for column in table.columns])

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:  # noqa: ARG002
        """Return the record of one change. Raises Partial, Unfit."""
        _, operation, before, after = change
        if operation is Operation.TRUNCATE:
            raise Unfit("Maxwell's messages cannot say that a table was emptied: map `truncate: ignore`")
        row = before if after is None else after if before is None else completed(before, after)
        if row is None:
            raise Unfit("it has no row")
        message: dict[str, Any] = {
            "database": self._table.schema,
            "table": self._table.name,
            "type": _TYPES[operation],
            "ts": transaction.commit_time_us // 1_000_000,
            "xid": int(transaction.id) if transaction.id.isdecimal() else transaction.version & _PLACE,
            **_place(change, transaction),
            "data": self._rows.carried(row) if after is None else self._rows.full(row),
        }
        if after is not None and before is not None:
            message["old"] = self._rows.carried(before, row)
        return [(self._key(row), _dumps(message))]

    def _key(self, row: Row) -> bytes:
        rows = self._rows
        if rows.text_key:
            return rows.key_bytes(row) or b""
        key = {f"pk.{name}": value for name, value in rows.key_object(row).items()}
        return _dumps({"database": self._table.schema, "table": self._table.name, **key})


def _place(change: Change, transaction: Transaction) -> dict[str, Any]:
    """Return `commit` for the transaction's last change, for the others which one they are."""
    items = transaction.items
    if transaction.last and items[-1] is change:
        return {"commit": True}
    at = next(at for at, item in enumerate(items) if item is change)
    return {"xoffset": transaction.ordinals[at]}


def spaced(value: str) -> str:
    """Return a date and time as MySQL writes it."""
    return value.replace("T", " ").rstrip("Z")


def _number(value: str) -> Any:
    """Pass a decimal's digits on as a number, unless it is none."""
    return orjson.Fragment(value) if value[-1:].isdecimal() else value


def _finite(value: float) -> float | str:
    return value if value - value == 0 else str(value)


def _text(value: Any) -> Any:
    return b64encode(value).decode("ascii")


def _json(value: str) -> orjson.Fragment:
    return orjson.Fragment(value)


def _bits(value: str) -> int:
    return int(value or "0", 2)


_CONVERTERS: Final[dict[Kind, Callable[[Value], Any]]] = {
    Kind.BYTES: _text,
    Kind.GEOMETRY: _text,
    Kind.DECIMAL: _number,
    Kind.FLOAT: _finite,
    Kind.JSON: _json,
    Kind.BIT: _bits,
    Kind.SET: list,
    Kind.TIMESTAMP: spaced,
    Kind.TIMESTAMPTZ: spaced,
}
