"""What is read beside PostgreSQL's log: planned from the catalogue, in the order that the section wants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cdcsync.beside import Beside
from cdcsync.change import pack_version
from cdcsync.chunks import ChunkThreads
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.pending import Pending
from cdcsync.ports import Wanted
from cdcsync.postgres import chunks
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.snapshot import Chunks, running
from cdcsync.postgres.types import is_built_in
from cdcsync.snapshot import Limits, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Table
    from cdcsync.postgres.chunks import Part
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.position import PostgresPosition
    from cdcsync.postgres.publication import Published


def shown(connection: Connection, published: Sequence[Published]) -> list[tuple[Published, Table]]:
    """Return the tables as the log shows them."""
    types = Catalogue(connection).types(
        {column.type for each in published for column in each.columns if not is_built_in(column.type)}
    )
    return [(each, each.table(types)) for each in published]


def plans(connection: Connection, tables: Sequence[tuple[Published, Table]]) -> dict[str, Part]:
    """Return how each table with a key is read, by its name."""
    return {
        table.qualified: chunks.plan(connection, published, table)
        for published, table in tables
        if published.wanted is Wanted.KEYED
    }


def first(parts: Mapping[str, Part], config: PostgresSource) -> tuple[Pending, ...]:
    """Return the first copy of these tables, in the order to read them. Raises Fatal for a name that is none of them."""
    unknown = sorted({*config.snapshot_order, *config.snapshot_where} - set(parts))
    if unknown:
        msg = f"`snapshot_order` and `snapshot_where` name what is not copied by key: {', '.join(unknown)}"
        raise Fatal(msg, hint=f"name some of: {', '.join(sorted(parts))}", status=ExitStatus.CONFIG)
    names = dict.fromkeys([*config.snapshot_order, *parts])
    return tuple(
        Pending(number, name, parts[name].cutter.by, where=config.snapshot_where.get(name, ""))
        for number, name in enumerate(names, 1)
    )


def reading(
    config: PostgresSource,
    connection: Connection,
    parts: Mapping[str, Part],
    place: PostgresPosition,
    *,
    name: str,
    clock: Callable[[], float],
) -> Beside:
    """Go on with what is pending at `place`; the log is at hand from there on. Raises Transient and Fatal."""
    pending = [
        renewed(each, parts[each.table]) if each.is_read else each
        for each in place.pending
        if not each.is_read or each.table in parts
    ]
    reader = ChunkThreads(Chunks(config, name, parts), config.snapshot_parallel, lambda: running(connection, idle=True))
    limits = Limits(
        workers=config.snapshot_parallel,
        chunk_s=config.snapshot_chunk.total_seconds(),
        rows_per_s_max=config.rows_per_s_max,
        isolate=config.on_table_error == "isolate",
    )
    # A table that joined had writers before it was published: they have to end, however long they idle.
    unproven = running(connection, idle=not all(each.first for each in pending))
    return Beside(
        Snapshot(pending, reader, limits=limits, clock=clock, unproven=unproven),
        close=reader.close,
        version=lambda low: pack_version(place.epoch, max(0, low - 1)),
        rows={each: part.rows for each, part in parts.items()},
    )


def renewed(pending: Pending, part: Part) -> Pending:
    """Return what is pending, from the beginning when the table is cut by something else now."""
    return pending if pending.by == part.cutter.by else replace(pending, by=part.cutter.by, after=None, rows=0)
