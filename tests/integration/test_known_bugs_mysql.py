"""Bugs that other tools had, at MySQL and MariaDB (docs/reference/known-bugs.md)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from fix_mysql_sink import USERS, delete, insert, opened, update, users
from fix_mysql_source import begun, has_changes

from cdcsync.change import UNCHANGED
from cdcsync.errors import Incomplete
from cdcsync.testing.memory import MemoryPosition

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

BATCHES = 60


def test_a_batch_that_begins_with_a_delete_is_written_whole_into_mysql(each_mysql_database: MysqlDatabase) -> None:
    ends = opened(each_mysql_database, USERS)
    ends.write(*insert((1, "a"), (2, "b"), (3, "c")))

    ends.write(
        delete((1, "a")),
        *insert((4, "d")),
        update((2, "b"), (2, "B")),
        delete((3, "c")),
        *insert((1, "again"), (5, "e")),
    )

    assert users(each_mysql_database) == [(1, "again"), (2, "B"), (4, "d"), (5, "e")]
    ends.close()


def test_a_statement_of_mysql_that_finds_no_row_is_no_success(each_mysql_database: MysqlDatabase) -> None:
    ends = opened(each_mysql_database, USERS)
    ends.write(*insert((1, "a")))

    with pytest.raises(Incomplete) as caught:
        ends.write(*insert((2, "b")), update((9, UNCHANGED), (9, UNCHANGED)))

    assert list(caught.value.reasons) == [(0, 1)]
    assert users(each_mysql_database) == [(1, "a")]
    assert each_mysql_database.query("SELECT position FROM cdcsync_positions") == [("1:1:0",)]
    ends.close()


def test_nobody_sees_rows_of_mysql_without_their_position(each_mysql_database: MysqlDatabase) -> None:
    ends = opened(each_mysql_database, USERS)
    ends.write(*insert((1, "x"), (1001, "y")))
    seen: list[tuple[str, int]] = []
    looks, done = threading.Event(), threading.Event()

    def look() -> None:
        query = "SELECT position, (SELECT count(*) FROM users) FROM cdcsync_positions"
        with each_mysql_database.server.connect(each_mysql_database.name) as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute(query)
                seen.extend(cursor.fetchall())
                looks.set()

    reader = threading.Thread(target=look)
    reader.start()
    assert looks.wait(20)
    for count in range(2, BATCHES + 1):
        ends.write(*insert((count, "x"), (1000 + count, "y")))
    done.set()
    reader.join(20)

    assert seen
    assert [(position, rows) for position, rows in seen if MemoryPosition.decode(position).index * 2 != rows] == []
    ends.close()


def test_rows_of_a_binlog_from_before_an_alter_while_down_keep_their_own_columns(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a varchar(9), b varchar(9))")
    run = begun(read(database))
    position = run.encoded()
    run.source.close()
    database.execute("INSERT INTO t VALUES (1, 'a', 'b')")
    database.execute("ALTER TABLE t DROP COLUMN a, CHANGE b c varchar(9), ADD d int DEFAULT 5")
    database.execute("INSERT INTO t VALUES (2, 'c', 6)")
    database.execute("ALTER TABLE t MODIFY d varchar(9)")
    database.execute("INSERT INTO t VALUES (3, 'c', 'x')")

    want = [
        (["id", "a", "b"], (1, "a", "b")),
        (["id", "c", "d"], (2, "c", 6)),
        (["id", "c", "d"], (3, "c", "x")),
    ]
    for _ in range(2):
        again = read(database).open(position, 1).take(has_changes(3))
        again.source.close()

        assert [([each.name for each in change.table.columns], change.after) for change in again.changes] == want
