"""The network between the daemon and either end is cut and stalled under traffic."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import orjson
import pytest
from fix_pgbench import Pipeline, Target, differences, rows_of_postgres, traffic

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import Proxy, Victim, await_delivery
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_postgres import Database

COMMITTED = b"COMMIT\0"
"""The tag by which a server says that it has committed."""


@pytest.fixture
def at_source(small: Pipeline) -> Iterator[Proxy]:
    """Stands before the source."""
    with Proxy(small.source.server.host, small.source.server.port) as proxy:
        yield proxy


@pytest.fixture
def at_target(target_database: Database) -> Iterator[Proxy]:
    """Stands before the target."""
    with Proxy(target_database.server.host, target_database.server.port) as proxy:
        yield proxy


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
        pipeline.await_copied(daemon)
        with traffic(pipeline.source, 0, scale=0):
            for _ in range(times):
                await_delivery(daemon, pipeline.trace, time.monotonic_ns())
                disturb(daemon)
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
        pipeline.await_drained(daemon)
        assert daemon.stop() == 0

    steps = pipeline.steps()
    check_steps(steps, PostgresPosition.decode)
    assert len({step.process for step in steps}) == 1
    assert differences(rows_of_postgres(pipeline.source.url), target.rows) == []


def test_a_source_that_is_cut_off_again_and_again_is_read_on(
    small: Pipeline, at_source: Proxy, target_database: Database
) -> None:
    target = Target.of_postgres(target_database)
    small.write(target.sink, source={"port": at_source.port, "tls": {"mode": "disable"}})

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "source")
        at_source.cut()
        await_told(daemon, "source", told)

    outlive(small, target, disturb, 4)


def test_a_source_that_falls_silent_is_given_up_and_read_on_when_it_speaks(
    small: Pipeline, at_source: Proxy, target_database: Database
) -> None:
    small.source.execute(f"ALTER DATABASE {small.source.name} SET wal_sender_timeout = '2s'")
    target = Target.of_postgres(target_database)
    small.write(target.sink, source={"port": at_source.port, "tls": {"mode": "disable"}, "connect_timeout_s": 2})

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "source")
        at_source.stall()
        await_told(daemon, "source", told)
        at_source.go()

    outlive(small, target, disturb, 2)


def test_a_target_that_is_cut_off_again_and_again_is_written_on(
    small: Pipeline, at_target: Proxy, target_database: Database
) -> None:
    target = Target.of_postgres(target_database, at_target.port)
    small.write(target.sink)
    dice = random.Random()

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "sink")
        time.sleep(dice.uniform(0, 0.2))
        at_target.cut()
        await_told(daemon, "sink", told)

    outlive(small, target, disturb, 4)


def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_repeated(
    small: Pipeline, at_target: Proxy, target_database: Database
) -> None:
    target = Target.of_postgres(target_database, at_target.port)
    small.write(target.sink)

    def disturb(daemon: Victim) -> None:
        told = faults_told(daemon, "sink")
        at_target.lose(COMMITTED)
        await_told(daemon, "sink", told)

    outlive(small, target, disturb, 5)
    assert at_target.lost == 5


def test_a_stalled_target_is_waited_for_while_the_source_is_kept_alive(
    small: Pipeline, at_target: Proxy, target_database: Database
) -> None:
    small.source.execute(f"ALTER DATABASE {small.source.name} SET wal_sender_timeout = '2s'")
    target = Target.of_postgres(target_database, at_target.port)
    small.write(target.sink)

    def disturb(daemon: Victim) -> None:
        at_target.stall()
        daemon.rest(5)
        at_target.go()
        assert faults_told(daemon, "source") == 0
        assert faults_told(daemon, "sink") == 0

    outlive(small, target, disturb, 1)
