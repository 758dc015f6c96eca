"""A source table and its target, as the mapping joins them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdcsync.change import Batch, Change, Operation, Table, Transaction
from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Row
    from cdcsync.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Pair:
    """One source table and its target."""

    source: Table
    """With the target's key, by the source's names, so that both scans have one order."""
    given: Table
    """As the source has it: what the mapping knows."""
    target: Table
    hashed: Table | None
    """The source's columns in the target's order; None where a target's column is made by the mapping."""
    soft_at: int | None
    """Index of the column that soft delete sets."""
    keeps_deleted: bool
    """Deletes are ignored: rows gone from the source stay in the target."""


class _Nowhere:
    """The position of the transactions in which scanned rows go through the mapping."""

    epoch = 0

    def encode(self) -> str:
        return "verify"

    def covers(self, other: _Nowhere) -> bool:  # noqa: ARG002  the protocol's
        return True


def paired(mapping: Mapping, table: Table) -> Pair | None:
    """Find out what the mapping does with a table; None when it does not take it.

    Raises Fatal where rows cannot be compared one by one.
    """
    plans = mapping.plans(table)
    if not plans:
        return None
    plan, names = plans[0], plans[0].lineage
    key = tuple(name for index in plan.target.key_at if (name := names[index]) is not None)
    if len(plans) > 1 or plan.by is not None or plan.history or len(key) < len(plan.target.key):
        msg = f"table {table.qualified} has several targets, a history, or a computed key, and cannot be compared"
        raise Fatal(msg, hint="name another table", status=ExitStatus.CONFIG)
    soft_at = len(names) - 1 if plan.delete == "soft" else None
    keeps = bool(plan.target.key) and plan.delete == "ignore"
    return Pair(replace(table, key=key), table, plan.target, _in_order_of(table, names, key), soft_at, keeps)


def _in_order_of(table: Table, names: Sequence[str | None], key: tuple[str, ...]) -> Table | None:
    taken = [table.columns[table.at[name]] for name in names if name is not None]
    return replace(table, columns=tuple(taken), key=key) if len(taken) == len(names) else None


def mapped_rows(transform: Mapping, pair: Pair, rows: Iterable[Row]) -> list[Row]:
    """Return the target's rows of these source rows."""
    changes = [Change(pair.given, Operation.READ, None, row) for row in rows]
    return [change.after for change in _map(transform, changes) if change.after is not None]


def _map(transform: Mapping, changes: Sequence[Change]) -> list[Change]:
    nowhere = _Nowhere()
    transaction = Transaction("verify", 0, nowhere, 0, changes, range(len(changes)))
    mapped = transform.apply(Batch((transaction,), nowhere, len(changes), 0))
    return [item for each in mapped.transactions for item in each.items if isinstance(item, Change)]
