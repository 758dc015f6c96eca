"""Changes that the log does not carry whole, into targets that have nothing of the row: read again at the source."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped
from fix_job import Job, arrived, same
from fix_postgres import Database, drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_command import Command

    from cdcsync.testing.servers import PostgresServer

DOCS = """
CREATE TABLE docs (id int PRIMARY KEY, n int, large text);
ALTER TABLE docs ALTER COLUMN large SET STORAGE EXTERNAL;
INSERT INTO docs SELECT i, 0, repeat(md5(i::text), 200) FROM generate_series(1, 5) i;
"""
ROWS = "SELECT id, n, large FROM docs ORDER BY id"


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def job(command: Command, database: Database, target: Database) -> Job:
    """A pipeline that begins when the rows are there already, and copies none."""
    database.execute(DOCS)
    url = f"{database.url}?start=now" if "?" not in database.url else f"{database.url}&start=now"
    return Job(command, database, target, source_url=url, tables="['public.docs']")


def status(job: Job) -> dict[str, object]:
    got: dict[str, object] = json.loads(job.command("status", "--json", job.path).stdout or "{}")
    return got


def test_an_update_without_its_large_value_is_completed_from_the_source(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: status(job).get("state") == "running" and bool(status(job).get("position")))

    job.source.execute("UPDATE docs SET n = 1 WHERE id IN (1, 2)")
    job.source.execute("UPDATE docs SET id = 7, n = 2 WHERE id = 3")
    job.source.execute("UPDATE docs SET n = n + 1; DELETE FROM docs WHERE id = 4")

    arrived(process, lambda: same(job.source, job.target, ROWS))
    assert int(str(status(job)["reread"])) >= 3
    assert stopped(process)[0] == 0


def test_with_rereading_off_such_an_update_stops_the_pipeline(job: Job) -> None:
    job.more = "reread: 'off'"
    process = job.command.start("run", job.path)
    arrived(process, lambda: status(job).get("state") == "running" and bool(status(job).get("position")))
    job.source.execute("UPDATE docs SET n = 1 WHERE id = 1")

    code, said = process.wait(30), process.communicate()[1]

    assert code == 65
    assert "REPLICA IDENTITY FULL" in said


def test_large_values_are_whole_when_updates_come_before_their_chunks(
    command: Command, database: Database, tmp_path: Path
) -> None:
    database.execute(DOCS)
    database.execute("INSERT INTO docs SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(6, 3000) i")
    server = database.server
    path = command.write(
        "name: docs\nsource: {postgres: {"
        f"host: {server.host}, port: {server.port}, user: {server.user}, database: {database.name}, "
        f"password: '{server.password}', rows_per_s_max: 1000}}}}\n"
        f"sink: {{sqlite: {{path: '{tmp_path / 'docs.db'}'}}}}\ntables: ['public.docs']\n"
    )
    process = command.start("run", path)

    def rows() -> list[tuple[object, ...]]:
        with sqlite3.connect(tmp_path / "docs.db") as connection:
            try:
                return connection.execute(ROWS).fetchall()
            except sqlite3.OperationalError:
                return []

    arrived(process, lambda: len(rows()) > 100)
    for key in range(2900, 3000, 7):
        database.execute("UPDATE docs SET n = n + 1 WHERE id = %s", [key])
        database.execute("UPDATE docs SET id = id - 10000 WHERE id = %s", [key - 500])

    arrived(process, lambda: rows() == database.query(ROWS))
    assert stopped(process)[0] == 0
