"""Writes batches into MySQL and MariaDB, exactly once: rows and position are committed together."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

from cdcsync.altering import Altering
from cdcsync.committed import Committed, is_whole
from cdcsync.errors import End, Fatal, Rejected
from cdcsync.evolution import Met, met
from cdcsync.folding import fold, refusal, stretches, tables_of
from cdcsync.mysql import rebuild
from cdcsync.mysql.alter import MysqlGround
from cdcsync.mysql.connection import connect
from cdcsync.mysql.errors import MysqlError, is_about_rows, verdict
from cdcsync.mysql.foreign_keys import ForeignKeys, Place, place_of
from cdcsync.mysql.literals import Unfit
from cdcsync.mysql.statements import Plan, Request
from cdcsync.mysql.store import MysqlStore
from cdcsync.mysql.target import Target, refuse_misfits
from cdcsync.mysql.writer import Missed, Writer
from cdcsync.ports import Guarantee
from cdcsync.positions import kept_elsewhere, refuse_gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Batch, Position, SchemaChange, Step, Table
    from cdcsync.folding import Barrier, Ref
    from cdcsync.mysql.config import MysqlSink as MysqlSinkConfig
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.writer import Part
    from cdcsync.ports import SinkContext

_PART: Final = "SAVEPOINT cdcsync_part"
_PART_DONE: Final = "RELEASE SAVEPOINT cdcsync_part"
_PART_UNDONE: Final = "ROLLBACK TO SAVEPOINT cdcsync_part"
ALTER_WAIT_S: Final = 10
"""How long an ALTER waits for a table that a large transaction may have written to itself."""
_WRITING: Final = "writing to the target"


class MysqlSink:
    """One connection, one transaction per batch; a large transaction stays open until its last part."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: MysqlSinkConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._store = MysqlStore(config, context, kept=True)
        self._committed = Committed()
        self._plans: dict[Table, Plan] = {}
        self._foreign_keys = ForeignKeys([])

    def positions(self) -> MysqlStore:
        """Return the store that shares connection, lock and fence."""
        return self._store

    def open(self) -> int:
        """Create or check the targets; return the epoch stored, 0 when none is. The store is open."""
        if not self._store.is_open:
            raise kept_elsewhere(self._context.pipeline)
        with self._judged("opening the target"):
            connection = self._store.connection
            stored = self._store.load()
            self._committed.begin(stored)
            self._target = Target(connection, self._config.database)
            self._plans.clear()
            ground = MysqlGround(self._session, self._target_at, self._config.database, self._context.pipeline)
            self._altering = Altering(ground, self._context.follows)
            gone = [table for table in self._context.tables if self._target.there(table) is None]
            refuse_gone(self._context.pipeline, gone, self._store.known)
            self._prepare(self._altering.found(self._context.tables, gone if stored else ()))
            self._writer = Writer(connection, self._plan_of, self._place, lambda: self._foreign_keys)
        return stored.epoch if stored else 0

    def write(self, batch: Batch) -> Position | None:
        """Commit the rows with the position, unless it is a part and not the last."""
        if self._committed.covers(batch):
            return batch.position
        with self._judged(_WRITING):
            if self._committed.is_cut_short_by(batch):
                self._committed.left()
                self._undo()
            found = stretches(fold(batch))
            versions: dict[Table, Met] = {}
            last = is_whole(batch)
            for number, (barriers, parts) in enumerate(found):
                if barriers:
                    self._follow(batch, barriers, versions)
                new = [table for table in dict.fromkeys(tables_of(parts)) if table not in self._plans]
                if new:
                    versions = versions or met(batch)
                    self._prepare([versions[table] for table in new])
                until = found[number + 1][0][0].ref[0] if number + 1 < len(found) else None
                if until is not None:
                    self._write_before(batch, self._writer.plan(parts), until)
                else:
                    closing = self._closing(batch.position) if last else Request("DO 1")
                    self._write(self._writer.plan(parts), closing)
            return self._commit(batch.position) if self._committed.wrote(batch) else None

    def _write_before(self, batch: Batch, parts: Sequence[Part], until: int) -> None:
        """Commit what comes before a schema change, with the position after the transactions that are whole."""
        if self._committed.is_within or not until:
            self._write(parts, Request("DO 1"))
            if not self._committed.is_within:
                self._store.connection.run(["COMMIT"])
            return
        position = batch.transactions[until - 1].position
        self._write(parts, self._closing(position))
        self._commit(position)

    def _follow(self, batch: Batch, barriers: Sequence[Barrier], versions: dict[Table, Met]) -> None:
        """Follow schema changes; what was written before them is committed."""
        versions.update(met(batch))
        for barrier in barriers:
            item, version = cast("SchemaChange", barrier.item), batch.transactions[barrier.ref[0]].version
            self._altering.move(item, version)
            names = {each.qualified for each in (item.old, item.new) if each is not None}
            self._plans = {table: plan for table, plan in self._plans.items() if table.qualified not in names}
            if item.new is not None:
                self._prepare([versions.get(item.new, Met(item.new, version, renamed=item.renamed))])

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Take one step, then store the position; a step taken already does nothing. See `ports.Rebuilder`."""
        with self._judged("building tables anew"):
            self._store.load()
            rebuild.take(self._store.connection, self._config.database, step, tables)
            self._write([], self._closing(position))
            self._plans.clear()
            return self._commit(position)

    def flush(self) -> Position | None:
        """Nothing waits but an unfinished transaction, which is never committed early."""
        return None

    def close(self) -> None:
        """Disconnect; the server undoes what is not committed."""
        self._committed.left()
        self._store.close()

    def _opening(self) -> list[str]:
        return [_PART] if self._committed.is_within else ["BEGIN"]

    def _closing(self, position: Position) -> Request:
        self._store.reached.expect(position.encode())
        return Request(self._store.saving(position), finds=True)

    def _write(self, parts: Sequence[Part], closing: Request) -> None:
        """Write all but COMMIT. Raises Rejected, having undone this batch alone, and Fatal when the fence is lost."""
        try:
            saved = self._writer.write(parts, self._opening(), closing)
        except MysqlError as error:
            self._refuse_lost(error)
            self._undo()
            saved = self._write_carefully(parts, closing)
        except (Missed, Unfit):
            self._undo()
            saved = self._write_carefully(parts, closing)
        except (Fatal, Rejected):
            self._undo()
            raise
        if closing.finds and not saved:
            self._undo()
            raise self._store.lost()
        if self._committed.is_within:
            self._store.connection.run([_PART_DONE])

    def _write_carefully(self, parts: Sequence[Part], closing: Request) -> bool:
        """Write row by row where needed; return whether the position was saved."""
        try:
            reasons: dict[Ref, str] = self._writer.write_carefully(parts, self._opening())
        except (Fatal, Rejected):
            self._undo()
            raise
        if reasons:
            self._undo()
            raise refusal(reasons)
        return self._store.connection.run([closing.sql]) == [1]

    def _commit(self, position: Position) -> Position:
        self._store.connection.run(["COMMIT"])
        self._committed.done(position)
        self._store.reached.reach(position.encode())
        return position

    def _refuse_lost(self, error: MysqlError) -> None:
        """Raise what is not about rows; the transaction goes with the connection."""
        if not is_about_rows(error):
            raise verdict(error, End.SINK, _WRITING) from error

    def _undo(self) -> None:
        """Go back to where this batch began; where the savepoint is gone, the parts before it are gone too."""
        if self._committed.is_within:
            with suppress(MysqlError):
                self._store.connection.run([_PART_UNDONE, _PART_DONE])
                return
        self._store.connection.run(["ROLLBACK"])

    def _place(self, table: Table) -> Place:
        return place_of(*self._target.place(table))

    def _plan_of(self, table: Table) -> Plan:
        plan = self._plans.get(table)
        if plan is None:
            self._prepare([Met(table, 0)])
            plan = self._plans[table]
        return plan

    def _prepare(self, tables: Sequence[Met]) -> None:
        """Plan what is new, altering, creating or checking it at the target. Raises Fatal naming all misfits."""
        new = [each for each in tables if each.table not in self._plans]
        if not new:
            return
        connection = self._store.connection
        packet_max = int(connection.server.variable("max_allowed_packet", "1048576"))
        found: list[tuple[str, Sequence[str]]] = []
        for each in new:
            table = self._altering.prepare(each)
            if self._committed.is_within and self._target.there(table) is None:
                self._create_apart(table)
            there, lines = self._target.prepare(table, create=self._config.create_tables)
            name = self._target.name(table)
            if lines or there is None:
                found.append((name, lines))
            else:
                self._altering.settle(each)
                self._plans[each.table] = Plan(table, name, there, packet_max)
        refuse_misfits(found)
        databases = {self._target.place(table)[0] for table in self._plans}
        self._foreign_keys = ForeignKeys.read(connection, databases)

    def _create_apart(self, table: Table) -> None:
        """Create a table in a session of its own: in ours it would commit the transaction that is open."""
        if not self._config.create_tables:
            return
        with self._session() as other:
            self._target_at(other).prepare(table, create=True)

    def _target_at(self, connection: Connection) -> Target:
        return Target(connection, self._config.database)

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """Give a session that is in no transaction: another one while a large transaction is open in ours."""
        if not self._committed.is_within:
            yield self._store.connection
            return
        purpose = f"cdcsync {self._context.pipeline}"
        with connect(self._config, purpose=purpose, end=End.SINK, read_write=True) as other:
            other.execute(f"SET SESSION lock_wait_timeout = {ALTER_WAIT_S}")
            yield other

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except MysqlError as error:
            raise verdict(error, End.SINK, doing) from error


def identity(config: MysqlSinkConfig) -> str:
    """Return the server's name, comparable with a source's."""
    with connect(config, purpose="cdcsync check", end=End.SINK, read_write=True) as connection:
        return connection.server.name
