"""Assembles a stream of begins, changes and commits into batches within bounds, and cuts large transactions."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdcsync.change import Batch, Transaction
from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Item, Position


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one batch. A transaction that passes either is cut into parts."""

    changes_max: int = 5_000
    size_bytes_max: int = 4 << 20


@dataclass(frozen=True, slots=True)
class Begun:
    """What a source knows when a transaction begins."""

    id: str
    commit_time_us: int
    version: int
    within: Callable[[int, int], Position]
    """The position inside it after that many raw changes, the last of which has this checksum (CRC-32)."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a stored position says about the transaction that it lies in."""

    id: str
    count: int
    """Raw changes."""
    checksum: int


class Assembler:
    """Takes the raw changes of one log in commit order; gives batches. Memory is within the bounds.

    A raw change is what the log counts as one: a row, a truncate, a transactional message, wanted or not.
    """

    def __init__(self, bounds: Bounds, resume: Delivered | None = None, lane: str = "") -> None:
        self._bounds = bounds
        self._resume = resume
        self._lane = lane
        self._whole: list[Transaction] = []
        self._whole_changes = 0
        self._whole_bytes = 0
        self._position: Position | None = None
        """After the last whole transaction."""
        self._begun: Begun | None = None
        self._items: list[Item] = []
        self._ordinals: list[int] = []
        self._size_bytes = 0
        self._count = 0
        """Raw changes of the open transaction so far."""
        self._raw = b""
        """The last of them."""
        self._part = 0
        self._cut: Batch | None = None

    @property
    def inside(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._begun is not None

    @property
    def ready(self) -> bool:
        """Whether `take` gives something."""
        return self._position is not None or self._cut is not None

    @property
    def full(self) -> bool:
        """Whether `take` must be called before the next raw change."""
        return (
            self._cut is not None
            or len(self._items) >= self._bounds.changes_max
            or self._size_bytes >= self._bounds.size_bytes_max
            or self._whole_changes + len(self._items) >= self._bounds.changes_max
            or self._whole_bytes + self._size_bytes >= self._bounds.size_bytes_max
        )

    @property
    def skipping(self) -> bool:
        """Whether the next raw change was delivered before; `skip` takes it instead of `add`."""
        return self._resume is not None

    def begin(self, begun: Begun) -> None:
        """Begin a transaction. Raises Fatal when a stored position lies inside another one."""
        if self._resume is not None and self._resume.id != begun.id:
            fault = f"the stored position lies in transaction {self._resume.id}, the log has {begun.id} there"
            raise _moved(fault)
        self._begun = begun
        self._count = 0
        self._size_bytes = 0
        self._part = 0

    def skip(self, raw: bytes) -> None:
        """Take a raw change that was delivered before. Raises Fatal when the last of them is another one."""
        resume = self._resume
        self._count += 1
        if resume is None or self._count < resume.count:
            return
        if zlib.crc32(raw) != resume.checksum:
            fault = f"raw change {resume.count} of transaction {resume.id} is not the one that was delivered"
            raise _moved(fault)
        self._resume = None
        self._part = 1
        self._raw = raw

    def add(self, items: list[Item] | tuple[Item, ...], raw: bytes) -> None:
        """Take one raw change and what is wanted of it: nothing, an item, or one for each table truncated."""
        if self._items and self._is_over():
            self._cut_part()
        ordinal = self._count
        self._count = ordinal + 1
        self._raw = raw
        if items:
            self._size_bytes += len(raw)
        for item in items:
            self._items.append(item)
            self._ordinals.append(ordinal)

    def note(self, item: Item) -> None:
        """Take an item that the log does not count, such as a schema change, in its place."""
        self._items.append(item)
        self._ordinals.append(self._count)

    def commit(self, position: Position) -> None:
        """End the transaction; `position` is where the log goes on."""
        if self._resume is not None:
            fault = f"transaction {self._resume.id} ends before the raw change that was delivered last"
            raise _moved(fault)
        transaction = self._transaction(position, last=True)
        if self._part:
            self._cut = self._batch_of(transaction)
        else:
            self._position = position
            self._whole_changes += len(transaction.items)
            self._whole_bytes += self._size_bytes
            if transaction.items:
                self._whole.append(transaction)
        self._clear()
        self._begun = None

    def take(self) -> Batch | None:
        """Return the whole transactions at hand (none when nothing of them is wanted), else one part of a large one; None when there is neither."""
        if self._position is not None:
            batch = Batch(tuple(self._whole), self._position, self._whole_changes, self._whole_bytes, self._lane)
            self._whole = []
            self._position = None
            self._whole_changes = self._whole_bytes = 0
            return batch
        if self._cut is None and self._items and self._is_over():
            self._cut_part()
        batch_of_part, self._cut = self._cut, None
        return batch_of_part

    def _is_over(self) -> bool:
        return len(self._items) >= self._bounds.changes_max or self._size_bytes >= self._bounds.size_bytes_max

    def _cut_part(self) -> None:
        begun = self._opened()
        position = begun.within(self._count, zlib.crc32(self._raw))
        self._cut = self._batch_of(self._transaction(position, last=False))
        self._part += 1
        self._clear()

    def _transaction(self, position: Position, *, last: bool) -> Transaction:
        begun = self._opened()
        return Transaction(
            begun.id, begun.commit_time_us, position, begun.version, self._items, self._ordinals, self._part, last
        )

    def _batch_of(self, transaction: Transaction) -> Batch:
        return Batch((transaction,), transaction.position, len(transaction.items), self._size_bytes, self._lane)

    def _opened(self) -> Begun:
        if self._begun is None:
            raise Fatal("the log has a change outside of a transaction", hint="report it with the server's version")
        return self._begun

    def _clear(self) -> None:
        self._items = []
        self._ordinals = []
        self._size_bytes = 0


def _moved(fault: str) -> Fatal:
    return Fatal(
        f"cannot go on inside a transaction: {fault}",
        hint="the publication or the history has changed since: put it back as it was, or forget the position with "
        "`cdcsync positions clear` and copy everything again",
    )
