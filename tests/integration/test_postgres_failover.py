"""A standby that is promoted: read on where its history holds our position, else refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdcsync.errors import Fatal
from cdcsync.ports import SourceContext, Wanted
from cdcsync.postgres.config import PostgresSource
from cdcsync.postgres.position import PostgresPosition, format_lsn
from cdcsync.postgres.source import PostgresWal
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

SLOT = "cdcsync_p"


class All:
    def wants(self, schema: str, _name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "public" else None


def source_of(*servers: PostgresServer) -> PostgresWal:
    config = PostgresSource.model_validate(
        {
            "hosts": [f"127.0.0.1:{server.port}" for server in servers],
            "user": "postgres",
            "password": servers[0].password,
            "database": "postgres",
            "start": "now",
        }
    )
    return PostgresWal(config, SourceContext("p", All(), Path()))


def read(source: PostgresWal, ids: set[int], position: PostgresPosition | None) -> PostgresPosition:
    """Read until these ids have come; return the position after them."""
    until = time.monotonic() + 20
    left = set(ids)
    while (left or position is None) and time.monotonic() < until:
        batch = source.poll(0.2)
        if batch is None:
            continue
        assert isinstance(batch.position, PostgresPosition)
        position = batch.position
        for transaction in batch.transactions:
            left -= {item.after[0] for item in transaction.items if getattr(item, "after", None)}  # type: ignore[union-attr, index]
    assert not left
    assert position is not None
    source.acknowledge(position)
    return position


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_synced(primary: PostgresServer, standby: PostgresServer, source: PostgresWal) -> bool:
    """Let the slot move on, and synchronise it now instead of by the worker, which naps up to 30 s."""
    primary.execute("SELECT pg_log_standby_snapshot()")
    batch = source.poll(0.5)
    if batch is not None:
        source.acknowledge(batch.position)
    standby.execute("SELECT pg_sync_replication_slots()")
    return standby.query("SELECT 1 FROM pg_replication_slots WHERE synced AND NOT temporary") == [(1,)]


@pytest.mark.parametrize("version", [15, 16, 18])
def test_a_slot_on_a_promoted_server_is_read_on_without_loss_and_a_position_past_the_fork_refused(version: int) -> None:
    synced = version >= 17
    primary = PostgresServer(version, settings={"wal_keep_size": "64MB"}).start()
    primary.execute("CREATE TABLE t (id int PRIMARY KEY)")
    settings = {"hot_standby_feedback": "on"}
    standby = PostgresServer.standby_of(primary, settings=settings, slot="physical")
    try:
        standby.start()
        source = source_of(primary, standby)
        source.open(None, 0)
        place = read(source, set(), None)
        if synced:
            until(lambda: is_synced(primary, standby, source))
        primary.execute("INSERT INTO t VALUES (1)")
        place = read(source, {1}, place)
        until(lambda: standby.query("SELECT count(*) FROM t") == [(1,)])
        source.close()
        primary.kill()
        standby.promote()
        if not synced:
            standby.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
        standby.execute("INSERT INTO t VALUES (2)")

        if synced:
            source.open(place.encode(), place.epoch)
            after = read(source, {2}, place)
            assert (after.epoch, after.timeline) == (place.epoch + 1, place.timeline + 1)
            source.close()
        else:
            with pytest.raises(Fatal, match="past the pipeline's position"):
                source.open(place.encode(), place.epoch)
        far = PostgresPosition(place.epoch, place.system, place.timeline, place.lsn + (1 << 40), SLOT)
        with pytest.raises(Fatal, match="where timeline 1 was left") as caught:
            source.open(far.encode(), far.epoch)
        assert format_lsn(far.lsn) in str(caught.value)
        source.close()
    finally:
        standby.stop()
        primary.stop()
