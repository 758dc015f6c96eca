"""The daemon is killed at random moments under sysbench's traffic: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fix_daemon import counts
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_postgres import drop_database, make_database
from fix_sysbench import TABLES, Pipeline, Target, differences, fill, rows_of_mysql, start_of, traffic

from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.faults import kill_at_random
from cdcsync.testing.trace import check_steps, deliveries_around

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fix_mysql import MysqlDatabase


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    size: int
    seconds: float
    kills: int
    apart_s: float
    patience_s: float
    """How long one wait for the daemon may take, on a machine that does other things too."""


SHORT = Length(size=1_000, seconds=10, kills=5, apart_s=1.0, patience_s=60)
FULL = Length(size=10_000, seconds=60, kills=24, apart_s=2.0, patience_s=600)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else SHORT

SOURCES = ["mysql8", "mariadb10", "mariadb11"]
TARGETS = ["postgres", "mysql", "sqlite"]
EVERY_PAIR = [(source, target) for source in SOURCES for target in TARGETS]
A_PAIR_EACH = list(zip(SOURCES, TARGETS, strict=True))
PAIRS = EVERY_PAIR if LENGTH is FULL else A_PAIR_EACH


@pytest.fixture
def source(pair: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    made = make_mysql_database(request.getfixturevalue(pair[0]))
    yield made
    drop_mysql_database(made)


@pytest.fixture
def target(pair: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """On another server than the source's, and of the other flavour where it is a MySQL."""
    if pair[1] == "sqlite":
        yield Target.of_sqlite(tmp_path / "target.db")
    elif pair[1] == "postgres":
        there = make_database(request.getfixturevalue("postgres15"))
        yield Target.of_postgres(there)
        drop_database(there)
    else:
        other = make_mysql_database(request.getfixturevalue("mariadb10" if pair[0] == "mysql8" else "mysql8"))
        yield Target.of_mysql(other)
        drop_mysql_database(other)


@pytest.fixture
def pipeline(source: MysqlDatabase, target: Target, tmp_path: Path) -> Pipeline:
    """Starts in the log before the tables are there."""
    start = start_of(source.server)
    fill(source, LENGTH.size)
    made = Pipeline(source, tmp_path)
    made.write(target.sink, source=start)
    return made


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_daemon_killed_under_traffic_loses_nothing_and_repeats_nothing(
    pipeline: Pipeline, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon, LENGTH.patience_s)

        with traffic(pipeline.source, LENGTH.seconds, size=LENGTH.size):
            kills = kill_at_random(
                daemon, pipeline.trace, kills=LENGTH.kills, apart_s=LENGTH.apart_s, dice=random.Random(seed)
            )
        pipeline.await_drained(daemon, LENGTH.patience_s)
        status = daemon.stop()

    steps = pipeline.steps()
    check_steps(steps, MysqlPosition.decode)
    around = deliveries_around(steps, kills)
    assert len(around) == LENGTH.kills
    assert all(before and after for before, after in around), f"a kill fell outside the deliveries: {around}"
    assert len({step.process for step in steps}) == LENGTH.kills + 1
    assert status == 0
    assert differences(rows_of_mysql(pipeline.source), target.rows) == []
    with capsys.disabled():
        print(f"\n{_summary(pipeline, target, around, seed)}")
    _plant_faults(pipeline, target)


def _summary(pipeline: Pipeline, target: Target, around: Sequence[tuple[int, int]], seed: int) -> str:
    """Return what was shown, to be quoted."""
    want, got = counts(rows_of_mysql(pipeline.source), TABLES), counts(target.rows, TABLES)
    between = [around[0][0], *(after for _, after in around)]
    delivered = sum(step.changes for step in pipeline.steps() if step.event == "durable")
    load = f"sysbench oltp_read_write, {len(TABLES)} tables of {LENGTH.size} rows, for at least {LENGTH.seconds:.0f} s"
    ends = f"{pipeline.source.server.build.name} into {next(iter(target.sink))}"
    lines = [
        f"kills from {ends}: {len(around)} SIGKILLs under {load}, seed {seed}",
        f"  deliveries recorded before, between and after the kills: {' '.join(map(str, between))}; {delivered} changes",
        f"  {'table':<18}{'source':>10}{'target':>10}  every column of every row",
        *(f"  {table:<18}{want[table]:>10}{got[table]:>10}  equal" for table in TABLES),
        f"  trace: {len(pipeline.steps())} steps, acknowledged <= saved <= durable at each",
    ]
    return "\n".join(lines)


def _plant_faults(pipeline: Pipeline, target: Target) -> None:
    """Show that the comparison, and `verify`, see one changed cell, and it a row that is missing."""
    rows = rows_of_mysql(pipeline.source)
    before = pipeline.command("verify", str(pipeline.file), "--patience=1")
    assert before.returncode == 0, before.stdout + before.stderr

    target.execute("UPDATE sbtest2 SET k = k + 1 WHERE id = 471")
    (cell,) = differences(rows, target.rows)
    assert cell.startswith("sbtest2 row 470:")
    after = pipeline.command("verify", str(pipeline.file), "--patience=1")
    assert after.returncode == 1, after.stdout + after.stderr
    assert "471" in after.stdout

    target.execute("DELETE FROM sbtest3 WHERE id = 1")
    assert [found.split()[0] for found in differences(rows, target.rows)] == ["sbtest2", "sbtest3"]
