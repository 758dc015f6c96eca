"""What `check` finds and mends at a real server, and what `drop` removes and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdcsync.connectors import Finding, Severity
from cdcsync.ports import SourceContext, Wanted
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.check import check, circles
from cdcsync.postgres.config import Partitions, PostgresSource, from_url
from cdcsync.postgres.connection import connect
from cdcsync.postgres.drop import drop
from cdcsync.postgres.publication import ensure, select
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from fix_postgres import Database


class Named:
    def __init__(self, *names: str) -> None:
        self._names = names

    def wants(self, schema: str, name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "public" and name in self._names else None


def section(database: Database, **fields: Any) -> PostgresSource:
    return PostgresSource.model_validate({**from_url(database.url), "slot": f"c_{database.name}", **fields})


def errors(findings: list[Finding]) -> dict[str, str]:
    return {found.subject: found.remedy or "" for found in findings if found.severity is Severity.ERROR}


def test_a_server_that_has_all_is_found_well(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY, r int4range)")

    got = check(section(each_database), SourceContext("p", Named("a"), Path()))

    assert errors(got) == {}
    assert [found.message for found in got if found.subject == "table public.a"] == [
        "as PostgreSQL's own text: r int4range"
    ]
    assert each_database.query("SELECT 1 FROM pg_publication") == []


def test_every_finding_has_the_statement_that_mends_it(each_database: Database) -> None:
    each_database.execute(
        "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN PASSWORD 'poor';"
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int)"
    )
    poor = section(each_database, user="poor", password="poor")

    got = errors(check(poor, SourceContext("p", Named("a", "b"), Path())))

    assert got["user poor"] == 'ALTER ROLE "poor" REPLICATION;'
    for statement in [remedy for subject, remedy in got.items() if subject.startswith(("user", "database"))]:
        each_database.execute(statement)
    assert "REPLICA IDENTITY FULL" in got["table public.b"]
    assert got[f"database {each_database.name}"].startswith("GRANT CREATE ON DATABASE")
    each_database.execute("DROP OWNED BY poor; DROP ROLE poor")


def test_a_server_without_logical_wal_is_found() -> None:
    server = PostgresServer(15, settings={"wal_level": "replica"}).start()
    try:
        config = PostgresSource.model_validate(from_url(server.url()))
        got = errors(check(config, SourceContext("p", Named("a"), Path())))
    finally:
        server.stop()

    assert got["wal_level"].startswith("ALTER SYSTEM SET wal_level = logical;")


def test_two_pipelines_in_a_circle_are_found(database: Database) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE cdcsync_positions (pipeline text, source text, tables text, position text);"
        """INSERT INTO cdcsync_positions VALUES ('other', 'postgres:1/x', '["public.a"]', '1')"""
    )
    with connect(section(database), application_name="test") as connection:
        tables = [table for table, _ in select(Catalogue(connection), Named("a"), Partitions.ROOT)]
        got = circles(connection, tables, SourceContext("p", Named("a"), Path(), "postgres:1/x"))
        none = circles(connection, tables, SourceContext("p", Named("a"), Path(), "postgres:2/x"))

    assert [found.severity for found in got] == [Severity.ERROR]
    assert "a circle" in got[0].message
    assert none == []


def test_drop_removes_what_is_ours_and_says_what_it_leaves(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE PUBLICATION theirs")
    config = section(each_database)
    context = SourceContext("p", Named("a"), Path())
    with connect(config, application_name="test") as connection:
        ensure(connection, config, context, fresh=True)
    each_database.execute(f"SELECT pg_create_logical_replication_slot('{config.slot}', 'pgoutput')")
    each_database.execute(f"SELECT pg_create_logical_replication_slot('{config.slot}_retain', 'pgoutput')")

    got = drop(config, context)

    assert got == [
        f"slot {config.slot} removed",
        f"slot {config.slot}_retain removed",
        f"publication {config.slot} removed",
    ]
    assert drop(config, context) == []
    assert drop(section(each_database, publication={"name": "theirs"}), context) == [
        "publication theirs left: it was not made for this pipeline"
    ]
    assert each_database.query("SELECT pubname FROM pg_publication") == [("theirs",)]
