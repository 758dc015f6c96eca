"""Writes folded effects in one target transaction: fast when all goes well, row by row when some row does not."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.change import CopyStart, SchemaChange
from cdcsync.errors import Fatal, Rejected
from cdcsync.folding import NOT_THERE, Group, complete, fitted, known, refs_of
from cdcsync.postgres.blame import OF_VALUES, blame
from cdcsync.postgres.errors import describe, is_about_rows
from cdcsync.postgres.statements import Unfit
from cdcsync.postgres.wire import Failed, Request, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.folding import Barrier, Effect, Ref, Step, TableEffects
    from cdcsync.postgres.foreign_keys import ForeignKeys
    from cdcsync.postgres.statements import Plan, Shape
    from cdcsync.postgres.target import Target
    from cdcsync.postgres.wire import Wire

COPY_MIN: Final = 200
"""Rows from which COPY straight into the table is faster than a statement."""
_DIVISION: Final = "22012"
_REFERRED: Final = "0A000"
"""TRUNCATE of a table that a foreign key refers to."""
_UNIQUE: Final = frozenset({"23505", "23P01"})
_SAVEPOINT: Final = Statement(b"SAVEPOINT cdcsync_row")
_RELEASE: Final = Statement(b"RELEASE SAVEPOINT cdcsync_row")
_BACK: Final = Statement(b"ROLLBACK TO SAVEPOINT cdcsync_row")


@dataclass(frozen=True, slots=True)
class Work:
    """Rows for one statement, and the effects that they come from."""

    plan: Plan
    shape: Shape
    rows: Sequence[Row]
    effects: Sequence[Effect]
    sequential: bool = False
    """One by one, in this order."""
    copied: bool = False
    """Large and new: COPY may take it."""


Part: TypeAlias = "list[Work] | tuple[Barrier, ...]"
"""What one group writes, or the barriers that stand together."""


class Writer:
    """Runs works and barriers inside a transaction that the sink has begun."""

    def __init__(self, wire: Wire, target: Target, plan_of: Callable[[Table], Plan], foreign_keys: ForeignKeys) -> None:
        self._wire = wire
        self._target = target
        self._plan_of = plan_of
        self._foreign_keys = foreign_keys

    def plan(self, parts: Sequence[Group | Barrier]) -> list[Part]:
        """Return the works of each group in the order in which they are written, and the barriers between."""
        planned: list[Part] = []
        for part in parts:
            if isinstance(part, Group):
                planned.append(self._works(part))
            elif planned and isinstance(planned[-1], tuple):
                planned[-1] = (*planned[-1], part)
            else:
                planned.append((part,))
        return planned

    def write(self, parts: Sequence[Part], opening: Sequence[Request], closing: Sequence[Request]) -> None:
        """Run all between `opening` and `closing`, in one round trip where there is no COPY and no barrier.

        Raises Failed, Unfit, Transient; the caller rolls back.
        """
        queue = list(opening)
        for part in parts:
            if not isinstance(part, list):
                self._wire.run(queue)
                queue.clear()
                self._pass(part)
                continue
            for work in part:
                queue = self._put(work, queue)
        self._wire.run([*queue, *closing])

    def write_carefully(self, parts: Sequence[Part], opening: Sequence[Request]) -> dict[Ref, str]:
        """Run all under savepoints; return every change that the target does not take, with the reason."""
        self._wire.run(opening)
        reasons: dict[Ref, str] = {}
        for part in parts:
            if isinstance(part, list):
                reasons.update(self._resolve(part))
            else:
                self._pass(part)
        return reasons

    def _put(self, work: Work, queue: list[Request]) -> list[Request]:
        """Return what is left to send after this work: all, or what follows its COPY."""
        if work.copied and work.plan.copies and len(work.rows) >= COPY_MIN:
            self._wire.run([*queue, Request(_SAVEPOINT)])
            queue = [Request(_RELEASE)]
            if self._copy(work):
                return queue
        return [*queue, *requests_of(work)]

    def _copy(self, work: Work) -> bool:
        """Return whether COPY took the rows; when one is there already, nothing has happened."""
        try:
            self._wire.copy(work.plan.copy_sql, work.plan.copy_blocks(work.rows))
        except Failed as failed:
            if failed.error.sqlstate not in _UNIQUE or not work.plan.table.key:
                raise
            self._wire.run([Request(_BACK)])
            work.plan.copies = False
            return False
        return True

    def _works(self, group: Group) -> list[Work]:
        """Children's deletes, then parents' rows first, then deletes of those that others refer to.

        A delete that cascades at the target must not meet a child that moves to another parent in this group.
        """
        keys = self._foreign_keys
        planned = [(self._plan_of(effects.table), effects) for effects in group.tables]
        tables = sorted(
            ((plan, fitted(effects, plan.table)) for plan, effects in planned),
            key=lambda each: keys.rank(each[0].oid),
        )
        early = [(plan, effects) for plan, effects in tables if not keys.is_parent(plan.oid) or effects.steps]
        late = [(plan, effects) for plan, effects in tables if keys.is_parent(plan.oid) and not effects.steps]
        works = [delete_of(plan, effects) for plan, effects in reversed(early)]
        for plan, effects in tables:
            works += rows_of(plan, effects)
        works += [delete_of(plan, effects) for plan, effects in reversed(late)]
        return [work for work in works if work.rows]

    def _pass(self, barriers: Sequence[Barrier]) -> None:
        cleared: dict[Ref, Plan] = {}
        for barrier in barriers:
            item = barrier.item
            if isinstance(item, SchemaChange):
                continue
            if isinstance(item, CopyStart) and not item.again:
                plan = self._plan_of(item.table)
                request = Request(Statement(f"SELECT 1 / (NOT EXISTS (SELECT FROM {plan.name}))::int".encode()))  # noqa: S608
                self._refusing(request, plan, "is not empty")
            else:
                cleared[barrier.ref] = self._plan_of(item.table)
        if cleared:
            self._clear(cleared, copies={barrier.ref for barrier in barriers if isinstance(barrier.item, CopyStart)})

    def _clear(self, plans: Mapping[Ref, Plan], copies: set[Ref]) -> None:
        """Empty the tables together; by DELETE where one that is not among them refers to them.

        Raises Rejected, a first copy Fatal, where that would change rows of the other or break its foreign key.
        """
        names = list(dict.fromkeys(plan.name for plan in plans.values()))
        try:
            truncate = Request(Statement(f"TRUNCATE {', '.join(names)}".encode()))
            self._wire.run([Request(_SAVEPOINT), truncate, Request(_RELEASE)])
        except Failed as failed:
            if failed.error.sqlstate != _REFERRED:
                raise
            self._wire.run([Request(_BACK), Request(_RELEASE)])
            reasons = self._referring(plans) or self._delete_all(plans)
            if copies & reasons.keys():
                hint = "empty both tables by hand, map the other one too, or drop its constraint"
                raise Fatal("; ".join(sorted(set(reasons.values()))), hint=hint) from failed
            if reasons:
                raise Rejected(reasons) from failed

    def _referring(self, plans: Mapping[Ref, Plan]) -> dict[Ref, str]:
        """Return why a delete would change rows of tables that the source did not truncate."""
        keys = self._foreign_keys.renewed().referring({plan.oid for plan in plans.values()})
        return {
            ref: f"table {key.child_name} at the target refers to {plan.name} by {key.name}, ON DELETE {key.action}: "
            "a truncate would change its rows as well"
            for key in keys
            if key.acts
            for ref, plan in plans.items()
            if plan.oid == key.parent
        }

    def _delete_all(self, plans: Mapping[Ref, Plan]) -> dict[Ref, str]:
        """Delete all rows, children first; return why not."""
        reasons: dict[Ref, str] = {}
        for ref, plan in sorted(plans.items(), key=lambda each: -self._foreign_keys.rank(each[1].oid)):
            delete = Request(Statement(f"DELETE FROM {plan.name}".encode()))  # noqa: S608
            try:
                self._wire.run([Request(_SAVEPOINT), delete, Request(_RELEASE)])
            except Failed as failed:
                if not is_about_rows(failed.error):
                    raise
                self._wire.run([Request(_BACK), Request(_RELEASE)])
                reasons[ref] = f"truncate: {describe(failed.error)}"
        return reasons

    def _refusing(self, request: Request, plan: Plan, fault: str) -> None:
        try:
            self._wire.run([request])
        except Failed as failed:
            if failed.error.sqlstate != _DIVISION:
                raise
            msg = f"target table {plan.name} {fault}"
            raise Fatal(
                msg, hint="the first copy needs an empty target: empty it, map to another table, or set `start: now`"
            ) from failed

    def _resolve(self, works: Sequence[Work]) -> dict[Ref, str]:
        """Write one group; rows that stood in each other's way are tried again after all others."""
        pending: list[tuple[Work, str, str]] = []
        """(one row, SQLSTATE, reason)"""
        for work in works:
            pending += self._attempt(work)
        while pending:
            left: list[tuple[Work, str, str]] = []
            for work, _, _ in pending:
                left += self._attempt(work)
            if len(left) == len(pending):
                break
            pending = left
        if any(state in _UNIQUE for _, state, _ in pending):
            pending = self._swap(pending)
        reasons: dict[Ref, str] = {}
        for work, _, reason in pending:
            reasons.update(refs_of(work.effects, reason))
        return reasons

    def _attempt(self, work: Work) -> list[tuple[Work, str, str]]:
        """Write the rows under a savepoint, halving them down to those that fail; return these."""
        try:
            requests = requests_of(work)
            self._wire.run([Request(_SAVEPOINT), *requests, Request(_RELEASE)])
        except Unfit as unfit:
            state, reason = "", str(unfit)
        except Failed as failed:
            if not is_about_rows(failed.error):
                raise
            self._wire.run([Request(_BACK), Request(_RELEASE)])
            state, reason = failed.error.sqlstate or "", describe(failed.error)
            if state == _DIVISION and work.shape.finds_all:
                if work.shape.otherwise is not None:
                    return self._attempt(replaced(work, work.shape.otherwise))
                upsert = _upsert_instead(work)
                if upsert is not None:
                    return self._attempt(upsert)
                reason = NOT_THERE
        else:
            return []
        if len(work.rows) == 1:
            return [(work, state, reason + self._blame(work, state))]
        if work.sequential:
            return self._one_by_one(work)
        middle = len(work.rows) // 2
        return self._attempt(sliced(work, 0, middle)) + self._attempt(sliced(work, middle, len(work.rows)))

    def _blame(self, work: Work, state: str) -> str:
        """Return the column that is at fault in a single row, where a value is."""
        if state[:2] != OF_VALUES or state == _DIVISION:
            return ""
        shape, row = (work.rows[0][0], work.rows[0][1:]) if work.sequential else (work.shape, work.rows[0])
        return blame(self._wire, self._target.columns(work.plan.table), shape.parameters, row)

    def _one_by_one(self, work: Work) -> list[tuple[Work, str, str]]:
        """Write steps in their order; what comes after one that fails waits with it."""
        for at in range(len(work.rows)):
            failures = self._attempt(sliced(work, at, at + 1))
            if failures:
                rest = [(sliced(work, later, later + 1), *failures[0][1:]) for later in range(at + 1, len(work.rows))]
                return failures + rest
        return []

    def _swap(self, pending: list[tuple[Work, str, str]]) -> list[tuple[Work, str, str]]:
        """Rows that exchange a unique value leave together and come back together."""
        able = [
            each
            for each in pending
            if each[1] in _UNIQUE
            and not self._foreign_keys.acts(each[0].plan.oid)
            and all(effect.row is not None and complete(effect.row) for effect in each[0].effects)
        ]
        left = [each for each in pending if each not in able]
        effects = {id(effect): (work.plan, effect) for work, _, _ in able for effect in work.effects}
        for plan, effect in effects.values():
            left += self._attempt(Work(plan, plan.delete, [key_row(plan, effect.origin)], [effect]))
        for plan, effect in effects.values():
            left += self._attempt(Work(plan, plan.upsert, [taken(effect.row, plan.written)], [effect]))
        return left


