"""Alters targets in MySQL and MariaDB to another version of their table, and keeps what they look like.

DDL commits by itself there: it is done and noted before rows of the new version are written, each statement only where
the catalogue says that it is still to be done (docs/decisions/0030-targets-follow-their-tables.md).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from cdcsync.altering import misfit, planned, refused
from cdcsync.connectors import Planned
from cdcsync.errors import End, Transient
from cdcsync.evolution import NAME, Alteration, Applied, decode, encode
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.declare import declarations
from cdcsync.mysql.errors import MysqlError, describe, verdict
from cdcsync.mysql.literals import Parameter
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cdcsync.change import Column, Table
    from cdcsync.evolution import Step
    from cdcsync.mysql.config import MysqlSink
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.target import TargetColumn, TargetTable
    from cdcsync.ports import SinkContext

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS {table} (pipeline VARCHAR(190) NOT NULL, target VARCHAR(190) NOT NULL, version BIGINT NOT NULL,
    shape LONGTEXT NOT NULL, PRIMARY KEY (pipeline, target)) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
"""
_KEEP: Final = """
INSERT INTO {table} (pipeline, target, version, shape) VALUES (%s, %s, %s, %s)
ON DUPLICATE KEY UPDATE version = VALUES(version), shape = VALUES(shape)
"""
_THERE: Final = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
_PRIMARY: Final = """
SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX
"""
_RENAMES: Final = {Flavor.MYSQL: (8, 0, 0), Flavor.MARIADB: (10, 5, 2)}
"""Since when there is RENAME COLUMN."""


