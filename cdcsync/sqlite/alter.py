"""Alters targets in SQLite to another version of their table, and keeps what they look like beside the rows.

SQLite adds, drops and renames columns; for another type, key or NOT NULL the table is built anew, as its manual says
(sqlite.org/lang_altertable.html, 7).
"""

from __future__ import annotations

import contextlib
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.altering import misfit, planned, refused
from cdcsync.connectors import Planned
from cdcsync.errors import End
from cdcsync.evolution import NAME, Alteration, Applied, decode, encode
from cdcsync.sql import create_table, misfits, names, quote
from cdcsync.sqlite.errors import Verdict, translated, verdict
from cdcsync.sqlite.store import table_there
from cdcsync.sqlite.types import affinity, declare, encoder, fits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Column, Table
    from cdcsync.evolution import Step
    from cdcsync.ports import SinkContext
    from cdcsync.sqlite.config import SqliteConfig

_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS {NAME} (pipeline TEXT NOT NULL, target TEXT NOT NULL, version INTEGER NOT NULL,
    shape TEXT NOT NULL, PRIMARY KEY (pipeline, target))
"""
_KEEP: Final = f"""
INSERT INTO {NAME} (pipeline, target, version, shape) VALUES (?, ?, ?, ?)
ON CONFLICT (pipeline, target) DO UPDATE SET version = excluded.version, shape = excluded.shape
"""  # noqa: S608  a constant
_NEW: Final = "cdcsync_new"


class _There(NamedTuple):
    """A column as the file has it."""

    name: str
    declared: str
    required: bool
    default: str | None
    place: int
    """In the primary key, from 1; 0 outside."""


class SqliteGround:
    """See `altering.Ground`. Everything happens in the transaction that is open, and is undone with it."""

    def __init__(self, connection: Callable[[], sqlite3.Connection], pipeline: str) -> None:
        self._connect = connection
        self._pipeline = pipeline

    def load(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept."""
        self._connect().execute(_CREATE)
        return self.kept()

    def kept(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept, changing nothing."""
        connection = self._connect()
        if table_there(connection, NAME) is None:
            return {}
        query = f"SELECT shape, version FROM {NAME} WHERE pipeline = ?"  # noqa: S608  a constant
        applied = [decode(shape, version) for shape, version in connection.execute(query, (self._pipeline,))]
        return {(each.table.schema, each.table.name): each for each in applied}

    def keep(self, table: Table, applied: Applied | None) -> None:
        """Keep what the target looks like, or forget it."""
        if applied is None:
            query = f"DELETE FROM {NAME} WHERE pipeline = ? AND target = ?"  # noqa: S608  a constant
            self._connect().execute(query, (self._pipeline, table.qualified))
            return
        row = (self._pipeline, table.qualified, applied.version, encode(applied))
        self._connect().execute(_KEEP, row)

    def alter(self, table: Table, done: Sequence[Step]) -> None:
        """Do what is not done yet. Raises Transient and Fatal."""
        for step in done:
            self._step(table.name, step)

    def move(self, table: Table, new: Table | None) -> None:
        """Rename or drop the target."""
        if not self._columns(table.name):
            return
        if new is None:
            self._run(table.name, f"DROP TABLE {quote(table.name)}")
        elif new.name != table.name:
            self._run(table.name, f"ALTER TABLE {quote(table.name)} RENAME TO {quote(new.name)}")

    def _step(self, name: str, step: Step) -> None:
        there = {each.name: each for each in self._columns(name)}
        old, new, alter = step.old, step.new, f"ALTER TABLE {quote(name)}"
        if step.kind is Alteration.KEY:
            key = {column: place for place, column in enumerate(step.key, 1)}
            self._rebuild(name, [each._replace(place=key.get(each.name, 0)) for each in there.values()])
        elif step.kind is Alteration.RENAME and old is not None and new is not None:
            if old.name in there and new.name not in there:
                self._run(name, f"{alter} RENAME COLUMN {quote(old.name)} TO {quote(new.name)}")
        elif new is None and old is not None:
            if old.name in there:
                self._run(name, f"{alter} DROP COLUMN {quote(old.name)}")
        elif new is not None and step.kind is Alteration.ADD:
            if new.name not in there:
                self._run(name, f"{alter} ADD COLUMN {quote(new.name)} {declare(new.type)}{_default(new)}")
        elif new is not None and new.name in there:
            self._change(name, step, list(there.values()))

    def _change(self, name: str, step: Step, there: list[_There]) -> None:
        """Give a column another type, or let it be null."""
        assert step.new is not None  # noqa: S101  asked for a column that is there
        wanted = declare(step.new.type)
        changed = []
        for each in there:
            if each.name != step.new.name:
                changed.append(each)
            elif step.kind is Alteration.NULLABLE:
                changed.append(each._replace(required=each.place > 0))
            else:
                kept = each.declared if affinity(each.declared) == affinity(wanted) else wanted
                changed.append(each._replace(declared=kept))
        if changed != there:
            self._rebuild(name, changed)

    def _rebuild(self, name: str, columns: list[_There]) -> None:
        """Build the table anew with other columns of the same names; indexes of other hands are made again."""
        query = "SELECT sql FROM sqlite_schema WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql IS NOT NULL"
        others = [row[0] for row in self._connect().execute(query, (name,)).fetchall()]
        lines = [_line(each) for each in columns]
        key = [each.name for each in sorted(columns, key=lambda each: each.place) if each.place]
        if key:
            lines.append(f"PRIMARY KEY ({names(key)})")
        every = names([each.name for each in columns])
        self._run(name, f"CREATE TABLE {_NEW} ({', '.join(lines)})")
        self._run(name, f"INSERT INTO {_NEW} ({every}) SELECT {every} FROM {quote(name)}")  # noqa: S608  quoted
        self._run(name, f"DROP TABLE {quote(name)}")
        self._run(name, f"ALTER TABLE {_NEW} RENAME TO {quote(name)}")
        for statement in others:
            self._run(name, statement)

    def _columns(self, name: str) -> list[_There]:
        query = "SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info(?)"
        rows = self._connect().execute(query, (name,)).fetchall()
        return [_There(each, declared, bool(required), default, key) for each, declared, required, default, key in rows]

    def _run(self, name: str, statement: str) -> None:
        try:
            self._connect().execute(statement)
        except sqlite3.Error as error:
            found = verdict(error)
            if found is None or found[0] is Verdict.TRANSIENT:
                raise
            raise refused(name, statement, str(error)) from error


def plan(config: SqliteConfig, context: SinkContext) -> list[Planned]:
    """Return what the next run does to the targets. Raises Transient and Fatal."""
    found: list[Planned] = []
    with contextlib.closing(_read_only(config)) as connection, translated(config.path, End.SINK):
        ground = SqliteGround(lambda: connection, context.pipeline)
        kept = ground.kept()
        for table in context.tables:
            name, there = quote(table.name), table_there(connection, table.name)
            if there is None:
                found.append(Planned(name, "is created", create_table(table, declare, name=name)))
                continue
            applied, follows = kept.get((table.schema, table.name)), context.follows(table)
            steps = planned(name, follows, applied, table, partial(_shown, name))
            lines = misfits(table, there, fits) if steps is None else []
            found += [misfit(name, line) for line in lines] if steps is None else steps
    return found


def _read_only(config: SqliteConfig) -> sqlite3.Connection:
    """Return a connection that makes no file."""
    if not config.path.exists():
        return sqlite3.connect(":memory:")
    return sqlite3.connect(f"{config.path.resolve().as_uri()}?mode=ro", uri=True)


def _shown(name: str, step: Step) -> list[str]:
    """Return a step as SQL; what SQLite has no ALTER for is shown as a comment."""
    old, new = step.old, step.new
    if step.kind is Alteration.ADD and new is not None:
        return [f"ALTER TABLE {name} ADD COLUMN {quote(new.name)} {declare(new.type)}{_default(new)}"]
    if step.kind is Alteration.RENAME and old is not None and new is not None:
        return [f"ALTER TABLE {name} RENAME COLUMN {quote(old.name)} TO {quote(new.name)}"]
    if new is None and old is not None:
        return [f"ALTER TABLE {name} DROP COLUMN {quote(old.name)}"]
    what = f"{quote(new.name)} {declare(new.type)}" if new is not None else f"PRIMARY KEY ({names(step.key)})"
    return [f"-- {name} is built anew, with {what}"]


def _line(each: _There) -> str:
    required = " NOT NULL" if each.required or each.place else ""
    default = "" if each.default is None else f" DEFAULT {each.default}"
    return f"{quote(each.name)} {each.declared}{required}{default}"


def _default(column: Column) -> str:
    if column.initial is None:
        return ""
    write = encoder(column.type)
    value = column.initial if write is None else write(column.initial)
    if isinstance(value, bytes):
        return f" DEFAULT x'{value.hex()}'"
    if isinstance(value, bool | int | float):
        return f" DEFAULT {value + 0}"
    return " DEFAULT '" + str(value).replace("'", "''") + "'"
