"""One source table version's way to its target, compiled once."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cdcsync.change import UNCHANGED, Change, Operation, Table
from cdcsync.mapping.model import OnTruncate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row
    from cdcsync.mapping.model import Rule

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Unmappable(Exception):  # noqa: N818  named for its verdict on one change
    """This change has no form in the target; the message says why, without values."""

    def __init__(self, message: str, change: Change) -> None:
        super().__init__(message)
        self.change = change
        """The target's change as far as it came: a part of its key is missing or null."""


class Stopped(Exception):  # noqa: N818  named for what the entry asked for
    """The entry says to stop at this change."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the changes of one source table version become changes of its target."""

    rule: Rule
    source: Table
    target: Table
    project: Callable[[Row], Row] | None
    """Builds the target's row, soft column excluded; None: the row itself."""
    key_at: tuple[int, ...]
    """Indexes of the target's key when it is not the source's own, and so has to be proved in each row."""
    delete: str
    """"hard", "soft" or "ignore"."""
    truncate: OnTruncate
    direct: bool
    """Whether a change of a row goes through with only its table, and perhaps its rows' columns, swapped."""
    same: bool
    """Whether the change itself goes through: nothing at all is different."""

    def map(self, change: Change, commit_time_us: int) -> Change | None:
        """Return the target's change, None when there is none. Raises Unmappable and Stopped."""
        operation = change.operation
        if operation is Operation.TRUNCATE:
            return self._truncate()
        if operation is Operation.DELETE and self.delete == "ignore":
            return None
        before = self._row(change.before)
        after = self._row(change.after)
        if self.key_at:
            before, after = self._proved(operation, before, after)
        if self.delete != "soft":
            return Change(self.target, operation, before, after)
        kept = None if before is None else (*before, UNCHANGED)
        if after is not None:
            return Change(self.target, operation, kept, (*after, None))
        assert before is not None  # noqa: S101  a delete has one by contract
        return Change(self.target, Operation.UPDATE, kept, (*before, timestamp(commit_time_us)))

    def _row(self, row: Row | None) -> Row | None:
        return row if row is None or self.project is None else self.project(row)

    def _proved(self, operation: Operation, before: Row | None, after: Row | None) -> tuple[Row | None, Row | None]:
        """Return the rows with their keys whole; an unchanged key value of `after` is the one in `before`."""
        if after is not None and before is not None and any(after[at] is UNCHANGED for at in self.key_at):
            kept = before
            after = tuple(
                kept[at] if value is UNCHANGED and at in self.key_at else value for at, value in enumerate(after)
            )
        for row in (before, after):
            wrong = self._wrong(row) if row is not None else ""
            if wrong:
                raise Unmappable(wrong, Change(self.target, operation, before, after))
        return before, after

    def _wrong(self, row: Row) -> str:
        """Return why a row has no whole key; empty when it has one."""
        for at in self.key_at:
            if row[at] is UNCHANGED:
                return (
                    f"{self.source.qualified}: the log does not carry the key column {self.target.columns[at].name}; "
                    "the source table needs full before images (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL)"
                )
            if row[at] is None:
                return f"{self.source.qualified}: the key column {self.target.columns[at].name} is null"
        return ""

    def _truncate(self) -> Change | None:
        if self.truncate is OnTruncate.IGNORE:
            return None
        if self.truncate is OnTruncate.APPLY:
            return Change(self.target, Operation.TRUNCATE, None, None)
        msg = f"{self.source.qualified} was truncated"
        raise Stopped(msg)


def projection(taken: Sequence[int], width: int) -> Callable[[Row], Row] | None:
    """Return a function from the source's row to these of its values; None when they are all of them in order.

    A step other than "take column i" will make this a function of its own; the plan does not change.
    """
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
