"""Every type of MySQL and MariaDB into MySQL, MariaDB, PostgreSQL and SQLite, row by row."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_mysql_sink import make
from integration.test_mysql_types import cases, fill

from cdcsync.change import Change, Column, Operation, Table
from cdcsync.mysql.config import MysqlSink as MysqlConfig
from cdcsync.mysql.config import MysqlSource, ZeroDates
from cdcsync.mysql.config import from_url as mysql_url
from cdcsync.mysql.scan import sink_scanner, source_scanner
from cdcsync.ports import SinkContext, SourceContext, Wanted
from cdcsync.postgres.config import PostgresSink as PostgresConfig
from cdcsync.postgres.config import from_url as postgres_url
from cdcsync.postgres.scan import sink_scanner as postgres_scanner
from cdcsync.postgres.sink import PostgresSink
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.scan import sink_scanner as sqlite_scanner
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.testing.conformance.samples import batch
from cdcsync.types import Kind, Type
from cdcsync.verify.values import differing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fix_postgres import Database
    from integration.test_mysql_types import Case

    from cdcsync.change import Row
    from cdcsync.connectors import Scanner
    from cdcsync.mysql.sink import MysqlSink
    from cdcsync.testing.mysql_servers import MysqlServer

CONTEXT = SinkContext("p", Path("/nowhere"))


class All:
    def wants(self, _schema: str, _name: str) -> Wanted | None:
        return Wanted.KEYED


def read(scanner: Scanner, table: Table) -> list[Row]:
    try:
        return list(scanner.scan(table))
    finally:
        scanner.close()


def logged(database: MysqlDatabase, listed: list[Case]) -> tuple[Table, list[Row]]:
    """The table as the log has it, in no schema, and its two rows, which the source's own SELECT gives as well."""
    _, null, update = fill(database, listed)
    assert update.after is not None
    assert null.after is not None
    rows = [update.after, null.after]
    config = MysqlSource.model_validate({**mysql_url(database.url), "start": "now"})
    assert read(source_scanner(config, SourceContext("p", All(), Path("/nowhere"))), update.table) == rows
    return replace(update.table, schema=""), rows


def written(sink: MysqlSink | PostgresSink | SqliteSink, table: Table, rows: Sequence[Row]) -> None:
    """Insert the rows, then update the first to what it is."""
    changes = [Change(table, Operation.INSERT, None, row) for row in rows]
    sink.positions().open("")
    sink.open()
    sink.write(batch(0, *changes))
    sink.write(batch(1, Change(table, Operation.UPDATE, rows[0], rows[0])))
    sink.close()


def unlike(
    table: Table, rows: Sequence[Row], held: Sequence[Row], listed: list[Case], by_value: list[str]
) -> list[str]:
    """The types whose values are not what they were."""
    assert len(rows) == len(held)
    found = {name for row, other in zip(rows, held, strict=True) for name in differing(table, row, other, by_value)}
    return [listed[int(name[1:])][0] if name.startswith("c") else name for name in sorted(found)]


@contextmanager
def a_database(server: MysqlServer) -> Iterator[MysqlDatabase]:
    made = make_mysql_database(server)
    try:
        yield made
    finally:
        drop_mysql_database(made)


@pytest.mark.parametrize("target", ["mysql8", "mariadb10", "mariadb11"])
def test_into_mysql_all_but_a_decimal_inside_json_that_its_text_cannot_say(
    each_mysql_database: MysqlDatabase, request: pytest.FixtureRequest, target: str
) -> None:
    listed = [case for case in cases(each_mysql_database.server) if "-123456789012345678901234567890.5" not in case[1]]
    table, rows = logged(each_mysql_database, listed)

    with a_database(request.getfixturevalue(target)) as there:
        written(make(there, table).sink, table, rows)
        config = MysqlConfig.model_validate(mysql_url(there.url))
        scanner = sink_scanner(config, CONTEXT)
        assert scanner.by_value is not None
        by_value = list(scanner.by_value(table))
        held = read(scanner, table)

    assert unlike(table, rows, held, listed, by_value) == []


def fits_postgres(case: Case) -> bool:
    """A time of PostgreSQL's is of one day, and its text has no NUL."""
    return not (case[0].startswith("time(") and "-" in case[1]) and "838" not in case[1] and r"\0" not in case[1]


def test_into_postgres_every_value_is_the_same(each_mysql_database: MysqlDatabase, database: Database) -> None:
    listed = [case for case in cases(each_mysql_database.server) if fits_postgres(case)]
    table, rows = logged(each_mysql_database, listed)
    config = PostgresConfig.model_validate(postgres_url(database.url))

    written(PostgresSink(config, replace(CONTEXT, tables=(table,))), table, rows)

    assert unlike(table, rows, read(postgres_scanner(config, CONTEXT), table), listed, []) == []


def test_into_sqlite_every_value_is_the_same(each_mysql_database: MysqlDatabase, tmp_path: Path) -> None:
    listed = cases(each_mysql_database.server)
    table, rows = logged(each_mysql_database, listed)
    config = SqliteConfig(path=tmp_path / "t.db")

    written(SqliteSink(config, SinkContext("p", tmp_path, (table,))), table, rows)

    assert list(map(repr, read(sqlite_scanner(config, CONTEXT), table))) == list(map(repr, rows))


def test_dates_that_no_calendar_has_are_kept_as_they_are(each_mysql_database: MysqlDatabase) -> None:
    columns = (
        Column("id", Type(Kind.INTEGER, bits=32), nullable=False),
        Column("d", Type(Kind.DATE, name="date", system="mysql")),
        Column("t", Type(Kind.TIMESTAMP, precision=0, name="datetime", system="mysql")),
        Column("z", Type(Kind.TIMESTAMPTZ, precision=0, name="timestamp", system="mysql")),
    )
    table = Table("", "t", columns, ("id",))
    rows: list[Row] = [
        (1, "0000-00-00", "0000-00-00T00:00:00", "0000-00-00T00:00:00Z"),
        (2, "2020-00-00", "2020-02-31T10:00:00", "2038-01-19T03:14:07Z"),
        (3, "0000-02-00", "0000-01-01T00:00:00", "1970-01-01T00:00:01Z"),
    ]

    written(make(each_mysql_database, table).sink, table, rows)

    section = mysql_url(each_mysql_database.url)
    source = MysqlSource.model_validate({**section, "start": "now", "zero_dates": ZeroDates.TEXT})
    assert read(sink_scanner(MysqlConfig.model_validate(section), CONTEXT), table) == rows
    assert read(source_scanner(source, SourceContext("p", All(), Path("/nowhere"))), table) == rows
