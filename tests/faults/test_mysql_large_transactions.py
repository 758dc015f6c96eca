"""The daemon is killed inside one transaction of a binlog that is too large for a batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson
import pytest
from fix_sysbench import Pipeline, Target, past_end_of, start_of

from cdcsync.mysql.position import MysqlPosition
from cdcsync.testing.faults import Proxy, Victim
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase

ROWS = 200_000
STATEMENT = 1_000
NOTE = 120
SENT_BYTES = ROWS * (NOTE + 8)
"""About what the log takes on its way."""
AHEAD_BYTES = 12 << 20
"""What may lie between the socket and the sink: the hand-over's bound and the buffers."""


@pytest.fixture
def at_source(each_mysql_database: MysqlDatabase) -> Iterator[Proxy]:
    server = each_mysql_database.server
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def big(each_mysql_database: MysqlDatabase, tmp_path: Path) -> Pipeline:
    """One table with a key, empty."""
    each_mysql_database.execute("CREATE TABLE big (id int PRIMARY KEY, note varchar(200))")
    return Pipeline(each_mysql_database, tmp_path)


def configure(big: Pipeline, sink: dict[str, object], at_source: Proxy) -> None:
    plain = {"port": at_source.port, "tls": {"mode": "disable"}}
    big.write(sink, source={**start_of(big.source.server), **plain}, tables=("big",))


def insert(source: MysqlDatabase) -> None:
    """Write everything in one transaction."""
    with source.server.connect(source.name) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for first in range(1, ROWS, STATEMENT):
            values = ",".join(f"({n},REPEAT('x',{NOTE}))" for n in range(first, first + STATEMENT))
            cursor.execute(f"INSERT INTO big VALUES {values}")
        cursor.execute("COMMIT")


def kill_inside(pipeline: Pipeline, daemon: Victim, proxy: Proxy, look: Callable[[], object]) -> list[int]:
    """Write the transaction, and kill the daemon twice within it; return how far the log had come, in bytes."""
    daemon.start()
    pipeline.await_drained(daemon, marked=False)
    begun, deadline = proxy.passed_bytes, time.monotonic() + 60
    insert(pipeline.source)
    moments: list[int] = []
    for share in (0.5, 0.9):
        if moments:
            begun = proxy.passed_bytes
            daemon.start()
        while proxy.passed_bytes - begun < share * SENT_BYTES:
            assert time.monotonic() < deadline
            look()
            daemon.rest(0.02)
        daemon.kill()
        look()
        moments.append(proxy.passed_bytes - begun)
    return moments


def finish(pipeline: Pipeline, daemon: Victim, look: Callable[[], object]) -> None:
    daemon.start()
    is_past = past_end_of(pipeline.source.server)

    def is_done() -> bool:
        look()
        return any(is_past(MysqlPosition.decode(step.position)) for step in pipeline.steps() if step.event == "save")

    daemon.work_until(is_done, 90)
    assert daemon.stop() == 0


@pytest.mark.timeout(240)
def test_a_large_transaction_is_seen_whole_or_not_at_all(big: Pipeline, at_source: Proxy) -> None:
    target = Target.of_sqlite(big.folder / "target.db")
    configure(big, target.sink, at_source)
    seen: set[int] = set()

    def look() -> None:
        there = target.query("SELECT count(*) FROM sqlite_master WHERE name = 'big'") == [(1,)]
        seen.add(target.query("SELECT count(*) FROM big")[0][0] if there else 0)

    with big.victim() as daemon:
        moments = kill_inside(big, daemon, at_source, look)
        assert seen == {0}
        assert all(AHEAD_BYTES < moment < SENT_BYTES * 1.2 for moment in moments), moments
        finish(big, daemon, look)

    check_steps(big.steps(), MysqlPosition.decode)
    assert seen <= {0, ROWS}
    got = target.query(f"SELECT count(*), min(id), max(id), sum(id) FROM big WHERE length(note) = {NOTE}")
    assert got == [(ROWS, 1, ROWS, ROWS * (ROWS + 1) // 2)]


@pytest.mark.timeout(240)
def test_a_large_transaction_into_a_file_leaves_no_double_and_no_torn_line(big: Pipeline, at_source: Proxy) -> None:
    path = big.folder / "out.jsonl"
    configure(big, {"jsonl": {"path": str(path)}}, at_source)

    with big.victim() as daemon:
        kill_inside(big, daemon, at_source, lambda: None)
        length = path.stat().st_size
        finish(big, daemon, lambda: None)

    check_steps(big.steps(), MysqlPosition.decode)
    assert 0 < length < path.stat().st_size
    starts = [step.position for step in big.steps() if step.event == "start"]
    assert [bool(MysqlPosition.decode(at).within) for at in starts[1:]] == [True, True]
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    got = [line["after"]["id"] for line in lines if line["operation"] == "insert"]
    assert got == list(range(1, ROWS + 1))
