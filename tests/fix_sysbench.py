"""sysbench's traffic, a pipeline of its tables, and a comparison that knows nothing of cdcsync's own."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import fix_daemon
import psycopg
from fix_daemon import Daemon
from fix_mysql import MysqlDatabase

from cdcsync.mysql.position import MysqlPosition, file_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.faults import Victim
    from cdcsync.testing.mysql_servers import MysqlServer

THREADS = 4
TABLES = tuple(f"sbtest{number}" for number in range(1, 5))
COLUMNS = "id, k, c, pad"
WRITER = "sysbench"
"""The user as whom it writes: its client library knows the older authentication alone."""


def _login(source: MysqlDatabase | Database) -> list[str]:
    server, driver = source.server, "mysql" if isinstance(source, MysqlDatabase) else "pgsql"
    user = WRITER if driver == "mysql" else source.server.user
    login = {"host": server.host, "port": server.port, "user": user, "password": server.password, "db": source.name}
    errors = ["--mysql-ignore-errors=1213,1020,1205,1412"] if driver == "mysql" else []
    return [f"--db-driver={driver}", *[f"--{driver}-{name}={value}" for name, value in login.items()], *errors]


def _command(source: MysqlDatabase | Database, size: int, word: str, *options: str) -> list[str]:
    return [
        "sysbench",
        "oltp_read_write",
        *_login(source),
        f"--tables={len(TABLES)}",
        f"--table-size={size}",
        f"--threads={THREADS}",
        *options,
        word,
    ]


def fill(source: MysqlDatabase | Database, size: int) -> None:
    """Make the tables with `size` rows each."""
    if isinstance(source, MysqlDatabase):
        _let_in(source.server)
    subprocess.run(_command(source, size, "prepare"), check=True, capture_output=True, timeout=300)


def _let_in(server: MysqlServer) -> None:
    server.execute(
        f"CREATE USER IF NOT EXISTS '{WRITER}'@'%%' IDENTIFIED {server.build.older_login}; "
        f"GRANT ALL ON *.* TO '{WRITER}'@'%%'",
        [server.password],
    )


@contextlib.contextmanager
def traffic(
    source: MysqlDatabase | Database, at_least_s: float, *, size: int, outlives: bool = True, rate: int = 0
) -> Iterator[None]:
    """Write as sysbench does while the block runs, and until that time is over; at most `rate` transactions a second.

    `outlives`: it must still run at the end; not so where the block kills the server.
    """
    options = ["--time=900", "--events=0", f"--rate={rate}", "--db-ps-mode=disable" if rate else "--db-ps-mode=auto"]
    began = time.monotonic()
    writer = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *_command(source, size, "run", *options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(max(0.0, began + at_least_s - time.monotonic()))
        assert not outlives or writer.poll() is None, f"sysbench ended by itself: {writer.communicate()[0]!r}"
    finally:
        writer.kill()
        writer.communicate()
    if source.server.running:
        _await_end_of_writers(source)


def _await_end_of_writers(source: MysqlDatabase | Database) -> None:
    """A session whose client is gone may still commit what it was sent."""
    busy = "SELECT count(*) FROM information_schema.processlist WHERE user = %s AND db = %s"
    if not isinstance(source, MysqlDatabase):
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%sbtest%%' AND datname = %s AND datname = %s"
        busy += " AND pid <> pg_backend_pid() AND application_name = ''"
    who = WRITER if isinstance(source, MysqlDatabase) else source.name
    for _ in range(300):
        if source.query(busy, [who, source.name]) == [(0,)]:
            return
        time.sleep(0.1)
    raise AssertionError("sysbench's sessions do not end")


@dataclass(frozen=True)
class Pipeline(Daemon):
    """A pipeline of sysbench's tables, in a folder of its own."""

    source: MysqlDatabase

    def write(self, sink: dict[str, Any], *, source: dict[str, Any], tables: Sequence[str] = TABLES) -> None:
        """Write the file; `source` has at least where to start, and wins over what its section would say."""
        server = self.source.server
        end = {"host": server.host, "port": server.port, "user": server.user, "password": "${env:SOURCE_PASSWORD}"}
        end |= source
        if "hosts" in end:
            del end["host"], end["port"]
        self.put({"mysql": end}, sink, [{"from": f"{self.source.name}.{table}", "to": table} for table in tables])

    def await_saved(self, victim: Victim, reached: Callable[[MysqlPosition], bool], within_s: float) -> None:
        """Return once the victim, as it was started last, has saved a position of which `reached` says so."""
        self.await_step(victim, lambda position: reached(MysqlPosition.decode(position)), within_s)

    def await_drained(
        self, victim: Victim, within_s: float = 60.0, *, at: MysqlServer | None = None, marked: bool = True
    ) -> None:
        """Return once all that is committed at the source now is saved; one more row makes it come at once."""
        server = at or self.source.server
        if marked:
            server.execute(f"UPDATE {self.source.name}.sbtest1 SET k = k + 1 WHERE id = 1")
        self.await_saved(victim, past_end_of(server), within_s)


