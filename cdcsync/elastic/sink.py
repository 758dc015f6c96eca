"""Elasticsearch as a sink: a document for each row, under the version of its transaction."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from cdcsync.change import Change, CopyStart, SchemaChange, Step, Table
from cdcsync.elastic import rebuild
from cdcsync.elastic.addressed import Action, Addressed, Whole, count, filled, incomplete, placed
from cdcsync.elastic.bulk import Bulk, Pace
from cdcsync.elastic.channels import Channels, Outcome
from cdcsync.elastic.client import Client
from cdcsync.elastic.indexes import Indexes
from cdcsync.elastic.reading import documents_of, everything, is_empty
from cdcsync.errors import End, Fatal, Rejected, Transient
from cdcsync.evolution import Met, met
from cdcsync.folding import NOT_THERE, Barrier, complete, fitted, fold, refusal
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Batch, Position
    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.folding import Group, Ref, TableEffects
    from cdcsync.ports import SinkContext

LARGE: Final = 1000
"""Changes of a batch from which on the next is prepared while it is under way."""
CAREFUL: Final = 100
"""Batches that are waited for one by one after a document was refused."""
LOOK_S: Final = 1.0
"""How often the indexes are asked whether they are still the same."""


def awake() -> float:
    """Return seconds that also count while the machine sleeps, or the process is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ElasticSink:
    """Writes batches as bulk requests, several under way at once; what is answered for is durable."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(
        self,
        config: ElasticSinkConfig,
        context: SinkContext,
        *,
        clock: Callable[[], float] = awake,
    ) -> None:
        self._config = config
        self._context = context
        self._clock = clock
        self._pace = Pace(config.bulk.actions_max)
        self._client: Client | None = None
        self._versions: Callable[[], Mapping[Table, Met]] = dict
        """The table versions of the batch that is written."""
        self._looked_at = 0.0
        self._used_at = 0.0
        self._number = 0
        """Of the batch that was given last."""
        self._under_way: deque[tuple[int, Position]] = deque()
        """Batches that are not known to be answered for."""
        self._careful = 0
        """How many batches are still waited for one by one."""

    def open(self) -> int:
        """Make or check the indexes; return the highest epoch that they hold."""
        self._client = Client(self._config, End.SINK)
        self._indexes = Indexes(self._client, self._config, self._context)
        self._indexes.open()
        self._used_at = self._looked_at = self._clock()
        self._bulk = self._made_bulk()
        self._channels = Channels(self._send, self._config.bulk)
        self._under_way.clear()
        return self._indexes.epoch

    def write(self, batch: Batch) -> Position | None:
        """Send all; return what is answered for. Raises Rejected with what the cluster never takes.

        A large batch is on its way when this returns. What is refused of it then makes a Transient, after which
        batches are waited for one by one until the refused one has come again and is named.
        """
        self._refuse_late(self._used_at)
        self._used_at = self._clock()
        self._versions = partial(met, batch)
        parts = fold(self._indexes.addressed(batch))
        if batch.position.epoch > self._indexes.epoch or not self._indexes.are_marked:
            self._indexes.mark(max(self._indexes.epoch, batch.position.epoch))
        self._number += 1
        self._channels.turn(self._number)
        try:
            for part in parts:
                if isinstance(part, Barrier):
                    self._arrive()
                    self._pass(part, batch)
                else:
                    self._write_group(part, batch)
            if batch.changes < LARGE or self._careful or len(parts) != 1:
                self._arrive()
                self._careful = max(0, self._careful - 1)
            else:
                self._channels.launch()
            self._under_way.append((self._number, batch.position))
            return self._reached(self._channels.outcome())
        except Rejected:
            raise
        except BaseException:
            self._channels.clear()
            self._under_way.clear()
            raise
        finally:
            self._versions = dict

    def arrived(self) -> Position | None:
        """Wait for all that is under way; return what is durable then."""
        return self._reached(self._channels.drain())

    def flush(self) -> Position | None:
        """Wait for all that is under way; return what is durable then."""
        return self.arrived()

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Do one step for all these indexes; see `ports.Rebuilder`."""
        self.arrived()
        rebuild.take(self._connected, self._indexes.target, step, tables)
        self._indexes.again(tables)
        self._indexes.mark(max(self._indexes.epoch, position.epoch))
        return position

    def _arrive(self) -> None:
        """Return when all that was put is answered for. Raises Rejected when it is of this batch, else Transient."""
        outcome = self._channels.drain()
        if set(outcome.reasons) == {self._number}:
            raise refusal(outcome.reasons[self._number])
        self._refuse(outcome)

    def _reached(self, outcome: Outcome) -> Position | None:
        """Return the newest position of which all is answered for; None when it is no other than before."""
        self._refuse(outcome)
        position = None
        while self._under_way and self._under_way[0][0] <= outcome.done:
            position = self._under_way.popleft()[1]
        if position is not None:
            self._look_again()
        return position

    def _refuse(self, outcome: Outcome) -> None:
        """Raise Transient when a document was refused of a batch that cannot be named any more."""
        if outcome.reasons:
            self._careful = CAREFUL
            msg = "a document was refused: all is sent again from the stored position, one batch at a time"
            raise Transient(End.SINK, msg)

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            if hasattr(self, "_channels"):
                self._bulk.stop()
                self._channels.close()
            self._client.close()
            self._client = None

    @property
    def _connected(self) -> Client:
        if self._client is None:
            msg = "the sink is not open"
            raise RuntimeError(msg)
        return self._client

    def _options(self) -> str:
        refresh = "" if self._config.refresh == "false" else f"&refresh={self._config.refresh.value}"
        by_alias = all(index.by_alias for index in self._indexes.by_name.values())
        return f"{refresh}{'&require_alias=true' if by_alias and self._indexes.by_name else ''}"

    def _made_bulk(self) -> Bulk:
        """Return what sends requests to the indexes as they are now."""
        return Bulk(self._connected, options=self._options(), gzip=self._config.compresses, pace=self._pace)

    def _plan(self, table: Table) -> Addressed:
        plan = self._indexes.plans.get(table)
        if plan is None:
            plan = self._indexes.plan(table, self._versions())
            self._bulk = self._made_bulk()
        return plan

    def _look_again(self) -> None:
        """Raise Fatal when an index was deleted, and perhaps made again, since it was found."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S and self._indexes.by_name:
            self._looked_at = now
            self._indexes.refuse_deleted()

    # Writing

    def _write_group(self, group: Group, batch: Batch) -> None:
        versions = [transaction.version for transaction in batch.transactions[: group.end + 1]]
        plans = [(self._plan(effects.table), effects) for effects in group.tables]
        work = [(plan, fitted(effects, plan.written)) for plan, effects in plans]
        merged = {id(plan): self._completed(plan, effects) for plan, effects in work}
        large = batch.transactions[0]
        total = sum(count(effects) for effects in group.tables)
        self._channels.begin(total, alone=bool(large.part) or not large.last)
        reasons: dict[Ref, str] = {}
        for plan, effects in work:
            reasons |= plan.put(effects, versions, merged[id(plan)], self._channels.put)
        if reasons:
            self._arrive()
            raise refusal(reasons)

    def _completed(self, plan: Addressed, effects: TableEffects) -> dict[int, bytes]:
        """Return the documents of rows that the log did not carry whole, by what is indexed. Raises Incomplete."""
        lacking = filled(effects) if plan.kept else incomplete(effects)
        if not lacking:
            return {}
        self._arrive()
        merged: dict[int, bytes] = {}
        reasons: dict[Ref, str] = {}
        there = {}
        if plan.reads_back:
            places = [placed(plan, effect.origin) for effect in lacking]
            there = documents_of(self._connected, plan.index, [place for place in places if place is not None])
        for effect in lacking:
            place = placed(plan, effect.origin)
            found = None if place is None else there.get(place)
            try:
                document = None if found is None else plan.plan.merged(effect.row, found, plan.kept)
            except ValueError as error:
                reasons.update(dict.fromkeys(effect.refs(), str(error)))
                continue
            if document is not None:
                merged[id(effect)] = document
            elif not complete(effect.row):
                reasons.update(dict.fromkeys(effect.refs(), NOT_THERE))
        if reasons:
            raise refusal(reasons)
        return merged

    def _send(self, actions: list[Action]) -> dict[Ref, str]:
        return self._bulk.send(actions, self._alive)

    def _alive(self) -> float:
        """Return how long a request may take: an answer later than that could meet a forgotten delete."""
        self._refuse_late(self._used_at)
        return min(self._config.request_timeout.total_seconds(), self._patience_s())

    def _patience_s(self) -> float:
        return min((index.gc_deletes_s for index in self._indexes.by_name.values()), default=3600.0) / 2

    def _refuse_late(self, since: float) -> None:
        if since and self._clock() - since > self._patience_s():
            self._used_at = 0.0
            msg = "this process stood still for long: whether the pipeline is still its own is looked at again"
            raise Transient(End.SINK, msg)

    # Whole tables

    def _pass(self, barrier: Barrier, batch: Batch) -> None:
        item = barrier.item
        if isinstance(item, SchemaChange):
            self._indexes.follow(item, batch.transactions[barrier.ref[0]].version, self._versions())
            self._bulk = self._made_bulk()
            return
        plan = self._plan(item.table)
        if isinstance(item, CopyStart) and not item.again:
            if not is_empty(self._connected, plan.index):
                msg = f"index {plan.index.name} is not empty"
                hint = "delete it for the first copy, or set `start: now` at the source to keep its documents"
                raise Fatal(msg, hint=hint)
            return
        version = batch.transactions[barrier.ref[0]].version if isinstance(item, Change) else None
        self._empty(plan, barrier.ref, version)

    def _empty(self, plan: Addressed, ref: Ref, version: int | None) -> None:
        """Delete every document up to a version; without one, each at its own, so that any row can come again."""
        cause = Whole(ref)
        for page in everything(self._connected, plan.index):
            self._channels.begin(len(page), alone=True)
            for place, there in page:
                self._channels.put(place[0], plan.deleted(cause, place, there if version is None else version))
            self._arrive()
