"""Which rows of a chunk the log has newer ones of: keys are noted by transaction, and a view says which it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from cdcsync.change import UNCHANGED, Operation

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from cdcsync.change import Change, Row, Table

NOTE_BYTES: Final = 200
"""What one noted key is taken to cost, besides its texts."""


class View(Protocol):
    """What one consistent read sees."""

    def sees(self, transaction: Hashable) -> bool:
        """Return whether a committed transaction's rows are in it."""
        ...

    def is_behind(self, place: Any) -> bool:
        """Return whether the log, read up to `place`, has given all that the view sees."""
        ...


class Window:
    """The keys of one table that the log has changed since a chunk was begun, by transaction; bounded in bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._noted: list[tuple[Hashable, Row]] = []
        self._emptied: list[Hashable] = []
        self.overflown = False
        """More came than is kept: nothing can be said of the chunk."""

    def note(self, transaction: Hashable, change: Change) -> None:
        """Note what a change touched."""
        if self.overflown:
            return
        if change.operation is Operation.TRUNCATE:
            self._emptied.append(transaction)
            return
        for row in (change.before, change.after):
            if row is None:
                continue
            key = identity(change.table, row)
            if key is None:
                self.spill()
                return
            self._noted.append((transaction, key))
            self._bytes += NOTE_BYTES + sum(len(value) for value in key if isinstance(value, str | bytes))
        if self._bytes > self._bytes_max:
            self.spill()

    def stale(self, view: View) -> frozenset[Row] | None:
        """Return the keys whose rows in this view are older than the log; None: all are."""
        known: dict[Hashable, bool] = {}

        def sees(transaction: Hashable) -> bool:
            if transaction not in known:
                known[transaction] = view.sees(transaction)
            return known[transaction]

        if not all(map(sees, self._emptied)):
            return None
        return frozenset(key for transaction, key in self._noted if not sees(transaction))

    def forget(self, view: View) -> None:
        """Forget what the view sees."""
        known: dict[Hashable, bool] = {}
        kept = []
        for transaction, key in self._noted:
            if transaction not in known:
                known[transaction] = view.sees(transaction)
            if not known[transaction]:
                kept.append((transaction, key))
        if self._noted:
            self._bytes = self._bytes * len(kept) // len(self._noted)
        self._noted = kept

    def spill(self) -> None:
        """Keep nothing more."""
        self.overflown = True
        self._noted.clear()


def identity(table: Table, row: Row) -> Row | None:
    """Return what tells the row from others: its key, or the whole row; None when the log did not carry it.

    A row before of a table with a key is known by its key alone.
    """
    key = tuple([row[at] for at in table.key_at]) if table.key_at else row
    return None if any(value is UNCHANGED for value in key) else key


def fresh(changes: Sequence[Change], stale: frozenset[Row] | None) -> Sequence[Change]:
    """Return the rows that the log has nothing newer of."""
    if stale is None:
        return []
    if not stale:
        return changes
    return [change for change in changes if identity(change.table, change.after or change.before or ()) not in stale]
