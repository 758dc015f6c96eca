"""The real command over a real PostgreSQL: into jsonl, SQLite and PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_command import Command
    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer

SHOP = """
CREATE TABLE orders (id bigint PRIMARY KEY, note text, price numeric(10, 2));
INSERT INTO orders SELECT n, 'note ' || n, n * 1.5 FROM generate_series(1, 100) n;
"""
TRAFFIC = """
BEGIN; UPDATE orders SET note = 'changed' WHERE id <= 10; DELETE FROM orders WHERE id = 20;
INSERT INTO orders VALUES (101, NULL, 'NaN'); UPDATE orders SET id = 1000 WHERE id = 30; COMMIT;
"""
ROWS = "SELECT id, note, price::text FROM orders ORDER BY id"


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


def pipeline(command: Command, source: str, sink: str, *, tables: str = "public.orders", more: str = "") -> str:
    """Write the pipeline's file."""
    return command.write(
        f"name: orders\nsource: {source}\nsink: {sink}\ntables: ['{tables}']\nheartbeat: 500ms\n{more}"
    )


def carried(command: Command, path: str, database: Database) -> None:
    """Copy, then carry the traffic, with a stop between."""
    database.execute(SHOP)
    first = command.start("run", path)
    command.wait(
        lambda got: (
            got.get("state") == "running"
            and "copying" not in str(got["position"])
            and "pending" not in str(got["position"])
            and got["position"] != ""
        )
    )
    assert stopped(first)[0] == 0
    for statement in TRAFFIC.replace("BEGIN;", "").replace("COMMIT;", "").split(";"):
        if statement.strip():
            database.execute(statement)
    second = command.start("run", path)
    command.wait(lambda got: int(str(got.get("changes", 0))) >= 13)
    assert stopped(second)[0] == 0


@pytest.mark.pure
def test_a_table_arrives_in_postgres_and_verify_says_equal(
    command: Command, database: Database, target: Database
) -> None:
    path = pipeline(command, database.url, target.url)

    carried(command, path, database)
    got = command("verify", path)

    assert target.query(ROWS) == database.query(ROWS)
    assert (got.returncode, "equal" in got.stdout) == (0, True)


def test_a_planted_fault_is_found_by_verify(command: Command, database: Database, target: Database) -> None:
    path = pipeline(command, database.url, target.url)
    carried(command, path, database)
    target.execute("UPDATE orders SET note = 'planted' WHERE id = 50")

    got = command("verify", path, "--json", "--patience", "2")

    assert got.returncode == 1
    differences = json.loads(got.stdout)["tables"][0]["differences"]
    assert [(found["kind"], list(found["columns"])) for found in differences] == [("different", ["note"])]


@pytest.mark.pure
def test_a_table_arrives_in_sqlite(command: Command, database: Database) -> None:
    file = command.folder / "out.db"
    path = pipeline(command, database.url, f"sqlite:{file}")

    carried(command, path, database)

    with closing(sqlite3.connect(file)) as connection:
        got = connection.execute("SELECT id, note, price FROM orders ORDER BY id").fetchall()
    assert [(row[0], row[1]) for row in got] == [row[:2] for row in database.query(ROWS)]


@pytest.mark.pure
def test_the_lines_of_a_file_come_once(command: Command, database: Database) -> None:
    file = command.folder / "out.jsonl"

    carried(command, pipeline(command, database.url, f"jsonl:{file}"), database)

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    operations = [line["operation"] for line in lines]
    assert (operations.count("read"), operations.count("update"), operations.count("delete")) == (100, 11, 1)


def test_a_preview_shows_what_the_mapping_makes_and_touches_no_sink(command: Command, database: Database) -> None:
    database.execute(SHOP)
    target = command.folder / "out.jsonl"
    entry = "{from: public.orders, to: sold, include: [id], columns: {double: id * 2}, where: id > 5}"
    file = command.write(
        f"name: orders\nsource: {database.url}\nsink: {{jsonl: {{path: {target}}}}}\ntables:\n  - {entry}\n"
    )
    process = command.start("preview", file, "--json", "--limit", "2")
    count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active"
    while database.query(count) == [(0,)]:
        assert process.poll() is None, process.communicate()

    database.execute("DELETE FROM orders WHERE id IN (5, 7)")
    output, errors = process.communicate(timeout=30)

    first, second = (json.loads(line) for line in output.splitlines())
    assert (first["given"]["key"], first["made"]) == ({"id": 5}, []), errors
    made = [(line["operation"], line["table"], line["key"]) for line in second["made"]]
    assert made == [("delete", "sold", {"id": 7})]
    assert not target.exists()
    assert database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []


def test_a_tail_leaves_no_slot_and_no_publication(command: Command, database: Database) -> None:
    database.execute(SHOP)
    process = command.start("tail", database.url, "--json", "--limit", "1")
    count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active"
    while database.query(count) == [(0,)]:
        assert process.poll() is None, process.communicate()

    database.execute("DELETE FROM orders WHERE id = 7")
    output, errors = process.communicate(timeout=30)

    assert json.loads(output)["key"] == {"id": 7}, errors
    assert database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []
    assert database.query("SELECT pubname FROM pg_publication") == []
