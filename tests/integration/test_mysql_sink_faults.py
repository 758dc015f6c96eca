"""What befalls the MySQL sink from outside: it waits and goes on, and nothing is lost or doubled."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
import pymysql.err
import pytest
from fix_mysql_sink import LOGS, USERS, Ends, insert, make, opened, update, users

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mysql.store import lock_name
from cdcsync.pipeline import Pipeline
from cdcsync.testing.faults import Proxy
from cdcsync.testing.memory import MemorySource, Unmapped
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql import MysqlDatabase

ALL = 2 * 399
"""Changes that the killed server gets."""
SLOW = "CREATE TRIGGER slow BEFORE INSERT ON {} FOR EACH ROW SET @slept = SLEEP(0.8)"


def reopened(ends: Ends) -> None:
    ends.close()
    ends.open()


@contextmanager
def holding(database: MysqlDatabase, *statements: str) -> Iterator[pymysql.Connection[Any]]:
    """Another session, inside a transaction after these statements."""
    with database.server.connect(database.name) as other:
        other.begin()
        for statement in statements:
            with other.cursor() as cursor:
                cursor.execute(statement)
        yield other


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def lines(database: MysqlDatabase) -> list[str]:
    return sorted(row[0] for row in database.query("SELECT line FROM logs"))


def moved(pipeline: Pipeline) -> None:
    """Return once some more changes are durable, or all are."""
    before = pipeline.progress.changes
    until(lambda: pipeline.progress.changes > before or pipeline.progress.changes >= ALL)


def session_of(database: MysqlDatabase, pipeline: str = "test") -> int:
    """The session that holds a pipeline's lock; 0 when none does."""
    ((session,),) = database.query("SELECT IS_USED_LOCK(%s)", [lock_name(database.name, pipeline, "")])
    return session or 0


