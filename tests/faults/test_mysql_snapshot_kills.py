"""The daemon is killed in the middle of its first copy from MySQL and MariaDB, under traffic that moves keys."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_postgres import drop_database, make_database
from fix_sysbench import TABLES, Pipeline, Target, differences, fill, rows_of_mysql, traffic

from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    size: int
    kills: int
    patience_s: float


FULL = Length(size=200_000, kills=30, patience_s=600)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else Length(20_000, 4, 60)
PAIRS = [("mysql8", "postgres"), ("mariadb10", "sqlite"), ("mariadb11", "postgres")]
ROWS_PER_S = 4000
"""Slow enough that no life of the daemon copies all."""
MOVED = 10_000_000


@pytest.fixture
def source(pair: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    made = make_mysql_database(request.getfixturevalue(pair[0]))
    yield made
    drop_mysql_database(made)


@pytest.fixture
def target(pair: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if pair[1] == "sqlite":
        yield Target.of_sqlite(tmp_path / "target.db")
    else:
        there = make_database(request.getfixturevalue("postgres15"))
        yield Target.of_postgres(there)
        drop_database(there)


@contextlib.contextmanager
def moving(source: MysqlDatabase, size: int) -> Iterator[None]:
    """Move rows to other keys, back and forth over what is copied, while the block runs."""
    done, dice = threading.Event(), random.Random(1)

    def run() -> None:
        while not done.wait(0.02):
            key, table = dice.randrange(1, size), dice.choice(TABLES)
            source.execute(f"UPDATE IGNORE {table} SET id = id + {MOVED} WHERE id = {key}")
            source.execute(f"UPDATE IGNORE {table} SET id = id - {MOVED} WHERE id > {MOVED} ORDER BY id LIMIT 1")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_copy_from_a_binlogs_server_that_is_killed_goes_on_and_ends_equal(
    source: MysqlDatabase, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(source, LENGTH.size)
    dice = random.Random(seed := random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}")
    pipeline = Pipeline(source, tmp_path)
    pipeline.write(target.sink, source={"start": "initial", "rows_per_s_max": ROWS_PER_S})
    places: list[MysqlPosition] = []

    with pipeline.victim() as daemon:
        with traffic(source, 0.0, size=LENGTH.size), moving(source, LENGTH.size):
            for _ in range(LENGTH.kills):
                daemon.start()
                before = places[-1].reads if places else 0
                pipeline.await_saved(daemon, lambda place: place.reads > before + 1, LENGTH.patience_s)  # noqa: B023
                daemon.rest(dice.uniform(0, 0.5))
                daemon.kill()
                places.append(MysqlPosition.decode(pipeline.steps()[-1].position))
            pipeline.write(target.sink, source={"start": "initial"})
            daemon.start()
            pipeline.await_saved(daemon, lambda place: place.is_copied, LENGTH.patience_s)
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    assert not any(place.is_copied for place in places), "a kill fell outside the copy"
    check_steps(pipeline.steps(), MysqlPosition.decode)
    assert differences(rows_of_mysql(source), target.rows) == []
    with capsys.disabled():
        ends = f"{source.server.build.name} into {next(iter(target.sink))}"
        print(f"\n{LENGTH.kills} SIGKILLs in the first copy of {4 * LENGTH.size} rows from {ends}, seed {seed}: equal")
