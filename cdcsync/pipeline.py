"""One pipeline: a batch goes one way, its position comes back only when the sink says that it is durable."""

from __future__ import annotations

import enum
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import structlog

from cdcsync.change import Batch, Change, Operation
from cdcsync.errors import End, ExitStatus, Fatal, Finished, Incomplete, Rejected, Transient
from cdcsync.metrics import Progress, State
from cdcsync.reader import Limits, Reader, is_whole
from cdcsync.rebuilding import isolated, routed
from cdcsync.rejected import Letter, NoLetters
from cdcsync.rereading import completed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Position, Rebuild, Table, Transaction
    from cdcsync.pending import Pending
    from cdcsync.ports import Arriving, PositionStore, Rebuilder, Rereader, Sink, Source, Stored, Transform
    from cdcsync.rejected import Letters


class OnRejected(enum.StrEnum):
    """What happens to a change that the mapping or the sink will never take."""

    STOP = "stop"
    DEAD_LETTER = "dead_letter"
    SKIP = "skip"


class Trace(Protocol):
    """Sees every step of the invariant: acknowledged <= saved <= durable."""

    def __call__(self, event: str, position: str, changes: int) -> None:
        """Record "start", "durable", "save" or "acknowledge"."""
        ...


def no_trace(event: str, position: str, changes: int) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a pipeline behaves; fixed for its life."""

    name: str = "pipeline"
    lane: str = ""
    on_rejected: OnRejected = OnRejected.STOP
    heartbeat_s: float = 10.0
    """How long after the last save a position with no changes is stored."""
    back_off_max_s: float = 30.0
    reread: bool = True
    """Whether rows that neither log nor target have whole are read at the source."""
    limits: Limits = field(default_factory=Limits)
    targets: tuple[Table, ...] = ()
    """The mapped tables known at start."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pipeline is given from outside itself: eyes, clock and dice."""

    trace: Trace = no_trace
    turned: Callable[[State], None] = lambda _state: None
    """Called by each turn of the loop, a back-off step too; feeds the watchdog."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""
    wall_clock: Callable[[], float] = time.time
    """Seconds since 1970 UTC."""
    dice: random.Random = field(default_factory=random.Random)


class Counts(NamedTuple):
    """How much was delivered."""

    changes: int
    transactions: int


IDLE_S = 0.5
"""Longest wait for a batch; bounds how late a stop, a pause or a heartbeat is seen."""

UNDER_WAY_S = 0.02
"""The same while a sink has batches under way: a pause of the source is a time to wait for them."""


SOON_S = 0.2
"""How long after the last save a position is stored that has nothing but rows of a copy before it, all filtered away."""


class Pipeline:
    """Carries changes from a source through a transform into a sink, and owns the position."""

    def __init__(  # noqa: PLR0913  the three ends, what they need, and policy; all but the ends have defaults
        self,
        source: Source,
        transform: Transform,
        sink: Sink,
        *,
        positions: PositionStore | None = None,
        letters: Letters | None = None,
        policy: Policy | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._transform = transform
        self._sink = sink
        self._source = source
        self._keeps = positions is None
        self._positions = positions if positions is not None else _kept_by(sink)
        self._letters: Letters = letters if letters is not None else NoLetters()
        self._policy = policy or Policy()
        self._around = surroundings or Surroundings()
        self._reader = Reader(source, self._policy.limits)
        self._log = structlog.get_logger().bind(pipeline=self._policy.name)
        self.progress = Progress(started_us=int(self._around.wall_clock() * 1e6))
        self._stopping = threading.Event()
        self._paused = threading.Event()
        self._delivers = False
        """Sink and store are open."""
        self._within = False
        """The sink holds an unfinished large transaction."""
        self._under_way = False
        """The sink has batches under way that are not known to be durable."""
        self._uncounted = Counts(0, 0)
        """What is in them."""
        self._epoch = 0
        """The highest that store and sink know."""
        self._held: Position | None = None
        """Read and filtered away, not stored yet."""
        self._soon = False
        """The source reads no further until it is."""
        self._stored: Stored | None = None
        self._saved_at = self._around.clock()
        self._opened_at = self._around.clock()
        self._failures = 0

    def run(self) -> None:
        """Run until `stop`, or until the source is finished; returns with everything delivered stored and acknowledged.

        Raises Fatal when only a person can go on; the position is not moved past the cause.
        """
        try:
            with suppress(Finished):
                while not self._stopping.is_set():
                    self._guarded(self._turn)
            if self._delivers:
                self._guarded(self._finish)
        finally:
            self._reader.stop()
            self._close_sink()
            self.progress.state = State.STOPPED

    def stop(self) -> None:
        """Ask `run` to return after the write that is under way. Any thread, any signal handler."""
        self._stopping.set()
        self._reader.wake()

    def pause(self) -> None:
        """Hold deliveries; the source stays connected and alive."""
        self._paused.set()
        self._reader.wake()

    def resume(self) -> None:
        """Deliver again."""
        self._paused.clear()

    def figures(self) -> dict[str, Any]:
        """Return all that is shown of it, as JSON can carry it. Any thread may ask."""
        beside = getattr(self._source, "figures", None)
        return {**self.progress.figures(), "snapshot": beside() if beside is not None else {}}

    def order(self, action: str, tables: Sequence[str], where: str, pending: Sequence[Pending] = ()) -> int:
        """Have tables read beside the log: "read", "cancel", "pause" or "resume"; return the order's number. Any thread.

        Raises Fatal where the source reads none.
        """
        order: Callable[..., int] | None = getattr(self._source, "order", None)
        if order is None:
            msg = "this source reads no rows beside its log"
            raise Fatal(msg, hint="copy everything again under another pipeline's name", status=ExitStatus.CONFIG)
        return order(action, tables, where, pending)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Transient as fault:
            self._recover(fault)

    def _turn(self) -> None:
        self._around.turned(self.progress.state)
        self._open_ends()
        if self._paused.is_set():
            self.progress.state = State.PAUSED
            self._stopping.wait(IDLE_S)
            return
        batch = self._take()
        if batch is not None:
            self._deliver(batch)
        elif self._under_way:
            self._await_arrival()
        if self._is_due():
            self._write_held()
        self._settle(delivered=batch is not None)

    def _take(self) -> Batch | None:
        """Wait for what was read; a source that refuses us may do so because another has taken the lane."""
        try:
            return self._reader.take(UNDER_WAY_S if self._under_way else IDLE_S)
        except Fatal:
            self._positions.load()
            raise

    def _settle(self, *, delivered: bool) -> None:
        """Note that the ends work: at a delivery, or when the source has stood in its log for a while."""
        if self._reader.opened and self.progress.state is not State.RUNNING:
            self.progress.state = State.RUNNING
            self.progress.fault = ""
            self._log.info("streaming", position=self.progress.position)
        if delivered or self._around.clock() - self._opened_at > self._policy.back_off_max_s:
            self._failures = 0

    def _open_ends(self) -> None:
        if not self._delivers:
            self._positions.open(self._policy.lane)
            epoch = self._sink.open()
            self._stored = self._positions.load()
            self._refuse_unmarked(epoch)
            self._reader.stop()
            self._epoch = max(epoch or 0, self._stored.epoch if self._stored else 0)
            self._delivers = True
        if not self._reader.running:
            self._stored = self._positions.load()
            start = self._stored.position if self._stored else None
            self.progress.position = start or ""
            self._around.trace("start", start or "", 0)
            self._held = None
            self._within = self._under_way = False
            self._uncounted = Counts(0, 0)
            self._opened_at = self._around.clock()
            self._reader.start(start, self._epoch)

    def _refuse_unmarked(self, epoch: int | None) -> None:
        """A stored position over a target that does not know us would leave a gap."""
        if self._stored is None or self._keeps or epoch != 0:
            return
        msg = f"pipeline {self._policy.name} has a stored position, but its target has no mark of it"
        raise Fatal(
            msg,
            hint="the target was replaced or emptied: bring it back, or forget the position with "
            f"`cdcsync positions clear {self._policy.name}` and copy everything again",
        )

    def _deliver(self, batch: Batch) -> None:
        self.progress.read_changes += batch.changes
        self.progress.size_bytes += batch.size_bytes
        if batch.rebuild is not None:
            self._rebuild(batch, batch.rebuild)
            return
        batch = isolated(batch)
        batch, mapped = self._map(batch)
        if not mapped.changes and is_whole(mapped):
            self._held = batch.position
            self._soon = self._soon or _has_reads(batch)
            return
        durable, mapped = self._write(batch, mapped)
        self._within = bool(mapped.transactions) and not mapped.transactions[-1].last
        if durable is not None:
            self._save(durable, mapped)
        if hasattr(self._sink, "arrived"):
            self._under_way = durable is not mapped.position
            if durable is None:
                self._uncounted = Counts(
                    self._uncounted.changes + mapped.changes, self._uncounted.transactions + len(mapped.transactions)
                )

    def _await_arrival(self) -> None:
        """Store what a sink has under way, when nothing more came meanwhile."""
        self._under_way = False
        durable = cast("Arriving", self._sink).arrived()
        if durable is not None:
            self._save(durable, Batch((), durable, 0, 0, self._policy.lane))

    def _rebuild(self, batch: Batch, rebuild: Rebuild) -> None:
        """Let the target take a step between two transactions, all before it being stored."""
        self._finish()
        tables = [table for table in self._policy.targets if table.qualified in rebuild.tables]
        self._log.info("rebuild", step=rebuild.step.value, tables=list(rebuild.tables))
        durable = cast("Rebuilder", self._sink).rebuild(rebuild.step, tables, batch.position)
        self._save(durable, Batch((), durable, 0, 0, self._policy.lane))

    def _map(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return what of the batch is mapped, and it mapped."""
        while True:
            try:
                return batch, routed(self._transform.apply(batch))
            except Incomplete as incomplete:
                batch = self._reread(batch, batch, incomplete) or self._put_aside(batch, incomplete)
            except Rejected as rejected:
                batch = self._put_aside(batch, rejected)

    def _write(self, given: Batch, mapped: Batch) -> tuple[Position | None, Batch]:
        """Write all that the sink takes; what it does not is read again, or put aside first, durably.

        Return what is durable, and what was written.
        """
        mapped = self._join_parked(mapped)
        while True:
            try:
                durable = self._sink.write(mapped)
            except Incomplete as incomplete:
                given, mapped = self._complete(given, mapped, incomplete)
            except Rejected as rejected:
                mapped = self._put_aside(mapped, rejected)
            else:
                self._letters.heal(mapped)
                return durable, mapped

    def _complete(self, given: Batch, mapped: Batch, incomplete: Incomplete) -> tuple[Batch, Batch]:
        """Return the batch with whole rows from the source, mapped again; without the rows where that cannot be."""
        whole = self._reread(given, mapped, incomplete)
        if whole is None:
            return given, self._put_aside(mapped, incomplete)
        given, mapped = self._map(whole)
        return given, self._join_parked(mapped)

    def _reread(self, given: Batch, named: Batch, incomplete: Incomplete) -> Batch | None:
        """Return the source's batch with whole rows where `named` lacks values; None where that cannot be."""
        if not self._policy.reread or not hasattr(self._source, "reread"):
            return None
        whole = completed(given, named, incomplete.reasons, cast("Rereader", self._source))
        if whole is not None:
            self.progress.reread += len(incomplete.reasons)
        return whole

    def _join_parked(self, mapped: Batch) -> Batch:
        """Put incomplete changes aside whose key has a dead letter: they mean nothing without it."""
        parked = self._letters.parked(mapped)
        if not parked:
            return mapped
        reason = "an earlier change of this key is a dead letter"
        return self._put_aside(mapped, Rejected(dict.fromkeys(parked, reason)))

    def _put_aside(self, batch: Batch, rejected: Rejected) -> Batch:
        """Store the rejected items by the policy; return the batch without them."""
        letters = [
            Letter.of(self._policy.name, batch.transactions[at], index, reason, rejected.mapped.get((at, index)))
            for (at, index), reason in sorted(rejected.reasons.items())
        ]
        if not letters:
            raise rejected
        first = letters[0]
        where = f"{first.target} at {first.position}"
        if self._policy.on_rejected is OnRejected.STOP:
            msg = f"{len(letters)} change(s) rejected, the first of {where}: {first.reason}"
            hint = (
                "mend the target, or set `on_rejected: dead_letter` to put such changes aside "
                f"(then `cdcsync rejected list {self._policy.name}` shows them)"
            )
            raise Fatal(msg, hint=hint, status=ExitStatus.DATA) from rejected
        if self._policy.on_rejected is OnRejected.DEAD_LETTER:
            self._letters.store(letters)
        self._log.warning("rejected", count=len(letters), first=where, reason=first.reason)
        self.progress.rejected += len(letters)
        return without(batch, rejected.reasons)

    def _save(self, durable: Position, mapped: Batch) -> None:
        encoded = durable.encode()
        self._around.trace("durable", encoded, mapped.changes)
        self._positions.save(durable)
        self._around.trace("save", encoded, 0)
        self._reader.acknowledge(durable)
        self._around.trace("acknowledge", encoded, 0)
        if self._held is not None and durable.covers(self._held):
            self._held = None
            self._soon = False
        self._note(encoded, mapped)

    def _note(self, encoded: str, mapped: Batch) -> None:
        self._saved_at = self._around.clock()
        progress = self.progress
        progress.position = encoded
        progress.changes += mapped.changes + self._uncounted.changes
        progress.transactions += len(mapped.transactions) + self._uncounted.transactions
        self._uncounted = Counts(0, 0)
        if mapped.transactions:
            progress.commit_time_us = mapped.transactions[-1].commit_time_us
            progress.lag_ms = max(0.0, self._around.wall_clock() * 1e3 - progress.commit_time_us / 1e3)

    def _is_due(self) -> bool:
        if self._held is None or self._within:
            return False
        waits_s = min(SOON_S, self._policy.heartbeat_s) if self._soon else self._policy.heartbeat_s
        return not self.progress.position or self._around.clock() - self._saved_at >= waits_s

    def _write_held(self) -> None:
        """Store a position that no change came with; never inside a large transaction."""
        if self._held is None or self._within:
            return
        empty = Batch((), self._held, 0, 0, self._policy.lane)
        durable = self._sink.write(empty)
        if durable is None:
            durable = self._sink.flush()
        if durable is not None:
            self._save(durable, empty)

    def _finish(self) -> None:
        """Make all that was delivered durable, store and acknowledge it."""
        self._write_held()
        durable = self._sink.flush()
        if durable is not None and durable.encode() != self.progress.position:
            self._save(durable, Batch((), durable, 0, 0, self._policy.lane))

    def _recover(self, fault: Transient) -> None:
        """Close the end that failed and wait, longer each time, before it is opened again."""
        self._failures += 1
        self.progress.faults += 1
        self.progress.state = State.UNREADY
        self.progress.fault = f"{fault.end}: {fault}"
        if fault.end is End.SOURCE:
            self._reader.stop()
        else:
            self._close_sink()
        longest = min(self._policy.back_off_max_s, 0.1 * 2 ** min(self._failures, 16))
        delay_s = self._around.dice.uniform(longest / 2, longest)
        self._log.warning("unready", end=fault.end.value, fault=str(fault), retry_in_s=round(delay_s, 2))
        until = self._around.clock() + delay_s
        while not self._stopping.is_set() and (left := until - self._around.clock()) > 0:
            self._around.turned(self.progress.state)
            self._stopping.wait(min(left, IDLE_S))

    def _close_sink(self) -> None:
        self._delivers = False
        self._sink.close()
        self._positions.close()


