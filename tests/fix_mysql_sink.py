"""A MySQL or MariaDB sink over a test's own database, and changes for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdcsync.change import Batch, Change, Column, Operation, Row, Table, Transaction, pack_version
from cdcsync.mysql.config import MysqlSink as Config
from cdcsync.mysql.config import from_url
from cdcsync.mysql.sink import MysqlSink
from cdcsync.ports import SinkContext
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from fix_mysql import MysqlDatabase

    from cdcsync.change import Item

INTEGER = Type(Kind.INTEGER, bits=32)
TEXT = Type(Kind.TEXT)
USERS = Table("", "users", (Column("id", INTEGER, nullable=False), Column("name", Type(Kind.TEXT, length=50))), ("id",))
LOGS = Table("", "logs", (Column("line", TEXT),))
INSERT, UPDATE, DELETE, TRUNCATE = Operation.INSERT, Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE


@dataclass
class Ends:
    """One sink with its store, and the count of what was written."""

    sink: MysqlSink
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


def make(database: MysqlDatabase | dict[str, Any], *tables: Table, pipeline: str = "test", **options: object) -> Ends:
    """Return ends that are not open yet, for a database or a section of a pipeline's file."""
    section = database if isinstance(database, dict) else from_url(database.url)
    config = Config.model_validate({**section, **options})
    return Ends(MysqlSink(config, SinkContext(pipeline, Path("/nowhere"), tables, "postgres:1/source")))


def opened(database: MysqlDatabase, *tables: Table, **options: Any) -> Ends:
    """Return open ends."""
    ends = make(database, *tables, **options)
    ends.open()
    return ends


def insert(*rows: Row, table: Table = USERS) -> list[Item]:
    """Return inserts."""
    return [Change(table, INSERT, None, row) for row in rows]


def update(old: Row, new: Row, table: Table = USERS) -> Item:
    """Return an update."""
    return Change(table, UPDATE, old, new)


def delete(row: Row, table: Table = USERS) -> Item:
    """Return a delete."""
    return Change(table, DELETE, row, None)


def truncate(table: Table = USERS) -> Item:
    """Return a truncate."""
    return Change(table, TRUNCATE, None, None)


def users(database: MysqlDatabase) -> list[tuple[Any, ...]]:
    """Return the target's rows."""
    return database.query("SELECT * FROM users ORDER BY id")
