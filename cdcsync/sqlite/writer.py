"""Writes folded effects into SQLite tables: many at a time, and one by one where a row is refused."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from cdcsync.folding import NOT_THERE, Effect, TableEffects, complete, known, merged, refs_of
from cdcsync.sql import Shape, quote
from cdcsync.sqlite.errors import is_data, reason
from cdcsync.sqlite.types import decoder, encoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.folding import Group, Key, Ref, Step


class Missed(Exception):  # noqa: N818  a verdict, caught where the batch is written again row by row
    """An incomplete row found nothing at the target."""


DATA_ERRORS = (sqlite3.Error, UnicodeEncodeError, OverflowError)
_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}


class Plan:
    """How one table version is written."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.shape = Shape(quote(table.name), table, "?")
        self.encoders = [encoder(column.type) for column in table.columns]
        self.plain = not any(self.encoders)
        self.insert = self.shape.insert()
        self.upsert = self.shape.upsert() if table.key else ""
        self.delete = self.shape.delete() if table.key else ""
        self._updates: dict[tuple[int, ...], str] = {}

    def row(self, row: Row) -> Sequence[Any]:
        """Return what is bound for the values of a row; UNCHANGED must not be among them."""
        if self.plain:
            return row
        return [
            value if encode is None or value is None else encode(value)
            for value, encode in zip(row, self.encoders, strict=True)
        ]

    def values(self, row: Row, columns: Iterable[int]) -> list[Any]:
        """Return what is bound for some of the values."""
        bound = []
        for at in columns:
            encode, value = self.encoders[at], row[at]
            bound.append(value if encode is None or value is None else encode(value))
        return bound

    def key(self, key: Key) -> list[Any]:
        """Return what is bound for a key."""
        at = self.table.key_at
        values = (key,) if len(at) == 1 else key
        return [
            value if (encode := self.encoders[index]) is None else encode(value)
            for index, value in zip(at, values, strict=True)
        ]

    def update(self, columns: tuple[int, ...]) -> str:
        """Return the statement that sets these columns."""
        statement = self._updates.get(columns)
        if statement is None:
            statement = self.shape.update([self.table.columns[at].name for at in columns])
            self._updates[columns] = statement
        return statement

    def changed(self, columns: tuple[int, ...]) -> tuple[int, ...]:
        """Return these columns without the key's, or the key's when nothing else is there."""
        return tuple([at for at in columns if at not in self.table.key_at]) or self.table.key_at

    def decoded(self, row: Row) -> Row:
        """Return the neutral values of a row read back."""
        decoders = [decoder(column.type) for column in self.table.columns]
        return tuple(
            value if decode is None or value is None else decode(value)
            for value, decode in zip(row, decoders, strict=True)
        )


