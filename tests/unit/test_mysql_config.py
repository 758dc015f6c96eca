"""Sections and URLs of MySQL and MariaDB, what they refuse, and what a server says of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from cdcsync import config, connectors
from cdcsync.addresses import TlsMode
from cdcsync.errors import Fatal
from cdcsync.mysql.config import FromFile, FromGtid, FromTime, MysqlSink, MysqlSource, from_url
from cdcsync.mysql.grants import reads_log
from cdcsync.mysql.server import Flavor, Server

if TYPE_CHECKING:
    from pathlib import Path

REST: dict[str, Any] = {"host": "db", "user": "u", "start": "now"}


def test_a_url_is_the_section_that_it_stands_for() -> None:
    got = from_url(
        "mysql://me:p%40ss%2Fw%C3%B6rd@db1:3307,db2/shop?ssl-mode=VERIFY_IDENTITY&ssl-ca=/ca.pem&start=now&server_id=7"
    )

    assert got == {
        "user": "me",
        "password": "p@ss/wörd",
        "hosts": ["db1:3307", "db2"],
        "database": "shop",
        "tls": {"mode": "verify-full", "ca": "/ca.pem"},
        "start": "now",
        "server_id": 7,
    }
    assert MysqlSource(**got).tls_mode is TlsMode.VERIFY_FULL


def test_a_url_may_name_a_socket() -> None:
    section = MysqlSource(**from_url("mariadb://me@/shop?socket=/run/mysqld/mysqld.sock&start=earliest"))

    assert section.addresses[0].name == "/run/mysqld/mysqld.sock"
    assert section.addresses[0].is_local


def test_an_option_that_a_url_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(Fatal, match="no option 'slot'") as caught:
        from_url("mysql://me@db/shop?slot=x")

    assert "server_id" in caught.value.hint


@pytest.mark.parametrize(
    ("hosts", "want"),
    [(["127.0.0.1"], TlsMode.PREFER), (["/run/mysqld.sock"], TlsMode.PREFER), (["::1", "db2"], TlsMode.VERIFY_FULL)],
)
def test_the_server_is_verified_unless_every_host_is_this_machine(hosts: list[str], want: TlsMode) -> None:
    assert MysqlSource.model_validate({"hosts": hosts, "user": "u", "start": "now"}).tls_mode is want


@pytest.mark.parametrize(
    ("start", "want"),
    [
        ("now", "now"),
        ("earliest", "earliest"),
        ({"file": "binlog.000003"}, FromFile(file="binlog.000003", offset=4)),
        ({"file": "binlog.000003", "offset": 155}, FromFile(file="binlog.000003", offset=155)),
        ({"gtid": "0-1-100"}, FromGtid(gtid="0-1-100")),
        ({"time": "2026-11-24T08:00:00Z"}, FromTime.model_validate({"time": "2026-11-24T08:00:00+00:00"})),
    ],
)
def test_each_way_to_start_is_taken(start: Any, want: Any) -> None:
    assert MysqlSource.model_validate({**REST, "start": start}).start == want


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"start": {"lsn": "1/2"}}, "that is PostgreSQL's"),
        ({"start": "yesterday"}, "start: one of initial, initial_only, now, earliest"),
        ({"start": {"file": "binlog"}}, "not the name of a binlog file"),
        ({"start": {"file": "binlog.000001", "offset": 0}}, "greater than or equal to 4"),
        ({"start": {"gtid": "x"}}, "not a GTID set"),
        ({"start": {"time": "2026-11-24T08:00:00"}}, "timezone"),
        ({"server_id": 0}, "greater than or equal to 1"),
        ({"hosts": ["a", "b"]}, "name either `host` or `hosts`"),
        ({"silence_max": 15}, "at least twice `heartbeat`"),
        ({"tls": {"mode": "verify-ca"}}, "needs `ca`"),
    ],
)
def test_what_is_refused_says_why(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MysqlSource.model_validate({**REST, **fields})


@pytest.mark.parametrize("written", ["2026-11-24T08:00:00Z", "'2026-11-24T09:00:00+01:00'", "2026-11-24 08:00:00Z"])
def test_a_file_may_write_a_time_with_and_without_quotes(tmp_path: Path, written: str) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(
        f"source: {{mysql: {{host: db, user: u, start: {{time: {written}}}}}}}\nsink: 'sqlite:x.db'\ntables: [shop.t]\n"
    )

    section = config.load(path).source.config

    assert isinstance(section, MysqlSource)
    assert section.start == FromTime(time=datetime(2026, 11, 24, 8, tzinfo=UTC))


@pytest.mark.parametrize(("written", "words"), [("2026-11-24T08:00:00", "timezone"), ("yesterday", "not a time")])
def test_a_file_that_names_no_exact_time_is_told_where_and_why(tmp_path: Path, written: str, words: str) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(
        f"source: {{mysql: {{host: db, user: u, start: {{time: {written}}}}}}}\nsink: 'sqlite:x.db'\ntables: [shop.t]\n"
    )

    with pytest.raises(Fatal, match=words) as caught:
        config.load(path)
    assert "orders.yaml:1:" in str(caught.value)


def test_without_a_start_the_rows_are_copied_first() -> None:
    assert MysqlSource.model_validate({"host": "db", "user": "u"}).start == "initial"


def test_the_sink_needs_a_database() -> None:
    with pytest.raises(ValidationError, match="database"):
        MysqlSink.model_validate({"host": "db", "user": "u"})


def test_both_schemes_are_the_connectors_own() -> None:
    assert connectors.load("mysql").schemes == ("mysql", "mariadb")


def test_a_server_says_which_flavour_it_is_and_which_words_it_takes() -> None:
    mysql = Server.of({"version": "8.0.15", "server_id": "7", "server_uuid": "u", "gtid_mode": "ON"})
    newest = Server.of({"version": "8.4.2", "server_id": "7", "server_uuid": "u", "gtid_mode": "OFF"})
    mariadb = Server.of({"version": "11.4.5-MariaDB-log", "server_id": "1", "server_uid": "x=", "tx_isolation": "y"})

    assert (mysql.flavor, mysql.version, mysql.name) == (Flavor.MYSQL, (8, 0, 15), "mysql:u")
    assert (mysql.status_query, newest.status_query) == ("SHOW MASTER STATUS", "SHOW BINARY LOG STATUS")
    assert (mysql.readers_query, newest.readers_query) == ("SHOW SLAVE HOSTS", "SHOW REPLICAS")
    assert (mysql.has_gtids, newest.has_gtids, mariadb.has_gtids) == (True, False, True)
    assert (mariadb.flavor, mariadb.name, mariadb.title) == (Flavor.MARIADB, "mariadb:x=/1", "MariaDB 11.4.5")
    assert mariadb.settings({"transaction_isolation": "READ-COMMITTED"}) == {"tx_isolation": "READ-COMMITTED"}


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `a`@`%`", True),
        ("GRANT ALL PRIVILEGES ON *.* TO `a`@`%` WITH GRANT OPTION", True),
        ("GRANT REPLICATION SLAVE ADMIN, BINLOG MONITOR ON *.* TO `a`@`%`", False),
        ("GRANT ALL PRIVILEGES ON `shop`.* TO `a`@`%`", False),
        ("GRANT USAGE ON *.* TO `REPLICATION SLAVE`@`%`", False),
        ("GRANT `readers`@`%` TO `a`@`%`", False),
    ],
)
def test_who_may_read_the_log_is_told_from_rights_of_similar_names(line: str, want: bool) -> None:
    assert reads_log(line) is want
