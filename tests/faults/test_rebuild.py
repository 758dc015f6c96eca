"""A table is built anew under traffic, its daemon killed: readers see the one or the other, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fix_pgbench import MOVING_SCRIPT, Pipeline, Target, differences, fill, rows_of_postgres, traffic

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.faults import Victim

KILLS, ROWS_PER_S = (30, 1_000) if os.environ.get("CDCSYNC_FULL") else (2, 5_000)
"""Slow enough that no life of the daemon reads all."""
RATE = 200
"""Transactions per second: what a pipeline keeps up with on a busy machine too."""
PATIENCE_S = 300.0
ACCOUNTS = "pgbench_accounts"
MARK = -1
"""An account that only the table that was there has."""


class Reader:
    """Looks at the accounts all the time: how many there are, and whether it is the table that was there."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._over = threading.Event()
        self.seen: list[tuple[int, int]] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look until the block ends."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        query = f"SELECT count(*), count(CASE WHEN aid = {MARK} THEN 1 END) FROM {ACCOUNTS}"
        while not self._over.is_set():
            ((count, marked),) = self._target.query(query)
            self.seen.append((count, marked))


def rebuild_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return what the status says of the table that is built anew; empty while nobody answers."""
    got = pipeline.command("status", str(pipeline.file), "--json")
    found: dict[str, Any] = json.loads(got.stdout).get("snapshot", {}).get("rebuild", {}) if not got.returncode else {}
    return found


def await_stage(pipeline: Pipeline, victim: Victim, *stages: str) -> None:
    """Return once the status tells one of these."""
    end = time.monotonic() + PATIENCE_S
    while rebuild_of(pipeline).get("stage") not in stages:
        assert time.monotonic() < end, victim.log.read_text()[-3000:]
        victim.rest(0.1)


def stage_of(pipeline: Pipeline) -> str:
    """Return the stage in the position that was saved last."""
    place = PostgresPosition.decode(pipeline.steps()[-1].position)
    return next((each.stage for each in place.pending if each.into), "")


@pytest.mark.timeout(1200)
def test_readers_see_the_one_table_or_the_other_and_a_kill_loses_nothing(
    database: Database, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(database, 1)
    dice = random.Random(seed := random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}")
    pipeline, reader = Pipeline(database, tmp_path), Reader(target)
    pipeline.write(target.sink)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)
        assert daemon.stop() == 0
    target.execute(f"INSERT INTO {ACCOUNTS} (aid, bid, abalance) VALUES ({MARK}, 0, 0)")
    pipeline.write(target.sink, source={"rows_per_s_max": ROWS_PER_S})
    stages = []

    with (
        pipeline.victim() as daemon,
        traffic(database, 0.0, scale=1, script=MOVING_SCRIPT, rate=RATE),
        reader.looking(),
    ):
        daemon.start()
        pipeline.await_saved(daemon, lambda _place: True, PATIENCE_S)
        began = pipeline.command("rebuild", str(pipeline.file), ACCOUNTS, "--no-wait")
        assert began.returncode == 0, began.stderr
        for number in range(KILLS):
            await_stage(pipeline, daemon, "fill", "kept")
            daemon.rest(dice.uniform(0, 0.7))
            daemon.kill()
            stages.append(stage_of(pipeline))
            if number == KILLS - 1:
                pipeline.write(target.sink)
            daemon.start()
        await_stage(pipeline, daemon, "kept")
        pipeline.await_drained(daemon)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon)
        assert differences(rows_of_postgres(database.url), target.rows) == []
        back = pipeline.command("rebuild", str(pipeline.file), "--rollback")
        assert back.returncode == 0, back.stderr
        assert daemon.stop() == 0

    check_steps(pipeline.steps(), PostgresPosition.decode)
    target.execute(f"DELETE FROM {ACCOUNTS} WHERE aid = {MARK}")
    assert differences(rows_of_postgres(database.url), target.rows) == []
    assert min(count for count, _ in reader.seen) > 50_000, "half a table"
    assert sorted(reader.seen, key=lambda seen: -seen[1]) == reader.seen, "the former table came back by itself"
    assert reader.seen[0][1], "the reader never saw the former table"
    assert not reader.seen[-1][1], "the reader never saw the new table"
    assert "fill" in stages, stages
    with capsys.disabled():
        print(
            f"\n{KILLS} SIGKILLs while {ACCOUNTS} was built anew in {next(iter(target.sink))} (saved: {' '.join(stages)}), "
            f"seed {seed}: {len(reader.seen)} looks saw one table or the other; equal, and after the rollback too"
        )
