"""Folds a batch to one net effect per key, for sinks that write by SQL.

A batch becomes a list of groups with barriers between them (truncate, a schema change, the start of a copy, another
version of a table). Within a group the order of writing is, for each table: `deletes`, `steps` in their order, then
`inserts`, `upserts` and `updates`; `appended` stands alone. Deletes of child tables go first, parents' rows go first
otherwise: see `Group.ordered`.

What is folded keeps these promises. An update stays an update: a key that moves is a `Step`, so that no trigger and
no ON DELETE CASCADE sees a delete. Steps are in the order of the log, in which every key they pass was free. A row
inserted and deleted within the batch is a delete, so that writing anything twice changes nothing.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.change import UNCHANGED, Change, CopyStart, Message, Operation, SchemaChange, Unreadable
from cdcsync.errors import Incomplete, Rejected
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Batch, Row, Table, Value

Ref: TypeAlias = tuple[int, int]
"""Index of the transaction in the batch and of the item in it, as `Rejected` names it."""
Key: TypeAlias = Any
"""The value of a key of one column, or the tuple of the values."""


_INSERT, _READ, _DELETE, _TRUNCATE = Operation.INSERT, Operation.READ, Operation.DELETE, Operation.TRUNCATE

NOT_THERE: Final = (
    "the target has no row of this key, and the log did not carry all of its columns: the source has to log whole rows "
    "(PostgreSQL: REPLICA IDENTITY FULL; MySQL: binlog_row_image=FULL)"
)
"""Begins the reason of what a whole row would mend."""


def refusal(reasons: Mapping[Ref, str]) -> Rejected:
    """Return what to raise: first of all what can be completed, alone; it is written again with the others."""
    incomplete = {ref: reason for ref, reason in reasons.items() if reason.startswith(NOT_THERE)}
    return Incomplete(incomplete) if incomplete else Rejected(reasons)


class Effect:
    """What becomes of one row: its last state, and which changes made it."""

    __slots__ = ("first", "fresh", "key", "more", "moved", "origin", "owns", "row")

    def __init__(self, key: Any, row: Any, first: Any, owns: bool, fresh: bool) -> None:  # noqa: FBT001
        self.key = key
        """Where the row is now."""
        self.origin = key
        """Where the target has it before this group, when `owns`."""
        self.row = row
        """All values, UNCHANGED where none is known; None: deleted."""
        self.first = first
        self.more: Any = None
        self.owns = owns
        """Whether the target may have the row under `origin`, so that `origin` is this effect's to vacate."""
        self.fresh = fresh
        """Inserted or read within this group, under a key not seen before in it."""
        self.moved: Any = None
        """The last step of a row whose key moved."""

    def refs(self) -> list[Ref]:
        """Return all changes that this effect is made of."""
        return [self.first] if self.more is None else [self.first, *self.more]

    def add(self, ref: Ref) -> None:
        """Note one more change."""
        if self.more is None:
            self.more = [ref]
        else:
            self.more.append(ref)


class Step:
    """One move of a key: `UPDATE .. SET key = new, .. WHERE key = old`."""

    __slots__ = ("effect", "new", "old", "previous")

    def __init__(self, old: Any, new: Any, effect: Any) -> None:
        self.old = old
        self.new = new
        self.effect = effect
        """The row that moves; None when it was deleted afterwards."""
        self.previous = effect.moved

    @property
    def last(self) -> bool:
        """Whether this is the row's last step, which sets all values of `effect.row`; others set the key alone."""
        return self.effect.moved is self


