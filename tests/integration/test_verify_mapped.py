"""verify on real servers through routes, several targets, a computed key and a history: equal, then each planted fault."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import pytest
from fix_command import stopped
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_postgres import drop_database, make_database

from cdcsync import connectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_command import Command

ENTRIES = """\
heartbeat: 500ms
tables:
  - from: "*.orders"
    to: priced
    where: price > 20
    columns: {code: "'n' || (1000 - id)", total: price * 2, seen: _commit_time}
    key: [code]
    match: all
  - from: "*.orders"
    to: {by: "case when price < 50 then 'cheap' else 'dear' end", tables: [cheap, dear]}
    match: all
  - from: "*.orders"
    to: versions
    history: true
"""
CREATE = "CREATE TABLE orders (id int PRIMARY KEY, status varchar(20), price decimal(10, 2))"
CHANGES = [
    "INSERT INTO orders VALUES (200, 'new', 40), (201, 'new', 60)",
    "UPDATE orders SET status = 'paid', price = 70 WHERE id < 10",
    "UPDATE orders SET price = 5 WHERE id BETWEEN 60 AND 70",
    "UPDATE orders SET id = 300 WHERE id = 20",
    "DELETE FROM orders WHERE id IN (30, 90, 201)",
    "INSERT INTO orders VALUES (9999, 'last', 99)",
]
FAULTS = [
    "UPDATE priced SET total = 1 WHERE id = 80",
    "DELETE FROM priced WHERE id = 81",
    "UPDATE priced SET code = 'x' WHERE id = 82",
    "DELETE FROM cheap WHERE id = 41",
    "UPDATE dear SET status = 'x' WHERE id = 9999",
    "INSERT INTO dear VALUES (42, 'new', 42)",
    "DELETE FROM versions WHERE id = 5 AND operation = 'update'",
    "DELETE FROM versions WHERE id = 43",
    "DELETE FROM versions WHERE id = 90 AND operation = 'delete'",
]
WANT = {
    ("priced", "different", "n920"),
    ("priced", "missing", "n919"),
    ("priced", "missing", "n918"),
    ("priced", "extra", "x"),
    ("cheap", "missing", 41),
    ("dear", "different", 9999),
    ("dear", "extra", 42),
    ("versions", "different", 5),
    ("versions", "missing", 43),
    ("versions", "extra", 90),
}


class Databased(Protocol):
    """A database of a test's own."""

    @property
    def url(self) -> str: ...
    def execute(self, sql: str) -> None: ...


@dataclass(frozen=True)
class File:
    """A SQLite file as a target."""

    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:{self.path}"

    def execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=20)) as connection, connection:
            connection.execute(sql)


@contextmanager
def opened(word: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    """A fresh database of a system."""
    if word == "sqlite":
        yield File(folder / "target.db")
    elif word == "postgres":
        made = make_database(request.getfixturevalue("postgres"))
        yield made
        drop_database(made)
    else:
        there = make_mysql_database(request.getfixturevalue(word))
        yield there
        drop_mysql_database(there)


@pytest.fixture(params=["mysql8 to sqlite", "mariadb11 to postgres", "postgres to mysql8", "postgres to postgres"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Databased, Databased]]:
    first, _, second = request.param.split()
    with opened(first, request, tmp_path) as source, opened(second, request, tmp_path) as target:
        source.execute(CREATE)
        rows = ", ".join(f"({number}, 'new', {number}.5)" for number in range(1, 101))
        source.execute(f"INSERT INTO orders VALUES {rows}")
        if first == "postgres":
            source.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
        yield source, target


def verified(command: Command, path: str, patience: int) -> tuple[int, set[tuple[str, str, Any]]]:
    """Return verify's exit status and what it found."""
    got = command("verify", path, "--json", f"--patience={patience}")
    assert got.returncode in {0, 1}, got.stdout + got.stderr
    tables = orjson.loads(got.stdout)["tables"]
    assert len(tables) == 4
    return got.returncode, {
        (table["table"].rpartition(".")[2], each["kind"], next(iter(each["key"].values())))
        for table in tables
        for each in table["differences"]
    }


def copied(system: str) -> Callable[[dict[str, Any]], bool]:
    """Return what tells of the pipeline's figures whether the first copy is stored whole."""
    spec = connectors.load(system).source
    assert spec is not None
    decode: Callable[[str], Any] = spec.decode
    return lambda figures: bool(figures.get("position")) and decode(figures["position"]).is_copied


def test_every_target_is_compared_and_every_planted_fault_is_found(
    command: Command, ends: tuple[Databased, Databased]
) -> None:
    source, target = ends
    path = command.write(f"name: orders\nsource: {source.url}\nsink: {target.url}\n{ENTRIES}")
    daemon = command.start("run", path)
    command.wait(copied(source.url.partition(":")[0].replace("postgresql", "postgres")))
    for statement in CHANGES:
        source.execute(statement)
    equal = verified(command, path, 40)

    for statement in FAULTS:
        target.execute(statement)
    found = verified(command, path, 20)
    assert stopped(daemon)[0] == 0

    assert equal == (0, set())
    assert found == (1, WANT)
