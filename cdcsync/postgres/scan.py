"""Reads rows of a PostgreSQL beside the stream, for `verify`: by server-side cursor, in the log's own text forms."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from cdcsync.connectors import Scanner
from cdcsync.errors import End
from cdcsync.positions import NAME as POSITIONS
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import PostgresPosition, parse_lsn
from cdcsync.postgres.ranges import Hashes
from cdcsync.postgres.types import decoder, encoder
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from psycopg.abc import Query

    from cdcsync.change import Row, Table
    from cdcsync.connectors import Ranges
    from cdcsync.ports import SinkContext, SourceContext
    from cdcsync.postgres.config import PostgresServerConfig, PostgresSink, PostgresSource
    from cdcsync.postgres.connection import Connection

FETCH_ROWS: Final = 5000
_JSONB: Final = (
    "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s::regclass AND atttypid = 'jsonb'::regtype"
)
_NOTHING: Final = sql.SQL("")
KEYS_MAX: Final = 500
"""Keys asked for by one statement."""


def source_scanner(config: PostgresSource, context: SourceContext) -> Scanner:
    """Return the scanner of the source; its `end` tells whether a stored position has passed all seen so far."""
    rows = _Rows(config, f"cdcsync {context.pipeline} verify", End.SOURCE, "public")
    return Scanner(rows.scan, rows.read, rows.end, rows.close, rows.ranges())


def sink_scanner(config: PostgresSink, context: SinkContext) -> Scanner:
    """Return the scanner of the target; its `end` is the position that is committed with its rows."""
    rows = _Rows(config, f"cdcsync {context.pipeline} verify", End.SINK, config.schema_)
    return Scanner(
        rows.scan, rows.read, lambda: rows.stored(context.pipeline), rows.close, rows.ranges(), rows.kept_by_value
    )


class _Rows:
    """Two read-only connections: a cursor stands on one while keys are read by the other."""

    def __init__(self, config: PostgresServerConfig, name: str, end: End, schema: str) -> None:
        self._config = config
        self._name = name
        self._end = end
        self._schema = schema
        self._scanning: Connection | None = None
        self._reading: Connection | None = None

    def scan(self, table: Table) -> Iterator[Row]:
        """All rows of one snapshot in key order; an abandoned iteration ends it."""
        if self._scanning is None:
            self._scanning = self._connect()
        order = sql.SQL(", ").join([_order(table, name) for name in table.key])
        query = sql.SQL("SELECT {} FROM {}").format(_columns(table), self._identifier(table))
        if table.key:
            query += sql.SQL(" ORDER BY ") + order
        with self._judged(f"reading {table.qualified}"), self._scanning.transaction():
            self._scanning.execute(sql.SQL("DECLARE rows NO SCROLL CURSOR FOR ") + query)
            while True:
                rows = _fetch(self._scanning, f"FETCH {FETCH_ROWS} FROM rows", table)
                yield from rows
                if len(rows) < FETCH_ROWS:
                    return

    def read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        """The rows of these keys, as they are now."""
        with self._judged(f"reading {table.qualified}"):
            return rows_of(self._read(), self._identifier(table), table, keys)

    def end(self) -> Callable[[str], bool]:
        """Return what tells whether an encoded position lies past all commits visible until now."""
        with self._judged("reading the end of the log"):
            row = self._read().execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None  # noqa: S101  a function gives one row
        lsn = parse_lsn(str(row[0]))
        return lambda encoded: _has_passed(PostgresPosition.decode(encoded), lsn)

    def stored(self, pipeline: str) -> str | None:
        """Return the position stored in this database."""
        query = sql.SQL("SELECT position FROM {} WHERE pipeline = %s").format(sql.Identifier(self._schema, POSITIONS))
        try:
            row = self._read().execute(query, [pipeline]).fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.Error as error:
            raise verdict(error, self._end, "reading the stored position") from error
        return None if row is None else row[0]

    def ranges(self) -> Ranges:
        """Return what hashes ranges at this server."""

        def fetch(table: Table, query: sql.Composed) -> list[Row]:
            return _fetch(self._read(), query, table)

        return Hashes(self._read, self._identifier, fetch, self._judged).ranges()

    def kept_by_value(self, table: Table) -> list[str]:
        """Return the names of the jsonb columns."""
        with self._judged(f"reading {table.qualified}"):
            found = self._read().execute(_JSONB, [self._identifier(table).as_string()]).fetchall()
        return [str(name) for (name,) in found]

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        for connection in (self._scanning, self._reading):
            if connection is not None:
                connection.close()
        self._scanning = self._reading = None

    def _read(self) -> Connection:
        if self._reading is None:
            self._reading = self._connect()
        return self._reading

    def _connect(self) -> Connection:
        connection = connect(self._config, application_name=self._name, end=self._end)
        connection.execute("SET default_transaction_read_only = on; SET statement_timeout = 0")
        connection.prepare_threshold = None
        return connection

    def _identifier(self, table: Table) -> sql.Identifier:
        return sql.Identifier(table.schema or self._schema, table.name)

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise verdict(error, self._end, doing) from error


def rows_of(
    connection: Connection, name: sql.Identifier, table: Table, keys: Iterable[Row], more: sql.Composable = _NOTHING
) -> list[Row]:
    """Return the rows of these keys; `more` is added to the condition. Raises what psycopg raises."""
    encoders = [encoder(table.columns[index].type) for index in table.key_at]
    names = sql.SQL(", ").join([sql.Identifier(each) for each in table.key])
    rows: list[Row] = []
    left = iter(keys)
    while some := list(islice(left, KEYS_MAX)):
        listed = sql.SQL(", ").join([_listed(key, encoders) for key in some])
        query = sql.SQL("SELECT {} FROM {} WHERE ({}) IN ({}){}").format(_columns(table), name, names, listed, more)
        rows += _fetch(connection, query, table)
    return rows


def _has_passed(position: PostgresPosition, lsn: int) -> bool:
    return position.is_copied and position.within is None and position.lsn >= lsn


def _columns(table: Table) -> sql.Composed:
    return sql.SQL(", ").join([sql.Identifier(column.name) for column in table.columns])


def _order(table: Table, name: str) -> sql.Composed:
    """Integers by value, all else by the bytes of its text, whatever the database's encoding."""
    if table.columns[table.at[name]].type.kind is Kind.INTEGER:
        return sql.SQL("{}").format(sql.Identifier(name))
    return sql.SQL("convert_to({}::text, 'UTF8')").format(sql.Identifier(name))


def _listed(key: Row, encoders: Sequence[Callable[[object], str]]) -> sql.Composed:
    values = [sql.Literal(write(value)) for write, value in zip(encoders, key, strict=True)]
    return sql.SQL("({})").format(sql.SQL(", ").join([sql.SQL("{}").format(value) for value in values]))


def _fetch(connection: Connection, query: Query, table: Table) -> list[Row]:
    """Return a statement's rows, read as the log's texts are."""
    decoders = [decoder(column.type) for column in table.columns]
    result = connection.execute(query).pgresult
    assert result is not None  # noqa: S101  a SELECT has a result
    value = result.get_value
    return [
        tuple([None if (raw := value(at, index)) is None else decode(raw) for index, decode in enumerate(decoders)])
        for at in range(result.ntuples)
    ]
