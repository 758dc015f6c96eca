"""Keeps a pipeline's position in a table of MySQL or MariaDB, under a lock of the server's (GET_LOCK) and a fence."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cdcsync.committed import Reached
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.declare import literal
from cdcsync.mysql.errors import MysqlError, number_of, verdict
from cdcsync.mysql.target import dialect_of
from cdcsync.ports import Stored
from cdcsync.positions import NAME as POSITIONS
from cdcsync.positions import fence_lost, holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Position
    from cdcsync.mysql.config import MysqlSink
    from cdcsync.mysql.config import MysqlStore as MysqlStoreConfig
    from cdcsync.mysql.connection import Answer, Connection
    from cdcsync.ports import SinkContext

LOCK_WAIT_S: Final = 3
"""How long the lock of a process that was just killed may linger: the server ends its session by itself."""
STATEMENT_WAIT_S: Final = 7200.0
"""A truncate is a DELETE of all rows; that the server's machine is gone is told by keepalives, much sooner."""
_NO_TABLE: Final = frozenset({1146, 1049, 1142})

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS {table} (
    pipeline varchar(255) NOT NULL,
    lane varchar(255) NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL,
    position longtext,
    source varchar(255) NOT NULL DEFAULT '',
    tables longtext NOT NULL,
    holder varchar(255) NOT NULL DEFAULT '',
    updated_at datetime(6) NOT NULL,
    PRIMARY KEY (pipeline, lane)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}
"""
_TAKE: Final = """
INSERT INTO {table} (pipeline, lane, fence, source, tables, holder, updated_at)
VALUES (%s, %s, 1, %s, %s, %s, utc_timestamp(6))
ON DUPLICATE KEY UPDATE fence = fence + 1, source = IF(VALUES(source) = '', source, VALUES(source)),
    tables = IF(VALUES(tables) = '[]', tables, VALUES(tables)), holder = VALUES(holder),
    updated_at = VALUES(updated_at)
"""
_SAVE: Final = (
    "UPDATE {table} SET epoch = {epoch}, position = {position}, updated_at = utc_timestamp(6) "
    "WHERE pipeline = {pipeline} AND lane = {lane} AND fence = {fence}"
)
_PUT: Final = """
INSERT INTO {table} (pipeline, lane, fence, epoch, position, tables, holder, updated_at)
VALUES (%s, %s, 1, %s, %s, '[]', %s, utc_timestamp(6))
ON DUPLICATE KEY UPDATE fence = fence + 1, epoch = VALUES(epoch), position = VALUES(position), holder = VALUES(holder),
    updated_at = VALUES(updated_at)
"""
_CLEAR: Final = """
UPDATE {table} SET position = NULL, fence = fence + 1, updated_at = utc_timestamp(6)
WHERE pipeline = %s AND lane = %s AND position IS NOT NULL
"""
_SESSION_OF: Final = "SELECT USER, HOST FROM information_schema.PROCESSLIST WHERE ID = %s"


class MysqlStore:
    """One lane's row of the positions table. A sink that keeps its position shares the connection and the fence."""

    def __init__(self, config: MysqlStoreConfig | MysqlSink, context: SinkContext, *, kept: bool = False) -> None:
        self._config = config
        self._context = context
        self._kept = kept
        """A sink commits the position with its rows: `save` has nothing to do."""
        self._end = End.SINK if kept else End.STORE
        self._connection: Connection | None = None
        self._session = 0
        """The server's number of our last session."""
        self._lane = ""
        self.fence = 0
        """Ours since the first `open`; 0 before."""
        self.known: frozenset[str] = frozenset()
        """The target tables that there were when a position was stored; empty when none is."""
        self.reached = Reached()

    @property
    def connection(self) -> Connection:
        """The open connection. Raises Transient when it was closed."""
        if self._connection is None:
            raise Transient(self._end, "the connection to the positions is closed")
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def open(self, lane: str) -> None:
        """Take the lock, and the next fence the first time; later only check that the fence is still ours."""
        self.close()
        self._lane = lane
        self._connection = connect(
            self._config,
            purpose=f"cdcsync {self._context.pipeline}",
            end=self._end,
            read_write=True,
            read_wait_s=STATEMENT_WAIT_S,
        )
        try:
            with self._judged("opening the positions"):
                if self._context.shared:
                    self._put_out()
                take_lock(self._connection, self._config.database, self._context.pipeline, lane, ours=self._session)
                self._session = self._connection.id
                create_positions(self._connection, self._config.database)
                self._take_fence()
        except BaseException:
            self.close()
            raise

    def _put_out(self) -> None:
        """End the session of whoever had this lane before us, and may hang in the middle of a transaction."""
        if self.fence:
            self._take_fence()
        session = _holding(self.connection, lock_name(self._config.database, self._context.pipeline, self._lane))
        if session:
            self.connection.execute(f"KILL {session}")

    def load(self) -> Stored | None:
        """Return what is stored. Raises Fatal when the fence is lost, or the target is behind what it had committed."""
        row = self._row("position, epoch, fence")
        if row is not None and row[2] != self.fence:
            raise self.lost()
        found = None if row is None or row[0] is None else Stored(row[0], row[1])
        self.reached.found(found, self._context.pipeline, "replica")
        return found

    def save(self, position: Position) -> None:
        """Store on condition of the fence; a no-op where the sink has committed it with the rows."""
        if self._kept:
            return
        encoded = position.encode()
        self.reached.expect(encoded)
        with self._judged("saving the position"):
            if self.connection.run([self.saving(position)]) == [0]:
                raise self.lost()
        self.reached.reach(encoded)

    def saving(self, position: Position) -> str:
        """Return the statement that saves on condition of the fence: it finds no row when that is lost."""
        return _SAVE.format(
            table=quoted(self._config.database, POSITIONS),
            epoch=int(position.epoch),
            position=literal(position.encode()),
            pipeline=literal(self._context.pipeline),
            lane=literal(self._lane),
            fence=self.fence,
        )

    def lost(self) -> Fatal:
        """Return what to raise when the fence is no longer ours."""
        row = self._row("holder") if self._connection is not None else None
        return fence_lost(self._context.pipeline, str(row[0]) if row else None)

    def close(self) -> None:
        """Release the lock by disconnecting."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _take_fence(self) -> None:
        if self.fence:
            row = self._row("fence")
            if row is None or row[0] != self.fence:
                raise self.lost()
            return
        context = self._context
        before = self._row("position, tables")
        self.known = frozenset(json.loads(before[1])) if before and before[0] is not None else frozenset()
        tables = json.dumps([table.qualified for table in context.tables])
        query = _TAKE.format(table=quoted(self._config.database, POSITIONS))
        self.connection.execute(query, [context.pipeline, self._lane, context.source, tables, holder()])
        row = self._row("fence")
        assert row is not None  # noqa: S101  just written, under the lock
        self.fence = int(row[0])

    def _row(self, columns: str) -> Answer | None:
        query = f"SELECT {columns} FROM {quoted(self._config.database, POSITIONS)} WHERE pipeline = %s AND lane = %s"  # noqa: S608
        rows = self.connection.ask("reading the position", query, [self._context.pipeline, self._lane])
        return rows[0] if rows else None

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except MysqlError as error:
            raise verdict(error, self._end, doing) from error


def clear(config: MysqlStoreConfig | MysqlSink, context: SinkContext) -> bool:
    """Forget the pipeline's position under its lock, but not its epoch; return whether there was one."""
    with _alone(config, context) as connection:
        try:
            query = _CLEAR.format(table=quoted(config.database, POSITIONS))
            connection.execute(query, [context.pipeline, context.lane])
        except MysqlError as error:
            if number_of(error) not in _NO_TABLE:
                raise
            return False
        return connection.affected > 0


