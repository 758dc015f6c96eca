"""Writes folded effects in one target transaction: fast when all goes well, row by row when some row does not."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.change import CopyStart, SchemaChange
from cdcsync.errors import Fatal, Rejected
from cdcsync.folding import NOT_THERE, Group, complete, fitted, known, refs_of
from cdcsync.mysql.blame import Fault, fault_of
from cdcsync.mysql.errors import MysqlError, describe, is_about_rows
from cdcsync.mysql.literals import Unfit
from cdcsync.mysql.statements import Request, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.folding import Barrier, Effect, Ref, Step, TableEffects
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.foreign_keys import ForeignKeys, Place
    from cdcsync.mysql.statements import Plan

PACKET_MAX: Final = 1 << 19
"""Characters of statements that are sent together."""
STATEMENTS_MAX: Final = 1000


class Missed(Exception):  # noqa: N818  told to the sink, which writes again row by row
    """A row that has to be there was not found."""


@dataclass(frozen=True, slots=True)
class Work:
    """Rows for one kind of statement, and the effects that they come from."""

    plan: Plan
    shape: Shape
    rows: Sequence[Row]
    effects: Sequence[Effect]
    sequential: bool = False
    """One by one, in this order; each row begins with its shape."""


Part: TypeAlias = "list[Work] | tuple[Barrier, ...]"
"""What one group writes, or the barriers that stand together."""
Failure: TypeAlias = tuple[Work, Fault]
"""One row, and why it is not taken."""


class Writer:
    """Runs works and barriers inside a transaction that the sink has begun."""

    def __init__(
        self,
        connection: Connection,
        plan_of: Callable[[Table], Plan],
        place: Callable[[Table], Place],
        foreign_keys: Callable[[], ForeignKeys],
    ) -> None:
        self._connection = connection
        self._plan_of = plan_of
        self._place = place
        self._foreign_keys = foreign_keys
        self._together = min(PACKET_MAX, int(connection.server.variable("max_allowed_packet", "1048576")) // 4)
        """Characters of up to four bytes."""

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

    def write(self, parts: Sequence[Part], opening: Sequence[str], closing: Request) -> bool:
        """Run all between `opening` and `closing`, in as few packets as there is room for; return what `closing` found.

        Raises MysqlError, Missed and Unfit; the caller rolls back.
        """
        queue = _Queue(self._connection, opening, self._together)
        for part in parts:
            if isinstance(part, list):
                for work in part:
                    queue.put(requests_of(work))
            else:
                queue.flush()
                self._pass(part)
        queue.put([Request(closing.sql)])
        queue.flush()
        return queue.last == 1

    def write_carefully(self, parts: Sequence[Part], opening: Sequence[str]) -> dict[Ref, str]:
        """Run all, as far as it goes; return every change that the target does not take, with the reason."""
        self._connection.run(opening)
        reasons: dict[Ref, str] = {}
        for part in parts:
            if isinstance(part, list):
                reasons.update(self._resolve(part))
            else:
                self._pass(part)
        return reasons

    def _works(self, group: Group) -> list[Work]:
        """Children's deletes, then parents' rows first, then deletes of those that others refer to.

        A delete that cascades at the target must not meet a child that moves to another parent in this group.
        """
        keys = self._foreign_keys()
        planned = [(self._plan_of(effects.table), effects) for effects in group.tables]
        tables = sorted(
            ((self._place(plan.table), plan, fitted(effects, plan.table)) for plan, effects in planned),
            key=lambda each: keys.rank(each[0]),
        )
        early = [each for each in tables if not keys.is_parent(each[0]) or each[2].steps]
        late = [each for each in tables if keys.is_parent(each[0]) and not each[2].steps]
        works = [delete_of(plan, effects) for _, plan, effects in reversed(early)]
        for _, plan, effects in tables:
            works += rows_of(plan, effects)
        works += [delete_of(plan, effects) for _, plan, effects in reversed(late)]
        return [work for work in works if work.rows]

    def _pass(self, barriers: Sequence[Barrier]) -> None:
        cleared: dict[Ref, Table] = {}
        for barrier in barriers:
            item = barrier.item
            if isinstance(item, SchemaChange):
                continue
            if isinstance(item, CopyStart) and not item.again:
                self._refuse_rows(self._plan_of(item.table).name)
            else:
                self._plan_of(item.table)
                cleared[barrier.ref] = item.table
        if cleared:
            self._clear(cleared, copies={barrier.ref for barrier in barriers if isinstance(barrier.item, CopyStart)})

    def _refuse_rows(self, name: str) -> None:
        if self._connection.execute(f"SELECT 1 FROM {name} LIMIT 1"):  # noqa: S608  quoted
            msg = f"target table {name} is not empty"
            raise Fatal(
                msg, hint="the first copy needs an empty target: empty it, map to another table, or set `start: now`"
            )

    def _clear(self, tables: Mapping[Ref, Table], copies: set[Ref]) -> None:
        """Empty the tables by DELETE, children first: TRUNCATE would commit.

        Raises Rejected, a first copy Fatal, where that would change rows of another table or break its foreign key.
        """
        reasons = self._referring(tables) or self._delete_all(tables)
        if copies & reasons.keys():
            hint = "empty both tables by hand, map the other one too, or drop its constraint"
            raise Fatal("; ".join(sorted(set(reasons.values()))), hint=hint)
        if reasons:
            raise Rejected(reasons)

    def _referring(self, tables: Mapping[Ref, Table]) -> dict[Ref, str]:
        """Return why a delete would change rows of tables that the source did not truncate."""
        keys = self._foreign_keys().referring(self._place(table) for table in tables.values())
        return {
            ref: f"table {key.child_name} at the target refers to {self._plan_of(table).name} by {key.name}, "
            f"ON DELETE {key.action}: a truncate would change its rows as well"
            for key in keys
            if key.acts
            for ref, table in tables.items()
            if self._place(table) == key.parent
        }

    def _delete_all(self, tables: Mapping[Ref, Table]) -> dict[Ref, str]:
        """Delete all rows, children first; return why not."""
        reasons: dict[Ref, str] = {}
        keys = self._foreign_keys()
        for ref, table in sorted(tables.items(), key=lambda each: -keys.rank(self._place(each[1]))):
            try:
                self._connection.run([f"DELETE FROM {self._plan_of(table).name}"])  # noqa: S608  quoted
            except MysqlError as error:
                if not is_about_rows(error):
                    raise
                reasons[ref] = f"truncate: {describe(error)}"
        return reasons

    def _resolve(self, works: Sequence[Work]) -> dict[Ref, str]:
        """Write one group; rows that stood in each other's way are tried again after all others."""
        pending: list[Failure] = []
        for work in works:
            pending += self._attempt(work)
        while pending:
            left: list[Failure] = []
            for work, _ in pending:
                left += self._attempt(work)
            if len(left) == len(pending):
                break
            pending = left
        if any(fault.is_unique for _, fault in pending):
            pending = self._swap(pending)
        reasons: dict[Ref, str] = {}
        for work, fault in pending:
            reasons.update(refs_of(work.effects, fault.reason))
        return reasons

    def _attempt(self, work: Work) -> list[Failure]:
        """Write the rows, halving them down to those that fail; return these. A statement that fails undoes itself."""
        if work.sequential and len(work.rows) > 1:
            return self._one_by_one(work)
        try:
            queue = _Queue(self._connection, [], self._together)
            queue.put(requests_of(work))
            queue.flush()
        except Unfit as unfit:
            fault = Fault(str(unfit))
        except Missed:
            upsert = _upsert_instead(work)
            if upsert is not None:
                return self._attempt(upsert)
            fault = Fault(NOT_THERE)
        except MysqlError as error:
            if not is_about_rows(error):
                raise
            fault = fault_of(error, work.plan.guard)
        else:
            return []
        if len(work.rows) == 1:
            return [(work, fault)]
        middle = len(work.rows) // 2
        return self._attempt(sliced(work, 0, middle)) + self._attempt(sliced(work, middle, len(work.rows)))

    def _one_by_one(self, work: Work) -> list[Failure]:
        """Write steps in their order; what comes after one that fails waits with it."""
        for at in range(len(work.rows)):
            failures = self._attempt(sliced(work, at, at + 1))
            if failures:
                fault = failures[0][1]
                return failures + [(sliced(work, later, later + 1), fault) for later in range(at + 1, len(work.rows))]
        return []

    def _swap(self, pending: list[Failure]) -> list[Failure]:
        """Rows that exchange a unique value leave together and come back together."""
        able = [
            (work, fault)
            for work, fault in pending
            if fault.is_unique
            and not self._foreign_keys().acts(self._place(work.plan.table))
            and all(effect.row is not None and complete(effect.row) for effect in work.effects)
        ]
        left = [each for each in pending if each not in able]
        effects = {id(effect): (work.plan, effect) for work, _ in able for effect in work.effects}
        for plan, effect in effects.values():
            left += self._attempt(Work(plan, plan.delete, [plan.key_row(effect.origin)], [effect]))
        for plan, effect in effects.values():
            left += self._attempt(Work(plan, plan.upsert, [taken(effect.row, plan.written)], [effect]))
        return left