def requests_of(work: Work) -> list[Request]:
    """Return the executions. Raises Unfit."""
    if not work.sequential:
        return list(work.shape.requests(work.rows))
    return [request for row, shape in _steps(work) for request in shape.requests([row])]


def _steps(work: Work) -> list[tuple[Row, Shape]]:
    return [(row[1:], row[0]) for row in work.rows]


def replaced(work: Work, shape: Shape) -> Work:
    """Return the same rows for another statement."""
    return Work(work.plan, shape, work.rows, work.effects)


def sliced(work: Work, first: int, end: int) -> Work:
    """Return some of the rows."""
    return Work(
        work.plan,
        work.rows[first][0] if work.sequential else work.shape,
        work.rows[first:end],
        work.effects[first:end],
        work.sequential,
    )


def _upsert_instead(work: Work) -> Work | None:
    """Return the upsert for one last step whose row is complete."""
    if not work.sequential or len(work.rows) != 1 or not complete(work.effects[0].row):
        return None
    return Work(work.plan, work.plan.upsert, [taken(work.effects[0].row, work.plan.written)], work.effects)


def taken(row: Any, indexes: Sequence[int]) -> Row:
    """Return these values of a row."""
    return tuple([row[at] for at in indexes])


def key_row(plan: Plan, key: Any) -> Row:
    """Return a key as the row of a delete."""
    return key if len(plan.table.key_at) > 1 else (key,)


