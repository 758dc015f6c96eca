"""What is read beside a binlog: planned from the catalogue, in the order that the section wants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cdcsync.beside import Beside
from cdcsync.change import pack_version
from cdcsync.chunks import ChunkThreads
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql.snapshot import Chunks
from cdcsync.mysql.view import Point, place_of
from cdcsync.pending import Pending
from cdcsync.snapshot import Limits, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from cdcsync.addresses import Host
    from cdcsync.mysql.chunks import Part
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.position import MysqlPosition
    from cdcsync.ports import Selection


def first(parts: Mapping[str, Part], config: MysqlSource) -> tuple[Pending, ...]:
    """Return the first copy of these tables, in the order to read them. Raises Fatal for a name that is none of them."""
    unknown = sorted({*config.snapshot_order, *config.snapshot_where} - set(parts))
    if unknown:
        msg = f"`snapshot_order` and `snapshot_where` name what is not copied by key: {', '.join(unknown)}"
        raise Fatal(msg, hint=f"name some of: {', '.join(sorted(parts))}", status=ExitStatus.CONFIG)
    names = dict.fromkeys([*config.snapshot_order, *parts])
    return tuple(
        Pending(number, name, parts[name].by, where=config.snapshot_where.get(name, ""))
        for number, name in enumerate(names, 1)
    )


def reading(
    config: MysqlSource,
    address: Host,
    parts: Mapping[str, Part],
    place: MysqlPosition,
    *,
    name: str,
    clock: Callable[[], float],
) -> Beside:
    """Go on with what is pending at `place`."""
    pending = [
        renewed(each, parts[each.table]) if each.is_read else each
        for each in place.pending
        if not each.is_read or each.table in parts
    ]
    reader = ChunkThreads(Chunks(config, address, name, parts), config.snapshot_parallel)
    limits = Limits(
        workers=config.snapshot_parallel,
        chunk_s=config.snapshot_chunk.total_seconds(),
        rows_per_s_max=config.rows_per_s_max,
        isolate=config.on_table_error == "isolate",
    )
    return Beside(
        Snapshot(pending, reader, limits=limits, clock=clock, by_place=True),
        close=reader.close,
        version=lambda low: pack_version(place.epoch, max(0, low.at - 1)),
        rows={each: part.rows for each, part in parts.items()},
    )


def refuse_unseen(pending: Iterable[Pending], seen: Collection[str], selection: Selection) -> None:
    """Raise Fatal for tables of the mapping that are to be read and that this user does not see any more."""
    unseen = sorted(
        {
            each.table
            for each in pending
            if each.is_read and each.table not in seen and selection.wants(*each.table.split(".", 1)) is not None
        }
    )
    if unseen:
        msg = f"rows are still to be read of {', '.join(unseen)}, and this user does not see it: a right was lost, or it was dropped"
        hint = "GRANT SELECT ON it to this user, or take it out of the mapping"
        raise Fatal(msg, hint=hint, status=ExitStatus.PERMISSION)


def renewed(pending: Pending, part: Part) -> Pending:
    """Return what is pending, from the beginning when the table has another key now."""
    return pending if pending.by == part.by else replace(pending, by=part.by, after=None, rows=0)


def reached(here: MysqlPosition) -> Point:
    """Return how far the log was given."""
    return Point(place_of(here.file, here.offset), here.gtids)
