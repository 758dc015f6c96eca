"""The ends in memory pass the suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdcsync.testing.conformance.samples import HISTORY, ORDERS, insert, update
from cdcsync.testing.conformance.sinks import Target, TransactionalSuite
from cdcsync.testing.conformance.sources import SourceSuite
from cdcsync.testing.conformance.stores import StoreSuite
from cdcsync.testing.memory import MemoryDatabase, MemorySink, MemorySource, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink, Source


class TestMemorySource(SourceSuite):
    @pytest.fixture
    def changes(self) -> int:
        return 9

    @pytest.fixture
    def source(self) -> Callable[[], Source]:
        log = [
            [insert(ORDERS, 1, "a", None)],
            [insert(HISTORY, at, "x") for at in range(7)],
            [update(ORDERS, 1, 1, "b", None)],
        ]
        return lambda: MemorySource(log, part_max=3)


class TestMemorySink(TransactionalSuite):
    @pytest.fixture
    def target(self) -> Target:
        database = MemoryDatabase()

        def make(state: Path, _tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = MemorySink(database, str(state))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            name = table.qualified
            return [*database.rows.get(name, {}).values(), *database.appended.get(name, [])]

        return Target(make, rows)


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self) -> Callable[[Path], PositionStore]:
        database = MemoryDatabase()
        return lambda state: MemoryStore(database, str(state))
