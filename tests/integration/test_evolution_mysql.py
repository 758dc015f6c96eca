"""MySQL's and MariaDB's tables change while they are carried into other databases, and the targets follow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fix_evolution import Flow
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.mysql_servers import MysqlServer

TABLE = "CREATE TABLE {t} (id int PRIMARY KEY, a varchar(40), n int NOT NULL DEFAULT 0)"
ROWS = "INSERT INTO {t} VALUES (1, 'one', 1), (2, 'two', 2), (5, 'five', 5)"
CHANGES = {
    "added": "ALTER TABLE {t} ADD c varchar(20)",
    "defaulted": "ALTER TABLE {t} ADD c decimal(8,2) NOT NULL DEFAULT 1.50, ADD d varchar(9) DEFAULT 'it''s'",
    "dropped": "ALTER TABLE {t} DROP a",
    "renamed": "ALTER TABLE {t} CHANGE a b varchar(40)",
    "wider": "ALTER TABLE {t} MODIFY n bigint NOT NULL DEFAULT 0",
    "other": "ALTER TABLE {t} MODIFY n varchar(20) DEFAULT '0'",
    "looser": "ALTER TABLE {t} MODIFY n int; INSERT INTO {t} VALUES (500, 'null', null)",
    "keyed": "ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (n, id)",
    "first": "ALTER TABLE {t} ADD c int FIRST",
    "mixed": "INSERT INTO {t} VALUES (100, 'old', 1); ALTER TABLE {t} ADD c int, DROP a; "
    "INSERT INTO {t} VALUES (101, 2, 3); UPDATE {t} SET c = id; DELETE FROM {t} WHERE id = 5; ALTER TABLE {t} ADD e int; "
    "UPDATE {t} SET e = 7 WHERE id < 4",
    "swapped": "CREATE TABLE _{t}_gho LIKE {t}; ALTER TABLE _{t}_gho ADD c int; "
    "INSERT INTO _{t}_gho (id, a, n) SELECT id, a, n FROM {t}; RENAME TABLE {t} TO _{t}_del, _{t}_gho TO {t}",
}
"""By the table's name."""
GONE = ("moved", "made")


@pytest.fixture
def source(source_server: MysqlServer) -> Iterator[MysqlDatabase]:
    """A database that is read."""
    made = make_mysql_database(source_server)
    yield made
    drop_mysql_database(made)


@pytest.fixture(params=["mysql8", "mariadb10"])
def source_server(request: pytest.FixtureRequest) -> MysqlServer:
    """The server that is read."""
    server: MysqlServer = request.getfixturevalue(request.param)
    return server


class Rows:
    """The rows of a database of either kind: names and values as text, in no order of columns or rows."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def of(self, table: str) -> list[list[tuple[str, str | None]]]:
        """Return them; none where there is no table."""
        names = self._names(table)
        found = self._query(f"SELECT {', '.join(self._text(name) for name in names)} FROM {table}") if names else []
        return sorted([sorted(zip(names, map(_plain, row), strict=True)) for row in found], key=repr)

    def _names(self, table: str) -> list[str]:
        if isinstance(self._database, str):
            return [row[0] for row in self._query(f"SELECT name FROM pragma_table_info('{table}')")]
        where = f"table_schema = '{self._database.name}'" if isinstance(self._database, MysqlDatabase) else "true"
        query = f"SELECT column_name FROM information_schema.columns WHERE {where} AND table_name = '{table}'"
        return [str(row[0]) for row in self._query(query)]

    def _text(self, name: str) -> str:
        return f"CAST({name} AS {'char' if isinstance(self._database, MysqlDatabase) else 'text'})"

    def _query(self, query: str) -> list[Any]:
        if not isinstance(self._database, str):
            return list(self._database.query(query))
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute(query).fetchall()


def _plain(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def differing(source: Rows, target: Rows) -> list[str]:
    """Return the tables that are not equal."""
    return [table for table in (*CHANGES, "moved_on") if source.of(table) != target.of(table)]


def changed(source: MysqlDatabase, folder: Path, sink: Any, target: Any, *, running: bool) -> None:
    """Carry tables, change them all, and see that the targets are equal."""
    for table in (*CHANGES, "moved"):
        source.execute(f"{TABLE}; {ROWS}".format(t=table))
    carries = Flow(folder, source.url, sink, {"from": f"{source.name}.*", "to": "{1}"})
    here, there = Rows(source), Rows(target)
    with carries.running() as life:
        life.until(lambda: not [table for table in CHANGES if here.of(table) != there.of(table)] and there.of("moved"))
        if running:
            _change(source)
            life.until(lambda: differing(here, there) == [])
    if not running:
        _change(source)

    with carries.running() as life:
        for table in CHANGES:
            source.execute(f"INSERT INTO {table} (id, n) VALUES (1000, 1)")
        life.until(lambda: differing(here, there) == [])
    assert there.of("moved") == []
    assert there.of("_swapped_gho") == there.of("_swapped_del") == []


def _change(source: MysqlDatabase) -> None:
    for table, statements in CHANGES.items():
        source.execute(statements.format(t=table))
        source.execute(f"INSERT INTO {table} (id, n) VALUES (900, 1)")
    source.execute("RENAME TABLE moved TO moved_on; INSERT INTO moved_on VALUES (9, 'nine', 9)")


def test_targets_in_postgres_follow(source: MysqlDatabase, database: Database, tmp_path: Path) -> None:
    changed(source, tmp_path, database.url, database, running=True)


def test_targets_in_postgres_follow_what_was_changed_while_the_pipeline_was_stopped(
    mysql_database: MysqlDatabase, database: Database, tmp_path: Path
) -> None:
    changed(mysql_database, tmp_path, database.url, database, running=False)


def test_targets_in_mariadb_follow(
    mysql_database: MysqlDatabase, mariadb_database: MysqlDatabase, tmp_path: Path
) -> None:
    changed(mysql_database, tmp_path, mariadb_database.url, mariadb_database, running=True)


def test_targets_in_sqlite_follow(mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    path = str(tmp_path / "t.db")
    changed(mysql_database, tmp_path, {"sqlite": {"path": path}}, path, running=True)
