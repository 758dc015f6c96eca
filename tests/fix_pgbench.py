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
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from cdcsync.postgres.position import PostgresPosition, parse_lsn
from cdcsync.testing.faults import Victim
from cdcsync.testing.trace import read_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fix_postgres import Database

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


def fill(source: Database, scale: int) -> None:
    """Make pgbench's tables."""
    _pgbench(source, "--initialize", f"--scale={scale}", "--quiet")


def _pgbench(source: Database, *options: str) -> None:
    command = [str(source.server.bin / "pgbench"), *options, source.url]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@contextlib.contextmanager
def traffic(source: Database, at_least_s: float) -> Iterator[None]:
    """Write as pgbench does while the block runs, and until that time is over."""
    command = [str(source.server.bin / "pgbench"), "--no-vacuum", f"--client={CLIENTS}", "--time=600", source.url]
    began = time.monotonic()
    writer = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(max(0.0, began + at_least_s - time.monotonic()))
        assert writer.poll() is None, "pgbench ended by itself"
    finally:
        writer.terminate()
        writer.wait()
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

    @property
    def environment(self) -> dict[str, str]:
        """What the commands of this pipeline need."""
        return {
            "CDCSYNC_TRACE": str(self.trace),
            "STATE_DIRECTORY": str(self.folder / "state"),
            "SOURCE_PASSWORD": self.source.server.password,
        }

    def write(self, sink: dict[str, Any]) -> None:
        """Write the file; JSON is YAML."""
        server = self.source.server
        end = {"host": server.host, "port": server.port, "user": server.user, "database": self.source.name}
        document = {
            "name": "bench",
            "source": {"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}},
            "sink": sink,
            "tables": [
                {"from": f"public.{table}", "to": table, **({"key": "none"} if table == "pgbench_history" else {})}
                for table in TABLES
            ],
        }
        self.file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        (self.folder / "state").mkdir()

    def victim(self) -> Victim:
        """Return the daemon, not yet started."""
        command = [str(Path(sys.executable).with_name("cdcsync")), "--log", "json", "run", str(self.file)]
        return Victim(command, self.folder / "log", self.environment)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on this pipeline."""
        full = [str(Path(sys.executable).with_name("cdcsync")), *words]
        environment = {**self.environment, "PATH": "/usr/bin:/bin"}
        del environment["CDCSYNC_TRACE"]
        return subprocess.run(full, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def await_saved(self, victim: Victim, reached: Callable[[PostgresPosition], bool], within_s: float) -> None:
        """Return once a position is saved of which `reached` says so."""
        deadline = time.monotonic() + within_s
        while not any(reached(PostgresPosition.decode(step.position)) for step in self._saves()):
            assert time.monotonic() < deadline, f"not reached\n{victim.log.read_text()[-3000:]}"
            victim.rest(0.1)

    def _saves(self) -> list[Any]:
        return [step for step in read_steps(self.trace) if step.event == "save"][-1:]

    def await_copied(self, victim: Victim, within_s: float = 120.0) -> None:
        """Return once the first copy is saved whole."""
        self.await_saved(victim, lambda position: position.copying is None, within_s)

    def await_drained(self, victim: Victim, within_s: float = 120.0) -> None:
        """Return once all that is committed at the source now is saved; one more row makes it come at once."""
        self.source.execute("INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (0, 0, 0, 0, now())")
        ((text,),) = self.source.query("SELECT pg_current_wal_insert_lsn()::text")
        end = parse_lsn(text)
        self.await_saved(victim, lambda position: position.copying is None and position.lsn >= end, within_s)


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
