"""Sees the changes that a binlog's groups give to the assembler, while rows are read beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import PLACE_BITS, Change
from cdcsync.mysql.view import Logged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Batch, Item, Position
    from cdcsync.snapshot import Snapshot
    from cdcsync.transaction import Assembler, Place

_PLACE: Final = (1 << PLACE_BITS) - 1


class Watch:
    """An assembler that notes each change for a snapshot; all else is the assembler's own."""

    def __init__(self, assembler: Assembler, snapshot: Snapshot, is_due: Callable[[], bool]) -> None:
        """`is_due`: whether rows that were read have waited long enough for the log to pause between transactions."""
        self._assembler = assembler
        self._snapshot = snapshot
        self._is_due = is_due
        self._pauses = False
        self._transaction = Logged(0, "")

    def __getattr__(self, name: str) -> Any:
        """Return the assembler's."""
        return getattr(self._assembler, name)

    @property
    def full(self) -> bool:
        """Whether a batch should be taken before more is read."""
        return self._pauses or self._assembler.full

    def commit(self, position: Position) -> None:
        """End a transaction, and pause where it is time."""
        self._assembler.commit(position)
        self._pauses = self._is_due()

    def take(self) -> Batch | None:
        """Return what is complete."""
        self._pauses = False
        return self._assembler.take()

    def begin(self, identity: str, version: int, commit_time_us: int, place: Place) -> None:
        """Note which transaction follows."""
        self._transaction = Logged(version & _PLACE, identity)
        self._assembler.begin(identity, version, commit_time_us, place)

    def add(self, item: Item, raw: bytes) -> None:
        """Note one item."""
        self._note([item])
        self._assembler.add(item, raw)

    def add_all(self, items: Sequence[Item], raw: bytes) -> None:
        """Note what one raw change gave."""
        self._note(items)
        self._assembler.add_all(items, raw)

    def add_rows(self, items: Sequence[Item], raw: bytes, starts: Sequence[int], end: int) -> None:
        """Note the rows of an event."""
        self._note(items)
        self._assembler.add_rows(items, raw, starts, end)

    def undo(self, mark: tuple[int, int]) -> bool:
        """What was noted and is undone now is not in the log: chunks are read again."""
        self._snapshot.doubt()
        return self._assembler.undo(mark)

    def _note(self, items: Sequence[Item]) -> None:
        note, transaction = self._snapshot.note, self._transaction
        if self._snapshot.flying:
            for item in items:
                if isinstance(item, Change):
                    note(transaction, item)
