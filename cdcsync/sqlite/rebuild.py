"""Builds target tables anew beside those that are there; all of a step is done in the transaction that is open."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Step
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.rebuilding import NEW, OLD
from cdcsync.sql import quote
from cdcsync.sqlite.errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Table
    from cdcsync.ports import SinkContext
    from cdcsync.sqlite.config import SqliteConfig

_NAME: Final = r"""(?:"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`|'[^']*'|[^\s("]+)"""
_TABLE: Final = re.compile(rf"CREATE TABLE\s+{_NAME}", re.IGNORECASE)
_INDEX: Final = re.compile(rf"(CREATE (?:UNIQUE )?INDEX)\s+{_NAME}\s+ON\s+{_NAME}", re.IGNORECASE)
"""SQLite keeps the statements as they were given, but for these first words."""


@contextlib.contextmanager
def by_name(connection: sqlite3.Connection) -> Iterator[None]:
    """Let views and foreign keys mean whichever table has the name, whatever it was called before."""
    connection.execute("PRAGMA legacy_alter_table = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")


def take(connection: sqlite3.Connection, step: Step, tables: Sequence[Table]) -> None:
    """Take a step for all tables. Raises what SQLite raises."""
    for table in tables:
        _STEPS[step](connection, table.name)


def _begin(connection: sqlite3.Connection, name: str) -> None:
    _end(connection, name)
    (made,) = _one(connection, name)
    connection.execute(_TABLE.sub(lambda _: f"CREATE TABLE {quote(name + NEW)}", made, count=1))
    for index, statement in _indexes(connection, name):
        other = index.removesuffix(NEW) if index.endswith(NEW) else index + NEW
        head = f"{quote(other)} ON {quote(name + NEW)}"
        connection.execute(_INDEX.sub(lambda found, head=head: f"{found[1]} {head}", statement, count=1))  # type: ignore[misc]


def _swap(connection: sqlite3.Connection, name: str) -> None:
    _drop(connection, name + OLD)
    _rename(connection, name, name + OLD)
    _rename(connection, name + NEW, name)


def _back(connection: sqlite3.Connection, name: str) -> None:
    _drop(connection, name)
    _rename(connection, name + OLD, name)


def _end(connection: sqlite3.Connection, name: str) -> None:
    _drop(connection, name + NEW)
    _drop(connection, name + OLD)


def _drop(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {quote(name)}")


def _rename(connection: sqlite3.Connection, name: str, to: str) -> None:
    connection.execute(f"ALTER TABLE {quote(name)} RENAME TO {quote(to)}")


_STEPS: Final = {Step.BEGIN: _begin, Step.SWAP: _swap, Step.BACK: _back, Step.END: _end}


def _one(connection: sqlite3.Connection, name: str) -> Any:
    row = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", [name]).fetchone()
    if row is None:
        msg = f"target table {name} is not there"
        raise Fatal(msg, hint="start the pipeline again: it creates what is missing", status=ExitStatus.CONFIG)
    return row


def _indexes(connection: sqlite3.Connection, name: str) -> list[tuple[str, str]]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    return connection.execute(query, [name]).fetchall()


def obstacles(config: SqliteConfig, _context: SinkContext, tables: Sequence[Table]) -> list[str]:
    """Return what would stay with the table that is there when another takes its place, a line each."""
    address = f"{config.path.resolve().as_uri()}?mode=ro"
    with (
        translated(config.path, End.SINK),
        contextlib.closing(sqlite3.connect(address, uri=True, timeout=config.busy_timeout_s)) as connection,
    ):
        return [line for table in tables for line in _obstacles(connection, table.name)]


def _obstacles(connection: sqlite3.Connection, name: str) -> Iterator[str]:
    (made,) = _one(connection, name)
    if _TABLE.match(made) is None:
        yield f"table {name}: it is a virtual one"
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    for (trigger,) in connection.execute(query, [name]):
        yield f"table {name}: trigger {trigger}"