def look(config: MysqlStoreConfig | MysqlSink, context: SinkContext) -> Stored | None:
    """Return what is stored; takes no lock and changes nothing."""
    with connect(config, purpose=f"cdcsync {context.pipeline}", end=End.STORE) as connection:
        query = f"SELECT position, epoch FROM {quoted(config.database, POSITIONS)} WHERE pipeline = %s AND lane = %s"  # noqa: S608
        try:
            rows = connection.execute(query, [context.pipeline, context.lane])
        except MysqlError as error:
            if number_of(error) in _NO_TABLE:
                return None
            raise verdict(error, End.STORE, "reading the position") from error
    return Stored(rows[0][0], rows[0][1]) if rows and rows[0][0] is not None else None


def put(config: MysqlStoreConfig | MysqlSink, context: SinkContext, position: Position) -> None:
    """Store this position with a new fence, under the lock."""
    with _alone(config, context) as connection:
        create_positions(connection, config.database)
        query = _PUT.format(table=quoted(config.database, POSITIONS))
        connection.execute(query, [context.pipeline, context.lane, position.epoch, position.encode(), holder()])


def create_positions(connection: Connection, database: str) -> None:
    """Create database and table where they are missing; two that do so at once do not disturb each other."""
    there = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    if connection.execute(there, [database, POSITIONS]):
        return
    if not connection.execute("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", [database]):
        connection.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
    collation = dialect_of(connection).collation
    connection.execute(_CREATE.format(table=quoted(database, POSITIONS), collation=collation))


def take_lock(connection: Connection, database: str, pipeline: str, lane: str, *, ours: int = 0) -> None:
    """Take the lane's lock until disconnected. Raises Fatal with OWNERSHIP, naming the holder.

    `ours` is our own former session: one that the network cut off from us still has the lock and is ended.
    """
    name = lock_name(database, pipeline, lane)
    if ours and _holding(connection, name) == ours:
        connection.execute(f"KILL {ours}")
    ((got,),) = connection.execute("SELECT GET_LOCK(%s, %s)", [name, LOCK_WAIT_S])
    if got == 1:
        return
    who = _holder(connection, name)
    msg = f"pipeline {pipeline} runs elsewhere: its lock is held by {who}"
    raise Fatal(msg, hint="stop the other one; two never write together", status=ExitStatus.OWNERSHIP)


def lock_name(database: str, pipeline: str, lane: str) -> str:
    """Return the lock's name: at most 64 characters, in which case says nothing; locks are a server's own."""
    digest = hashlib.sha256(f"{database}\0{pipeline}\0{lane}".encode()).hexdigest()
    return f"cdcsync:{digest[:48]}"


def _holding(connection: Connection, name: str) -> int:
    """Return the session that has the lock; 0 when none has."""
    ((session,),) = connection.execute("SELECT IS_USED_LOCK(%s)", [name])
    return int(session or 0)


def _holder(connection: Connection, name: str) -> str:
    session = _holding(connection, name)
    rows = connection.execute(_SESSION_OF, [session]) if session else ()
    if not session:
        return "another process"
    return f"session {session} of the server" + (f", {rows[0][0]} from {rows[0][1]}" if rows else "")


@contextmanager
def _alone(config: MysqlStoreConfig | MysqlSink, context: SinkContext) -> Iterator[Connection]:
    """Hold the pipeline's lock for a moment."""
    with connect(config, purpose=f"cdcsync {context.pipeline}", end=End.STORE, read_write=True) as connection:
        try:
            take_lock(connection, config.database, context.pipeline, context.lane)
            yield connection
        except MysqlError as error:
            raise verdict(error, End.STORE, "changing the stored position") from error
