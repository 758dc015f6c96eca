"""Tables that change under sysbench's traffic while the daemon that carries them is killed between DDL and rows."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import fix_sysbench
from fix_evolution import Flow
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_postgres import Database, drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from cdcsync.testing.faults import Proxy, Victim

FULL = bool(os.environ.get("CDCSYNC_FULL"))
SIZE = 200
RATE = 40
WAIT_S = 120
SOURCES = ("mysql8", "mariadb10", "postgres15")
T = "sbtest1"
MYSQL = (
    f"ALTER TABLE {T} ADD e1 varchar(20) DEFAULT 'x'",
    f"ALTER TABLE {T} CHANGE e1 e2 varchar(30)",
    f"ALTER TABLE {T} MODIFY k bigint NOT NULL DEFAULT 0, ADD f decimal(8,2) NOT NULL DEFAULT 1.50",
    f"ALTER TABLE {T} DROP e2, ADD g int",
)
POSTGRES = (
    f"ALTER TABLE {T} ADD e1 varchar(20) DEFAULT 'x'",
    f"ALTER TABLE {T} RENAME e1 TO e2",
    f"ALTER TABLE {T} ALTER k TYPE bigint, ADD f numeric(8,2) NOT NULL DEFAULT 1.50",
    f"ALTER TABLE {T} DROP e2, ADD g int",
)
TABLES = (T, "sbtest2", "sbtest3")


@contextmanager
def database_of(request: pytest.FixtureRequest, name: str) -> Iterator[MysqlDatabase | Database]:
    """Give a database of a server, by its fixture's name."""
    server = request.getfixturevalue(name)
    if name.startswith("postgres"):
        there = make_database(server)
        yield there
        drop_database(there)
    else:
        made = make_mysql_database(server)
        yield made
        drop_mysql_database(made)


def flow(folder: Path, source: MysqlDatabase | Database, sink: Any) -> Flow:
    """Return the pipeline of sysbench's tables."""
    schema = source.name if isinstance(source, MysqlDatabase) else "public"
    return Flow(folder, source.url, sink, *[{"from": f"{schema}.{table}", "to": table} for table in TABLES])


def rows(source: MysqlDatabase | Database, table: str) -> list[dict[str, Any]]:
    """Return a table's rows by the names of their columns, as SELECT gives them."""
    where = f"table_schema = '{source.name}'" if isinstance(source, MysqlDatabase) else "table_schema = 'public'"
    query = f"SELECT column_name FROM information_schema.columns WHERE {where} AND table_name = '{table}'"
    names = [str(name) for (name,) in source.query(query)]
    found = source.query(f"SELECT {', '.join(names)} FROM {table} ORDER BY id")
    return [dict(zip(names, row, strict=True)) for row in found]


def changed_under_traffic(
    source: MysqlDatabase | Database,
    killed: Victim,
    *,
    ready: Callable[[], bool],
    done: Callable[[str], bool],
    proxy: tuple[Proxy, bytes] | None = None,
) -> None:
    """Change the tables, kill the daemon at each change, and see that all is equal in the end.

    `proxy` stands before what is altered: the answer to the DDL, which holds these bytes, never comes, and the daemon
    is killed before it asks again.
    """
    fix_sysbench.fill(source, SIZE)
    killed.start()
    killed.work_until(ready, WAIT_S)
    with fix_sysbench.traffic(source, 0.0, size=SIZE, rate=RATE):
        for change in MYSQL if isinstance(source, MysqlDatabase) else POSTGRES:
            if proxy is not None:
                before = proxy[0].lost
                proxy[0].lose(proxy[1])
            source.execute(change)
            if proxy is not None:
                killed.work_until(lambda: proxy[0].lost > before, WAIT_S)  # noqa: B023  called at once
            else:
                killed.rest(0.3)
            killed.kill()
            killed.start()
        source.execute("TRUNCATE TABLE sbtest2")
    for table in TABLES:
        source.execute(f"UPDATE {table} SET k = k + 1")
    end = time.monotonic() + WAIT_S
    for table in TABLES:
        while not done(table):
            assert time.monotonic() < end, f"{table} is not equal\n{killed.log.read_text()[-3000:]}"
            killed.rest(0.2)