class TableEffects:
    """The net effects on one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.deletes: list[Effect] = []
        """By `origin`."""
        self.steps: list[Step] = []
        """In the order of the log. A last one that matches no row is an upsert when its row is complete."""
        self.inserts: list[Effect] = []
        """Complete rows that the target most likely has not."""
        self.upserts: list[Effect] = []
        """Complete rows."""
        self.updates: dict[tuple[int, ...], list[Effect]] = {}
        """Incomplete rows by the indexes of the columns that have a value, keys among them.

        One that matches no row is rejected, never inserted.
        """
        self.appended: list[Effect] = []
        """Rows of a table without a key, in order; `key` is None."""
        self.passed: list[tuple[Key, Effect]] = []
        """Keys that a row had on its way to its end, each with the row: nobody has them, unless another row does.

        For a target that may hold what came of a part of these changes.
        """

    def key_values(self, key: Key) -> Row:
        """Return a key as a tuple."""
        return key if len(self.table.key_at) > 1 else (key,)


class Group:
    """What happens between two barriers."""

    def __init__(self, tables: list[TableEffects], end: int) -> None:
        self.tables = tables
        """In the order in which the log touched them first."""
        self.end = end
        """Index of the transaction whose state, where the group ends, the effects lead to."""

    def ordered(self, rank: Callable[[Table], int] | None) -> list[TableEffects]:
        """Return the tables parents first, `rank` rising from parent to child; go backwards for deletes."""
        return self.tables if rank is None else sorted(self.tables, key=lambda effects: rank(effects.table))


def fitted(effects: TableEffects, table: Table) -> TableEffects:
    """Return the effects on a target that lacks some of the table's columns; rows are cut, once and for all."""
    given = effects.table
    if given.columns == table.columns:
        return effects
    at = [given.at[column.name] for column in table.columns]
    made = TableEffects(table)
    made.deletes, made.steps, made.inserts = effects.deletes, effects.steps, effects.inserts
    made.upserts, made.appended, made.passed = effects.upserts, effects.appended, effects.passed
    partial = [effect for each in effects.updates.values() for effect in each]
    moved = [step.effect for step in effects.steps if step.effect is not None]
    every = [*effects.inserts, *effects.upserts, *effects.appended, *partial, *moved]
    for effect in {id(each): each for each in every}.values():
        row = effect.row
        effect.row = tuple([row[index] for index in at])
    for effect in partial:
        if complete(effect.row):
            made.upserts.append(effect)
        else:
            made.updates.setdefault(known(effect.row), []).append(effect)
    return made


class Barrier:
    """A truncate, a SchemaChange or a CopyStart, in its place."""

    def __init__(self, item: Change | SchemaChange | CopyStart, ref: Ref) -> None:
        self.item = item
        self.ref = ref


