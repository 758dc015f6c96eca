"""Reads a PostgreSQL's WAL through pgoutput, after a first copy where one is wanted."""

from __future__ import annotations

import select
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cdcsync.beside import figures_of, nothing_left
from cdcsync.change import Batch
from cdcsync.errors import Fatal, Finished
from cdcsync.orders import Orders
from cdcsync.postgres import identity, publication, slot, told
from cdcsync.postgres.beside import plans, reading, shown
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.check import refuse_circles
from cdcsync.postgres.config import FromLsn
from cdcsync.postgres.connection import connect
from cdcsync.postgres.first import WAITING, Ground, beginning, finished, iter_one, joining
from cdcsync.postgres.groups import Groups
from cdcsync.postgres.pgoutput import Decoder
from cdcsync.postgres.position import PostgresPosition, parse_lsn, transaction_id
from cdcsync.postgres.relations import Relations
from cdcsync.postgres.replication import BODY, Stream
from cdcsync.postgres.reread import Rereader
from cdcsync.postgres.retain import Retainer
from cdcsync.postgres.slot import sender_timeout_s
from cdcsync.rebuilding import due
from cdcsync.transaction import Assembler, Resume

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from cdcsync.beside import Beside
    from cdcsync.change import Position, Row, Table, Transaction
    from cdcsync.ports import SourceContext
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.identity import Identity

GATHER_S: Final = 0.02
"""How long a poll goes on taking transactions while more are at hand."""
LOOK_S: Final = 10.0
"""Between two looks whether the publication still has the tables."""
TURN_S: Final = 0.02
"""While rows are read beside the log: how long the log goes on before it is looked what of them can be given."""
IDLE_TURN_S: Final = 0.002
"""The same while the log is idle; also how late an acknowledgement is seen, which lets the next chunk begin."""
ASK_S: Final = 0.5
"""How long such rows wait for an idle log before the server is asked where it is."""
IDLE_S: Final = 1.0
"""Shortest time between two batches that only move the position."""
SILENCE_MAX_S: Final = 60.0
"""After which a server is deaf whose wal_sender_timeout is off."""


@dataclass
class Session:
    """One connection to the server, and what was learned over it."""

    replication: Connection
    plain: Connection
    identity: Identity
    publications: publication.Publications
    silence_max_s: float


