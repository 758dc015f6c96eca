"""Completes changes that the log did not carry whole and the target cannot: their rows are read again at the source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cdcsync.change import UNCHANGED, Batch, Change, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.change import Row, Table, Transaction
    from cdcsync.ports import Rereader


class _Lacking(NamedTuple):
    """One change of the source whose row has to be read again."""

    at: int
    item: int
    key: Row


def completed(given: Batch, mapped: Batch, refs: Iterable[tuple[int, int]], rereader: Rereader) -> Batch | None:
    """Return the source's batch with whole rows where `refs` of the mapped batch lack values.

    A row that is gone at the source is left out: the log brings its end, or its move to another key. None: one of
    the rows cannot be asked for, as the log did not carry its key. Raises Transient and Fatal.
    """
    lacking: dict[Table, list[_Lacking]] = {}
    for at, index in refs:
        ordinal = mapped.transactions[at].ordinals[index]
        found = _find(given.transactions[at], at, ordinal)
        if found is None:
            return None
        lacking.setdefault(found[0], []).append(found[1])
    rows: dict[tuple[int, int], Change | None] = {}
    for table, each in lacking.items():
        transactions = [given.transactions[at] for at in sorted({one.at for one in each})]
        there = {key_of(table, row): row for row in rereader.reread(table, [one.key for one in each], transactions)}
        for one in each:
            change = given.transactions[one.at].items[one.item]
            assert isinstance(change, Change)  # noqa: S101  `_find` took no other
            row = there.get(one.key)
            rows[one.at, one.item] = None if row is None else change._replace(after=row)
    return _with(given, rows)


def _find(transaction: Transaction, at: int, ordinal: int) -> tuple[Table, _Lacking] | None:
    for index, item in enumerate(transaction.items):
        if transaction.ordinals[index] != ordinal or not isinstance(item, Change) or item.after is None:
            continue
        key = key_of(item.table, item.after)
        if not key or any(value is UNCHANGED for value in key):
            return None
        return item.table, _Lacking(at, index, key)
    return None


def _with(given: Batch, rows: dict[tuple[int, int], Change | None]) -> Batch:
    """Return the batch with these items in the place of its own; None: left out."""
    transactions = list(given.transactions)
    for at in {at for at, _ in rows}:
        before = transactions[at]
        pairs = [
            (rows.get((at, index), item), ordinal)
            for index, (item, ordinal) in enumerate(zip(before.items, before.ordinals, strict=True))
        ]
        kept = [(item, ordinal) for item, ordinal in pairs if item is not None]
        transactions[at] = replace(before, items=[item for item, _ in kept], ordinals=[each for _, each in kept])
    gone = sum(1 for row in rows.values() if row is None)
    return replace(given, transactions=transactions, changes=given.changes - gone)
