"""Reads chunks of tables beside the log: each in one short transaction, whose snapshot is the chunk's view."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import sql

from cdcsync.errors import CdcsyncError, End, Transient
from cdcsync.postgres.connection import connect
from cdcsync.postgres.copied import Lines
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import parse_lsn
from cdcsync.snapshot import Cut, Held, Opened, Taken, TooLarge

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from cdcsync.change import Change
    from cdcsync.postgres.chunks import Part
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.snapshot import Chunk, Report

XIDS: Final = 1 << 32
"""The log names a transaction by the low half of its number."""
LOOK_AGAIN_S: Final = 0.2
"""Between two looks whether a transaction that is waited for has ended."""
LOCK_TIMEOUT: Final = "5s"
CANCEL_S: Final = 2.0
PAGE_HEADERS: Final = (24, 40)
"""Bytes that begin a page of the WAL (xlog_internal.h); the next record's place lies behind them."""
PAGE: Final = 8192
FLUSHES: Final = 5
"""What a commit without waiting leaves unflushed is flushed within three times wal_writer_delay (manual, 30.4)."""

VIEW: Final = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text"
_RUNNING: Final = """
SELECT backend_xid::text::int8 FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL AND (%(idle)s OR state IS NULL OR state NOT LIKE 'idle in transaction%%')
UNION SELECT transaction::text::int8 FROM pg_catalog.pg_prepared_xacts
"""
_WHO: Final = """
SELECT coalesce('process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') || coalesce(', ' || state, '')
       || coalesce(' since ' || date_trunc('second', xact_start)::text, ''), '')
FROM pg_catalog.pg_stat_activity WHERE backend_xid::text::int8 = %s
UNION SELECT 'prepared as ' || quote_literal(gid) FROM pg_catalog.pg_prepared_xacts WHERE transaction::text::int8 = %s
"""


class SnapshotView(NamedTuple):
    """What pg_current_snapshot() says, and where the log had come to."""

    xmax: int
    running: frozenset[int]
    """Transactions below xmax that had not ended."""
    end_lsn: int
    """All that the snapshot sees was committed before this place."""

    def sees(self, transaction: Hashable) -> bool:
        """Return whether a transaction that the log names is in the snapshot."""
        assert isinstance(transaction, int)  # noqa: S101  pgoutput's Begin gives a number
        whole = self.xmax - self.xmax % XIDS + transaction
        if whole - self.xmax > XIDS // 2:
            whole -= XIDS
        elif self.xmax - whole > XIDS // 2:
            whole += XIDS
        return whole < self.xmax and whole not in self.running

    def is_behind(self, place: int) -> bool:
        """Return whether the log up to this LSN has all that the snapshot sees."""
        return place >= self.end_lsn


def parse_view(snapshot: str, lsn: str) -> SnapshotView:
    """Return the view of "xmin:xmax:running,.." and where the log's next record will be."""
    _, xmax, running = snapshot.split(":")
    return SnapshotView(int(xmax), frozenset(map(int, filter(None, running.split(",")))), end_of_record(parse_lsn(lsn)))


def end_of_record(lsn: int) -> int:
    """Return where the last record ended: on a page's border the next one begins behind a header."""
    return lsn - lsn % PAGE if lsn % PAGE in PAGE_HEADERS else lsn


def running(connection: Connection, *, idle: bool) -> frozenset[int]:
    """Return the transactions that have a number and have not ended for those who look now.

    Without `idle` those are left out that wait for their application: they have not begun to commit.
    """
    try:
        rows = connection.execute(_RUNNING, {"idle": idle}).fetchall()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "looking at the running transactions") from error
    return frozenset(int(row[0]) for row in rows)


