"""The hand-over between the source's thread and the pipeline's: bounded, ordered, never silent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import Message
from cdcsync.errors import End, Transient
from cdcsync.reader import Limits, Reader
from cdcsync.testing.memory import MemoryPosition, MemorySource

if TYPE_CHECKING:
    from cdcsync.change import Batch


def log(count: int, items: int = 1) -> list[list[Message]]:
    """Return that many transactions."""
    return [[Message("n", b"x", transactional=True)] * items for _ in range(count)]


def started(source: MemorySource, *, changes_max: int = 10_000, alive_s: float = 2) -> Reader:
    """Return a reader that runs."""
    reader = Reader(source, Limits(changes_max=changes_max, poll_s=0.01, alive_s=alive_s))
    reader.start(None, 0)
    return reader


def test_what_came_while_the_last_write_ran_is_merged_up_to_the_bound() -> None:
    reader = started(MemorySource(log(100)), changes_max=10)

    first = reader.take(1)
    time.sleep(0.05)
    second = reader.take(1)

    assert first is not None
    assert second is not None
    assert second.changes == len(second.transactions) == 10
    assert int(second.transactions[0].id) == first.changes
    reader.stop()


def test_a_part_of_a_large_transaction_is_never_merged() -> None:
    source = MemorySource([*log(3), *log(1, items=25), *log(2)], part_max=10)
    reader = started(source)
    time.sleep(0.1)

    batches: list[Batch] = []
    while (batch := reader.take(0.05)) is not None:
        batches.append(batch)

    got = [[(int(each.id), each.part) for each in batch.transactions] for batch in batches]
    assert got == [[(0, 0), (1, 0), (2, 0)], [(3, 0)], [(3, 1)], [(3, 2)], [(4, 0), (5, 0)]]
    reader.stop()


def test_a_full_hand_over_stops_the_polls_and_says_alive() -> None:
    source = MemorySource(log(1000))
    reader = started(source, changes_max=5, alive_s=0.02)

    time.sleep(0.2)

    assert source.alive >= 3
    batch = reader.take(1)
    assert batch is not None
    assert batch.changes <= 5
    reader.stop()


def test_an_error_is_raised_after_the_batches_before_it() -> None:
    class Cut(MemorySource):
        def poll(self, timeout_s: float) -> Batch | None:
            batch = super().poll(timeout_s)
            if batch is None:
                raise Transient(End.SOURCE, "cut")
            return batch

    reader = started(Cut(log(3)))
    time.sleep(0.1)

    batch = reader.take(1)

    assert batch is not None
    assert batch.changes == 3
    with pytest.raises(Transient, match="cut"):
        reader.take(1)
    reader.stop()


def test_the_last_acknowledgement_is_delivered_at_stop() -> None:
    source = MemorySource(log(3))
    reader = started(source)
    reader.take(1)

    reader.acknowledge(MemoryPosition(1, 3))
    reader.stop()

    assert source.acknowledged == ["1:3:0"]


def test_a_reader_that_stopped_starts_again_where_it_is_told() -> None:
    reader = started(MemorySource(log(5)))
    reader.take(1)
    reader.stop()

    reader.start("1:3:0", 1)
    time.sleep(0.1)
    batch = reader.take(1)

    assert batch is not None
    assert [each.id for each in batch.transactions] == ["3", "4"]
    reader.stop()
