"""The beginning of a pipeline, and of tables that join it: what is stored before the log is read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import Batch, CopyStart, Transaction, pack_version
from cdcsync.errors import Fatal, Finished
from cdcsync.pending import Pending
from cdcsync.ports import Wanted
from cdcsync.postgres import publication, slot
from cdcsync.postgres.beside import first, plans
from cdcsync.postgres.connection import connect
from cdcsync.postgres.copy import Copy
from cdcsync.postgres.position import PostgresPosition

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from cdcsync.change import Table
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.copy import Chunk
    from cdcsync.postgres.publication import Publications, Published

WAITING: Final = Batch((), PostgresPosition(0, "", 0, 0, ""), 0, 0)
"""Given while the position that all begins with is not acknowledged; never leaves the source."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a beginning stands on."""

    config: PostgresSource
    replication: Connection
    plain: Connection
    slot: str
    name: str
    """Of the application, for the server."""
    tables: Sequence[tuple[Published, Table]]
    is_stored: Callable[[PostgresPosition], bool]
    """Whether a position was acknowledged."""
    start: Callable[[PostgresPosition], None]
    """Streams from a position."""


def beginning(ground: Ground, place: PostgresPosition, *, again: bool) -> Generator[Batch, None, None]:
    """Announce the copy; when that is stored make the slot, and stream from its place with all tables pending.

    Rows without a key cannot be told apart: the log's would come twice or not at all beside them. They are copied
    first, from the one snapshot that the slot exports.
    """
    pending = first(plans(ground.plain, ground.tables), ground.config)
    begun = replace(place, copying=0)
    yield alone("copy", begun, 0, [CopyStart(table, again) for _, table in ground.tables])
    while not ground.is_stored(begun):
        yield WAITING
    keyless = [each for each in ground.tables if each[0].wanted is Wanted.APPENDED]
    failover = ground.config.failover is not False
    created = slot.create(ground.replication, ground.slot, failover=failover, snapshot=bool(keyless))
    after = replace(place, lsn=created.consistent_lsn, pending=pending)
    if not keyless:
        ground.start(after)
        yield Batch((), after, 0, 0)
        return
    if created.snapshot is None:
        msg = f"slot {ground.slot} came without a snapshot"
        raise Fatal(msg, hint="see the server's log")
    version = pack_version(place.epoch, created.consistent_lsn - 1)
    several = len(ground.config.addresses) > 1
    copy = Copy(connect(ground.config, application_name=f"{ground.name} copy", read_write=several), created.snapshot)
    try:
        held: Chunk | None = None
        count = 0
        for published, table in keyless:
            for chunk in copy.read(published, table):
                if held is not None:
                    count += 1
                    yield copied(held, replace(begun, copying=count), version, count)
                held = chunk
    finally:
        copy.close()
    ground.start(after)
    yield Batch((), after, 0, 0) if held is None else copied(held, after, version, count + 1)


def joining(
    plain: Connection,
    publications: Publications,
    place: PostgresPosition,
    is_stored: Callable[[PostgresPosition], bool],
) -> Generator[Batch, None, PostgresPosition]:
    """Let it be stored that rows of new tables are to be read, then publish these; return where to open the log again."""
    known = {each.table for each in place.pending}
    more = [table.qualified for table in publications.joining if table.qualified not in known]
    last = max((each.id for each in place.pending), default=0)
    pending = tuple(Pending(last + number, name, (), first=False) for number, name in enumerate(more, 1))
    if pending:
        place = replace(place, reads=place.reads + 1, pending=place.pending + pending)
        yield Batch((), place, 0, 0)
        while not is_stored(place):
            yield WAITING
    publication.join(plain, publications)
    return place


def finished(replication: Connection, plain: Connection, name: str) -> Finished:
    """End a copy that nothing follows: its slot would keep the log for nobody."""
    replication.close()
    slot.drop_soon(plain, name)
    return Finished("all rows are copied")


def alone(name: str, position: PostgresPosition, version: int, items: list[CopyStart]) -> Batch:
    """Return a batch of what is no row."""
    at_us = time.time_ns() // 1000
    transaction = Transaction(name, at_us, position, version, items, range(len(items)))
    return Batch((transaction,), position, len(items), 0)


def copied(chunk: Chunk, position: PostgresPosition, version: int, count: int) -> Batch:
    """Return a batch of copied rows."""
    at_us = time.time_ns() // 1000
    changes = chunk.changes
    transaction = Transaction(f"copy:{count}", at_us, position, version, changes, range(len(changes)))
    return Batch((transaction,), position, len(changes), chunk.size_bytes)


def iter_one(batch: Batch) -> Generator[Batch, None, None]:
    """Give one batch."""
    yield batch
