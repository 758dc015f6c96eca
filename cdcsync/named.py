"""Rows by their keys, as they are now at the source: what is there is read, what is not is a delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.change import UNCHANGED, Change, Operation, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.pending import Pending


ROW_BYTES: Final = 200
"""What a row that is read by its key is taken to have."""
KEYS_MAX: Final = 2_000
"""Keys of one order."""
KEYS_BYTES_MAX: Final = 24 << 10
"""Of these, as JSON: they travel on the control socket, and with the position until they are read."""


def changes(table: Table, pending: Pending, ask: Callable[[Table, Sequence[Row]], list[Row]]) -> list[Change]:
    """Return the changes that make a target have these rows as the source has them.

    `ask` gives rows by key in one view; a database may find a key that is written in another way than it writes it.
    """
    wanted = keys_alone(table) if pending.gone else table
    there = {key_of(wanted, row): row for row in ask(wanted, pending.keys)}
    missing = [key for key in pending.keys if key not in there]
    if missing and ask(wanted, missing):
        missing = [key for key in missing if not ask(wanted, [key])]
    rows = () if pending.gone else there.values()
    return [
        *(Change(table, Operation.DELETE, _alone(table, key), None) for key in missing),
        *(Change(table, Operation.READ, None, row) for row in rows),
    ]


def keys_alone(table: Table) -> Table:
    """Return the table with no other columns than its key's."""
    return type(table)(table.schema, table.name, tuple(table.columns[at] for at in table.key_at), table.key)


def _alone(table: Table, key: Row) -> Row:
    """Return a row of which the key is known and no more."""
    values = dict(zip(table.key_at, key, strict=True))
    return tuple(values.get(at, UNCHANGED) for at in range(len(table.columns)))


def named(changed: Iterable[Change]) -> Iterator[tuple[Table, Row]]:
    """Yield the keys that changes touch, before and after; those that the log did not carry cannot be named."""
    for change in changed:
        for row in (change.before, change.after):
            if row is None or not change.table.key:
                continue
            key = key_of(change.table, row)
            if UNCHANGED not in key:
                yield change.table, key
