"""The harness's MySQL and MariaDB: what their log holds, that a crash loses nothing, and that replicas are real."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pymysql
import pytest
from fix_mysql import drop_mysql_database, make_mysql_database

from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_mysql import MysqlDatabase

BUILDS = ["mysql8", "mysql57", "mariadb10", "mariadb11"]
VERSIONS = {"mysql8": "8.0.", "mysql57": "5.7.", "mariadb10": "10.11.", "mariadb11": "11.4."}
SHOP = "CREATE DATABASE shop; CREATE TABLE shop.orders (id int PRIMARY KEY)"


@pytest.fixture(params=BUILDS)
def server(request: pytest.FixtureRequest) -> Iterator[MysqlServer]:
    """A server of the test's own."""
    made = MysqlServer(request.param)
    yield made.start()
    made.stop()


def test_rows_are_logged_with_gtids_in_a_time_zone_that_nobody_takes_for_utc(server: MysqlServer) -> None:
    assert server.logged() == ""

    server.execute(SHOP)

    settings = "SELECT version(), @@binlog_format, @@server_id, @@time_zone"
    ((version, *rest),) = server.query(settings)
    assert version.startswith(VERSIONS[server.build.name])
    assert rest == ["ROW", server.port, "+05:45"]
    assert server.logged() != ""
    assert server.binlogs() == [server.position()[0]]


def test_a_crash_loses_no_commit(server: MysqlServer) -> None:
    server.execute(SHOP)
    server.execute("INSERT INTO shop.orders VALUES (1)")
    logged = server.logged()

    server.kill()
    assert not server.running
    server.start()

    assert server.query("SELECT id FROM shop.orders") == [(1,)]
    assert server.logged() == logged
    assert len(server.binlogs()) == 2


def test_a_replica_has_all_of_it_and_goes_on_alone(server: MysqlServer) -> None:
    server.execute(SHOP)
    replica = MysqlServer.replica_of(server)
    try:
        server.execute("INSERT INTO shop.orders VALUES (1)")
        replica.await_logged(server.logged())
        assert replica.logged() == server.logged()

        server.kill()
        replica.promote()
        replica.execute("INSERT INTO shop.orders VALUES (2)")

        assert replica.query("SELECT id FROM shop.orders") == [(1,), (2,)]
        assert replica.query("SHOW SLAVE STATUS") == []
    finally:
        replica.stop()


def test_the_log_tells_names_and_the_certificate_is_good(each_mysql_database: MysqlDatabase) -> None:
    server = each_mysql_database.server

    assert server.query("SELECT @@GLOBAL.binlog_row_metadata") == [("FULL",)]
    trusting = ssl.create_default_context(cafile=str(server.authority))
    with (
        pymysql.connect(
            host=server.host, port=server.port, user="root", password="harness", ssl=trusting
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
        ((_, version),) = cursor.fetchall()
    assert version >= "TLSv1.2"


def test_a_database_is_dropped_under_a_session_that_holds_its_table(mysql: MysqlServer) -> None:
    database = make_mysql_database(mysql)
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    holding = mysql.connect(database.name)
    with holding.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM orders")

    drop_mysql_database(database)

    assert mysql.query("SHOW DATABASES LIKE %s", [database.name]) == []
    holding._force_close()
