"""Assembles batches out of a stream of begins, changes and commits; cuts large transactions, resumes inside them."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cdcsync.change import Batch, Transaction
from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Item, Position

CHANGES_MAX: Final = 2000
"""Changes of one batch, and of one part of a large transaction."""
SIZE_BYTES_MAX: Final = 2 << 20


class Place(Protocol):
    """Makes positions inside the transaction that is being read."""

    def __call__(self, delivered: int, checksum: int) -> Position:
        """Return the position after that many raw changes, the last having that CRC-32."""
        ...


@dataclass(frozen=True, slots=True)
class Resume:
    """What of a transaction was delivered before; it is read again from its start and skipped."""

    id: str
    delivered: int
    """Raw changes."""
    checksum: int
    """CRC-32 of the last one."""


class Assembler:
    """Collects one lane's log. Memory is bounded by one part, whatever the transaction's size."""

    def __init__(self, changes_max: int = CHANGES_MAX, size_bytes_max: int = SIZE_BYTES_MAX, raw_at: int = 0) -> None:
        self._changes_max = changes_max
        self._raw_at = raw_at
        """Where the part of a raw change begins that is the same when it is read again."""
        self._size_bytes_max = size_bytes_max
        self.full = False
        """Whether a batch should be taken before more is read."""
        self._ready: deque[Batch] = deque()
        self._done: list[Transaction] = []
        self._done_changes = 0
        self._done_bytes = 0
        self._reached: Position | None = None
        """After the last commit; None when it was taken."""
        self._resume: Resume | None = None
        self._open = False
        self._items: list[Item] = []
        self._ordinals: list[int] = []
        self._bytes = 0
        self._raw = 0
        self._skip = 0
        self._expected = 0
        self._part = 0
        self._last_raw: bytes = b""
        """What holds the raw change counted last, from where to where, and how many it made."""
        self._last_from = self._last_to = self._last_count = 0
        self._id = ""
        self._version = self._commit_time_us = 0
        self._place: Place | None = None

    @property
    def within(self) -> bool:
        """Whether a transaction is open."""
        return self._open

    @property
    def idle(self) -> bool:
        """Whether nothing was read that is not taken."""
        return not self._open and not self._ready and self._reached is None

    @property
    def ready(self) -> bool:
        """Whether `take` gives something."""
        return bool(self._ready) or self._reached is not None

    def resume(self, resume: Resume) -> None:
        """Skip what was delivered of the transaction that comes first."""
        self._resume = resume

    def begin(self, identity: str, version: int, commit_time_us: int, place: Place) -> None:
        """Begin a transaction. Raises Fatal when it is not the one to resume in."""
        self._open = True
        self._id, self._version, self._commit_time_us, self._place = identity, version, commit_time_us, place
        self._part = self._raw = self._skip = 0
        resume, self._resume = self._resume, None
        if resume is None:
            return
        if resume.id != identity:
            fault = f"transaction {identity} comes where {resume.id} was being delivered"
            raise _other(fault)
        self._skip = resume.delivered
        self._expected = resume.checksum
        self._part = 1

    def add(self, item: Item, raw: bytes) -> None:
        """Add the one item of a raw change of the log; cut a part when there are enough."""
        if self._counted(raw):
            self._items.append(item)
            self._ordinals.append(self._raw - 1)

    def add_all(self, items: Sequence[Item], raw: bytes) -> None:
        """Add what one raw change of the log gave: several items, or none that is wanted."""
        if self._counted(raw):
            self._items.extend(items)
            self._ordinals.extend([self._raw - 1] * len(items))

    def _counted(self, raw: bytes) -> bool:
        """Count a raw change; return whether it was not delivered before."""
        self._raw += 1
        if self._raw <= self._skip:
            if self._raw == self._skip:
                self._last_raw, self._last_from, self._last_to = raw, self._raw_at, len(raw)
                self._last_count = self._raw
                self._check_last()
            return False
        if len(self._items) >= self._changes_max or self._bytes >= self._size_bytes_max:
            self._cut()
        self._bytes += len(raw)
        self._last_raw, self._last_from, self._last_to = raw, self._raw_at, len(raw)
        self._last_count = self._raw
        return True

    def add_rows(self, items: Sequence[Item], raw: bytes, starts: Sequence[int], end: int) -> None:
        """Add the rows of one event of the log, each a raw change: one item each, and where each begins in `raw`."""
        count = len(items)
        at = self._skipped(raw, starts, end) if self._raw < self._skip else 0
        while at < count:
            if len(self._items) >= self._changes_max or self._bytes >= self._size_bytes_max:
                self._cut()
            taken = min(count - at, self._changes_max - len(self._items))
            until = at + taken
            self._items.extend(items[at:until] if taken < count else items)
            self._ordinals.extend(range(self._raw, self._raw + taken))
            self._raw += taken
            self._last_raw, self._last_from = raw, starts[until - 1]
            self._last_to = starts[until] if until < count else end
            self._last_count = self._raw
            self._bytes += self._last_to - starts[at]
            at = until

    def add_unwanted(self, raw: bytes, starts: Sequence[int], end: int) -> None:
        """Count the rows of an event that nobody wants."""
        at = self._skipped(raw, starts, end) if self._raw < self._skip else 0
        self._raw += len(starts) - at

    def _skipped(self, raw: bytes, starts: Sequence[int], end: int) -> int:
        """Count the rows of an event that were delivered before, and return how many these are."""
        count = len(starts)
        taken = min(count, self._skip - self._raw)
        self._raw += taken
        if self._raw == self._skip and taken:
            self._last_raw, self._last_from = raw, starts[taken - 1]
            self._last_to = starts[taken] if taken < count else end
            self._last_count = self._raw
            self._check_last()
        return taken

    def _check_last(self) -> None:
        if self._checksum() != self._expected:
            fault = f"raw change {self._raw} of transaction {self._id} is not the one that was delivered"
            raise _other(fault)

    def announce(self, items: Sequence[Item]) -> None:
        """Add what comes with the next row, before it, unless that was delivered before."""
        if self._raw >= self._skip:
            self._items.extend(items)
            self._ordinals.extend([self._raw] * len(items))

    def mark(self) -> tuple[int, int]:
        """Return where the open transaction stands, for `undo`."""
        return (self._part if self._raw >= self._skip else -1), len(self._items)

    def undo(self, mark: tuple[int, int]) -> bool:
        """Take back what the transaction did since; return False when some of that was given away in a part.

        What was counted stays counted: the log has it.
        """
        part, kept = mark
        if part != self._part:
            return False
        del self._items[kept:]
        del self._ordinals[kept:]
        return True

    def commit(self, position: Position) -> None:
        """End the transaction; `position` is after it. Raises Fatal when it ends before where to resume."""
        if self._raw < self._skip:
            fault = f"transaction {self._id} has {self._raw} raw changes, {self._skip} were delivered"
            raise _other(fault)
        self._open = False
        if self._part:
            self._put_part(position, last=True)
            return
        self._reached = position
        if self._items:
            self._done.append(self._transaction(position, True))  # noqa: FBT003  positional in C
            self._done_changes += len(self._items)
            self._done_bytes += self._bytes
        self._clear()
        self._measure()

    def alone(self, identity: str, version: int, commit_time_us: int, item: Item, position: Position) -> None:
        """Add one item that belongs to no transaction of the log."""
        self._done.append(Transaction(identity, commit_time_us, position, version, (item,), (0,)))
        self._done_changes += 1
        self._reached = position
        self._measure()

    def take(self) -> Batch | None:
        """Return what is complete: all whole transactions, or one part; None when nothing is."""
        batch = self._ready.popleft() if self._ready else self._gathered()
        self._measure()
        return batch

    def _measure(self) -> None:
        self.full = (
            bool(self._ready) or self._done_changes >= self._changes_max or self._done_bytes >= self._size_bytes_max
        )

    def _gathered(self) -> Batch | None:
        position, self._reached = self._reached, None
        if position is None:
            return None
        batch = Batch(tuple(self._done), position, self._done_changes, self._done_bytes)
        self._done = []
        self._done_changes = self._done_bytes = 0
        return batch

    def _cut(self) -> None:
        if self._place is not None:
            self._put_part(self._place(self._last_count, self._checksum()), last=False)

    def _put_part(self, position: Position, *, last: bool) -> None:
        """Make a part alone in its batch ready, after all that was complete before it."""
        before = self._gathered()
        if before is not None:
            self._ready.append(before)
        part = self._transaction(position, last)
        self._ready.append(Batch((part,), position, len(self._items), self._bytes))
        self._part += 1
        self._clear()
        self._measure()

    def _transaction(self, position: Position, last: bool) -> Transaction:  # noqa: FBT001  positional in C
        return Transaction(
            self._id,
            self._commit_time_us,
            position,
            self._version,
            self._items,
            self._ordinals,
            self._part,
            last,
        )

    def _checksum(self) -> int:
        """Return the CRC-32 of the raw change that `_last_raw` holds."""
        return zlib.crc32(memoryview(self._last_raw)[self._last_from : self._last_to])

    def _clear(self) -> None:
        self._items, self._ordinals, self._bytes = [], [], 0


def _other(what: str) -> Fatal:
    return Fatal(
        f"the log is not the one that was being delivered: {what}",
        hint="source and stored position do not belong together: forget the position with `cdcsync positions clear` "
        "and copy everything again",
        status=ExitStatus.DATA,
    )
