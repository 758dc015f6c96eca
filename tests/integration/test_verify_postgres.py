"""verify and the tests' own comparison on real servers: a planted one-cell fault fails both."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from fix_postgres import Database, drop_database, make_database

from cdcsync.change import Column, Table
from cdcsync.mapping.transform import Mapping
from cdcsync.ports import SinkContext, SourceContext
from cdcsync.postgres.config import PostgresSink, PostgresSource, from_url
from cdcsync.postgres.position import PostgresPosition
from cdcsync.postgres.scan import sink_scanner, source_scanner
from cdcsync.sql import create_table
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.scan import sink_scanner as sqlite_scanner
from cdcsync.sqlite.types import declare, encoder
from cdcsync.testing.equality import assert_equal_to_postgres, assert_equal_to_sqlite
from cdcsync.types import Kind, Type
from cdcsync.verify import Ends, Result, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.connectors import Scanner
    from cdcsync.verify import TableResult

TABLE = Table(
    "public",
    "goods",
    (
        Column("name", Type(Kind.TEXT), nullable=False),
        Column("number", Type(Kind.INTEGER, bits=64), nullable=False),
        Column("price", Type(Kind.DECIMAL)),
        Column("photo", Type(Kind.BYTES)),
        Column("weight", Type(Kind.FLOAT, bits=64)),
        Column("made", Type(Kind.TIMESTAMPTZ)),
        Column("extra", Type(Kind.JSON, name="jsonb", system="postgres")),
        Column("sold", Type(Kind.BOOLEAN)),
    ),
    ("name", "number"),
)
CREATE = """CREATE TABLE goods (name text, number bigint, price numeric, photo bytea, weight float8, made timestamptz,
    extra jsonb, sold boolean, PRIMARY KEY (name, number))"""
FILL = """INSERT INTO goods SELECT chr(97 + n % 26) || CASE n % 3 WHEN 0 THEN 'É' WHEN 1 THEN '_' ELSE 'Z' END, n - 500,
    n / 8.0, decode(md5(n::text), 'hex'), CASE n % 50 WHEN 7 THEN 'NaN' WHEN 8 THEN '-Infinity' ELSE sqrt(n) END,
    timestamptz '2026-01-01 00:00:00+00' + n * interval '1.5 s', jsonb_build_object('n', n), n % 2 = 0
    FROM generate_series(1, 3000) n"""
FAULT = "UPDATE goods SET photo = '\\x00' WHERE number = 77"
END = PostgresPosition(1, "1", 1, (1 << 53) - 1, "slot")


@pytest.fixture
def source(database: Database) -> Database:
    database.execute(CREATE)
    database.execute(FILL)
    return database


@pytest.fixture
def target(source: Database) -> Iterator[Database]:
    made = make_database(source.server)
    made.execute(CREATE)
    with (
        psycopg.connect(source.url) as reading,
        psycopg.connect(made.url) as writing,
        reading.cursor().copy("COPY goods TO STDOUT") as out,
        writing.cursor().copy("COPY goods FROM STDIN") as into,
    ):
        for data in out:
            into.write(data)
    made.execute("CREATE TABLE cdcsync_positions (pipeline text, position text)")
    made.execute("INSERT INTO cdcsync_positions VALUES ('orders', %s)", [END.encode()])
    yield made
    drop_database(made)


@pytest.fixture
def file(source: Database, tmp_path: Path) -> Path:
    """A SQLite target filled with the source's rows."""
    path = tmp_path / "target.db"
    encoders = [encoder(column.type) or (lambda value: value) for column in TABLE.columns]
    scanner = reader(source, tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(create_table(TABLE, declare, name='"goods"', suffix=""))
        connection.executemany(
            f"INSERT INTO goods VALUES ({', '.join('?' * len(encoders))})",
            (
                [None if value is None else encode(value) for encode, value in zip(encoders, row, strict=True)]
                for row in scanner.scan(TABLE)
            ),
        )
        connection.execute("CREATE TABLE cdcsync_positions (pipeline text, position text)")
        connection.execute("INSERT INTO cdcsync_positions VALUES ('orders', ?)", [END.encode()])
    scanner.close()
    return path


def reader(source: Database, state: Path) -> Scanner:
    config = PostgresSource.model_validate(from_url(source.url))
    return source_scanner(config, SourceContext("orders", Mapping.of(["public.*"]), state))


def compared(source: Database, sink: Scanner, state: Path) -> Result:
    scanner = reader(source, state)
    try:
        return verify(Ends(scanner, sink, Mapping.of(["public.*"]), patience_s=10), [TABLE])
    finally:
        scanner.close()
        sink.close()


def in_postgres(target: Database, state: Path) -> Scanner:
    config = PostgresSink.model_validate(from_url(target.url))
    return sink_scanner(config, SinkContext("orders", state))


def test_one_planted_cell_in_postgres_is_found_by_verify_and_by_the_tests(
    source: Database, target: Database, tmp_path: Path
) -> None:
    got = compared(source, in_postgres(target, tmp_path), tmp_path)
    assert (got.equal, got.tables[0].rows, got.tables[0].reread) == (True, 3000, 0)
    assert assert_equal_to_postgres(source.url, target.url, "goods") == 3000

    target.execute(FAULT)

    table = compared(source, in_postgres(target, tmp_path), tmp_path).tables[0]
    assert [(each.kind, each.key["number"], each.columns) for each in table.differences] == [
        ("different", 77, ("photo",))
    ]
    with pytest.raises(AssertionError, match="rows differ"):
        assert_equal_to_postgres(source.url, target.url, "goods")


def test_one_planted_cell_in_sqlite_is_found_by_verify_and_by_the_tests(
    source: Database, file: Path, tmp_path: Path
) -> None:
    sink = SqliteConfig(path=file)
    context = SinkContext("orders", tmp_path)
    assert compared(source, sqlite_scanner(sink, context), tmp_path).equal
    assert assert_equal_to_sqlite(source.url, file, "goods") == 3000

    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE goods SET photo = x'00' WHERE number = 77")
        connection.execute("DELETE FROM goods WHERE number = 78")

    table = compared(source, sqlite_scanner(sink, context), tmp_path).tables[0]
    assert sorted((each.kind, each.key["number"]) for each in table.differences) == [("different", 77), ("missing", 78)]
    with pytest.raises(AssertionError, match="rows differ"):
        assert_equal_to_sqlite(source.url, file, "goods")


def test_differences_behind_a_position_that_does_not_move_are_said_to_be_unproved(
    source: Database, target: Database, tmp_path: Path
) -> None:
    target.execute("DELETE FROM cdcsync_positions")
    target.execute("DELETE FROM goods WHERE number = 78")
    scanner = reader(source, tmp_path)

    ends = Ends(scanner, in_postgres(target, tmp_path), Mapping.of(["public.*"]), patience_s=1)
    table = verify(ends, [TABLE]).tables[0]
    scanner.close()
    ends.sink.close()

    assert (table.missing, table.passed) == (1, False)


def test_ranges_that_hash_alike_at_both_servers_are_not_read(database: Database, tmp_path: Path) -> None:
    made = make_database(database.server)
    table = Table(
        "public",
        "pairs",
        (
            Column("note", Type(Kind.TEXT)),
            Column("a", Type(Kind.INTEGER, bits=32), nullable=False),
            Column("b", Type(Kind.INTEGER, bits=64), nullable=False),
            Column("weight", Type(Kind.FLOAT, bits=64)),
        ),
        ("b", "a"),
    )
    for end in (database, made):
        end.execute("CREATE TABLE pairs (note text, a int, b bigint, weight float8, PRIMARY KEY (b, a))")
        end.execute(
            "INSERT INTO pairs SELECT nullif('n' || n, 'n7'), n, n % 7 - 3, sqrt(n) FROM generate_series(1, 9001) n"
        )
    made.execute("CREATE TABLE cdcsync_positions (pipeline text, position text)")
    made.execute("INSERT INTO cdcsync_positions VALUES ('orders', %s)", [END.encode()])

    equal = compared_table(database, made, table, tmp_path)
    made.execute("UPDATE pairs SET note = '' WHERE a = 7")
    made.execute("DELETE FROM pairs WHERE a = 9001")
    made.execute("INSERT INTO pairs VALUES ('extra', 1, 2000, 0)")
    unequal = compared_table(database, made, table, tmp_path)
    drop_database(made)

    assert (equal.equal, equal.rows, equal.hashed, equal.reread) == (True, 9001, 9001, 0)
    assert sorted((each.kind, each.key["a"], each.columns) for each in unequal.differences) == [
        ("different", 7, ("note",)),
        ("extra", 1, ()),
        ("missing", 9001, ()),
    ]
    assert 0 < unequal.hashed < unequal.rows == 9001


def compared_table(source: Database, target: Database, table: Table, state: Path) -> TableResult:
    scanner, sink = reader(source, state), in_postgres(target, state)
    result = verify(Ends(scanner, sink, Mapping.of(["public.*"]), patience_s=5), [table])
    scanner.close()
    sink.close()
    return result.tables[0]


def test_json_kept_as_jsonb_is_compared_by_value_and_as_json_to_the_byte(database: Database, tmp_path: Path) -> None:
    made = make_database(database.server)
    columns = [
        Column(name, Type(Kind.JSON, name="json", system="postgres")) for name in ("as_json", "as_jsonb", "as_text")
    ]
    table = Table("public", "docs", (Column("id", Type(Kind.INTEGER, bits=32), nullable=False), *columns), ("id",))
    database.execute("CREATE TABLE docs (id int PRIMARY KEY, as_json json, as_jsonb json, as_text json)")
    made.execute("CREATE TABLE docs (id int PRIMARY KEY, as_json json, as_jsonb jsonb, as_text text)")
    made.execute("CREATE TABLE cdcsync_positions (pipeline text, position text)")
    made.execute("INSERT INTO cdcsync_positions VALUES ('orders', %s)", [END.encode()])
    for end in (database, made):
        end.execute("""INSERT INTO docs VALUES (1, '{"b": 1.10,"a":2}', '{"b": 1.10,"a":2}', '{"b": 1.10,"a":2}')""")

    equal = compared_table(database, made, table, tmp_path)
    assert assert_equal_to_postgres(database.url, made.url, "docs") == 1
    made.execute("""UPDATE docs SET as_json = '{"b":1.10,"a":2}', as_text = '{"b":1.10,"a":2}'""")
    unequal = compared_table(database, made, table, tmp_path)
    with pytest.raises(AssertionError, match="rows differ"):
        assert_equal_to_postgres(database.url, made.url, "docs")
    drop_database(made)

    assert (equal.equal, equal.hashed) == (True, 0)
    assert [each.columns for each in unequal.differences] == [("as_json", "as_text")]
