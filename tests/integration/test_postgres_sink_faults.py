"""What befalls the PostgreSQL sink from outside: it waits and goes on, and nothing is lost or doubled."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres_sink import INTEGER, LOGS, USERS, Ends, insert, make, update, users

from cdcsync.change import Column, Table
from cdcsync.errors import End, Fatal, Transient
from cdcsync.pipeline import Pipeline
from cdcsync.ports import SinkContext
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.store import SqliteStore
from cdcsync.testing.faults import Proxy
from cdcsync.testing.memory import MemorySource, Unmapped
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg
    from fix_postgres import Database

SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END';
CREATE TRIGGER slow AFTER INSERT ON logs FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""


def opened(database: Database, *tables: Table, **options: Any) -> Ends:
    ends = make(database, *tables, **options)
    ends.open()
    return ends


def reopened(ends: Ends) -> None:
    ends.close()
    ends.open()


@contextmanager
def holding(database: Database, *statements: str) -> Iterator[psycopg.Connection]:
    """Another session, inside a transaction after these statements."""
    with database.server.connect(database.name) as other:
        other.execute("SET deadlock_timeout = '1min'")
        other.execute("BEGIN")
        for statement in statements:
            other.execute(statement.encode())
        yield other


@pytest.mark.parametrize("option", ["lock_timeout", "statement_timeout"])
def test_a_lock_held_too_long_is_transient(database: Database, option: str) -> None:
    ends = opened(database, USERS, **{option: "200ms"})
    ends.write(*insert((1, "a")))
    batch = ends.batch(update((1, "a"), (1, "b")))

    with holding(database, "UPDATE users SET name = 'held' WHERE id = 1"):
        with pytest.raises(Transient) as caught:
            ends.sink.write(batch)
        assert caught.value.end is End.SINK
    reopened(ends)
    ends.sink.write(batch)

    assert users(database) == [(1, "b")]
    ends.close()


def test_a_deadlock_is_transient_and_nothing_of_its_transaction_stays(database: Database) -> None:
    ends = opened(database, USERS, LOGS)
    ends.write(*insert((1, "a"), (2, "b")))
    log = insert(("x",), table=LOGS)
    parts = [
        ends.batch(*log, update((1, "a"), (1, "c")), last=False),
        ends.batch(update((2, "b"), (2, "c")), part=1),
    ]
    ends.sink.write(parts[0])

    with holding(database, "UPDATE users SET name = 'held' WHERE id = 2") as other:
        blocked = threading.Thread(
            target=other.execute, args=["UPDATE users SET name = 'held' WHERE id = 1"], daemon=True
        )
        blocked.start()
        until(lambda: database.query("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
        with pytest.raises(Transient, match="deadlock"):
            ends.sink.write(parts[1])
        ends.close()
        blocked.join(20)
    ends.open()
    for part in parts:
        ends.sink.write(part)

    assert users(database) == [(1, "c"), (2, "c")]
    assert database.query("SELECT line FROM logs") == [("x",)]
    ends.close()


def test_a_serialisation_failure_is_transient(database: Database) -> None:
    ends = opened(database, USERS, isolation="repeatable read")
    ends.write(*insert((1, "a"), (2, "b")))
    parts = [ends.batch(update((1, "a"), (1, "c")), last=False), ends.batch(update((2, "b"), (2, "c")), part=1)]
    ends.sink.write(parts[0])
    database.execute("UPDATE users SET name = 'between' WHERE id = 2")

    with pytest.raises(Transient, match="could not serialize"):
        ends.sink.write(parts[1])
    reopened(ends)
    for part in parts:
        ends.sink.write(part)

    assert users(database) == [(1, "c"), (2, "c")]
    ends.close()


def test_an_answer_lost_after_the_commit_doubles_nothing(database: Database) -> None:
    setup = opened(database, LOGS)
    setup.close()
    database.execute(SLOW)
    with Proxy(database.server.host, database.server.port) as proxy:
        ends = make(database, LOGS, port=proxy.port)
        ends.open()
        batch = ends.batch(*insert(("once",), table=LOGS))

        def lose() -> None:
            time.sleep(0.3)
            proxy.stall()
            until(lambda: database.query("SELECT count(*) FROM logs") == [(1,)])
            proxy.cut()
            proxy.go()

        losing = threading.Thread(target=lose)
        losing.start()
        with pytest.raises(Transient):
            ends.sink.write(batch)
        losing.join()
        reopened(ends)
        stored = ends.sink.positions().load()
        ends.sink.write(batch)
        ends.write(*insert(("next",), table=LOGS))
        ends.close()

    assert stored is not None
    assert stored.position == batch.position.encode()
    assert database.query("SELECT line FROM logs ORDER BY line DESC") == [("once",), ("next",)]


def test_a_pipeline_goes_on_after_every_fault_of_its_sink(database: Database) -> None:
    ends = opened(database, USERS, LOGS)
    ends.write(*insert((0, "start")))
    ends.close()
    log = [[*insert((at, "new")), *insert((str(at),), table=LOGS)] for at in range(1, 200)]
    sink = make(database, USERS, LOGS, pipeline="other", lock_timeout="100ms").sink
    pipeline = Pipeline(MemorySource(log), Unmapped(), sink)
    running = threading.Thread(target=pipeline.run, daemon=True)

    with holding(database, "LOCK TABLE logs"):
        running.start()
        until(lambda: pipeline.progress.faults >= 2)
    until(lambda: database.query("SELECT count(*) FROM logs") != [(0,)])
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdcsync other'")
    until(lambda: pipeline.progress.changes + 2 >= 2 * 199)
    pipeline.stop()
    running.join(20)

    assert database.query("SELECT count(*), count(DISTINCT line) FROM logs") == [(199, 199)]
    assert len(users(database)) == 200


def test_a_store_beside_the_sink_is_refused(database: Database, tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(path=tmp_path / "positions.db"), SinkContext("test", tmp_path))
    pipeline = Pipeline(MemorySource([insert((1, "a"))]), Unmapped(), make(database, USERS).sink, positions=store)

    with pytest.raises(Fatal, match="another store was given"):
        pipeline.run()


def test_of_several_hosts_the_primary_is_written_also_after_it_moved() -> None:
    primary = PostgresServer(15).start()
    standby = PostgresServer.standby_of(primary).start()
    try:
        hosts = [f"127.0.0.1:{server.port}" for server in (standby, primary)]
        section = {"hosts": hosts, "user": "postgres", "password": primary.password, "database": "postgres"}
        ends = make(section, LOGS)
        ends.open()
        ends.write(*insert(("on the first",), table=LOGS))
        until(lambda: standby.query("SELECT to_regclass('logs')") != [(None,)])
        until(lambda: standby.query("SELECT count(*) FROM logs") == [(1,)])

        primary.kill()
        standby.promote()
        batch = ends.batch(*insert(("on the second",), table=LOGS))
        with pytest.raises(Transient):
            ends.sink.write(batch)
        reopened(ends)
        ends.sink.write(batch)
        ends.close()

        assert standby.query("SELECT line FROM logs") == [("on the first",), ("on the second",)]
    finally:
        standby.stop()
        primary.stop()


def test_a_column_added_at_the_target_while_it_runs_does_no_harm(database: Database) -> None:
    table = Table("public", "wide", (Column("id", INTEGER), Column("v", INTEGER)), ("id",))
    ends = opened(database, table)
    ends.write(*insert((1, 1), table=table))

    database.execute("ALTER TABLE wide ADD COLUMN more int DEFAULT 7")
    ends.write(*insert((2, 2), table=table), update((1, 1), (1, 5), table))

    assert database.query("SELECT * FROM wide ORDER BY id") == [(1, 5, 7), (2, 2, 7)]
    ends.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
