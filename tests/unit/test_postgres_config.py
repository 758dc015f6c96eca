"""The settings of the PostgreSQL ends, as a section and as a URL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from cdcsync.addresses import TlsMode
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.postgres.config import PostgresSink, PostgresSource, from_url
from cdcsync.postgres.connection import parameters

LEAST: dict[str, Any] = {"host": "db1.example", "user": "u", "database": "d"}


def source(**fields: Any) -> PostgresSource:
    return PostgresSource.model_validate({**LEAST, **fields})


@pytest.mark.parametrize(
    ("hosts", "want"),
    [
        (["127.0.0.1"], TlsMode.PREFER),
        (["::1"], TlsMode.PREFER),
        (["localhost:5433"], TlsMode.PREFER),
        (["/run/postgresql"], TlsMode.PREFER),
        (["127.0.0.1", "db2.example"], TlsMode.VERIFY_FULL),
        (["db1.example"], TlsMode.VERIFY_FULL),
        (["10.0.0.1:5432"], TlsMode.VERIFY_FULL),
    ],
)
def test_the_server_is_verified_unless_every_host_is_this_machine(hosts: list[str], want: TlsMode) -> None:
    config = PostgresSource.model_validate({"hosts": hosts, "user": "u", "database": "d"})

    assert config.tls_mode is want


def test_verify_full_without_a_file_trusts_the_systems_authorities() -> None:
    got = parameters(source())

    assert (got["sslmode"], got["sslrootcert"]) == ("verify-full", "system")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2h", timedelta(hours=2)),
        ("1h 30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations_are_words(text: str, want: timedelta) -> None:
    got = source(retain={"time": text, "bytes": "10GB"}).retain

    assert got is not None
    assert got.time == want
    assert got.bytes == 10_000_000_000


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"start": "earliest"}, "slot keeps nothing from before"),
        ({"start": {"gtid": "x"}}, "MySQL"),
        ({"start": {"time": "x"}}, "no index by time"),
        ({"start": "soon"}, "one of initial, initial_only, now"),
        ({"start": {"lsn": "xyz"}}, "not an LSN"),
        ({"retain": {}}, "give `time`"),
        ({"retain": {"time": "2 fortnights"}}, "not a duration"),
        ({"hosts": ["a"]}, "either `host` or `hosts`"),
        ({"host": None, "hosts": ["a:b:c x"]}, "not a host"),
        ({"tls": {"mode": "verify-ca"}}, "needs `ca`"),
        ({"tls": {"cert": "x"}}, "go together"),
        ({"slot": 'x"; DROP'}, "should match pattern"),
        ({"slto": "x"}, "Extra inputs"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        source(**fields)


def test_the_slots_name_is_folded_from_the_pipelines() -> None:
    assert source().slot_of("Orders-EU.1") == "cdcsync_orders_eu_1"
    assert len(source().slot_of("x" * 99) + "_retain") <= 63


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(source(password="hunter2"))
    assert "hunter2" not in source(password="hunter2").where


def test_a_url_holds_what_a_section_holds() -> None:
    got = from_url("postgresql://a%40b:p%2Fw@h1:5433,h2/db%20x?sslmode=require&sslrootcert=/ca&slot=s")

    assert got == {
        "user": "a@b",
        "password": "p/w",
        "hosts": ["h1:5433", "h2"],
        "database": "db x",
        "tls": {"mode": "require", "ca": "/ca"},
        "slot": "s",
    }
    assert from_url("postgres:///x?host=/run/pg")["host"] == "/run/pg"
    assert from_url("postgres://[::1]:99/x") == {"user": "postgres", "database": "x", "host": "::1", "port": 99}
    with pytest.raises(Fatal, match="no option 'slto'") as caught:
        from_url("postgres://h/x?slto=1")
    assert caught.value.status is ExitStatus.CONFIG


def test_a_sink_never_commits_without_waiting_for_the_disk() -> None:
    got = PostgresSink.model_validate({**LEAST, "lock_timeout": "5s"}).session()

    assert got["synchronous_commit"] == "on"
    assert got["lock_timeout"] == "5000ms"
    with pytest.raises(ValidationError):
        PostgresSink.model_validate({**LEAST, "synchronous_commit": "off"})
