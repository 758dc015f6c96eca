"""A PostgreSQL sink over a test's own database, and changes for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdcsync.change import Batch, Change, Column, Operation, Row, Table, Transaction, pack_version
from cdcsync.ports import SinkContext
from cdcsync.postgres.config import PostgresSink as Config
from cdcsync.postgres.config import from_url
from cdcsync.postgres.sink import PostgresSink
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from fix_postgres import Database

    from cdcsync.change import Item

INTEGER = Type(Kind.INTEGER, bits=32, name="integer", system="postgres")
TEXT = Type(Kind.TEXT, name="text", system="postgres")
USERS = Table("public", "users", (Column("id", INTEGER, nullable=False), Column("name", TEXT)), ("id",))
LOGS = Table("public", "logs", (Column("line", TEXT),))
INSERT, UPDATE, DELETE = Operation.INSERT, Operation.UPDATE, Operation.DELETE


@dataclass
class Ends:
    """One sink with its store, and the count of what was written."""

    sink: PostgresSink
    written: int = 0

    def open(self) -> int:
        """Open both, as the pipeline does."""
        self.sink.positions().open("")
        return self.sink.open()

    def close(self) -> None:
        """Close both."""
        self.sink.close()
        self.sink.positions().close()

    def batch(self, *items: Item, part: int = 0, last: bool = True) -> Batch:
        """Return a batch of one transaction, or one part."""
        if last or part == 0:
            self.written += 1
        at = MemoryPosition(1, self.written, 0 if last else part + 1)
        transaction = Transaction("t", 0, at, pack_version(1, self.written), items, range(len(items)), part, last)
        return Batch((transaction,), at, len(items), 1)

    def write(self, *items: Item) -> Any:
        """Write one transaction."""
        return self.sink.write(self.batch(*items))


def make(database: Database | dict[str, Any], *tables: Table, pipeline: str = "test", **options: object) -> Ends:
    """Return ends that are not open yet, for a database or a section of a pipeline's file."""
    section = database if isinstance(database, dict) else from_url(database.url)
    config = Config.model_validate({**section, **options})
    return Ends(PostgresSink(config, SinkContext(pipeline, Path("/nowhere"), tables, "postgres:1/source")))


def insert(*rows: Row, table: Table = USERS) -> list[Item]:
    """Return inserts."""
    return [Change(table, INSERT, None, row) for row in rows]


def update(old: Row, new: Row, table: Table = USERS) -> Item:
    """Return an update."""
    return Change(table, UPDATE, old, new)


def users(database: Database) -> list[tuple[Any, ...]]:
    """Return the target's rows."""
    return database.query("SELECT * FROM users ORDER BY id")