def past_end_of(source: MysqlServer) -> Callable[[MysqlPosition], bool]:
    """Return what tells whether a position lies at or after the log's end as it is now."""
    name, offset = source.position()
    end = (file_number(name), offset)
    return lambda place: place.within is None and (file_number(place.file), place.offset) >= end


def start_of(source: MysqlServer) -> dict[str, Any]:
    """Return where the log ends now, as a pipeline's file says it."""
    name, offset = source.position()
    return {"start": {"file": name, "offset": offset}}


def differences(
    source: Callable[[str], Iterator[tuple[Any, ...]]], target: Callable[[str], Iterator[tuple[Any, ...]]]
) -> list[str]:
    """Compare every column of every row; return the first place where each table differs."""
    return fix_daemon.differences(source, target, TABLES)


def rows_of_mysql(source: MysqlDatabase) -> Callable[[str], Iterator[tuple[Any, ...]]]:
    """Return a reader of one table's rows."""
    return lambda table: iter(source.query(f"SELECT {COLUMNS} FROM {table} ORDER BY id"))


def rows_of_postgres(url: str) -> Callable[[str], Iterator[tuple[Any, ...]]]:
    """Return a reader of one table's rows; as text, since a CHAR shows there the spaces that MySQL hides."""

    def rows(table: str) -> Iterator[tuple[Any, ...]]:
        with psycopg.connect(url) as connection, connection.cursor(name="rows") as cursor:
            cursor.itersize = 10_000
            cursor.execute(f"SELECT id, k, c::text, pad::text FROM public.{table} ORDER BY id")
            yield from cursor

    return rows


def rows_of_sqlite(path: Path) -> Callable[[str], Iterator[tuple[Any, ...]]]:
    """Return a reader of one table's rows."""

    def rows(table: str) -> Iterator[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            yield from connection.execute(f"SELECT {COLUMNS} FROM {table} ORDER BY id")

    return rows


class Target(fix_daemon.Target):
    """Where sysbench's rows go."""

    @classmethod
    def of_postgres(cls, there: Database) -> Self:
        """Return a PostgreSQL database as the target."""
        server = there.server
        end = {"host": server.host, "port": server.port, "user": server.user, "database": there.name}
        sink = {"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}}
        return cls(sink, rows_of_postgres(there.url), there.execute, there.query)

    @classmethod
    def of_mysql(cls, there: MysqlDatabase, port: int = 0) -> Self:
        """Return a MySQL or MariaDB database as the target; `port` is a proxy's before it."""
        server = there.server
        end = {"host": server.host, "port": port or server.port, "user": server.user, "database": there.name}
        sink = {"mysql": {**end, "password": "${env:SOURCE_PASSWORD}"}}
        return cls(sink, rows_of_mysql(there), there.execute, there.query)

    @classmethod
    def of_sqlite(cls, path: Path) -> Self:
        """Return a file as the target."""

        def execute(statement: str) -> None:
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(statement)

        def query(statement: str) -> list[tuple[Any, ...]]:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                return connection.execute(statement).fetchall()

        return cls({"sqlite": {"path": str(path)}}, rows_of_sqlite(path), execute, query)
