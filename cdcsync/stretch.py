"""A stretch of a log: a source that ends, and the place of a time in it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdcsync.change import Batch, in_epoch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Position, Transaction
    from cdcsync.ports import Source


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a log is wanted, in whole transactions."""

    start: Position
    end: Position | None = None
    """The first place that is not wanted; None: the log is followed."""
    until_us: int | None = None
    """The first transaction committed at this time or later is not wanted, nor what comes after it."""


class Stretch:
    """A source that gives what lies within bounds, and no change more. See `ports.Source`."""

    def __init__(
        self,
        source: Source,
        bounds: Bounds,
        decode: Callable[[str], Position],
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a source of the log; `over` is called, by the source's thread, when all of it is acknowledged."""
        self._source = source
        self._decode = decode
        self._bounds = bounds
        self._over = over
        self._here = bounds.start
        self._last: Position | None = None
        self._closed = threading.Event()

    def ended_at(self, position: Position) -> bool:
        """Return whether nothing comes after a batch of this position."""
        return self._last is not None and position.covers(self._last)

    def open(self, start: str | None, epoch: int) -> None:
        """Stand at `start`, or where the stretch begins."""
        self._last = None
        self._closed.clear()
        self._here = self._decode(start) if start else self._bounds.start
        self._source.open(start or self._bounds.start.encode(), epoch)

    def poll(self, timeout_s: float) -> Batch | None:
        """Return what comes, cut at the end; from then on its position again, which makes a sink flush what waits."""
        if self._last is not None:
            self._source.acknowledge(None)
            self._closed.wait(timeout_s)
            return Batch((), self._last, 0, 0)
        if self._reaches(self._here):
            return self._finished(Batch((), self._here, 0, 0))
        batch = self._source.poll(timeout_s)
        if batch is None:
            return None
        kept = self._kept(batch)
        self._here = kept.position
        if len(kept.transactions) < len(batch.transactions) or self._reaches(kept.position):
            return self._finished(kept)
        return kept

    def acknowledge(self, position: Position | None) -> None:
        """Pass it on; the stretch is over when its last position comes back."""
        self._source.acknowledge(position)
        if position is not None and self.ended_at(position):
            self._over()

    def close(self) -> None:
        """Close the source."""
        self._closed.set()
        self._source.close()

    def _finished(self, batch: Batch) -> Batch:
        self._last = batch.position
        return batch

    def _reaches(self, position: Position) -> bool:
        end = self._bounds.end
        return end is not None and position.covers(in_epoch(end, position.epoch))

    def _kept(self, batch: Batch) -> Batch:
        """Return the batch up to the first transaction that is not wanted."""
        for at, transaction in enumerate(batch.transactions):
            if not self._wants(transaction):
                kept = batch.transactions[:at]
                position = kept[-1].position if kept else self._here
                return replace(batch, transactions=kept, position=position, changes=sum(len(t.items) for t in kept))
        return batch

    def _wants(self, transaction: Transaction) -> bool:
        """A transaction that has begun is wanted to its end."""
        if transaction.part > 0:
            return True
        bounds = self._bounds
        if bounds.until_us is not None and transaction.commit_time_us >= bounds.until_us:
            return False
        end = bounds.end
        return end is None or in_epoch(end, transaction.position.epoch).covers(transaction.position)
