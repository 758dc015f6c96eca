"""The primary is killed under traffic and its standby promoted: the daemon goes on there, and both ends are equal."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import Pipeline, Target, differences, fill, rows_of_postgres, traffic
from fix_postgres import Database

from cdcsync.errors import ExitStatus
from cdcsync.postgres.position import PostgresPosition, parse_lsn
from cdcsync.testing.faults import Proxy, await_delivery
from cdcsync.testing.processes import unprivileged
from cdcsync.testing.servers import PostgresServer
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLOT = "cdcsync_bench"
SYNCED_FROM = 17
"""The version from which a slot follows to the standby by itself."""
MADE_FROM = 16
"""The version from which a logical slot can be made on a standby."""


@dataclass
class Pair:
    """A primary and its standby."""

    primary: PostgresServer
    standby: PostgresServer
    link: Proxy
    """From the standby to the primary."""
    way: Proxy
    """From the daemon to the primary."""


def make_pair(version: int, *, guarded: bool) -> Iterator[Pair]:
    """`guarded`: a logical reader never gets ahead of the standby (17 and later)."""
    guard = {"synchronized_standby_slots": "physical"} if guarded else {}
    primary = PostgresServer(version, settings={"wal_keep_size": "256MB", **guard}).start()
    with Proxy(primary.host, primary.port) as link, Proxy(primary.host, primary.port) as way:
        words = f"host={link.host} port={link.port} user={primary.user} password={primary.password}"
        settings = {
            "primary_conninfo": f"{words} dbname=postgres sslmode=disable",
            "primary_slot_name": "physical",
            "hot_standby_feedback": "on",
            "wal_retrieve_retry_interval": "100ms",
            **dict.fromkeys(guard, ""),
        }
        standby = PostgresServer.standby_of(primary, slot="physical", settings=settings)
        try:
            yield Pair(primary, standby.start(), link, way)
        finally:
            standby.stop()
            primary.stop()


@pytest.fixture
def pair(version: int) -> Iterator[Pair]:
    yield from make_pair(version, guarded=version >= SYNCED_FROM)


@pytest.fixture
def loose_pair(version: int) -> Iterator[Pair]:
    yield from make_pair(version, guarded=False)


def pipeline_of(pair: Pair, folder: Path) -> tuple[Pipeline, Target]:
    """A pipeline that knows both servers, into SQLite."""
    source = Database(pair.primary, "postgres")
    fill(source, 0)
    target = Target.of_sqlite(folder / "target.db")
    made = Pipeline(source, folder)
    hosts = [f"127.0.0.1:{port}" for port in (pair.way.port, pair.standby.port)]
    made.write(target.sink, source={"hosts": hosts, "tls": {"mode": "disable"}})
    return made, target


SYNCED_WITHIN_S = 60
"""The server's worker naps twice as long after each attempt, up to 30 s."""


def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def keep_slot(pair: Pair) -> None:
    """Bring the slot to the standby as the version allows; it stands at or before the pipeline's position."""
    if pair.primary.version >= SYNCED_FROM:
        _synchronise(pair)
    elif pair.primary.version >= MADE_FROM:
        _make_on_standby(pair)
    else:
        _copy_state(pair)
    assert pair.standby.query("SELECT slot_name FROM pg_replication_slots") == [(SLOT,)]


def _synchronise(pair: Pair) -> None:
    """Let the server's worker do it: it begins with short naps and keeps what the primary's slot has yet to pass."""
    pair.standby.execute("ALTER SYSTEM SET sync_replication_slots = on")
    pair.standby.execute("SELECT pg_reload_conf()")

    def is_synced() -> bool:
        pair.primary.execute("SELECT pg_log_standby_snapshot()")
        return pair.standby.query("SELECT 1 FROM pg_replication_slots WHERE synced AND NOT temporary") == [(1,)]

    until(is_synced, within_s=SYNCED_WITHIN_S)


def _make_on_standby(pair: Pair) -> None:
    """The standby waits for a note of the running transactions, which the primary is asked to write."""
    with pair.standby.connect() as connection:
        libpq = connection.pgconn
        libpq.send_query(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')".encode())

        def is_made() -> bool:
            pair.primary.execute("SELECT pg_log_standby_snapshot()")
            libpq.consume_input()
            return not libpq.is_busy()

        until(is_made)
        while libpq.get_result() is not None:
            pass


def _copy_state(pair: Pair) -> None:
    """Before 16 a standby makes no logical slot, but keeps one whose state it finds when it starts."""
    pair.primary.execute("CHECKPOINT")
    pair.standby.kill()
    there = pair.standby.data / "pg_replslot" / SLOT
    shutil.copytree(pair.primary.data / "pg_replslot" / SLOT, there)
    owner = unprivileged()
    if owner is not None:
        for path in (there, *there.iterdir()):
            os.chown(path, *owner)
    pair.standby.start()


def fail_over(pair: Pair) -> None:
    """Kill the primary and promote the standby, which has all that the daemon can have got."""
    if pair.primary.version < SYNCED_FROM:
        pair.way.stall()
        ((written,),) = pair.primary.query("SELECT pg_current_wal_insert_lsn()::text")
        until(lambda: _received(pair.standby) >= parse_lsn(written))
    pair.primary.kill()
    pair.way.refuse()
    pair.link.refuse()
    pair.standby.promote()


def _received(standby: PostgresServer) -> int:
    ((lsn,),) = standby.query("SELECT pg_last_wal_receive_lsn()::text")
    return parse_lsn(lsn)


@pytest.mark.parametrize("version", [15, 16, 18])
def test_a_failover_under_traffic_leaves_both_ends_equal(pair: Pair, tmp_path: Path) -> None:
    pipeline, target = pipeline_of(pair, tmp_path)
    promoted = Database(pair.standby, "postgres")

    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)
        early = pair.primary.version >= SYNCED_FROM
        if early:  # a transaction that is open keeps the server from making the slot at the standby
            keep_slot(pair)
        with traffic(pipeline.source, 0, scale=0, outlives=False):
            if not early:
                keep_slot(pair)
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
            fail_over(pair)
        with traffic(promoted, 1, scale=0):
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
        pipeline.await_drained(daemon, at=promoted)
        assert daemon.stop() == 0

    steps = pipeline.steps()
    check_steps(steps, PostgresPosition.decode)
    positions = [PostgresPosition.decode(step.position) for step in steps if step.event == "save"]
    assert {(each.epoch, each.timeline) for each in positions} == {(1, 1), (2, 2)}
    assert differences(rows_of_postgres(promoted.url), target.rows) == []


@pytest.mark.parametrize("version", [15, 16, 18])
def test_a_position_past_the_fork_of_a_standby_that_lagged_is_refused(loose_pair: Pair, tmp_path: Path) -> None:
    pair = loose_pair
    pipeline, target = pipeline_of(pair, tmp_path)

    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)
        keep_slot(pair)
        with traffic(pipeline.source, 0, scale=0, outlives=False):
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
            pair.link.stall()
            await_delivery(daemon, pipeline.trace, time.monotonic_ns())
            daemon.rest(0.5)
            pair.primary.kill()
        pair.way.refuse()
        pair.link.refuse()
        pair.standby.promote()

        assert daemon.await_end() == ExitStatus.DATA
        said = daemon.log.read_text()

    assert "where timeline 1 was left in a failover" in said
    assert "`cdcsync positions clear` and copy everything again" in said
    saved = [step.position for step in pipeline.steps() if step.event == "save"]
    assert target.query("SELECT position FROM cdcsync_positions") == [(saved[-1],)]