class _Queue:
    """Statements that go out together."""

    def __init__(self, connection: Connection, opening: Sequence[str], size_max: int) -> None:
        self._connection = connection
        self._size_max = size_max
        self._waiting = [Request(sql) for sql in opening]
        self._size = 0
        self.last = 0
        """How many rows the last statement found."""

    def put(self, requests: Iterator[Request] | Sequence[Request]) -> None:
        """Take some, and send when there are many. Raises MysqlError, Missed, and what the iterator raises."""
        for request in requests:
            if self._size + len(request.sql) > self._size_max or len(self._waiting) >= STATEMENTS_MAX:
                self.flush()
            self._waiting.append(request)
            self._size += len(request.sql)

    def flush(self) -> None:
        """Send what waits. Raises MysqlError, and Missed when one did not find its row."""
        if not self._waiting:
            return
        waiting, self._waiting, self._size = self._waiting, [], 0
        found = self._connection.run([request.sql for request in waiting])
        if any(request.finds and not rows for request, rows in zip(waiting, found, strict=True)):
            raise Missed
        self.last = found[-1]


def requests_of(work: Work) -> Iterator[Request]:
    """Return the statements. Raises Unfit on the way."""
    if not work.sequential:
        yield from work.shape.requests(work.rows)
        return
    for row in work.rows:
        yield from row[0].requests([row[1:]])


