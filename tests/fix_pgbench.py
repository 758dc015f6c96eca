"""pgbench's traffic, a pipeline of its four tables, and a comparison that knows nothing of cdcsync's own."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
import psycopg

from cdcsync.postgres.position import PostgresPosition, parse_lsn
from cdcsync.testing.faults import Victim
from cdcsync.testing.trace import read_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fix_postgres import Database

    from cdcsync.testing.trace import Step

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


def fill(source: Database, scale: int) -> None:
    """Make pgbench's tables; those of scale 0 have `SMALL` accounts."""
    command = [str(source.server.bin / "pgbench"), "--initialize", f"--scale={scale or 1}", "--quiet", source.url]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    if not scale:
        source.execute(f"DELETE FROM pgbench_accounts WHERE aid > {SMALL}")


@contextlib.contextmanager
def traffic(source: Database, at_least_s: float, *, scale: int = 1, outlives: bool = True) -> Iterator[None]:
    """Write as pgbench does while the block runs, and until that time is over.

    `outlives`: it must still run at the end; not so where the block kills the server.
    """
    command = [str(source.server.bin / "pgbench"), "--no-vacuum", f"--client={CLIENTS}", "--time=900"]
    command += [*([] if scale else ["--file=/dev/stdin"]), source.url]
    began = time.monotonic()
    writer = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert writer.stdin is not None
    writer.stdin.write(b"" if scale else SMALL_SCRIPT.encode())
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


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline of the four tables, in a folder of its own."""

    source: Database
    folder: Path

    @property
    def file(self) -> Path:
        """The pipeline's file."""
        return self.folder / "bench.yaml"

    @property
    def trace(self) -> Path:
        """Where the daemon's steps are recorded."""
        return self.folder / "trace"

    def environment(self, who: str = "") -> dict[str, str]:
        """Return what this pipeline's commands need; `who` is a machine of its own, with its own state directory."""
        return {
            "CDCSYNC_TRACE": str(self.folder / f"trace{who}"),
            "STATE_DIRECTORY": str(self.folder / f"state{who}"),
            "SOURCE_PASSWORD": self.source.server.password,
        }

    def write(
        self, sink: dict[str, Any], *, source: dict[str, Any] | None = None, tables: Sequence[str] = tuple(TABLES)
    ) -> None:
        """Write the file, JSON is YAML; `source` wins over what its section would say."""
        server = self.source.server
        end = {"host": server.host, "port": server.port, "user": server.user, "database": self.source.name}
        end |= source or {}
        if "hosts" in end:
            del end["host"], end["port"]
        document = {
            "name": "bench",
            "heartbeat": "1s",
            "source": {"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}},
            "sink": sink,
            "tables": [
                {"from": f"public.{table}", "to": table, **({"key": "none"} if table == "pgbench_history" else {})}
                for table in tables
            ],
        }
        self.file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))

    def victim(self, who: str = "") -> Victim:
        """Return the daemon, not yet started, on the machine `who`."""
        (self.folder / f"state{who}").mkdir(exist_ok=True)
        command = [str(Path(sys.executable).with_name("cdcsync")), "--log", "json", "run", str(self.file)]
        return Victim(command, self.folder / f"log{who}", self.environment(who))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on this pipeline."""
        full = [str(Path(sys.executable).with_name("cdcsync")), *words]
        environment = {**self.environment(), "PATH": "/usr/bin:/bin"}
        del environment["CDCSYNC_TRACE"]
        return subprocess.run(full, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def steps(self, who: str = "") -> list[Step]:
        """Return what the daemon has recorded on that machine."""
        return read_steps(self.folder / f"trace{who}")

    def await_saved(
        self, victim: Victim, reached: Callable[[PostgresPosition], bool], within_s: float, who: str = ""
    ) -> None:
        """Return once the victim, as it was started last, has saved a position of which `reached` says so."""
        deadline = time.monotonic() + within_s
        while not any(reached(PostgresPosition.decode(step.position)) for step in self._saved(who, victim.started_ns)):
            assert time.monotonic() < deadline, f"not reached\n{victim.log.read_text()[-3000:]}"
            victim.rest(0.1)

    def _saved(self, who: str, since_ns: int) -> list[Step]:
        """Return the last step of saving."""
        return [step for step in self.steps(who) if step.event == "save" and step.at_ns > since_ns][-1:]

    def await_copied(self, victim: Victim, within_s: float = 60.0, who: str = "") -> None:
        """Return once the first copy is saved whole."""
        self.await_saved(victim, lambda position: position.copying is None, within_s, who)

    def await_drained(self, victim: Victim, within_s: float = 60.0, who: str = "", at: Database | None = None) -> None:
        """Return once all that is committed at the source now is saved; one more row makes it come at once.

        The place waited for lies after that row: the log's end before it can be saved while the row is under way.
        """
        source = at or self.source
        source.execute("INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (0, 0, 0, 0, now())")
        ((text,),) = source.query("SELECT pg_current_wal_insert_lsn()::text")
        end = parse_lsn(text)
        self.await_saved(victim, lambda place: place.copying is None and place.lsn >= end, within_s, who)


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
    found = []
    for table in tables:
        want, got = source(table), target(table)
        pairs = enumerate(itertools.zip_longest(want, got))
        first = next((f"{table} row {at}: want {a}, got {b}" for at, (a, b) in pairs if a != b), None)
        found += [first] if first else []
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go, and how they are read back without cdcsync."""

    sink: dict[str, Any]
    rows: Callable[[str], Iterator[tuple[Any, ...]]]
    execute: Callable[[str], object]
    query: Callable[[str], list[tuple[Any, ...]]]

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
    return {table: sum(1 for _ in rows(table)) for table in tables}
