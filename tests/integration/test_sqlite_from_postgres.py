"""A real PostgreSQL into SQLite: every type exactly, and a full disk that is waited for."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Self

from fix_postgres_types import COLUMNS, Everything, insert, prepare

from cdcsync.pipeline import Pipeline
from cdcsync.ports import SinkContext, SourceContext
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.connector import CONNECTOR
from cdcsync.postgres.source import PostgresWal
from cdcsync.sqlite import store
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.sqlite.writer import Plan
from cdcsync.testing.memory import Unmapped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from fix_postgres import Database

    from cdcsync.change import Row, Table


class Run:
    """A pipeline of a test, from every table of schema public."""

    def __init__(self, database: Database, folder: Path) -> None:
        config = PostgresSource(**from_url(database.url))
        context = SourceContext("p", Everything(), folder)
        assert CONNECTOR.source is not None
        self.tables = tuple(CONNECTOR.source.tables(config, context))
        self.path = folder / "t.db"
        sink = SqliteSink(SqliteConfig(path=self.path, busy_timeout_s=0.05), SinkContext("p", folder, self.tables))
        self.pipeline = Pipeline(PostgresWal(config, context), Unmapped(), sink)
        self.thread = threading.Thread(target=self.pipeline.run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def rows(self, table: Table) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            found = connection.execute(f"SELECT * FROM {table.name} ORDER BY id").fetchall()
        return [Plan(table).decoded(row) for row in found]

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            assert self.thread.is_alive()
            time.sleep(0.05)


def test_every_type_of_postgres_is_kept_exactly(database: Database, tmp_path: Path) -> None:
    prepare(database)
    insert(database, 1)
    want = [want for _, _, want in COLUMNS]

    with Run(database, tmp_path) as run:
        table = run.tables[0]
        run.until(lambda: run.path.exists() and run.pipeline.progress.changes >= 2)
        insert(database, 11)
        run.until(lambda: len(run.rows(table)) == 4)

    nothing = [None] * len(want)
    got = run.rows(table)
    for copied, (name, _, value), logged in zip(got[0][1:], COLUMNS, got[2][1:], strict=True):
        assert (name, repr(copied), repr(logged)) == (name, repr(value), repr(value))
    assert [list(row[1:]) for row in (got[1], got[3])] == [nothing, nothing]


def test_a_full_disk_is_waited_for_and_then_all_arrives(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    full = threading.Event()
    connect = store.connect

    def bounded(config: SqliteConfig) -> sqlite3.Connection:
        connection = connect(config)
        if full.is_set():
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(store, "connect", bounded)
    with Run(database, tmp_path) as run:
        database.execute("INSERT INTO t VALUES (1, 'before')")
        run.until(lambda: run.path.exists() and run.pipeline.progress.changes >= 1)
        full.set()
        with closing(sqlite3.connect(run.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO t SELECT n, repeat('x', 4000) FROM generate_series(2, 500) n")
            run.until(lambda: run.pipeline.progress.faults > 0)
        run.until(lambda: "disk is full" in run.pipeline.progress.fault)
        full.clear()
        run.until(lambda: len(run.rows(run.tables[0])) == 500)

    assert [row[0] for row in run.rows(run.tables[0])] == list(range(1, 501))