class Chunks:
    """The chunk reader: see `snapshot.ChunkReader`. As many threads and connections as chunks may be read at once."""

    def __init__(self, config: PostgresSource, name: str, parts: Mapping[str, Part], plain: Connection) -> None:
        self._config = config
        self._name = name
        self._parts = parts
        self._plain = plain
        self._said: queue.SimpleQueue[Report | CdcsyncError] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(config.snapshot_parallel, thread_name_prefix="cdcsync-chunk")
        self._futures: list[Future[None]] = []
        """An error that is no verdict is a bug, and raised where it is asked for."""
        self._idle: list[Connection] = []
        self._busy: dict[int, Connection | None] = {}
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
            _cancel(connection)

    def running(self) -> frozenset[Hashable]:
        """Return the transactions that a view may not see yet."""
        return running(self._plain, idle=True)

    def close(self) -> None:
        """End all readings and disconnect. Never raises."""
        self._closing.set()
        with self._lock:
            numbers = list(self._busy)
        for number in numbers:
            self.abandon(number)
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._idle:
            connection.close()

    def _guarded(self, chunk: Chunk, bytes_max: int) -> None:
        """Read on a connection of its own; an error is the next report."""
        connection: Connection | None = None
        doing = f"reading a chunk of {chunk.pending.table}"
        try:
            connection = self._connected(chunk.number)
            if connection is not None:
                self._read(connection, chunk, bytes_max)
                self._give_back(chunk.number, connection)
                return
        except psycopg.errors.QueryCanceled as error:
            smaller = TooLarge(chunk.number) if chunk.rows_max > 1 else verdict(error, End.SOURCE, doing)
            self._said.put(smaller)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            self._said.put(altered(chunk.pending.table))
        except psycopg.Error as error:
            self._report(chunk.number, verdict(error, End.SOURCE, doing))
        except CdcsyncError as error:
            self._report(chunk.number, error)
        except _Large:
            self._said.put(TooLarge(chunk.number))
        self._forget(chunk.number, connection)

    def _report(self, number: int, error: CdcsyncError) -> None:
        """An abandoned reading fails because it was cancelled."""
        with self._lock:
            wanted = number in self._busy
        if wanted:
            self._said.put(error)

    def _connected(self, number: int) -> Connection | None:
        """Return a connection for a chunk, None when it was abandoned before."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            several = len(self._config.addresses) > 1
            connection = connect(self._config, application_name=f"{self._name} snapshot", read_write=several)
            connection.prepare_threshold = None
            timeout_ms = round(self._config.snapshot_timeout.total_seconds() * 1000)
            connection.execute(
                sql.SQL("SET enable_seqscan = off; SET lock_timeout = {}; SET statement_timeout = {}").format(
                    LOCK_TIMEOUT, timeout_ms
                )
            )
        with self._lock:
            if number in self._busy:
                self._busy[number] = connection
                return connection
            self._idle.append(connection)
        return None

    def _give_back(self, number: int, connection: Connection) -> None:
        with self._lock:
            self._busy.pop(number, None)
            self._idle.append(connection)

    def _forget(self, number: int, connection: Connection | None) -> None:
        with self._lock:
            self._busy.pop(number, None)
        if connection is not None:
            connection.close()

    def _read(self, connection: Connection, chunk: Chunk, bytes_max: int) -> None:
        part = self._parts[chunk.pending.table]
        view = self._view(connection, chunk, part)
        if view is None:
            return
        self._said.put(Opened(chunk.number, view))
        began = time.monotonic()
        last = chunk.last if chunk.cut else part.cut(connection, chunk)
        self._said.put(Cut(chunk.number, last))
        changes: list[Change] = []
        size_bytes = 0
        change = Lines(part.table).change
        limit = 2 * bytes_max if chunk.rows_max > 1 else None
        with connection.cursor() as cursor, cursor.copy(part.copy(chunk, last)) as rows:
            for raw in rows:
                data = bytes(raw)
                size_bytes += len(data)
                if limit is not None and size_bytes > limit:
                    raise _Large
                changes.append(change(data))
        connection.execute("COMMIT")
        took_s = time.monotonic() - began
        view = view._replace(end_lsn=self._settled(connection, view.end_lsn))
        self._said.put(Taken(chunk.number, view, changes, size_bytes, took_s))

    def _view(self, connection: Connection, chunk: Chunk, part: Part) -> SnapshotView | None:
        """Open a view that sees all that the log has given; None when the chunk was abandoned meanwhile.

        The table is locked as by any SELECT before the snapshot is taken: what empties or rewrites a table is not
        seen by older snapshots as it should be.
        """
        while not self._closing.is_set() and chunk.number in self._busy:
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                connection.execute(part.lock)
            except psycopg.errors.LockNotAvailable:
                connection.execute("ROLLBACK")
                self._said.put(Held(chunk.number, f"whoever locks {part.table.qualified}"))
                continue
            row = connection.execute(VIEW).fetchone()
            assert row is not None  # noqa: S101  functions give one row
            view = parse_view(*row)
            part.check(connection)
            unseen = chunk.unseen_by(view)
            if not unseen:
                return view
            connection.execute("ROLLBACK")
            self._said.put(Held(chunk.number, _who(connection, unseen[0])))
            self._closing.wait(LOOK_AGAIN_S)
        return None

    def _settled(self, connection: Connection, end_lsn: int) -> int:
        """Return up to where the log will be given, of what the view sees.

        A transaction that goes on may leave the log's end unflushed for long, where no commit is in it.
        """
        until: float | None = None
        while True:
            row = connection.execute(
                "SELECT pg_current_wal_flush_lsn()::text, setting::int FROM pg_catalog.pg_settings "
                "WHERE name = 'wal_writer_delay'"
            ).fetchone()
            assert row is not None  # noqa: S101  the setting is there
            flushed_lsn = parse_lsn(row[0])
            if flushed_lsn >= end_lsn:
                return end_lsn
            until = until or time.monotonic() + FLUSHES * row[1] / 1000
            if time.monotonic() > until or self._closing.wait(0.02):
                return flushed_lsn


class _Large(Exception):  # noqa: N818  ends a reading, within this module
    """More bytes came than a chunk may have; the connection is given up with the rest."""


def altered(table: str) -> Transient:
    """Return what to raise when a table is not as it was when its reading was planned."""
    return Transient(End.SOURCE, f"table {table} was altered while it was copied: what is left of it is planned anew")


def _who(connection: Connection, transaction: Hashable) -> str:
    row = connection.execute(_WHO, [transaction, transaction]).fetchone()
    return f"transaction {transaction}, {row[0] if row and row[0] else 'which has just ended'}"


def _cancel(connection: Connection) -> None:
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCEL_S)
