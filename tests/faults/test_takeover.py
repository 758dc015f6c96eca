"""Two daemons of one pipeline: one writes, the other is told so and ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import Pipeline, Target, differences, rows_of_postgres, traffic

from cdcsync.errors import ExitStatus
from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import await_delivery
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from fix_postgres import Database

    from cdcsync.testing.faults import Victim

OTHER = "-other"
"""A second machine: another state directory, so that a lock file is in nobody's way."""


def written(pipeline: Pipeline, since_ns: int) -> list[str]:
    """Return the positions that the first daemon has recorded as durable since then."""
    return [step.position for step in pipeline.steps() if step.event == "durable" and step.at_ns > since_ns]


def assert_silent(pipeline: Pipeline, since_ns: int) -> None:
    """Hanging, it may have missed the answer to one commit, from which the other then began; it wrote no other."""
    begun = next(step.position for step in pipeline.steps(OTHER) if step.event == "start")
    assert written(pipeline, since_ns) in ([], [begun])


def settled(pipeline: Pipeline, daemon: Victim, who: str = "") -> None:
    """Return once the daemon has nothing to do: it stands in no transaction of the target."""
    pipeline.await_drained(daemon, who=who)
    daemon.rest(1.5)


def end_sessions(target_database: Database) -> None:
    target_database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'cdcsync%'"
    )


@pytest.mark.parametrize("who", ["", OTHER], ids=["here", "elsewhere"])
def test_a_second_daemon_is_refused_and_names_the_first(small: Pipeline, target_database: Database, who: str) -> None:
    small.write(Target.of_postgres(target_database).sink)
    with small.victim() as first, small.victim(who) as second:
        second.log = small.folder / "second"
        first.start()
        small.await_copied(first)
        began = time.monotonic_ns()

        second.start()
        got = second.await_end()

        assert got == ExitStatus.OWNERSHIP
        said = second.log.read_text()
        if who:
            ((process,),) = target_database.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
            assert f"its lock is held by process {process} of the server, 'cdcsync bench'" in said
        else:
            assert f"control.sock is served by pid {first.pid}\n" in said
        small.await_drained(first)
        assert written(small, began)
        assert first.stop() == 0


@pytest.mark.parametrize("still", [True, False], ids=["runs", "has-ended"])
def test_a_daemon_that_hung_and_was_replaced_writes_nothing_more(
    small: Pipeline, target_database: Database, still: bool
) -> None:
    """`still`: whether the one that took over runs when the first wakes up."""
    small.source.execute(f"ALTER DATABASE {small.source.name} SET wal_sender_timeout = '2s'")
    target = Target.of_postgres(target_database)
    small.write(target.sink)
    with small.victim() as first, small.victim(OTHER) as second:
        first.start()
        small.await_copied(first)
        with traffic(small.source, 0, scale=0):
            await_delivery(first, small.trace, time.monotonic_ns())
            first.pause()
            end_sessions(target_database)
            second.start()
            await_delivery(second, small.folder / f"trace{OTHER}", 0)
            if not still:
                assert second.stop() == 0
            woken = time.monotonic_ns()
            first.resume()

            assert first.await_end() == ExitStatus.OWNERSHIP
            assert_silent(small, woken)
        if not still:
            second.start()
        small.await_drained(second, who=OTHER)
        assert second.stop() == 0

    check_steps(small.steps(OTHER), PostgresPosition.decode)
    assert differences(rows_of_postgres(small.source.url), target.rows) == []


def test_a_daemon_that_hung_and_was_replaced_writes_nothing_more_into_a_file(small: Pipeline) -> None:
    """SQLite has no session to end: the fence alone keeps the first out."""
    small.source.execute(f"ALTER DATABASE {small.source.name} SET wal_sender_timeout = '2s'")
    target = Target.of_sqlite(small.folder / "target.db")
    small.write(target.sink)
    with small.victim() as first, small.victim(OTHER) as second:
        first.start()
        small.await_copied(first)
        settled(small, first)
        first.pause()
        second.start()
        with traffic(small.source, 0, scale=0):
            await_delivery(second, small.folder / f"trace{OTHER}", 0)
            woken = time.monotonic_ns()
            first.resume()

            assert first.await_end(60) == ExitStatus.OWNERSHIP
            assert_silent(small, woken)
        small.await_drained(second, who=OTHER)
        assert second.stop() == 0

    assert differences(rows_of_postgres(small.source.url), target.rows) == []