def _kept_by(sink: Sink) -> PositionStore:
    """Return the store of a sink that is a Keeper."""
    offered = getattr(sink, "positions", None)
    if offered is None:
        msg = "this sink does not keep a position"
        raise Fatal(msg, hint="name a store under `positions:`", status=ExitStatus.CONFIG)
    store: PositionStore = offered()
    return store


def _has_reads(batch: Batch) -> bool:
    """Return whether rows of a copy are in it: its source waits for them to be stored."""
    firsts = [each.items[0] for each in batch.transactions if each.items]
    return any(isinstance(item, Change) and item.operation is Operation.READ for item in firsts)


def without(batch: Batch, reasons: Mapping[tuple[int, int], str]) -> Batch:
    """Return the batch without the items at these (transaction, item) indexes."""
    dropped: dict[int, set[int]] = {}
    for at, index in reasons:
        dropped.setdefault(at, set()).add(index)
    transactions = [
        _thinned(transaction, dropped[at]) if at in dropped else transaction
        for at, transaction in enumerate(batch.transactions)
    ]
    return replace(batch, transactions=tuple(transactions), changes=batch.changes - len(reasons))


def _thinned(transaction: Transaction, dropped: set[int]) -> Transaction:
    kept = [index for index in range(len(transaction.items)) if index not in dropped]
    return replace(
        transaction,
        items=[transaction.items[index] for index in kept],
        ordinals=[transaction.ordinals[index] for index in kept],
    )
