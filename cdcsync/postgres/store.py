"""Keeps a pipeline's position in a PostgreSQL table, under an advisory lock and a fence."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import sql

from cdcsync.committed import Reached
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.ports import Stored
from cdcsync.positions import NAME as POSITIONS
from cdcsync.positions import fence_lost, holder
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Position
    from cdcsync.ports import SinkContext
    from cdcsync.postgres.config import PostgresSink
    from cdcsync.postgres.config import PostgresStore as PostgresStoreConfig
    from cdcsync.postgres.connection import Connection

LOCK_WAIT_MS: Final = 3000
"""How long the lock of a process that was just killed may linger: its server process ends by itself."""

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS {table} (
    pipeline text NOT NULL,
    lane text NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    fence bigint NOT NULL,
    position text,
    source text NOT NULL DEFAULT '',
    tables text NOT NULL DEFAULT '[]',
    holder text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, lane)
) WITH (fillfactor = 20)
"""
_TAKE: Final = """
INSERT INTO {table} AS kept (pipeline, lane, fence, source, tables, holder) VALUES (%s, %s, 1, %s, %s, %s)
ON CONFLICT (pipeline, lane) DO UPDATE SET fence = kept.fence + 1,
    source = coalesce(nullif(excluded.source, ''), kept.source),
    tables = CASE excluded.tables WHEN '[]' THEN kept.tables ELSE excluded.tables END, holder = excluded.holder, updated_at = now()
RETURNING fence
"""
_SAVE: Final = """
UPDATE {table} SET epoch = %s, position = %s, updated_at = now() WHERE pipeline = %s AND lane = %s AND fence = %s
"""
_PUT: Final = """
INSERT INTO {table} AS kept (pipeline, lane, fence, epoch, position, holder) VALUES (%s, %s, 1, %s, %s, %s)
ON CONFLICT (pipeline, lane) DO UPDATE SET fence = kept.fence + 1, epoch = excluded.epoch,
    position = excluded.position, holder = excluded.holder, updated_at = now()
"""
_CLEAR: Final = """
UPDATE {table} SET position = NULL, fence = fence + 1, updated_at = now()
WHERE pipeline = %s AND lane = %s AND position IS NOT NULL
"""
_HOLDER: Final = """
SELECT lock.pid, coalesce(activity.application_name, ''), coalesce(host(activity.client_addr), 'a local socket')
FROM pg_locks lock LEFT JOIN pg_stat_activity activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND lock.classid = %s AND lock.objid = %s
"""


class PostgresStore:
    """One lane's row of the positions table. A sink that keeps its position shares the connection and the fence."""

    def __init__(self, config: PostgresStoreConfig | PostgresSink, context: SinkContext, *, kept: bool = False) -> None:
        self._config = config
        self._context = context
        self._kept = kept
        """A sink commits the position with its rows: `save` has nothing to do."""
        self._end = End.SINK if kept else End.STORE
        self._connection: Connection | None = None
        self._backend = 0
        """Process id of our last server process."""
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

    @property
    def table(self) -> sql.Identifier:
        """The positions table."""
        return sql.Identifier(self._config.schema_, POSITIONS)

    @property
    def place(self) -> tuple[str, str, int]:
        """Pipeline, lane and fence: what every save is conditional on."""
        return self._context.pipeline, self._lane, self.fence

    def open(self, lane: str) -> None:
        """Take the lock, and the next fence the first time; later only check that the fence is still ours."""
        self.close()
        self._lane = lane
        with self._judged("opening the positions"):
            self._connection = connect(
                self._config,
                application_name=f"cdcsync {self._context.pipeline}",
                end=self._end,
                read_write=True,
            )
            try:
                if self._context.shared:
                    self._put_out()
                take_lock(self._connection, self._context.pipeline, lane, ours=self._backend)
                self._backend = self._connection.info.backend_pid
                create_positions(self._connection, self._config.schema_)
                self._take_fence()
            except BaseException:
                self.close()
                raise

    @contextmanager
    def making(self) -> Iterator[None]:
        """Be the only lane that makes or alters tables, in a transaction; nothing where the pipeline has one lane."""
        with self.connection.transaction() if self._context.shared else nullcontext():
            if self._context.shared:
                self._run("SELECT pg_advisory_xact_lock(%s)", [lock_key(self._context.pipeline, "makes tables")])
            yield

    def _put_out(self) -> None:
        """End the session of whoever had this lane before us, and may hang in the middle of a transaction."""
        if self.fence:
            self._take_fence()
        found = _holder(self.connection, lock_key(self._context.pipeline, self._lane))
        if found is not None:
            self._run("SELECT pg_terminate_backend(%s)", [found[0]])

    def load(self) -> Stored | None:
        """Return what is stored. Raises Fatal when the fence is lost, or the target is behind what it had committed."""
        row = self._row("position, epoch, fence")
        if row is not None and row[2] != self.fence:
            raise self.lost()
        found = None if row is None or row[0] is None else Stored(row[0], row[1])
        self.reached.found(found, self._context.pipeline, "standby")
        return found

    def save(self, position: Position) -> None:
        """Store on condition of the fence; a no-op where the sink has committed it with the rows."""
        if self._kept:
            return
        encoded = position.encode()
        self.reached.expect(encoded)
        with self._judged("saving the position"):
            done = self._run(_SAVE, [position.epoch, encoded, *self.place])
            if done.rowcount == 0:
                raise self.lost()
        self.reached.reach(encoded)

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
        row = self._run(_TAKE, [context.pipeline, self._lane, context.source, tables, holder()]).fetchone()
        assert row is not None  # noqa: S101  an INSERT with RETURNING
        self.fence = row[0]

    def _row(self, columns: LiteralString) -> tuple[Any, ...] | None:
        with self._judged("reading the position"):
            query: LiteralString = "SELECT " + columns + " FROM {table} WHERE pipeline = %s AND lane = %s"  # noqa: S608
            return self._run(query, [self._context.pipeline, self._lane]).fetchone()

    def _run(self, query: LiteralString, values: Sequence[object]) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.connection.execute(sql.SQL(query).format(table=self.table), values)

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise verdict(error, self._end, doing) from error


