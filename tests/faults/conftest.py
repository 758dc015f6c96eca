"""The ends of every fault: a source with pgbench's tables, and a target that keeps its own position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fix_pgbench import Pipeline, Target, fill
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer


@pytest.fixture
def target_database(postgres16: PostgresServer) -> Iterator[Database]:
    """A database on another server, of another version, than the source's."""
    made = make_database(postgres16)
    yield made
    drop_database(made)


@pytest.fixture(params=["postgres", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """PostgreSQL and SQLite in turn."""
    if request.param == "sqlite":
        return Target.of_sqlite(tmp_path / "target.db")
    return Target.of_postgres(request.getfixturevalue("target_database"))


@pytest.fixture
def small(database: Database, tmp_path: Path) -> Pipeline:
    """A pipeline of pgbench's tables with few rows; its file is not written yet."""
    fill(database, 0)
    return Pipeline(database, tmp_path)
