"""The daemon is killed inside one transaction that is too large for a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import pytest
from fix_pgbench import Pipeline, Target

from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import Proxy, Victim
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_postgres import Database

ROWS = 200_000
NOTE = 100
"""Characters in each row besides its number."""
SENT_BYTES = ROWS * (NOTE + 40)
"""About what the log takes on its way."""
AHEAD_BYTES = 12 << 20
"""What may lie between the socket and the sink: the hand-over's bound and the buffers."""
INSERT = f"INSERT INTO big SELECT n, repeat('x', {NOTE}) FROM generate_series(1, {ROWS}) n"


@pytest.fixture
def at_source(database: Database) -> Iterator[Proxy]:
    with Proxy(database.server.host, database.server.port) as proxy:
        yield proxy


@pytest.fixture
def big(database: Database, tmp_path: Path) -> Pipeline:
    """One table with a key, empty."""
    database.execute("CREATE TABLE big (id int PRIMARY KEY, note text)")
    return Pipeline(database, tmp_path)


@dataclass
class Watch:
    """Looks at the target all the time and remembers how many rows it showed."""

    count: Callable[[], int]
    seen: set[int]

    def look(self) -> None:
        self.seen.add(self.count())


def kill_inside(pipeline: Pipeline, daemon: Victim, proxy: Proxy, watch: Watch) -> list[int]:
    """Write the transaction, and kill the daemon twice within it; return how far the log had come, in bytes."""
    daemon.start()
    pipeline.await_copied(daemon)
    pipeline.source.execute(INSERT)
    moments: list[int] = []
    for share in (0.5, 0.9):
        begun, deadline = proxy.passed_bytes, time.monotonic() + 60
        if moments:
            daemon.start()
        while proxy.passed_bytes - begun < share * SENT_BYTES:
            assert time.monotonic() < deadline
            watch.look()
            daemon.rest(0.02)
        daemon.kill()
        watch.look()
        moments.append(proxy.passed_bytes - begun)
    return moments


def finish(pipeline: Pipeline, daemon: Victim, watch: Watch) -> None:
    ((end,),) = pipeline.source.query("SELECT pg_current_wal_insert_lsn() - '0/0'")
    daemon.start()
    deadline = time.monotonic() + 90
    while not any(
        PostgresPosition.decode(step.position).lsn >= end for step in pipeline.steps() if step.event == "save"
    ):
        assert time.monotonic() < deadline, daemon.log.read_text()[-2000:]
        watch.look()
        daemon.rest(0.1)
    assert daemon.stop() == 0


@pytest.mark.timeout(240)
def test_a_large_transaction_is_seen_whole_or_not_at_all(big: Pipeline, target: Target, at_source: Proxy) -> None:
    big.write(target.sink, source={"port": at_source.port, "tls": {"mode": "disable"}}, tables=["big"])
    watch = Watch(lambda: target.query("SELECT count(*) FROM big")[0][0], set())

    with big.victim() as daemon:
        moments = kill_inside(big, daemon, at_source, watch)
        assert watch.seen == {0}
        assert all(AHEAD_BYTES < moment < SENT_BYTES * 1.2 for moment in moments), moments
        finish(big, daemon, watch)

    check_steps(big.steps(), PostgresPosition.decode)
    assert watch.seen <= {0, ROWS}
    got = target.query(f"SELECT count(*), min(id), max(id), sum(id) FROM big WHERE length(note) = {NOTE}")
    assert got == [(ROWS, 1, ROWS, ROWS * (ROWS + 1) // 2)]


@pytest.mark.timeout(240)
def test_a_large_transaction_into_a_file_leaves_no_double_and_no_torn_line(big: Pipeline, at_source: Proxy) -> None:
    path = big.folder / "out.jsonl"
    big.write(
        {"jsonl": {"path": str(path)}}, source={"port": at_source.port, "tls": {"mode": "disable"}}, tables=["big"]
    )
    lengths: list[int] = []
    watch = Watch(lambda: 0, set())

    with big.victim() as daemon:
        kill_inside(big, daemon, at_source, watch)
        lengths.append(path.stat().st_size)
        finish(big, daemon, watch)

    check_steps(big.steps(), PostgresPosition.decode)
    assert 0 < lengths[0] < path.stat().st_size
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    got = [line["after"]["id"] for line in lines if line["operation"] == "insert"]
    assert got == list(range(1, ROWS + 1))
