"""How a table is cut into chunks: by the columns of a key, or by the blocks of its file where no key will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import psycopg
from psycopg import sql

from cdcsync.errors import End
from cdcsync.postgres.copy import columns_of, filter_of
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.scan import rows_of
from cdcsync.postgres.snapshot import altered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Row, Table
    from cdcsync.pending import Key
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.publication import Published
    from cdcsync.snapshot import Chunk

BLOCKS: Final = "ctid"
"""As a pending table's `by`, before the number of the table's file."""
ROWS_PER_BLOCK: Final = 50
"""Where the table was never analysed."""

_SIGNATURE: Final = """
SELECT coalesce(string_agg(concat_ws(':', attname, atttypid, atttypmod), ',' ORDER BY attnum), '')
FROM pg_catalog.pg_attribute WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped
"""
_COLUMNS: Final = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), n.nspname = 'pg_catalog' OR b.typtype = 'e',
       coalesce(c.collisdeterministic, true)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_catalog.pg_namespace n ON n.oid = b.typnamespace
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = %s::oid AND a.attname = ANY(%s::text[]) AND NOT a.attisdropped
"""
_FILE: Final = """
SELECT pg_catalog.pg_relation_filenode(c.oid)::text, pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int8,
       CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages ELSE 0 END::float8
FROM pg_catalog.pg_class c WHERE c.oid = %s::oid
"""
_ESTIMATE: Final = """
SELECT max(rows) FROM (
SELECT sum(greatest(c.reltuples, 0))::int8 AS rows FROM pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE t.isleaf
UNION ALL SELECT greatest(reltuples, 0)::int8 FROM pg_catalog.pg_class WHERE oid = %(oid)s::oid AND relkind = 'r'
) counted
"""


class Cutter(Protocol):
    """Finds where a chunk ends, and says which rows are in it."""

    @property
    def by(self) -> tuple[str, ...]:
        """What a position says it was cut by."""
        ...

    def cut(self, connection: Connection, chunk: Chunk) -> Key | None:
        """Return the last key of a chunk, None when it goes on to the end."""
        ...

    def within(self, after: Key | None, last: Key | None) -> list[sql.Composable]:
        """Return the conditions that bound it."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One table as its chunks are read."""

    published: Published
    table: Table
    """As the log shows it."""
    cutter: Cutter
    signature: str
    """Of the columns, when this was planned."""
    rows: int
    """The server's estimate."""
    where: str = ""
    """Of the first copy, in the server's SQL."""

    @property
    def lock(self) -> sql.Composed:
        """The statement that any SELECT begins with, by itself."""
        return sql.SQL("LOCK TABLE {}{} IN ACCESS SHARE MODE").format(_only(self.published), self._name)

    def check(self, connection: Connection) -> None:
        """Raise Transient when the table's columns are others now."""
        row = connection.execute(_SIGNATURE, [self.published.info.oid]).fetchone()
        if row is None or row[0] != self.signature:
            raise altered(self.table.qualified)

    def cut(self, connection: Connection, chunk: Chunk) -> Key | None:
        """Return the chunk's last key."""
        return self.cutter.cut(connection, chunk)

    def copy(self, chunk: Chunk, last: Key | None) -> sql.Composed:
        """Return the COPY of a chunk: the publication's columns and rows, in the chunk's range."""
        conditions = self.cutter.within(chunk.after, last)
        if self.published.row_filter is not None:
            conditions.append(filter_of(self.published.row_filter))
        if chunk.pending.where:
            conditions.append(filter_of(chunk.pending.where))
        where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
        return sql.SQL("COPY (SELECT {} FROM {}{}{}) TO STDOUT").format(
            columns_of(self.published), _only(self.published), self._name, where
        )

    def named(self, connection: Connection, table: Table, keys: Sequence[Row]) -> list[Row]:
        """Return the rows of these keys, of the publication's; `table` has the columns that are wanted."""
        text = self.published.row_filter
        more = sql.SQL("") if text is None else sql.SQL(" AND {}").format(filter_of(text))
        return rows_of(connection, self._name, table, keys, more)

    @property
    def _name(self) -> sql.Identifier:
        return self.published.info.identifier


