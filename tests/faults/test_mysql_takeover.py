"""Two daemons of one pipeline into MySQL: one writes, the other is told so and ends; one that slept writes nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_sysbench import Pipeline, Target, differences, fill, past_end_of, rows_of_mysql, start_of, traffic

from cdcsync.errors import ExitStatus
from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.faults import await_delivery
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.testing.faults import Victim

OTHER = "-other"
"""A second machine: another state directory, so that a lock file is in nobody's way."""
SIZE = 200


@pytest.fixture(params=[("mysql8", "mariadb11"), ("mariadb10", "mysql8")], ids="-".join)
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[MysqlDatabase, MysqlDatabase]]:
    """A source, and a target on a server of the other flavour."""
    source, target = (make_mysql_database(request.getfixturevalue(name)) for name in request.param)
    yield source, target
    for database in (source, target):
        drop_mysql_database(database)


def pipeline_of(ends: tuple[MysqlDatabase, MysqlDatabase], folder: Path) -> tuple[Pipeline, Target]:
    source, there = ends
    start = start_of(source.server)
    fill(source, SIZE)
    pipeline, target = Pipeline(source, folder), Target.of_mysql(there)
    pipeline.write(target.sink, source=start)
    return pipeline, target


def drained(pipeline: Pipeline, victim: Victim) -> None:
    """Return once the other machine has saved all that is committed at the source now."""
    server = pipeline.source.server
    server.execute(f"UPDATE {pipeline.source.name}.sbtest1 SET k = k + 1 WHERE id = 1")
    is_past = past_end_of(server)
    pipeline.await_step(victim, lambda position: is_past(MysqlPosition.decode(position)), 60, OTHER)


def end_sessions(there: MysqlDatabase) -> None:
    """End those that hold a lock or a transaction: all of cdcsync's, which reads from the other server."""
    query = "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER = %s"
    for (session,) in there.query(query, [there.server.user]):
        there.server.end_session(session)


def test_a_second_daemon_is_refused_and_names_the_first(
    ends: tuple[MysqlDatabase, MysqlDatabase], tmp_path: Path
) -> None:
    pipeline, _ = pipeline_of(ends, tmp_path)
    with pipeline.victim() as first, pipeline.victim(OTHER) as second:
        second.log = pipeline.folder / "second"
        first.start()
        pipeline.await_drained(first)

        second.start()
        got = second.await_end()

        assert got == ExitStatus.OWNERSHIP
        assert "its lock is held by session" in second.log.read_text()
        assert first.stop() == 0


def test_a_daemon_that_hung_and_was_replaced_writes_nothing_more(
    ends: tuple[MysqlDatabase, MysqlDatabase], tmp_path: Path
) -> None:
    pipeline, target = pipeline_of(ends, tmp_path)
    with pipeline.victim() as first, pipeline.victim(OTHER) as second:
        first.start()
        pipeline.await_drained(first)
        with traffic(pipeline.source, 0, size=SIZE):
            await_delivery(first, pipeline.trace, time.monotonic_ns())
            first.pause()
            end_sessions(ends[1])
            second.start()
            await_delivery(second, pipeline.folder / f"trace{OTHER}", 0)
            woken = time.monotonic_ns()
            first.resume()

            assert first.await_end() == ExitStatus.OWNERSHIP
            late = [step.position for step in pipeline.steps() if step.event == "durable" and step.at_ns > woken]
            begun = next(step.position for step in pipeline.steps(OTHER) if step.event == "start")
            assert late in ([], [begun])
        drained(pipeline, second)
        assert second.stop() == 0

    check_steps(pipeline.steps(OTHER), MysqlPosition.decode)
    assert differences(rows_of_mysql(pipeline.source), target.rows) == []
