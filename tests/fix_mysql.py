"""MySQL and MariaDB servers, one of each build per run, started when first asked for, and a fresh database per test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class MysqlDatabase:
    """One database of a test's own."""

    server: MysqlServer
    name: str

    @property
    def url(self) -> str:
        """With the password in it."""
        return self.server.url(self.name)

    def execute(self, sql: str, params: Sequence[object] | None = None) -> None:
        """Run one statement or several, in autocommit."""
        self.server.execute(sql, params, database=self.name)

    def query(self, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of one statement."""
        return self.server.query(sql, params, database=self.name)


def make_mysql_database(server: MysqlServer) -> MysqlDatabase:
    """Create a database with a name of its own."""
    name = f"test_{next(_NUMBERS)}"
    server.execute(f"CREATE DATABASE {name}")
    return MysqlDatabase(server, name)


def drop_mysql_database(database: MysqlDatabase) -> None:
    """Drop the database, and before it the sessions that are in it: one may hold its tables."""
    server = database.server
    if not server.running:
        return
    mine = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
    for (session,) in server.query(mine, [database.name]):
        server.end_session(session)
    server.execute(f"DROP DATABASE IF EXISTS {database.name}")


def _running(build: str) -> Iterator[MysqlServer]:
    server = MysqlServer(build)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def mysql8() -> Iterator[MysqlServer]:
    """MySQL 8.0.15."""
    yield from _running("mysql8")


@pytest.fixture(scope="session")
def mysql57() -> Iterator[MysqlServer]:
    """MySQL 5.7.22: no names in its log, no TLS worth the name."""
    yield from _running("mysql57")


@pytest.fixture(scope="session")
def mariadb10() -> Iterator[MysqlServer]:
    """Debian's MariaDB 10.11."""
    yield from _running("mariadb10")


@pytest.fixture(scope="session")
def mariadb11() -> Iterator[MysqlServer]:
    """MariaDB 11.4.5."""
    yield from _running("mariadb11")


@pytest.fixture
def mysql(mysql8: MysqlServer) -> MysqlServer:
    """The server to take where build and version do not matter."""
    return mysql8


@pytest.fixture(params=["mysql8", "mariadb10", "mariadb11"])
def each_mysql(request: pytest.FixtureRequest) -> MysqlServer:
    """Every server that is supported throughout, in turn."""
    server: MysqlServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def mysql_database(mysql: MysqlServer) -> Iterator[MysqlDatabase]:
    """A fresh database on the default server."""
    made = make_mysql_database(mysql)
    yield made
    drop_mysql_database(made)


@pytest.fixture
def mariadb_database(mariadb10: MysqlServer) -> Iterator[MysqlDatabase]:
    """A fresh database on a MariaDB, to be written to."""
    made = make_mysql_database(mariadb10)
    yield made
    drop_mysql_database(made)


@pytest.fixture
def each_mysql_database(each_mysql: MysqlServer) -> Iterator[MysqlDatabase]:
    """A fresh database on every server in turn."""
    made = make_mysql_database(each_mysql)
    yield made
    drop_mysql_database(made)
