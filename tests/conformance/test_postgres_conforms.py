"""PostgreSQL passes the suites of sinks, stores and sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdcsync.ports import SinkContext, SourceContext, Wanted
from cdcsync.postgres.config import PostgresSink as SinkConfig
from cdcsync.postgres.config import PostgresSource as SourceConfig
from cdcsync.postgres.config import PostgresStore as StoreConfig
from cdcsync.postgres.config import from_url
from cdcsync.postgres.scan import sink_scanner
from cdcsync.postgres.sink import PostgresSink
from cdcsync.postgres.source import PostgresWal
from cdcsync.postgres.store import PostgresStore
from cdcsync.testing.conformance.rebuilders import RebuilderSuite
from cdcsync.testing.conformance.sinks import Target, TransactionalSuite
from cdcsync.testing.conformance.sources import SourceSuite
from cdcsync.testing.conformance.stores import StoreSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fix_postgres import Database

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink, Source

CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdcsync p'"


class TestPostgresSink(RebuilderSuite, TransactionalSuite):
    @pytest.fixture
    def target(self, database: Database) -> Target:
        config = SinkConfig.model_validate(from_url(database.url))

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = PostgresSink(config, SinkContext("p", state, tuple(tables), "memory:1"))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            scanner = sink_scanner(config, SinkContext("p", Path("/nowhere")))
            try:
                return list(scanner.scan(table))
            finally:
                scanner.close()

        return Target(make, rows, lambda: database.execute(CUT_OFF))


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def store(self, database: Database) -> Callable[[Path], PositionStore]:
        config = StoreConfig.model_validate(from_url(database.url))
        return lambda state: PostgresStore(config, SinkContext("p", state))


class All:
    def wants(self, schema: str, _name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "public" else None


class Beginning(PostgresWal):
    """Without a stored position it stands where the log of the test begins."""

    first = ""

    def open(self, start: str | None, epoch: int) -> None:
        super().open(start or self.first, epoch)


class TestPostgresSource(SourceSuite):
    @pytest.fixture
    def changes(self) -> int:
        return 3 + 9000 + 2

    @pytest.fixture
    def source(self, database: Database) -> Callable[[], Source]:
        database.execute("CREATE TABLE t (id int PRIMARY KEY, name text); CREATE TABLE u (id int PRIMARY KEY)")
        config = SourceConfig.model_validate({**from_url(database.url), "start": "now"})
        context = SourceContext("p", All(), Path("/nowhere"))
        maker = PostgresWal(config, context)
        maker.open(None, 0)
        batch = None
        while batch is None:
            batch = maker.poll(1.0)
        maker.close()
        database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'); UPDATE t SET name = 'c' WHERE id = 1")
        database.execute("INSERT INTO u SELECT generate_series(1, 9000)")
        database.execute("DELETE FROM t WHERE id = 2")
        database.execute("UPDATE t SET id = 7 WHERE id = 1")
        Beginning.first = batch.position.encode()
        return lambda: Beginning(config, context)
