"""Tables that are built anew: where changes go, and when both tables change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdcsync.beside import Beside
from cdcsync.change import Batch, Change, Column, Operation, Rebuild, Step, Table, Transaction
from cdcsync.pending import FILL, FILLED, KEPT, Pending
from cdcsync.rebuilding import due, isolated, routed
from cdcsync.snapshot import Cut, Limits, Snapshot, Taken
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cdcsync.snapshot import Chunk, Report

TABLE = Table("", "t", (Column("id", Type(Kind.INTEGER)),), ("id",))
ANEW = Pending(1, "t", ("id",), first=False, stage=FILL, into=("t",))


@dataclass(frozen=True)
class Here:
    """A position."""

    reads: int = 0
    pending: tuple[Pending, ...] = ()
    epoch: int = 1

    def encode(self) -> str:
        return f"{self.reads}"

    def covers(self, other: Here) -> bool:
        return self.reads >= other.reads


class All:
    """A view that sees everything."""

    def sees(self, transaction: Hashable) -> bool:
        return transaction is not None

    def is_behind(self, place: Any) -> bool:
        return place is not None


class AtOnce:
    """Reads each table as one row per chunk, three of them, as soon as it is asked to."""

    def __init__(self) -> None:
        self.said: list[Report] = []

    def begin(self, chunk: Chunk, bytes_max: int) -> None:
        row = int(chunk.after[0]) + 1 if chunk.after else 1
        last = (str(row),) if row < 3 * bytes_max else None
        changes = [Change(TABLE, Operation.READ, None, (row,))]
        self.said += [Cut(chunk.number, last if row < 3 else None), Taken(chunk.number, All(), changes, 8, 0.1)]

    def reports(self) -> list[Report]:
        said, self.said = self.said, []
        return said

    def abandon(self, number: int) -> None:
        self.said = [each for each in self.said if each.number != number]

    def running(self) -> frozenset[Hashable]:
        return frozenset()


def batch(here: Here, *changes: Change) -> Batch:
    """Return a batch of one transaction."""
    return Batch((Transaction("1", 0, here, 1, changes, range(len(changes))),), here, len(changes), 0)


def places(mapped: Batch) -> list[str]:
    """Return where the changes go."""
    return [item.table.name for each in mapped.transactions for item in each.items if isinstance(item, Change)]


INSERT = Change(TABLE, Operation.INSERT, None, (1,))
READ = Change(TABLE, Operation.READ, None, (2,))


def test_what_is_read_goes_into_the_new_table_and_the_log_into_both() -> None:
    for stage in (FILL, FILLED):
        here = Here(1, (Pending(1, "t", (), stage=stage, into=("t",)),))
        assert places(routed(batch(here, INSERT, READ))) == ["t", "t__cdcsync_new", "t__cdcsync_new"]
    kept = Here(1, (Pending(1, "t", (), stage=KEPT, into=("t",)),))
    assert places(routed(batch(kept, INSERT, READ))) == ["t", "t__cdcsync_old", "t", "t__cdcsync_old"]
    lacking = Here(1, (Pending(1, "t", (), stage=FILL, into=("t",), only=True),))
    assert places(routed(batch(lacking, INSERT, READ))) == ["t__cdcsync_new", "t__cdcsync_new"]


def test_changes_of_a_table_that_failed_are_left_out() -> None:
    here = Here(1, (Pending(1, "t", (), stage="failed", error="no"),))
    other = INSERT._replace(table=Table("", "u", TABLE.columns, ("id",)))

    assert places(isolated(batch(here, INSERT, other))) == ["u"]


def test_tables_change_places_when_all_are_full_and_only_then() -> None:
    full = Pending(1, "t", (), stage=FILLED, into=("t",))
    waiting = Pending(2, "u", (), stage=FILL, into=("u",))

    assert due(Here(5, (full, waiting)))[1] == []
    here, steps = due(Here(5, (full, Pending(2, "u", (), stage=FILLED, into=("u",)))))

    assert [each.rebuild for each in steps] == [Rebuild(Step.SWAP, ("t", "u"))]
    assert [each.stage for each in here.pending] == [KEPT, KEPT]
    assert due(here)[1] == []


def test_a_table_that_is_read_after_the_swap_brings_no_second_one() -> None:
    limits = Limits(workers=1)
    other = Pending(2, "u", ("id",), first=False)
    snapshot = Snapshot([ANEW, other], AtOnce(), limits=limits, clock=lambda: 0.0)
    beside = Beside(snapshot, close=lambda: None, version=lambda _low: 1, rows={})
    here = Here(0, (ANEW, other))
    steps = []
    for _ in range(30):
        batches, here = beside.batches(here, 1)
        steps += [each.rebuild for each in batches if each.rebuild is not None]
        beside.stored(here)

    assert steps == [Rebuild(Step.SWAP, ("t",))]
    assert [(each.table, each.stage) for each in here.pending] == [("t", KEPT)]
