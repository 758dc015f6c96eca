"""Hashes ranges of rows at the server, for `verify`: equal text of every column, by the settings of `FORMATS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from cdcsync.connectors import Cut, Ranges

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from cdcsync.change import Row, Table
    from cdcsync.postgres.connection import Connection

_CUT: Final = sql.SQL("""
SELECT count(*), coalesce(encode(sha256(convert_to(string_agg(hash, '' ORDER BY {key}), 'UTF8')), 'hex'), ''), {lasts}
FROM (
    SELECT {key}, encode(sha256(convert_to(ROW({columns})::text, 'UTF8')), 'hex') AS hash
    FROM {table}{where} ORDER BY {key} LIMIT {limit}
) hashed
""")
_DIGEST: Final = sql.SQL("""
SELECT coalesce(encode(sha256(convert_to(string_agg(hash, '' ORDER BY {key}), 'UTF8')), 'hex'), '')
FROM (SELECT {key}, encode(sha256(convert_to(ROW({columns})::text, 'UTF8')), 'hex') AS hash FROM {table}{where}) hashed
""")
_TAKES: Final = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_index key
    WHERE key.indrelid = %(table)s::regclass AND key.indisvalid AND key.indisunique AND key.indpred IS NULL
    AND (
        SELECT array_agg(attribute.attname::text ORDER BY part.at)
        FROM unnest(key.indkey::int2[]) WITH ORDINALITY part (number, at)
        JOIN pg_catalog.pg_attribute attribute
            ON attribute.attrelid = key.indrelid AND attribute.attnum = part.number
    ) = %(names)s::text[]
) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute
    WHERE attrelid = %(table)s::regclass AND attname = ANY (%(names)s)
    AND (atttypid NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) OR NOT attnotnull)
)
"""


class Hashes:
    """Ranges of one server's tables. Only of those whose key is integers under a unique index of its own."""

    def __init__(
        self,
        connected: Callable[[], Connection],
        place: Callable[[Table], sql.Identifier],
        fetch: Callable[[Table, sql.Composed], list[Row]],
        judged: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._connected = connected
        self._place = place
        self._fetch = fetch
        self._judged = judged

    def ranges(self) -> Ranges:
        """Return what `verify` asks for."""
        return Ranges("postgres", self.takes, self.cut, self.digest, self.rows)

    def takes(self, table: Table) -> bool:
        """Return whether each range is a stretch of one index, in the order that integers have everywhere."""
        wanted = {"table": self._place(table).as_string(), "names": list(table.key)}
        with self._judged(f"looking at {table.qualified}"):
            row = self._connected().execute(_TAKES, wanted).fetchone()
        return row is not None and bool(row[0])

    def cut(self, table: Table, after: Row | None, rows_max: int) -> Cut:
        """Hash at most so many rows after a key."""
        down = sql.SQL(", ").join([sql.SQL("{} DESC").format(sql.Identifier(name)) for name in table.key])
        lasts = [sql.SQL("(array_agg({} ORDER BY {}))[1]").format(sql.Identifier(name), down) for name in table.key]
        query = _CUT.format(
            **self._parts(table, after, None), lasts=sql.SQL(", ").join(lasts), limit=sql.Literal(rows_max)
        )
        count, digest, *last = self._one(table, query)
        return Cut(count, digest, tuple(last) if count == rows_max else None)

    def digest(self, table: Table, after: Row | None, last: Row | None) -> str:
        """Hash the rows of a range."""
        return str(self._one(table, _DIGEST.format(**self._parts(table, after, last)))[0])

    def rows(self, table: Table, after: Row | None, last: Row | None) -> list[Row]:
        """The rows of a range, by key."""
        parts = self._parts(table, after, last)
        query = sql.SQL("SELECT {columns} FROM {table}{where} ORDER BY {key}").format(**parts)
        with self._judged(f"reading {table.qualified}"):
            return self._fetch(table, query)

    def _one(self, table: Table, query: sql.Composed) -> tuple[Any, ...]:
        with self._judged(f"hashing {table.qualified}"):
            row = self._connected().execute(query).fetchone()
        assert row is not None  # noqa: S101  an aggregate gives one row
        return row

    def _parts(self, table: Table, after: Row | None, last: Row | None) -> dict[str, sql.Composable]:
        key = sql.SQL(", ").join([sql.Identifier(name) for name in table.key])
        bounds = [
            sql.SQL("({}) {} ({})").format(key, sign, sql.SQL(", ").join([sql.Literal(value) for value in bound]))
            for sign, bound in ((sql.SQL(">"), after), (sql.SQL("<="), last))
            if bound is not None
        ]
        return {
            "key": key,
            "columns": sql.SQL(", ").join([sql.Identifier(column.name) for column in table.columns]),
            "table": self._place(table),
            "where": sql.SQL(" WHERE ") + sql.SQL(" AND ").join(bounds) if bounds else sql.SQL(""),
        }
