"""The beginning of a pipeline with tables whose rows cannot be told apart: they are copied before the log is read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.change import Batch, Change, CopyStart, Operation, Transaction, pack_version
from cdcsync.errors import End
from cdcsync.mysql.chunks import check
from cdcsync.mysql.connection import quoted
from cdcsync.mysql.errors import MysqlError, verdict
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.search import Search
from cdcsync.mysql.select import SelectedRows, expressions
from cdcsync.mysql.view import opened_exactly, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.ports import SourceContext

CHANGES_MAX: Final = 2_000
SIZE_BYTES_MAX: Final = 4 << 20
WAITING: Final = Batch((), MysqlPosition(0, "", "", 0), 0, 0)
"""Given while the position that all begins with is not acknowledged; never leaves the source."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What such a beginning stands on."""

    config: MysqlSource
    context: SourceContext
    connect: Callable[[], Connection]
    keyed: Sequence[Table]
    """Tables that are copied later, while the log is read."""
    bare: Sequence[Table]
    is_stored: Callable[[MysqlPosition], bool]
    """Whether a position was acknowledged."""
    start: Callable[[MysqlPosition], None]
    """Streams from a position."""


class _Some(NamedTuple):
    changes: list[Change]
    size_bytes: int


def beginning(ground: Ground, place: MysqlPosition, *, again: bool) -> Generator[Batch, None, None]:
    """Announce the copy; when that is stored copy the rows of tables without a key, then stream from where their view is.

    The view is one, and stays open while they are copied; the log of these tables begins exactly behind it. `place`
    has what is pending then.
    """
    begun = replace(place, file="", offset=0, gtids=None, pending=(), copying=0)
    yield announced([*ground.keyed, *ground.bare], begun, again=again)
    while not ground.is_stored(begun):
        yield WAITING
    held: _Some | None = None
    count = 0
    with ground.connect() as connection:
        try:
            names = [(table.schema, table.name) for table in ground.bare]
            found = opened_exactly(connection, Search(connection, ground.config, ground.context), names)
        except MysqlError as error:
            raise verdict(error, End.SOURCE, "opening a view for the tables without a key") from error
        after = replace(place, file=found.file, offset=found.offset, gtids=found.gtids)
        version = pack_version(place.epoch, place_of(found.file, found.offset) - 1)
        for table in ground.bare:
            for some in _read(connection, ground.config, table):
                if held is not None:
                    count += 1
                    yield _copied(held, replace(begun, copying=count), version, count)
                held = some
    ground.start(after)
    yield Batch((), after, 0, 0) if held is None else _copied(held, after, version, count + 1)


def announced(tables: Iterable[Table], place: MysqlPosition, *, again: bool) -> Batch:
    """Return what a first copy begins with: its targets have to be empty, or are cleared when it is begun again."""
    items = [CopyStart(table, again) for table in tables]
    transaction = Transaction("copy", time.time_ns() // 1000, place, 0, items, range(len(items)))
    return Batch((transaction,), place, len(items), 0)


def _read(connection: Connection, config: MysqlSource, table: Table) -> Iterator[_Some]:
    """Give a table's rows by one cursor; memory holds one batch."""
    doing = f"copying table {table.qualified}"
    row = SelectedRows(table, config.zero_dates).row
    query = f"SELECT {', '.join(expressions(table))} FROM {quoted(table.schema, table.name)}"  # noqa: S608  quoted
    changes: list[Change] = []
    size_bytes = 0
    try:
        check(connection, table)
        for answer in connection.each(query):
            changes.append(Change(table, Operation.READ, None, row(answer)))
            size_bytes += 16 + sum(len(value) for value in answer if isinstance(value, str | bytes))
            if len(changes) >= CHANGES_MAX or size_bytes >= SIZE_BYTES_MAX:
                yield _Some(changes, size_bytes)
                changes, size_bytes = [], 0
    except MysqlError as error:
        raise verdict(error, End.SOURCE, doing) from error
    if changes:
        yield _Some(changes, size_bytes)


def _copied(some: _Some, position: MysqlPosition, version: int, count: int) -> Batch:
    at_us = time.time_ns() // 1000
    changes = some.changes
    transaction = Transaction(f"copy:{count}", at_us, position, version, changes, range(len(changes)))
    return Batch((transaction,), position, len(changes), some.size_bytes)
