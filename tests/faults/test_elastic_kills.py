"""Daemon, server and answers are lost at random moments under traffic: every document equals its row, no ghosts."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import fix_pgbench
import fix_sysbench
import pytest
from fix_mysql import drop_mysql_database, make_mysql_database

from cdcsync.mysql.position import MysqlPosition
from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import Proxy, Victim, await_delivery, kill_at_random
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fix_daemon import Daemon
    from fix_elastic import Cluster
    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

    from cdcsync.testing.elastic_servers import ElasticServer
    from cdcsync.testing.mysql_servers import MysqlServer


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    scale: int
    """0: as many accounts as the script of few accounts changes."""
    size: int
    seconds: float
    kills: int
    servers: int
    """Kills of the cluster."""
    lost: int
    """Answers that never come."""
    patience_s: float
    rate: int = 0
    """Transactions a second; 0: as many as the source takes."""


SHORT = Length(scale=0, size=250, seconds=1, kills=5, servers=1, lost=1, patience_s=120, rate=200)
FULL = Length(scale=2, size=50_000, seconds=60, kills=22, servers=3, lost=10, patience_s=600)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else SHORT
MYSQL = LENGTH if LENGTH is FULL else replace(SHORT, kills=3, servers=0)

NOTES = """
CREATE TABLE notes (id int PRIMARY KEY, n int NOT NULL, body text);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
INSERT INTO notes SELECT id, 0, repeat(md5(id::text), 200) FROM generate_series(1, 200) id;
"""
"""Each body lies outside its row: an update of the number does not log it."""
MOVING = fix_pgbench.MOVING_SCRIPT
if not LENGTH.scale:
    MOVING = MOVING.replace("100000 * :scale", str(fix_pgbench.SMALL))
SCRIPT = MOVING.replace("END;\n", "UPDATE notes SET n = n + 1 WHERE id = 1 + :aid % 200;\nEND;\n")
ROWS = {
    "pgbench_accounts": "SELECT aid, bid, abalance, filler FROM pgbench_accounts",
    "pgbench_tellers": "SELECT tid, bid, tbalance, filler FROM pgbench_tellers",
    "notes": "SELECT id, n, body FROM notes",
}


def wrong(cluster: Cluster, index: str, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Compare every document with its row, every field by value; return what differs."""
    found = cluster.documents(index)
    want = {str(row[0]): row for row in rows}
    differ = [f"{index}: no document for row {key}" for key in want.keys() - found.keys()]
    differ += [f"{index}: a ghost {key}" for key in found.keys() - want.keys()]
    differ += [
        f"{index} {key}: want {want[key]}, got {tuple(found[key].values())}"
        for key in want.keys() & found.keys()
        if tuple(found[key].values()) != tuple(want[key])
    ]
    return differ


def kill_everything(
    daemon: Victim, pipeline: Daemon, server: ElasticServer, proxy: Proxy, *, length: Length, dice: random.Random
) -> None:
    """Kill the daemon, swallow answers of bulk requests after the server has done the work, kill the server."""
    kills = kill_at_random(daemon, pipeline.trace, kills=length.kills, apart_s=0.5, dice=dice)
    assert len(kills) == length.kills
    for _ in range(length.lost):
        before = proxy.lost
        proxy.lose(b'"items":[')
        daemon.work_until(lambda before=before: proxy.lost > before, length.patience_s)  # type: ignore[misc]
    for _ in range(length.servers):
        server.kill()
        daemon.rest(0.5)
        server.start()
        await_delivery(daemon, pipeline.trace, time.monotonic_ns(), length.patience_s)


def told(capsys: pytest.CaptureFixture[str], what: str, length: Length, proxy: Proxy, counts: dict[str, int]) -> None:
    """Print what was done and found."""
    with capsys.disabled():
        said = ", ".join(f"{index} {count}" for index, count in counts.items())
        print(f"\n{what} to Elasticsearch: {length.kills} SIGKILLs of the daemon, {length.servers} of the server,")
        print(f"  {proxy.lost} answers lost; every field of every document equal: {said}")


