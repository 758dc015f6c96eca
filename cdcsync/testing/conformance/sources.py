"""What holds for every source."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Batch, Item
    from cdcsync.ports import Source

PATIENCE_S = 20.0


def read_all(source: Source, start: str | None, changes: int) -> list[Batch]:
    """Return the batches from `start` until that many items came; fails when they do not come in time."""
    source.open(start, 0)
    found: list[Batch] = []
    until = time.monotonic() + PATIENCE_S
    try:
        while sum(batch.changes for batch in found) < changes:
            assert time.monotonic() < until, "the source does not give all its changes"
            batch = source.poll(0.2)
            if batch is not None:
                found.append(batch)
    finally:
        source.close()
        source.close()
    return found


def items_of(batches: list[Batch]) -> list[Item]:
    """Return all items in order."""
    return [item for batch in batches for each in batch.transactions for item in each.items]


class SourceSuite:
    """Subclass it, and give two fixtures.

    `source` returns a function that makes a new source over one log that does not change. `changes` is the number
    of its items; at least one of its transactions must come in parts, unless `in_parts` says that none ever does.
    """

    in_parts = True
    """Whether a large transaction comes in parts; in some logs every change is a transaction of its own."""

    def test_a_source_resumes_exactly_after_every_position(self, source: Callable[[], Source], changes: int) -> None:
        """Also within a transaction that comes in parts."""
        whole = read_all(source(), None, changes)
        want = items_of(whole)
        parts = any(not each.last for batch in whole for each in batch.transactions)
        assert parts == self.in_parts, "no transaction came in parts" if self.in_parts else "one came in parts"

        done = 0
        for batch in whole:
            done += batch.changes
            got = items_of(read_all(source(), batch.position.encode(), changes - done))
            assert got == want[done:]

    def test_versions_follow_the_order_of_commits(self, source: Callable[[], Source], changes: int) -> None:
        """One version per transaction, rising."""
        seen = [each for batch in read_all(source(), None, changes) for each in batch.transactions]

        versions = [each.version for each in seen]
        assert versions == sorted(versions)
        ids: dict[int, set[str]] = {}
        for each in seen:
            ids.setdefault(each.version, set()).add(each.id)
        assert all(len(same) == 1 for same in ids.values())

    def test_positions_cover_what_lies_before_them(self, source: Callable[[], Source], changes: int) -> None:
        """And not what lies after."""
        places = [batch.position for batch in read_all(source(), None, changes)]

        for earlier, later in itertools.pairwise(places):
            assert later.covers(earlier)
            assert not earlier.covers(later)

    def test_ordinals_count_the_changes_of_a_whole_transaction(
        self, source: Callable[[], Source], changes: int
    ) -> None:
        """Rising through its parts."""
        ordinals: dict[str, list[int]] = {}
        for batch in read_all(source(), None, changes):
            for each in batch.transactions:
                ordinals.setdefault(each.id, []).extend(each.ordinals)

        assert all(each == sorted(set(each)) for each in ordinals.values())

    def test_saying_only_alive_moves_nothing(self, source: Callable[[], Source], changes: int) -> None:
        """`acknowledge(None)` is no acknowledgement."""
        one = source()
        one.open(None, 0)
        one.acknowledge(None)
        one.close()

        assert len(items_of(read_all(source(), None, changes))) == changes
