"""Rows that are read beside a log, as batches between those of the log; the same for every source."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from cdcsync.change import Batch, Transaction
from cdcsync.pending import FAILED, Place
from cdcsync.rebuilding import due, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Change, Position
    from cdcsync.pending import Pending
    from cdcsync.snapshot import Merged, Snapshot

CHANGES_MAX: Final = 10_000
"""Rows of one batch."""
BATCH_BYTES: Final = 2 << 20
"""Of one batch, as the server sends it."""


P = TypeVar("P", bound=Place)


class Beside:
    """What is pending, as batches; one thread, the log's, calls all methods but `figures`."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        close: Callable[[], None],
        version: Callable[[Any], int],
        rows: Mapping[str, int],
    ) -> None:
        """`version` is that of rows whose chunk was begun at a place; `rows` the server's estimate by table."""
        self.snapshot = snapshot
        self.close = close
        self._version = version
        self._rows = rows
        self.began = snapshot.began
        self.note = snapshot.note

    @property
    def done(self) -> bool:
        """Whether nothing is left to read."""
        return self.snapshot.done

    @property
    def waits(self) -> bool:
        """Whether chunks are being read, or wait for the log."""
        return self.snapshot.flying > 0

    def stored(self, position: Place) -> None:
        """Note what is durable."""
        self.snapshot.stored(position.reads)

    def batches(self, here: P, reached: Any) -> tuple[list[Batch], P]:
        """Return the rows to deliver now, all of the log up to `reached` being delivered, and the position after them."""
        batches: list[Batch] = []
        for merged in self.snapshot.turn(reached):
            made, here = self._cut(merged, here)
            batches += made
            if merged.changes:
                self.snapshot.delivered(here.reads)
        here, failed = self._failed(here)
        here, swaps = due(here)
        if swaps:
            self.snapshot.agree(here.pending)
        return batches + failed + swaps, here

    def figures(self) -> dict[str, Any]:
        """Return what is shown of it; any thread may ask."""
        figures, pending = self.snapshot.figures, self.snapshot.pending
        left = sum(self._left(each) for each in pending if each.is_read)
        rate = self.snapshot.rate()
        return {
            "tables_left": [each.table for each in pending if each.is_read],
            "rows": figures.rows,
            "rows_left": left,
            "rows_per_s": round(rate),
            "seconds_left": round(left / rate) if rate else None,
            "paused": self.snapshot.paused,
            "chunks": figures.chunks,
            "chunks_again": figures.again,
            "stale_rows": figures.stale,
            "held_by": figures.held_by,
        }

    def _failed(self, here: P) -> tuple[P, list[Batch]]:
        """Return the position with what has failed since, and the batch that says so."""
        failed = {each.id: each for each in self.snapshot.pending if each.stage == FAILED}
        pending = tuple(failed.get(each.id, each) for each in here.pending)
        if pending == here.pending:
            return here, []
        here = replace(here, reads=here.reads + 1, pending=pending)  # type: ignore[type-var]
        return here, [Batch((), cast("Position", here), 0, 0)]

    def _left(self, pending: Pending) -> int:
        return len(pending.keys) or max(0, self._rows.get(pending.table, 0) - pending.rows)

    def _cut(self, merged: Merged, here: P) -> tuple[list[Batch], P]:
        """Cut a chunk into batches; the last one's position has the chunk behind it."""
        version = self._version(merged.low)
        each = merged.size_bytes // max(1, len(merged.changes))
        rows = max(1, min(CHANGES_MAX, BATCH_BYTES // max(1, each)))
        starts = range(0, max(1, len(merged.changes)), rows)
        size_bytes = merged.size_bytes // len(starts)
        batches = []
        for start in starts:
            pending = merged.pending if start == starts[-1] else here.pending
            here = replace(here, reads=here.reads + 1, pending=pending)  # type: ignore[type-var]
            position = cast("Position", here)
            batches.append(_batch(merged.changes[start : start + rows], position, here.reads, version, size_bytes))
        return batches, here


def nothing_left(here: P) -> tuple[P, list[Batch]]:
    """Return the position with nothing to be read any more, and the batch that says so where one is needed."""
    left = tuple(each for each in here.pending if not each.is_read)
    if left == here.pending:
        return here, []
    here = replace(here, reads=here.reads + 1, pending=left)  # type: ignore[type-var]
    return here, [Batch((), cast("Position", here), 0, 0)]


def figures_of(beside: Beside | None, pending: Sequence[Pending], orders: int) -> dict[str, Any]:
    """Return what a source shows of what it reads beside its log, and of tables that are built anew.

    `orders` is how many were carried out, as it was before `pending` was looked at; 0 while nothing is known of that.
    """
    return {**(beside.figures() if beside is not None else {}), **figures(pending), "orders": orders}


def _batch(changes: Sequence[Change], position: Position, number: int, version: int, size_bytes: int) -> Batch:
    if not changes:
        return Batch((), position, 0, 0)
    at_us = time.time_ns() // 1000
    transaction = Transaction(f"read:{number}", at_us, position, version, changes, range(len(changes)))
    return Batch((transaction,), position, len(changes), size_bytes)
