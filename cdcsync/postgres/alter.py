"""Alters targets in PostgreSQL to another version of their table, and keeps what they look like beside the rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from cdcsync.altering import misfit, planned, refused
from cdcsync.connectors import Planned
from cdcsync.errors import End, Transient
from cdcsync.evolution import NAME, Alteration, Applied, decode, encode
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import describe, verdict
from cdcsync.postgres.target import Target, creatable
from cdcsync.postgres.types import encoder
from cdcsync.sql import quote
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Column, Table
    from cdcsync.evolution import Step
    from cdcsync.ports import SinkContext
    from cdcsync.postgres.config import PostgresSink
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.target import TargetColumn

_CREATE: Final = """
CREATE TABLE {table} (
    pipeline text NOT NULL,
    target text NOT NULL,
    version bigint NOT NULL,
    shape text NOT NULL,
    altered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, target)
)
"""
_KEEP: Final = """
INSERT INTO {table} AS kept (pipeline, target, version, shape) VALUES (%s, %s, %s, %s)
ON CONFLICT (pipeline, target) DO UPDATE SET version = excluded.version, shape = excluded.shape, altered_at = now()
"""
_PRIMARY: Final = """
SELECT conname::text FROM pg_catalog.pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'p'
"""


class PostgresGround:
    """See `altering.Ground`. Everything happens in the transaction that is open, and is undone with it."""

    def __init__(self, connection: Connection, target: Target, schema: str, pipeline: str) -> None:
        self._connection = connection
        self._target = target
        self._table = sql.Identifier(schema, NAME)
        self._pipeline = pipeline

    def load(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept."""
        if not self._is_there():
            self._connection.execute(sql.SQL(_CREATE).format(table=self._table))
        return self.kept()

    def _is_there(self) -> bool:
        name = self._table.as_string(self._connection)
        found = self._connection.execute("SELECT to_regclass(%s)", [name]).fetchone()
        return found is not None and found[0] is not None

    def kept(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept, changing nothing."""
        if not self._is_there():
            return {}
        query = sql.SQL("SELECT shape, version FROM {} WHERE pipeline = %s").format(self._table)
        rows = self._connection.execute(query, [self._pipeline]).fetchall()
        applied = [decode(shape, version) for shape, version in rows]
        return {(each.table.schema, each.table.name): each for each in applied}

    def keep(self, table: Table, applied: Applied | None) -> None:
        """Keep what the target looks like, or forget it."""
        if applied is None:
            query = sql.SQL("DELETE FROM {} WHERE pipeline = %s AND target = %s").format(self._table)
            self._connection.execute(query, [self._pipeline, table.qualified])
            return
        values = [self._pipeline, table.qualified, applied.version, encode(applied)]
        self._connection.execute(sql.SQL(_KEEP).format(table=self._table), values)

    def alter(self, table: Table, done: Sequence[Step]) -> None:
        """Run what is not done yet, statement by statement. Raises Transient and Fatal."""
        name = self._target.name(table)
        for step in done:
            for statement in self.statements(table, step):
                self._run(name, statement)

    def move(self, table: Table, new: Table | None) -> None:
        """Rename or drop the target."""
        name = self._target.name(table)
        if not self._target.columns(table):
            return
        if new is None:
            self._run(name, f"DROP TABLE {name}")
            return
        if new.schema != table.schema:
            self._run(name, f"ALTER TABLE {name} SET SCHEMA {self._target.name(new).rpartition('.')[0]}")
            name = f"{self._target.name(new).rpartition('.')[0]}.{quote(table.name)}"
        if new.name != table.name:
            self._run(name, f"ALTER TABLE {name} RENAME TO {quote(new.name)}")

    def statements(self, table: Table, step: Step) -> list[str]:
        """Return what of a step is still to be done."""
        name, columns = self._target.name(table), self._target.columns(table)
        old, new = step.old, step.new
        if step.kind is Alteration.KEY:
            return self._key(name, step)
        if step.kind is Alteration.RENAME and old is not None and new is not None:
            if old.name not in columns or new.name in columns:
                return []
            return [f"ALTER TABLE {name} RENAME COLUMN {quote(old.name)} TO {quote(new.name)}"]
        if new is None:
            return [f"ALTER TABLE {name} DROP COLUMN IF EXISTS {quote(old.name)}"] if old is not None else []
        if step.kind is Alteration.ADD:
            return list(self._add(name, new)) if new.name not in columns else []
        if new.name not in columns:
            return []
        if step.kind is Alteration.NULLABLE:
            return [f"ALTER TABLE {name} ALTER COLUMN {quote(new.name)} DROP NOT NULL"]
        return list(self._type(name, new, columns[new.name]))

    def _add(self, name: str, column: Column) -> Iterator[str]:
        yield from self._target.types(column)
        added = f"ALTER TABLE {name} ADD COLUMN {quote(column.name)} {self._target.declare(column.type)}"
        if column.initial is None:
            yield added
            return
        yield f"{added} DEFAULT {literal(column)}"
        yield f"ALTER TABLE {name} ALTER COLUMN {quote(column.name)} DROP DEFAULT"

    def _type(self, name: str, column: Column, there: TargetColumn) -> Iterator[str]:
        wanted = self._target.declare(column.type)
        if creatable(column.type) and there.base == wanted:
            for label in column.type.labels:
                yield f"ALTER TYPE {wanted} ADD VALUE IF NOT EXISTS {_text(label)}"
            return
        if there.base == wanted:
            return
        yield from self._target.types(column)
        changed = f"ALTER TABLE {name} ALTER COLUMN {quote(column.name)}"
        if there.defaulted and not there.generated:
            yield f"{changed} DROP DEFAULT"
        yield f"{changed} TYPE {wanted} USING {quote(column.name)}::{wanted}"

    def _key(self, name: str, step: Step) -> list[str]:
        found = self._connection.execute(_PRIMARY, [name]).fetchone()
        parts = [f"DROP CONSTRAINT {quote(found[0])}"] if found else []
        if step.key:
            parts.append(f"ADD PRIMARY KEY ({', '.join(map(quote, step.key))})")
        return [f"ALTER TABLE {name} {', '.join(parts)}"] if parts else []

    def _run(self, name: str, statement: str) -> None:
        try:
            self._connection.execute(statement.encode())
        except psycopg.Error as error:
            fault = verdict(error, End.SINK, f"altering {name}")
            if isinstance(fault, Transient):
                raise fault from error
            raise refused(name, statement, describe(error)) from error


def plan(config: PostgresSink, context: SinkContext) -> list[Planned]:
    """Return what the next run does to the targets. Raises Transient and Fatal."""
    found: list[Planned] = []
    with connect(config, application_name="cdcsync plan", end=End.SINK, read_write=True) as connection:
        target = Target(connection, config.schema_)
        ground = PostgresGround(connection, target, config.schema_, context.pipeline)
        try:
            kept = ground.kept()
            for table in context.tables:
                name, columns = target.name(table), target.columns(table)
                if not columns:
                    found += [Planned(name, "is created", statement) for statement in target.statements(table)]
                    continue
                applied, follows = kept.get((table.schema, table.name)), context.follows(table)
                steps = planned(name, follows, applied, table, partial(ground.statements, table))
                lines = target.misfits(table, columns) if steps is None else []
                found += [misfit(name, line) for line in lines] if steps is None else steps
        except psycopg.Error as error:
            raise verdict(error, End.SINK, "looking at the target") from error
    return found


def literal(column: Column) -> str:
    """Return what rows have that were there before the column."""
    write: Any = encoder(column.type)
    value = column.initial
    text = str(value) if write is None else write(value)
    return _text(text) if column.type.kind is not Kind.BYTES else f"{_text(text)}::bytea"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
