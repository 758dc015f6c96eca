"""Reads the binlog of a MySQL or a MariaDB server."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from cdcsync.beside import figures_of, nothing_left
from cdcsync.change import Batch
from cdcsync.errors import Fatal, Finished
from cdcsync.mysql import beside, catalogue, check, chunks, identity, logs, readers, retention, start
from cdcsync.mysql.binlog import Framing
from cdcsync.mysql.connection import connect, connect_to
from cdcsync.mysql.first import WAITING, Ground, announced, beginning
from cdcsync.mysql.groups import Groups
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.reread import Rereader
from cdcsync.mysql.schema import Schema
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.stream import OFFSET_MAX, Reader, Stream
from cdcsync.mysql.table_map import MARIADB, MYSQL
from cdcsync.mysql.tables import Tables
from cdcsync.mysql.watch import Watch
from cdcsync.mysql.xa import Decision
from cdcsync.orders import Orders
from cdcsync.rebuilding import due
from cdcsync.transaction import Assembler, Resume

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from cdcsync.addresses import Host
    from cdcsync.beside import Beside
    from cdcsync.change import Position, Row, Table, Transaction
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.ports import SourceContext

GATHER_S: Final = 0.02
"""How long a poll goes on taking transactions while more are at hand."""
TURN_S: Final = 0.02
"""While rows are read beside the log: between two looks what of them can be given."""
IDLE_TURN_S: Final = 0.002
"""The same while the log is idle; also how late it is seen that a chunk is stored, which lets the next one begin."""
IDLE_S: Final = 1.0
"""Shortest time between two batches that only move the position."""


@dataclass
class _Session:
    """One dump, and what it is put together with."""

    stream: Stream
    framing: Framing
    assembler: Assembler
    groups: Groups
    tables: Tables
    address: Host
    skip_to: int = 0
    """An offset that the protocol has no room for: what ends before it was delivered."""
    decision: Decision | None = None
    given: tuple[str, int] = ("", 0)
    """File and offset that a batch had last."""
    fault: Fatal | None = None
    """Raised when all that was read before it is given."""


class MysqlBinlog:
    """The source. See `ports.Source`; one thread calls its methods.

    `tail` begins at the end of the log, or wherever it is opened, as a reader of this process's own: several may read
    at once, and beside the pipeline.
    """

    def __init__(
        self,
        config: MysqlSource,
        context: SourceContext,
        *,
        tail: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._context = context
        self._purpose = f"tail {os.getpid()}" if tail else readers.STREAM
        self._tail = tail
        self._clock = clock
        self._session: _Session | None = None
        self._first: Batch | None = None
        """The position that is stored before the log is read, where none was."""
        self._batches: Generator[Batch, None, None] | None = None
        """The beginning of a copy that comes before the log."""
        self._beside: Beside | None = None
        """What is read beside the log."""
        self._read: deque[Batch] = deque()
        """Rows that come before anything more of the log."""
        self._turned_at = 0.0
        self._rereader = Rereader(config, self._name)
        self._orders = Orders()
        self.order = self._orders.give
        self._again: MysqlPosition | None = None
        """Where the log is to be opened again, once that is stored."""
        self._confirmed: MysqlPosition | None = None
        """Acknowledged last."""
        self._done: MysqlPosition | None = None
        """Where a copy that nothing follows has all its rows behind it."""
        self._moved_at = 0.0

    def open(self, start_at: str | None, epoch: int) -> None:
        """Stand at `start_at`; with None begin as the configuration says."""
        self.close()
        stored = MysqlPosition.decode(start_at) if start_at is not None else None
        self._confirmed = self._done = None
        if stored is not None and self._copies_only and stored.is_copied:
            raise Finished("all rows are copied")
        several = len(self._config.addresses) > 1
        connection = connect(self._config, purpose=self._name, read_write=several)
        try:
            check.refuse(connection, self._config, self._context)
            if stored is None:
                self._begin(connection, epoch + 1)
            elif stored.copying is not None:
                self._begin_copy(connection, max(epoch, stored.epoch), again=True)
            else:
                self._go_on(connection, stored, epoch)
        except BaseException:
            connection.abort()
            raise

    def poll(self, timeout_s: float) -> Batch | None:
        """Return the whole transactions at hand, or a part of a large one, or a new position of an idle log."""
        if self._batches is not None:
            return self._before(self._batches, timeout_s)
        session = self._session
        if session is None:
            msg = "the source is not open"
            raise RuntimeError(msg)
        ahead = self._ahead()
        if ahead is not None or self._opened_again():
            return ahead
        until = self._clock() + self._patience(timeout_s)
        gathered = 0.0
        while True:
            if self._read_beside(session):
                return self._read.popleft()
            self._drain_up_to_fault(session)
            now = self._clock()
            if session.fault is not None and not session.assembler.ready:
                raise session.fault
            if session.assembler.ready:
                gathered = gathered or now + GATHER_S
                full = session.assembler.full or session.fault is not None
                if full or now >= gathered or not self._wait(session, 0.0):
                    return self._taken(session, now)
            elif now >= until or not (self._wait(session, self._patience(until - now)) or self._beside is not None):
                return self._idle(session, now)

    def acknowledge(self, position: Position | None) -> None:
        """Note what is stored; the server does not keep its log for us, and its heartbeats ask for no answer."""
        if isinstance(position, MysqlPosition):
            self._confirmed = position
            if self._beside is not None:
                self._beside.stored(position)

    def figures(self) -> dict[str, Any]:
        """Return what is shown of the rows that are read beside the log; any thread may ask."""
        session = self._session
        if session is None:
            return figures_of(self._beside, (), 0)
        taken = self._orders.taken
        return figures_of(self._beside, session.groups.here.pending, taken)

    def reread(self, table: Table, keys: Sequence[Row], transactions: Sequence[Transaction]) -> list[Row]:
        """Return rows by their keys; see `ports.Rereader`. In a session and the thread of who asks."""
        session = self._session
        return self._rereader.read(session.address if session else None, table, keys, transactions)

    def close(self) -> None:
        """Disconnect."""
        self._rereader.close()
        self._first = None
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()
        self._read.clear()
        reading, self._beside = self._beside, None
        if reading is not None:
            reading.close()
        session, self._session = self._session, None
        if session is not None:
            session.stream.close()
            session.tables.close()
            if session.decision is not None:
                session.decision.close()

    @property
    def _name(self) -> str:
        return f"cdcsync {self._context.pipeline}"

    @property
    def _copies_only(self) -> bool:
        return self._config.start == "initial_only" and not self._tail

    def _begin(self, connection: Connection, epoch: int) -> None:
        """Begin where no position is stored."""
        if self._tail:
            end = logs.end(connection)
            place = MysqlPosition(epoch, connection.server.uuid, end.file, end.offset, end.gtids)
        elif self._config.start in {"initial", "initial_only"}:
            self._begin_copy(connection, epoch, again=False)
            return
        else:
            place = replace(start.first(connection, self._config, self._context), epoch=epoch)
        by_gtid = not place.file
        self._start(connection, place, by_gtid=by_gtid)
        self._first = Batch((), place, 0, 0) if place.file else None

    def _begin_copy(self, connection: Connection, epoch: int, *, again: bool) -> None:
        """Begin at the log's end, with all rows that are there pending; those without a key are copied before."""
        end = logs.end(connection)
        parts, bare = chunks.plans(connection, self._context.selection)
        pending = beside.first(parts, self._config)
        place = MysqlPosition(epoch, connection.server.uuid, end.file, end.offset, end.gtids, pending=pending)
        keyed = [part.table for part in parts.values()]
        if not bare:
            self._start(connection, place, by_gtid=False)
            self._first = announced(keyed, place, again=again)
            return
        address = connection.address
        connection.close()
        ground = Ground(
            config=self._config,
            context=self._context,
            connect=lambda: self._connect(address),
            keyed=keyed,
            bare=bare,
            is_stored=lambda position: self._confirmed is not None and self._confirmed.covers(position),
            start=lambda position: self._start(self._connect(address), position, by_gtid=False),
        )
        self._batches = beginning(ground, place, again=again)

    def _before(self, batches: Generator[Batch, None, None], timeout_s: float) -> Batch | None:
        """Give what comes before the log; once that has ended, the log streams."""
        batch = next(batches, None)
        if batch is None:
            self._batches = None
        elif batch is WAITING:
            select.select([], [], [], min(timeout_s, TURN_S))
            return None
        return batch

    def _go_on(self, connection: Connection, stored: MysqlPosition, epoch: int) -> None:
        """Go on at a stored position; where the log since then is gone, as the configuration says."""
        try:
            self._continue(connection, stored, epoch)
        except identity.Lost:
            if self._config.on_lost_position != "snapshot" or self._tail:
                raise
            self._begin_copy(connection, max(epoch, stored.epoch) + 1, again=True)

    def _continue(self, connection: Connection, stored: MysqlPosition, epoch: int) -> None:
        """Go on at a stored position, on its server or on another of the same history."""
        way = identity.judge(connection, stored)
        known = max(epoch, stored.epoch)
        place = replace(stored, epoch=known)
        if way.moved:
            place = place.elsewhere(connection.server.uuid)
        elif way.by_gtid:
            place = replace(place, server=connection.server.uuid, file="", offset=0, born=0)
        elif place.gtids is None and connection.server.has_gtids:
            gtids = start.gtids_at(connection, self._config, self._context, place.file, place.offset)
            place = replace(place, gtids=gtids)  # gtid_mode was off when it was stored
        if not way.by_gtid and not self._tail:
            retention.warn(connection, self._config, self._context, place)
        self._start(connection, place, by_gtid=way.by_gtid)

    def _start(self, connection: Connection, place: MysqlPosition, *, by_gtid: bool) -> None:
        """Read from `place`; inside a transaction, from its start, skipping what was delivered."""
        assembler = Assembler()
        if place.within is not None:
            within = place.within
            assembler.resume(Resume(within.id, within.delivered, within.checksum))
        here = replace(place, within=None)
        server = connection.server
        address = connection.address
        schema = Schema(lambda: self._connect(address), lambda each: self._dump(each, f"{self._purpose} catalogue"))
        folds = server.variable("lower_case_table_names", "0") != "0"
        tables = Tables(
            self._context.selection,
            schema,
            MARIADB if server.flavor is Flavor.MARIADB else MYSQL,
            (self._config.zero_dates, folds),
            lambda: self._known(address),
        )
        framing = Framing(here.file, here.offset)
        if place.within is None:
            here, steps = due(here)
            self._read.extend(steps)
        if any(each.is_read for each in here.pending) and not self._tail:
            assembler = self._watched(address, here, assembler)
        groups = Groups(assembler, tables, framing, here)
        stream = self._dump(connection, self._purpose)
        if by_gtid and here.gtids is not None:
            stream.start_after(here.gtids)
        else:
            stream.start_at(here.file, here.offset)
        self._session = _Session(stream, framing, assembler, groups, tables, address, given=(here.file, here.offset))
        if not by_gtid and here.offset > OFFSET_MAX:
            self._session.skip_to = here.offset
        self._moved_at = self._clock()

    def _watched(self, address: Host, here: MysqlPosition, assembler: Assembler) -> Assembler:
        """Begin to read what is pending; return the assembler that tells of each change."""
        with self._connect(address) as connection:
            parts, bare = chunks.plans(connection, self._context.selection)
        beside.refuse_unseen(here.pending, {*parts, *(table.qualified for table in bare)}, self._context.selection)
        self._beside = beside.reading(self._config, address, parts, here, name=self._name, clock=self._clock)

        def is_due() -> bool:
            return self._clock() - self._turned_at >= TURN_S

        self._beside.snapshot.paused = self._orders.paused
        return cast("Assembler", Watch(assembler, self._beside.snapshot, is_due))

    def _ahead(self) -> Batch | None:
        """Return what comes before anything more of the log."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._read.popleft() if self._read else None

    def _opened_again(self) -> bool:
        """Open the log again where it is stored what is to be read beside it."""
        again = self._again
        if again is None or self._confirmed is None or not self._confirmed.covers(again):
            return False
        self._again = None
        self.open(again.encode(), again.epoch)
        return True

    def _read_beside(self, session: _Session) -> bool:
        """Take rows that were read beside the log; between transactions, when all of the log so far is given."""
        reading, now = self._beside, self._clock()
        if not session.assembler.idle or session.skip_to or session.decision:
            return False
        if self._orders:
            self._obey(session)
            return bool(self._read)
        if reading is None and self._copies_only and self._confirmed is not None and self._confirmed.is_copied:
            raise Finished("all rows are copied")
        if reading is None or now - self._turned_at < IDLE_TURN_S:
            return False
        here = session.groups.idle()
        if session.groups.within or not here.file:
            return False
        self._turned_at = now
        if reading.done:
            self._end_beside(session, reading)
            return bool(self._read)
        batches, session.groups.here = reading.batches(here, beside.reached(here))
        if batches:
            self._moved_at = now
            self._read.extend(batches)
        return bool(batches)

    def _obey(self, session: _Session) -> None:
        """Carry orders out: once it is stored what is to be read, the log is opened again, and watched."""
        here, batches = self._orders.obey(session.groups.idle())
        if self._beside is not None:
            self._beside.snapshot.paused = self._orders.paused
        if batches:
            self._again = session.groups.here = here
            if self._beside is not None:
                self._beside.close()
                self._beside = None
            self._read.extend(batches)
        self._orders.carried_out()

    def _end_beside(self, session: _Session, reading: Beside) -> None:
        """Nothing is left to read; a pipeline that copies and no more has done its work once that is stored."""
        here = session.groups.here
        here, batches = nothing_left(here)
        session.groups.here = here
        self._read.extend(batches)
        if self._config.start != "initial_only":
            reading.close()
            self._beside = None
            return
        self._done = self._done or here
        if self._confirmed is not None and self._confirmed.covers(self._done) and not self._read:
            raise Finished("all rows are copied")

    def _patience(self, left_s: float) -> float:
        return left_s if self._beside is None else min(left_s, IDLE_TURN_S)

    def _known(self, address: Host) -> list[Table]:
        with self._connect(address) as connection:
            return catalogue.tables(connection, self._context.selection)

    def _connect(self, address: Host) -> Connection:
        return connect_to(address, self._config, purpose=self._name)

    def _dump(self, connection: Connection, purpose: str) -> Stream:
        """Return a dump that is not begun, as a reader of its own."""
        config = self._config
        number = readers.choose(connection, config, self._context, purpose)
        name = readers.name_of(self._context, purpose)
        reader = Reader(number, name, config.heartbeat.total_seconds(), config.silence_max.total_seconds())
        return Stream(connection, reader, self._clock)

    def _drain_up_to_fault(self, session: _Session) -> None:
        """Take what was received; what is whole before a fault is given before it is raised."""
        if session.fault is not None:
            return
        try:
            self._drain(session)
        except Fatal as fault:
            session.fault = fault

    def _drain(self, session: _Session) -> None:
        """Take what was received, until a batch is full."""
        if session.skip_to:
            self._skip(session)
            return
        while True:
            if session.groups.decided is not None and not self._decide(session):
                return
            session.groups.drain(session.stream)
            if session.groups.decided is None:
                return

    def _decide(self, session: _Session) -> bool:
        """Read the rows of an XA transaction that was committed; return whether they are all there."""
        if session.decision is None:
            session.decision = Decision(
                session.groups, session.assembler, session.tables, self._dump_at(session), self._oldest(session)
            )
        session.decision.drain()
        if not session.decision.done:
            return False
        session.decision.close()
        session.decision = None
        session.groups.finish()
        return True

    def _dump_at(self, session: _Session) -> Callable[[str, int], Stream]:
        def begun(file: str, offset: int) -> Stream:
            stream = self._dump(self._connect(session.address), f"{self._purpose} xa")
            stream.start_at(file, offset)
            return stream

        return begun

    def _oldest(self, session: _Session) -> Callable[[], str]:
        def named() -> str:
            with self._connect(session.address) as connection:
                return logs.files(connection)[0].file

        return named

    def _skip(self, session: _Session) -> None:
        """Read up to where the position is, in a file from its begin."""
        framing, file = session.framing, session.groups.here.file
        while framing.offset < session.skip_to or not framing.opened:
            event = session.stream.read()
            if event is None:
                return
            framing.take(event)
            if framing.file != file:
                msg = f"{file} ends before {session.skip_to}"
                raise Fatal(msg, hint="the log was reset: fill the target tables anew")
        session.skip_to = 0

    def _wait(self, session: _Session, timeout_s: float) -> bool:
        if (session.decision or session.groups).waits:
            return True  # what it waits for takes its time; more of the log would only pile up
        return (session.decision or session.stream).wait(timeout_s)

    def _taken(self, session: _Session, now: float) -> Batch | None:
        self._moved_at = now
        here = session.groups.here
        session.given = here.file, here.offset
        return session.assembler.take()

    def _idle(self, session: _Session, now: float) -> Batch | None:
        """Return a batch that only moves the position, when the log has moved on without anything for us."""
        if session.assembler.within or session.skip_to or now - self._moved_at < IDLE_S:
            return None
        here = session.groups.idle()
        self._moved_at = now
        if not here.file or (here.file, here.offset) == session.given:
            return None
        session.given = here.file, here.offset
        return Batch((), here, 0, 0)
