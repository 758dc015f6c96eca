"""Every built-in type of PostgreSQL: exact in the log and in the copy alike, and back into a table by its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres_types import COLUMNS, Everything, insert, prepare

from cdcsync.change import Change
from cdcsync.ports import SourceContext
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.position import PostgresPosition
from cdcsync.postgres.source import PostgresWal
from cdcsync.postgres.types import declare, encoder

if TYPE_CHECKING:
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.change import Table


def read(database: Database, state: Path) -> list[Change]:
    """Rows 1 and 2 by the copy, 11 and 12 by the log."""
    config = PostgresSource(**from_url(database.url))
    source = PostgresWal(config, SourceContext("types", Everything(), state))
    changes: list[Change] = []
    try:
        source.open(None, 0)
        inserted = False
        for _ in range(200):
            batch = source.poll(0.1)
            if batch is None:
                continue
            source.acknowledge(batch.position)
            changes += [item for each in batch.transactions for item in each.items if isinstance(item, Change)]
            if not inserted and isinstance(batch.position, PostgresPosition) and batch.position.is_copied:
                insert(database, 11)
                inserted = True
            if len(changes) == 4:
                return changes
    finally:
        source.close()
    pytest.fail(f"{len(changes)} changes")


def target_of(database: Database, table: Table, row: tuple[Any, ...]) -> None:
    """Write a row by `declare` and `encoder` into a table of its own."""
    columns = ", ".join(f'"{column.name}" {declare(column.type)}' for column in table.columns)
    database.execute(f"CREATE TABLE target ({columns})")
    texts = [
        None if value is None else encoder(column.type)(value) for column, value in zip(table.columns, row, strict=True)
    ]
    casts = ", ".join(f"%s::text::{declare(column.type)}" for column in table.columns)
    database.execute(f"INSERT INTO target VALUES ({casts})", texts)


def test_every_type_is_exact_both_ways(each_database: Database, tmp_path: Path) -> None:
    prepare(each_database)
    insert(each_database, 1)

    copied, copied_null, logged, logged_null = read(each_database, tmp_path)

    assert logged.after is not None
    for (name, literal, want), got in zip(COLUMNS, logged.after[1:], strict=True):
        assert (name, literal, got, type(got) is bool) == (name, literal, want, type(want) is bool)
    assert copied.table == logged.table
    assert copied.after is not None
    assert (1, *logged.after[1:]) == copied.after
    assert [type(value) for value in logged.after] == [type(value) for value in copied.after]
    assert copied_null.after is not None
    assert logged_null.after is not None
    assert set(copied_null.after[1:]) == set(logged_null.after[1:]) == {None}

    target_of(each_database, logged.table, logged.after)
    different = [
        COLUMNS[index]
        for index in range(len(COLUMNS))
        if each_database.query(f"SELECT s.c{index}::text = g.c{index}::text FROM t s, target g WHERE s.id = 11")
        != [(True,)]
    ]
    assert different == []
    declared = each_database.query(
        "SELECT s.attname FROM pg_attribute s JOIN pg_attribute g USING (attname) WHERE s.attrelid = 't'::regclass "
        "AND g.attrelid = 'target'::regclass AND (s.atttypid, s.atttypmod) <> (g.atttypid, g.atttypmod)"
    )
    assert declared == []


def test_types_of_extensions_xml_and_unknown_ones_go_through_as_text(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, h hstore, c citext, l ltree, u cube, x xml)")
    config = PostgresSource(**from_url(database.url), start="now")
    source = PostgresWal(config, SourceContext("types", Everything(), tmp_path))
    source.open(None, 0)
    database.execute("""INSERT INTO t VALUES (1, 'a=>"b c", d=>NULL', 'MiXed', 'a.b', '(1,2)', '<a/>')""")
    batches = [batch for _ in range(30) if (batch := source.poll(0.1)) is not None and batch.transactions]
    source.close()

    change = batches[0].transactions[0].items[0]
    assert isinstance(change, Change)
    assert change.after == (1, '"a"=>"b c", "d"=>NULL', "MiXed", "a.b", "(1, 2)", "<a/>")
    assert [column.type.kind.value for column in change.table.columns] == [
        "integer", "opaque", "text", "opaque", "opaque", "opaque",
    ]  # fmt: skip
    assert change.table.columns[4].type.name == "public.cube"
