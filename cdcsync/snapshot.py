"""Snapshots: rows that were there before the log, read in chunks while the log is read; per row, which of both is newer.

A server lets the log show a transaction before a SELECT sees it, so that no comparison of places in the log tells
whether a row that was read is stale. What tells is the view that a chunk was read in:

- all that the log gave before a chunk was begun has to be seen by its view, else the view is opened again;
- what the log gives from then on is noted by key; a row whose key was changed by a transaction that the view does not
  see is left out, as the log has a newer one;
- a chunk is merged when the log has given all that its view sees. What is in the target then, of this chunk, is
  exactly the source's state at that place of the log: no row comes from the future, no unique value is there twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from cdcsync.pending import FAILED, FILL, FILLED, Key, Pending
from cdcsync.window import Window, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from cdcsync.change import Change
    from cdcsync.errors import Fatal
    from cdcsync.window import View

ROWS_FIRST: Final = 2_000
"""Of a table's first chunk, before anything was measured."""
ROWS_MIN: Final = 100
ROWS_MAX: Final = 50_000
RATE_CHUNKS: Final = 20
"""How many chunks the rate is taken over."""
UNPROVEN_MAX: Final = 20_000
"""Transactions of the log that no view was asked about yet, before the server is asked which of them still run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one snapshot."""

    workers: int = 2
    """Chunks that are read, or merged and not yet stored, at once."""
    chunk_s: float = 0.5
    """How long reading one chunk should take."""
    chunk_bytes_max: int = 8 << 20
    """Of one chunk, as the server sends it."""
    window_bytes_max: int = 8 << 20
    """Of the keys noted for one chunk; past it the chunk is read again, smaller."""
    rows_per_s_max: int | None = None
    isolate: bool = False
    """Whether a table that cannot be read is left alone; else its error ends all."""


@dataclass(slots=True)
class Chunk:
    """One range of a table's keys, to be read in one view."""

    number: int
    pending: Pending
    after: Key | None
    rows_max: int
    low: Any
    """Up to where the log was read when it was begun."""
    must_see: frozenset[Hashable]
    """Transactions that the log has given and that may not be visible yet."""
    window: Window
    cut: bool = False
    """Whether `last` is known."""
    last: Key | None = None
    """Its last key; None: it goes on to the end of the table."""
    taken: Taken | None = None
    view: View | None = None
    """What it is read in, once that is known."""
    asked: Hashable = None
    """The transaction that the view was asked for last, and what it said."""
    answer: bool = False

    def note(self, transaction: Hashable, change: Change) -> None:
        """Note a change of its table, unless the view sees it."""
        if self.view is not None:
            if transaction != self.asked:
                self.asked, self.answer = transaction, self.view.sees(transaction)
            if self.answer:
                return
        self.window.note(transaction, change)

    def unseen_by(self, view: View) -> list[Hashable]:
        """Return what the view has to see and does not; the chunk may be read in it when there is nothing."""
        return [transaction for transaction in self.must_see if not view.sees(transaction)]


class Opened(NamedTuple):
    """A chunk has its view; what that sees need not be noted."""

    number: int
    view: View


class Cut(NamedTuple):
    """Where a chunk ends is known; the next may begin."""

    number: int
    last: Key | None


class Taken(NamedTuple):
    """A chunk was read."""

    number: int
    view: View
    changes: Sequence[Change]
    size_bytes: int
    took_s: float


class TooLarge(NamedTuple):
    """A chunk has more bytes than one may have; nothing of it was kept."""

    number: int


class Held(NamedTuple):
    """A chunk waits: its view does not see what the log has given; `by` names who has to end."""

    number: int
    by: str


class Failed(NamedTuple):
    """A chunk cannot be read, as long as nobody does something about it."""

    number: int
    error: Fatal


Report: TypeAlias = Opened | Cut | Taken | TooLarge | Held | Failed


