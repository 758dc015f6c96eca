"""In-memory ends: real implementations of the ports that pass the same suites as the systems' ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cdcsync.change import (
    UNCHANGED,
    Batch,
    Change,
    CopyStart,
    Operation,
    Row,
    Table,
    Transaction,
    key_of,
    pack_version,
)
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.ports import Guarantee, Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Item, Position


@dataclass(frozen=True, slots=True)
class MemoryPosition:
    """The index of the next transaction, and of the next part in it."""

    epoch: int
    index: int
    part: int = 0

    def encode(self) -> str:
        """Return `epoch:index:part`."""
        return f"{self.epoch}:{self.index}:{self.part}"

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the position of that text."""
        return cls(*map(int, text.split(":")))

    def covers(self, other: MemoryPosition) -> bool:
        """Return whether all before `other` lies before this position too."""
        return (self.epoch, self.index, self.part) >= (other.epoch, other.index, other.part)


class MemorySource:
    """A log of transactions in memory; one of more than `part_max` items comes in parts."""

    def __init__(self, log: Sequence[Sequence[Item]], part_max: int = 1000) -> None:
        self.log = log
        self.acknowledged: list[str] = []
        """Encoded positions, in the order in which they were acknowledged."""
        self.alive = 0
        """How often only "alive" was said."""
        self._part_max = part_max
        self._next = MemoryPosition(1, 0)
        self._appended = threading.Event()

    def open(self, start: str | None, epoch: int) -> None:
        """Stand at `start`, or at the beginning in a new epoch."""
        self._next = MemoryPosition.decode(start) if start else MemoryPosition(epoch + 1, 0)

    def poll(self, timeout_s: float) -> Batch | None:
        """Return the next transaction, or the next part of it."""
        here = self._next
        if here.index >= len(self.log):
            self._appended.wait(timeout_s)
            self._appended.clear()
            return None
        items = self.log[here.index]
        first = here.part * self._part_max
        part = items[first : first + self._part_max]
        last = first + self._part_max >= len(items)
        after = (
            MemoryPosition(here.epoch, here.index + 1)
            if last
            else MemoryPosition(here.epoch, here.index, here.part + 1)
        )
        transaction = Transaction(
            id=str(here.index),
            commit_time_us=here.index,
            position=after,
            version=pack_version(here.epoch, here.index + 1),
            items=part,
            ordinals=range(first, first + len(part)),
            part=here.part,
            last=last,
        )
        self._next = after
        return Batch((transaction,), after, len(part), len(part))

    def append(self, items: Sequence[Item]) -> None:
        """Add one transaction to the log."""
        self.log = [*self.log, items]
        self._appended.set()

    def acknowledge(self, position: Position | None) -> None:
        """Record it."""
        if position is None:
            self.alive += 1
        else:
            self.acknowledged.append(position.encode())

    def close(self) -> None:
        """Do nothing: the log stays."""


@dataclass
class MemoryDatabase:
    """What survives a process: rows by table name and key, and the positions by pipeline and lane."""

    rows: dict[str, dict[Row, Row]] = field(default_factory=dict)
    appended: dict[str, list[Row]] = field(default_factory=dict)
    """Rows of tables without a key."""
    stored: dict[str, Stored] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    holders: dict[tuple[str, str], MemoryStore] = field(default_factory=dict)
    """By state directory and lane: a lock is of one machine, the fence of the database."""


