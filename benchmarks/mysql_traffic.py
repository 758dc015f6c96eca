"""The log that every contender of one MySQL benchmark reads: eight columns, about 200 bytes a row."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.figures import PROVED
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = {
    "default_authentication_plugin": "mysql_native_password",
    "innodb_buffer_pool_size": "512M",
    "innodb_log_file_size": "512M",
    "innodb_flush_log_at_trx_commit": "0",
    "max_binlog_size": "1G",
}
TABLE = """
create table bench (
    id bigint primary key, quantity int, note text, address text, price decimal(12,2),
    at timestamp(6) null, paid boolean, sku varchar(40)
)
"""
ROW = """
{n}, mod({n}, 1000), repeat('a', 50), repeat('b', 60), {n} * 1.01, timestamp'2026-01-01 00:00:00' + interval {n} * 1000 microsecond,
mod({n}, 2) = 0, concat('sku ', {n})
"""
ROWS = f"""
insert into bench with recursive numbers (n) as (select %s union all select n + 1 from numbers where n < %s)
select {ROW.format(n="n")} from numbers
"""
STATEMENT = 1000
"""Rows of one statement; a transaction has as many statements as it needs."""
SINGLY = f"""
create procedure singly(first bigint, last bigint) begin
    while first <= last do
        insert into bench select {ROW.format(n="first")};
        set first = first + 1;
    end while;
end
"""


@dataclass(frozen=True, slots=True)
class Log:
    """A server whose log has the table and its rows, and nothing else."""

    server: MysqlServer
    file: str
    offset: int
    """Where it ends."""


@contextmanager
def logged(rows: int, rows_per_transaction: int) -> Iterator[Log]:
    """Yield a MySQL 8.0 that has written them."""
    server = MysqlServer("mysql8", settings=SERVER).start()
    try:
        server.execute(f"create database bench; use bench; {TABLE}")
        if rows_per_transaction == 1:
            server.execute(SINGLY, database="bench")
            server.execute("set time_zone = '+00:00'; call singly(1, %s)", (rows,), database="bench")
        else:
            _write(server, rows, rows_per_transaction)
        yield Log(server, *server.position())
    finally:
        server.stop()


def _write(server: MysqlServer, rows: int, rows_per_transaction: int) -> None:
    with server.connect("bench") as connection, connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00'")
        for low in range(1, rows + 1, rows_per_transaction):
            high = min(low + rows_per_transaction - 1, rows)
            cursor.execute("begin")
            for first in range(low, high + 1, STATEMENT):
                cursor.execute(ROWS, (first, min(first + STATEMENT - 1, high)))
            cursor.execute("commit")


def last_rows(server: MysqlServer) -> list[tuple[Any, ...]]:
    """Return the last rows as text, every column, oldest first."""
    with server.connect("bench") as connection, connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00'")
        cursor.execute(
            "select cast(id as char), cast(quantity as char), note, address, cast(price as char), "
            "date_format(at, '%Y-%m-%dT%H:%i:%s.%f'), cast(paid as char), sku "
            f"from (select * from bench order by id desc limit {PROVED}) newest order by id"
        )
        return list(cursor.fetchall())
