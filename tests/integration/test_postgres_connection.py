"""Connecting to real servers: hosts, passwords, rights and TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.connection import FORMATS, connect
from cdcsync.testing.processes import free_port

if TYPE_CHECKING:
    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer


def section(server: PostgresServer, **fields: Any) -> PostgresSource:
    return PostgresSource.model_validate({**from_url(server.url()), **fields})


def refused(config: PostgresSource, **options: Any) -> Fatal:
    with pytest.raises(Fatal) as caught:
        connect(config, application_name="test", **options)
    assert "harness" not in str(caught.value)
    return caught.value


def test_both_kinds_of_session_show_values_in_the_same_form(each_postgres: PostgresServer) -> None:
    config = section(each_postgres)

    for replication in (False, True):
        with connect(config, application_name="test", replication=replication) as connection:
            for name, want in FORMATS.items():
                got = connection.execute(f"SHOW {name}".encode()).fetchone()
                assert got is not None
                assert str(got[0]).startswith(want)


def test_a_wrong_password_is_a_matter_of_permission(each_postgres: PostgresServer) -> None:
    got = refused(section(each_postgres, password="wrong"))

    assert got.status is ExitStatus.PERMISSION
    assert "`password`" in got.hint
    assert "wrong" not in str(got)


def test_a_missing_password_a_role_and_a_database_are_named(postgres: PostgresServer) -> None:
    assert "password:" in refused(section(postgres, password=None)).hint
    got = refused(section(postgres, database="nowhere"))
    assert (got.status, got.hint) == (ExitStatus.CONFIG, "check `database`: the server has none of that name")


def test_a_user_who_may_not_replicate_is_told_the_statement(each_database: Database) -> None:
    each_database.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'plain'")
    config = PostgresSource.model_validate({**from_url(each_database.url), "user": "plain", "password": "plain"})

    got = refused(config, replication=True)

    assert got.status is ExitStatus.PERMISSION
    assert 'ALTER ROLE "plain" REPLICATION' in got.hint


def test_a_certificate_that_does_not_verify_is_refused_with_the_line_to_add(postgres: PostgresServer) -> None:
    got = refused(section(postgres, tls={"mode": "verify-full"}))

    assert got.status is ExitStatus.PERMISSION
    assert "ca: " in got.hint
    with connect(section(postgres, tls={"mode": "verify-full", "ca": str(postgres.authority)}), application_name="t"):
        pass


def test_a_server_without_tls_is_refused_with_the_line_to_add(postgres16: PostgresServer) -> None:
    assert "tls: {mode: disable}" in refused(section(postgres16, tls={"mode": "require"})).hint


def test_a_server_that_is_away_is_waited_for(postgres: PostgresServer) -> None:
    config = section(postgres, port=free_port())

    with pytest.raises(Transient) as caught:
        connect(config, application_name="test", end=End.SINK)
    assert caught.value.end is End.SINK


def test_the_next_of_several_hosts_is_taken(postgres: PostgresServer) -> None:
    hosts = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{postgres.port}"]

    with connect(section(postgres, host=None, hosts=hosts), application_name="test", read_write=True) as connection:
        assert connection.info.port == postgres.port
