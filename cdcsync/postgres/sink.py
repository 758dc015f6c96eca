"""Writes batches into PostgreSQL, exactly once: rows and position are committed together."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from cdcsync.altering import Altering
from cdcsync.change import Batch, SchemaChange
from cdcsync.committed import Committed, is_whole
from cdcsync.errors import End, Fatal, Rejected, Transient
from cdcsync.evolution import Met, met
from cdcsync.folding import Barrier, fold, refusal, stretches, tables_of
from cdcsync.ports import Guarantee
from cdcsync.positions import kept_elsewhere, refuse_gone
from cdcsync.postgres import rebuild
from cdcsync.postgres.alter import PostgresGround
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import is_about_rows, verdict
from cdcsync.postgres.foreign_keys import ForeignKeys
from cdcsync.postgres.identity import identify_plainly
from cdcsync.postgres.statements import Plan, Unfit
from cdcsync.postgres.store import PostgresStore
from cdcsync.postgres.target import Target, refuse_misfits
from cdcsync.postgres.wire import SILENCE_MAX_S, Failed, Request, Statement, Wire
from cdcsync.postgres.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.change import Position, Step, Table
    from cdcsync.folding import Group, Ref
    from cdcsync.ports import SinkContext
    from cdcsync.postgres.config import PostgresSink as PostgresSinkConfig

_BEGIN: Final = Statement(b"BEGIN")
_COMMIT: Final = Statement(b"COMMIT")
_ROLLBACK: Final = Statement(b"ROLLBACK")
_DEFER: Final = Statement(b"SET CONSTRAINTS ALL DEFERRED")
_HOLDS: Final = Statement(b"SET CONSTRAINTS ALL IMMEDIATE")
_PART: Final = Statement(b"SAVEPOINT cdcsync_part")
_PART_DONE: Final = Statement(b"RELEASE SAVEPOINT cdcsync_part")
_PART_UNDONE: Final = Statement(b"ROLLBACK TO SAVEPOINT cdcsync_part")
_SESSION: Final = (
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; "
    "SET plan_cache_mode = force_generic_plan; SET row_security = off"
)
"""Every statement finds a few rows by key: by the index, also where the planner knows nothing yet of the table."""


class PostgresSink:
    """One connection, one transaction per batch; a large transaction stays open until its last part."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: PostgresSinkConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._store = PostgresStore(config, context, kept=True)
        self._committed = Committed()
        self._plans: dict[Table, Plan] = {}
        self._save = Statement(b"")

    def positions(self) -> PostgresStore:
        """Return the store that shares connection, lock and fence."""
        return self._store

    def open(self) -> int:
        """Create or check the targets; return the epoch stored, 0 when none is. The store is open."""
        if not self._store.is_open:
            raise kept_elsewhere(self._context.pipeline)
        with self._judged("opening the target"):
            connection = self._store.connection
            connection.prepare_threshold = None  # what psycopg prepared it drops after an ALTER, and ours with it
            connection.execute(_SESSION)
            stored = self._store.load()
            self._committed.begin(stored)
            silence_max_s = max(SILENCE_MAX_S, 2 * self._config.statement_timeout.total_seconds())
            self._wire = Wire(connection, silence_max_s)
            self._target = Target(connection, self._config.schema_)
            self._plans.clear()
            with self._store.making():
                ground = PostgresGround(connection, self._target, self._config.schema_, self._context.pipeline)
                self._altering = Altering(ground, self._context.follows)
                gone = [table for table in self._context.tables if not self._target.columns(table)]
                refuse_gone(self._context.pipeline, gone, self._store.known)
                self._prepare(self._altering.found(self._context.tables, gone if stored else ()))
            self._foreign_keys = ForeignKeys.read(connection)
            self._writer = Writer(self._wire, self._target, self._plan_of, self._foreign_keys)
            self._save = self._saving()
        return stored.epoch if stored else 0

    def write(self, batch: Batch) -> Position | None:
        """Commit the rows with the position, unless it is a part and not the last."""
        if self._committed.covers(batch):
            return batch.position
        with self._judged("writing to the target"):
            if self._committed.is_cut_short_by(batch):
                self._committed.left()
                self._undo()
            folded = fold(batch)
            closing = self._closing(batch) if is_whole(batch) else self._part_end()
            if any(isinstance(part, Barrier) and isinstance(part.item, SchemaChange) for part in folded):
                self._write_carefully(partial(self._run_altering, batch), closing)
                self._altering.settled()
            else:
                self._write(batch, folded, closing)
            return self._reached(batch) if self._committed.wrote(batch) else None

    def _write(self, batch: Batch, folded: Sequence[Group | Barrier], closing: Sequence[Request]) -> None:
        """Write a batch in which no table changes. Raises as `write` does, having undone this batch alone."""
        if any(table not in self._plans for table in tables_of(folded)):
            self._prepare(list(met(batch).values()))
        parts = self._writer.plan(folded)
        carefully = partial(self._writer.write_carefully, parts)
        rounds = self._wire.rounds
        try:
            self._writer.write(parts, self._opening(), closing)
        except Failed as failed:
            self._undo()
            self._refuse_lost(failed, closing)
            self._write_carefully(carefully, closing)
        except Unfit:
            if self._wire.rounds != rounds:
                self._undo()
            self._write_carefully(carefully, closing)
        except (Fatal, Rejected):
            self._undo()
            raise

    def _run_altering(self, batch: Batch, opening: Sequence[Request]) -> dict[Ref, str]:
        """Write what lies between schema changes, following each in its place; return what is not taken."""
        self._wire.run(opening)
        versions = met(batch)
        reasons: dict[Ref, str] = {}
        for barriers, parts in stretches(fold(batch)):
            for barrier in barriers:
                item, version = cast("SchemaChange", barrier.item), batch.transactions[barrier.ref[0]].version
                self._altering.move(item, version)
                self._plans = {table: plan for table, plan in self._plans.items() if not _concerns(item, table)}
                if item.new is not None:
                    self._prepare([versions.get(item.new, Met(item.new, version, renamed=item.renamed))])
            self._prepare([versions[table] for table in dict.fromkeys(tables_of(parts)) if table in versions])
            reasons.update(self._writer.write_carefully(self._writer.plan(parts), ()))
        return reasons

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Do one step, in one transaction with the position; see `ports.Rebuilder`."""
        if self._committed.covers(Batch((), position, 0, 0)):
            return position
        closing = self._closing(Batch((), position, 0, 0))
        with self._judged("building tables anew"):
            try:
                self._wire.run([Request(_BEGIN)])
                rebuild.take(self._store.connection, self._config.schema_, step, tables)
                self._wire.run(closing)
            except Failed as failed:
                self._undo()
                self._refuse_lost(failed, closing)
                raise verdict(failed.error, End.SINK, "building tables anew") from failed
            except psycopg.Error:
                self._undo()
                raise
        self._plans.clear()
        return self._reached(Batch((), position, 0, 0))

    def flush(self) -> Position | None:
        """Nothing waits but an unfinished transaction, which is never committed early."""
        return None

    def close(self) -> None:
        """Disconnect; the server undoes what is not committed."""
        self._committed.left()
        self._store.close()

    def _opening(self) -> list[Request]:
        if self._committed.is_within:
            return [Request(_PART)]
        return [Request(_BEGIN), Request(_DEFER)] if self._foreign_keys.deferrable else [Request(_BEGIN)]

    def _part_end(self) -> list[Request]:
        return [Request(_PART_DONE)] if self._committed.is_within else []

    def _closing(self, batch: Batch) -> list[Request]:
        encoded = batch.position.encode()
        self._store.reached.expect(encoded)
        pipeline, lane, fence = self._store.place
        values = [pipeline, lane, str(fence), str(batch.position.epoch), encoded]
        save = Request(self._save, [each.encode() for each in values])
        if self._foreign_keys.deferrable:
            return [Request(_HOLDS), save, Request(_COMMIT)]
        return [save, Request(_COMMIT)]

    def _write_carefully(self, run: Callable[[Sequence[Request]], dict[Ref, str]], closing: Sequence[Request]) -> None:
        """Write row by row where needed. Raises Rejected, having undone this batch alone."""
        try:
            reasons = run(self._opening())
            if not reasons and not self._close_carefully(closing):
                self._undo()
                reasons = run([*self._opening(), Request(_HOLDS)])
                if not reasons:
                    self._wire.run(closing)
        except Failed as failed:
            self._undo()
            self._refuse_lost(failed, closing)
            raise verdict(failed.error, End.SINK, "writing to the target") from failed
        except (Fatal, Rejected, Transient, psycopg.Error):
            self._undo()
            raise
        if reasons:
            self._undo()
            raise refusal(reasons)

    def _close_carefully(self, closing: Sequence[Request]) -> bool:
        """Commit; return False when a deferred constraint does not hold, which no row was blamed for yet."""
        try:
            self._wire.run(closing)
        except Failed as failed:
            if failed.request is None or failed.request.statement is not _HOLDS or not is_about_rows(failed.error):
                raise
            return False
        return True

    def _refuse_lost(self, failed: Failed, closing: Sequence[Request]) -> None:
        """Judge an error that is not about rows, or that is the fence's."""
        if failed.error.sqlstate == "22012" and failed.request is not None and failed.request in closing:
            raise self._store.lost() from failed
        committing = failed.request is not None and failed.request.statement is _COMMIT
        if committing or not is_about_rows(failed.error):
            raise verdict(failed.error, End.SINK, "writing to the target") from failed

    def _undo(self) -> None:
        """Go back to where this batch began; a COMMIT that failed has taken the parts before it along."""
        if self._altering.altered:
            self._altering.undone()
            self._plans.clear()
        if self._committed.is_within:
            with suppress(Failed):
                self._wire.run([Request(_PART_UNDONE), Request(_PART_DONE)])
                return
        self._wire.run([Request(_ROLLBACK)])

    def _reached(self, batch: Batch) -> Position:
        self._committed.done(batch.position)
        self._store.reached.reach(batch.position.encode())
        return batch.position

    def _plan_of(self, table: Table) -> Plan:
        plan = self._plans.get(table)
        if plan is None:
            self._prepare([Met(table, 0)])
            plan = self._plans[table]
        return plan

    def _prepare(self, tables: Sequence[Met]) -> None:
        """Plan what is new, altering, creating or checking it at the target. Raises Fatal naming all misfits."""
        new = [each for each in tables if each.table not in self._plans]
        found: list[tuple[str, Sequence[str]]] = []
        connection = self._store.connection
        for each in new:
            with self._store.making(), connection.transaction():
                table = self._altering.prepare(each)
                name = self._target.name(table)
                columns, lines = self._target.prepare(table, create=self._config.create_tables)
                if lines:
                    found.append((name, lines))
                    continue
                self._altering.settle(each)
            row = connection.execute("SELECT to_regclass(%s)::oid::int8", [name]).fetchone()
            self._plans[each.table] = Plan(table, name, columns, row[0] if row else 0)
        refuse_misfits(found)
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self._altering.settled()
        if new and hasattr(self, "_writer"):
            self._foreign_keys = ForeignKeys.read(connection)
            self._writer = Writer(self._wire, self._target, self._plan_of, self._foreign_keys)

    def _saving(self) -> Statement:
        """Return the statement that saves on condition of the fence: no row divides by zero."""
        query = sql.SQL(
            "WITH u AS (UPDATE {} SET epoch = $4::int, position = $5::text, updated_at = now() "
            "WHERE pipeline = $1::text AND lane = $2::text AND fence = $3::int8 RETURNING 1) SELECT 1 / count(*) FROM u"
        )
        return Statement(query.format(self._store.table).as_bytes(self._store.connection))

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise verdict(error, End.SINK, doing) from error


def _concerns(item: SchemaChange, table: Table) -> bool:
    """Return whether a schema change concerns a table of this name."""
    return any(each is not None and each.qualified == table.qualified for each in (item.old, item.new))


def identity(config: PostgresSinkConfig) -> str:
    """Return `postgres:SYSTEM_IDENTIFIER/DATABASE`, comparable with a source's."""
    with connect(config, application_name="cdcsync check", end=End.SINK, read_write=True) as connection:
        return identify_plainly(connection)
