"""Debezium's transaction metadata: BEGIN and END in a topic of their own, and each event's place in its transaction.

Source: Debezium's documentation, "Transaction metadata".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Table, Transaction
    from cdcsync.kafka.encoding.records import Encoded

_dumps: Final = orjson.dumps


class Counter:
    """Counts the events of one transaction, through all its parts."""

    def __init__(self) -> None:
        self._id = ""
        self._total = 0
        self._by_table: dict[str, int] = {}

    def restore(self, kept: Mapping[str, Any] | None) -> None:
        """Count on from what `keep` returned, in this process or an earlier one."""
        kept = kept or {}
        self._id = str(kept.get("id", ""))
        self._total = int(kept.get("total", 0))
        self._by_table = dict(kept.get("tables", {}))

    def keep(self, *, within: bool) -> dict[str, Any] | None:
        """Return what the next part goes on from; None between transactions."""
        return {"id": self._id, "total": self._total, "tables": dict(self._by_table)} if within else None

    def begin(self, transaction: Transaction) -> list[Encoded]:
        """Return the BEGIN of a transaction, nothing for a later part that is counted on."""
        if transaction.part and self._id == transaction.id:
            return []
        self._id, self._total, self._by_table = transaction.id, 0, {}
        return [self._event("BEGIN", transaction, None, None)]

    def next(self, table: Table) -> bytes:
        """Return the `transaction` block of the next event."""
        self._total += 1
        of_table = self._by_table.get(table.qualified, 0) + 1
        self._by_table[table.qualified] = of_table
        return b'{"id":%b,"total_order":%d,"data_collection_order":%d}' % (_dumps(self._id), self._total, of_table)

    def undo(self, table: Table) -> None:
        """Take the last event back: it is written another way."""
        self._total -= 1
        self._by_table[table.qualified] -= 1

    def end(self, transaction: Transaction) -> list[Encoded]:
        """Return the END of a transaction, nothing before its last part."""
        if not transaction.last:
            return []
        tables = [{"data_collection": name, "event_count": count} for name, count in self._by_table.items()]
        return [self._event("END", transaction, self._total, tables)]

    def _event(
        self, status: str, transaction: Transaction, count: int | None, tables: list[dict[str, Any]] | None
    ) -> Encoded:
        value = {
            "status": status,
            "id": transaction.id,
            "ts_ms": transaction.commit_time_us // 1000,
            "event_count": count,
            "data_collections": tables,
        }
        return _dumps({"id": transaction.id}), _dumps(value)
