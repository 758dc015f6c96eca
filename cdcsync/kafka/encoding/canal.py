"""Canal's flat JSON: `data, old, mysqlType, sqlType, pkNames, es, ts, type`; every value is a string.

Source: Canal's `FlatMessage` and its wiki; one row a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import PLACE_BITS, Operation
from cdcsync.kafka.encoding.debezium import completed
from cdcsync.kafka.encoding.maxwell import spaced
from cdcsync.kafka.encoding.rows import Rows
from cdcsync.kafka.encoding.values import Form
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Change, Table, Transaction, Value
    from cdcsync.kafka.encoding.records import Encoded
    from cdcsync.types import Type

_dumps: Final = orjson.dumps
_PLACE: Final = (1 << PLACE_BITS) - 1
_TYPES: Final = {
    Operation.INSERT: "INSERT",
    Operation.READ: "INSERT",
    Operation.UPDATE: "UPDATE",
    Operation.DELETE: "DELETE",
    Operation.TRUNCATE: "TRUNCATE",
}
_INTEGERS: Final = {8: ("tinyint", -6), 16: ("smallint", 5), 24: ("mediumint", 4), 32: ("int", 4), 64: ("bigint", -5)}
_SQL: Final = {
    Kind.BOOLEAN: ("tinyint(1)", -7),
    Kind.BYTES: ("blob", 2004),
    Kind.GEOMETRY: ("geometry", 2004),
    Kind.DATE: ("date", 91),
    Kind.TIME: ("time", 92),
    Kind.TIMESTAMP: ("datetime", 93),
    Kind.TIMESTAMPTZ: ("timestamp", 93),
    Kind.JSON: ("json", 12),
}
"""MySQL's name and `java.sql.Types`' number."""


class CanalTable:
    """Writes the changes of one table version."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = Rows(table, [Form("", _CONVERTERS.get(column.type.kind, str)) for column in table.columns])
        types = {column.name: _type(column.type) for column, _ in self._rows.columns}
        self._types = {
            "mysqlType": {name: word for name, (word, _) in types.items()},
            "pkNames": list(table.key) or None,
            "sqlType": {name: number for name, (_, number) in types.items()},
        }

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return the record of one change. Raises Partial."""
        _, operation, before, after = change
        message: dict[str, Any] = {
            "data": None,
            "database": self._table.schema,
            "es": transaction.commit_time_us // 1000,
            "gtid": transaction.id if ":" in transaction.id else "",
            "id": transaction.version & _PLACE,
            "isDdl": operation is Operation.TRUNCATE,
            "old": None,
            "sql": "",
            "table": self._table.name,
            "ts": now_us // 1000,
            "type": _TYPES[operation],
        }
        row = before if after is None else after if before is None else completed(before, after)
        if row is None:
            return [(None, _dumps(message))]
        data = self._rows.carried(row) if after is None else self._rows.full(row)
        message |= {"data": [data], **self._types}
        if after is not None and before is not None:
            message["old"] = [self._rows.carried(before, row)]
        return [(self._rows.key_bytes(row), _dumps(message))]


def _latin(value: bytes) -> str:
    return value.decode("latin-1")


def _bits(value: str) -> str:
    return str(int(value or "0", 2))


def _array(value: tuple[Value, ...]) -> str:
    return _dumps(value, default=str).decode()


_CONVERTERS: Final[dict[Kind, Callable[[Value], str]]] = {
    Kind.BOOLEAN: lambda value: "1" if value else "0",
    Kind.BYTES: _latin,
    Kind.GEOMETRY: _latin,
    Kind.BIT: _bits,
    Kind.SET: ",".join,
    Kind.TIMESTAMP: spaced,
    Kind.TIMESTAMPTZ: spaced,
    Kind.ARRAY: _array,
}


def _type(kind: Type) -> tuple[str, int]:
    """Return MySQL's type and its number in `java.sql.Types`."""
    if kind.kind is Kind.INTEGER:
        word, number = _INTEGERS.get(kind.bits, _INTEGERS[64])
        return f"{word}{' unsigned' if kind.unsigned else ''}", number
    if kind.kind is Kind.FLOAT:
        return ("float", 7) if kind.bits == 32 else ("double", 8)  # noqa: PLR2004  bits
    if kind.kind is Kind.DECIMAL:
        return f"decimal({kind.precision},{kind.scale or 0})" if kind.precision else "decimal(65,30)", 3
    if kind.kind is Kind.BIT:
        return f"bit({kind.length or 64})", -7
    if kind.kind in {Kind.ENUM, Kind.SET}:
        labels = ",".join("'" + label.replace("'", "''") + "'" for label in kind.labels)
        return f"{kind.kind.value}({labels})", 4 if kind.kind is Kind.ENUM else -7
    if kind.kind is Kind.TEXT and kind.length:
        return f"{'char' if kind.fixed else 'varchar'}({kind.length})", 1 if kind.fixed else 12
    word, number = _SQL.get(kind.kind, ("text", 2005))
    return f"{word}({kind.precision})" if kind.precision and kind.kind in _FRACTIONS else word, number


_FRACTIONS: Final = frozenset({Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
