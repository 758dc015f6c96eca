"""SQLite as a sink: a batch is one transaction, its position among it."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from cdcsync.altering import Altering
from cdcsync.change import Batch, CopyStart, SchemaChange, Table
from cdcsync.errors import End, Fatal, Rejected
from cdcsync.evolution import Met, met
from cdcsync.folding import Barrier, Group, fitted, fold, refusal, tables_of
from cdcsync.ports import Guarantee, SinkContext
from cdcsync.positions import kept_elsewhere, refuse_gone
from cdcsync.sql import quote, refuse
from cdcsync.sqlite import rebuild
from cdcsync.sqlite.alter import SqliteGround
from cdcsync.sqlite.errors import is_data, translated
from cdcsync.sqlite.store import SqliteStore, ensure_table, table_there, transaction
from cdcsync.sqlite.writer import DATA_ERRORS, Missed, Plan, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Position, Step
    from cdcsync.folding import Ref
    from cdcsync.sqlite.config import SqliteConfig


class SqliteSink:
    """Writes each batch in one transaction; a large source transaction stays in one as well, a savepoint per part."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: SqliteConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._store = SqliteStore(config, context, kept=True)
        self._plans: dict[Table, Plan] = {}
        self._last: Position | None = None
        """Committed by this object since it was opened."""
        self._stored = ""
        """The position in the table, encoded."""
        self._within: tuple[str, int] | None = None
        """The large transaction that is open and the part that comes next."""
        ground = SqliteGround(lambda: self._store.connection, context.pipeline)
        self._altering = Altering(ground, context.follows)

    def positions(self) -> SqliteStore:
        """Return the store that shares connection and fence."""
        return self._store

    def open(self) -> int:
        """Create missing tables, check the others; return the epoch stored. The store is open."""
        if not self._store.is_open:
            raise kept_elsewhere(self._context.pipeline)
        self._forget()
        with translated(self._config.path, End.SINK):
            connection = self._store.connection
            gone = [table for table in self._context.tables if table_there(connection, table.name) is None]
            refuse_gone(self._context.pipeline, gone, self._store.known)
            stored = self._store.load()
            with transaction(connection):
                self._prepare(self._altering.found(self._context.tables, gone if stored else ()))
            self._stored = stored.position if stored else ""
            return self._store.epoch()

    def _forget(self) -> None:
        self._plans.clear()
        self._altering.undone()
        self._last = None
        self._within = None

    def _prepare(self, tables: Sequence[Met]) -> None:
        """Make sure of these tables, altering their targets; all misfits are told at once."""
        named = {plan.name: plan for plan in self._plans}
        found: dict[str, list[str]] = {}
        for each in tables:
            table = each.table
            other = named.setdefault(table.name, table)
            if other.schema != table.schema:
                found[table.qualified] = [f"{other.qualified} goes there too: SQLite has no schemas, use `to`"]
                continue
            there = self._altering.prepare(each)
            found[table.qualified] = ensure_table(self._store.connection, there)
            if not found[table.qualified]:
                self._altering.settle(each)
            self._plans[table] = self._plans[there] = Plan(there)
        refuse(found)

    def write(self, batch: Batch) -> Position | None:
        """Write and commit with the position, unless it is a part and not the last."""
        if self._is_written(batch):
            return batch.position
        with translated(self._config.path, End.SINK):
            try:
                return self._write(batch)
            except BaseException as error:
                if not isinstance(error, Rejected) or self._within is None:
                    self._roll_back()
                raise

    def _is_written(self, batch: Batch) -> bool:
        """Return whether the batch is committed already; a copy that begins never is."""
        if self._last is not None:
            written = self._last.covers(batch.position)
        else:
            written = self._stored == batch.position.encode()
        return written and not any(isinstance(item, CopyStart) for each in batch.transactions for item in each.items)

    def _write(self, batch: Batch) -> Position | None:
        connection = self._store.connection
        large = batch.transactions[0] if len(batch.transactions) == 1 else None
        here = (large.id, large.part) if large is not None else None
        if self._within is not None and self._within != here:
            self._roll_back()
        if self._within is None:
            connection.execute("BEGIN IMMEDIATE")
        if here is not None and large is not None and (large.part or not large.last):
            self._within = here
        connection.execute("SAVEPOINT batch")
        self._apply(batch)
        connection.execute("RELEASE batch")
        if large is not None and not large.last:
            self._within = (large.id, large.part + 1)
            return None
        self._store.put_in(batch.position)
        connection.execute("COMMIT")
        self._within = None
        self._last = batch.position
        return batch.position

    def _roll_back(self) -> None:
        self._within = None
        self._forget_altered()
        with contextlib.suppress(sqlite3.Error):
            if self._store.connection.in_transaction:
                self._store.connection.execute("ROLLBACK")

    def _apply(self, batch: Batch) -> None:
        """Write all; where a row is refused, begin again row by row and find every other."""
        connection = self._store.connection
        writer = Writer(connection)
        try:
            for part in self._parts(batch):
                if isinstance(part, Group):
                    writer.write(part, self._plans)
                else:
                    self._pass(part)
        except (*DATA_ERRORS, Missed) as error:
            if not isinstance(error, Missed) and not is_data(error):
                raise
            connection.execute("ROLLBACK TO batch")
            self._forget_altered()
            self._apply_singly(batch, writer)

    def _apply_singly(self, batch: Batch, writer: Writer) -> None:
        reasons: dict[Ref, str] = {}
        for part in self._parts(batch):
            if isinstance(part, Group):
                reasons |= writer.write_singly(part, self._plans)
            else:
                self._pass(part)
        if reasons:
            self._store.connection.execute("ROLLBACK TO batch")
            self._store.connection.execute("RELEASE batch")
            self._forget_altered()
            raise refusal(reasons)

    def _parts(self, batch: Batch) -> Iterator[Group | Barrier]:
        """Yield what is to be written, each once its tables are what they have to be."""
        parts = fold(batch)
        versions: dict[Table, Met] = {}
        for part in parts:
            if isinstance(part, Barrier) and isinstance(part.item, SchemaChange):
                version = batch.transactions[part.ref[0]].version
                self._altering.move(part.item, version)
                self._plans.clear()
                versions = versions or met(batch)
                new = part.item.new
                if new is not None:
                    self._prepare([versions.get(new, Met(new, version, renamed=part.item.renamed))])
                continue
            missing = [table for table in dict.fromkeys(tables_of([part])) if table not in self._plans]
            if missing:
                versions = versions or met(batch)
                self._prepare([versions[table] for table in missing])
            yield self._fitted(part) if isinstance(part, Group) else part

    def _fitted(self, group: Group) -> Group:
        """Return the group without columns that the targets do not follow."""
        fit = [fitted(effects, self._plans[effects.table].table) for effects in group.tables]
        return (
            Group(fit, group.end)
            if any(one is not other for one, other in zip(fit, group.tables, strict=True))
            else group
        )

    def _forget_altered(self) -> None:
        """What was altered is undone."""
        self._plans.clear()
        self._altering.undone()

    def _pass(self, barrier: Barrier) -> None:
        item = barrier.item
        if isinstance(item, SchemaChange):
            return
        name = quote(item.table.name)
        if isinstance(item, CopyStart) and not item.again:
            if self._store.connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone():  # noqa: S608
                msg = f"target table {item.table.qualified} in {self._config.path} is not empty"
                raise Fatal(msg, hint="empty it for the first copy, or set `start: now` at the source to keep its rows")
            return
        self._store.connection.execute(f"DELETE FROM {name}")  # noqa: S608

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Take one step, in one transaction with the position; see `ports.Rebuilder`."""
        if self._is_written(Batch((), position, 0, 0)):
            return position
        connection = self._store.connection
        with translated(self._config.path, End.SINK), rebuild.by_name(connection), transaction(connection):
            rebuild.take(connection, step, tables)
            self._store.put_in(position)
        self._plans.clear()
        self._last = position
        return position

    def flush(self) -> Position | None:
        """Nothing waits but an unfinished transaction."""
        return None

    def close(self) -> None:
        """Undo an unfinished transaction and disconnect."""
        if self._store.is_open:
            self._roll_back()
        self._store.close()
