"""The position in a SQLite file: for any sink, or in the transaction of the sink that writes to it."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import orjson

from cdcsync.errors import End
from cdcsync.ports import SinkContext, Stored
from cdcsync.positions import POSITIONS, LockFile, Statements, fence_lost, holder, now, refuse_other_source
from cdcsync.sql import ColumnThere, TableThere, create_table, misfits, quote, refuse
from cdcsync.sqlite.errors import translated
from cdcsync.sqlite.types import declare, fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Position, Table
    from cdcsync.sqlite.config import SqliteConfig

STATEMENTS = Statements.of(quote(POSITIONS.name), "?")


def connect(config: SqliteConfig) -> sqlite3.Connection:
    """Return a connection in WAL mode that begins no transaction by itself."""
    connection = sqlite3.connect(config.path, timeout=config.busy_timeout_s, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {config.synchronous.value}")
    return connection


def table_there(connection: sqlite3.Connection, name: str) -> TableThere | None:
    """Return what a table looks like, None when there is none."""
    rows = connection.execute(
        "SELECT name, type, [notnull], dflt_value, pk, hidden FROM pragma_table_xinfo(?)", (name,)
    )
    info = rows.fetchall()
    if not info:
        return None
    columns = {
        each: ColumnThere(each, declared, not required, default is not None, hidden in {2, 3})
        for each, declared, required, default, _pk, hidden in info
    }
    keys = [[row[0] for row in sorted(info, key=lambda row: row[4]) if row[4]]]
    unique = connection.execute("SELECT name FROM pragma_index_list(?) WHERE [unique] AND NOT partial", (name,))
    keys += [
        [row[0] for row in connection.execute("SELECT name FROM pragma_index_info(?)", (index,))]
        for (index,) in unique.fetchall()
    ]
    return TableThere(columns, keys)


def ensure_table(connection: sqlite3.Connection, table: Table) -> list[str]:
    """Create the table when it is missing; return what does not fit when it is there."""
    there = table_there(connection, table.name)
    if there is None:
        connection.execute(create_table(table, declare, name=quote(table.name)))
        return []
    return misfits(table, there, fits)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end, undo on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


class SqliteStore:
    """Keeps one pipeline's position; with `kept`, a sink commits it and `save` has nothing left to do."""

    def __init__(self, config: SqliteConfig, context: SinkContext, *, kept: bool = False) -> None:
        self._config = config
        self._context = context
        self._kept = kept
        self._lane = context.lane
        self._lock: LockFile | None = None
        self._fence: int | None = None
        self.known: frozenset[str] = frozenset()
        """The target tables that there were when a position was stored; empty when none is."""
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection, which the sink shares."""
        if self._connection is None:
            msg = "the store is not open"
            raise RuntimeError(msg)
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def open(self, lane: str) -> None:
        """Take the lock, and once the fence; afterwards check it."""
        self._lane = lane
        self._lock = self._lock or LockFile.at(self._context.state, self._context.pipeline, lane)
        self._lock.acquire()
        with translated(self._config.path, End.STORE):
            if self._connection is None:
                self._connection = connect(self._config)
            with transaction(self._connection):
                refuse({POSITIONS.name: ensure_table(self._connection, POSITIONS)})
                self._check_source()
                if self._fence is None:
                    self._fence = self._take()
                else:
                    self._check_fence()

    def _take(self) -> int:
        table = quote(POSITIONS.name)
        query = f"SELECT tables FROM {table} WHERE position IS NOT NULL AND pipeline = ? AND lane = ?"  # noqa: S608
        before = self.connection.execute(query, self._row()).fetchone()
        self.known = frozenset(orjson.loads(before[0])) if before else frozenset()
        tables = orjson.dumps([table.qualified for table in self._context.tables]).decode()
        row = (self._context.pipeline, self._lane, self._context.source, tables, holder(), now())
        return int(self.connection.execute(STATEMENTS.take, row).fetchone()[0])

    def _check_source(self) -> None:
        row = self.connection.execute(STATEMENTS.load, self._row()).fetchone()
        if row is not None and row[0] is not None:
            refuse_other_source(self._context, row[2])

    def _check_fence(self) -> None:
        row = self.connection.execute(STATEMENTS.check, self._row()).fetchone()
        if row is None or row[0] != self._fence:
            raise fence_lost(self._context.pipeline, row[1] if row else None)

    def _row(self) -> tuple[str, str]:
        return self._context.pipeline, self._lane

    def epoch(self) -> int:
        """Return the highest epoch stored, 0 when there is none."""
        row = self.connection.execute(STATEMENTS.load, self._row()).fetchone()
        return int(row[1]) if row else 0

    def load(self) -> Stored | None:
        """Return what is stored. Raises Fatal when the fence, once taken, is no longer ours."""
        with translated(self._config.path, End.STORE):
            if self._fence is not None:
                self._check_fence()
            row = self.connection.execute(STATEMENTS.load, self._row()).fetchone()
        return Stored(row[0], int(row[1])) if row is not None and row[0] is not None else None

    def put_in(self, position: Position) -> None:
        """Store within the transaction that is open; raises Fatal when the fence is lost."""
        row = (position.encode(), position.epoch, now(), *self._row(), self._fence)
        if self.connection.execute(STATEMENTS.save, row).rowcount != 1:
            self._check_fence()
            raise fence_lost(self._context.pipeline, None)

    def save(self, position: Position) -> None:
        """Store durably on condition of the fence; nothing to do where the sink did."""
        if self._kept:
            return
        with translated(self._config.path, End.STORE), transaction(self.connection):
            self.put_in(position)

    def clear(self) -> bool:
        """Forget the position, keep the epoch, raise the fence; return whether there was one."""
        with translated(self._config.path, End.STORE), transaction(self.connection):
            return self.connection.execute(STATEMENTS.clear, (now(), *self._row())).rowcount == 1

    def close(self) -> None:
        """Release the lock."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.release()


def clear(config: SqliteConfig, context: SinkContext) -> bool:
    """Forget the pipeline's position, under the lock; return whether there was one."""
    if not config.path.exists():
        return False
    store = SqliteStore(config, context)
    try:
        store.open(context.lane)
        return store.clear()
    finally:
        store.close()


def look(config: SqliteConfig, context: SinkContext) -> Stored | None:
    """Return what is stored; takes no lock and makes no file."""
    if not config.path.exists():
        return None
    uri = f"{config.path.resolve().as_uri()}?mode=ro"
    with translated(config.path, End.STORE), contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        if table_there(connection, POSITIONS.name) is None:
            return None
        row = connection.execute(STATEMENTS.load, (context.pipeline, context.lane)).fetchone()
    return Stored(row[0], int(row[1])) if row is not None and row[0] is not None else None


def put(config: SqliteConfig, context: SinkContext, position: Position) -> None:
    """Store this position with a new fence, under the lock. Raises Fatal while the pipeline runs."""
    store = SqliteStore(config, context)
    try:
        store.open(context.lane)
        store.save(position)
    finally:
        store.close()
