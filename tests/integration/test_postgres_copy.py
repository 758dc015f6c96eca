"""The first copy: what it reads from a real server, to the byte."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdcsync.change import Change, Column, Operation, Table
from cdcsync.ports import SourceContext, Wanted
from cdcsync.postgres import slot as slots
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.connection import connect
from cdcsync.postgres.copy import CHANGES_MAX, Copy, row_decoder, unescape
from cdcsync.postgres.publication import ensure
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from fix_postgres import Database


class All:
    def wants(self, schema: str, _name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "public" else None


def copied(database: Database, after: str = "SELECT 1", **fields: Any) -> dict[str, list[Change]]:
    """Copy everything from a slot's snapshot; `after` runs between the slot and the copy."""
    config = PostgresSource.model_validate({**from_url(database.url), **fields})
    name = f"copy_{database.name}"
    with (
        connect(config, application_name="test") as plain,
        closing(connect(config, application_name="test", replication=True)) as replication,
        closing(connect(config, application_name="test")) as reading,
    ):
        publications = ensure(plain, config, SourceContext("p", All(), Path()), fresh=True)
        created = slots.create(replication, name, snapshot=True)
        database.execute(after)
        assert created.snapshot is not None
        copy = Copy(reading, created.snapshot)
        types = Catalogue(plain).types({column.type for each in publications.tables for column in each.columns})
        got: dict[str, list[Change]] = {}
        for published in publications.tables:
            table = published.table(types)
            rows = got.setdefault(table.name, [])
            for chunk in copy.read(published, table):
                assert len(chunk.changes) <= CHANGES_MAX
                assert {change.operation for change in chunk.changes} == {Operation.READ}
                rows += chunk.changes
        copy.close()
        slots.drop(plain, name)
    return got


def rows(changes: list[Change]) -> list[Any]:
    return sorted((change.after for change in changes), key=repr)


def test_what_the_slot_saw_is_copied_and_nothing_later(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a VALUES (1, 'x'), (2, NULL)")

    got = copied(each_database, after="INSERT INTO a VALUES (3, 'late'); UPDATE a SET t = 'late'")

    assert rows(got["a"]) == [(1, "x"), (2, None)]


def test_every_escape_comes_back_as_it_was(each_database: Database) -> None:
    texts = [
        "\\N",
        "\\",
        "a\tb",
        "a\nb",
        "\r",
        "\b\f\v",
        "",
        "\\.",
        "\\t",
        "é\U0001f600",
        "\\\\n",
        "NULL",
        '{"a": "\\n"}',
    ]
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY, t text, n text, b bytea)")
    for index, text in enumerate(texts):
        each_database.execute("INSERT INTO a VALUES (%s, %s, NULL, %s)", [index, text, text.encode()])

    got = copied(each_database)

    assert sorted(change.after for change in got["a"] if change.after) == [
        (index, text, None, text.encode()) for index, text in enumerate(texts)
    ]


def test_columns_and_rows_are_those_of_the_publication(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, secret text, x text);"
        "INSERT INTO a VALUES (1, 's', 'keep'), (2, 's', 'l''eave'), (3, 's', NULL);"
        "CREATE PUBLICATION theirs FOR TABLE a (id, x) WHERE (id <> 2 AND x IS DISTINCT FROM 'it''s %s {}')"
    )

    got = copied(each_database, publication={"name": "theirs", "mode": "existing"})

    assert rows(got["a"]) == [(1, "keep"), (3, None)]
    assert got["a"][0].table.at == {"id": 0, "x": 1}


def test_a_partitioned_table_is_copied_once_by_its_root(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (9);"
        "CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (9) TO (99); INSERT INTO r VALUES (1), (10)"
    )

    got = copied(each_database)

    assert {name: rows(changes) for name, changes in got.items()} == {"r": [(1,), (10,)]}


def test_children_by_inheritance_are_tables_of_their_own(database: Database) -> None:
    database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)"
    )

    got = copied(database)

    assert {name: rows(changes) for name, changes in got.items()} == {"parent": [(1,)], "child": [(2,)]}


def test_generated_columns_are_copied_as_they_are_published(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, z int); INSERT INTO a VALUES (4)"
    )

    got = copied(each_database)

    assert rows(got["a"]) == [(4, 8, None) if each_database.server.version >= 18 else (4, None)]


def test_names_that_look_like_sql_are_copied(database: Database) -> None:
    database.execute("""CREATE TABLE "a""b'; DROP TABLE x" ("k""e'{}%s" int PRIMARY KEY)""")
    database.execute("""INSERT INTO "a""b'; DROP TABLE x" VALUES (1)""")

    assert rows(copied(database)["a\"b'; DROP TABLE x"]) == [(1,)]


def test_memory_holds_a_chunk_and_not_the_table(database: Database) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g"
    )
    config = PostgresSource.model_validate(from_url(database.url))
    with (
        connect(config, application_name="test") as plain,
        closing(connect(config, application_name="test")) as reading,
    ):
        publications = ensure(plain, config, SourceContext("p", All(), Path()), fresh=True)
        with plain.transaction():
            row = plain.execute("SELECT pg_export_snapshot()").fetchone()
            assert row is not None
            copy = Copy(reading, str(row[0]))
        published = publications.tables[0]
        count = 0
        tracemalloc.start()
        for chunk in copy.read(published, published.table({})):
            count += len(chunk.changes)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert count == 60_000
    assert peak < 12 << 20


def test_a_table_without_columns_has_rows_without_values() -> None:
    assert row_decoder(Table("s", "t", ()))(b"\n") == ()


def test_a_lone_backslash_n_is_null_and_an_escaped_one_is_not() -> None:
    decode = row_decoder(Table("s", "t", (Column("a", Type(Kind.TEXT)), Column("b", Type(Kind.TEXT)))))

    assert decode(b"\\N\t\\\\N\n") == (None, "\\N")
    assert unescape(rb"\b\f\n\r\t\v\\x") == b"\b\f\n\r\t\v\\x"
