"""What a change lacks, taken from an earlier change of its key in the same batch."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cdcsync.change import UNCHANGED, Change, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Batch, Row


def earlier(batch: Batch, where: tuple[int, int], change: Change) -> Change:
    """Return the change with values of the row as earlier changes of the batch left it; the same when there are none."""
    table, operation, before, after = change
    if after is None or not table.key:
        return change
    key = key_of(table, after if before is None or UNCHANGED in key_of(table, before) else before)
    row = _merged(after, before)
    for other in _backwards(batch, where):
        if other.table != table:
            continue
        if other.after is None:
            if other.before is None or key_of(table, other.before) == key:
                break
            continue
        if key_of(table, other.after) == key:
            row = _merged(row, other.after)
            if other.before is not None:
                row = _merged(row, other.before)
                key = _key_before(other, key)
            if UNCHANGED not in row:
                break
    return Change(table, operation, before, row)


def _key_before(change: Change, key: Row) -> Row:
    """Follow a key that moved."""
    before = key_of(change.table, change.before) if change.before is not None else key
    return tuple(new if old is UNCHANGED else old for old, new in zip(before, key, strict=True))


def _merged(row: Row, other: Row | None) -> Row:
    if other is None:
        return row
    return tuple(old if new is UNCHANGED else new for new, old in zip(row, other, strict=True))


def _backwards(batch: Batch, where: tuple[int, int]) -> Iterator[Change]:
    at, index = where
    inner = batch.transactions[at].items[:index]
    outer = (batch.transactions[before].items for before in range(at - 1, -1, -1))
    for items in chain([inner], outer):
        for item in reversed(items):
            if isinstance(item, Change):
                yield item
