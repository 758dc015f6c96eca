"""SQLite passes the suites of sinks and stores."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cdcsync.ports import SinkContext
from cdcsync.sql import names, quote
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.sqlite.store import SqliteStore
from cdcsync.sqlite.writer import Plan
from cdcsync.testing.conformance.rebuilders import RebuilderSuite
from cdcsync.testing.conformance.sinks import Target, TransactionalSuite
from cdcsync.testing.conformance.stores import StoreSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink


class TestSqliteSink(RebuilderSuite, TransactionalSuite):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        config = SqliteConfig(path=tmp_path / "target.db")

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = SqliteSink(config, SinkContext("p", state, tuple(tables), "memory:1"))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            with closing(sqlite3.connect(config.path)) as connection:
                columns = names([column.name for column in table.columns])
                found = connection.execute(f"SELECT {columns} FROM {quote(table.name)}").fetchall()
            return [Plan(table).decoded(row) for row in found]

        return Target(make, rows)


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Path], PositionStore]:
        config = SqliteConfig(path=tmp_path / "positions.db")
        return lambda state: SqliteStore(config, SinkContext("p", state))
