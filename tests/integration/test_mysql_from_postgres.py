"""A real PostgreSQL into MySQL and both MariaDBs: every type exactly, or refused by its column; verify finds a cell."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
from fix_postgres_types import COLUMNS

from cdcsync.errors import Rejected
from cdcsync.mapping.model import TableMapping
from cdcsync.mapping.transform import Mapping
from cdcsync.mysql.config import MysqlSink as SinkConfig
from cdcsync.mysql.config import from_url as mysql_url
from cdcsync.mysql.scan import sink_scanner
from cdcsync.mysql.sink import MysqlSink
from cdcsync.pipeline import Pipeline
from cdcsync.ports import SinkContext, SourceContext
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.connector import CONNECTOR
from cdcsync.postgres.scan import source_scanner
from cdcsync.postgres.source import PostgresWal
from cdcsync.verify import Ends, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

    from cdcsync.change import Batch, Row

TYPES = (
    "CREATE TYPE mood AS ENUM ('so so', 'fine'); CREATE DOMAIN positive AS int CHECK (value > 0); "
    'CREATE TYPE "Pair, ""x""" AS (a int, b text)'
)


def is_held(name: str, value: Any) -> bool:
    """Whether MySQL has a value like it: numbers are finite, dates go from the year 0 to 9999."""
    if name in {"real", "double precision"}:
        return bool(value not in {float("inf"), float("-inf")})
    return not (name in {"date", "timestamp", "timestamptz"} and value[0] in "+-i")


HELD = [column for column in COLUMNS if is_held(column[0], column[2])]
REFUSED = [column for column in COLUMNS if not is_held(column[0], column[2])]


class Run:
    """A pipeline of a test: PostgreSQL's table t, and nothing else, into t of the MySQL database."""

    def __init__(self, source: Database, target: MysqlDatabase, folder: Path) -> None:
        self.mapping = Mapping.of([TableMapping.model_validate({"from": "public.t", "to": "t"})])
        self.config = PostgresSource(**from_url(source.url))
        self.context = SourceContext("p", self.mapping, folder)
        assert CONNECTOR.source is not None
        self.source_tables = CONNECTOR.source.tables(self.config, self.context)
        self.tables = tuple(self.mapping.tables(self.source_tables))
        self.sink_config = SinkConfig.model_validate(mysql_url(target.url))
        self.sink_context = SinkContext("p", folder, self.tables, "postgres:1/t")
        self.sink = MysqlSink(self.sink_config, self.sink_context)
        self.pipeline = Pipeline(PostgresWal(self.config, self.context), self.mapping, self.sink)
        self.thread = threading.Thread(target=self.pipeline.run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def rows(self) -> list[Row]:
        scanner = sink_scanner(self.sink_config, self.sink_context)
        try:
            return list(scanner.scan(self.tables[0]))
        finally:
            scanner.close()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            assert self.thread.is_alive()
            time.sleep(0.05)

    def differences(self) -> list[tuple[str, tuple[str, ...]]]:
        source = source_scanner(self.config, self.context)
        sink = sink_scanner(self.sink_config, self.sink_context)
        try:
            result = verify(Ends(source, sink, self.mapping, patience_s=5), self.source_tables)
        finally:
            source.close()
            sink.close()
        return [(each.kind, each.columns) for table in result.tables for each in table.differences]


def prepared(database: Database, columns: list[tuple[str, str, Any]]) -> None:
    database.execute(TYPES)
    declared = ", ".join(f"c{index} {name}" for index, (name, _, _) in enumerate(columns))
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {declared})")


def test_every_type_that_mysql_can_hold_is_kept_exactly(
    database: Database, each_mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    prepared(database, HELD)
    values = ", ".join(literal for _, literal, _ in HELD)
    database.execute(f"INSERT INTO t VALUES (1, {values}); INSERT INTO t (id) VALUES (2)")

    with Run(database, each_mysql_database, tmp_path) as run:
        run.until(lambda: run.pipeline.progress.changes >= 2)
        database.execute(f"INSERT INTO t VALUES (11, {values}); INSERT INTO t (id) VALUES (12)")
        run.until(lambda: len(run.rows()) == 4)
        got = run.rows()
        differing = run.differences()
        each_mysql_database.execute("UPDATE t SET c1 = 5 WHERE id = 11")
        planted = run.differences()

    for (name, _, want), copied, logged in zip(HELD, got[0][1:], got[2][1:], strict=True):
        assert (name, repr(copied), repr(logged)) == (name, repr(want), repr(want))
    assert [set(row[1:]) for row in (got[1], got[3])] == [{None}, {None}]
    assert differing == []
    assert planted == [("different", ("c1",))]


def batches(run: Run) -> Iterator[Batch]:
    source = PostgresWal(run.config, run.context)
    try:
        source.open(None, 0)
        for _ in range(60):
            batch = source.poll(0.1)
            if batch is not None:
                yield run.mapping.apply(batch)
                source.acknowledge(batch.position)
    finally:
        source.close()


def written(run: Run) -> None:
    for batch in batches(run):
        run.sink.write(batch)


def test_what_mysql_cannot_hold_is_refused_by_its_column(
    database: Database, each_mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    prepared(database, REFUSED)
    for index, (_, literal, _) in enumerate(REFUSED):
        database.execute(f"INSERT INTO t (id, c{index}) VALUES ({index}, {literal})")
    database.execute("INSERT INTO t (id) VALUES (1000)")
    run = Run(database, each_mysql_database, tmp_path)
    run.sink.positions().open("")
    run.sink.open()

    with pytest.raises(Rejected) as caught:
        written(run)
    reasons = list(caught.value.reasons.values())
    run.sink.close()

    assert len(reasons) == len(REFUSED) > 5
    assert {reason.split()[1] for reason in reasons} == {f"c{index}" for index in range(len(REFUSED))}
    assert run.rows() == []


def test_keys_of_every_kind_find_their_rows(
    database: Database, each_mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    database.execute(TYPES)
    database.execute(
        "CREATE TABLE t (a text, b numeric, c timestamptz, d uuid, e date, f bytea, g real, h mood, i char(4), n int, "
        "big text, PRIMARY KEY (a, b, c, d, e, f, g, h, i)); ALTER TABLE t ALTER big SET STORAGE EXTERNAL"
    )
    row = "('{}', 1.50, '2026-01-01 00:00:00.25+00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '0001-02-03', '\\x00ff', 0.1, "
    row += "'so so', 'x', {}, repeat('{}', 5000))"
    for name in ("é", "É", "e ", "''"):
        database.execute("INSERT INTO t VALUES " + row.format(name, 1, "y"))

    with Run(database, each_mysql_database, tmp_path) as run:
        run.until(lambda: run.pipeline.progress.changes >= 4)
        database.execute("UPDATE t SET n = 2 WHERE a = 'é'; DELETE FROM t WHERE a = 'É'")
        database.execute("UPDATE t SET a = 'moved', e = '2026-01-01' WHERE a = 'e '")
        database.execute("UPDATE t SET n = 3 WHERE a = ''''; INSERT INTO t VALUES " + row.format("last", 9, "z"))
        run.until(lambda: any(each[0] == "last" for each in run.rows()))
        differing = run.differences()

    assert sorted((each[0], each[9]) for each in run.rows()) == [("'", 3), ("last", 9), ("moved", 1), ("é", 2)]
    assert differing == []
