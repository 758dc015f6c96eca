"""Slots: made, found, taken, lost, and kept behind on purpose."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.postgres import slot as slots
from cdcsync.postgres.config import PostgresSource, Retain, from_url
from cdcsync.postgres.connection import Connection, connect
from cdcsync.postgres.identity import check_history, fork_points, identify, identify_plainly, parse_history
from cdcsync.postgres.retain import Retained, Retainer
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from fix_postgres import Database


def attach(url: str, *, replication: bool = False) -> Connection:
    config = PostgresSource.model_validate(from_url(url))
    return connect(config, application_name="test", replication=replication, read_write=True)


def test_a_slot_is_made_with_a_snapshot_found_and_dropped(each_database: Database) -> None:
    name = f"s_{each_database.name}"
    with attach(each_database.url, replication=True) as replication, attach(each_database.url) as plain:
        created = slots.create(replication, name, failover=True, snapshot=True)
        slot = slots.find(plain, name)

        assert created.snapshot
        assert slot is not None
        assert slot.confirmed_lsn == created.consistent_lsn
        assert slot.failover is (each_database.server.version >= 17)
        slots.check_form(slot, each_database.name)
        assert slots.drop(plain, name)
        assert not slots.drop(plain, name)
        assert slots.find(plain, name) is None


def test_a_server_without_logical_wal_is_refused_with_the_statement() -> None:
    server = PostgresServer(15, settings={"wal_level": "replica"}).start()
    try:
        with attach(server.url(), replication=True) as replication, pytest.raises(Fatal) as caught:
            slots.create(replication, "s")
    finally:
        server.stop()

    assert "ALTER SYSTEM SET wal_level = logical" in caught.value.hint
    assert caught.value.status is ExitStatus.CONFIG


def test_a_slot_of_another_plugin_or_database_is_refused(database: Database) -> None:
    database.execute("SELECT pg_create_logical_replication_slot('other_plugin', 'test_decoding')")
    database.execute("SELECT pg_create_logical_replication_slot('other_base', 'pgoutput')")
    with attach(database.url) as plain:
        plugin, base = slots.find(plain, "other_plugin"), slots.find(plain, "other_base")

    assert plugin is not None
    assert base is not None
    with pytest.raises(Fatal, match="is of test_decoding"):
        slots.check_form(plugin, database.name)
    with pytest.raises(Fatal, match="is of database"):
        slots.check_form(base, "elsewhere")


def test_a_slot_dropped_while_down_is_never_made_anew() -> None:
    with pytest.raises(Fatal, match="does not exist, though the pipeline has a position") as caught:
        slots.check_position(None, "s", 0x100)

    assert "cdcsync drop" in caught.value.hint


def test_a_slot_past_our_position_is_a_gap(database: Database) -> None:
    database.execute("SELECT pg_create_logical_replication_slot('ahead', 'pgoutput')")
    with attach(database.url) as plain:
        slot = slots.find(plain, "ahead")

    assert slot is not None
    assert slot.confirmed_lsn is not None
    assert slots.check_position(slot, "ahead", slot.confirmed_lsn) is slot
    with pytest.raises(Fatal, match="past the pipeline's position"):
        slots.check_position(slot, "ahead", slot.confirmed_lsn - 1)


def test_a_slot_without_a_stored_position_is_refused_with_remedies(database: Database) -> None:
    database.execute("SELECT pg_create_logical_replication_slot('alone', 'pgoutput')")
    with attach(database.url) as plain:
        slot = slots.find(plain, "alone")

    slots.check_absent(None, "p")
    with pytest.raises(Fatal, match="no position of pipeline p is stored") as caught:
        slots.check_absent(slot, "p")
    assert "cdcsync drop p" in caught.value.hint
    assert "cdcsync positions set p" in caught.value.hint


def test_a_slot_whose_wal_was_removed_is_refused() -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    server = PostgresServer(15, settings=settings).start()
    try:
        server.execute("SELECT pg_create_logical_replication_slot('lost', 'pgoutput'); CREATE TABLE t (x text)")
        for _ in range(5):
            server.execute("INSERT INTO t SELECT repeat('x', 900) FROM generate_series(1, 30000)")
            server.execute("SELECT pg_switch_wal()")
            server.execute("CHECKPOINT")
        with attach(server.url()) as plain:
            slot = slots.find(plain, "lost")
    finally:
        server.stop()

    assert slot is not None
    with pytest.raises(Fatal, match="was invalidated by the server") as caught:
        slots.check_form(slot, "postgres")
    assert "max_slot_wal_keep_size" in caught.value.hint


def test_a_slot_that_is_taken_names_its_holder_and_a_killed_reader_is_waited_for(database: Database) -> None:
    now = [0.0]
    claim = slots.Claim(clock=lambda: now[0])
    with closing(attach(database.url, replication=True)) as reading, attach(database.url) as plain:
        slots.create(reading, "taken")
        database.execute("CREATE PUBLICATION p")
        reading.pgconn.send_query(
            b"START_REPLICATION SLOT taken LOGICAL 0/0 (proto_version '1', publication_names 'p')"
        )
        reading.pgconn.get_result()
        slot = slots.find(plain, "taken")

        assert slot is not None
        with pytest.raises(Transient, match=rf"by process {slot.active_pid} \(test from 127\.0\.0\.1"):
            claim.judge(slot)
        now[0] = slots.LINGER_S + 1
        with pytest.raises(Fatal) as caught:
            claim.judge(slot)
        with pytest.raises(Fatal, match="is being read"):
            slots.drop(plain, "taken")

    assert caught.value.status is ExitStatus.OWNERSHIP
    assert f"pg_terminate_backend({slot.active_pid})" in caught.value.hint


def test_the_server_is_identified_both_ways(each_database: Database) -> None:
    with attach(each_database.url, replication=True) as replication, attach(each_database.url) as plain:
        got = identify(replication)

        assert got.name == identify_plainly(plain)
        assert got.database == each_database.name
        assert fork_points(replication, 1) == {}
        check_history(replication, got, got.system, got.timeline, got.flush_lsn + 1000)
        with pytest.raises(Fatal, match="another server"):
            check_history(replication, got, "1", got.timeline, 0)
        with pytest.raises(Fatal, match="does not descend"):
            check_history(replication, got, got.system, 9, 0)


def test_a_timelines_history_is_read() -> None:
    text = b"1\t0/3000158\tno recovery target specified\n\n2\t16/B374D848\tbefore 2026\n# x\n"

    assert parse_history(text) == {1: 0x3000158, 2: 0x16B374D848}


def test_what_is_retained_ends_at_the_limit_that_is_reached_first() -> None:
    now = [0.0]
    both = Retained(Retain.model_validate({"time": "100s", "bytes": 1000}), clock=lambda: now[0])

    assert both.target(500) == 0
    now[0] = 50.0
    assert both.target(5000) == 4000
    now[0] = 99.0
    assert both.target(5100) == 4100
    now[0] = 150.0
    assert both.target(5200) == 5000


def test_the_second_slot_is_made_and_stays_behind(each_database: Database) -> None:
    config = PostgresSource.model_validate({**from_url(each_database.url), "slot": f"r_{each_database.name}"})
    now = [0.0]
    retainer = Retainer(config, "p", Retain.model_validate({"bytes": 1}), clock=lambda: now[0])
    name = f"r_{each_database.name}_retain"

    retainer.turn(0)
    with attach(each_database.url) as plain:
        first = slots.find(plain, name)
        each_database.execute("CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 1000)")
        row = plain.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        now[0] = 31.0
        retainer.turn(int(row[0]))
        then = slots.find(plain, name)

    assert first is not None
    assert then is not None
    assert first.confirmed_lsn is not None
    assert then.confirmed_lsn is not None
    assert first.confirmed_lsn < then.confirmed_lsn < int(row[0])