class MysqlGround:
    """See `altering.Ground`. Everything is committed when a method returns."""

    def __init__(
        self,
        session: Callable[[], AbstractContextManager[Connection]],
        target: Callable[[Connection], Target],
        database: str,
        pipeline: str,
    ) -> None:
        self._session = session
        """Gives a connection that is in no transaction."""
        self._target_of = target
        self._place = database, NAME
        self._table = quoted(database, NAME)
        self._pipeline = pipeline

    def load(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept."""
        with self._session() as connection:
            if not connection.execute(_THERE, self._place):
                connection.execute(_CREATE.format(table=self._table))
        return self.kept()

    def kept(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept, changing nothing."""
        with self._session() as connection:
            if not connection.execute(_THERE, self._place):
                return {}
            query = f"SELECT shape, version FROM {self._table} WHERE pipeline = %s"  # noqa: S608  quoted
            rows = connection.execute(query, [self._pipeline])
        applied = [decode(str(shape), int(version)) for shape, version in rows]
        return {(each.table.schema, each.table.name): each for each in applied}

    def keep(self, table: Table, applied: Applied | None) -> None:
        """Keep what the target looks like, or forget it."""
        with self._session() as connection:
            if applied is None:
                query = f"DELETE FROM {self._table} WHERE pipeline = %s AND target = %s"  # noqa: S608  quoted
                connection.execute(query, [self._pipeline, table.qualified])
                return
            values = [self._pipeline, table.qualified, applied.version, encode(applied)]
            connection.execute(_KEEP.format(table=self._table), values)

    def alter(self, table: Table, done: Sequence[Step]) -> None:
        """Run what is not done yet, statement by statement. Raises Transient and Fatal."""
        with self._session() as connection:
            target = self._target_of(connection)
            for step in done:
                for statement in self.statements(connection, target, table, step):
                    self._run(connection, target.name(table), statement)

    def move(self, table: Table, new: Table | None) -> None:
        """Rename or drop the target."""
        with self._session() as connection:
            target = self._target_of(connection)
            name = target.name(table)
            if target.there(table) is None:
                return
            if new is None:
                self._run(connection, name, f"DROP TABLE {name}")
            elif target.there(new) is None:
                self._run(connection, name, f"RENAME TABLE {name} TO {target.name(new)}")

    def statements(self, connection: Connection, target: Target, table: Table, step: Step) -> Iterator[str]:
        """Yield what of a step is still to be done, each once the one before it is."""
        there = target.there(table)
        if there is None:
            return
        alter = f"ALTER TABLE {target.name(table)}"
        old, new = step.old, step.new
        if step.kind is Alteration.KEY:
            yield from self._key(connection, target, table, step)
        elif step.kind is Alteration.RENAME and old is not None and new is not None:
            if old.name in there.columns and new.name not in there.columns:
                yield f"{alter} {_renamed(connection, there.columns[old.name], new.name)}"
        elif new is None:
            if old is not None and old.name in there.columns:
                yield f"{alter} DROP COLUMN {quoted(old.name)}"
        elif step.kind is Alteration.ADD:
            yield from self._add(target, table, new, there)
        elif new.name in there.columns:
            yield from _modified(target, table, step, there.columns[new.name])

    def _add(self, target: Target, table: Table, column: Column, there: TargetTable) -> Iterator[str]:
        name, declared = target.name(table), _declared(target, table, column)
        if column.name not in there.columns:
            yield f"ALTER TABLE {name} ADD COLUMN {quoted(column.name)} {declared} NULL"
        if column.initial is None:
            return
        added = target.there(table)
        if added is None or column.name not in added.columns:
            return
        (literal,) = Parameter.of(column.type, added.columns[column.name]).literals([column.initial])
        yield f"UPDATE {name} SET {quoted(column.name)} = {literal} WHERE {quoted(column.name)} IS NULL"  # noqa: S608

    def _key(self, connection: Connection, target: Target, table: Table, step: Step) -> Iterator[str]:
        now = [str(row[0]) for row in connection.execute(_PRIMARY, target.place(table))]
        if now == list(step.key):
            return
        declared = declarations(table, target.dialect)
        parts = [f"MODIFY COLUMN {quoted(name)} {declared[name]} NOT NULL" for name in step.key if name in declared]
        if now:
            parts.append("DROP PRIMARY KEY")
        if step.key:
            parts.append(f"ADD PRIMARY KEY ({', '.join(map(quoted, step.key))})")
        yield f"ALTER TABLE {target.name(table)} {', '.join(parts)}"

    def _run(self, connection: Connection, name: str, statement: str) -> None:
        try:
            connection.execute(statement)
        except MysqlError as error:
            fault = verdict(error, End.SINK, f"altering {name}")
            if isinstance(fault, Transient):
                raise fault from error
            shown = statement if not statement.startswith("UPDATE") else statement.partition(" = ")[0]
            raise refused(name, shown, describe(error)) from error


def plan(config: MysqlSink, context: SinkContext) -> list[Planned]:
    """Return what the next run does to the targets. Raises Transient and Fatal."""
    found: list[Planned] = []
    with connect(config, purpose="cdcsync plan", end=End.SINK, read_write=True) as connection:
        target = Target(connection, config.database)
        ground = MysqlGround(lambda: nullcontext(connection), lambda _: target, config.database, context.pipeline)
        try:
            kept = ground.kept()
            for table in context.tables:
                name, there = target.name(table), target.there(table)
                if there is None:
                    found += [Planned(name, "is created", statement) for statement in target.statements(table)]
                    continue
                applied, follows = kept.get((table.schema, table.name)), context.follows(table)
                steps = planned(name, follows, applied, table, partial(ground.statements, connection, target, table))
                lines = target.misfits(table, there) if steps is None else []
                found += [misfit(name, line) for line in lines] if steps is None else steps
        except MysqlError as error:
            raise verdict(error, End.SINK, "looking at the target") from error
    return found


def _declared(target: Target, table: Table, column: Column) -> str:
    """Return a column's type as it is declared in this table."""
    columns = tuple(column if each.name == column.name else each for each in table.columns)
    if column.name not in table.at:
        columns = (*columns, column)
    return declarations(replace(table, columns=columns), target.dialect)[column.name]


def _modified(target: Target, table: Table, step: Step, there: TargetColumn) -> Iterator[str]:
    """Yield what gives a column another type, or lets it be null."""
    assert step.new is not None  # noqa: S101  asked for a column that is there
    name = quoted(there.name)
    if step.kind is Alteration.NULLABLE:
        if not there.nullable:
            collation = f" CHARACTER SET {there.charset} COLLATE {there.collation}" if there.collation else ""
            yield f"ALTER TABLE {target.name(table)} MODIFY COLUMN {name} {there.declared}{collation} NULL"
        return
    nullness = "NULL" if there.nullable else "NOT NULL"
    yield f"ALTER TABLE {target.name(table)} MODIFY COLUMN {name} {_declared(target, table, step.new)} {nullness}"


def _renamed(connection: Connection, there: TargetColumn, name: str) -> str:
    server = connection.server
    if server.version >= _RENAMES[server.flavor]:
        return f"RENAME COLUMN {quoted(there.name)} TO {quoted(name)}"
    collation = f" CHARACTER SET {there.charset} COLLATE {there.collation}" if there.collation else ""
    nullness = "NULL" if there.nullable else "NOT NULL"
    return f"CHANGE COLUMN {quoted(there.name)} {quoted(name)} {there.declared}{collation} {nullness}"
