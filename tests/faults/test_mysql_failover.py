"""The primary is killed under traffic and its replica promoted: the daemon goes on there, and both ends are equal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fix_mysql import MysqlDatabase
from fix_sysbench import Pipeline, Target, differences, fill, rows_of_mysql, start_of, traffic

from cdcsync.errors import ExitStatus
from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.faults import Proxy, await_delivery
from cdcsync.testing.mysql_servers import MysqlServer
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 1_000
SHOP = "shop"


@dataclass
class Pair:
    """A primary and its replica."""

    primary: MysqlServer
    replica: MysqlServer
    link: Proxy
    """From the replica to the primary."""
    way: Proxy
    """From the daemon to the primary."""

    def at_replica(self) -> MysqlDatabase:
        """Return the same database there."""
        return MysqlDatabase(self.replica, SHOP)


@pytest.fixture(params=["mysql8", "mariadb10", "mariadb11"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    primary = MysqlServer(request.param).start()
    with Proxy(primary.host, primary.port) as link, Proxy(primary.host, primary.port) as way:
        replica = MysqlServer.replica_of(primary, port=link.port)
        try:
            yield Pair(primary, replica, link, way)
        finally:
            replica.stop()
            primary.stop()


def pipeline_of(pair: Pair, folder: Path) -> tuple[Pipeline, Target]:
    """A pipeline that knows both servers, into SQLite."""
    start = start_of(pair.primary)
    pair.primary.execute(f"CREATE DATABASE {SHOP}")
    source = MysqlDatabase(pair.primary, SHOP)
    fill(source, SIZE)
    target = Target.of_sqlite(folder / "target.db")
    made = Pipeline(source, folder)
    hosts = [f"127.0.0.1:{port}" for port in (pair.way.port, pair.replica.port)]
    made.write(target.sink, source={"hosts": hosts, **start})
    return made, target


def prepare(source: MysqlDatabase, name: str, number: int) -> None:
    """Prepare an XA transaction that inserts a row, and leave it to whoever decides on it."""
    with source.server.connect(source.name) as connection, connection.cursor() as cursor:
        insert = f"INSERT INTO sbtest1 (id, k, c, pad) VALUES ({number}, 0, '', '')"
        for statement in (f"XA START '{name}'", insert, f"XA END '{name}'", f"XA PREPARE '{name}'"):
            cursor.execute(statement)


def test_a_failover_under_traffic_leaves_both_ends_equal(pair: Pair, tmp_path: Path) -> None:
    pipeline, target = pipeline_of(pair, tmp_path)

    with pipeline.victim() as daemon:
        daemon.start()
        prepare(pipeline.source, "a", 1_000_001)
        prepare(pipeline.source, "b", 1_000_002)
        pipeline.await_drained(daemon)
        with traffic(pipeline.source, 0, size=SIZE, outlives=False):
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
            pair.way.stall()
            pair.replica.await_logged(pair.primary.logged())
            pair.primary.kill()
        pair.way.refuse()
        pair.link.refuse()
        pair.replica.promote()
        promoted = time.monotonic_ns()
        with traffic(pair.at_replica(), 1, size=SIZE):
            await_delivery(daemon, pipeline.trace, promoted)
        pair.replica.execute("XA COMMIT 'a'; XA ROLLBACK 'b'")
        pipeline.await_drained(daemon, at=pair.replica)
        assert daemon.stop() == 0

    assert [row for row in target.rows("sbtest1") if row[0] > 1_000_000] == [(1_000_001, 0, "", "")]
    steps = pipeline.steps()
    check_steps(steps, MysqlPosition.decode)
    positions = [MysqlPosition.decode(step.position) for step in steps if step.event == "save"]
    assert sorted({each.epoch for each in positions}) == [1, 2]
    assert len({each.server for each in positions}) == 2
    assert differences(rows_of_mysql(pair.at_replica()), target.rows) == []


def test_a_replica_that_lagged_behind_what_was_delivered_is_refused(pair: Pair, tmp_path: Path) -> None:
    pipeline, target = pipeline_of(pair, tmp_path)

    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon)
        pair.replica.await_logged(pair.primary.logged())
        pair.link.stall()
        with traffic(pipeline.source, 0, size=SIZE, outlives=False):
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
            daemon.rest(0.5)
            pair.primary.kill()
        pair.way.refuse()
        pair.link.refuse()
        pair.replica.promote()

        assert daemon.await_end(60) == ExitStatus.DATA
        said = daemon.log.read_text()

    assert "Traceback" not in said
    assert "positions" in said
    saved = [step.position for step in pipeline.steps() if step.event == "save"]
    assert target.query("SELECT position FROM cdcsync_positions") == [(saved[-1],)]
