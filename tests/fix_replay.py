"""A PostgreSQL whose log is kept for a pipeline, and what tells its rows apart to the byte."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fix_command import stopped
from fix_job import arrived
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_command import Command
    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer


@dataclass
class Kept:
    """A pipeline with `retain`, and its source."""

    command: Command
    source: Database
    sink: str = "jsonl:out.jsonl"
    tables: str = "['public.*']"
    more: str = ""
    source_more: str = ", retain: {time: 1h}"
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.name = f"orders_{self.source.name}"

    @property
    def path(self) -> str:
        """The pipeline's file, written anew."""
        server = self.source.server
        return self.command.write(
            f"name: {self.name}\nsource: {{postgres: {{host: 127.0.0.1, port: {server.port}, user: postgres, "
            f"password: {server.password}, database: {self.source.name}{self.source_more}}}}}\n"
            f"sink: '{self.sink}'\ntables: {self.tables}\nheartbeat: 300ms\n{self.more}"
            f"control: {{socket: run/{self.name}.sock}}\n"
        )

    def run(self) -> None:
        """Run until all that is committed now is stored; the slots stand then."""
        process = self.command.start("run", self.path)
        end = self.lsn()
        arrived(process, lambda: reached(self.command.status(self.name), end))
        assert stopped(process)[0] == 0

    def lsn(self) -> int:
        """Where the log is now."""
        ((lsn,),) = self.source.query("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8")
        return int(lsn)

    def place(self) -> str:
        """Where the log is now, as a word."""
        ((word,),) = self.source.query("SELECT pg_current_wal_flush_lsn()::text")
        return str(word)

    def time(self) -> str:
        """What time it is at the server."""
        ((word,),) = self.source.query(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
        )
        return f"{word}Z"

    def psql(self, script: str) -> None:
        """Run a script by the server's own client, which has to take every statement."""
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        line = [str(self.source.server.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", self.source.url]
        done = subprocess.run(line, input=script.encode(), env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def rows(self, table: str = "t", order: str = "1") -> list[tuple[Any, ...]]:
        """Every column of every row, as text."""
        columns = self.source.query(
            "SELECT string_agg(format('%%I::text', attname), ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            [table],
        )
        return self.source.query(f"SELECT {columns[0][0]} FROM {table} ORDER BY {order}")


def reached(got: dict[str, object], lsn: int) -> bool:
    """Return whether the stored position has come so far."""
    if got.get("state") != "running":
        return False
    text = str(got.get("position", "")).partition('"lsn":"')[2].partition('"')[0]
    if not text or "copying" in str(got["position"]):
        return False
    high, _, low = text.partition("/")
    return (int(high, 16) << 32 | int(low, 16)) >= lsn


@pytest.fixture(params=[15, 18], ids=lambda version: f"postgres{version}")
def kept(request: pytest.FixtureRequest, command: Command) -> Iterator[Kept]:
    """A pipeline whose log is kept, on the oldest and the newest server."""
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    database = make_database(server)
    yield Kept(command, database)
    for process in command.started:
        process.kill()
        process.communicate()
    drop_database(database)
