"""Reads chunks of tables beside the log: each in one short transaction, whose snapshot is the chunk's view."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from cdcsync import named
from cdcsync.chunks import TooMuch
from cdcsync.errors import End, Transient
from cdcsync.postgres.connection import connect
from cdcsync.postgres.copied import Lines
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import parse_lsn
from cdcsync.reads import Reads
from cdcsync.snapshot import Cut, Taken

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from cdcsync.change import Change, Row
    from cdcsync.chunks import Task
    from cdcsync.pending import Key
    from cdcsync.postgres.chunks import Part
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection

XIDS: Final = 1 << 32
"""The log names a transaction by the low half of its number."""
LOOK_AGAIN_S: Final = 0.2
"""Between two looks whether a transaction that is waited for has ended."""
TAKEN_BYTES: Final = 1 << 18
"""Of a chunk at once, between two looks whether it has become too large."""
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
    """Reads chunks on a server's connections: see `chunks.Work`."""

    def __init__(self, config: PostgresSource, name: str, parts: Mapping[str, Part]) -> None:
        self._config = config
        self._name = name
        self._parts = parts

    def connect(self) -> Connection:
        """Connect, and bound what a statement may take."""
        several = len(self._config.addresses) > 1
        connection = connect(self._config, application_name=f"{self._name} snapshot", read_write=several)
        connection.prepare_threshold = None
        timeout_ms = round(self._config.snapshot_timeout.total_seconds() * 1000)
        settings = sql.SQL("SET enable_seqscan = off; SET lock_timeout = {}; SET statement_timeout = {}")
        connection.execute(settings.format(LOCK_TIMEOUT, timeout_ms))
        return connection

    def read(self, connection: Connection, task: Task) -> bool:
        """Read one chunk."""
        chunk = task.chunk
        doing = f"reading a chunk of {chunk.pending.table}"
        try:
            self._read(connection, task)
        except psycopg.errors.QueryCanceled as error:
            if chunk.rows_max > 1:
                raise TooMuch from error
            raise verdict(error, End.SOURCE, doing) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise altered(chunk.pending.table) from error
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, doing) from error
        return True

    def cancel(self, connection: Connection) -> None:
        """Ask the server to."""
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=CANCEL_S)

    def close(self, connection: Connection) -> None:
        """Disconnect."""
        connection.close()

    def _read(self, connection: Connection, task: Task) -> None:
        chunk = task.chunk
        part = self._parts[chunk.pending.table]
        view = _view(connection, task, part)
        if view is None:
            return
        task.opened(view)
        began = time.monotonic()
        last = chunk.last if chunk.cut or chunk.pending.keys else part.cut(connection, chunk)
        task.say(Cut(chunk.number, last))
        if chunk.pending.keys:
            changes: Sequence[Change] = named.changes(part.table, chunk.pending, partial(part.named, connection))
            size_bytes = named.ROW_BYTES * len(changes)
        else:
            changes, size_bytes = _copied(connection, task, part, last)
        connection.execute("COMMIT")
        took_s = time.monotonic() - began
        view = view._replace(end_lsn=_settled(connection, task, view.end_lsn))
        task.say(Taken(chunk.number, view, changes, size_bytes, took_s))


def _copied(connection: Connection, task: Task, part: Part, last: Key | None) -> tuple[Sequence[Change], int]:
    """Return the rows of a range, and their bytes. Raises TooMuch.

    Row by row from libpq: psycopg's own iteration costs more than all that becomes of a row.
    """
    pgconn, lines = connection.pgconn, Lines(part.table)
    pgconn.send_query(part.copy(task.chunk, last).as_bytes(connection))
    while pgconn.flush():
        select.select([], [pgconn.socket], [])
    _begun(connection)
    rows: list[Row] = []
    size_bytes = 0
    while True:
        took = lines.take(pgconn.get_copy_data, rows, TAKEN_BYTES)
        size_bytes += ~took if took < 0 else took
        task.measure(size_bytes)
        if took < 0:
            break
        if took < TAKEN_BYTES:
            _receive(connection)
    _ended(connection)
    return Reads(part.table, rows), size_bytes


def _begun(connection: Connection) -> None:
    """Wait for the copy to begin. Raises what psycopg raises."""
    while connection.pgconn.is_busy():
        _receive(connection)
    result = connection.pgconn.get_result()
    if result is not None and result.status != ExecStatus.COPY_OUT:
        raise psycopg.errors.error_from_result(result, encoding="utf-8")


def _ended(connection: Connection) -> None:
    """Take the end of a copy. Raises what psycopg raises."""
    failed = None
    while (result := connection.pgconn.get_result()) is not None:
        failed = result if result.status != ExecStatus.COMMAND_OK else failed
    if failed is not None:
        raise psycopg.errors.error_from_result(failed, encoding="utf-8")


def _receive(connection: Connection) -> None:
    select.select([connection.pgconn.socket], [], [])
    connection.pgconn.consume_input()


def _view(connection: Connection, task: Task, part: Part) -> SnapshotView | None:
    """Open a view that sees all that the log has given; None when the chunk was abandoned meanwhile.

    The table is locked as by any SELECT before the snapshot is taken: what empties or rewrites a table is not
    seen by older snapshots as it should be.
    """
    while task.is_wanted():
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            connection.execute(part.lock)
        except psycopg.errors.LockNotAvailable:
            connection.execute("ROLLBACK")
            task.held(f"whoever locks {part.table.qualified}")
            continue
        row = connection.execute(VIEW).fetchone()
        assert row is not None  # noqa: S101  functions give one row
        view = parse_view(*row)
        part.check(connection)
        unseen = task.chunk.unseen_by(view)
        if not unseen:
            return view
        connection.execute("ROLLBACK")
        task.held(_who(connection, unseen[0]))
        task.wait(LOOK_AGAIN_S)
    return None


def _settled(connection: Connection, task: Task, end_lsn: int) -> int:
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
        if time.monotonic() > until or task.wait(0.02):
            return flushed_lsn


def altered(table: str) -> Transient:
    """Return what to raise when a table is not as it was when its reading was planned."""
    return Transient(End.SOURCE, f"table {table} was altered while it was copied: what is left of it is planned anew")


def _who(connection: Connection, transaction: Hashable) -> str:
    row = connection.execute(_WHO, [transaction, transaction]).fetchone()
    return f"transaction {transaction}, {row[0] if row and row[0] else 'which has just ended'}"