class MemoryStore:
    """A position store in a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase, state: str = "") -> None:
        self._database = database
        self._state = state
        self._lane = ""
        self._fence = 0

    def open(self, lane: str) -> None:
        """Take the lock and, once, the fence."""
        holder = self._database.holders.setdefault((self._state, lane), self)
        if holder is not self:
            msg = f"lane {lane!r} is held by another store"
            raise Fatal(msg, hint="stop the other pipeline", status=ExitStatus.OWNERSHIP)
        self._lane = lane
        if not self._fence:
            self._fence = self._database.fences.get(lane, 0) + 1
            self._database.fences[lane] = self._fence
        self.check_fence()

    def check_fence(self) -> None:
        """Raise Fatal when another store has taken the lane since."""
        if self._database.fences.get(self._lane) != self._fence:
            msg = f"lane {self._lane!r} was taken over"
            raise Fatal(msg, hint="another pipeline of this name runs: stop one", status=ExitStatus.OWNERSHIP)

    def load(self) -> Stored | None:
        """Return what is stored, to the one whose fence it is."""
        if self._fence:
            self.check_fence()
        return self._database.stored.get(self._lane)

    def save(self, position: Position) -> None:
        """Store on condition of the fence."""
        self.check_fence()
        self._database.stored[self._lane] = Stored(position.encode(), position.epoch)

    def close(self) -> None:
        """Release the lock."""
        if self._database.holders.get((self._state, self._lane)) is self:
            del self._database.holders[self._state, self._lane]


class MemorySink:
    """Applies changes to a MemoryDatabase, exactly once: rows and position change together."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, database: MemoryDatabase, state: str = "") -> None:
        self.database = database
        self._store = MemoryStore(database, state)
        self._open_rows: dict[str, dict[Row, Row]] | None = None
        self._open_appended: dict[str, list[Row]] = {}

    def positions(self) -> MemoryStore:
        """Return the store that shares the fence."""
        return self._store

    def open(self) -> int:
        """Return the epoch stored."""
        stored = self._store.load()
        return stored.epoch if stored else 0

    def write(self, batch: Batch) -> Position | None:
        """Apply and commit, unless it is a part and not the last."""
        stored = self._store.load()
        if stored is not None and stored.position == batch.position.encode():
            return batch.position
        if self._open_rows is None or not (batch.transactions and batch.transactions[0].part):
            self._open_appended = {}
            self._open_rows = {name: dict(rows) for name, rows in self.database.rows.items()}
            self._open_appended = {name: list(rows) for name, rows in self.database.appended.items()}
        undo = {name: dict(rows) for name, rows in self._open_rows.items()}
        undo_appended = {name: list(rows) for name, rows in self._open_appended.items()}
        reasons = self._apply_all(batch)
        if reasons:
            self._open_rows, self._open_appended = undo, undo_appended
            raise Rejected(reasons)
        if batch.transactions and not batch.transactions[-1].last:
            return None
        self._store.save(batch.position)
        self.database.rows, self.database.appended = self._open_rows, self._open_appended
        self._open_rows = None
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits but an unfinished transaction."""
        return None

    def close(self) -> None:
        """Undo an unfinished transaction."""
        self._open_rows = None

    def _apply_all(self, batch: Batch) -> dict[tuple[int, int], str]:
        reasons: dict[tuple[int, int], str] = {}
        for at, transaction in enumerate(batch.transactions):
            for index, item in enumerate(transaction.items):
                reason = self._apply(item)
                if reason:
                    reasons[at, index] = reason
        return reasons

    def _apply(self, item: Item) -> str:
        if isinstance(item, CopyStart):
            return self._begin_copy(item)
        if not isinstance(item, Change):
            return ""
        if not item.table.key and item.operation is not Operation.TRUNCATE:
            return self._append(item)
        rows = self._rows(item.table)
        if item.operation is Operation.TRUNCATE:
            rows.clear()
            self._open_appended_rows(item.table).clear()
            return ""
        held = rows.pop(key_of(item.table, item.before), None) if item.before is not None else None
        if item.after is None:
            return ""
        if held is None:
            held = rows.get(key_of(item.table, item.after))
        if held is None and UNCHANGED in item.after:
            return "an incomplete row of which the target has nothing"
        after = tuple(old if new is UNCHANGED else new for new, old in zip(item.after, held or item.after, strict=True))
        rows[key_of(item.table, after)] = after
        return ""

    def _begin_copy(self, item: CopyStart) -> str:
        rows, appended = self._rows(item.table), self._open_appended_rows(item.table)
        if not item.again and (rows or appended):
            msg = f"target table {item.table.qualified} is not empty"
            raise Fatal(msg, hint="empty it, or set `start: now`")
        rows.clear()
        appended.clear()
        return ""

    def _append(self, item: Change) -> str:
        if item.before is not None or item.after is None:
            return f"{item.operation} of a table without a key"
        self._open_appended_rows(item.table).append(item.after)
        return ""

    def _rows(self, table: Table) -> dict[Row, Row]:
        return {} if self._open_rows is None else self._open_rows.setdefault(table.qualified, {})

    def _open_appended_rows(self, table: Table) -> list[Row]:
        return self._open_appended.setdefault(table.qualified, [])


class Unmapped:
    """A transform that changes nothing."""

    def apply(self, batch: Batch) -> Batch:
        """Return the batch as it is."""
        return batch

    def tables(self, tables: Sequence[Table]) -> list[Table]:
        """Return the tables as they are."""
        return list(tables)
