"""The assembler: bounds, parts, and resuming inside a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import Change, Operation, SchemaChange, Table
from cdcsync.errors import Fatal
from cdcsync.transaction import Assembler, Resume

if TYPE_CHECKING:
    from cdcsync.change import Batch

TABLE = Table("", "t", ())


@dataclass(frozen=True)
class At:
    """A position: number of transactions, raw changes in the next, checksum of the last."""

    index: int
    delivered: int = 0
    checksum: int = 0
    epoch: int = 1

    def encode(self) -> str:
        return str(self)

    def covers(self, other: At) -> bool:
        return (self.index, self.delivered) >= (other.index, other.delivered)


def feed(assembler: Assembler, index: int, count: int) -> list[Batch]:
    """Give one whole transaction; return what had to be taken on the way."""
    batches = []
    assembler.begin(f"x{index}", index, 0, lambda delivered, checksum: At(index, delivered, checksum))
    for number in range(count):
        while assembler.full:
            batch = assembler.take()
            assert batch is not None
            batches.append(batch)
        assembler.add(Change(TABLE, Operation.INSERT, None, (number,)), b"head" + bytes([number % 256]))
    assembler.commit(At(index + 1))
    return batches


def rest(assembler: Assembler) -> list[Batch]:
    return list(iter(assembler.take, None))


def numbers(batches: list[Batch]) -> list[int]:
    return [
        item.after[0]
        for batch in batches
        for transaction in batch.transactions
        for item in transaction.items
        if isinstance(item, Change) and item.after
    ]


def test_small_transactions_at_hand_become_one_batch() -> None:
    assembler = Assembler()
    for index in range(3):
        feed(assembler, index, 2)

    (batch,) = rest(assembler)

    assert [transaction.id for transaction in batch.transactions] == ["x0", "x1", "x2"]
    assert batch.position == At(3)
    assert batch.changes == 6


def test_a_transaction_of_exactly_the_bound_is_whole() -> None:
    assembler = Assembler(changes_max=10)
    feed(assembler, 0, 10)

    (batch,) = rest(assembler)

    assert (batch.transactions[0].part, batch.transactions[0].last) == (0, True)


def test_a_large_transaction_is_alone_in_its_parts_and_after_what_came_before() -> None:
    assembler = Assembler(changes_max=10)
    feed(assembler, 0, 2)
    batches = feed(assembler, 1, 25) + rest(assembler)

    parts = [(each.transactions[0].id, each.transactions[0].part, each.transactions[0].last) for each in batches]
    assert parts == [("x0", 0, True), ("x1", 0, False), ("x1", 1, False), ("x1", 2, True)]
    assert [len(each.transactions) for each in batches] == [1, 1, 1, 1]
    assert numbers(batches) == [0, 1, *range(25)]


@pytest.mark.parametrize("count", [20, 21, 25, 30])
def test_reading_again_from_any_part_gives_the_rest_once(count: int) -> None:
    whole = Assembler(changes_max=10, raw_at=4)
    batches = feed(whole, 0, count) + rest(whole)
    for done, batch in enumerate(batches[:-1], start=1):
        position = batch.position
        assert isinstance(position, At)
        again = Assembler(changes_max=10, raw_at=4)
        again.resume(Resume("x0", position.delivered, position.checksum))

        got = feed(again, 0, count) + rest(again)

        assert numbers(batches[:done]) + numbers(got) == list(range(count))
        assert got[-1].transactions[0].last
        assert all(each.transactions[0].part > 0 for each in got)


def test_raw_changes_that_nobody_wants_count_too() -> None:
    assembler = Assembler(changes_max=2)
    assembler.begin("x", 0, 0, lambda delivered, checksum: At(0, delivered, checksum))
    for number in range(6):
        assembler.add_all((Change(TABLE, Operation.INSERT, None, (number,)),) if number % 2 else (), b"raw")
    batch = assembler.take()
    assert batch is not None
    assert list(batch.transactions[0].ordinals) == [1, 3]
    assert isinstance(batch.position, At)
    assert batch.position.delivered >= 4


@pytest.mark.parametrize(
    ("resume", "fault"),
    [
        (Resume("x9", 3, 0), "x9 was being delivered"),
        (Resume("x0", 3, 1), "not the one that was delivered"),
        (Resume("x0", 30, 1), "30 were delivered"),
    ],
)
def test_another_history_where_to_resume_is_fatal(resume: Resume, fault: str) -> None:
    assembler = Assembler(changes_max=10)
    assembler.resume(resume)

    with pytest.raises(Fatal, match=fault):
        feed(assembler, 0, 10)


def test_a_transaction_of_nothing_wanted_only_moves_the_position() -> None:
    assembler = Assembler()
    feed(assembler, 0, 0)

    (batch,) = rest(assembler)

    assert (batch.transactions, batch.position) == ((), At(1))


def rows(assembler: Assembler, sizes: list[int], wanted: list[bool]) -> list[Batch]:
    """Give one whole transaction whose events hold that many rows; return its batches."""
    batches = []
    number = 0
    assembler.begin("x0", 0, 0, lambda delivered, checksum: At(0, delivered, checksum))
    for size, is_wanted in zip(sizes, wanted, strict=True):
        raw = b"head" + b"".join(b"%5d" % (number + index) for index in range(size)) + b"crc"
        starts, end = [4 + 5 * index for index in range(size)], 4 + 5 * size
        items = [Change(TABLE, Operation.INSERT, None, (number + index,)) for index in range(size)]
        if is_wanted:
            assembler.add_rows(items, raw, starts, end)
        else:
            assembler.add_unwanted(raw, starts, end)
        number += size
        while assembler.full:
            batch = assembler.take()
            assert batch is not None
            batches.append(batch)
    assembler.commit(At(1))
    return batches + rest(assembler)


@pytest.mark.parametrize("sizes", [[25], [7, 7, 7, 7], [1, 30, 3], [10, 10, 10], [40]])
@pytest.mark.parametrize("unwanted", [None, 0, 1, 2])
def test_events_of_many_rows_are_cut_and_resumed_at_any_row(sizes: list[int], unwanted: int | None) -> None:
    wanted = [index != unwanted for index in range(len(sizes))]
    batches = rows(Assembler(changes_max=10), sizes, wanted)
    want = numbers(batches)
    assert [number for batch in batches for each in batch.transactions for number in each.ordinals] == want
    assert all(batch.changes <= 10 for batch in batches)
    for done, batch in enumerate(batches[:-1], start=1):
        position = batch.position
        assert isinstance(position, At)
        again = Assembler(changes_max=10)
        again.resume(Resume("x0", position.delivered, position.checksum))

        got = rows(again, sizes, wanted)

        assert numbers(batches[:done]) + numbers(got) == want


def test_another_row_where_to_resume_in_an_event_is_fatal() -> None:
    assembler = Assembler(changes_max=10)
    assembler.resume(Resume("x0", 15, 1))

    with pytest.raises(Fatal, match="raw change 15 of transaction x0 is not the one"):
        rows(assembler, [40], [True])


def test_rows_are_taken_back_to_a_savepoint_unless_a_part_has_them() -> None:
    assembler = Assembler(changes_max=3)
    assembler.begin("x0", 0, 0, lambda delivered, checksum: At(0, delivered, checksum))
    mark = assembler.mark()
    assembler.add_rows([Change(TABLE, Operation.INSERT, None, (1,))], b"a", [0], 1)
    assert assembler.undo(mark)
    assembler.add_rows(
        [Change(TABLE, Operation.INSERT, None, (index,)) for index in range(4)], b"abcd", [0, 1, 2, 3], 4
    )
    assert not assembler.undo(mark)
    assembler.commit(At(1))

    batches = rest(assembler)
    assert numbers(batches) == [0, 1, 2, 3]
    assert [number for batch in batches for each in batch.transactions for number in each.ordinals] == [1, 2, 3, 4]


def test_what_is_announced_comes_before_the_next_row() -> None:
    assembler = Assembler()
    assembler.begin("x0", 0, 0, lambda delivered, checksum: At(0, delivered, checksum))
    assembler.announce([SchemaChange(None, TABLE, None)])
    assembler.add_rows([Change(TABLE, Operation.INSERT, None, (1,))], b"a", [0], 1)
    assembler.commit(At(1))

    (batch,) = rest(assembler)
    assert [type(item) for item in batch.transactions[0].items] == [SchemaChange, Change]
    assert list(batch.transactions[0].ordinals) == [0, 0]
