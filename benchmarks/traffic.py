"""The input that every contender of one benchmark reads: eight columns, about 200 bytes a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from benchmarks.figures import PROVED

if TYPE_CHECKING:
    from cdcsync.testing.servers import PostgresServer

TABLE = """
create table bench (
    id bigint primary key, quantity int, note text, address text, price numeric(12,2),
    at timestamptz, paid boolean, sku varchar(40)
)
"""
ROWS = """
insert into bench
select n, n % 1000, repeat('a', 50), repeat('b', 60), n * 1.01, timestamptz '2026-01-01' + n * interval '1 ms', n % 2 = 0,
       'sku ' || n
from generate_series({first}::bigint, {last}::bigint) n
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for one round."""

    rows: int
    last_id: int
    last_lsn: int
    """Before the last transaction's commit: a reader whose position is past it has all rows."""
    end_lsn: int
    """After an empty transaction: the log's end."""


def prepare(server: PostgresServer) -> None:
    """Create the table, and the publication that the peers share."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("create publication peers for table bench")


def write(server: PostgresServer, rows: int, rows_per_transaction: int) -> Written:
    """Insert that many more rows; one-row transactions by pipelined single inserts without waiting for the disk."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        first = _scalar(connection, "select coalesce(max(id), 0) + 1 from bench")
        last = first + rows - 1
        low_of_last = last - (last - first) % rows_per_transaction
        if rows_per_transaction == 1:
            _write_singly(connection, first, last - 1)
        else:
            for low in range(first, low_of_last, rows_per_transaction):
                connection.execute(ROWS.format(first=low, last=low + rows_per_transaction - 1))
        before = _scalar(connection, "select pg_current_wal_insert_lsn() - '0/0'")
        connection.execute(ROWS.format(first=low_of_last, last=last))
        connection.execute("set synchronous_commit = on")
        connection.execute("select txid_current()")
        end = _scalar(connection, "select pg_current_wal_insert_lsn() - '0/0'")
    return Written(rows, last, before, end)


def _write_singly(connection: psycopg.Connection, first: int, last: int) -> None:
    connection.execute(
        "create or replace procedure bench_singly(first bigint, last bigint) language plpgsql as $$ begin "
        "for one in first..last loop " + ROWS.format(first="one", last="one") + "; commit; end loop; end $$"
    )
    connection.execute("call bench_singly(%s, %s)", (first, last))


def last_rows(server: PostgresServer, table: str = "bench") -> list[tuple[object, ...]]:
    """Return the last rows as text, every column, oldest first."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(
            "select id::text, quantity::text, note, address, price::text, "
            "to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), paid::text, sku "
            f"from (select * from {table} order by id desc limit {PROVED}) newest order by id"
        ).fetchall()


def _scalar(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    if row is None:
        msg = f"no row: {query}"
        raise RuntimeError(msg)
    return int(row[0])
