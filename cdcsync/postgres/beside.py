"""Rows that are read beside the log: planned from the catalogue, and given as batches between those of the log."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import Batch, Transaction, pack_version
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.ports import Wanted
from cdcsync.postgres import chunks
from cdcsync.postgres.snapshot import Chunks, running
from cdcsync.snapshot import Limits, Pending, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Change, Table
    from cdcsync.postgres.chunks import Part
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.position import PostgresPosition
    from cdcsync.postgres.publication import Published
    from cdcsync.snapshot import Merged

CHANGES_MAX: Final = 2_000
"""Rows of one batch."""


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


class Beside:
    """What is pending, read in chunks; one thread, the log's, calls all methods but `figures`."""

    def __init__(
        self,
        config: PostgresSource,
        connection: Connection,
        parts: Mapping[str, Part],
        place: PostgresPosition,
        *,
        name: str,
        clock: Callable[[], float],
    ) -> None:
        """Go on with what is pending at `place`; the log is at hand from there on. Raises Transient and Fatal."""
        self._parts = parts
        self._epoch = place.epoch
        pending = [renewed(each, parts[each.table]) for each in place.pending if each.table in parts]
        self._reader = Chunks(config, name, parts, connection)
        limits = Limits(
            workers=config.snapshot_parallel,
            chunk_s=config.snapshot_chunk.total_seconds(),
            rows_per_s_max=config.rows_per_s_max,
        )
        # A table that joined had writers before it was published: they have to end, however long they idle.
        unproven = running(connection, idle=not all(each.first for each in pending))
        self._snapshot = Snapshot(pending, self._reader, limits=limits, clock=clock, unproven=unproven)
        self.began = self._snapshot.began
        self.note = self._snapshot.note

    @property
    def done(self) -> bool:
        """Whether nothing is left to read."""
        return self._snapshot.done

    @property
    def waits(self) -> bool:
        """Whether chunks are being read, or wait for the log."""
        return self._snapshot.flying > 0

    def stored(self, position: PostgresPosition) -> None:
        """Note what is durable."""
        self._snapshot.stored(position.reads)

    def batches(self, here: PostgresPosition, reached_lsn: int) -> list[Batch]:
        """Return the rows to deliver now, all of the log up to `reached_lsn` being delivered."""
        batches: list[Batch] = []
        for merged in self._snapshot.turn(reached_lsn):
            batches += self._batches(merged, batches[-1].position if batches else here)  # type: ignore[arg-type]
            if merged.changes:
                self._snapshot.delivered(batches[-1].position.reads)  # type: ignore[attr-defined]
        return batches

    def close(self) -> None:
        """End all reading. Never raises."""
        self._reader.close()

    def figures(self) -> dict[str, Any]:
        """Return what is shown of it."""
        figures, pending = self._snapshot.figures, self._snapshot.pending
        return {
            "tables_left": [each.table for each in pending],
            "rows": figures.rows,
            "rows_left": sum(max(0, self._parts[each.table].rows - each.rows) for each in pending),
            "chunks": figures.chunks,
            "chunks_again": figures.again,
            "stale_rows": figures.stale,
            "held_by": figures.held_by,
        }

    def _batches(self, merged: Merged, here: PostgresPosition) -> list[Batch]:
        """Cut a chunk into batches; the last one's position has the chunk behind it."""
        version = pack_version(self._epoch, max(0, merged.low - 1))
        starts = range(0, max(1, len(merged.changes)), CHANGES_MAX)
        size_bytes = merged.size_bytes // len(starts)
        batches = []
        for start in starts:
            here = replace(here, reads=here.reads + 1)
            if start == starts[-1]:
                here = replace(here, pending=merged.pending)
            batches.append(_batch(merged.changes[start : start + CHANGES_MAX], here, version, size_bytes))
        return batches


def renewed(pending: Pending, part: Part) -> Pending:
    """Return what is pending, from the beginning when the table is cut by something else now."""
    return pending if pending.by == part.cutter.by else replace(pending, by=part.cutter.by, after=None, rows=0)


def _batch(changes: Sequence[Change], position: PostgresPosition, version: int, size_bytes: int) -> Batch:
    if not changes:
        return Batch((), position, 0, 0)
    at_us = time.time_ns() // 1000
    transaction = Transaction(f"read:{position.reads}", at_us, position, version, changes, range(len(changes)))
    return Batch((transaction,), position, len(changes), size_bytes)
