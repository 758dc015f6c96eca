"""Killed between the DDL and the rows: the target is right after the next start, and every column is equal."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
import pymysql
import pytest
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_postgres import Database, drop_database, make_database

from cdcsync.testing.faults import Victim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.testing.mysql_servers import MysqlServer
    from cdcsync.testing.servers import PostgresServer

FULL = bool(os.environ.get("CDCSYNC_FULL"))
ROUNDS = 3 if FULL else 1
WAIT_S = 60
CHANGES = (
    "ALTER TABLE t ADD c{n} int",
    "ALTER TABLE t ADD d{n} varchar(20), DROP COLUMN c{n}",
    "ALTER TABLE t RENAME COLUMN d{n} TO e{n}",
)
"""Of each round."""
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
"""Else the server finishes what it was sent before its client was killed."""
LOCK = "SELECT * FROM cdcsync_positions FOR UPDATE"


@pytest.fixture
def other(postgres: PostgresServer) -> Iterator[Database]:
    """A database that is written to."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def source(mysql8: MysqlServer) -> Iterator[MysqlDatabase]:
    """A database that is read."""
    made = make_mysql_database(mysql8)
    yield made
    drop_mysql_database(made)


@pytest.fixture
def mysql_target(mariadb10: MysqlServer) -> Iterator[MysqlDatabase]:
    """A MariaDB that is written to."""
    made = make_mysql_database(mariadb10)
    yield made
    drop_mysql_database(made)


def victim(folder: Path, source: Any, sink: Any, table: str) -> Victim:
    """Return the daemon of a pipeline of table t."""
    document = {
        "name": "kills",
        "heartbeat": "60s",
        "state": str(folder / "state"),
        "source": source.url,
        "sink": sink.url,
        "tables": [{"from": table, "to": "t"}],
    }
    path = folder / "kills.yaml"
    path.write_bytes(orjson.dumps(document))
    path.chmod(0o600)
    return Victim([str(Path(sys.executable).with_name("cdcsync")), "run", str(path)], folder / "log", {})


def columns(database: Any) -> list[str]:
    """Return the names of the table's columns, in no order."""
    where = f"AND table_schema = '{database.name}'" if isinstance(database, MysqlDatabase) else ""
    query = f"SELECT column_name FROM information_schema.columns WHERE table_name = 't' {where}"
    return sorted(str(row[0]) for row in database.query(query))


def rows(database: Any) -> list[tuple[str | None, ...]]:
    """Return all rows as text, by the names of the columns."""
    names = columns(database)
    found = database.query(f"SELECT {', '.join(names)} FROM t") if names else []
    return sorted([tuple(None if each is None else str(each) for each in row) for row in found], key=repr)


def same(source: Any, target: Any) -> bool:
    """Return whether both have the same columns and rows."""
    return columns(source) == columns(target) and rows(source) == rows(target)


def waits_in_postgres(target: Database) -> bool:
    """Return whether the sink waits for the position's row, with all else done."""
    query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(target.query(query))


def waits_in_mysql(target: MysqlDatabase) -> bool:
    """Return whether the sink waits for the position's row, with all else done."""
    query = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE %s"
    return bool(target.query(query, [f"%{target.name}%cdcsync_positions%"]))


def reached(killed: Victim, condition: Callable[[], bool]) -> None:
    """Let it work until it is so."""
    killed.work_until(condition, WAIT_S)


def killed_between(killed: Victim, source: Any, target: Any, lock: Any, changes: tuple[str, ...]) -> None:
    """Change the table, kill the daemon where the DDL is done and the position is not stored, and go on."""
    waits = waits_in_mysql if isinstance(target, MysqlDatabase) else waits_in_postgres
    killed.start()
    reached(killed, lambda: same(source, target))
    for number in range(ROUNDS):
        for change in changes:
            source.execute("UPDATE t SET n = n + 1")
            reached(killed, lambda: same(source, target))
            cursor = lock.cursor()
            cursor.execute(LOCK)
            cursor.fetchall()
            source.execute(change.format(n=number))
            source.execute("UPDATE t SET n = n + 1 WHERE id > 2")
            source.execute("INSERT INTO t (id, n) SELECT max(id) + 1, 5 FROM t")
            reached(killed, lambda: waits(target))
            if isinstance(target, MysqlDatabase):
                assert columns(target) == columns(source)
            killed.kill()
            if isinstance(target, Database):
                target.query(END)
            assert not same(source, target)
            lock.rollback()
            killed.start()
            reached(killed, lambda: same(source, target))


START = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"


def test_postgres_to_postgres(database: Database, other: Database, tmp_path: Path) -> None:
    database.execute(START)
    with victim(tmp_path, database, other, "public.t") as killed, psycopg.connect(other.url) as lock:
        killed_between(killed, database, other, lock, CHANGES[:2])


def test_mysql_to_postgres(source: MysqlDatabase, other: Database, tmp_path: Path) -> None:
    source.execute(START)
    with victim(tmp_path, source, other, f"{source.name}.t") as killed, psycopg.connect(other.url) as lock:
        killed_between(killed, source, other, lock, CHANGES if FULL else CHANGES[:1])


def test_mysql_to_mariadb(source: MysqlDatabase, mysql_target: MysqlDatabase, tmp_path: Path) -> None:
    source.execute(START)
    server = mysql_target.server
    login = {"host": "127.0.0.1", "port": server.port, "user": server.user, "password": server.password}
    with (
        victim(tmp_path, source, mysql_target, f"{source.name}.t") as killed,
        pymysql.connect(**login, database=mysql_target.name) as lock,
    ):
        killed_between(killed, source, mysql_target, lock, CHANGES)


TRAFFIC = (
    "ALTER TABLE t ADD c varchar(20) DEFAULT 'x'",
    "ALTER TABLE t MODIFY n bigint",
    "ALTER TABLE t CHANGE c d varchar(30)",
    "ALTER TABLE t DROP d, ADD e decimal(8,2) NOT NULL DEFAULT 1.50",
    "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, e)",
)


def test_changes_under_traffic_with_kills_at_random(source: MysqlDatabase, other: Database, tmp_path: Path) -> None:
    source.execute(START)
    dice = Random(7)
    done = threading.Event()

    def write() -> None:
        number = 10
        while not done.is_set():
            number += 1
            source.execute(
                f"INSERT INTO t (id, n) VALUES ({number}, 1); UPDATE t SET n = n + 1 WHERE id % 5 = {number % 5}"
            )
            source.execute(f"DELETE FROM t WHERE id = {number - 30}")

    with victim(tmp_path, source, other, f"{source.name}.t") as killed:
        killed.start()
        reached(killed, lambda: same(source, other))
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for change in TRAFFIC:
                source.execute(change)
                killed.rest(dice.uniform(0, 1.5))
                killed.kill()
                killed.start()
        finally:
            done.set()
            writer.join()
        reached(killed, lambda: same(source, other))