def sliced(work: Work, first: int, end: int) -> Work:
    """Return some of the rows."""
    return Work(work.plan, work.shape, work.rows[first:end], work.effects[first:end], work.sequential)


def _upsert_instead(work: Work) -> Work | None:
    """Return the upsert for one last step whose row is complete."""
    if not work.sequential or len(work.rows) != 1 or not complete(work.effects[0].row):
        return None
    return Work(work.plan, work.plan.upsert, [taken(work.effects[0].row, work.plan.written)], work.effects)


def taken(row: Any, indexes: Sequence[int]) -> Row:
    """Return these values of a row."""
    return tuple([row[at] for at in indexes])


def delete_of(plan: Plan, effects: TableEffects) -> Work:
    """Return the deletes of one table, by key."""
    gone = effects.deletes
    if gone and plan.sortable:
        gone = sorted(gone, key=attrgetter("origin"))
    return Work(plan, plan.delete if gone else plan.append, [plan.key_row(each.origin) for each in gone], gone)


def rows_of(plan: Plan, effects: TableEffects) -> list[Work]:
    """Return the other works of one table: moves of keys, new rows, whole rows, parts of rows."""
    works: list[Work] = []
    if effects.steps:
        rows = [_move(plan, step) for step in effects.steps]
        works.append(Work(plan, rows[0][0], rows, [step.effect for step in effects.steps], sequential=True))
    if effects.appended:
        works.append(_whole(plan, plan.append, effects.appended))
    whole = [*effects.inserts, *effects.upserts]
    if whole:
        works.append(_whole(plan, plan.upsert, _sorted(plan, whole)))
    for columns, each in effects.updates.items():
        shape, indexes = plan.partial(columns)
        ordered = _sorted(plan, each)
        works.append(Work(plan, shape, [taken(effect.row, indexes) for effect in ordered], ordered))
    return works


def _sorted(plan: Plan, effects: list[Effect]) -> list[Effect]:
    return sorted(effects, key=attrgetter("key")) if plan.sortable else effects


def _whole(plan: Plan, shape: Shape, effects: list[Effect]) -> Work:
    if len(plan.written) == len(plan.table.columns):
        rows = [effect.row for effect in effects]
    else:
        rows = [taken(effect.row, plan.written) for effect in effects]
    return Work(plan, shape, rows, effects)


def _move(plan: Plan, step: Step) -> tuple[Any, ...]:
    """Return the statement of one step and after it its row."""
    old = plan.key_row(step.old)
    if not step.last:
        new = step.new if len(plan.table.key_at) > 1 else (step.new,)
        return (plan.move(plan.table.key_at, finds=False), *new, *old)
    row = step.effect.row
    columns = tuple(at for at in known(row) if at in plan.written)
    return (plan.move(columns, finds=True), *taken(row, columns), *old)
