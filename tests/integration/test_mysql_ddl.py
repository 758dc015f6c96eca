"""What statements of a binlog tell of tables: dropped, made again, renamed, and put in each other's place by tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fix_mysql_source import begun, has_changes

from cdcsync.change import Change, Operation, SchemaChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun


@pytest.mark.parametrize(
    ("statement", "want"),
    [
        ("DROP TABLE t", [("t", None, ())]),
        ("RENAME TABLE t TO u", [("t", "u", ())]),
        ("ALTER TABLE t CHANGE a b INT", [("t", "t", (("a", "b"),))]),
    ],
)
def test_what_becomes_of_a_table_is_told_where_no_row_follows(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], statement: str, want: list[Any]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE v (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute(f"{statement}; INSERT INTO v VALUES (1)")

    run.take(has_changes(1))

    told = [item for item in run.items if isinstance(item, SchemaChange)]
    assert [(each.old and each.old.name, each.new and each.new.name, each.renamed) for each in told] == want


def test_a_table_dropped_and_made_again_is_empty(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    run.take(has_changes(2))

    assert [change.operation for change in run.changes] == [Operation.TRUNCATE, Operation.INSERT]


def test_the_swap_of_an_online_schema_change_goes_on_with_the_copy(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute("INSERT INTO t VALUES (1)")
    database.execute("CREATE TABLE _t_gho (id int PRIMARY KEY, c int); INSERT INTO _t_gho VALUES (1, 0)")
    database.execute("RENAME /* gh-ost */ TABLE t TO _t_del, _t_gho TO t")
    database.execute("INSERT INTO t VALUES (2, 5)")

    run.take(has_changes(2))

    assert [change.after for change in run.changes] == [(1,), (2, 5)]
    assert [type(item) for item in run.items] == [Change, SchemaChange, Change]
