"""verify while the daemon runs under pgbench's traffic: it settles to equal, and finds one planted cell."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from fix_pgbench import Pipeline, fill, traffic
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer

ACCOUNT = "INSERT INTO pgbench_accounts VALUES (0, 1, 0, '')"
"""One that the traffic leaves alone: an update writes the whole row, and would mend what is planted there."""
FAULT = "UPDATE pgbench_accounts SET filler = 'planted' WHERE aid = 0"
LEAST = "(SELECT min(mtime) FROM (SELECT mtime FROM pgbench_history GROUP BY mtime HAVING count(*) = 1) AS once)"
"""Of one row: clients that begin together may share a moment."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go, and how a fault is planted there."""

    sink: dict[str, Any]
    execute: Callable[[str], object]


@pytest.fixture(params=["16 to 18", "18 to sqlite"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Target]]:
    first, _, second = request.param.split()
    server: PostgresServer = request.getfixturevalue(f"postgres{first}")
    source = make_database(server)
    if second == "sqlite":
        path = tmp_path / "target.db"
        yield source, Target({"sqlite": {"path": str(path)}}, lambda statement: _on_sqlite(path, statement))
    else:
        there = make_database(request.getfixturevalue(f"postgres{second}"))
        end = {"host": there.server.host, "port": there.server.port, "user": there.server.user, "database": there.name}
        yield source, Target({"postgres": {**end, "password": "${env:SOURCE_PASSWORD}"}}, there.execute)
        drop_database(there)
    drop_database(source)


def _on_sqlite(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        connection.execute(statement)


def verified(pipeline: Pipeline, *words: str) -> tuple[int, dict[str, Any]]:
    """Run verify; return its exit status and, by table, what it found."""
    got = pipeline.command("verify", str(pipeline.file), *words, "--json", "--patience=40")
    assert got.returncode in {0, 1}, got.stdout + got.stderr
    return got.returncode, {table["table"].rpartition(".")[2]: table for table in orjson.loads(got.stdout)["tables"]}


@pytest.mark.timeout(300)
def test_verify_under_traffic_settles_and_finds_what_was_planted(ends: tuple[Database, Target], tmp_path: Path) -> None:
    source, target = ends
    fill(source, 1)
    source.execute(ACCOUNT)
    pipeline = Pipeline(source, tmp_path)
    pipeline.write(target.sink)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon)

        with traffic(source, 0.0):
            status, tables = verified(pipeline)
            assert (status, len(tables)) == (0, 4), tables
            assert tables["pgbench_accounts"]["rows"] == 100_001
            assert sum(table["reread"] for table in tables.values()) > 0

            target.execute(FAULT)
            status, tables = verified(pipeline, "public.pgbench_accounts")
            assert (status, list(tables)) == (1, ["pgbench_accounts"])
            (found,) = tables["pgbench_accounts"]["differences"]
            assert (found["key"], found["kind"], found["columns"]) == ({"aid": 0}, "different", ["filler"])

        pipeline.await_drained(daemon)
        assert verified(pipeline, "pgbench_history")[0] == 0
        target.execute(f"DELETE FROM pgbench_history WHERE mtime = {LEAST}")
        status, tables = verified(pipeline, "pgbench_history")
        assert (status, tables["pgbench_history"]["missing"], tables["pgbench_history"]["extra"]) == (1, 1, 0)
        target.execute(f"INSERT INTO pgbench_history SELECT * FROM pgbench_history WHERE mtime = {LEAST}")
        status, tables = verified(pipeline, "pgbench_history")
        assert (status, tables["pgbench_history"]["missing"], tables["pgbench_history"]["extra"]) == (1, 1, 1)
        assert daemon.stop() == 0
