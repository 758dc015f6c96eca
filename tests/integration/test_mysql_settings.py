"""Logs as servers write them that are set otherwise: without checksums, without GTIDs, other engines, statements with rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fix_mysql import make_mysql_database
from fix_mysql_source import begun, has_changes

from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun


def test_a_log_is_read_on_when_its_checksums_go_and_come(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    server = database.server
    try:
        for number, algorithm in enumerate(("NONE", "CRC32", "NONE")):
            server.execute(f"SET GLOBAL binlog_checksum = {algorithm}")
            database.execute(f"INSERT INTO t VALUES ({number * 2})")
            run.take(has_changes(number * 2 + 1))
            run.source.close()
            run.open(run.encoded(), 1)
            database.execute(f"INSERT INTO t VALUES ({number * 2 + 1})")
            run.take(has_changes(number * 2 + 2))
    finally:
        server.execute("SET GLOBAL binlog_checksum = CRC32")

    assert [change.after for change in run.changes] == [(number,) for number in range(6)]


def test_rows_of_an_engine_without_transactions_arrive(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE u (id int PRIMARY KEY)")
    run = begun(read(database))
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        for statement in ("INSERT INTO t VALUES (1), (2)", "DELETE FROM t WHERE id = 2"):
            cursor.execute(statement)
    database.execute("INSERT INTO u VALUES (3)")

    run.take(has_changes(4))

    assert run.rows == [("insert", None, (1,)), ("insert", None, (2,)), ("delete", (2,), None), ("insert", None, (3,))]


@pytest.fixture(scope="module")
def plain() -> Iterator[MysqlServer]:
    """MySQL 8.0 without GTIDs."""
    server = MysqlServer("mysql8", settings={"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"})
    yield server.start()
    server.stop()


def test_a_server_without_gtids_is_read_by_its_places(plain: MysqlServer, read: Callable[..., MysqlRun]) -> None:
    database = make_mysql_database(plain)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    values = ",".join(f"({number})" for number in range(9000))
    database.execute(f"INSERT INTO t VALUES {values}")
    run.take(has_changes(4000))
    assert run.position is not None
    assert run.position.gtids is None
    assert run.position.within is not None
    run.source.close()
    plain.restart()
    database.execute("INSERT INTO t VALUES (9000)")

    again = read(database).open(run.encoded(), 1)
    again.take(lambda both: len(both.changes) + len(run.changes) >= 9001)

    assert [change.after for change in run.changes + again.changes] == [(number,) for number in range(9001)]


@pytest.mark.parametrize("build", ["plain", "mariadb10", "mariadb11"])
def test_a_table_made_of_a_query_has_its_rows(
    request: pytest.FixtureRequest, read: Callable[..., MysqlRun], build: str
) -> None:
    database = make_mysql_database(request.getfixturevalue(build))
    database.execute("CREATE TABLE no_u (id int PRIMARY KEY); INSERT INTO no_u VALUES (1), (2)")
    run = begun(read(database))
    database.execute("CREATE TABLE t (PRIMARY KEY (id)) AS SELECT * FROM no_u; INSERT INTO t VALUES (3)")

    run.take(has_changes(3))

    assert [change.after for change in run.changes] == [(1,), (2,), (3,)]
    assert len({each.id for each in run.transactions}) == len(run.transactions)


def test_one_statement_that_changes_several_tables_names_each(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    """By a trigger and by a join, in one transaction with tables that nobody wants."""
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY, n int)")
    database.execute("CREATE TABLE no_v (id int PRIMARY KEY)")
    database.execute(
        "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW BEGIN INSERT INTO u VALUES (NEW.id, 0); "
        "INSERT INTO no_v VALUES (NEW.id); END"
    )
    run = begun(read(database))
    database.execute(
        "INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t JOIN u USING (id) SET t.n = 7, u.n = 8 WHERE id = 2"
    )

    run.take(has_changes(6))

    assert sorted((change.table.name, change.operation.value, change.after) for change in run.changes) == [
        ("t", "insert", (1, 1)),
        ("t", "insert", (2, 2)),
        ("t", "update", (2, 7)),
        ("u", "insert", (1, 0)),
        ("u", "insert", (2, 0)),
        ("u", "update", (2, 8)),
    ]
    assert len(run.transactions) == 2