def clear(config: PostgresStoreConfig | PostgresSink, context: SinkContext) -> bool:
    """Forget the pipeline's position under its lock, but not its epoch; return whether there was one."""
    with _alone(config, context) as connection:
        table = sql.Identifier(config.schema_, POSITIONS)
        found = connection.execute("SELECT to_regclass(%s)", [table.as_string(connection)]).fetchone()
        if found is None or found[0] is None:
            return False
        query = sql.SQL(_CLEAR).format(table=table)
        return connection.execute(query, [context.pipeline, context.lane]).rowcount > 0


def look(config: PostgresStoreConfig | PostgresSink, context: SinkContext) -> Stored | None:
    """Return what is stored; takes no lock and changes nothing."""
    name = f"cdcsync {context.pipeline}"
    with connect(config, application_name=name, end=End.STORE, read_write=True) as connection:
        table = sql.Identifier(config.schema_, POSITIONS)
        query = sql.SQL("SELECT position, epoch FROM {} WHERE pipeline = %s AND lane = %s").format(table)
        try:
            row = connection.execute(query, [context.pipeline, context.lane]).fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.Error as error:
            raise verdict(error, End.STORE, "reading the position") from error
    return Stored(row[0], row[1]) if row is not None and row[0] is not None else None


def put(config: PostgresStoreConfig | PostgresSink, context: SinkContext, position: Position) -> None:
    """Store this position with a new fence, under the lock."""
    with _alone(config, context) as connection:
        create_positions(connection, config.schema_)
        query = sql.SQL(_PUT).format(table=sql.Identifier(config.schema_, POSITIONS))
        connection.execute(query, [context.pipeline, context.lane, position.epoch, position.encode(), holder()])


def create_positions(connection: Connection, schema: str) -> None:
    """Create schema and table where they are missing; two that do so at once do not disturb each other."""
    table = sql.Identifier(schema, POSITIONS)
    found = connection.execute("SELECT to_regclass(%s)", [table.as_string(connection)]).fetchone()
    if found is not None and found[0] is not None:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(POSITIONS, schema)])
        if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL(_CREATE).format(table=table))


def take_lock(connection: Connection, pipeline: str, lane: str, *, ours: int = 0) -> None:
    """Take the lane's lock until disconnected. Raises Fatal with OWNERSHIP, naming the holder.

    `ours` is our own former server process: one that the network cut off from us still has the lock and is ended.
    """
    key = lock_key(pipeline, lane)
    if ours and (found := _holder(connection, key)) and found[0] == ours:
        connection.execute("SELECT pg_terminate_backend(%s)", [ours])
    before = connection.execute("SELECT current_setting('lock_timeout')").fetchone()
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_WAIT_MS}ms"])
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [key])
    except psycopg.errors.LockNotAvailable as error:
        found = _holder(connection, key)
        who = f"process {found[0]} of the server, {found[1]!r} from {found[2]}" if found else "another process"
        msg = f"pipeline {pipeline} runs elsewhere: its lock is held by {who}"
        raise Fatal(msg, hint="stop the other one; two never write together", status=ExitStatus.OWNERSHIP) from error
    connection.execute("SELECT set_config('lock_timeout', %s, false)", before)


def lock_key(pipeline: str, lane: str) -> int:
    """Return the advisory lock's key; locks are a database's own."""
    digest = hashlib.sha256(f"cdcsync\0{pipeline}\0{lane}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _holder(connection: Connection, key: int) -> tuple[int, str, str] | None:
    parts = divmod(key & (1 << 64) - 1, 1 << 32)
    row = connection.execute(_HOLDER, parts).fetchone()
    return (row[0], row[1], row[2]) if row else None


@contextmanager
def _alone(config: PostgresStoreConfig | PostgresSink, context: SinkContext) -> Iterator[Connection]:
    """Hold the pipeline's lock for a moment."""
    doing = "changing the stored position"
    name = f"cdcsync {context.pipeline}"
    with connect(config, application_name=name, end=End.STORE, read_write=True) as connection:
        try:
            take_lock(connection, context.pipeline, context.lane)
            yield connection
        except psycopg.Error as error:
            raise verdict(error, End.STORE, doing) from error
