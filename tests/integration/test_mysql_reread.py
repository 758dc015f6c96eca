"""Changes that a binlog does not carry whole, into targets that have nothing of the row: read again at the source."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped
from fix_job import arrived
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_mysql_source import begun, has_changes
from integration.test_mysql_types import cases, fill

from cdcsync.errors import Fatal, Transient
from cdcsync.mysql import reread
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_command import Command
    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

DOCS = """
CREATE TABLE docs (id int PRIMARY KEY, n int, large longtext);
INSERT INTO docs VALUES (1, 0, REPEAT('a', 9000)), (2, 0, REPEAT('b', 9000)), (3, 0, 'c'), (4, 0, 'd')
"""
ROWS = "SELECT id, n, large FROM docs ORDER BY id"


def pipeline(command: Command, database: MysqlDatabase, target: Path, more: str = "") -> str:
    """Write a pipeline that copies nothing, and return its file."""
    server = database.server
    return command.write(
        f"name: docs\nsource: {{mysql: {{host: {server.host}, port: {server.port}, user: root, "
        f"password: '{server.password}', start: now}}}}\n"
        f"sink: {{sqlite: {{path: '{target}'}}}}\ntables: ['{database.name}.docs']\n{more}"
    )


def status(command: Command, path: str) -> dict[str, object]:
    got: dict[str, object] = json.loads(command("status", "--json", path).stdout or "{}")
    return got


def there(target: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(target) as connection:
        try:
            return connection.execute(ROWS).fetchall()
        except sqlite3.OperationalError:
            return []


def test_an_update_that_is_not_logged_whole_is_completed_from_the_source(
    command: Command, each_mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    database, target = each_mysql_database, tmp_path / "docs.db"
    image = "MINIMAL" if database.server.build.name == "mysql8" else "NOBLOB"
    database.execute(DOCS)
    path = pipeline(command, database, target)
    process = command.start("run", path)
    arrived(process, lambda: bool(status(command, path).get("position")))
    database.execute(
        f"SET SESSION binlog_row_image = '{image}'; UPDATE docs SET n = 1 WHERE id IN (1, 2);"
        "UPDATE docs SET id = 7, n = 2 WHERE id = 3; UPDATE docs SET n = n + 1; DELETE FROM docs WHERE id = 4"
    )

    arrived(process, lambda: there(target) == database.query(ROWS))
    assert int(str(status(command, path)["reread"])) >= 3
    assert stopped(process)[0] == 0


def test_with_rereading_off_such_an_update_stops_the_pipeline(
    command: Command, mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    mysql_database.execute(DOCS)
    path = pipeline(command, mysql_database, tmp_path / "docs.db", "reread: 'off'\n")
    process = command.start("run", path)
    arrived(process, lambda: bool(status(command, path).get("position")))

    mysql_database.execute("SET SESSION binlog_row_image = 'NOBLOB'; UPDATE docs SET n = 1 WHERE id = 1")

    code, said = process.wait(30), process.communicate()[1]
    assert code == 65
    assert "binlog_row_image=FULL" in said


def test_a_row_that_is_read_again_equals_that_of_the_log_for_every_type(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    run = begun(read(each_mysql_database))
    fill(each_mysql_database, cases(each_mysql_database.server))
    run.take(has_changes(3))
    _, null, update = run.changes
    assert update.after is not None
    assert null.after is not None

    got = run.source.reread(update.table, [(1,), (2,), (3,)], run.transactions[-1:])

    assert sorted(row[0] for row in got) == sorted([update.after[0], null.after[0]])
    assert [row for row in got if row not in (update.after, null.after)] == []


@pytest.mark.parametrize(
    ("change", "said"), [("MODIFY n varchar(20)", r"altered since then \(n\)"), ("DROP COLUMN n", "altered")]
)
def test_rows_of_a_table_that_was_altered_since_are_not_read_as_the_old_ones(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], change: str, said: str
) -> None:
    mysql_database.execute(DOCS)
    run = begun(read(mysql_database))
    mysql_database.execute("UPDATE docs SET n = 1 WHERE id = 1")
    run.take(has_changes(1))
    mysql_database.execute(f"ALTER TABLE docs {change}")

    with pytest.raises(Fatal, match=said):
        run.source.reread(run.changes[0].table, [(1,)], run.transactions)


@pytest.fixture
def waiting() -> Iterator[MysqlDatabase]:
    """A MariaDB whose commits can be made to wait for a replica that does not exist."""
    server = MysqlServer("mariadb10").start()
    made = make_mysql_database(server)
    server.execute("SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'")
    server.execute("SET GLOBAL rpl_semi_sync_master_timeout = 600000")
    yield made
    server.execute("SET GLOBAL rpl_semi_sync_master_enabled = 0")
    drop_mysql_database(made)
    server.stop()


def test_a_row_is_not_read_before_its_transaction_is_visible(
    waiting: MysqlDatabase, read: Callable[..., MysqlRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "PATIENCE_S", 0.5)
    waiting.execute(DOCS)
    run = begun(read(waiting))
    waiting.server.execute("SET GLOBAL rpl_semi_sync_master_enabled = 1")
    session = threading.Thread(target=waiting.execute, args=("UPDATE docs SET n = 8 WHERE id = 3",))
    session.start()
    run.take(has_changes(1))
    table, given = run.changes[0].table, run.transactions

    with pytest.raises(Transient, match="not visible"):
        run.source.reread(table, [(3,)], given)
    waiting.server.execute("SET GLOBAL rpl_semi_sync_master_enabled = 0")
    session.join(20)

    assert run.source.reread(table, [(3,)], given) == [(3, 8, "c")]
