"""A server whose log is the test's own, positions in it, and what is judged of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from cdcsync.mapping.transform import Mapping
from cdcsync.mysql import identity, logs, start
from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.connection import connect
from cdcsync.mysql.position import MysqlPosition
from cdcsync.ports import SourceContext
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.mysql.connection import Connection

OTHER: Final = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
BUILDS: Final = ("mysql8", "mariadb10", "mariadb11")


def section(server: MysqlServer, **fields: Any) -> MysqlSource:
    return MysqlSource.model_validate({**from_url(server.url()), "start": "now", **fields})


@pytest.fixture
def log_context(tmp_path: Path) -> SourceContext:
    return SourceContext("orders", Mapping.of(["*.*"]), tmp_path)


@pytest.fixture(scope="module", params=BUILDS)
def own_mysql(request: pytest.FixtureRequest) -> Iterator[MysqlServer]:
    """A server whose log nobody else writes, and this module may reset."""
    server = MysqlServer(request.param).start()
    server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
    yield server
    server.stop()


@pytest.fixture
def fresh(own_mysql: MysqlServer) -> MysqlServer:
    """The same with an empty log."""
    own_mysql.execute("RESET MASTER")
    own_mysql.execute("TRUNCATE TABLE shop.t")
    return own_mysql


def opened(server: MysqlServer) -> Connection:
    return connect(section(server), purpose="test")


def began(server: MysqlServer, context: SourceContext, at: Any) -> MysqlPosition:
    config = section(server, start=at)
    with connect(config, purpose="test") as connection:
        return start.first(connection, config, context)


def now(server: MysqlServer) -> MysqlPosition:
    with opened(server) as connection:
        end = logs.end(connection)
        return MysqlPosition(1, connection.server.uuid, end.file, end.offset, end.gtids)


def judged(server: MysqlServer, position: MysqlPosition) -> identity.Way:
    with opened(server) as connection:
        return identity.judge(connection, position)


def insert(server: MysqlServer, *numbers: int) -> None:
    for number in numbers:
        server.execute(f"INSERT INTO shop.t VALUES ({number})")


def rotate(server: MysqlServer) -> None:
    server.execute("FLUSH BINARY LOGS")


def purge(server: MysqlServer, file: str) -> None:
    """MariaDB keeps a file until its engine has let go of it, a moment later."""
    for _ in range(200):
        server.execute(f"PURGE BINARY LOGS TO '{file}'")
        if server.binlogs()[0] == file:
            return
        pause(0.05)
    pytest.fail(f"not purged up to {file}: {server.binlogs()}")


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def shown(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
