"""Servers that crash and sessions that are ended: the daemon waits, comes back, and both ends are equal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import Pipeline, Target, differences, fill, rows_of_postgres, traffic
from fix_postgres import Database

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import Victim, await_delivery
from cdcsync.testing.servers import PostgresServer
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CRASHES = 2


@pytest.fixture
def crashing() -> Iterator[Database]:
    """A server of the test's own."""
    server = PostgresServer(15)
    yield Database(server.start(), "postgres")
    server.stop()


def assert_equal(pipeline: Pipeline, target: Target) -> None:
    """The daemon went on by itself, in order, and every row is there once."""
    steps = pipeline.steps()
    check_steps(steps, PostgresPosition.decode)
    assert len({step.process for step in steps}) == 1
    assert differences(rows_of_postgres(pipeline.source.url), target.rows) == []


def crash(server: PostgresServer, daemon: Victim) -> None:
    server.kill()
    daemon.rest(0.5)
    server.start()


def test_a_source_that_crashes_under_traffic_is_read_on(crashing: Database, target: Target, tmp_path: Path) -> None:
    fill(crashing, 0)
    pipeline = Pipeline(crashing, tmp_path)
    pipeline.write(target.sink)

    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)
        for _ in range(CRASHES):
            with traffic(crashing, 0, scale=0, outlives=False):
                await_delivery(daemon, pipeline.trace, time.monotonic_ns())
                crash(crashing.server, daemon)
        pipeline.await_drained(daemon)
        assert daemon.stop() == 0

    assert_equal(pipeline, target)


def test_a_target_that_crashes_under_traffic_is_written_on(small: Pipeline, crashing: Database) -> None:
    target = Target.of_postgres(crashing)
    small.write(target.sink)

    with small.victim() as daemon:
        daemon.start()
        small.await_copied(daemon)
        with traffic(small.source, 0, scale=0):
            for _ in range(CRASHES):
                await_delivery(daemon, small.trace, time.monotonic_ns())
                crash(crashing.server, daemon)
            await_delivery(daemon, small.trace, time.monotonic_ns())
        small.await_drained(daemon)
        assert daemon.stop() == 0

    assert_equal(small, target)


@pytest.mark.parametrize("end", ["source", "target"])
def test_sessions_that_are_ended_under_traffic_are_opened_again(
    small: Pipeline, target_database: Database, end: str
) -> None:
    target = Target.of_postgres(target_database)
    small.write(target.sink)
    at = small.source if end == "source" else target_database
    end_all = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'cdcsync%'"
    )

    with small.victim() as daemon:
        daemon.start()
        small.await_copied(daemon)
        with traffic(small.source, 0, scale=0):
            for _ in range(4):
                await_delivery(daemon, small.trace, time.monotonic_ns())
                daemon.work_until(lambda: (True,) in at.query(end_all))
            await_delivery(daemon, small.trace, time.monotonic_ns())
        small.await_drained(daemon)
        assert daemon.stop() == 0

    assert_equal(small, target)
