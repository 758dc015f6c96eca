"""What `check` finds at real servers, and that the SQL it prints mends it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mapping.transform import Mapping
from cdcsync.mysql.check import check, refuse
from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.connection import connect
from cdcsync.ports import SourceContext
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase


def section(server: MysqlServer, **fields: Any) -> MysqlSource:
    return MysqlSource.model_validate({**from_url(server.url()), "start": "now", **fields})


def found(database: MysqlDatabase, state: Path, **fields: Any) -> dict[str, Finding]:
    context = SourceContext("orders", Mapping.of([f"{database.name}.*"]), state)
    return {finding.subject: finding for finding in check(section(database.server, **fields), context)}


@contextmanager
def setting(server: MysqlServer, name: str, value: str) -> Iterator[None]:
    ((before,),) = server.query(f"SELECT @@GLOBAL.{name}")
    server.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        server.execute(f"SET GLOBAL {name} = %s", [before])


@pytest.fixture
def table(each_mysql_database: MysqlDatabase) -> MysqlDatabase:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    return each_mysql_database


def test_a_server_that_is_set_up_has_no_errors(table: MysqlDatabase, tmp_path: Path) -> None:
    got = found(table, tmp_path)

    assert [finding for finding in got.values() if finding.severity is Severity.ERROR] == []
    assert got["binlog_format"].severity is Severity.OK
    assert "may read the log and the tables" in got["user 'root'@'%'"].message
    assert "is free" in got["server_id"].message


@pytest.mark.parametrize("form", ["STATEMENT", "MIXED"])
def test_another_format_than_rows_is_an_error_and_stops_a_start(
    table: MysqlDatabase, tmp_path: Path, form: str
) -> None:
    with setting(table.server, "binlog_format", f"'{form}'"):
        got = found(table, tmp_path)["binlog_format"]
        with connect(section(table.server), purpose="test") as connection, pytest.raises(Fatal) as caught:
            refuse(connection, section(table.server), SourceContext("orders", Mapping.of(["*.*"]), tmp_path))

        assert got.severity is Severity.ERROR
        assert form in got.message
        assert caught.value.status is ExitStatus.CONFIG
        assert "binlog_format = 'ROW'" in caught.value.hint
        table.server.execute(str(got.remedy).replace("SET PERSIST", "SET GLOBAL"))
        assert found(table, tmp_path)["binlog_format"].severity is Severity.OK


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("binlog_row_metadata", "'MINIMAL'", "come from the catalogue"),
        ("binlog_row_image", "'MINIMAL'", "has not the whole row"),
        ("binlog_row_image", "'NOBLOB'", "has not the whole row"),
        ("binlog_checksum", "'NONE'", "may go unnoticed"),
    ],
)
def test_what_the_log_lacks_of_a_row_is_a_warning_whose_sql_mends_it(
    table: MysqlDatabase, tmp_path: Path, name: str, value: str, words: str
) -> None:
    with setting(table.server, name, value):
        got = found(table, tmp_path)[name]

        assert got.severity is Severity.WARNING
        assert words in got.message
        table.server.execute(str(got.remedy).replace("SET PERSIST", "SET GLOBAL"))
        assert found(table, tmp_path).get(name, got).severity is not Severity.ERROR
        assert name not in {k for k, v in found(table, tmp_path).items() if v.severity is Severity.WARNING}


def test_partial_documents_are_a_warning(mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, v json)")
    with setting(mysql_database.server, "binlog_row_value_options", "'PARTIAL_JSON'"):
        assert found(mysql_database, tmp_path)["binlog_row_value_options"].severity is Severity.WARNING


def test_a_log_that_is_kept_too_short_is_a_warning(table: MysqlDatabase, tmp_path: Path) -> None:
    with setting(table.server, "binlog_expire_logs_seconds", "3600"):
        got = found(table, tmp_path)["binlog_expire_logs_seconds"]

    assert got.severity is Severity.WARNING
    assert "1.0 hours" in got.message
    assert "binlog_expire_logs_seconds = 604800" in str(got.remedy)


def test_a_server_id_of_nought_is_an_error(mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with setting(mysql_database.server, "server_id", "0"):
        got = found(mysql_database, tmp_path)["server_id"]

    assert got.severity is Severity.ERROR
    assert got.remedy == "SET PERSIST server_id = 1;"


@pytest.mark.parametrize("build", ["mysql8", "mariadb10"])
def test_a_server_without_a_log_is_an_error_and_stops_a_start(tmp_path: Path, build: str) -> None:
    server = MysqlServer(build, settings={"skip_log_bin": "ON"})
    del server.settings["log_bin"]
    server.start()
    try:
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
        context = SourceContext("orders", Mapping.of(["shop.*"]), tmp_path)
        got = {finding.subject: finding for finding in check(section(server), context)}
        with (
            connect(section(server), purpose="test") as connection,
            pytest.raises(Fatal, match="log_bin is off") as caught,
        ):
            refuse(connection, section(server), context)
    finally:
        server.stop()

    assert got["log_bin"].severity is Severity.ERROR
    assert "log_bin = binlog" in str(got["log_bin"].remedy)
    assert caught.value.status is ExitStatus.CONFIG


def test_each_missing_right_is_named_with_its_grant_and_none_is_left_when_they_are_given(
    table: MysqlDatabase, tmp_path: Path
) -> None:
    server = table.server
    server.execute("DROP USER IF EXISTS `o'neil`@`%`; CREATE USER `o'neil`@`%` IDENTIFIED BY 'p'")
    server.execute(f"GRANT INSERT ON {table.name}.* TO `o'neil`@`%`")

    before = found(table, tmp_path, user="o'neil", password="p")
    errors = [finding for finding in _all(table, tmp_path) if finding.severity is Severity.ERROR]
    for finding in errors:
        server.execute(str(finding.remedy))
    after = [finding for finding in _all(table, tmp_path) if finding.severity is Severity.ERROR]

    assert before["user 'o''neil'@'%'"].severity is Severity.ERROR
    assert any("REPLICATION SLAVE" in str(finding.remedy) for finding in errors)
    assert any(f"GRANT SELECT ON `{table.name}`.`t`" in str(finding.remedy) for finding in errors)
    assert after == []


def _all(database: MysqlDatabase, state: Path) -> list[Finding]:
    context = SourceContext("orders", Mapping.of([f"{database.name}.*"]), state)
    return check(section(database.server, user="o'neil", password="p"), context)


def test_rights_that_come_by_a_role_count(mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    server = mysql_database.server
    server.execute("DROP USER IF EXISTS member; DROP ROLE IF EXISTS readers; CREATE ROLE readers")
    server.execute("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO readers")
    server.execute("CREATE USER member IDENTIFIED BY 'p' DEFAULT ROLE readers")

    got = found(mysql_database, tmp_path, user="member", password="p")

    assert got["user 'member'@'%'"].severity is Severity.OK


def test_tables_without_a_key_and_with_another_engine_are_warnings(table: MysqlDatabase, tmp_path: Path) -> None:
    table.execute("CREATE TABLE keyless (id int); CREATE TABLE old (id int PRIMARY KEY) ENGINE = MyISAM")

    got = found(table, tmp_path)

    name = f"table {table.name}."
    assert got[f"{name}keyless"].severity is Severity.WARNING
    assert f"ALTER TABLE `{table.name}`.`keyless` ADD PRIMARY KEY" in str(got[f"{name}keyless"].remedy)
    assert "rolled back" in got[f"{name}old"].message
    table.execute(str(got[f"{name}old"].remedy))
    assert f"{name}old" not in found(table, tmp_path)


def test_a_mapping_without_a_table_is_an_error(mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    assert found(mysql_database, tmp_path)["tables"].severity is Severity.ERROR


def test_a_database_that_is_not_logged_and_a_replica_that_does_not_log_are_errors(tmp_path: Path) -> None:
    server = MysqlServer("mariadb10", settings={"binlog_ignore_db": "shop", "log_slave_updates": "OFF"}).start()
    try:
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
        server.execute("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1")
        context = SourceContext("orders", Mapping.of(["shop.*"]), tmp_path)
        got = {finding.subject: finding for finding in check(section(server), context)}
    finally:
        server.stop()

    assert "binlog_ignore_db" in got["database shop"].message
    assert got["database shop"].severity is Severity.ERROR
    assert "not in its log" in got["log_slave_updates"].message


def test_without_gtids_a_failover_is_impossible_which_is_an_error_where_several_hosts_are_named(tmp_path: Path) -> None:
    server = MysqlServer("mysql8", settings={"gtid_mode": "OFF"}).start()
    try:
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
        context = SourceContext("orders", Mapping.of(["shop.*"]), tmp_path)
        one = {finding.subject: finding for finding in check(section(server), context)}["gtid_mode"]
        both = section(server, host=None, hosts=[f"127.0.0.1:{server.port}"] * 2)
        several = {finding.subject: finding for finding in check(both, context)}["gtid_mode"]
        server.execute(str(one.remedy))
        mended = {finding.subject for finding in check(section(server), context)}
    finally:
        server.stop()

    assert (one.severity, several.severity) == (Severity.WARNING, Severity.ERROR)
    assert "gtid_mode" not in mended


def test_another_pipeline_that_writes_here_from_where_this_one_writes_to_is_a_circle(
    table: MysqlDatabase, tmp_path: Path
) -> None:
    table.execute("CREATE TABLE cdcsync_positions (pipeline text, source text, tables text, position text)")
    row = "INSERT INTO cdcsync_positions VALUES ('back', 'postgres:7/x', '[\"t\"]', '{}')"
    table.execute(row)
    context = SourceContext("orders", Mapping.of([f"{table.name}.t"]), tmp_path, "postgres:7/x")

    got = [finding for finding in check(section(table.server), context) if "circle" in finding.message]
    with connect(section(table.server), purpose="test") as connection, pytest.raises(Fatal, match="a circle"):
        refuse(connection, section(table.server), context)
    table.execute("UPDATE cdcsync_positions SET position = NULL")
    after = [finding for finding in check(section(table.server), context) if "circle" in finding.message]

    assert [finding.severity for finding in got] == [Severity.ERROR]
    assert "pipeline back" in got[0].message
    assert after == []


def test_a_configured_server_id_that_is_the_servers_own_is_refused(
    mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    own = mysql_database.server.server_id

    got = found(mysql_database, tmp_path, server_id=own)["server_id"]

    assert got.severity is Severity.ERROR
    assert "taken by the server itself" in got.message