class Fold:
    """Folds the changes of one table."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.keyed = bool(table.key_at)
        self.floats = any(table.columns[at].type.kind is Kind.FLOAT for at in table.key_at)
        self.single = table.key_at[0] if len(table.key_at) == 1 else -1
        self.key_of: Any = itemgetter(*table.key_at) if self.keyed else None
        self.by_key: dict[Any, Any] = {}
        self.effects: list[Any] = []
        self.steps: list[Any] = []
        self.owned: set[Any] = set()
        """Origins that an effect vacates or deletes."""
        self.passed: list[Any] = []
        self.displaced: dict[Any, Any] = {}
        """Rows onto whose key another moved before they left it (a deferred key constraint)."""

    def add(self, change: Any, ref: Any) -> str:
        """Take one change; return why it is rejected, or nothing."""
        operation = change.operation
        after = change.after
        if not self.keyed:
            return self._append(operation, after, ref)
        if operation is _INSERT or operation is _READ:
            return self._insert(after, ref)
        before = change.before
        old = self._key(before)
        if old is None:
            return (
                "the log does not carry the key of the row before: ALTER TABLE .. REPLICA IDENTITY FULL at the source"
            )
        if operation is _DELETE:
            self._delete(old, before, ref)
            return ""
        return self._update(old, before, after, ref)

    def _key(self, row: Any) -> Any:
        """Return the key, None when a part of it is null or not known."""
        if self.single >= 0:
            key = row[self.single]
            if key is UNCHANGED:
                return None
            return math.nan if self.floats and key is not None and key != key else key  # noqa: PLR0124  NaN
        key = self.key_of(row)
        for value in key:
            if value is None or value is UNCHANGED:
                return None
        if self.floats:
            return tuple([math.nan if value != value else value for value in key])  # noqa: PLR0124  NaN
        return key

    def _append(self, operation: Any, after: Any, ref: Any) -> str:
        if operation is not _INSERT and operation is not _READ:
            return f"{operation} of a table without a key: it can only be appended to"
        if not complete(after):
            return "an incomplete row"
        self.effects.append(Effect(None, after, ref, False, True))  # noqa: FBT003
        return ""

    def _insert(self, after: Any, ref: Any) -> str:
        key = self._key(after)
        if key is None:
            return "the key holds null"
        if not complete(after):
            return NOT_THERE
        effect = self.by_key.get(key)
        if effect is None:
            effect = Effect(key, after, ref, False, True)  # noqa: FBT003
            self.by_key[key] = effect
            self.effects.append(effect)
            return ""
        effect.row = after
        effect.add(ref)
        return ""

    def _found(self, key: Any, before: Any) -> Any:
        """Return the effect that `before` belongs to, if one is known."""
        effect = self.by_key.get(key)
        if effect is None or effect.moved is None or effect.row is None or not differ(before, effect.row):
            return effect
        return self.displaced.get(key)

    def _delete(self, key: Any, before: Any, ref: Any) -> None:
        effect = self._found(key, before)
        if effect is None:
            effect = Effect(key, None, ref, True, False)  # noqa: FBT003
            self.effects.append(effect)
            self.owned.add(key)
            self.by_key.setdefault(key, effect)
            return
        effect.add(ref)
        effect.row = None
        self._leave(effect, key)
        step = effect.moved
        effect.moved = None
        while step is not None:
            step.effect = None
            self.passed.append((step.new, effect))
            step = step.previous
        if not effect.owns and key not in self.owned:
            effect.owns = True
            effect.origin = key
            self.owned.add(key)
        if effect.owns:
            effect.key = effect.origin
            self.by_key.setdefault(effect.origin, effect)

    def _leave(self, effect: Any, key: Any) -> None:
        if self.by_key.get(key) is effect:
            del self.by_key[key]
            under = self.displaced.pop(key, None)
            if under is not None:
                self.by_key[key] = under
        elif self.displaced.get(key) is effect:
            del self.displaced[key]

    def _update(self, old: Any, before: Any, after: Any, ref: Any) -> str:
        row = after if complete(after) else merged(after, before)
        new = self._key(row)
        if new is None:
            return "the key holds null"
        effect = self._found(old, before)
        if effect is None:
            effect = Effect(old, row, ref, True, False)  # noqa: FBT003
            self.effects.append(effect)
            self.owned.add(old)
            if new is old or new == old:
                if self.by_key.setdefault(old, effect) is not effect:
                    self.displaced[old] = effect
                return ""
        elif effect.row is None:
            if not complete(row):
                return NOT_THERE
            return self._insert(row, ref)
        else:
            effect.row = merged(row, effect.row)
            effect.add(ref)
        if not (new is old or new == old):
            self._move(effect, old, new, ref)
        return ""

    def _move(self, effect: Any, old: Any, new: Any, ref: Any) -> None:
        self._leave(effect, old)
        there = self.by_key.get(new)
        if there is not None and there.row is not None:
            self.displaced[new] = there
        self.by_key[new] = effect
        effect.key = new
        if effect.owns:
            step = Step(old, new, effect)
            effect.moved = step
            self.steps.append(step)
        elif old not in self.owned:
            self.owned.add(old)
            gone = Effect(old, None, ref, True, False)  # noqa: FBT003
            self.effects.append(gone)
            self.by_key.setdefault(old, gone)

    def result(self) -> TableEffects:
        """Return the net effects."""
        found = TableEffects(self.table)
        if not self.keyed:
            found.appended = self.effects
            return found
        for effect in self.effects:
            row = effect.row
            if row is None:
                if effect.owns:
                    found.deletes.append(effect)
            elif effect.moved is not None:
                continue
            elif effect.fresh:
                found.inserts.append(effect)
            elif complete(row):
                found.upserts.append(effect)
            else:
                found.updates.setdefault(known(row), []).append(effect)
        if self.steps:
            found.steps = [step for step in self.steps if step.effect is not None]
            found.passed = self.passed
        return found


def complete(row: Any) -> bool:
    """Return whether every value is known."""
    for value in row:  # noqa: SIM110  a generator costs three times as much
        if value is UNCHANGED:
            return False
    return True


def known(row: Row) -> tuple[int, ...]:
    """Return the indexes of the values that are known."""
    return tuple([index for index, value in enumerate(row) if value is not UNCHANGED])


def merged(row: Row, earlier: Row) -> Row:
    """Return the row with the earlier values where its own are not known."""
    return tuple([old if new is UNCHANGED else new for new, old in zip(row, earlier, strict=True)])


def differ(before: Row, row: Row) -> bool:
    """Return whether two states of a row contradict each other in a value that both know."""
    for one, other in zip(before, row, strict=True):
        if one is not UNCHANGED and other is not UNCHANGED and one is not other and one != other:
            return not (is_nan(one) and is_nan(other))
    return False


def is_nan(value: Value) -> bool:
    """Return whether a value is the float that is not equal to itself."""
    return isinstance(value, float) and math.isnan(value)


def _readable(item: Change | SchemaChange | CopyStart | Unreadable, ref: Ref) -> Change | SchemaChange | CopyStart:
    """Return the item. Raises Rejected for what no mapping looked at and nobody can write."""
    if isinstance(item, Unreadable):
        raise Rejected({ref: item.reason})
    return item


def fold(batch: Batch) -> list[Group | Barrier]:
    """Return the groups and barriers of a batch, in order; messages are left out.

    Raises Rejected with every change that no target could take: one whose key is null or unknown, an incomplete
    row that is new, an update or delete of a table without a key.
    """
    parts: list[Group | Barrier] = []
    folds: dict[Any, Fold] = {}
    versions: dict[tuple[str, str], Table] = {}
    reasons: dict[Ref, str] = {}
    table: Any = None
    current: Any = None
    for at, transaction in enumerate(batch.transactions):
        for index, item in enumerate(transaction.items):
            if type(item) is not Change or item.operation is _TRUNCATE:
                if isinstance(item, Message):
                    continue
                _close(parts, folds, at)
                versions.clear()
                table = None
                parts.append(Barrier(_readable(item, (at, index)), (at, index)))
                continue
            if item.table is not table:
                table = item.table
                if versions.setdefault((table.schema, table.name), table) != table:
                    _close(parts, folds, at)
                    versions.clear()
                    versions[table.schema, table.name] = table
                current = folds.get(table)
                if current is None:
                    current = folds[table] = Fold(table)
            reason = current.add(item, (at, index))
            if reason:
                reasons[at, index] = reason
    if reasons:
        raise refusal(reasons)
    _close(parts, folds, len(batch.transactions) - 1)
    return parts


def stretches(parts: Sequence[Group | Barrier]) -> list[tuple[list[Barrier], list[Group | Barrier]]]:
    """Return what lies between schema changes, each with those that come before it; one alone where there are none."""
    found: list[tuple[list[Barrier], list[Group | Barrier]]] = [([], [])]
    for part in parts:
        if not (isinstance(part, Barrier) and isinstance(part.item, SchemaChange)):
            found[-1][1].append(part)
        elif found[-1][1]:
            found.append(([part], []))
        else:
            found[-1][0].append(part)
    return found


def _close(parts: list[Group | Barrier], folds: dict[Any, Fold], end: int) -> None:
    """End the group that is being folded."""
    if folds:
        parts.append(Group([each.result() for each in folds.values()], end))
        folds.clear()


def tables_of(parts: Sequence[Group | Barrier]) -> list[Table]:
    """Return the tables that are written to; a table may come twice."""
    tables: list[Table] = []
    for part in parts:
        if isinstance(part, Group):
            tables += [effects.table for effects in part.tables]
        elif not isinstance(part.item, SchemaChange):
            tables.append(part.item.table)
    return tables


def refs_of(effects: Sequence[Effect], reason: str) -> dict[Ref, str]:
    """Return what `Rejected` takes: all changes of these effects, with one reason."""
    return {ref: reason for effect in effects for ref in effect.refs()}