@dataclass(frozen=True, slots=True)
class ByColumns:
    """Ranges of a key's columns, in the order of the index under it."""

    name: sql.Identifier
    only: sql.SQL
    by: tuple[str, ...]
    types: tuple[str, ...]
    """As the server writes them."""

    def cut(self, connection: Connection, chunk: Chunk) -> Key | None:
        """Ask the index."""
        key = self._key()
        conditions = self.within(chunk.after, None)
        query = sql.SQL(
            "SELECT {texts} FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS cdcsync_place FROM {only}{name}{where} "
            "ORDER BY {key} LIMIT {rows}) numbered WHERE cdcsync_place = {rows}"
        ).format(
            texts=sql.SQL(", ").join([sql.SQL("{}::text").format(sql.Identifier(each)) for each in self.by]),
            key=key,
            only=self.only,
            name=self.name,
            where=sql.SQL(" WHERE ") + conditions[0] if conditions else sql.SQL(""),
            rows=sql.Literal(chunk.rows_max),
        )
        row = connection.execute(query).fetchone()
        return None if row is None else tuple(map(str, row))

    def within(self, after: Key | None, last: Key | None) -> list[sql.Composable]:
        """Return row-value comparisons."""
        return [
            sql.SQL("({}) {} ({})").format(self._key(), sign, self._values(bound))
            for sign, bound in ((sql.SQL(">"), after), (sql.SQL("<="), last))
            if bound is not None
        ]

    def _key(self) -> sql.Composed:
        return sql.SQL(", ").join([sql.Identifier(each) for each in self.by])

    def _values(self, key: Key) -> sql.Composed:
        return sql.SQL(", ").join(
            [
                sql.SQL("CAST({} AS {})").format(sql.Literal(value), filter_of(shown, bare=True))
                for value, shown in zip(key, self.types, strict=True)
            ]
        )


@dataclass(frozen=True, slots=True)
class ByBlocks:
    """Ranges of the blocks of one table's file."""

    oid: int
    by: tuple[str, ...]

    def cut(self, connection: Connection, chunk: Chunk) -> Key | None:
        """Return the first block after the chunk. Raises Transient when the table has another file now."""
        row = connection.execute(_FILE, [self.oid]).fetchone()
        if row is None or row[0] != self.by[1]:
            raise altered(chunk.pending.table)
        _, blocks, density = row
        first = int(chunk.after[0]) if chunk.after is not None else 0
        following = first + max(1, int(chunk.rows_max / (density or ROWS_PER_BLOCK)))
        return (str(following),) if following < blocks else None

    def within(self, after: Key | None, last: Key | None) -> list[sql.Composable]:
        """Return comparisons of ctid."""
        return [
            sql.SQL("ctid {} {}::tid").format(sign, sql.Literal(f"({bound[0]},0)"))
            for sign, bound in ((sql.SQL(">="), after), (sql.SQL("<"), last))
            if bound is not None
        ]


def plan(connection: Connection, published: Published, table: Table) -> Part:
    """Return how a table is read. Raises Transient and Fatal."""
    info = published.info
    try:
        signature = connection.execute(_SIGNATURE, [info.oid]).fetchone()
        estimate = connection.execute(_ESTIMATE, {"oid": info.oid}).fetchone()
        cutter = _cutter(connection, published)
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"planning the copy of {table.qualified}") from error
    return Part(published, table, cutter, signature[0] if signature else "", int(estimate[0] or 0) if estimate else 0)


def _cutter(connection: Connection, published: Published) -> Cutter:
    """Prefer a key whose order is the server's own and total; an extension's operators are not found by name."""
    info = published.info
    keys = [key for key in (info.key, info.primary_key, *(key for _, key in info.unique_keys)) if key]
    for key in keys:
        found = {row[0]: row[1:] for row in connection.execute(_COLUMNS, [info.oid, list(key)]).fetchall()}
        plain = all(built_in and deterministic for _, built_in, deterministic in found.values())
        if len(found) == len(key) and (plain or info.kind != "r"):
            return ByColumns(info.identifier, _only(published), key, tuple(found[name][0] for name in key))
    row = connection.execute(_FILE, [info.oid]).fetchone()
    return ByBlocks(info.oid, (BLOCKS, row[0] if row else ""))


def _only(published: Published) -> sql.SQL:
    return sql.SQL("ONLY ") if published.info.kind == "r" else sql.SQL("")
