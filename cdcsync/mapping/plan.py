"""One source table version's way to its target, compiled once."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED, Change, Operation, Table, is_complete
from cdcsync.mapping.failures import Failed
from cdcsync.mapping.model import OnTruncate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row, Transaction, Unreadable
    from cdcsync.mapping.computed import Computed, Question
    from cdcsync.mapping.model import Rule

PLACES_MAX: Final = 1000
"""Targets that rows of one table may name by themselves."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FULL_BEFORE: Final = (
    "the source table needs full before images (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL; "
    "MySQL: binlog_row_image=FULL)"
)


class Unmappable(Exception):  # noqa: N818  named for its verdict on one change
    """This change has no form in the target; the message says why, without values."""

    def __init__(self, message: str, change: Change | Unreadable, *, lacking: bool = False) -> None:
        super().__init__(message)
        self.change = change
        """The target's change as far as it came: a part of its key is missing or null."""
        self.lacking = lacking
        """The row as it is at the source would do."""


class Stopped(Exception):  # noqa: N818  named for what the entry asked for
    """The entry says to stop at this change."""


class Moment:
    """What a change has beside its row; expressions read it as `_operation`, `_commit_time` and so on."""

    __slots__ = ("commit_time", "commit_time_us", "operation", "position", "transaction")

    def __init__(self, given: Transaction) -> None:
        self.operation = ""
        self.commit_time_us = given.commit_time_us
        self.commit_time = timestamp(given.commit_time_us)
        self.position = given.position.encode()
        self.transaction = given.id


