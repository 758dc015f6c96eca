"""The one thread boundary: runs a source on a thread of its own and hands its batches over, bounded."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from cdcsync.change import Batch

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.ports import Source


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the hand-over and of a batch merged from it."""

    changes_max: int = 6000
    """Changes in one merged batch, and waiting ones before the reader stops polling."""
    size_bytes_max: int = 8 << 20
    """The same in bytes."""
    poll_s: float = 0.2
    """Longest single poll of the source; an acknowledgement waits no longer than this."""
    alive_s: float = 2.0
    """While the hand-over is full, how often the source is told to say "alive"."""


class Reader:
    """Drives one source. The pipeline calls all methods from the main thread."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._changed = threading.Condition()
        self._batches: deque[Batch] = deque()
        self._changes = 0
        self._size_bytes = 0
        self._acknowledged: Position | None = None
        self._stopping = False
        self._opened = False
        self._ended = False
        self._thread: ThreadPoolExecutor | None = None
        self._outcome: Future[None] | None = None

    @property
    def running(self) -> bool:
        """Whether `start` was called, and `stop` not since."""
        return self._thread is not None

    @property
    def opened(self) -> bool:
        """Whether the source stands in its log."""
        return self._opened

    def start(self, start: str | None, epoch: int) -> None:
        """Open the source at `start` on its thread; an error is raised by `take`."""
        self._batches.clear()
        self._changes = self._size_bytes = 0
        self._acknowledged = None
        self._stopping = self._opened = self._ended = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cdcsync-reader")
        self._outcome = self._thread.submit(self._run, start, epoch)

    def take(self, timeout_s: float) -> Batch | None:
        """Wait for one batch, then take all that came, merged; None when none came in time or `wake` was called.

        Raises what the source raised, after the batches that it gave before.
        """
        with self._changed:
            if not self._batches and not self._ended:
                self._changed.wait(timeout_s)
            batches = self._pop()
            self._changed.notify_all()
        if batches:
            return merge(batches)
        if self._ended and self._outcome is not None:
            self._outcome.result()
        return None

    def acknowledge(self, position: Position) -> None:
        """Let the source's thread tell its server that all before `position` is durable."""
        with self._changed:
            self._acknowledged = position
            self._changed.notify_all()

    def wake(self) -> None:
        """End a `take` that waits. May be called from a signal handler or another thread."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the source send its last acknowledgement, close it, and drop what waits. May be called twice."""
        if self._thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.shutdown(wait=True)
        self._thread = None
        self._batches.clear()

    def _run(self, start: str | None, epoch: int) -> None:
        """Thread body; its exception is the outcome that `take` raises."""
        try:
            self._source.open(start, epoch)
            self._opened = True
            while not self._stopping:
                self._turn()
            position = self._next_acknowledgement()
            if position is not None:
                self._source.acknowledge(position)
        finally:
            self._source.close()
            with self._changed:
                self._opened = False
                self._ended = True
                self._changed.notify_all()

    def _turn(self) -> None:
        position = self._next_acknowledgement()
        if position is not None:
            self._source.acknowledge(position)
        if not self._wait_for_room():
            return
        batch = self._source.poll(self._limits.poll_s)
        if batch is not None:
            self._put(batch)

    def _wait_for_room(self) -> bool:
        with self._changed:
            if self._has_room():
                return True
            woken = self._changed.wait_for(
                lambda: self._has_room() or self._stopping or self._acknowledged is not None,
                self._limits.alive_s,
            )
        if not woken:
            self._source.acknowledge(None)
        return False

    def _has_room(self) -> bool:
        return self._changes < self._limits.changes_max and self._size_bytes < self._limits.size_bytes_max

    def _next_acknowledgement(self) -> Position | None:
        with self._changed:
            position, self._acknowledged = self._acknowledged, None
        return position

    def _put(self, batch: Batch) -> None:
        with self._changed:
            self._batches.append(batch)
            self._changes += batch.changes
            self._size_bytes += batch.size_bytes
            self._changed.notify_all()

    def _pop(self) -> list[Batch]:
        """Take the first batch and those after it that may be merged with it. The lock is held."""
        taken: list[Batch] = []
        changes = size_bytes = 0
        while self._batches:
            following = self._batches[0]
            changes += following.changes
            size_bytes += following.size_bytes
            full = changes > self._limits.changes_max or size_bytes > self._limits.size_bytes_max
            alone = taken and (taken[-1].rebuild is not None or following.rebuild is not None)
            if taken and (full or alone or not (is_whole(taken[-1]) and is_whole(following))):
                break
            taken.append(self._batches.popleft())
            self._changes -= following.changes
            self._size_bytes -= following.size_bytes
        return taken


def is_whole(batch: Batch) -> bool:
    """Return whether the batch holds whole transactions; a part of a large one is alone in its batch."""
    if len(batch.transactions) != 1:
        return True
    transaction = batch.transactions[0]
    return transaction.last and not transaction.part


def merge(batches: list[Batch]) -> Batch:
    """Return one batch of all transactions, in order, with the last one's position."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        transactions=tuple(chain.from_iterable(batch.transactions for batch in batches)),
        position=batches[-1].position,
        changes=sum(batch.changes for batch in batches),
        size_bytes=sum(batch.size_bytes for batch in batches),
        lane=batches[-1].lane,
    )
