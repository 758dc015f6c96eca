"""pgbench's traffic, a pipeline of its four tables, and a comparison that knows nothing of cdcsync's own."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import fix_daemon
import psycopg
from fix_daemon import Daemon

from cdcsync.postgres.position import PostgresPosition, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.faults import Victim

CLIENTS = 4

TABLES = {
    "pgbench_accounts": "aid, bid, abalance, filler",
    "pgbench_branches": "bid, bbalance, filler",
    "pgbench_tellers": "tid, bid, tbalance, filler",
    "pgbench_history": "tid, bid, aid, delta, mtime, filler",
}
"""Columns by table."""
ORDER = {
    "pgbench_accounts": "aid",
    "pgbench_branches": "bid",
    "pgbench_tellers": "tid",
    "pgbench_history": "tid, bid, aid, delta, mtime",
}
"""The last column of the history is always null: rows alike in the others are alike."""


SMALL = 1_000
"""Accounts of a small bench: its first copy takes no time."""
SMALL_SCRIPT = f"""\\set aid random(1, {SMALL})
\\set bid 1
\\set tid random(1, 10)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""
"""pgbench's own transaction, on fewer accounts."""


MOVED = 10_000_000
"""What is added to the key of an account that moves."""
MOVING_SCRIPT = f"""\\set aid random(1, 100000 * :scale)
\\set tid random(1, 10 * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
DO $$ BEGIN
  UPDATE pgbench_accounts SET aid = aid + {MOVED} WHERE aid = :aid + 1;
EXCEPTION WHEN unique_violation THEN NULL; END $$;
DO $$ BEGIN
  UPDATE pgbench_accounts SET aid = aid - {MOVED} WHERE aid = :aid + 2 + {MOVED};
EXCEPTION WHEN unique_violation THEN NULL; END $$;
DELETE FROM pgbench_accounts WHERE aid = :aid + 3;
INSERT INTO pgbench_accounts VALUES (:aid + 4, 1, :delta, '') ON CONFLICT (aid) DO UPDATE SET abalance = :delta;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, 1, :aid, :delta, clock_timestamp());
END;
"""
"""Accounts change, move to other keys and back, go and come."""


def fill(source: Database, scale: int) -> None:
    """Make pgbench's tables; those of scale 0 have `SMALL` accounts."""
    command = [str(source.server.bin / "pgbench"), "--initialize", f"--scale={scale or 1}", "--quiet", source.url]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    if not scale:
        source.execute(f"DELETE FROM pgbench_accounts WHERE aid > {SMALL}")


@contextlib.contextmanager
def traffic(
    source: Database, at_least_s: float, *, scale: int = 1, outlives: bool = True, script: str = "", rate: int = 0
) -> Iterator[None]:
    """Write as pgbench does while the block runs, and until that time is over; by a script where one is given.

    `outlives`: it must still run at the end; not so where the block kills the server. `rate`: at most so many
    transactions per second.
    """
    script = script or ("" if scale else SMALL_SCRIPT)
    command = [str(source.server.bin / "pgbench"), "--no-vacuum", f"--client={CLIENTS}", "--time=900"]
    command += ["--max-tries=100"]
    command += [f"--rate={rate}"] if rate else []
    command += [*(["--file=/dev/stdin", f"--define=scale={scale}"] if script else []), source.url]
    began = time.monotonic()
    writer = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert writer.stdin is not None
    writer.stdin.write(script.encode())
    writer.stdin.close()
    try:
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(max(0.0, began + at_least_s - time.monotonic()))
        assert not outlives or writer.poll() is None, "pgbench ended by itself"
    finally:
        writer.terminate()
        writer.wait()
    if source.server.running:
        _await_end_of_writers(source)


def _await_end_of_writers(source: Database) -> None:
    """A backend whose client is gone may still commit what it was sent."""
    for _ in range(300):
        busy = source.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbench'"
        )
        if busy == [(0,)]:
            return
        time.sleep(0.1)
    raise AssertionError("pgbench's backends do not end")


