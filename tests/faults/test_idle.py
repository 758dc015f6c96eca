"""The log moves on with nothing for us: the slot follows, and never past a row that is not delivered."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import Pipeline, Target

from cdcsync.postgres.position import PostgresPosition

if TYPE_CHECKING:
    from pathlib import Path

    from fix_postgres import Database


SECONDS = 10


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("filtered", [False, True], ids=["idle", "filtered"])
def test_the_slot_moves_while_only_others_write(
    small: Pipeline,
    target_database: Database,
    filtered: bool,
    again: bool,
) -> None:
    """Idle: tables outside the publication. Filtered: inside it, but of no interest to the mapping."""
    source = small.source
    source.execute("CREATE TABLE other (id int PRIMARY KEY, note text)")
    if filtered:
        source.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL; CREATE PUBLICATION every FOR ALL TABLES")
    section = {"publication": {"name": "every"}} if filtered else {}
    small.write(Target.of_postgres(target_database).sink, source=section)
    seen: list[int] = []

    with small.victim() as daemon:
        daemon.start()
        small.await_copied(daemon)
        small.await_drained(daemon)
        for round_ in range(2):
            if again and round_:
                assert daemon.stop() == 0
                daemon.start()
            source.execute(
                f"INSERT INTO other SELECT n, repeat('x', 100) FROM generate_series({round_}0000, {round_}9999) n"
            )
            ((end,),) = source.query("SELECT pg_current_wal_insert_lsn() - '0/0'")
            seen.append(int(end))
            daemon.work_until(lambda: _confirmed(source) >= seen[-1])
        assert daemon.stop() == 0

    assert seen[1] - seen[0] > 1_000_000
    assert _confirmed(source) >= seen[1]


def _confirmed(source: Database) -> int:
    ((lsn,),) = source.query(
        "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE database = current_database()"
    )
    return int(lsn)


def test_a_saved_position_never_passes_a_row_that_is_not_there(small: Pipeline) -> None:
    """Rows come seldom, among much that concerns nobody: each look at the target sees position and rows of one moment."""
    path = small.folder / "target.db"
    small.write(Target.of_sqlite(path).sink)
    small.source.execute("CREATE TABLE other (note text)")
    ends: dict[int, int] = {}
    looks = idle = 0
    following = 0.0

    with small.victim() as daemon, small.source.server.connect(small.source.name) as writer:
        daemon.start()
        small.await_copied(daemon)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            number = len(ends)
            writer.execute("INSERT INTO other SELECT repeat('x', 200) FROM generate_series(1, 50)")
            if time.monotonic() > following:
                following = time.monotonic() + random.uniform(0.5, 3.5)
                writer.execute(f"INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (0, 0, {number}, 0)")
                row = writer.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
                assert row is not None
                ends[number] = int(row[0])
            reached, there = _look(path)
            missing = {each for each, end in ends.items() if end <= reached} - there
            assert not missing, f"saved {reached:#x}, without the rows that end at {[ends[each] for each in missing]}"
            looks += 1
            idle += reached > max((end for each, end in ends.items() if each in there), default=reached)
            daemon.rest(0.02)
        assert daemon.stop() == 0

    assert looks > SECONDS * 5
    assert _look(path)[1] == set(ends)
    assert idle


def _look(path: Path) -> tuple[int, set[int]]:
    """Return the position and the rows' numbers as one transaction sees them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        ((position,),) = connection.execute("SELECT position FROM cdcsync_positions")
        rows = connection.execute("SELECT aid FROM pgbench_history")
        return PostgresPosition.decode(position).lsn, {number for (number,) in rows}