class PostgresWal:
    """The source. See `ports.Source`; one thread calls its methods."""

    def __init__(
        self,
        config: PostgresSource,
        context: SourceContext,
        *,
        tail: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._context = context
        self._tail = tail
        self._clock = clock
        self._slot = config.slot_of(context.pipeline)
        self._claim = slot.Claim(clock)
        self._session: Session | None = None
        self._stream: Stream | None = None
        self._batches: Generator[Batch, None, None] | None = None
        """What comes before the log: the beginning of a copy, or the first position."""
        self._beside: Beside | None = None
        """What is read beside the log."""
        self._done: PostgresPosition | None = None
        """Where a copy that nothing follows has all its rows behind it."""
        self._read: deque[Batch] = deque()
        """Rows that come before anything more of the log."""
        self._rereader = Rereader(config, f"cdcsync {context.pipeline}")
        self._orders = Orders()
        self.order = self._orders.give
        self._again: PostgresPosition | None = None
        """Where the log is to be opened again."""
        self._made_lsn: int | None = None
        """Where a slot stands that this process made for a position that is not stored yet."""
        self._confirmed: PostgresPosition | None = None
        """Acknowledged last."""
        self._fault: Fatal | None = None
        """Raised when all that was read before it is given."""
        self._retainer = (
            Retainer(config, context.pipeline, config.retain, clock) if config.retain is not None and not tail else None
        )

    def open(self, start: str | None, epoch: int) -> None:
        """Stand at `start`; with None copy first, or begin as the configuration says."""
        self.close()
        stored = PostgresPosition.decode(start) if start is not None else None
        self._done = None
        self._session = session = self._connect(fresh=stored is None or stored.copying is not None)
        self._confirmed = None
        if stored is None:
            self._begin(session, epoch + 1)
        elif stored.copying is not None:
            self._copy_again(session, stored, max(epoch, stored.epoch))
        else:
            self._go_on(session, stored, epoch)

    def poll(self, timeout_s: float) -> Batch | None:
        """Return the whole transactions at hand, or a part of a large one, or a new position of an idle log."""
        if self._batches is not None:
            return self._before(timeout_s)
        if self._read:
            return self._read.popleft()
        return None if self._look() else self._poll(self._stream, timeout_s)

    def _poll(self, stream: Stream | None, timeout_s: float) -> Batch | None:
        if stream is None:
            msg = "the source is not open"
            raise RuntimeError(msg)
        until = self._clock() + self._patience(timeout_s)
        gathered = 0.0
        while True:
            if self._assembler.idle and self._read_beside(stream):
                return self._read.popleft()
            self._drain_up_to_fault(stream)
            now = self._clock()
            if self._fault is not None and not self._assembler.ready:
                raise self._fault
            if self._assembler.ready:
                gathered = gathered or now + GATHER_S
                full = self._assembler.full or self._fault is not None
                if full or self._is_due() or now >= gathered or not stream.wait(0.0):
                    return self._taken(now)
            elif now >= until or not (stream.wait(self._patience(until - now)) or self._beside is not None):
                return self._idle(now)

    def acknowledge(self, position: Position | None) -> None:
        """Let the slot move to what is durable; during a copy note that its beginning is stored."""
        if isinstance(position, PostgresPosition):
            self._confirmed = position
        if self._stream is None:
            return
        if isinstance(position, PostgresPosition) and position.copying is None:
            if self._beside is not None:
                self._beside.stored(position)
            self._stream.say(position.lsn)
            if self._retainer is not None:
                self._retainer.turn(position.lsn)
        else:
            self._stream.keep_alive()

    def figures(self) -> dict[str, Any]:
        """Return what is shown of the rows that are read beside the log; any thread may ask."""
        if self._stream is None:
            return figures_of(self._beside, (), 0)
        taken = self._orders.taken
        return figures_of(self._beside, self._groups.here.pending, taken)

    def reread(self, table: Table, keys: Sequence[Row], transactions: Sequence[Transaction]) -> list[Row]:
        """Return rows by their keys; see `ports.Rereader`. On a connection and the thread of who asks."""
        session = self._session
        return self._rereader.read(session.publications.tables if session else (), table, keys, transactions)

    def close(self) -> None:
        """Disconnect."""
        self._rereader.close()
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()
        self._stream = self._fault = None
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.close()
        self._read.clear()
        session, self._session = self._session, None
        if session is not None:
            session.replication.close()
            session.plain.close()

    def _connect(self, *, fresh: bool) -> Session:
        several = len(self._config.addresses) > 1
        name = f"cdcsync {self._context.pipeline}"
        plain = connect(self._config, application_name=name, read_write=several)
        try:
            publications = self._publish(plain, fresh=fresh or self._tail)
            refuse_circles(plain, [each.info for each in publications.tables], self._context)
            replication = connect(self._config, application_name=name, replication=True, read_write=several)
        except BaseException:
            plain.close()
            raise
        try:
            now = identity.identify(replication)
            silence_max_s = sender_timeout_s(plain) or SILENCE_MAX_S
        except BaseException:
            plain.close()
            replication.close()
            raise
        return Session(replication, plain, now, publications, silence_max_s)

    def _publish(self, plain: Connection, *, fresh: bool) -> publication.Publications:
        return publication.ensure(plain, self._config, self._context, fresh=fresh)

    def _begin(self, session: Session, epoch: int) -> None:
        """Begin where no position is stored."""
        place = self._place(session, epoch, 0)
        found = slot.find(session.plain, self._slot) if not self._tail else None
        start = self._config.start
        if isinstance(start, FromLsn) and not self._tail:
            place = replace(place, lsn=parse_lsn(start.lsn))
            self._check_slot(session, place, promoted=False)
        elif found is not None and self._made_lsn is not None and found.confirmed_lsn == self._made_lsn:
            place = replace(place, lsn=self._made_lsn)
            self._claim.judge(found)
        elif start in ("initial", "initial_only") and not self._tail:
            slot.check_absent(found, self._context.pipeline)
            self._batches = beginning(self._ground(session), place, again=False)
            return
        else:
            slot.check_absent(found, self._context.pipeline)
            place = replace(place, lsn=self._make_slot(session))
        self._start(session, place)
        self._batches = iter_one(Batch((), place, 0, 0))

    def _make_slot(self, session: Session) -> int:
        if self._tail:
            return slot.create_temporary(session.replication, self._slot)
        failover = self._config.failover is not False
        self._made_lsn = slot.create(session.replication, self._slot, failover=failover).consistent_lsn
        return self._made_lsn

    def _go_on(self, session: Session, stored: PostgresPosition, epoch: int) -> None:
        """Go on at a stored position; where the log since then is gone, as the configuration says."""
        if self._config.start == "initial_only" and stored.is_copied:
            raise Finished("all rows are copied")
        try:
            self._continue(session, stored, epoch)
        except slot.Lost:
            if self._config.on_lost_position != "snapshot":
                raise
            self._copy_again(session, stored, max(epoch, stored.epoch) + 1)

    def _continue(self, session: Session, stored: PostgresPosition, epoch: int) -> None:
        """Go on at a stored position, on this server or on one promoted from its history."""
        now = session.identity
        identity.check_history(session.replication, now, stored.system, stored.timeline, stored.lsn)
        promoted = stored.timeline != now.timeline
        self._check_slot(session, stored, promoted=promoted)
        known = max(epoch, stored.epoch)
        place = replace(stored, epoch=known + promoted, timeline=now.timeline, slot=self._slot)
        if session.publications.joining:
            self._batches = self._join(session, place)
        else:
            self._start(session, place)

    def _join(self, session: Session, place: PostgresPosition) -> Generator[Batch, None, None]:
        self._again = yield from joining(session.plain, session.publications, place, self._is_stored)

    def _is_stored(self, position: PostgresPosition) -> bool:
        return self._confirmed is not None and self._confirmed.covers(position)

    def _check_slot(self, session: Session, place: PostgresPosition, *, promoted: bool) -> None:
        found = slot.find(session.plain, self._slot)
        if found is not None:
            slot.check_form(found, self._config.database)
        found = slot.check_position(found, self._slot, place.lsn, promoted=promoted)
        self._claim.judge(found, session.silence_max_s + 5)

    def _start(self, session: Session, place: PostgresPosition) -> None:
        """Stream from `place`; inside a transaction, from its start, skipping what was delivered."""
        self._assembler = Assembler(raw_at=BODY)
        if place.within is not None:
            within = place.within
            identity_of = transaction_id(within.xid, within.final_lsn)
            self._assembler.resume(Resume(identity_of, within.delivered, within.checksum))
        published = session.publications.tables
        catalogue, selection = Catalogue(session.plain), self._context.selection
        decoder = Decoder(Relations(catalogue, selection, [each.info for each in published]).describe)
        here = replace(place, within=None)
        self._groups = Groups(self._assembler, decoder, here, self._is_due)
        tells = told.is_there(session.plain)
        self._groups.messages = self._config.messages
        self._groups.told = told.Told(catalogue, selection, decoder.known).items if tells else None
        self._looked_at = self._moved_at = self._clock()
        stream = Stream(session.replication, session.silence_max_s, self._clock)
        stream.start(self._slot, place.lsn, session.publications.names, messages=self._config.messages or tells)
        self._stream = stream
        self._turned_at = self._asked_at = self._clock()
        self._begin_beside(session, place)
        if place.within is None:
            self._groups.here, steps = due(self._groups.here)
            self._read.extend(steps)

    def _begin_beside(self, session: Session, place: PostgresPosition) -> None:
        if not any(each.is_read for each in place.pending):
            return
        parts = plans(session.plain, shown(session.plain, session.publications.tables))
        name = f"cdcsync {self._context.pipeline}"
        self._beside = self._groups.beside = reading(
            self._config, session.plain, parts, place, name=name, clock=self._clock
        )
        self._beside.snapshot.paused = self._orders.paused

    def _read_beside(self, stream: Stream) -> bool:
        """Take rows that were read beside the log; between transactions, when all of the log so far is given."""
        if self._orders:
            self._obey()
            return bool(self._read)
        beside, now = self._beside, self._clock()
        if beside is None or now - self._turned_at < IDLE_TURN_S:
            return False
        self._turned_at = now
        if beside.done:
            self._end_beside(beside)
            return bool(self._read)
        batches, self._groups.here = beside.batches(self._groups.here, max(self._groups.here.lsn, self._groups.wal_end))
        if batches:
            self._moved_at = now
            self._read.extend(batches)
        elif beside.waits and now - self._asked_at > ASK_S:
            self._asked_at = now
            stream.say(ask=True)
        return bool(batches)

    def _obey(self) -> None:
        """Carry orders out: what is to be read is stored with the next position, and begun again with it."""
        session, beside = self._session, self._beside
        self._groups.here, batches = self._orders.obey(self._groups.here)
        if batches and session is not None:
            if beside is not None:
                beside.close()
                self._beside = self._groups.beside = None
            self._begin_beside(session, self._groups.here)
            self._read.extend(batches)
        self._orders.carried_out()
        if self._beside is not None:
            self._beside.snapshot.paused = self._orders.paused

    def _end_beside(self, beside: Beside) -> None:
        """Nothing is left to read; a pipeline that copies and no more has done its work once that is stored."""
        self._groups.here, batches = nothing_left(self._groups.here)
        self._read.extend(batches)
        if self._config.start != "initial_only":
            beside.close()
            self._beside = self._groups.beside = None
            return
        self._done = self._done or self._groups.here
        if self._session is not None and self._is_stored(self._done) and not self._read:
            self._stream = None
            raise finished(self._session.replication, self._session.plain, self._slot)

    def _is_due(self) -> bool:
        """Return whether rows read beside the log have waited long enough for it to pause between transactions."""
        within = self._assembler.within
        return self._beside is not None and not within and self._clock() - self._turned_at >= TURN_S

    def _patience(self, left_s: float) -> float:
        return left_s if self._beside is None else min(left_s, IDLE_TURN_S)

    def _look(self) -> bool:
        """Look at what is published; return whether the log was opened again, for tables that were made since.

        Raises Fatal where a table's name went to another table, or left the publication: its changes are not in the log.
        """
        now, session = self._clock(), self._session
        if session is None or now - self._looked_at <= LOOK_S:
            return False
        self._looked_at = now
        publication.refuse_unpublished(session.plain, session.publications)
        here = self._groups.here
        idle = self._assembler.idle and not self._read and not self._tail
        if not idle or not publication.has_newcomers(
            session.plain, self._config, self._context.selection, session.publications
        ):
            return False
        self.open(here.encode(), here.epoch)
        return True

    def _drain_up_to_fault(self, stream: Stream) -> None:
        """Take what was received; what is whole before a fault is given before it is raised."""
        if self._fault is not None:
            return
        try:
            self._groups.drain(stream)
        except Fatal as fault:
            self._fault = fault

    def _taken(self, now: float) -> Batch | None:
        self._moved_at = now
        return self._assembler.take()

    def _idle(self, now: float) -> Batch | None:
        """Return a batch that only moves the position, when the log has moved on without anything for us."""
        if self._groups.wal_end <= self._groups.here.lsn or self._assembler.within or now - self._moved_at < IDLE_S:
            return None
        self._moved_at = now
        self._groups.here = self._groups.here.at(self._groups.wal_end)
        return Batch((), self._groups.here, 0, 0)

    def _before(self, timeout_s: float) -> Batch | None:
        """Give what comes before the log; once that has ended, the log streams."""
        if self._batches is None:
            return None
        batch = next(self._batches, None)
        if batch is None:
            self._batches = None
            again, self._again = self._again, None
            if again is not None:
                self.open(again.encode(), again.epoch)
            return None
        if batch is WAITING:
            select.select([], [], [], min(timeout_s, 0.02))
            return None
        return batch

    def _place(self, session: Session, epoch: int, lsn: int) -> PostgresPosition:
        return PostgresPosition(epoch, session.identity.system, session.identity.timeline, lsn, self._slot)

    def _copy_again(self, session: Session, stored: PostgresPosition, epoch: int) -> None:
        """Begin anew, into targets that are cleared; the slot of what was before is dropped."""
        if stored.system != session.identity.system:
            identity.check_history(session.replication, session.identity, stored.system, stored.timeline, 0)
        found = slot.find(session.plain, stored.slot)
        if found is not None:
            self._claim.judge(found, session.silence_max_s + 5)
            slot.drop(session.plain, stored.slot)
        self._batches = beginning(self._ground(session), self._place(session, epoch, 0), again=True)

    def _ground(self, session: Session) -> Ground:
        return Ground(
            config=self._config,
            replication=session.replication,
            plain=session.plain,
            slot=self._slot,
            name=f"cdcsync {self._context.pipeline}",
            tables=shown(session.plain, session.publications.tables),
            is_stored=self._is_stored,
            start=lambda position: self._start(session, position),
        )
