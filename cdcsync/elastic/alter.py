"""Lets indexes follow their tables as far as a mapping can be added to, and keeps what they look like in their `_meta`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from cdcsync.altering import chosen, planned
from cdcsync.change import Column, Table
from cdcsync.connectors import ALTERED, Planned
from cdcsync.elastic.client import Client, named
from cdcsync.elastic.target import Target, property_of, refuse_names
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.evolution import Alteration, Applied, Met, Mode, after, decode, encode, trimmed
from cdcsync.rebuilding import beneath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.elastic.target import Index
    from cdcsync.evolution import Follows, Step
    from cdcsync.ports import SinkContext

SHAPE: Final = "cdcsync_shape"
"""The member of an index's `_meta` that says what its documents look like, and for which version that became so."""
_LATER: Final = frozenset({Alteration.RENAME, Alteration.DROP, Alteration.TYPE})
"""What documents have from their next change on alone."""


class ElasticGround:
    """See `altering.Ground`. `indexes` are those that the sink has, by name; they are kept as they are after each step."""

    def __init__(self, client: Client, target: Target, indexes: dict[str, Index], pipeline: str) -> None:
        self._client = client
        self._target = target
        self._indexes = indexes
        self._pipeline = pipeline
        self.others: dict[str, Index] = {}
        """Indexes of the pipeline's whose tables the source has no more, as far as they were looked for."""
        self.version = 0
        """Of the transaction that moves a table."""
        self._log = structlog.get_logger().bind(pipeline=pipeline)

    def load(self) -> dict[tuple[str, str], Applied]:
        """Return what the sink's indexes say, and those that they name."""
        there = {**self.others, **self._indexes}
        known = {name for index in there.values() if index.mark for name in index.mark.tables}
        found: dict[tuple[str, str], Applied] = {}
        for name in sorted(known | there.keys()):
            index = there.get(name) or self._target.look(name)
            applied = None if index is None else applied_of(name, index)
            if applied is not None:
                found[applied.table.schema, name] = applied
        return found

    def keep(self, table: Table, applied: Applied | None) -> None:
        """Write into the index what its documents look like; what a dropped one said is gone with it."""
        index = self._indexes.get(table.name)
        if applied is None or index is None:
            return
        shape = {**index.meta.get(SHAPE, {}), "version": applied.version, "shape": encode(applied)}
        self._indexes[table.name] = self._target.note(index, {SHAPE: shape})

    def alter(self, table: Table, done: Sequence[Step]) -> None:
        """Add fields. Raises Fatal where documents would have to be found by another `_id`."""
        index = self._indexes.get(table.name) or self._target.look(table.name)
        if index is None:
            return
        keyed = next((step for step in done if step.kind is Alteration.KEY), None)
        if keyed is not None:
            raise _keyed(self._pipeline, index, keyed)
        added = [step.new for step in done if step.new is not None and step.kind in _FIELDS]
        self._indexes[table.name] = self._target.extend(table, index, [column.name for column in added])
        later = [each for step in done if (each := _said(step))]
        if later:
            remedy = rebuilding(self._pipeline, beneath(table).name)
            self._log.warning("documents follow as they change", index=index.name, changes=later, all_at_once=remedy)

    def move(self, table: Table, new: Table | None) -> None:
        """Let the alias have another name, or drop the index."""
        index = self._indexes.pop(table.name, None) or self._target.look(table.name)
        self.others.pop(table.name, None)
        if index is None:
            return
        if new is None:
            self._client.ask("DELETE", f"/{named(index.concrete)}", doing=f"dropping index {index.name}", missing=True)
            return
        if not index.by_alias:
            msg = f"{index.name} is an index itself, not an alias that could be renamed to {new.name}"
            hint = f"put it behind an alias, or keep its name: `to: {index.name}`"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        shape = dict(index.meta.get(SHAPE, {}))
        self._target.note(index, {SHAPE: shape | {"was": {**shape.get("was", {}), table.name: self.version}}})
        actions = [
            {"remove": {"index": index.concrete, "alias": table.name}},
            {"add": {"index": index.concrete, "alias": new.name}},
        ]
        self._client.ask("POST", "/_aliases", {"actions": actions}, doing=f"renaming {table.name} to {new.name}")
        there = self._target.look(new.name)
        if there is not None:
            self._indexes[new.name] = there


