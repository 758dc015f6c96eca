"""The daemon is killed in the middle of its first copy, under traffic that moves keys: it goes on at the chunk."""

from __future__ import annotations

import os
import random
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fix_pgbench import MOVING_SCRIPT, Pipeline, Target, counts, differences, fill, rows_of_postgres, traffic

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from pathlib import Path

    from fix_postgres import Database


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    scale: int
    kills: int
    patience_s: float


LENGTH = Length(scale=10, kills=32, patience_s=600) if os.environ.get("CDCSYNC_FULL") else Length(1, 5, 60)
WORKERS = 2
ROWS_PER_S = 4000
"""Slow enough that no life of the daemon copies all."""
_RANGE = re.compile(r'\[(\d+)\].*COPY \(SELECT "aid".*?(?:> \(CAST\(\'(\d+)\'.*?)?(?:<= \(CAST\(\'(\d+)\'.*)?TO STDOUT')
END = 1 << 62


def read_ranges(log: str) -> list[tuple[int, int, int]]:
    """Return process, first and last key of each chunk of accounts that the server was asked for."""
    found = []
    for line in log.splitlines():
        matched = _RANGE.search(line) if "COPY (SELECT" in line and '"pgbench_accounts"' in line else None
        if matched is not None:
            found.append((int(matched[1]), int(matched[2] or 0), int(matched[3] or END)))
    return found


@pytest.mark.timeout(1800)
def test_a_copy_that_is_killed_goes_on_at_the_chunk_and_ends_equal(
    database: Database, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(database, LENGTH.scale)
    dice = random.Random(seed := random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}")
    pipeline = Pipeline(database, tmp_path)
    pipeline.write(target.sink, source={"rows_per_s_max": ROWS_PER_S, "snapshot_parallel": WORKERS})
    database.execute(f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    logged = len(database.server.log.read_text())
    marks: list[int] = []
    places: list[PostgresPosition] = []

    with pipeline.victim() as daemon, traffic(database, 0.0, scale=LENGTH.scale, script=MOVING_SCRIPT):
        for _ in range(LENGTH.kills):
            daemon.start()
            before = places[-1].reads if places else 0
            pipeline.await_saved(daemon, lambda place: place.reads > before + 1, LENGTH.patience_s)  # noqa: B023
            daemon.rest(dice.uniform(0, 0.5))
            daemon.kill()
            places.append(PostgresPosition.decode(pipeline.steps()[-1].position))
            marks.append(len(database.server.log.read_text()))
        pipeline.write(target.sink, source={"snapshot_parallel": WORKERS})
        daemon.start()
        pipeline.await_copied(daemon, LENGTH.patience_s)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    assert not any(place.is_copied for place in places), "a kill fell outside the copy"
    assert all(place.lsn > 0 for place in places)
    check_steps(pipeline.steps(), PostgresPosition.decode)
    assert differences(rows_of_postgres(database.url), target.rows) == []
    again = chunks_read_again(database.server.log.read_text(), [logged, *marks])
    assert all(count <= WORKERS for count in again), again
    assert len(again) == LENGTH.kills
    with capsys.disabled():
        rows = counts(rows_of_postgres(database.url))["pgbench_accounts"]
        print(
            f"\n{LENGTH.kills} SIGKILLs in the first copy of {rows} accounts into {next(iter(target.sink))}, seed {seed}: "
            f"equal; chunks read again after each: {' '.join(map(str, again))}"
        )


def chunks_read_again(log: str, marks: list[int]) -> list[int]:
    """Return for each kill how many chunks begun before it were begun again, in whole or in part, after it."""
    lives = [read_ranges(log[start:end]) for start, end in zip(marks, [*marks[1:], len(log)], strict=True)]
    assert all(lives), f"a life of the daemon began no chunk: {lives}"
    again = []
    for life, following in pairwise(lives):
        first = min((start for _, start, _ in following), default=END)
        again.append(sum(1 for _, _, end in life if end > first))
    return again
