"""MySQL and both MariaDBs pass the suites of sinks and stores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.mysql.config import MysqlSink as SinkConfig
from cdcsync.mysql.config import MysqlStore as StoreConfig
from cdcsync.mysql.config import from_url
from cdcsync.mysql.scan import sink_scanner
from cdcsync.mysql.sink import MysqlSink
from cdcsync.mysql.store import MysqlStore
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.rebuilders import RebuilderSuite
from cdcsync.testing.conformance.sinks import Target, TransactionalSuite
from cdcsync.testing.conformance.stores import StoreSuite
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fix_mysql import MysqlDatabase

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink
    from cdcsync.types import Type


def refuses(kind: Type, value: Any) -> bool:
    """NaN and infinities are no numbers of MySQL; dates go from the year 0 to 9999."""
    if kind.kind is Kind.FLOAT:
        return not math.isfinite(value)
    return kind.kind in {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ} and str(value)[0] in "+-i"


class TestMysqlSink(RebuilderSuite, TransactionalSuite):
    @pytest.fixture
    def target(self, each_mysql_database: MysqlDatabase) -> Target:
        database = each_mysql_database
        config = SinkConfig.model_validate(from_url(database.url))

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = MysqlSink(config, SinkContext("p", state, tuple(tables), "memory:1"))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            scanner = sink_scanner(config, SinkContext("p", Path("/nowhere")))
            try:
                return list(scanner.scan(table))
            finally:
                scanner.close()

        def usurp() -> None:
            lock = "SELECT IS_USED_LOCK(CONCAT('cdcsync:', LEFT(SHA2(CONCAT(%s, CHAR(0), 'p', CHAR(0)), 256), 48)))"
            ((session,),) = database.query(lock, [database.name])
            database.server.end_session(session)

        return Target(make, rows, usurp, refuses, signs_zero=database.server.build.name != "mariadb10")


class TestMysqlStore(StoreSuite):
    @pytest.fixture
    def store(self, each_mysql_database: MysqlDatabase) -> Callable[[Path], PositionStore]:
        config = StoreConfig.model_validate(from_url(each_mysql_database.url))
        return lambda state: MysqlStore(config, SinkContext("p", state))