_FIELDS: Final = frozenset({Alteration.ADD, Alteration.RENAME})


def applied_of(name: str, index: Index) -> Applied | None:
    """Return what an index says of its documents, under the name that it has now."""
    shape = index.meta.get(SHAPE)
    if not isinstance(shape, dict) or "shape" not in shape:
        return None
    applied = decode(str(shape["shape"]), int(shape["version"]))
    table = applied.table
    return applied._replace(table=Table(table.schema, name, table.columns, table.key))


def as_written(table: Table, index: Index, follows: Follows) -> Table:
    """Return a table without the columns that its documents will not have."""
    applied = applied_of(table.name, index)
    if follows.mode is Mode.STOP or applied is None or applied.entry != follows.entry:
        return table
    return trimmed(table, after(applied.table, table, chosen(follows, applied, Met(table, applied.version))))


def was(index: Index, name: str, version: int) -> bool:
    """Return whether an index had that name when a change of this version was logged."""
    return version <= int(dict(index.meta.get(SHAPE, {})).get("was", {}).get(name, -1))


def _said(step: Step) -> str:
    if step.kind is Alteration.ADD and step.new is not None:
        return f"{step.new.name} has a default" if step.new.initial is not None else ""
    column = step.old or step.new
    return f"{step.kind.value} {column.name}" if step.kind in _LATER and column is not None else ""


def rebuilding(pipeline: str, name: str) -> str:
    """Return the command that makes another index."""
    return f"cdcsync rebuild {pipeline} {name}"


def _keyed(pipeline: str, index: Index, step: Step) -> Fatal:
    msg = f"the key of index {index.name} is ({', '.join(step.key)}) now, and its documents are found by the one before"
    hint = (
        "set `schema_changes: {mode: evolve, exclude: [key]}` for its entry and start again: documents go on being found "
        f"by the key before; then `{rebuilding(pipeline, index.name)}` fills an index by the new one; or keep it by `key`"
    )
    return Fatal(msg, hint=hint, status=ExitStatus.DATA)


def keyed(table: Table, applied: Applied | None, follows: Follows) -> Table:
    """Return a table under the key by which its documents are found. Raises Fatal where the key is gone."""
    if applied is None or follows.takes(Alteration.KEY) or set(applied.table.key) == set(table.key):
        return table
    gone = [name for name in applied.table.key if name not in table.at]
    if gone:
        msg = f"documents of {table.name} are found by {', '.join(gone)}, which its table has no more"
        raise Fatal(msg, hint="fill another index: map to it with `to`", status=ExitStatus.DATA)
    return Table(table.schema, table.name, table.columns, applied.table.key)


def plan(config: ElasticSinkConfig, context: SinkContext) -> list[Planned]:
    """Return what the next run does to the indexes. Raises Transient and Fatal."""
    refuse_names(context.tables)
    client = Client(config, End.SINK)
    try:
        target = Target(client, config)
        return [each for table in context.tables for each in _planned(target, context, table)]
    finally:
        client.close()


def _planned(target: Target, context: SinkContext, table: Table) -> list[Planned]:
    index, follows = target.look(table.name), context.follows(table)
    if index is None:
        return [Planned(table.name, "is created", _request(table.name, target.wanted(table)))]
    applied = applied_of(table.name, index)
    steps = planned(table.name, follows, applied, table, lambda step: _shown(target, index, table, step))
    if steps is not None:
        return steps
    missing = [column for column in table.columns if property_of(index.properties, column.name) is None]
    if missing and follows.takes(Alteration.ADD):
        return [Planned(table.name, ALTERED, _mapped(target, index, table, missing))]
    return [Planned(table.name, f"does not fit: {line}", "") for line in target.misfits(table, index)]


def _shown(target: Target, index: Index, table: Table, step: Step) -> list[str]:
    if step.kind is Alteration.KEY:
        return [f"PUT refused: the key becomes ({', '.join(step.key)}), which only another index can have"]
    if step.kind in _FIELDS and step.new is not None:
        return [_mapped(target, index, table, [step.new])]
    return []


def _mapped(target: Target, index: Index, table: Table, columns: Sequence[Column]) -> str:
    fields = target.fields(table)
    return _request(f"{index.concrete}/_mapping", {"properties": {each.name: fields[each.name] for each in columns}})


def _request(path: str, body: Any) -> str:
    return f"PUT /{path} {orjson.dumps(body).decode()}"
