"""Reads chunks of tables on threads, each on a connection of its own; what is said on one is the system's."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cdcsync.errors import CdcsyncError, Fatal
from cdcsync.snapshot import Failed, Held, Opened, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from cdcsync.snapshot import Chunk, Report
    from cdcsync.window import View

C = TypeVar("C")
"""A system's connection."""


class TooMuch(Exception):  # noqa: N818  a verdict on a chunk, not on an end
    """A chunk has more than one may have, or takes longer: it is read again, smaller."""


@dataclass(frozen=True, slots=True)
class Task:
    """One chunk to read, as its thread sees it."""

    chunk: Chunk
    bytes_max: int
    """What the chunk should have; twice as much ends it, unless it is one row."""
    say: Callable[[Report], None]
    is_wanted: Callable[[], bool]
    """Whether it is not abandoned."""
    wait: Callable[[float], bool]
    """Waits so many seconds, or until all ends; returns whether it does."""

    def opened(self, view: View) -> None:
        """Say that it has its view."""
        self.say(Opened(self.chunk.number, view))

    def held(self, by: str) -> None:
        """Say who has to end before it may have one."""
        self.say(Held(self.chunk.number, by))

    def measure(self, size_bytes: int) -> None:
        """Raise TooMuch when so many bytes are more than it may have."""
        if size_bytes > 2 * self.bytes_max and self.chunk.rows_max > 1:
            raise TooMuch


class Work(Protocol[C]):
    """What a system does on the threads."""

    def connect(self) -> C:
        """Return a connection for chunks. Raises Transient and Fatal."""
        ...

    def read(self, connection: C, task: Task) -> bool:
        """Read one chunk, saying Cut and Taken; return whether the connection can be used again.

        Raises TooMuch, Transient and Fatal; the connection is given up then.
        """
        ...

    def cancel(self, connection: C) -> None:
        """End what it does, from another thread; the reading then fails. Never raises."""
        ...

    def close(self, connection: C) -> None:
        """Disconnect. Never raises."""
        ...


class ChunkThreads(Generic[C]):
    """The chunk reader: see `snapshot.ChunkReader`. As many threads and connections as chunks may be read at once."""

    def __init__(self, work: Work[C], workers: int, running: Callable[[], frozenset[Hashable]] = frozenset) -> None:
        """`running`: see `snapshot.ChunkReader.running`."""
        self._work = work
        self.running = running
        self._said: queue.SimpleQueue[Report | CdcsyncError] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cdcsync-chunk")
        self._futures: list[Future[None]] = []
        """An error that is no verdict is a bug, and raised where it is asked for."""
        self._idle: list[C] = []
        self._busy: dict[int, C | None] = {}
        """By the number of the chunk; one that is not there is abandoned."""
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def begin(self, chunk: Chunk, bytes_max: int) -> None:
        """Read it on a thread."""
        with self._lock:
            self._busy[chunk.number] = None
        self._futures.append(self._threads.submit(self._guarded, chunk, bytes_max))

    def reports(self) -> list[Report]:
        """Return what was said since the last call."""
        reports: list[Report] = []
        done = [future for future in self._futures if future.done()]
        self._futures = [future for future in self._futures if future not in done]
        for future in done:
            future.result()
        with suppress(queue.Empty):
            while True:
                said = self._said.get_nowait()
                if isinstance(said, CdcsyncError):
                    raise said
                reports.append(said)
        return reports

    def abandon(self, number: int) -> None:
        """Cancel what the chunk's connection does."""
        with self._lock:
            connection = self._busy.pop(number, None)
        if connection is not None:
            self._work.cancel(connection)

    def close(self) -> None:
        """End all readings and disconnect. Never raises."""
        self._closing.set()
        with self._lock:
            numbers = list(self._busy)
        for number in numbers:
            self.abandon(number)
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._idle:
            self._work.close(connection)

    def _guarded(self, chunk: Chunk, bytes_max: int) -> None:
        """Read on a connection of its own; an error is the next report, unless the chunk was abandoned."""
        number = chunk.number
        connection: C | None = None
        try:
            connection = self._connected(number)
            task = Task(chunk, bytes_max, self._said.put, lambda: number in self._busy, self._closing.wait)
            if connection is not None and self._work.read(connection, task) and self._gave_back(number, connection):
                return
        except TooMuch:
            self._said.put(TooLarge(number))
        except Fatal as error:
            self._say_if_wanted(number, Failed(number, error))
        except CdcsyncError as error:
            self._say_if_wanted(number, error)
        with self._lock:
            self._busy.pop(number, None)
        if connection is not None:
            self._work.close(connection)

    def _gave_back(self, number: int, connection: C) -> bool:
        """Keep a connection for the next chunk, unless somebody may be cancelling what it does."""
        with self._lock:
            if number not in self._busy:
                return False
            del self._busy[number]
            self._idle.append(connection)
        return True

    def _say_if_wanted(self, number: int, said: Failed | CdcsyncError) -> None:
        """An abandoned reading fails because it was cancelled."""
        with self._lock:
            wanted = number in self._busy
        if wanted:
            self._said.put(said)

    def _connected(self, number: int) -> C | None:
        """Return a connection for a chunk, None when it was abandoned before."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._work.connect()
        with self._lock:
            if number in self._busy:
                self._busy[number] = connection
                return connection
            self._idle.append(connection)
        return None
