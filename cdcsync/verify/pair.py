"""A source table and one of its targets, as the mapping joins them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdcsync.change import Change, Operation, Table, Transaction
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mapping.failures import FAILURES
from cdcsync.mapping.model import OnTruncate
from cdcsync.mapping.plan import Moment, Unmappable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdcsync.change import Row
    from cdcsync.mapping import Mapping
    from cdcsync.mapping.plan import Plan


@dataclass(frozen=True, slots=True)
class Pair:
    """One source table and one of its targets."""

    plan: Plan
    source: Table
    """With the target's key by the source's names, so that both scans have one order, where `by_key`; else as given."""
    given: Table
    """As the source has it: what the mapping knows."""
    target: Table
    """Under `history` with the source's key, of which the target has many rows."""
    hashed: Table | None
    """The source's columns in the target's order; None where the target's rows are not the source's by themselves."""
    by_key: bool
    """Whether the target's key names rows of the source; else it is computed of them."""
    unknown: frozenset[str] = frozenset()
    """Columns that hold more than the row says, as the time of its commit: they are not compared."""
    soft_at: int | None = None
    """Index of the column that soft delete sets."""
    keeps_deleted: bool = False
    """Rows that are not, or no longer, at the source stay in the target."""
    time_at: int | None = None
    """Index of the time of a version under `history`, the operation being just before it."""


class _Nowhere:
    """The position of the transactions in which scanned rows go through the mapping."""

    epoch = 0

    def encode(self) -> str:
        return "verify"

    def covers(self, other: _Nowhere) -> bool:  # noqa: ARG002  the protocol's
        return True


def paired(mapping: Mapping, table: Table) -> list[Pair]:
    """Find out what the mapping does with a table: a pair for each target, none when it does not take it.

    Raises Fatal where rows cannot be compared one by one.
    """
    return [_pair(plan, table, target) for plan in mapping.plans(table) for target in plan.targets]


def _pair(plan: Plan, table: Table, target: Table) -> Pair:
    names, unknown = plan.lineage, _unknown(plan)
    pair = Pair(plan, table, table, target, None, by_key=True, unknown=unknown)
    if plan.history:
        return _history(pair, names)
    if unknown & set(target.key):
        raise _refused(table, "the key of its target says more than the row does")
    key = tuple(name for index in target.key_at if (name := names[index]) is not None)
    by_key = len(key) == len(target.key)
    whole = by_key and plan.where is None and plan.by is None
    return replace(
        pair,
        source=replace(table, key=key) if by_key else table,
        hashed=_in_order_of(table, names, key) if whole else None,
        by_key=by_key,
        soft_at=len(names) - 1 if plan.delete == "soft" else None,
        keeps_deleted=bool(target.key) and plan.delete == "ignore",
    )


def _history(pair: Pair, names: Sequence[str | None]) -> Pair:
    """Return the pair with the target's rows by the source's key: the latest of each is what the source has now."""
    plan, table = pair.plan, pair.given
    if plan.where is not None and not plan.where.program.plain:
        raise _refused(table, "which of its versions are in the target hangs on more than the row")
    at = {name: index for index, name in enumerate(names) if name is not None}
    if not table.key or any(name not in at for name in table.key):
        raise _refused(table, "its history has not all of the source's key")
    target = replace(pair.target, key=tuple(pair.target.columns[at[name]].name for name in table.key))
    last = len(target.columns) - 1
    added = {target.columns[last - 1].name, target.columns[last].name}
    keeps = plan.where is not None or plan.truncate is OnTruncate.IGNORE
    return replace(pair, target=target, unknown=pair.unknown | added, keeps_deleted=keeps, time_at=last)


def _refused(table: Table, why: str) -> Fatal:
    msg = f"table {table.qualified} cannot be compared: {why}"
    return Fatal(msg, hint="name another table", status=ExitStatus.CONFIG)


def _unknown(plan: Plan) -> frozenset[str]:
    outputs = plan.computed.outputs if plan.computed is not None else ()
    made = zip(plan.target.columns, outputs, strict=False)
    return frozenset(column.name for column, output in made if not isinstance(output, int) and not output.plain)


def _in_order_of(table: Table, names: Sequence[str | None], key: tuple[str, ...]) -> Table | None:
    taken = [table.columns[table.at[name]] for name in names if name is not None]
    return replace(table, columns=tuple(taken), key=key) if len(taken) == len(names) else None


def mapped(pair: Pair, rows: Iterable[Row], refused: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield each row that has one in the target, with that; those that the mapping rejects go to `refused`."""
    plan = pair.plan
    if plan.direct and plan.project is None:
        yield from ((row, row) for row in rows)
        return
    moment = Moment(Transaction("verify", 0, _Nowhere(), 0, (), ()))
    for row in rows:
        if plan.direct and plan.project is not None:
            try:
                yield row, plan.project(row)
                continue
            except FAILURES:
                refused.append(row)
                continue
        try:
            made = plan.map(Change(pair.given, Operation.READ, None, row), moment)
        except Unmappable:
            refused.append(row)
            continue
        for change in made:
            if change.after is not None and (pair.time_at is not None or change.table == pair.target):
                yield row, change.after