def test_a_lock_held_too_long_is_transient(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    ends = opened(database, USERS, lock_timeout="1s")
    ends.write(*insert((1, "a")))
    batch = ends.batch(update((1, "a"), (1, "b")))

    with holding(database, "UPDATE users SET name = 'held' WHERE id = 1"):
        with pytest.raises(Transient, match="1205") as caught:
            ends.sink.write(batch)
        assert caught.value.end is End.SINK
    reopened(ends)
    ends.sink.write(batch)

    assert users(database) == [(1, "b")]
    ends.close()


def test_a_deadlock_is_transient_and_nothing_of_its_transaction_stays(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    ends = opened(database, USERS, LOGS)
    ends.write(*insert(*[(at, "a") for at in range(1, 100)]))
    parts = [
        ends.batch(*insert(("x",), table=LOGS), update((1, "a"), (1, "c")), last=False),
        ends.batch(update((2, "a"), (2, "c")), part=1),
    ]
    ends.sink.write(parts[0])

    heavy = "UPDATE users SET name = 'held' WHERE id BETWEEN 2 AND 90"
    with holding(database, heavy) as other, other.cursor() as cursor:
        blocked = threading.Thread(target=end_of, args=[cursor, "UPDATE users SET name = 'held' WHERE id = 1"])
        blocked.start()
        until(lambda: waiting(database))
        with pytest.raises(Transient, match="1213"):
            ends.sink.write(parts[1])
        ends.close()
        blocked.join(20)
        other.rollback()
    ends.open()
    for part in parts:
        ends.sink.write(part)

    assert users(database)[:3] == [(1, "c"), (2, "c"), (3, "a")]
    assert lines(database) == ["x"]
    ends.close()


def end_of(cursor: Any, statement: str) -> None:
    cursor.execute(statement)


def waiting(database: MysqlDatabase) -> bool:
    return database.query("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'") != [(0,)]


def test_an_answer_lost_after_the_commit_doubles_nothing(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    with Proxy(database.server.host, database.server.port) as proxy:
        ends = make(database, LOGS, port=proxy.port)
        ends.open()
        database.execute(SLOW.format("logs"))
        batch = ends.batch(*insert(("once",), table=LOGS))

        def lose() -> None:
            time.sleep(0.3)
            proxy.stall()
            time.sleep(1.0)
            proxy.cut()
            proxy.go()

        losing = threading.Thread(target=lose)
        losing.start()
        with pytest.raises(Transient):
            ends.sink.write(batch)
        losing.join()
        reopened(ends)
        ends.sink.write(batch)
        ends.write(*insert(("next",), table=LOGS))
        ends.close()

    assert lines(database) == ["next", "once"]


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_session_killed_around_its_commit_loses_and_doubles_nothing(
    each_mysql_database: MysqlDatabase, *, after_commit: bool
) -> None:
    database = each_mysql_database
    ends = opened(database, LOGS)
    ends.write(*insert(("first",), table=LOGS))
    batch = ends.batch(*insert(("second",), table=LOGS))
    if after_commit:
        ends.sink.write(batch)
    database.server.end_session(session_of(database))

    if not after_commit:
        with pytest.raises(Transient):
            ends.sink.write(batch)
    reopened(ends)
    ends.sink.write(batch)

    assert lines(database) == ["first", "second"]
    ends.close()


def test_our_own_session_that_the_network_cut_off_does_not_hold_us_up(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    ends = opened(database, LOGS)
    store = ends.sink.positions()
    cut_off, store._connection = store._connection, None
    held = session_of(database)

    ends.open()

    assert cut_off is not None
    assert session_of(database) not in {0, held}
    ends.write(*insert(("still there",), table=LOGS))
    ends.close()
    cut_off.abort()
    assert lines(database) == ["still there"]


def test_a_process_that_slept_while_another_took_over_writes_nothing(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    old = opened(database, LOGS)
    old.write(*insert(("old",), table=LOGS))
    old.sink.write(old.batch(*insert(("half",), table=LOGS), last=False))
    late = old.batch(*insert(("late",), table=LOGS), part=1)
    database.execute("UPDATE cdcsync_positions SET fence = fence + 1, holder = 'the new one'")

    with pytest.raises(Fatal, match="the new one") as caught:
        old.sink.write(late)
    old.close()

    assert caught.value.status is ExitStatus.OWNERSHIP
    assert lines(database) == ["old"]


@pytest.mark.parametrize("build", ["mysql8", "mariadb11"])
def test_a_server_that_is_killed_again_and_again_gets_every_row_once(build: str) -> None:
    server = MysqlServer(build, settings={"innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1"}).start()
    try:
        server.execute("CREATE DATABASE target")
        section = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
        log = [[*insert((at, "new")), *insert((str(at),), table=LOGS)] for at in range(1, 400)]
        sink = make({**section, "database": "target"}, USERS, LOGS).sink
        pipeline = Pipeline(MemorySource(log), Unmapped(), sink)
        running = threading.Thread(target=pipeline.run, daemon=True)
        running.start()
        for _ in range(3):
            moved(pipeline)
            server.kill()
            server.start()
        until(lambda: pipeline.progress.changes >= ALL or not running.is_alive())
        pipeline.stop()
        running.join(30)

        assert server.query("SELECT count(*), count(DISTINCT line) FROM target.logs") == [(399, 399)]
        assert server.query("SELECT count(*) FROM target.users") == [(399,)]
    finally:
        server.stop()


def test_a_pipeline_goes_on_after_every_fault_of_its_sink(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    opened(database, USERS, LOGS).close()
    log = [[*insert((at, "new")), *insert((str(at),), table=LOGS)] for at in range(1, 200)]
    sink = make(database, USERS, LOGS, pipeline="other", lock_timeout="1s").sink
    pipeline = Pipeline(MemorySource(log), Unmapped(), sink)
    running = threading.Thread(target=pipeline.run, daemon=True)

    with holding(database, "INSERT INTO users VALUES (1, 'held')"):
        running.start()
        until(lambda: pipeline.progress.faults >= 1)
    until(lambda: pipeline.progress.changes > 0)
    session = session_of(database, "other")
    if session:
        database.server.end_session(session)
    until(lambda: pipeline.progress.changes >= 2 * 199)
    pipeline.stop()
    running.join(20)

    assert database.query("SELECT count(*), count(DISTINCT line) FROM logs") == [(199, 199)]
    assert len(users(database)) == 199


def test_of_several_hosts_the_one_that_takes_writes_is_written() -> None:
    primary = MysqlServer("mariadb10").start()
    replica = MysqlServer.replica_of(primary)
    try:
        hosts = [f"127.0.0.1:{server.port}" for server in (replica, primary)]
        primary.execute("CREATE DATABASE target")
        section = {"hosts": hosts, "user": primary.user, "password": primary.password, "database": "target"}
        ends = make(section, LOGS)
        ends.open()
        ends.write(*insert(("on the first",), table=LOGS))
        replica.await_logged(primary.logged())

        primary.kill()
        replica.promote()
        batch = ends.batch(*insert(("on the second",), table=LOGS))
        with pytest.raises(Transient):
            ends.sink.write(batch)
        reopened(ends)
        ends.sink.write(batch)
        replica.execute("SET GLOBAL read_only = ON")
        ends.close()

        with pytest.raises(Transient, match="read-only"):
            ends.open()
        assert replica.query("SELECT line FROM target.logs") == [("on the first",), ("on the second",)]
    finally:
        replica.stop()
        primary.stop()


def test_what_no_table_tells_is_an_error_of_the_server_not_of_a_row(mysql_database: MysqlDatabase) -> None:
    ends = opened(mysql_database, USERS)
    mysql_database.execute("DROP TABLE users")

    with pytest.raises(Fatal, match="users"):
        ends.write(*insert((1, "a")))

    ends.close()
    with pytest.raises(pymysql.err.ProgrammingError):
        users(mysql_database)
