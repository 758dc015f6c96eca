"""Where the log does not describe its tables, the catalogue does, if it is proved to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_mysql_source import begun, has_changes

from cdcsync.errors import Fatal
from cdcsync.mysql import schema
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

    from cdcsync.testing.mysql_servers import MysqlServer


@pytest.fixture(params=["mysql57", "mariadb11"])
def bare(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    """A database on a server whose log has no names: MySQL 5.7 always, MariaDB with MINIMAL."""
    server: MysqlServer = request.getfixturevalue(request.param)
    minimal = request.param != "mysql57"
    if minimal:
        server.execute("SET GLOBAL binlog_row_metadata = 'MINIMAL'")
    made = make_mysql_database(server)
    yield made
    drop_mysql_database(made)
    if minimal:
        server.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_columns_that_the_log_does_not_name_are_the_catalogues(
    bare: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    bare.execute("CREATE TABLE t (a int unsigned, id bigint PRIMARY KEY, e enum('x','y'), s varchar(9) CHARSET latin1)")
    run = begun(read(bare))
    bare.execute("INSERT INTO t VALUES (4294967295, -1, 'y', 'é')")

    run.take(has_changes(1))

    (change,) = run.changes
    assert change.after == (4294967295, -1, "y", "é")
    assert [column.name for column in change.table.columns] == ["a", "id", "e", "s"]
    assert change.table.key == ("id",)
    assert change.table.columns[2].type.labels == ("x", "y")


def test_a_table_altered_while_down_that_the_log_does_not_describe_stops(
    bare: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    """Even where the columns still fit in number and type."""
    bare.execute("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int PRIMARY KEY)")
    run = begun(read(bare))
    position = run.encoded()
    run.source.close()
    bare.execute("INSERT INTO u VALUES (1); INSERT INTO t VALUES (1, 2); ALTER TABLE t DROP a, ADD b int")
    again = read(bare).open(position, 1)

    with pytest.raises(Fatal, match=r"does not describe test_\d+.t at .*was altered since") as raised:
        again.take(has_changes(2))

    assert "SET GLOBAL binlog_row_metadata = 'FULL'" in str(raised.value)
    assert [change.after for change in again.changes] in ([], [(1,)])


def test_a_table_altered_while_it_streams_is_read_on(bare: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    bare.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    run = begun(read(bare))
    bare.execute("INSERT INTO t VALUES (1, 2)")
    run.take(has_changes(1))
    bare.execute("ALTER TABLE t ADD b int FIRST; INSERT INTO t VALUES (3, 4, 5)")

    run.take(has_changes(2))

    assert [change.after for change in run.changes] == [(1, 2), (3, 4, 5)]
    assert [column.name for column in run.changes[1].table.columns] == ["b", "id", "a"]


def test_a_table_of_another_name_that_was_altered_proves_nothing_against_this_one(
    bare: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    bare.execute("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (t int PRIMARY KEY)")
    run = begun(read(bare))
    position = run.encoded()
    run.source.close()
    bare.execute("INSERT INTO t VALUES (1, 2); ALTER TABLE u COMMENT 'ALTER TABLE t', CHANGE t id int")

    again = read(bare).open(position, 1).take(has_changes(1))

    assert [change.after for change in again.changes] == [(1, 2)]


def test_hints_say_what_no_log_does(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, g int AS (n + 1) STORED, m int)")
    run = begun(read(database))
    database.execute("INSERT INTO t (id, n) VALUES (1, 2)")

    run.take(has_changes(1))

    columns = run.changes[0].table.columns
    assert [column.nullable for column in columns] == [False, False, True, True]
    assert [column.generated for column in columns] == [False, False, True, False]
    assert run.changes[0].after == (1, 2, 3, None)


def test_types_that_mariadb_logs_as_bytes_are_known_by_the_catalogue(
    mariadb11: MysqlServer, read: Callable[..., MysqlRun]
) -> None:
    database = make_mysql_database(mariadb11)
    database.execute("CREATE TABLE t (id int PRIMARY KEY, u uuid, a inet4, b inet6, j json)")
    run = begun(read(database))
    values = "1, '123e4567-e89b-12d3-a456-426614174000', '10.0.0.1', '::1', '{\"a\": 1}'"
    database.execute(f"INSERT INTO t VALUES ({values})")

    run.take(has_changes(1))

    (change,) = run.changes
    assert change.after == (1, "123e4567-e89b-12d3-a456-426614174000", "10.0.0.1", "::1", '{"a": 1}')
    assert [column.type.kind for column in change.table.columns[1:]] == [
        Kind.UUID, Kind.OPAQUE, Kind.OPAQUE, Kind.JSON,
    ]  # fmt: skip
    drop_mysql_database(database)


@pytest.mark.parametrize(
    "first",
    [
        "INSERT INTO t VALUES (1, 2)",
        "XA START 'x'; INSERT INTO t VALUES (1, 2); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
    ],
    ids=["plain", "xa"],
)
def test_a_proof_over_a_long_log_lets_every_poll_return(
    bare: MysqlDatabase, read: Callable[..., MysqlRun], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Each look is cut short after some events here, as it is after a quarter of a second."""
    monkeypatch.setattr(schema, "SLICE_S", -1.0)
    monkeypatch.setattr(schema, "LOOK_AT", 50)
    bare.execute("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int PRIMARY KEY)")
    run = begun(read(bare))
    position = run.encoded()
    run.source.close()
    bare.execute(first)
    bare.execute("INSERT INTO t VALUES (3, 4)")
    bare.execute("; ".join(f"INSERT INTO u VALUES ({n})" for n in range(300)))

    again = read(bare).open(position, 1)
    held = 0
    until = time.monotonic() + 40
    while len(again.changes) < 302:
        batch = again.source.poll(0.001)
        if batch is not None:
            again.transactions.extend(batch.transactions)
        session = again.source._session
        held += session is not None and (session.decision or session.groups).waits
        assert time.monotonic() < until, (held, str(again.changes)[:2000])

    assert held >= 1
    assert [change.after for change in again.changes] == [(1, 2), (3, 4), *[(n,) for n in range(300)]]
