"""Where the rows of a table go: the index, `_id` and routing of each, and what a batch makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from cdcsync.elastic.documents import Plan
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.folding import complete
from cdcsync.rebuilding import beneath

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Table
    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.elastic.target import Index
    from cdcsync.folding import Effect, Key, Ref, TableEffects


class Cause(Protocol):
    """Which changes an action is made of."""

    def refs(self) -> list[Ref]:
        """Return them all."""
        ...


class Action:
    """One document indexed or deleted."""

    __slots__ = ("cause", "text", "to", "version")

    def __init__(self, cause: Any, version: int, to: Any, text: bytes) -> None:
        self.cause: Cause = cause
        self.version = version
        self.to: Index = to
        self.text = text
        """Its lines, the last with its newline."""


class Addressed:
    """One table version and the index that takes it.

    `table` has the key by which documents are found, `written` the columns that they are made of; `kept` are the
    fields that documents had before and go on having.
    """

    def __init__(
        self, table: Table, index: Index, config: ElasticSinkConfig, written: Table, kept: tuple[str, ...] = ()
    ) -> None:
        own = config.index(beneath(table).name)
        self.index = index
        self.written = written
        self.kept = kept
        self.folded = folded(table, config)
        self._routing = -1 if own.routing is None else self.folded.key.index(own.routing)
        self._single = len(self.folded.key) == 1
        self._pipeline = b"" if own.pipeline is None else b',"pipeline":' + orjson.dumps(own.pipeline)
        head = b'"_index":%b,"_id":' % orjson.dumps(index.name)
        self._heads = (b'{"index":{' + head, b'{"delete":{' + head)
        self.plan = Plan(written, table.key, index.properties, own.id)
        self.reads_back = index.whole and own.pipeline is None
        """Whether a document there can complete a row: an ingest pipeline may have changed it."""

    def place(self, key: Any) -> tuple[str, str | None]:
        """Return `_id` and routing of a key as it is folded. Raises ValueError."""
        values = (key,) if self._single else key
        return self.plan.id(values), None if self._routing < 0 else _text(values[self._routing])

    def put(
        self, effects: TableEffects, versions: list[int], merged: dict[int, bytes], put: Callable[[str, Action], None]
    ) -> dict[Ref, str]:
        """Put every action that comes of a table's effects; return why changes cannot be documents.

        `versions` are those of the transactions up to the group's end. A key without a row is deleted under the
        newest, since any part of the batch may have been written before under versions up to that.
        """
        reasons: dict[Ref, str] = {}
        gone = vacated(effects)
        if gone:
            newest = max(versions)
            for key, effect in gone.items():
                place = placed(self, key)
                if place is not None:  # else no document can have been there
                    put(place[0], self.deleted(effect, place, newest))
        for effect in filled(effects):
            document = merged.get(id(effect)) if merged else None
            try:
                place = self.place(effect.key)
                if document is None:
                    document = self.plan.document(effect.row)
            except ValueError as error:
                reasons.update(dict.fromkeys(effect.refs(), str(error)))
                continue
            version = versions[last(effect)]
            extra = self._pipeline + _routed(place[1])
            put(
                place[0],
                Action(effect, version, self.index, text_of(self._heads[0], place[0], version, extra, document)),
            )
        return reasons

    def deleted(self, cause: Any, place: tuple[str, str | None], version: int) -> Action:
        """Return the action that takes a document away."""
        text = text_of(self._heads[1], place[0], version, _routed(place[1]), b"")
        return Action(cause, version, self.index, text)


def text_of(head: bytes, document_id: str, version: int, extra: bytes, document: bytes) -> bytes:
    """Return an action's lines. `head` ends where the quoted `_id` comes, `extra` begins with a comma."""
    return b'%b%b,"version":%d,"version_type":"external_gte"%b}}\n%b' % (
        head,
        orjson.dumps(document_id),
        version,
        extra,
        document,
    )


def folded(table: Table, config: ElasticSinkConfig) -> Table:
    """Return a table as it is folded: its routing belongs to its key. Raises Fatal where it has no such column."""
    routing = config.index(beneath(table).name).routing
    if routing is not None and routing not in table.at:
        msg = f"`routing: {routing}` of index {table.name}: the table has no such column"
        raise Fatal(msg, hint="name a column of the mapped table", status=ExitStatus.CONFIG)
    return table if routing is None or routing in table.key else replace(table, key=(*table.key, routing))


class Whole:
    """What a truncate's deletes are made of."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref

    def refs(self) -> list[Ref]:
        """Return the one change."""
        return [self._ref]


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _routed(routing: str | None) -> bytes:
    return b"" if routing is None else b',"routing":' + orjson.dumps(routing)


def placed(plan: Addressed, key: Key) -> tuple[str, str | None] | None:
    """Return `_id` and routing of a key; None when no document can have it."""
    try:
        return plan.place(key)
    except ValueError:
        return None


def vacated(effects: TableEffects) -> dict[Key, Effect]:
    """Return the keys that have no row where the group ends, each with one that had it.

    All that any part of these changes can have filled: a process that died may have written just that part.
    """
    gone = {effect.origin: effect for effect in effects.deletes}
    gone |= dict(effects.passed)
    gone |= {step.old: step.effect for step in effects.steps}
    if gone:
        for effect in filled(effects):
            gone.pop(effect.key, None)
    return gone


def filled(effects: TableEffects) -> list[Effect]:
    """Return what is a row in the end."""
    moved = [step.effect for step in effects.steps if step.last] if effects.steps else []
    updates = [effect for each in effects.updates.values() for effect in each] if effects.updates else []
    return [*moved, *effects.inserts, *effects.upserts, *updates]


def incomplete(effects: TableEffects) -> list[Effect]:
    """Return what of it the log did not carry whole."""
    updates = [effect for each in effects.updates.values() for effect in each] if effects.updates else []
    return [step.effect for step in effects.steps if step.last and not complete(step.effect.row)] + updates


def last(effect: Effect) -> int:
    """Return the index of the last transaction that touched a row."""
    ref: Ref = effect.more[-1] if effect.more else effect.first
    return ref[0]


def count(effects: TableEffects) -> int:
    """Return how many actions come of it, about."""
    updates = sum(map(len, effects.updates.values()))
    return len(effects.deletes) + len(effects.steps) + len(effects.inserts) + len(effects.upserts) + updates
