"""Compares every column of every row of two tables without any code that carried them: the tests' own eyes.

PostgreSQL is read as its text output by psycopg, SQLite by sqlite3; each cell is brought to one plain text here.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

DIFFERENCES_MAX: Final = 20
_SETTINGS: Final = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=3 -c lc_monetary=C"
_MOMENT: Final = re.compile(r"(\d{4,})-(\d\d)-(\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]00(?::?00)?)?( BC)?")

_BY_VALUE: Final = "jsonb that was json"

Rows = Counter[tuple[str | None, ...]]


def postgres_rows(
    url: str, table: str, columns: Sequence[str], *, schema: str = "public", by_value: Collection[str] = ()
) -> Rows:
    """Return all rows of a table as texts, counted; JSON to the byte, but in the columns `by_value` by its value."""
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join([sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns]),
        sql.Identifier(schema, table),
    )
    with psycopg.connect(url, options=_SETTINGS, autocommit=True) as connection:
        connection.execute("SET bytea_output = hex")
        found = connection.execute(_KINDS, [schema, table, list(columns)])
        kinds = [_BY_VALUE if name in by_value else kind for name, (kind,) in zip(columns, found, strict=True)]
        with connection.cursor(name="rows", withhold=True) as cursor:
            return Counter(
                tuple(_plain(kind, cell) for kind, cell in zip(kinds, row, strict=True))
                for row in cursor.execute(query)
            )


def sqlite_rows(path: Path | str, table: str, columns: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return all rows of a table as texts, counted; `kinds` are the PostgreSQL types of the source's columns."""
    listed = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    quoted = '"' + table.replace('"', '""') + '"'
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return Counter(
            tuple(_plain(kind, _text(kind, cell)) for kind, cell in zip(kinds, row, strict=True))
            for row in connection.execute(f"SELECT {listed} FROM {quoted}")  # noqa: S608  quoted
        )


_KINDS: Final = """
SELECT pg_catalog.format_type(attribute.atttypid, NULL)
FROM pg_catalog.pg_class relation
JOIN pg_catalog.pg_namespace space ON space.oid = relation.relnamespace AND space.nspname = %s
JOIN pg_catalog.pg_attribute attribute ON attribute.attrelid = relation.oid AND attribute.attnum > 0
WHERE relation.relname = %s AND attribute.attname = ANY (%s) AND NOT attribute.attisdropped
ORDER BY attribute.attnum
"""


def columns_of(url: str, table: str, *, schema: str = "public") -> tuple[list[str], list[str]]:
    """Return the names of a PostgreSQL table's columns, in order, and their types."""
    query = _KINDS.replace("SELECT ", "SELECT attribute.attname, ", 1).replace("AND attribute.attname = ANY (%s) ", "")
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(query.encode(), [schema, table]).fetchall()
    return [name for name, _ in found], [kind for _, kind in found]


def differences(want: Rows, got: Rows) -> list[str]:
    """Return a line for each row that one side has more often; empty when equal. For tests: it shows the rows."""
    missing = [f"missing {count} x {row}" for row, count in (want - got).items()]
    extra = [f"extra {count} x {row}" for row, count in (got - want).items()]
    return (missing + extra)[:DIFFERENCES_MAX]


def assert_equal_to_postgres(source: str, target: str, table: str, *, schema: str = "public") -> int:
    """Compare a table in two PostgreSQL databases; return how many rows there are. Raises AssertionError."""
    columns, kinds = columns_of(source, table, schema=schema)
    there = dict(zip(*columns_of(target, table, schema=schema), strict=True))
    by_value = [name for name, kind in zip(columns, kinds, strict=True) if (kind, there.get(name)) == ("json", "jsonb")]
    want, got = (postgres_rows(end, table, columns, schema=schema, by_value=by_value) for end in (source, target))
    return _assert_equal(table, want, got)


def assert_equal_to_sqlite(source: str, path: Path | str, table: str, *, schema: str = "public") -> int:
    """Compare a PostgreSQL table with one of the same name in SQLite; return how many rows there are."""
    columns, kinds = columns_of(source, table, schema=schema)
    want = postgres_rows(source, table, columns, schema=schema)
    return _assert_equal(table, want, sqlite_rows(path, table, columns, kinds))


def _assert_equal(table: str, want: Rows, got: Rows) -> int:
    found = differences(want, got)
    assert not found, f"{table}: {len(found)} or more rows differ:\n" + "\n".join(found)
    return want.total()


def _text(kind: str, cell: Any) -> str | None:
    """Return what SQLite holds in the form of PostgreSQL's output for that type."""
    if cell is None:
        return None
    if kind == "boolean":
        return "true" if cell else "false"
    if kind == "bytea":
        return f"\\x{cell.hex()}"
    text: str = cell.decode() if isinstance(cell, bytes) else str(cell)
    return text


def _plain(kind: str, cell: str | None) -> str | None:
    """Return one text for all spellings of a value of that PostgreSQL type."""
    if cell is None:
        return None
    if kind in {"real", "double precision"}:
        return repr(float(cell))
    if kind.startswith(("timestamp", "date")) and not cell.endswith("infinity"):
        return _moment(cell)
    if kind == _BY_VALUE:
        return json.dumps(json.loads(cell, parse_float=str), sort_keys=True)
    if kind.startswith("time") and "with time zone" in kind:
        return cell.removesuffix("Z").removesuffix("+00:00").removesuffix("+00")
    if kind == "character":
        return cell.rstrip(" ")
    return cell


def _moment(cell: str) -> str:
    found = _MOMENT.fullmatch(cell)
    if found is None:
        return cell
    year, month, day, clock, _, before_christ = found.groups()
    return f"{1 - int(year) if before_christ else int(year)}-{month}-{day} {clock}"
