"""Connecting to real MySQL and MariaDB servers: hosts, passwords, ways to prove them, and TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

import pytest

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mysql.config import MysqlSink, MysqlSource, from_url
from cdcsync.mysql.connection import SESSION, connect, quoted
from cdcsync.testing.mysql_servers import MysqlServer
from cdcsync.testing.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase

SPECIAL: Final = "p@ss:w/ö?r#d% 'x\"\\"


def section(server: MysqlServer, **fields: Any) -> MysqlSource:
    return MysqlSource.model_validate({**from_url(server.url()), "start": "now", **fields})


def refused(config: MysqlSource, **options: Any) -> Fatal:
    with pytest.raises(Fatal) as caught:
        connect(config, purpose="test", **options)
    assert "harness" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def plain_mysql() -> Iterator[MysqlServer]:
    """A MySQL 8.0 with the certificates that it made for itself."""
    server = MysqlServer("mysql8", settings={"ssl_cert": "", "ssl_key": "", "ssl_ca": ""})
    yield server.start()
    server.stop()


def test_a_session_has_our_settings_whatever_the_server_sets_for_others(each_mysql: MysqlServer) -> None:
    each_mysql.execute("SET GLOBAL init_connect = 'SET sql_mode = ''ANSI_QUOTES'', time_zone = ''+09:00'''")
    try:
        with connect(section(each_mysql), purpose="test") as connection:
            for name, want in {**SESSION, "net_write_timeout": 3600}.items():
                ((got,),) = connection.execute(f"SELECT @@SESSION.{name}")
                assert set(str(got).split(",")) == set(str(want).split(","))
    finally:
        each_mysql.execute("SET GLOBAL init_connect = ''")


def test_values_come_as_the_server_writes_them_but_integers(each_mysql: MysqlServer) -> None:
    with connect(section(each_mysql), purpose="test") as connection:
        got = connection.execute("SELECT 1.50, CAST('0000-00-00' AS CHAR), 18446744073709551615, X'00FF', NULL, 'ö%'")

        assert got == ((*("1.50", "0000-00-00", 18446744073709551615, b"\x00\xff", None, "ö%"),),)
        assert list(connection.each("SELECT %s UNION ALL SELECT 2", [1])) == [(1,), (2,)]


def test_a_name_with_backticks_stays_one_name(mysql_database: MysqlDatabase) -> None:
    name = "a`; DROP TABLE x; -- `"
    with connect(section(mysql_database.server), purpose="test", database=mysql_database.name) as connection:
        connection.execute(f"CREATE TABLE {quoted(mysql_database.name, name)} (id int)")

        assert connection.execute("SHOW TABLES") == ((name,),)


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_each_mode_of_tls_encrypts_or_does_not(each_mysql: MysqlServer, mode: str) -> None:
    tls = {"mode": mode, **({"ca": str(each_mysql.authority)} if mode.startswith("verify") else {})}

    with connect(section(each_mysql, tls=tls), purpose="test") as connection:
        ((_, cipher),) = connection.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        assert isinstance(connection.socket, ssl.SSLSocket) is (mode != "disable")
        assert bool(cipher) is (mode != "disable")


def test_a_certificate_that_does_not_verify_is_refused_with_the_line_to_add(each_mysql: MysqlServer) -> None:
    got = refused(section(each_mysql, tls={"mode": "verify-full"}))

    assert got.status is ExitStatus.PERMISSION
    assert "ca: " in got.hint


def test_a_file_of_certificates_that_is_none_is_a_matter_of_configuration(mysql: MysqlServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    got = refused(section(mysql, tls={"mode": "verify-full", "ca": str(tmp_path / "ca.pem")}))

    assert got.status is ExitStatus.CONFIG
    assert "ca.pem" in str(got)


def test_the_certificates_that_mysql_makes_for_itself_are_refused_with_the_mode_that_takes_them(
    plain_mysql: MysqlServer,
) -> None:
    ca = str(plain_mysql.data / "ca.pem")

    got = refused(section(plain_mysql, tls={"mode": "verify-full", "ca": ca}))

    assert got.status is ExitStatus.PERMISSION
    assert "verify-ca" in got.hint
    assert "no host name" in got.hint
    with connect(section(plain_mysql, tls={"mode": "verify-ca", "ca": ca}), purpose="test") as connection:
        assert isinstance(connection.socket, ssl.SSLSocket)


def test_a_server_without_tls_is_refused_with_the_line_to_add(mysql57: MysqlServer) -> None:
    assert "tls: {mode: disable}" in refused(section(mysql57, tls={"mode": "require"})).hint


def test_a_server_that_wants_tls_names_the_mode(mysql: MysqlServer) -> None:
    mysql.execute("SET GLOBAL require_secure_transport = ON")
    try:
        got = refused(section(mysql, tls={"mode": "disable"}))
    finally:
        mysql.execute("SET GLOBAL require_secure_transport = OFF")

    assert "tls: {mode: require}" in got.hint


@pytest.mark.parametrize("plugin", ["mysql_native_password", "caching_sha2_password", "sha256_password"])
@pytest.mark.parametrize("mode", ["disable", "require"])
def test_a_password_of_any_letters_is_proved_each_way(mysql: MysqlServer, plugin: str, mode: str) -> None:
    mysql.execute("DROP USER IF EXISTS special")
    mysql.execute(f"CREATE USER special IDENTIFIED WITH {plugin} BY %s", [SPECIAL])
    config = MysqlSource.model_validate(
        {**from_url(mysql.url(user="special", password=SPECIAL)), "start": "now", "tls": {"mode": mode}}
    )

    for _ in range(2):  # the second time caching_sha2_password has it cached
        with connect(config, purpose="test") as connection:
            assert connection.execute("SELECT CURRENT_USER()") == (("special@%",),)


def test_a_password_of_any_letters_is_proved_to_mariadb(mariadb10: MysqlServer) -> None:
    mariadb10.execute("CREATE OR REPLACE USER special IDENTIFIED BY %s", [SPECIAL])

    with connect(section(mariadb10, user="special", password=SPECIAL), purpose="test") as connection:
        assert connection.execute("SELECT CURRENT_USER()") == (("special@%",),)


def test_a_wrong_password_is_a_matter_of_permission(each_mysql: MysqlServer) -> None:
    got = refused(section(each_mysql, password="wrong secret"))

    assert got.status is ExitStatus.PERMISSION
    assert "`password`" in got.hint
    assert "wrong secret" not in str(got)


def test_a_database_that_is_not_there_is_named(each_mysql: MysqlServer) -> None:
    got = refused(section(each_mysql), database="nowhere")

    assert (got.status, got.hint) == (ExitStatus.CONFIG, "check `database`: the server has none of that name")


def test_a_locked_account_and_an_expired_password_name_the_statement(mysql: MysqlServer) -> None:
    mysql.execute("DROP USER IF EXISTS locked, expired")
    mysql.execute("CREATE USER locked IDENTIFIED BY 'x' ACCOUNT LOCK")
    mysql.execute("CREATE USER expired IDENTIFIED BY 'x' PASSWORD EXPIRE")

    assert "ACCOUNT UNLOCK" in refused(section(mysql, user="locked", password="x")).hint
    assert "ALTER USER" in refused(section(mysql, user="expired", password="x")).hint


def test_a_server_that_is_away_is_waited_for(mysql: MysqlServer) -> None:
    with pytest.raises(Transient) as caught:
        connect(section(mysql, port=free_port()), purpose="test", end=End.SINK)
    assert caught.value.end is End.SINK


def test_a_server_that_says_nothing_does_not_hold_us(mysql: MysqlServer) -> None:
    mysql.pause()
    try:
        with pytest.raises(Transient):
            connect(section(mysql, connect_timeout_s=2), purpose="test")
    finally:
        mysql.resume()


def test_the_next_of_several_hosts_is_taken_and_a_read_only_one_passed_over(
    mysql: MysqlServer, mariadb10: MysqlServer
) -> None:
    hosts = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{mariadb10.port}", f"127.0.0.1:{mysql.port}"]
    sink = MysqlSink.model_validate({**from_url(mysql.url("x")), "host": None, "port": 3306, "hosts": hosts})
    mariadb10.execute("SET GLOBAL read_only = ON")
    try:
        with connect(sink, purpose="test") as connection:
            assert connection.address.port == mariadb10.port
        with connect(sink, purpose="test", read_write=True) as connection:
            assert connection.address.port == mysql.port
    finally:
        mariadb10.execute("SET GLOBAL read_only = OFF")


def test_a_unix_socket_is_taken(mariadb10: MysqlServer) -> None:
    ((path,),) = mariadb10.query("SELECT @@socket")
    mariadb10.execute("CREATE OR REPLACE USER here@localhost IDENTIFIED BY 'x'")

    with connect(section(mariadb10, host=path, user="here", password="x"), purpose="test") as connection:
        assert connection.execute("SELECT CURRENT_USER()") == (("here@localhost",),)


def test_a_session_that_is_killed_is_transient_and_closing_it_does_not_raise(each_mysql: MysqlServer) -> None:
    connection = connect(section(each_mysql), purpose="test")
    each_mysql.end_session(connection.id)

    with pytest.raises(Transient):
        connection.ask("asking", "SELECT 1")
    connection.close()
    connection.close()
