"""The daemon is killed at random moments under pgbench's traffic: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import random
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fix_pgbench import Pipeline, differences, fill, rows_of_postgres, rows_of_sqlite, traffic
from fix_postgres import drop_database, make_database

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import kill_at_random
from cdcsync.testing.trace import check_steps, deliveries_around, read_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    scale: int
    seconds: float
    kills: int
    apart_s: float


SHORT = Length(scale=1, seconds=10, kills=5, apart_s=1.0)
FULL = Length(scale=10, seconds=60, kills=20, apart_s=3.0)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else SHORT


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go, and how they are read back without cdcsync."""

    sink: dict[str, Any]
    rows: Callable[[str], Iterator[tuple[Any, ...]]]
    execute: Callable[[str], object]


@pytest.fixture
def target_database(postgres16: PostgresServer) -> Iterator[Database]:
    """A database on another server, of another version, than the source's."""
    made = make_database(postgres16)
    yield made
    drop_database(made)


@pytest.fixture(params=["postgres", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "sqlite":
        path = tmp_path / "target.db"
        return Target({"sqlite": {"path": str(path)}}, rows_of_sqlite(path), lambda sql: _on_sqlite(path, sql))
    there: Database = request.getfixturevalue("target_database")
    server = there.server
    end = {"host": server.host, "port": server.port, "user": server.user, "database": there.name}
    sink = {"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}}
    return Target(sink, rows_of_postgres(there.url), there.execute)


def _on_sqlite(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


@pytest.fixture
def pipeline(database: Database, target: Target, tmp_path: Path) -> Pipeline:
    fill(database, LENGTH.scale)
    made = Pipeline(database, tmp_path)
    made.write(target.sink)
    return made


@pytest.mark.timeout(600)
def test_a_daemon_killed_under_traffic_loses_nothing_and_repeats_nothing(pipeline: Pipeline, target: Target) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)

        with traffic(pipeline.source, LENGTH.seconds):
            kills = kill_at_random(
                daemon, pipeline.trace, kills=LENGTH.kills, apart_s=LENGTH.apart_s, dice=random.Random(seed)
            )
        pipeline.await_drained(daemon)
        status = daemon.stop()

    steps = read_steps(pipeline.trace)
    check_steps(steps, PostgresPosition.decode)
    around = deliveries_around(steps, kills)
    assert len(around) == LENGTH.kills
    assert all(before and after for before, after in around), f"a kill fell outside the deliveries: {around}"
    assert status == 0
    assert differences(rows_of_postgres(pipeline.source.url), target.rows) == []
    _plant_faults(pipeline, target)


def _plant_faults(pipeline: Pipeline, target: Target) -> None:
    """Show that the comparison, and `verify`, see one changed cell; and it a row of the history that came twice."""
    rows = rows_of_postgres(pipeline.source.url)
    before = pipeline.command("verify", str(pipeline.file), "--patience=1")
    assert before.returncode == 0, before.stdout + before.stderr

    target.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 4711")
    (cell,) = differences(rows, target.rows)
    assert cell.startswith("pgbench_accounts row 4710:")
    after = pipeline.command("verify", str(pipeline.file), "--patience=1")
    assert after.returncode == 1, after.stdout + after.stderr
    assert "4711" in after.stdout

    target.execute(
        "INSERT INTO pgbench_history SELECT * FROM pgbench_history"
        " WHERE mtime = (SELECT min(mtime) FROM pgbench_history)"
    )
    assert [found.split()[0] for found in differences(rows, target.rows)] == ["pgbench_accounts", "pgbench_history"]


def test_a_copy_that_is_killed_begins_again_and_ends_equal(pipeline: Pipeline, target: Target) -> None:
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_saved(daemon, lambda position: (position.copying or 0) > 0, within_s=60)
        daemon.kill()

        daemon.start()
        pipeline.await_copied(daemon)
        pipeline.await_drained(daemon)
        daemon.stop()

    check_steps(read_steps(pipeline.trace), PostgresPosition.decode)
    assert differences(rows_of_postgres(pipeline.source.url), target.rows) == []
    ((slots,),) = pipeline.source.query("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
    assert slots == 1