@pytest.mark.timeout(1800)
def test_documents_from_postgres_survive_kills_of_everything(
    database: Database, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(f"seed {(seed := random.SystemRandom().randrange(1 << 32))}")
    fix_pgbench.fill(database, LENGTH.scale)
    database.execute(NOTES)
    pipeline = fix_pgbench.Pipeline(database, tmp_path)
    server = cluster.server
    with Proxy(server.host, server.port) as proxy, pipeline.victim() as daemon:
        pipeline.write({"elasticsearch": {"hosts": [f"http://{proxy.host}:{proxy.port}"]}}, tables=tuple(ROWS))
        daemon.start()
        pipeline.await_copied(daemon, LENGTH.patience_s)
        with fix_pgbench.traffic(database, LENGTH.seconds, scale=LENGTH.scale or 1, script=SCRIPT, rate=LENGTH.rate):
            kill_everything(daemon, pipeline, server, proxy, length=LENGTH, dice=random.Random(seed))
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    check_steps(pipeline.steps(), PostgresPosition.decode)
    counts = {}
    for index, query in ROWS.items():
        rows = database.query(query)
        counts[index] = len(rows)
        assert wrong(cluster, index, rows)[:5] == []
    assert database.query("SELECT max(n) FROM notes") != [(0,)]
    pipeline.write({"elasticsearch": {"hosts": [server.url]}}, tables=tuple(ROWS))
    same = pipeline.command("verify", str(pipeline.file), "--patience=1")
    assert same.returncode == 0, same.stdout + same.stderr
    server.ask("POST", "/notes/_update/7?refresh=true", {"doc": {"n": -1}})
    other = pipeline.command("verify", str(pipeline.file), "notes", "--patience=1")
    assert other.returncode == 1, other.stdout + other.stderr
    assert [each.split(":")[0] for each in wrong(cluster, "notes", database.query(ROWS["notes"]))] == ["notes 7"]
    told(capsys, "PostgreSQL", LENGTH, proxy, counts)


@pytest.fixture
def mysql_source(mysql8: MysqlServer) -> Iterator[MysqlDatabase]:
    made = make_mysql_database(mysql8)
    yield made
    drop_mysql_database(made)


@pytest.mark.timeout(1800)
def test_documents_from_mysql_survive_kills_of_everything(
    mysql_source: MysqlDatabase, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(f"seed {(seed := random.SystemRandom().randrange(1 << 32))}")
    fix_sysbench.fill(mysql_source, MYSQL.size)
    pipeline = fix_sysbench.Pipeline(mysql_source, tmp_path)
    server = cluster.server
    with Proxy(server.host, server.port) as proxy, pipeline.victim() as daemon:
        sink = {"elasticsearch": {"hosts": [f"http://{proxy.host}:{proxy.port}"]}}
        pipeline.write(sink, source={"start": "initial"})
        daemon.start()
        pipeline.await_saved(daemon, lambda place: place.is_copied, MYSQL.patience_s)
        with fix_sysbench.traffic(mysql_source, MYSQL.seconds, size=MYSQL.size):
            kill_everything(daemon, pipeline, server, proxy, length=MYSQL, dice=random.Random(seed))
        pipeline.await_drained(daemon, MYSQL.patience_s)
        assert daemon.stop() == 0

    check_steps(pipeline.steps(), MysqlPosition.decode)
    counts = {}
    for table in fix_sysbench.TABLES:
        rows = mysql_source.query(f"SELECT {fix_sysbench.COLUMNS} FROM {table}")
        counts[table] = len(rows)
        assert wrong(cluster, table, rows)[:5] == []
    told(capsys, "MySQL", MYSQL, proxy, counts)


class Searcher:
    """Searches an alias all the time: how many documents there are."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        self._cluster = cluster
        self._alias = alias
        self._over = threading.Event()
        self.seen: list[int] = []

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Search until the block ends."""
        thread = threading.Thread(target=self._search)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _search(self) -> None:
        while not self._over.is_set():
            found = self._cluster.ask("POST", f"/{self._alias}/_search", {"size": 0, "track_total_hits": True})
            self.seen.append(found["hits"]["total"]["value"])


def filler_of(cluster: Cluster) -> str:
    """Return the type of the field whose mapping is changed."""
    ((_, index),) = cluster.ask("GET", "/pgbench_accounts").items()
    return str(index["mappings"]["properties"]["filler"]["type"])


@pytest.mark.timeout(900)
def test_a_search_during_a_rebuild_misses_and_doubles_no_document_and_it_is_taken_back(
    database: Database, cluster: Cluster, tmp_path: Path
) -> None:
    fix_pgbench.fill(database, 0)
    pipeline = fix_pgbench.Pipeline(database, tmp_path)
    accounts = ("pgbench_accounts",)
    rows = "SELECT aid, bid, abalance, filler FROM pgbench_accounts"
    sink: dict[str, Any] = {"hosts": [cluster.server.url]}
    pipeline.write({"elasticsearch": sink}, tables=accounts)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0
    assert filler_of(cluster) == "keyword"
    changed = {"pgbench_accounts": {"properties": {"filler": {"type": "text"}}}}
    pipeline.write({"elasticsearch": sink | {"indexes": changed}}, tables=accounts)
    cluster.ask("POST", "/pgbench_accounts/_refresh")
    searcher = Searcher(cluster, "pgbench_accounts")

    with pipeline.victim() as daemon, fix_pgbench.traffic(database, 0.0, scale=0), searcher.searching():
        daemon.start()
        pipeline.await_saved(daemon, lambda _place: True, LENGTH.patience_s)
        done = pipeline.command("rebuild", str(pipeline.file), "pgbench_accounts", "--no-wait")
        assert done.returncode == 0, done.stderr + done.stdout
        daemon.work_until(lambda: filler_of(cluster) == "text", LENGTH.patience_s)
        pipeline.await_drained(daemon, LENGTH.patience_s)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert wrong(cluster, "pgbench_accounts", database.query(rows))[:5] == []
        back = pipeline.command("rebuild", str(pipeline.file), "--rollback", "--no-wait")
        assert back.returncode == 0, back.stderr + back.stdout
        daemon.work_until(lambda: filler_of(cluster) == "keyword", LENGTH.patience_s)
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    assert filler_of(cluster) == "keyword"
    assert wrong(cluster, "pgbench_accounts", database.query(rows))[:5] == []
    assert set(searcher.seen) == {fix_pgbench.SMALL}, sorted(set(searcher.seen))
    assert len(searcher.seen) > 10
    assert list(cluster.ask("GET", "/_alias/pgbench_accounts*")) == ["pgbench_accounts-000001"]
