"""Killed between the DDL and the rows: the target is right after the next start, and every column is equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from fix_evolution import Flow
from fix_mysql import MysqlDatabase
from fix_postgres import Database
from fix_schema_traffic import FULL, SOURCES, changed_under_traffic, database_of, flow
from fix_schema_traffic import rows as rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdcsync.testing.faults import Victim

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


def victim(folder: Path, source: Any, sink: Any, table: str) -> Victim:
    """Return the daemon of a pipeline of table t, which stores no position but with rows."""
    carries = Flow(folder, source.url, sink.url, {"from": table, "to": "t"})
    carries.heartbeat = "60s"
    return carries.victim()


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


def test_postgres_to_postgres(database: Database, other_database: Database, tmp_path: Path) -> None:
    other = other_database
    database.execute(START)
    with victim(tmp_path, database, other, "public.t") as killed, psycopg.connect(other.url) as lock:
        killed_between(killed, database, other, lock, CHANGES[:2])


def test_mysql_to_postgres(mysql_database: MysqlDatabase, other_database: Database, tmp_path: Path) -> None:
    source, other = mysql_database, other_database
    source.execute(START)
    with victim(tmp_path, source, other, f"{source.name}.t") as killed, psycopg.connect(other.url) as lock:
        killed_between(killed, source, other, lock, CHANGES if FULL else CHANGES[:1])


def test_mysql_to_mariadb(mysql_database: MysqlDatabase, mariadb_database: MysqlDatabase, tmp_path: Path) -> None:
    source, mysql_target = mysql_database, mariadb_database
    source.execute(START)
    server = mysql_target.server
    login = {"host": "127.0.0.1", "port": server.port, "user": server.user, "password": server.password}
    with (
        victim(tmp_path, source, mysql_target, f"{source.name}.t") as killed,
        pymysql.connect(**login, database=mysql_target.name) as lock,
    ):
        killed_between(killed, source, mysql_target, lock, CHANGES)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SOURCES if FULL else ["mysql8"])
def test_changes_under_traffic_with_kills(
    name: str, request: pytest.FixtureRequest, other_database: Database, tmp_path: Path
) -> None:
    with database_of(request, name) as source:
        carries = flow(tmp_path, source, other_database.url)

        def done(table: str) -> bool:
            try:
                return as_text(rows_of(source, table)) == as_text(rows_of(other_database, table))
            except psycopg.errors.UndefinedColumn:
                return False  # altered between two queries

        def ready() -> bool:
            there = other_database.query("SELECT to_regclass('sbtest3') IS NOT NULL")
            return there == [(True,)] and bool(rows_of(other_database, "sbtest3"))

        with carries.victim() as killed:
            changed_under_traffic(source, killed, ready=ready, done=done)


def as_text(given: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    """Return rows without the spaces that MySQL hides at the end of a CHAR."""
    return [{name: None if value is None else str(value).rstrip() for name, value in row.items()} for row in given]