@dataclass(frozen=True, slots=True)
class Plan:
    """How the changes of one source table version become changes of its target."""

    rule: Rule
    source: Table
    target: Table
    """The first of `targets`; one without a name where rows name theirs."""
    targets: tuple[Table, ...]
    """Those that are known before a row is read."""
    project: Callable[[Row], Row] | None
    """Builds the target's row of the row alone, columns that the entry adds by itself excluded; None: the row."""
    key_at: tuple[int, ...]
    """Indexes of the target's key when it is not the source's own, and so has to be proved in each row."""
    delete: str
    """"hard", "soft" or "ignore"."""
    truncate: OnTruncate
    direct: bool
    """Whether a change of a row goes through with only its table, and perhaps its rows' columns, swapped."""
    same: bool
    """Whether the change itself goes through: nothing at all is different."""
    computed: Computed | None = None
    """Makes rows with expressions, in the place of `project`."""
    where: Question | None = None
    by: Question | None = None
    places: dict[str, Table] | None = None
    """The targets by the names that `by` gives."""
    free: bool = False
    """Names that are not among them make targets of their own."""
    history: bool = False
    skip_at: tuple[int, ...] = ()
    """Indexes of target columns: an update that changes none of them is left out."""
    message_at: tuple[int, ...] = ()
    """Indexes of the message's key, where it has to be proved in each row."""

    def map(self, change: Change, moment: Moment) -> Sequence[Change]:
        """Return the target's changes. Raises Unmappable and Stopped."""
        if change.operation is Operation.TRUNCATE:
            return self._truncate()
        moment.operation = change.operation.value
        operation = change.operation if self.where is None else self._decided(change, moment)
        if operation is None or (operation is Operation.DELETE and self.delete == "ignore"):
            return ()
        return self._mapped(change, operation, moment)

    @property
    def lineage(self) -> tuple[str | None, ...]:
        """For each target column the source column that it is; None where it is made."""
        taken: list[int | None] = list(range(len(self.source.columns)))
        if self.computed is not None:
            taken = [output if isinstance(output, int) else None for output in self.computed.outputs]
        elif self.project is not None:
            taken = list(self.project(tuple(taken)))
        taken += [None] * (len(self.target.columns) - len(taken))
        return tuple(None if at is None else self.source.columns[at].name for at in taken)

    def _mapped(self, change: Change, operation: Operation, moment: Moment) -> Sequence[Change]:
        """Return what becomes of a change whose row the target has, or is to have."""
        made_before = self._earlier(change.before)
        after = None if operation is Operation.DELETE else change.after
        made_after = self._row(change, after, made_before, moment)
        if self.history:
            version = self._version(change, made_before, made_after, moment)
            if (
                made_before is None
                or made_after is None
                or not self._moves(change)
                or not self._left(change.before, moment)
            ):
                return (version,)
            gone = Change(change.table, Operation.DELETE, change.before, None)
            return (self._version(gone, made_before, None, moment), version)
        if operation is Operation.INSERT and made_before is not None:
            if made_after is not None and is_complete(made_after):
                made_before = None
            else:
                operation = Operation.UPDATE
        if self.skip_at and operation is Operation.UPDATE and self._unchanged(made_before, made_after):
            return ()
        if self.by is not None:
            return self._routed(change, operation, made_before, made_after, moment)
        return (self._finished(self.target, operation, made_before, made_after, moment),)

    def _row(self, change: Change, after: Row | None, before: Row | None, moment: Moment) -> Row | None:
        if after is None or self.computed is None:
            return after if after is None or self.project is None else self.project(after)
        try:
            return self.computed.row(after, change.before, moment)
        except Failed as failed:
            raise Unmappable(str(failed), Change(self.target, change.operation, before, failed.row)) from failed

    def _earlier(self, row: Row | None) -> Row | None:
        if row is None or self.computed is None:
            return row if row is None or self.project is None else self.project(row)
        return self.computed.earlier(row)

    def _decided(self, change: Change, moment: Moment) -> Operation | None:
        """Return what the change is for rows that `where` lets into the target; None: nothing."""
        before, after, operation = change.before, change.after, change.operation
        now = after is not None and self._answer(self.where, change, after, moment) is True
        if self.history:
            return operation if now or (after is None and self._left(before, moment)) else None
        was = self.where.of_earlier(before) if before is not None and self.where is not None else False
        if operation in (Operation.INSERT, Operation.READ):
            return operation if now else None
        if operation is Operation.UPDATE and now:
            return Operation.INSERT if was is False or was is None else operation
        return Operation.DELETE if was is True or was is UNCHANGED else None

    def _moves(self, change: Change) -> bool:
        """Return whether an update gives the row another key."""
        before, after = change.before, change.after
        if before is None or after is None:
            return False
        return any(UNCHANGED not in (before[at], after[at]) and before[at] != after[at] for at in self.source.key_at)

    def _left(self, before: Row | None, moment: Moment) -> bool:
        """Return whether a deleted row's last version belongs into the history; what cannot be told does."""
        if before is None or self.where is None:
            return True
        try:
            said = self.where.of(before, before, moment)
        except Failed:
            return True
        return said is True or said is UNCHANGED

    def _answer(self, question: Question | None, change: Change, row: Row, moment: Moment) -> Any:
        """Return the answer for a row that is there now. Raises Unmappable when the log does not carry what it needs."""
        assert question is not None  # noqa: S101  asked by those that have one
        known = Change(self.target, change.operation, self._earlier(change.before), self._earlier(row))
        try:
            said = question.of(row, change.before, moment)
        except Failed as failed:
            raise Unmappable(str(failed), known) from failed
        if said is UNCHANGED:
            msg = f"{self.source.qualified}: the log does not carry what `{question.name}` reads; {FULL_BEFORE}"
            raise Unmappable(msg, known, lacking=row is change.after)
        return said

    def _unchanged(self, before: Row | None, after: Row | None) -> bool:
        """Return whether an update leaves the columns that count, and the key, as they were."""
        if before is None or after is None:
            return False
        return all(
            after[at] is UNCHANGED or (before[at] is not UNCHANGED and after[at] == before[at])
            for at in (*self.skip_at, *self.target.key_at)
        )

    def _routed(
        self, change: Change, operation: Operation, before: Row | None, after: Row | None, moment: Moment
    ) -> Sequence[Change]:
        """Return the changes where the row's content says; the old place is cleaned when it moves."""
        new = self._place(change, change.after, moment) if after is not None else None
        cleans = before is not None and not (self.delete == "ignore" and new is not None)
        old = self._place(change, change.before, moment) if cleans else None
        if old is None or new is None or old is new:
            target = new or old
            assert target is not None  # noqa: S101  a change has a row
            return (self._finished(target, operation, before, after, moment),)
        if after is None or not is_complete(after):
            msg = f"{self.source.qualified}: a row moves to {new.qualified} and the log does not carry all of it; {FULL_BEFORE}"
            raise Unmappable(msg, Change(new, operation, before, after), lacking=True)
        return (
            self._finished(old, Operation.DELETE, before, None, moment),
            self._finished(new, Operation.INSERT, None, after, moment),
        )

    def _place(self, change: Change, row: Row | None, moment: Moment) -> Table:
        assert row is not None  # noqa: S101  asked by those that have one
        assert self.places is not None  # noqa: S101  there are places where there is `by`
        said = self._answer(self.by, change, row, moment)
        place = self.places.get(said)
        if place is None and self.free and said and len(self.places) < PLACES_MAX:
            place = self._found(said)
        if place is not None:
            return place
        msg = f"{self.source.qualified}: `to.by` names none of the tables under `to.tables`"
        if self.free:
            msg = f"{self.source.qualified}: `to.by` is null, empty, or one name more than {PLACES_MAX}"
        raise Unmappable(msg, Change(self.target, change.operation, self._earlier(change.before), self._earlier(row)))

    def _found(self, name: str) -> Table:
        """Return the target of a name that comes for the first time."""
        schema, dot, table = name.partition(".")
        assert self.places is not None  # noqa: S101  asked before
        place = replace(self.target, schema=schema if dot else "", name=table if dot else name)
        self.places[name] = place
        return place

    def _version(self, change: Change, before: Row | None, after: Row | None, moment: Moment) -> Change:
        """Return one version of a row as a row of its own."""
        row = after if after is not None else before
        assert row is not None  # noqa: S101  a change has a row
        if after is None:
            row = tuple(None if value is UNCHANGED else value for value in row)
        elif before is not None and not is_complete(row):
            known = before
            row = tuple(known[at] if value is UNCHANGED else value for at, value in enumerate(row))
        operation = Operation.READ if change.operation is Operation.READ else Operation.INSERT
        made = Change(self.target, operation, None, (*row, change.operation.value, moment.commit_time))
        wrong = self._wrong(row, self.message_at)
        if wrong:
            raise Unmappable(wrong, made)
        if not is_complete(row):
            msg = f"{self.source.qualified}: the log does not carry all of a row, and history keeps whole ones; {FULL_BEFORE}"
            raise Unmappable(msg, made)
        return made

    def _finished(
        self, target: Table, operation: Operation, before: Row | None, after: Row | None, moment: Moment
    ) -> Change:
        """Return the change with its key proved, and a soft delete as an update."""
        if self.message_at and self.delete == "ignore" and after is not None:
            before = None if before is None else self._kept(before, after)
        if self.key_at or self.message_at:
            before, after = self._proved(target, operation, before, after)
        if self.delete != "soft":
            return Change(target, operation, before, after)
        kept = None if before is None else (*before, UNCHANGED)
        if after is not None:
            return Change(target, operation, kept, (*after, None))
        assert before is not None  # noqa: S101  a delete has one by contract
        return Change(target, Operation.UPDATE, kept, (*before, moment.commit_time))

    def _kept(self, before: Row, after: Row) -> Row:
        """Return the row before with the message's key as it is now: where nothing is deleted, nothing moves."""
        return tuple(after[at] if at in self.message_at else value for at, value in enumerate(before))

    def _proved(
        self, target: Table, operation: Operation, before: Row | None, after: Row | None
    ) -> tuple[Row | None, Row | None]:
        """Return the rows with their keys whole; an unchanged key value of `after` is the one in `before`."""
        proved = (*self.key_at, *self.message_at)
        if after is not None and before is not None and any(after[at] is UNCHANGED for at in proved):
            kept = before
            after = tuple(kept[at] if value is UNCHANGED and at in proved else value for at, value in enumerate(after))
        for row in (before, after):
            wrong = self._wrong(row, proved) if row is not None else ""
            if wrong:
                raise Unmappable(wrong, Change(target, operation, before, after))
        return before, after

    def _wrong(self, row: Row, proved: Sequence[int]) -> str:
        """Return why a row has no whole key; empty when it has one."""
        for at in proved:
            if row[at] is UNCHANGED:
                return f"{self.source.qualified}: the log does not carry {self._named(at)}; {FULL_BEFORE}"
            if row[at] is None:
                return f"{self.source.qualified}: {self._named(at)} is null"
        return ""

    def _named(self, at: int) -> str:
        kind = "message_key" if at in self.message_at else "key"
        return f"the {kind} column {self.target.columns[at].name}"

    def _truncate(self) -> Sequence[Change]:
        if self.truncate is OnTruncate.IGNORE:
            return ()
        if self.truncate is OnTruncate.APPLY:
            return [Change(target, Operation.TRUNCATE, None, None) for target in self.targets]
        msg = f"{self.source.qualified} was truncated"
        raise Stopped(msg)


@dataclass(frozen=True, slots=True)
class Several:
    """The plans of a table that more than one entry takes."""

    plans: tuple[Plan, ...]
    same: bool = False
    direct: bool = False
    project: None = None

    def map(self, change: Change, moment: Moment) -> Sequence[Change]:
        """Return the changes of all targets. Raises Unmappable and Stopped."""
        return [made for plan in self.plans for made in plan.map(change, moment)]


def projection(taken: Sequence[int], width: int) -> Callable[[Row], Row] | None:
    """Return a function from the source's row to these of its values; None when they are all of them in order."""
    if list(taken) == list(range(width)):
        return None
    if len(taken) == 1:
        only = taken[0]
        return lambda row: (row[only],)
    return operator.itemgetter(*taken)


def timestamp(time_us: int) -> str:
    """Return microseconds since 1970 as a `timestamptz` value."""
    moment = EPOCH + timedelta(microseconds=time_us)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