def delete_of(plan: Plan, effects: TableEffects) -> Work:
    """Return the deletes of one table, by key."""
    gone = effects.deletes
    if gone and plan.sortable:
        gone = sorted(gone, key=attrgetter("origin"))
    return Work(plan, plan.delete if gone else plan.append, [key_row(plan, each.origin) for each in gone], gone)


def rows_of(plan: Plan, effects: TableEffects) -> list[Work]:
    """Return the other works of one table: moves of keys, new rows, whole rows, parts of rows."""
    works: list[Work] = []
    if effects.steps:
        rows = [_move(plan, step) for step in effects.steps]
        works.append(Work(plan, rows[0][0], rows, [step.effect for step in effects.steps], sequential=True))
    if effects.appended:
        works.append(_whole(plan, plan.append, effects.appended, copied=True))
    if effects.inserts:
        works.append(_whole(plan, plan.upsert, _sorted(plan, effects.inserts), copied=True))
    if effects.upserts:
        works.append(_whole(plan, plan.update, _sorted(plan, effects.upserts)))
    for columns, each in effects.updates.items():
        shape, indexes = plan.partial(columns)
        ordered = _sorted(plan, each)
        works.append(Work(plan, shape, [taken(effect.row, indexes) for effect in ordered], ordered))
    return works


def _sorted(plan: Plan, effects: list[Effect]) -> list[Effect]:
    return sorted(effects, key=attrgetter("key")) if plan.sortable else effects


def _whole(plan: Plan, shape: Shape, effects: list[Effect], *, copied: bool = False) -> Work:
    if len(plan.written) == len(plan.table.columns):
        rows = [effect.row for effect in effects]
    else:
        rows = [taken(effect.row, plan.written) for effect in effects]
    return Work(plan, shape, rows, effects, copied=copied)


def _move(plan: Plan, step: Step) -> tuple[Any, ...]:
    """Return the statement of one step and after it its row."""
    old = key_row(plan, step.old)
    if not step.last:
        return (plan.move(plan.table.key_at, finds_all=False), *old, *key_row(plan, step.new))
    row = step.effect.row
    columns = tuple(at for at in known(row) if at in plan.written)
    return (plan.move(columns, finds_all=True), *old, *taken(row, columns))
