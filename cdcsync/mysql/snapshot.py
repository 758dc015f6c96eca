"""Reads chunks of tables beside the binlog: each in one short transaction, whose view is placed in the log."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cdcsync.change import Change, Operation
from cdcsync.errors import CdcsyncError, End
from cdcsync.mysql.chunks import altered, decoder
from cdcsync.mysql.connection import connect_to
from cdcsync.mysql.errors import MysqlError, number_of, verdict
from cdcsync.mysql.view import opened
from cdcsync.snapshot import Cut, Held, Opened, Taken, TooLarge

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from cdcsync.addresses import Host
    from cdcsync.mysql.chunks import Part
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.view import LogView
    from cdcsync.snapshot import Chunk, Report

LOOK_AGAIN_S: Final = 0.1
"""Between two looks whether what is in the log can be seen."""
_ALTERED: Final = frozenset({1054, 1146, 1412})
"""A column or a table is gone; the table was defined anew since the view was opened."""


class Chunks:
    """The chunk reader: see `snapshot.ChunkReader`. As many threads and sessions as chunks may be read at once."""

    def __init__(self, config: MysqlSource, address: Host, name: str, parts: Mapping[str, Part]) -> None:
        self._config = config
        self._address = address
        self._name = name
        self._parts = parts
        self._said: queue.SimpleQueue[Report | CdcsyncError] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(config.snapshot_parallel, thread_name_prefix="cdcsync-chunk")
        self._futures: list[Future[None]] = []
        """An error that is no verdict is a bug, and raised where it is asked for."""
        self._idle: list[Connection] = []
        self._busy: set[int] = set()
        """Numbers of the chunks; one that is not there is abandoned."""
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def begin(self, chunk: Chunk, bytes_max: int) -> None:
        """Read it on a thread."""
        with self._lock:
            self._busy.add(chunk.number)
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
        """Let the chunk's thread end at its next row."""
        with self._lock:
            self._busy.discard(number)

    def running(self) -> frozenset[Hashable]:
        """A view is asked for a place of the log, not for transactions: there are none to name."""
        return frozenset()

    def close(self) -> None:
        """End all readings and disconnect. Never raises."""
        self._closing.set()
        with self._lock:
            self._busy.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._idle:
            connection.close()

    def _guarded(self, chunk: Chunk, bytes_max: int) -> None:
        """Read on a session of its own; an error is the next report."""
        connection: Connection | None = None
        doing = f"reading a chunk of {chunk.pending.table}"
        try:
            connection = self._connected()
            self._read(connection, chunk, bytes_max)
        except _Ended as ended:
            if ended.args:
                self._said.put(TooLarge(chunk.number))
        except MysqlError as error:
            changed = number_of(error) in _ALTERED
            self._report(chunk, altered(chunk.pending.table) if changed else verdict(error, End.SOURCE, doing))
        except CdcsyncError as error:
            self._report(chunk, error)
        else:
            with self._lock:
                self._busy.discard(chunk.number)
                self._idle.append(connection)
            return
        if connection is not None:
            connection.abort()

    def _report(self, chunk: Chunk, error: CdcsyncError) -> None:
        with self._lock:
            wanted = chunk.number in self._busy
            self._busy.discard(chunk.number)
        if wanted:
            self._said.put(error)

    def _connected(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return connect_to(self._address, self._config, purpose=f"{self._name} snapshot")

    def _read(self, connection: Connection, chunk: Chunk, bytes_max: int) -> None:
        part = self._parts[chunk.pending.table]
        view = self._view(connection, chunk)
        self._said.put(Opened(chunk.number, view))
        began = time.monotonic()
        last = part.cut(connection, chunk)
        self._said.put(Cut(chunk.number, last))
        rows, table = decoder(part, self._config), part.table
        changes: list[Change] = []
        size_bytes, limit = 0, 2 * bytes_max if chunk.rows_max > 1 else 1 << 62
        for answer in part.read(connection, chunk, last):
            changes.append(Change(table, Operation.READ, None, rows.row(answer)))
            size_bytes += 16 + sum(
                [len(value) for value in answer if value.__class__ is str or value.__class__ is bytes]
            )
            if size_bytes > limit:
                raise _Ended(chunk.number)
            if chunk.number not in self._busy:
                raise _Ended
        connection.execute("COMMIT")
        self._said.put(Taken(chunk.number, view, changes, size_bytes, time.monotonic() - began))

    def _view(self, connection: Connection, chunk: Chunk) -> LogView:
        """Open a view that sees all that the log has given."""
        while chunk.number in self._busy:
            view = opened(connection)
            if not chunk.unseen_by(view):
                return view
            connection.execute("COMMIT")
            self._said.put(Held(chunk.number, "a commit that is in the log and not visible yet"))
            self._closing.wait(LOOK_AGAIN_S)
        raise _Ended


class _Ended(Exception):  # noqa: N818  ends a reading, within this module
    """A chunk was abandoned; with its number: it has more bytes than a chunk may have."""
