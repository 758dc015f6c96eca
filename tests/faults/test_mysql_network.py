"""The network between the daemon and a MySQL at either end is cut and stalled under traffic; servers crash."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson
import pytest
from fix_mysql import MysqlDatabase
from fix_sysbench import Pipeline, Target, differences, fill, rows_of_mysql, start_of, traffic

from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.faults import Proxy, Victim, await_delivery
from cdcsync.testing.mysql_servers import MysqlServer
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 1_000


@pytest.fixture
def at_source(each_mysql_database: MysqlDatabase) -> Iterator[Proxy]:
    """Stands before the source."""
    server = each_mysql_database.server
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def at_target(mysql_database: MysqlDatabase) -> Iterator[Proxy]:
    """Stands before a MySQL target."""
    with Proxy(mysql_database.server.host, mysql_database.server.port) as proxy:
        yield proxy


def pipeline_of(source: MysqlDatabase, folder: Path, target: Target, **more: object) -> Pipeline:
    """A pipeline of filled tables; its file is written."""
    start = start_of(source.server)
    fill(source, SIZE)
    made = Pipeline(source, folder)
    made.write(target.sink, source={**start, **more})
    return made


def faults_told(daemon: Victim, end: str) -> int:
    """Return how often the daemon has logged that this end was away."""
    lines = [orjson.loads(line) for line in daemon.log.read_bytes().splitlines() if line.startswith(b"{")]
    return sum(line["event"] == "unready" and line["end"] == end for line in lines)


def await_told(daemon: Victim, end: str, more_than: int) -> None:
    daemon.work_until(lambda: faults_told(daemon, end) > more_than)


def outlive(pipeline: Pipeline, target: Target, disturb: Callable[[Victim], None], times: int) -> None:
    """Disturb the daemon that often under traffic, after deliveries; it goes on by itself, and all is equal."""
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon)
        with traffic(pipeline.source, 0, size=SIZE):
            for _ in range(times):
                await_delivery(daemon, pipeline.trace, time.monotonic_ns())
                disturb(daemon)
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
        finish(pipeline, target, daemon)


def finish(pipeline: Pipeline, target: Target, daemon: Victim) -> None:
    """Drain and stop; one process did it all, in order, and every row is there once."""
    pipeline.await_drained(daemon)
    assert daemon.stop() == 0
    steps = pipeline.steps()
    check_steps(steps, MysqlPosition.decode)
    assert len({step.process for step in steps}) == 1
    assert differences(rows_of_mysql(pipeline.source), target.rows) == []


def test_a_source_that_is_cut_off_again_and_again_is_read_on(
    each_mysql_database: MysqlDatabase, at_source: Proxy, tmp_path: Path
) -> None:
    target = Target.of_sqlite(tmp_path / "target.db")
    pipeline = pipeline_of(each_mysql_database, tmp_path, target, port=at_source.port)

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "source")
        at_source.cut()
        await_told(daemon, "source", told)

    outlive(pipeline, target, disturb, 4)


def test_a_source_that_falls_silent_is_given_up_and_read_on_when_it_speaks(
    each_mysql_database: MysqlDatabase, at_source: Proxy, tmp_path: Path
) -> None:
    target = Target.of_sqlite(tmp_path / "target.db")
    quick = {"heartbeat": "1s", "silence_max": "3s", "connect_timeout_s": 2}
    pipeline = pipeline_of(each_mysql_database, tmp_path, target, port=at_source.port, **quick)

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "source")
        at_source.stall()
        await_told(daemon, "source", told)
        at_source.go()

    outlive(pipeline, target, disturb, 2)


def test_a_silent_source_with_heartbeats_is_not_given_up(each_mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    target = Target.of_sqlite(tmp_path / "target.db")
    pipeline = pipeline_of(each_mysql_database, tmp_path, target, heartbeat="1s", silence_max="2s")

    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon)
        daemon.rest(6)
        assert faults_told(daemon, "source") == 0
        finish(pipeline, target, daemon)


def test_a_target_that_is_cut_off_again_and_again_is_written_on(
    mariadb10: MysqlServer, mysql_database: MysqlDatabase, at_target: Proxy, tmp_path: Path
) -> None:
    source = MysqlDatabase(mariadb10, "cut_target")
    mariadb10.execute(f"CREATE DATABASE {source.name}")
    target = Target.of_mysql(mysql_database, at_target.port)
    pipeline = pipeline_of(source, tmp_path, target)

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "sink")
        at_target.cut()
        await_told(daemon, "sink", told)

    outlive(pipeline, target, disturb, 4)


def test_a_stalled_target_is_waited_for_while_the_source_is_kept(
    mariadb11: MysqlServer, mysql_database: MysqlDatabase, at_target: Proxy, tmp_path: Path
) -> None:
    """The source would throw out a reader that takes nothing for two seconds, had it not been asked for patience."""
    source = MysqlDatabase(mariadb11, "stalled_target")
    mariadb11.execute(f"CREATE DATABASE {source.name}")
    target = Target.of_mysql(mysql_database, at_target.port)
    pipeline = pipeline_of(source, tmp_path, target)

    def disturb(daemon: Victim) -> None:
        at_target.stall()
        daemon.rest(5)
        at_target.go()
        assert faults_told(daemon, "source") == 0
        assert faults_told(daemon, "sink") == 0

    mariadb11.execute("SET GLOBAL net_write_timeout = 2")
    try:
        outlive(pipeline, target, disturb, 1)
    finally:
        mariadb11.execute("SET GLOBAL net_write_timeout = DEFAULT")


@pytest.mark.parametrize("build", ["mysql8", "mariadb10", "mariadb11"])
def test_a_source_that_crashes_under_traffic_is_read_on(build: str, tmp_path: Path) -> None:
    server = MysqlServer(build).start()
    try:
        server.execute("CREATE DATABASE shop")
        target = Target.of_sqlite(tmp_path / "target.db")
        pipeline = pipeline_of(MysqlDatabase(server, "shop"), tmp_path, target)
        with pipeline.victim() as daemon:
            daemon.start()
            pipeline.await_drained(daemon)
            for _ in range(2):
                with traffic(pipeline.source, 0, size=SIZE, outlives=False):
                    await_delivery(daemon, pipeline.trace, time.monotonic_ns())
                    server.kill()
                    daemon.rest(0.5)
                server.start()
            finish(pipeline, target, daemon)
    finally:
        server.stop()


def test_a_target_that_crashes_under_traffic_is_written_on(mariadb10: MysqlServer, tmp_path: Path) -> None:
    source = MysqlDatabase(mariadb10, "crashing_target")
    mariadb10.execute(f"CREATE DATABASE {source.name}")
    server = MysqlServer("mysql8").start()
    try:
        server.execute("CREATE DATABASE shop")
        target = Target.of_mysql(MysqlDatabase(server, "shop"))
        pipeline = pipeline_of(source, tmp_path, target)

        def disturb(daemon: Victim) -> None:
            server.kill()
            daemon.rest(0.5)
            server.start()

        outlive(pipeline, target, disturb, 2)
    finally:
        server.stop()