class ChunkReader(Protocol):
    """Reads chunks beside the log, on threads and connections of its own."""

    def begin(self, chunk: Chunk, bytes_max: int) -> None:
        """Read it, in a view by which `chunk.unseen_by` is empty; of the chunk only what is fixed is looked at."""
        ...

    def reports(self) -> list[Report]:
        """Return what happened since the last call. Raises what a reading raised: Transient and Fatal."""
        ...

    def abandon(self, number: int) -> None:
        """Stop reading a chunk; what is reported of it is ignored."""
        ...

    def running(self) -> frozenset[Hashable]:
        """Return the transactions that hold an identifier and have not ended yet for those who look now."""
        ...


class Merged(NamedTuple):
    """A chunk, ready to be delivered before anything more of the log."""

    changes: Sequence[Change]
    low: Any
    size_bytes: int
    pending: tuple[Pending, ...]
    """What is left to read once these rows are stored."""


@dataclass(slots=True)
class _Front:
    """Where the next chunk of a pending table begins."""

    after: Key | None
    rows_max: int = ROWS_FIRST
    blocked: bool = False
    """The last chunk's end is not known yet, or was the table's end."""


@dataclass(slots=True)
class Figures:
    """What is shown of a snapshot."""

    rows: int = 0
    """Read and merged since the process started."""
    chunks: int = 0
    again: int = 0
    """Chunks read once more."""
    stale: int = 0
    """Rows left out: the log had a newer one."""
    held_by: str = ""
    """Which transaction at the source is waited for."""


@dataclass(slots=True)
class _Flying:
    chunks: list[Chunk] = field(default_factory=list)
    merged: dict[int, float] = field(default_factory=dict)
    """Count of batches at the end of a merged chunk that is not stored yet, and when it was merged."""
    undelivered: int = 0
    """Chunks merged in this turn, whose batches are not counted yet."""


STORED_WITHIN_S: Final = 60.0
"""How long a merged chunk counts as one that would be read again, where nobody ever says that it is stored."""


