"""The loops over changes that run for every row. Interpreted on purpose: compiled, a tuple's subclass is slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.change import Change, Operation, Transaction
from cdcsync.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Item, Row, Table

_CHANGE = Change
_TRUNCATE = Operation.TRUNCATE
_new = tuple.__new__


def run_end(items: Sequence[Item], start: int, total: int) -> int:
    """Return where the run of row changes of one table object ends that begins at `start`."""
    table = items[start][0]
    at = start
    while at < total:
        item = items[at]
        if item[0] is not table or type(item) is not _CHANGE or item[1] is _TRUNCATE:
            break
        at += 1
    return at


def renamed(given: Transaction, targets: Mapping[int, Table]) -> Transaction | None:
    """Map a transaction of one change of a row that goes through with no more than another table, or none at all.

    `targets` has these by the id of the source's table. None: it has to be looked at.
    """
    items = given.items
    if len(items) != 1 or type(items[0]) is not _CHANGE:
        return None
    table, operation, before, after = items[0]
    target = targets.get(id(table))
    if target is None or operation is _TRUNCATE:
        return None
    if target is table:
        return given
    return Transaction(
        given.id,
        given.commit_time_us,
        given.position,
        given.version,
        [_new(_CHANGE, (target, operation, before, after))],
        given.ordinals,
        given.part,
        given.last,
    )


def swapped(items: Sequence[Change], target: Table) -> Sequence[Item]:
    """Return these changes with the target as their table and the same row objects."""
    if type(items) is Reads:
        return Reads(target, items.rows)
    return [_new(_CHANGE, (target, item[1], item[2], item[3])) for item in items]


def projected(items: Sequence[Change], target: Table, project: Callable[[Row], Row]) -> Sequence[Item]:
    """Return these changes with the target as their table and rows of its columns."""
    if type(items) is Reads:
        return Reads(target, [project(row) for row in items.rows])
    made: list[Item] = []
    for item in items:
        before, after = item[2], item[3]
        before = None if before is None else project(before)
        after = None if after is None else project(after)
        made.append(_new(_CHANGE, (target, item[1], before, after)))
    return made