@dataclass(frozen=True)
class Pipeline(Daemon):
    """A pipeline of the four tables, in a folder of its own."""

    source: Database

    def write(
        self, sink: dict[str, Any], *, source: dict[str, Any] | None = None, tables: Sequence[str] = tuple(TABLES)
    ) -> None:
        """Write the file, JSON is YAML; `source` wins over what its section would say."""
        server = self.source.server
        end = {"host": server.host, "port": server.port, "user": server.user, "database": self.source.name}
        end |= source or {}
        if "hosts" in end:
            del end["host"], end["port"]
        mapped = [
            {"from": f"public.{table}", "to": table, **({"key": "none"} if table == "pgbench_history" else {})}
            for table in tables
        ]
        self.put({"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}}, sink, mapped)

    def await_saved(
        self, victim: Victim, reached: Callable[[PostgresPosition], bool], within_s: float, who: str = ""
    ) -> None:
        """Return once the victim, as it was started last, has saved a position of which `reached` says so."""
        self.await_step(victim, lambda position: reached(PostgresPosition.decode(position)), within_s, who)

    def await_copied(self, victim: Victim, within_s: float = 60.0, who: str = "") -> None:
        """Return once the first copy is saved whole."""
        self.await_saved(victim, lambda position: position.is_copied, within_s, who)

    def await_drained(self, victim: Victim, within_s: float = 60.0, who: str = "", at: Database | None = None) -> None:
        """Return once all that is committed at the source now is saved; one more row makes it come at once.

        The place waited for lies after that row: the log's end before it can be saved while the row is under way.
        """
        source = at or self.source
        source.execute("INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (0, 0, 0, 0, now())")
        ((text,),) = source.query("SELECT pg_current_wal_insert_lsn()::text")
        end = parse_lsn(text)
        self.await_saved(victim, lambda place: place.is_copied and place.lsn >= end, within_s, who)


def rows_of_postgres(url: str) -> Callable[[str], Iterator[tuple[Any, ...]]]:
    """Return a reader of one table's rows, in `ORDER`."""

    def rows(table: str) -> Iterator[tuple[Any, ...]]:
        with psycopg.connect(url) as connection, connection.cursor(name="rows") as cursor:
            cursor.itersize = 10_000
            cursor.execute(f"SELECT {TABLES[table]} FROM public.{table} ORDER BY {ORDER[table]}")
            yield from cursor

    return rows


def rows_of_sqlite(path: Path) -> Callable[[str], Iterator[tuple[Any, ...]]]:
    """Return a reader of one table's rows, in `ORDER`, with timestamps parsed."""

    def rows(table: str) -> Iterator[tuple[Any, ...]]:
        connection = sqlite3.connect(path)
        try:
            for row in connection.execute(f"SELECT {TABLES[table]} FROM {table} ORDER BY {ORDER[table]}"):
                yield (*row[:4], datetime.fromisoformat(row[4]), *row[5:]) if table == "pgbench_history" else row
        finally:
            connection.close()

    return rows


def differences(
    source: Callable[[str], Iterator[tuple[Any, ...]]],
    target: Callable[[str], Iterator[tuple[Any, ...]]],
    tables: Sequence[str] = tuple(TABLES),
) -> list[str]:
    """Compare every column of every row; return the first place where each table differs."""
    return fix_daemon.differences(source, target, tables)


class Target(fix_daemon.Target):
    """Where pgbench's rows go."""

    @classmethod
    def of_postgres(cls, there: Database, port: int = 0) -> Self:
        """Return a database as the target; `port` is a proxy's before it."""
        server = there.server
        end = {"host": server.host, "port": port or server.port, "user": server.user, "database": there.name}
        sink = {"postgres": {**end, "password": "${env:SOURCE_PASSWORD}", "tls": {"mode": "disable"}}}
        return cls(sink, rows_of_postgres(there.url), there.execute, there.query)

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


def counts(rows: Callable[[str], Iterator[tuple[Any, ...]]], tables: Sequence[str] = tuple(TABLES)) -> dict[str, int]:
    """Return how many rows each table has."""
    return fix_daemon.counts(rows, tables)