class Snapshot:
    """Reads what is pending. One thread, the log's, calls all methods."""

    def __init__(
        self,
        pending: Iterable[Pending],
        reader: ChunkReader,
        *,
        limits: Limits,
        clock: Callable[[], float],
        unproven: Iterable[Hashable] = (),
        by_place: bool = False,
    ) -> None:
        """Take what is pending. `unproven`: transactions that the log may have given before, not visible yet.

        `by_place`: a view can be asked whether it sees all before a place, and is asked for nothing else.
        """
        self._pending = {each.id: each for each in pending}
        self._fronts = {each.id: _Front(each.after) for each in self._pending.values() if each.is_read}
        self._reader = reader
        self._limits = limits
        self._clock = clock
        self._unproven = set(unproven)
        self._by_place = by_place
        self._flying = _Flying()
        self._number = 0
        self._began_at = clock()
        self.paused = False
        self.figures = Figures()
        self._marks: deque[tuple[float, int]] = deque(maxlen=RATE_CHUNKS)
        """When the last chunks were begun to be merged, and the rows before."""

    @property
    def pending(self) -> tuple[Pending, ...]:
        """What is left to read."""
        return tuple(self._pending.values())

    @property
    def flying(self) -> int:
        """Chunks that are being read or wait to be merged."""
        return len(self._flying.chunks)

    @property
    def done(self) -> bool:
        """Whether nothing is left to read."""
        return not self._fronts

    def rate(self) -> float:
        """Return how many rows were merged per second lately; any thread may ask."""
        marks = list(self._marks)
        if not marks:
            return 0.0
        at, rows = marks[0]
        return (self.figures.rows - rows) / max(self._clock() - at, 1e-3)

    def add(self, more: Iterable[Pending], unproven: Iterable[Hashable] = ()) -> None:
        """Read these as well, after all others."""
        self._unproven.update(unproven)
        for each in more:
            given = replace(each, id=max(self._pending, default=0) + 1)
            self._pending[given.id] = given
            self._fronts[given.id] = _Front(given.after)

    def agree(self, pending: Sequence[Pending]) -> None:
        """Take over what became of tables that are read no more: the next chunk's position says so too."""
        known = {each.id: each for each in pending}
        for each in [each for each in self._pending.values() if not each.is_read]:
            if each.id in known:
                self._pending[each.id] = known[each.id]
            else:
                del self._pending[each.id]

    def cancel(self, tables: Iterable[str] = ()) -> list[str]:
        """Forget what is pending of these tables, of all when none is named; return their names."""
        named = set(tables)
        gone = [each for each in self._pending.values() if each.is_read and (not named or each.table in named)]
        for each in gone:
            self._drop_from(each.id, 0)
            del self._pending[each.id], self._fronts[each.id]
        return [each.table for each in gone]

    def began(self, transaction: Hashable) -> None:
        """Note that the log gives a transaction."""
        self._unproven.add(transaction)

    def note(self, transaction: Hashable, change: Change) -> None:
        """Note a change of the log, before it is delivered."""
        for chunk in self._flying.chunks:
            if chunk.pending.table == change.table.qualified:
                chunk.note(transaction, change)

    def doubt(self) -> None:
        """Of what was noted some is not in the log after all: what is being read is read again."""
        for chunk in self._flying.chunks:
            chunk.window.spill()

    def stored(self, count: int) -> None:
        """Note that all batches of rows up to this one are durable."""
        for each in [each for each in self._flying.merged if each <= count]:
            del self._flying.merged[each]

    def turn(self, place: Any) -> list[Merged]:
        """Return the chunks to deliver now; begin others. The log is delivered up to `place`, between transactions."""
        for report in self._reader.reports():
            self._hear(report)
        merged = [self._merge(chunk) for chunk in self._due(place)]
        self._flying.undelivered = sum(1 for each in merged if each.changes)
        self._plan(place)
        return merged

    def delivered(self, count: int) -> None:
        """Note which batch of rows was the last of a chunk that `turn` gave; for each that has rows, in their order."""
        self._flying.undelivered = max(0, self._flying.undelivered - 1)
        self._flying.merged[count] = self._clock()

    def _hear(self, report: Report) -> None:
        chunk = next((each for each in self._flying.chunks if each.number == report.number), None)
        if chunk is None:
            return
        front = self._fronts[chunk.pending.id]
        if isinstance(report, Opened):
            chunk.view = report.view
            chunk.window.forget(report.view)
        elif isinstance(report, Cut):
            chunk.cut, chunk.last = True, report.last
            front.after, front.blocked = report.last, report.last is None
        elif isinstance(report, Taken):
            chunk.taken = report
            self._unproven -= chunk.must_see
            self.figures.held_by = ""
            front.rows_max = self._next_size(chunk, report)
        elif isinstance(report, Failed):
            self._fail(chunk.pending.id, report.error)
        elif isinstance(report, TooLarge):
            self._again(chunk, chunk.rows_max // 2)
        else:
            self.figures.held_by = report.by

    def _fail(self, owner: int, error: Fatal) -> None:
        before = self._pending[owner]
        if not self._limits.isolate or before.stage == FILL:
            raise error
        self._drop_from(owner, 0)
        del self._fronts[owner]
        self._pending[owner] = replace(
            before, stage=FAILED, after=None, first=False, where="", keys=(), error=str(error)
        )

    def _due(self, place: Any) -> list[Chunk]:
        """Return the chunks that may be merged, each the first of its table."""
        due: list[Chunk] = []
        waiting: set[int] = set()
        for chunk in list(self._flying.chunks):
            owner = chunk.pending.id
            if owner in waiting or chunk not in self._flying.chunks:
                continue
            if chunk.window.overflown:
                self._again(chunk, chunk.rows_max // 2)
                waiting.add(owner)
            elif chunk.taken is None or not chunk.taken.view.is_behind(place):
                waiting.add(owner)
            else:
                due.append(chunk)
        return due

    def _merge(self, chunk: Chunk) -> Merged:
        self._flying.chunks.remove(chunk)
        taken, owner = chunk.taken, chunk.pending.id
        assert taken is not None  # noqa: S101  only chunks that were read are due
        changes = fresh(taken.changes, chunk.window.stale(taken.view))
        if not self._marks:
            self._marks.append((self._began_at, 0))
        self._marks.append((self._clock(), self.figures.rows + len(changes)))
        self.figures.rows += len(changes)
        self.figures.chunks += 1
        self.figures.stale += len(taken.changes) - len(changes)
        before = self._pending[owner]
        if chunk.last is not None:
            self._pending[owner] = replace(before, after=chunk.last, rows=before.rows + len(changes))
        else:
            del self._fronts[owner], self._pending[owner]
            if before.stage == FILL:
                self._pending[owner] = replace(before, stage=FILLED, after=None, rows=before.rows + len(changes))
        return Merged(changes, chunk.low, taken.size_bytes, self.pending)

    def _again(self, chunk: Chunk, rows_max: int) -> None:
        """Read from this chunk on once more, in smaller ones."""
        self.figures.again += 1
        self._drop_from(chunk.pending.id, chunk.number)
        front = self._fronts[chunk.pending.id]
        front.after, front.blocked, front.rows_max = chunk.after, False, max(1, rows_max)

    def _drop_from(self, owner: int, number: int) -> None:
        gone = [each for each in self._flying.chunks if each.pending.id == owner and each.number >= number]
        for chunk in gone:
            self._flying.chunks.remove(chunk)
            self._reader.abandon(chunk.number)

    def _plan(self, place: Any) -> None:
        """Begin chunks as long as one may fly."""
        if self.paused or self.done:
            return
        if len(self._unproven) > UNPROVEN_MAX:
            self._unproven &= self._reader.running()
        for owner, front in self._fronts.items():
            while not front.blocked and self._may_begin():
                self._number += 1
                chunk = Chunk(
                    self._number,
                    self._pending[owner],
                    front.after,
                    front.rows_max,
                    place,
                    frozenset([place]) if self._by_place else frozenset(self._unproven),
                    Window(self._limits.window_bytes_max),
                )
                front.blocked = True
                self._flying.chunks.append(chunk)
                self._reader.begin(chunk, self._limits.chunk_bytes_max)

    def _may_begin(self) -> bool:
        now = self._clock()
        held = sum(1 for at in self._flying.merged.values() if now - at < STORED_WITHIN_S)
        if len(self._flying.chunks) + self._flying.undelivered + held >= self._limits.workers:
            return False
        rate = self._limits.rows_per_s_max
        return rate is None or self.figures.rows + self._ahead() <= rate * (now - self._began_at)

    def _ahead(self) -> int:
        return sum(chunk.rows_max for chunk in self._flying.chunks)

    def _next_size(self, chunk: Chunk, taken: Taken) -> int:
        """Return how many rows the next chunk should have: by time, by bytes, at most twice as many.

        A range that has an end was cut to as many rows as were asked for, though fewer may be wanted of it.
        """
        asked = chunk.rows_max
        rows = max(1, len(taken.changes) if chunk.last is None else asked)
        by_time = int(rows * self._limits.chunk_s / max(taken.took_s, 1e-3))
        by_bytes = int(rows * self._limits.chunk_bytes_max * 0.75 / max(taken.size_bytes, 1))
        wanted = max(ROWS_MIN, min(by_time, 2 * asked, ROWS_MAX))
        rate = self._limits.rows_per_s_max
        if rate is not None:
            wanted = min(wanted, max(1, int(rate * self._limits.chunk_s)))
        return max(1, min(wanted, by_bytes))
