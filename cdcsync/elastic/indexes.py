"""The indexes that a sink writes to: looks at them, makes and alters them, and says which table goes where in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from cdcsync.altering import Altering
from cdcsync.change import Change, CopyStart
from cdcsync.elastic.addressed import Addressed, folded
from cdcsync.elastic.alter import ElasticGround, keyed, rebuilding, was
from cdcsync.elastic.target import Mark, Target, refuse_names
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.evolution import Alteration, Met
from cdcsync.rebuilding import NEW, OLD, beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cdcsync.change import Batch, SchemaChange, Table
    from cdcsync.elastic.client import Client
    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.elastic.target import Index
    from cdcsync.evolution import Follows
    from cdcsync.ports import SinkContext


_OF_TABLES: Final = (Change, CopyStart)


class Indexes:
    """All of one sink, since it was opened."""

    def __init__(self, client: Client, config: ElasticSinkConfig, context: SinkContext) -> None:
        self._client = client
        self._config = config
        self._context = context
        self.target = Target(client, config)
        self.by_name: dict[str, Index] = {}
        self.plans: dict[Table, Addressed] = {}
        self._folded: dict[Table, Table] = {}
        """Tables as they are folded: by the key of their documents, which routing belongs to."""
        self._origins: dict[Table, Table] = {}
        """The other way round."""
        self._ground = ElasticGround(client, self.target, self.by_name, context.pipeline)
        self._altering = Altering(self._ground, self._follows)
        self.epoch = 0
        """The highest that they hold."""
        self._marked: frozenset[str] = frozenset()
        """Those that say that they are ours, in this epoch."""

    def open(self) -> None:
        """Make or check the indexes of all tables. Raises Transient and Fatal."""
        missing = self._look()
        self.prepare(self._altering.found(self._context.tables, missing if self.epoch else ()))
        self._refuse_lost(missing)
        self._look_at_pipelines()

    def mark(self, epoch: int) -> None:
        """Write into every index whose it is, and the epoch, before the first document that has it."""
        mark = Mark(self._context.pipeline, self._context.source, epoch, tuple(sorted(self.by_name)))
        for name, index in list(self.by_name.items()):
            if index.mark != mark:
                self.by_name[name] = self.target.adopt(index, mark)
        self.epoch = epoch
        self._marked = frozenset(self.by_name)

    def prepare(self, found: Sequence[Met]) -> None:
        """Plan these tables, making, altering or checking their indexes. Raises Fatal naming all misfits."""
        refuse_names([*self.plans, *[each.table for each in found]])
        said: dict[str, list[str]] = {}
        for each in found:
            table, index = each.table, self._there(each)
            if index is None and not self._config.create_indexes:
                body = orjson.dumps(self.target.wanted(table)).decode()
                said[table.qualified] = [f"is missing, and `create_indexes` is off: PUT /{table.name} {body}"]
                continue
            self._adopt(index or self.target.make(table))
            said[table.qualified] = self._fit(each, index.name if index is not None else table.name)
        _refuse(said, self._context.pipeline)

    def _there(self, each: Met) -> Index | None:
        """Return the index of a table, under the name that it was given since."""
        name = each.table.name
        index = self.by_name.get(name) or self.target.look(name)
        return index or next((other for other in self.by_name.values() if was(other, name, each.version)), None)

    def _fit(self, each: Met, name: str) -> list[str]:
        """Alter an index as its entry says and plan the table; return what does not fit."""
        table, follows = each.table, self._follows(each.table)
        written = self._altering.prepare(each)
        shape = self._altering.shape(table)
        if shape is None and follows.takes(Alteration.ADD):
            self.by_name[name] = self.target.extend(table, self.by_name[name])
        index = self.by_name[name]
        misfits = [*self.target.misfits(written, index), *self._narrow(written, index)]
        if misfits:
            return misfits
        if name == table.name:
            self._altering.settle(each)
        index, keyed_ = self.by_name[name], keyed(table, shape, follows)
        kept = tuple(column for column in shape.table.at if column not in table.at) if shape is not None else ()
        plan = Addressed(keyed_, index, self._config, replace(written, key=keyed_.key), kept)
        self.plans[table] = self.plans[plan.folded] = plan
        self._folded[table], self._origins[plan.folded] = plan.folded, table
        return []

    def _narrow(self, table: Table, index: Index) -> list[str]:
        """Return the fields that keep the pipeline from starting: not where it may go on until it is built anew."""
        lines = self.target.narrow(table, index)
        follows = self._follows(table)
        goes_on = follows.takes(Alteration.TYPE) or self._altering.shape(table) is not None
        if not lines or index.mark is None or not index.by_alias or not goes_on:
            return lines
        log = structlog.get_logger().bind(pipeline=self._context.pipeline)
        log.warning("misfit", index=index.name, fields=lines, remedy=rebuilding(self._context.pipeline, table.name))
        return []

    def _look(self) -> list[Table]:
        """Take over the indexes that are there; return the tables that have none."""
        missing = []
        for table in self._context.tables:
            index = self.target.look(table.name)
            if index is None:
                missing.append(table)
            else:
                self._adopt(index)
        if any(self._follows(table).takes(Alteration.RENAME_TABLE) for table in missing):
            others = [each for each in self.target.ours(self._context.pipeline) if each.name not in self.by_name]
            self._ground.others = {each.name: each for each in others}
            self.epoch = max([self.epoch, *[each.mark.epoch for each in others if each.mark is not None]])
        return missing

    def _adopt(self, index: Index) -> None:
        mark = index.mark
        if mark is not None and mark.pipeline != self._context.pipeline:
            msg = f"index {index.name} belongs to pipeline {mark.pipeline}"
            hint = "give this pipeline an index of its own with `to:`, or delete that one"
            raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)
        if mark is not None:
            self.epoch = max(self.epoch, mark.epoch)
        self.by_name[index.name] = index

    def _refuse_lost(self, missing: Sequence[Table]) -> None:
        """Raise Fatal when an index is not there, or not the one that the others remember."""
        known = {name for index in self.by_name.values() if index.mark for name in index.mark.tables}
        lost = [name for name, index in self.by_name.items() if name in known and index.mark is None]
        lost += [table.name for table in missing if table.name in known and table.name not in self.by_name]
        if lost:
            raise _lost(lost)

    def _look_at_pipelines(self) -> None:
        for name in {self._config.index(each).pipeline for each in self.by_name} - {None}:
            doing = f"looking at ingest pipeline {name}"
            if self._client.ask("GET", f"/_ingest/pipeline/{name}", doing=doing, missing=True) is None:
                msg = f"the cluster has no ingest pipeline {name}"
                raise Fatal(msg, hint="make it, or remove it from `indexes:`", status=ExitStatus.CONFIG)

    def _forget(self, tables: Iterable[Table]) -> None:
        """Plan these tables anew when they come up."""
        for table in list(tables):
            del self.plans[table]
        self._folded.clear()
        self._origins.clear()

    def _as_folded(self, table: Table) -> Table:
        found = self._folded.get(table)
        if found is None:
            own = keyed(table, self._altering.shape(table), self._follows(table))
            found = self._folded[table] = folded(own, self._config)
            self._origins[found] = table
        return found

    def addressed(self, batch: Batch) -> Batch:
        """Return the batch with its tables by the key of their documents."""
        made = {table: self._as_folded(table) for table in _tables(batch)}
        if all(table == other for table, other in made.items()):
            return batch
        transactions = [
            replace(
                each,
                items=[
                    item._replace(table=made[item.table]) if isinstance(item, Change) else item for item in each.items
                ],
            )
            for each in batch.transactions
        ]
        return replace(batch, transactions=transactions)

    def _follows(self, table: Table) -> Follows:
        return self._context.follows(beneath(table))

    def follow(self, item: SchemaChange, version: int, versions: Mapping[Table, Met]) -> None:
        """Follow a table to another version or name, or drop its index; all before it is answered for."""
        old, new = item.old, item.new
        if old is not None and (new is None or new.name != old.name):
            self._ground.version = version
            self._altering.move(item, version)
            self._forget(self.plans)
        if new is not None:
            self.prepare([versions.get(new, Met(new, version, renamed=item.renamed))])
            self.mark(self.epoch)

    def again(self, tables: Sequence[Table]) -> None:
        """Look at these, and at what stands beside them, as if they had never been seen."""
        names = {name for table in tables for name in (table.name, table.name + NEW, table.name + OLD)}
        self._forget([each for each in self.plans if each.name in names])
        for name in names & self.by_name.keys():
            del self.by_name[name]
        self._altering.undone()
        self.prepare([Met(table, 0) for table in tables])

    def plan(self, table: Table, versions: Mapping[Table, Met]) -> Addressed:
        """Make or alter the index of a table that comes up, as folded; return how it is written to."""
        origin = self._origins.get(table, table)
        self.prepare([versions.get(origin, Met(origin, 0))])
        self.mark(self.epoch)
        return self.plans[self._as_folded(origin)]

    @property
    def are_marked(self) -> bool:
        """Whether all say that they are ours."""
        return self._marked == frozenset(self.by_name)

    def refuse_deleted(self) -> None:
        """Raise Fatal when an index was deleted, and perhaps made again, since it was found."""
        there = self.target.uuids(self.by_name.values())
        lost = [index.name for index in self.by_name.values() if there.get(index.concrete) != index.uuid]
        if lost:
            raise _lost(lost)


def _tables(batch: Batch) -> list[Table]:
    """Return the tables of a batch; one may come twice."""
    found: dict[int, Table] = {}
    for transaction in batch.transactions:
        table = None
        for item in transaction.items:
            if isinstance(item, _OF_TABLES) and item.table is not table:
                table = item.table
                found[id(table)] = table
    return list(found.values())


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
