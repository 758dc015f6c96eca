"""The daemon is killed at random moments under pgbench's traffic: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import TABLES, Pipeline, Target, counts, differences, fill, rows_of_postgres, traffic

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import kill_at_random
from cdcsync.testing.trace import check_steps, deliveries_around

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fix_postgres import Database


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    scale: int
    seconds: float
    kills: int
    apart_s: float
    patience_s: float
    """How long one wait for the daemon may take, on a machine that does other things too."""


SHORT = Length(scale=1, seconds=10, kills=5, apart_s=1.0, patience_s=60)
FULL = Length(scale=10, seconds=60, kills=24, apart_s=3.0, patience_s=600)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else SHORT


@pytest.fixture
def pipeline(database: Database, target: Target, tmp_path: Path) -> Pipeline:
    fill(database, LENGTH.scale)
    made = Pipeline(database, tmp_path)
    made.write(target.sink)
    return made


@pytest.mark.timeout(1800)
def test_a_daemon_killed_under_traffic_loses_nothing_and_repeats_nothing(
    pipeline: Pipeline, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon, LENGTH.patience_s)

        with traffic(pipeline.source, LENGTH.seconds):
            kills = kill_at_random(
                daemon, pipeline.trace, kills=LENGTH.kills, apart_s=LENGTH.apart_s, dice=random.Random(seed)
            )
        pipeline.await_drained(daemon, LENGTH.patience_s)
        status = daemon.stop()

    steps = pipeline.steps()
    check_steps(steps, PostgresPosition.decode)
    around = deliveries_around(steps, kills)
    assert len(around) == LENGTH.kills
    assert all(before and after for before, after in around), f"a kill fell outside the deliveries: {around}"
    assert len({step.process for step in steps}) == LENGTH.kills + 1
    assert status == 0
    assert differences(rows_of_postgres(pipeline.source.url), target.rows) == []
    with capsys.disabled():
        print(f"\n{_summary(pipeline, target, around, seed)}")
    _plant_faults(pipeline, target)


def _summary(pipeline: Pipeline, target: Target, around: Sequence[tuple[int, int]], seed: int) -> str:
    """Return what was shown, to be quoted."""
    want, got = counts(rows_of_postgres(pipeline.source.url)), counts(target.rows)
    between = [around[0][0], *(after for _, after in around)]
    load = f"pgbench of scale {LENGTH.scale} for at least {LENGTH.seconds:.0f} s"
    lines = [
        f"kills into {next(iter(target.sink))}: {len(around)} SIGKILLs under {load}, seed {seed}",
        f"  deliveries recorded before, between and after the kills: {' '.join(map(str, between))}",
        f"  {'table':<18}{'source':>10}{'target':>10}  every column of every row",
        *(f"  {table:<18}{want[table]:>10}{got[table]:>10}  equal" for table in TABLES),
        f"  trace: {len(pipeline.steps())} steps, acknowledged <= saved <= durable at each",
    ]
    return "\n".join(lines)


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
