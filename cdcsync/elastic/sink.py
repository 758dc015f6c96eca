"""Elasticsearch as a sink: a document for each row, under the version of its transaction."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from cdcsync.change import Change, CopyStart, SchemaChange, Step, Table
from cdcsync.elastic import rebuild
from cdcsync.elastic.addressed import Addressed, Whole, count, filled, last, placed, vacated
from cdcsync.elastic.bulk import Action, Bulk, Pace
from cdcsync.elastic.channels import Channels, Outcome
from cdcsync.elastic.client import Client
from cdcsync.elastic.reading import documents_of, everything, is_empty
from cdcsync.elastic.target import Index, Mark, Target, refuse_names
from cdcsync.errors import End, ExitStatus, Fatal, Rejected, Transient
from cdcsync.evolution import Alteration
from cdcsync.folding import NOT_THERE, Barrier, complete, fold, refusal
from cdcsync.ports import Guarantee
from cdcsync.rebuilding import NEW, OLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
        self._indexes: dict[str, Index] = {}
        self._plans: dict[Table, Addressed] = {}
        self._folded: dict[Table, Table] = {}
        """Tables whose routing is no part of their key, as they are folded."""
        self._epoch = 0
        self._marked: frozenset[str] = frozenset()
        """The indexes that say that they are ours, in this epoch."""
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
        self._target = Target(self._client, self._config)
        self._indexes.clear()
        self._plans.clear()
        self._marked = frozenset()
        self._epoch = 0
        self._prepare(self._context.tables)
        self._refuse_lost()
        self._look_at_pipelines()
        self._used_at = self._looked_at = self._clock()
        self._bulk = Bulk(self._client, options=self._options(), gzip=self._config.compresses, pace=self._pace)
        self._channels = Channels(self._send, self._config.bulk)
        self._under_way.clear()
        return self._epoch

    def write(self, batch: Batch) -> Position | None:
        """Send all; return what is answered for. Raises Rejected with what the cluster never takes.

        A large batch is on its way when this returns. What is refused of it then makes a Transient, after which
        batches are waited for one by one until the refused one has come again and is named.
        """
        self._refuse_late(self._used_at)
        self._used_at = self._clock()
        parts = fold(self._addressed(batch))
        if batch.position.epoch > self._epoch or self._marked != frozenset(self._indexes):
            self._mark(max(self._epoch, batch.position.epoch))
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

    def arrived(self) -> Position | None:
        """Wait for all that is under way; return what is durable then."""
        return self._reached(self._channels.drain())

    def flush(self) -> Position | None:
        """Wait for all that is under way; return what is durable then."""
        return self.arrived()

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Do one step for all these indexes; see `ports.Rebuilder`."""
        self.arrived()
        rebuild.take(self._connected, self._target, step, tables)
        names = {name for table in tables for name in (table.name, table.name + NEW, table.name + OLD)}
        for table in [each for each in self._plans if each.name in names]:
            del self._plans[table]
        for name in names & self._indexes.keys():
            del self._indexes[name]
        self._prepare(tables)
        self._mark(max(self._epoch, position.epoch))
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
        by_alias = all(index.by_alias for index in self._indexes.values())
        return f"{refresh}{'&require_alias=true' if by_alias and self._indexes else ''}"

    # Tables and indexes

    def _prepare(self, tables: Sequence[Table]) -> None:
        """Plan these tables, making or checking their indexes. Raises Fatal naming all misfits."""
        refuse_names([*self._plans, *tables])
        found: dict[str, list[str]] = {}
        for table in tables:
            index = self._indexes.get(table.name) or self._target.look(table.name)
            if index is None:
                if not self._config.create_indexes:
                    body = orjson.dumps(self._target.wanted(table)).decode()
                    found[table.qualified] = [f"is missing, and `create_indexes` is off: PUT /{table.name} {body}"]
                    continue
                index = self._target.make(table)
            elif self._context.follows(table).takes(Alteration.ADD):
                index = self._target.extend(table, index)
            found[table.qualified] = [*self._target.misfits(table, index), *self._narrow(table, index)]
            self._adopt(index)
            self._plans[table] = Addressed(table, index, self._config)
            self._folded[table] = self._plans[table].folded
        _refuse(found, self._context.pipeline)
        self._plans |= {each.folded: each for each in list(self._plans.values())}

    def _narrow(self, table: Table, index: Index) -> list[str]:
        """Return the fields that keep the pipeline from starting: not where it may go on until it is built anew."""
        lines = self._target.narrow(table, index)
        if (
            not lines
            or index.mark is None
            or not index.by_alias
            or not self._context.follows(table).takes(Alteration.TYPE)
        ):
            return lines
        log = structlog.get_logger().bind(pipeline=self._context.pipeline)
        log.warning("misfit", index=index.name, fields=lines, remedy=rebuilding(self._context.pipeline, table.name))
        return []

    def _adopt(self, index: Index) -> None:
        mark = index.mark
        if mark is not None and mark.pipeline != self._context.pipeline:
            msg = f"index {index.name} belongs to pipeline {mark.pipeline}"
            hint = "give this pipeline an index of its own with `to:`, or delete that one"
            raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)
        if mark is not None:
            self._epoch = max(self._epoch, mark.epoch)
        self._indexes[index.name] = index

    def _refuse_lost(self) -> None:
        """Raise Fatal when an index is not the one that the others remember."""
        known = {name for index in self._indexes.values() if index.mark for name in index.mark.tables}
        lost = [name for name, index in self._indexes.items() if name in known and index.mark is None]
        if lost:
            raise _lost(lost)

    def _look_at_pipelines(self) -> None:
        for name in {self._config.index(each).pipeline for each in self._indexes} - {None}:
            doing = f"looking at ingest pipeline {name}"
            if self._connected.ask("GET", f"/_ingest/pipeline/{name}", doing=doing, missing=True) is None:
                msg = f"the cluster has no ingest pipeline {name}"
                raise Fatal(msg, hint="make it, or remove it from `indexes:`", status=ExitStatus.CONFIG)

    def _mark(self, epoch: int) -> None:
        """Write into every index whose it is, and the epoch, before the first document that has it."""
        mark = Mark(self._context.pipeline, self._context.source, epoch, tuple(sorted(self._indexes)))
        for name, index in self._indexes.items():
            if index.mark != mark:
                self._target.adopt(index, mark)
                self._indexes[name] = replace(index, mark=mark)
        self._epoch = epoch
        self._marked = frozenset(self._indexes)

    def _plan(self, table: Table) -> Addressed:
        plan = self._plans.get(table)
        if plan is None:
            self._prepare([table])
            self._mark(self._epoch)
            self._bulk = Bulk(self._connected, options=self._options(), gzip=self._config.compresses, pace=self._pace)
            plan = self._plans[table]
        return plan

    def _addressed(self, batch: Batch) -> Batch:
        """Return the batch with tables whose routing is no part of their key keyed by it too."""
        tables = {
            id(item.table): item.table
            for each in batch.transactions
            for item in each.items
            if isinstance(item, Change | CopyStart)
        }
        folded = {table: self._plan(table).folded for table in tables.values()}
        if all(table is other for table, other in folded.items()):
            return batch
        transactions = [
            replace(
                each,
                items=[
                    item._replace(table=folded[item.table]) if isinstance(item, Change) else item for item in each.items
                ],
            )
            for each in batch.transactions
        ]
        return replace(batch, transactions=transactions)

    def _look_again(self) -> None:
        """Raise Fatal when an index was deleted, and perhaps made again, since it was found."""
        now = self._clock()
        if now - self._looked_at < LOOK_S or not self._indexes:
            return
        self._looked_at = now
        there = self._target.uuids(self._indexes.values())
        lost = [index.name for index in self._indexes.values() if there.get(index.concrete) != index.uuid]
        if lost:
            raise _lost(lost)

    # Writing

    def _write_group(self, group: Group, batch: Batch) -> None:
        versions = [transaction.version for transaction in batch.transactions[: group.end + 1]]
        work = [(self._plan(effects.table), effects) for effects in group.tables]
        merged = {id(plan): self._completed(plan, effects) for plan, effects in work}
        large = batch.transactions[0]
        total = sum(count(effects) for effects in group.tables)
        self._channels.begin(total, alone=bool(large.part) or not large.last)
        reasons: dict[Ref, str] = {}
        for plan, effects in work:
            for place, action in self._actions(plan, effects, versions, merged[id(plan)], reasons):
                self._channels.put(place, action)
        if reasons:
            self._arrive()
            raise refusal(reasons)

    def _actions(
        self,
        plan: Addressed,
        effects: TableEffects,
        versions: list[int],
        merged: dict[int, bytes],
        reasons: dict[Ref, str],
    ) -> Iterator[tuple[str, Action]]:
        newest = max(versions)
        for key, effect in vacated(effects).items():
            place = placed(plan, key)
            if place is not None:  # else no document can have been there
                yield place[0], plan.deleted(effect, place, newest)
        for effect in filled(effects):
            document = merged.get(id(effect))
            try:
                place = plan.place(effect.key)
                if document is None:
                    document = plan.plan.document(effect.row)
            except ValueError as error:
                reasons.update(dict.fromkeys(effect.refs(), str(error)))
                continue
            yield place[0], plan.indexed(effect, place, versions[last(effect)], document)

    def _completed(self, plan: Addressed, effects: TableEffects) -> dict[int, bytes]:
        """Return the documents of rows that the log did not carry whole, by what is indexed. Raises Incomplete."""
        partial = [effect for effect in filled(effects) if not complete(effect.row)]
        if not partial:
            return {}
        self._arrive()
        merged: dict[int, bytes] = {}
        reasons: dict[Ref, str] = {}
        there = {}
        if plan.reads_back:
            places = [placed(plan, effect.origin) for effect in partial]
            there = documents_of(self._connected, plan.index, [place for place in places if place is not None])
        for effect in partial:
            place = placed(plan, effect.origin)
            found = None if place is None else there.get(place)
            try:
                document = None if found is None else plan.plan.merged(effect.row, found)
            except ValueError as error:
                reasons.update(dict.fromkeys(effect.refs(), str(error)))
                continue
            if document is None:
                reasons.update(dict.fromkeys(effect.refs(), NOT_THERE))
            else:
                merged[id(effect)] = document
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
        return min((index.gc_deletes_s for index in self._indexes.values()), default=3600.0) / 2

    def _refuse_late(self, since: float) -> None:
        if since and self._clock() - since > self._patience_s():
            self._used_at = 0.0
            msg = "this process stood still for long: whether the pipeline is still its own is looked at again"
            raise Transient(End.SINK, msg)

    # Whole tables

    def _pass(self, barrier: Barrier, batch: Batch) -> None:
        item = barrier.item
        if isinstance(item, SchemaChange):
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


def rebuilding(pipeline: str, name: str) -> str:
    """Return the command that makes another index."""
    return f"cdcsync rebuild {pipeline} {name}"


def _refuse(found: Mapping[str, Sequence[str]], pipeline: str) -> None:
    """Raise Fatal naming every misfit of every table; return when there are none."""
    lines = [f"index of {table}: {misfit}" for table, each in found.items() for misfit in each]
    if lines:
        hint = (
            f"send what is given; to change a type, set `schema_changes: evolve`, start again, and run "
            f"`{rebuilding(pipeline, 'TABLE')}`; or map to another index with `to`"
        )
        raise Fatal("\n".join(lines), hint=hint, status=ExitStatus.CONFIG)


def _lost(names: Sequence[str]) -> Fatal:
    msg = f"index {', '.join(sorted(names))} was deleted, or made again, while the pipeline had it: its documents are lost"
    hint = (
        "bring it back as it was; or forget the position with `cdcsync positions clear`, delete the other indexes of "
        "the pipeline, and run again to copy everything"
    )
    return Fatal(msg, hint=hint)