class Writer:
    """Writes groups into one connection, inside the transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def write(self, group: Group, plans: dict[Table, Plan]) -> None:
        """Write a group at full speed. Raises what SQLite raises, and Missed."""
        for effects in reversed(group.tables):
            if effects.deletes:
                plan = plans[effects.table]
                self._connection.executemany(plan.delete, [plan.key(each.origin) for each in effects.deletes])
        for effects in group.tables:
            self._write_table(effects, plans[effects.table])

    def _write_table(self, effects: TableEffects, plan: Plan) -> None:
        many = self._connection.executemany
        for step in effects.steps:
            self._step(step, plan)
        if effects.appended:
            many(plan.insert, [plan.row(each.row) for each in effects.appended])
        if effects.inserts:
            many(plan.upsert, [plan.row(each.row) for each in effects.inserts])
        if effects.upserts:
            many(plan.upsert, [plan.row(each.row) for each in effects.upserts])
        for columns, updates in effects.updates.items():
            changed = plan.changed(columns)
            bound = [plan.values(each.row, changed) + plan.key(each.key) for each in updates]
            if many(plan.update(changed), bound).rowcount != len(updates):
                raise Missed

    def _step(self, step: Step, plan: Plan) -> None:
        if not step.last:
            key = plan.key(step.new)
            self._connection.execute(plan.update(plan.table.key_at), key + plan.key(step.old))
            return
        row = step.effect.row
        columns = known(row)
        bound = plan.values(row, columns) + plan.key(step.old)
        if self._connection.execute(plan.update(columns), bound).rowcount:
            return
        if not complete(row):
            raise Missed
        self._connection.execute(plan.upsert, plan.row(row))

    def write_singly(self, group: Group, plans: dict[Table, Plan]) -> dict[Ref, str]:
        """Write row by row, as far as it goes; return why the others are refused, by all their changes.

        Rows that stand in each other's way by a unique value are taken out and put in again at the end.
        """
        return Single(self._connection, plans).write(group)


class Single:
    """One group, row by row."""

    def __init__(self, connection: sqlite3.Connection, plans: dict[Table, Plan]) -> None:
        self._connection = connection
        self._plans = plans
        self._reasons: dict[Ref, str] = {}
        self._parked: list[tuple[Plan, Row, Effect]] = []

    def write(self, group: Group) -> dict[Ref, str]:
        """Write; return the reasons."""
        for effects in reversed(group.tables):
            plan = self._plans[effects.table]
            for effect in effects.deletes:
                self._try(plan, effect, plan.delete, plan.key(effect.origin), None)
        for effects in group.tables:
            self._write_table(effects, self._plans[effects.table])
        for plan, row, effect in self._parked:
            self._try(plan, effect, plan.upsert, plan.row(row), None)
        return self._reasons

    def _write_table(self, effects: TableEffects, plan: Plan) -> None:
        parked: set[int] = set()
        for step in effects.steps:
            effect = step.effect
            if id(effect) in parked:
                continue
            if self._step(step, plan):
                parked.add(id(effect))
        for effect in effects.appended:
            self._try(plan, effect, plan.insert, plan.row(effect.row), None)
        for effect in [*effects.inserts, *effects.upserts]:
            self._try(plan, effect, plan.upsert, plan.row(effect.row), effect.key)
        for columns, updates in effects.updates.items():
            changed = plan.changed(columns)
            for effect in updates:
                bound = plan.values(effect.row, changed) + plan.key(effect.key)
                if self._try(plan, effect, plan.update(changed), bound, effect.key) == 0:
                    self._missed(effect)

    def _step(self, step: Step, plan: Plan) -> bool:
        """Move a key; return whether the row waits for the end instead."""
        effect = step.effect
        columns = known(effect.row) if step.last else plan.table.key_at
        before = len(self._parked)
        bound = (plan.values(effect.row, columns) if step.last else plan.key(step.new)) + plan.key(step.old)
        count = self._try(plan, effect, plan.update(columns), bound, step.old)
        if count == 0 and step.last:
            if complete(effect.row):
                self._try(plan, effect, plan.upsert, plan.row(effect.row), effect.key)
            else:
                self._missed(effect)
        return len(self._parked) > before

    def _missed(self, effect: Effect) -> None:
        self._reasons.update(refs_of([effect], NOT_THERE))

    def _try(self, plan: Plan, effect: Effect, statement: str, bound: Sequence[Any], key: Key) -> int:
        """Run one statement in a savepoint of its own; return its row count, -1 when it was refused or waits."""
        self._connection.execute("SAVEPOINT one")
        try:
            count = self._connection.execute(statement, bound).rowcount
        except DATA_ERRORS as error:
            if not is_data(error):
                raise
            self._connection.execute("ROLLBACK TO one")
            if key is None or not self._park(plan, effect, key, error):
                self._reasons.update(refs_of([effect], reason(error)))
            count = -1
        self._connection.execute("RELEASE one")
        return count

    def _park(self, plan: Plan, effect: Effect, key: Key, error: Exception) -> bool:
        """Take a row out that collides with another by a unique value, to be put in at the end."""
        if getattr(error, "sqlite_errorcode", None) not in _UNIQUE:
            return False
        there = self._connection.execute(plan.shape.select(), plan.key(key)).fetchone()
        row = effect.row
        if there is not None:
            row = merged(row, plan.decoded(there))
        elif not complete(row):
            return False
        self._connection.execute(plan.delete, plan.key(key))
        self._parked.append((plan, row, effect))
        return True
