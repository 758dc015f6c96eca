"""SQLite: what its tables refuse, what its errors mean, and how fast it writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import UNCHANGED, Batch, Column, SchemaChange, Table
from cdcsync.errors import End, ExitStatus, Fatal, Rejected, Transient
from cdcsync.ports import SinkContext
from cdcsync.sqlite.config import SqliteConfig, from_url
from cdcsync.sqlite.connector import check
from cdcsync.sqlite.errors import VERDICTS, Verdict, translated
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.sqlite.store import clear, put
from cdcsync.testing.conformance.samples import INTEGER, ORDERS, TEXT, batch, delete, insert, position, update
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USERS = Table(
    "", "users", (Column("id", INTEGER, nullable=False), Column("email", TEXT), Column("age", INTEGER)), ("id",)
)
UNIQUE = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, age INTEGER CHECK (age >= 0))"


@pytest.fixture
def config(tmp_path: Path) -> SqliteConfig:
    return SqliteConfig(path=tmp_path / "t.db", busy_timeout_s=0.05)


@pytest.fixture
def context(tmp_path: Path) -> SinkContext:
    return SinkContext("p", tmp_path, (USERS,), "postgres:1/shop")


@pytest.fixture
def sink(config: SqliteConfig, context: SinkContext) -> Iterator[SqliteSink]:
    run(config, UNIQUE)
    sink = SqliteSink(config, context)
    sink.positions().open("")
    sink.open()
    yield sink
    sink.close()


def run(config: SqliteConfig, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(config.path)) as connection:
        rows = connection.execute(statement).fetchall()
        connection.commit()
        return rows


def users(config: SqliteConfig) -> list[tuple[object, ...]]:
    return run(config, "SELECT * FROM users ORDER BY id")


def test_rows_that_exchange_a_unique_value_do(sink: SqliteSink, config: SqliteConfig) -> None:
    sink.write(batch(0, insert(USERS, 1, "a", 1), insert(USERS, 2, "b", 2)))

    sink.write(batch(1, update(USERS, 1, 1, "b", UNCHANGED), update(USERS, 2, 2, "a", UNCHANGED)))

    assert users(config) == [(1, "b", 1), (2, "a", 2)]


def test_a_unique_value_passed_on_within_a_batch_arrives(sink: SqliteSink, config: SqliteConfig) -> None:
    sink.write(batch(0, insert(USERS, 1, "a", 1)))

    changes = [
        insert(USERS, 2, "w", 2),
        update(USERS, 1, 1, "y", 1),
        update(USERS, 2, 2, "a", 2),
        insert(USERS, 3, "w", 3),
    ]
    sink.write(batch(1, *changes))

    assert users(config) == [(1, "y", 1), (2, "a", 2), (3, "w", 3)]


def test_all_rows_that_a_constraint_refuses_are_named_with_all_their_changes(
    sink: SqliteSink, config: SqliteConfig
) -> None:
    changes = [
        insert(USERS, 1, "a", 1),
        insert(USERS, 2, "b", -1),
        insert(USERS, 3, "a", 3),
        update(USERS, 2, 2, "c", UNCHANGED),
        insert(USERS, 4, "\ud800", 1),
        insert(USERS, 5, "e", 1 << 70),
    ]

    with pytest.raises(Rejected) as caught:
        sink.write(batch(0, *changes))

    assert set(caught.value.reasons) == {(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)}
    assert users(config) == []
    assert sink.write(batch(0, changes[0])) is not None


def test_a_text_with_a_nul_is_kept(sink: SqliteSink, config: SqliteConfig) -> None:
    sink.write(batch(0, insert(USERS, 1, "a\0b", 1)))

    assert users(config) == [(1, "a\0b", 1)]


def test_a_full_disk_blocks_and_loses_nothing(sink: SqliteSink, config: SqliteConfig) -> None:
    sink.write(batch(0, insert(USERS, 1, "a", 1)))
    connection = sink.positions().connection
    connection.execute("PRAGMA max_page_count = 1")
    large = batch(1, insert(USERS, 2, "b" * 1_000_000, 1))

    with pytest.raises(Transient, match="disk is full") as caught:
        sink.write(large)
    assert str(config.path) in str(caught.value)
    assert caught.value.end is End.SINK
    sink.close()
    sink.positions().open("")
    sink.open()
    sink.write(large)

    assert len(users(config)) == 2


def test_a_locked_database_is_transient(sink: SqliteSink, config: SqliteConfig) -> None:
    with closing(sqlite3.connect(config.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(Transient, match="another process writes"):
            sink.write(batch(0, insert(USERS, 1, "a", 1)))

    assert sink.write(batch(0, insert(USERS, 1, "a", 1))) is not None


def test_a_file_that_is_no_database_is_fatal(config: SqliteConfig, context: SinkContext) -> None:
    config.path.write_bytes(b"no database at all, but long enough" * 50)
    sink = SqliteSink(config, context)

    with pytest.raises(Fatal, match=r"t\.db"):
        sink.positions().open("")
    sink.close()


def test_a_path_that_cannot_be_opened_is_a_matter_of_permission(context: SinkContext, tmp_path: Path) -> None:
    sink = SqliteSink(SqliteConfig(path=tmp_path / "none" / "t.db"), context)

    with pytest.raises(Fatal) as caught:
        sink.positions().open("")
    sink.close()

    assert caught.value.status is ExitStatus.PERMISSION


@pytest.mark.parametrize(("code", "verdict"), [(code, verdict) for code, (verdict, _) in VERDICTS.items()])
def test_every_error_has_its_verdict(code: int, verdict: Verdict, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code | 0x100

    with pytest.raises(Transient if verdict is Verdict.TRANSIENT else Fatal), translated(tmp_path, End.SINK):
        raise error


def test_an_error_that_is_ours_stays_a_bug(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.ProgrammingError), translated(tmp_path, End.SINK):
        raise sqlite3.ProgrammingError("wrong number of bindings")


def test_all_that_does_not_fit_is_told_at_once(config: SqliteConfig, tmp_path: Path) -> None:
    run(config, "CREATE TABLE users (id INTEGER, email NUMERIC NOT NULL, extra TEXT NOT NULL)")
    run(config, "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT)")
    context = SinkContext("p", tmp_path, (USERS, ORDERS))
    sink = SqliteSink(config, context)
    sink.positions().open("")

    with pytest.raises(Fatal) as caught:
        sink.open()
    sink.close()

    told = str(caught.value)
    wanted = ("email: declared NUMERIC", "age is missing", "extra is NOT NULL", "over (id)", "note is missing")
    assert [part for part in wanted if part not in told] == []
    assert caught.value.status is ExitStatus.CONFIG
    assert sum(finding.severity == "error" for finding in check(config, context)) == 6


def test_two_tables_of_one_name_are_refused(config: SqliteConfig, tmp_path: Path) -> None:
    tables = tuple(Table(schema, "t", (Column("id", INTEGER),), ("id",)) for schema in ("a", "b"))
    sink = SqliteSink(config, SinkContext("p", tmp_path, tables))
    sink.positions().open("")

    with pytest.raises(Fatal, match="no schemas"):
        sink.open()
    sink.close()


def test_a_schema_change_is_checked_against_the_table_there(sink: SqliteSink) -> None:
    wider = Table("", "users", (*USERS.columns, Column("more", TEXT)), ("id",))

    with pytest.raises(Fatal, match="more is missing"):
        sink.write(batch(0, SchemaChange(USERS, wider, None), insert(wider, 1, "a", 1, "m")))


def test_a_position_of_another_source_is_refused(config: SqliteConfig, sink: SqliteSink, tmp_path: Path) -> None:
    sink.write(batch(0))
    sink.close()
    other = SqliteSink(config, SinkContext("p", tmp_path, (USERS,), "postgres:2/shop"))

    with pytest.raises(Fatal, match="postgres:1/shop"):
        other.positions().open("")
    other.close()


def test_whose_a_position_is_that_moves_in_a_failover_is_for_the_source_to_say(
    config: SqliteConfig, sink: SqliteSink, tmp_path: Path
) -> None:
    sink.write(batch(0))
    sink.close()

    for source in ("postgres:2/shop", "mysql:2"):
        other = SqliteSink(config, SinkContext("p", tmp_path, (USERS,), source, moves=True))
        if source.startswith("postgres"):
            other.positions().open("")
        else:
            with pytest.raises(Fatal, match="is of postgres:2/shop, the configured source is mysql:2"):
                other.positions().open("")
        other.close()


def test_a_cleared_position_keeps_its_epoch(config: SqliteConfig, context: SinkContext, sink: SqliteSink) -> None:
    sink.write(batch(0, epoch=4))
    sink.close()

    assert clear(config, context)
    assert not clear(config, context)
    put(config, SinkContext("p", context.state), position(7, epoch=5))

    next_one = SqliteSink(config, context)
    next_one.positions().open("")
    assert next_one.open() == 5
    stored = next_one.positions().load()
    next_one.close()
    assert stored is not None
    assert stored.position == "5:7:0"


def test_a_pipeline_that_runs_keeps_its_position_from_being_set(
    config: SqliteConfig, context: SinkContext, sink: SqliteSink
) -> None:
    with pytest.raises(Fatal) as caught:
        put(config, context, position(1))

    assert caught.value.status is ExitStatus.OWNERSHIP


def test_a_float_key_of_negative_zero_or_nan_is_found_again(config: SqliteConfig, tmp_path: Path) -> None:
    table = Table("", "f", (Column("f", Type(Kind.FLOAT, bits=64), nullable=False), Column("v", TEXT)), ("f",))
    sink = SqliteSink(config, SinkContext("p", tmp_path, (table,)))
    sink.positions().open("")
    sink.open()
    nan = float("nan")

    sink.write(batch(0, insert(table, nan, "a"), insert(table, 1.5, "b")))
    sink.write(batch(1, update(table, nan, nan, "c"), delete(table, 1.5)))
    sink.close()

    assert run(config, "SELECT * FROM f") == [("NaN", "c")]


def test_an_empty_batch_inside_no_transaction_stores_its_position(sink: SqliteSink) -> None:
    place = position(9)

    assert sink.write(Batch((), place, 0, 0)) == place
    stored = sink.positions().load()

    assert stored is not None
    assert stored.position == place.encode()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:a.db", "a.db"),
        ("sqlite:///a%20b.db", "a b.db"),
        ("sqlite:////tmp/a.db", "/tmp/a.db"),
        ("sqlite:/a.db", "/a.db"),
    ],
)
def test_a_url_names_the_file(url: str, path: str) -> None:
    assert from_url(url) == {"path": path}


def test_a_store_beside_a_sink_that_keeps_its_position_is_refused(config: SqliteConfig, context: SinkContext) -> None:
    with pytest.raises(Fatal, match="another store was given"):
        SqliteSink(config, context).open()


def test_foreign_keys_are_left_to_the_source(config: SqliteConfig, context: SinkContext) -> None:
    run(config, UNIQUE)
    run(config, "CREATE TABLE orders (id INTEGER PRIMARY KEY, u INTEGER REFERENCES users ON DELETE CASCADE)")
    orders = Table("", "orders", (Column("id", INTEGER, nullable=False), Column("u", INTEGER)), ("id",))
    sink = SqliteSink(config, SinkContext("p", context.state, (USERS, orders)))
    sink.positions().open("")
    sink.open()

    sink.write(batch(0, insert(orders, 7, 1), insert(USERS, 1, "a", 1)))
    sink.write(batch(1, delete(USERS, 1)))
    sink.close()

    assert run(config, "SELECT * FROM orders") == [(7, 1)]


def test_a_url_of_another_host_is_refused() -> None:
    with pytest.raises(Fatal, match="not the URL"):
        from_url("sqlite://host/a.db")
