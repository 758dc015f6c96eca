"""A stretch of a log in memory: what lies within bounds, whole transactions, and an end that is acknowledged."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import Change, Column, Operation, Table
from cdcsync.errors import Fatal
from cdcsync.pipeline import Pipeline, Policy
from cdcsync.spool import BLOCK, Spool
from cdcsync.stretch import Bounds, Stretch
from cdcsync.testing.memory import MemoryDatabase, MemoryPosition, MemorySink, MemorySource, Unmapped
from cdcsync.types import Kind, Type
from cdcsync.units import is_moment, moment

if TYPE_CHECKING:
    from pathlib import Path

TABLE = Table("shop", "orders", (Column("id", Type(Kind.INTEGER, bits=64)),), ("id",))


def log(*sizes: int) -> MemorySource:
    """Return a log of transactions of so many rows, in parts of two; the commit time is the index."""
    rows = iter(range(10_000))
    made = [[Change(TABLE, Operation.INSERT, None, (next(rows),)) for _ in range(size)] for size in sizes]
    return MemorySource(made, part_max=2)


def given(source: MemorySource, bounds: Bounds, start: str | None = None) -> list[tuple[str, int]]:
    """Return the transactions of a stretch, each with its number of rows, as parts come."""
    stretch = Stretch(source, bounds, MemoryPosition.decode)
    stretch.open(start, 0)
    found: list[tuple[str, int]] = []
    for _ in range(100):
        batch = stretch.poll(0.01)
        if batch is not None:
            found += [(part.id, len(part.items)) for part in batch.transactions]
            if stretch.ended_at(batch.position):
                break
    else:
        pytest.fail("the stretch never ended")
    stretch.close()
    return found


def at(index: int, part: int = 0, epoch: int = 1) -> MemoryPosition:
    """Return a position."""
    return MemoryPosition(epoch, index, part)


def test_a_stretch_holds_what_lies_between_two_places() -> None:
    source = log(1, 1, 1, 1, 1)

    assert given(source, Bounds(at(1), at(3))) == [("1", 1), ("2", 1)]
    assert given(source, Bounds(at(0), at(5))) == [(str(index), 1) for index in range(5)]
    assert given(source, Bounds(at(2), at(2))) == []
    assert given(source, Bounds(at(3), at(1))) == []


def test_the_end_is_a_place_whatever_epoch_it_was_named_in() -> None:
    source = log(1, 1, 1, 1)

    assert given(source, Bounds(at(1, epoch=7), at(3, epoch=0))) == [("1", 1), ("2", 1)]


def test_a_stretch_ends_before_the_first_transaction_of_a_time() -> None:
    source = log(1, 1, 1, 1)

    assert given(source, Bounds(at(0), until_us=2)) == [("0", 1), ("1", 1)]
    assert given(source, Bounds(at(2), until_us=2)) == []


def test_a_large_transaction_is_wanted_as_a_whole_or_not_at_all() -> None:
    source = log(1, 5, 1)

    assert given(source, Bounds(at(0), at(2))) == [("0", 1), ("1", 2), ("1", 2), ("1", 1)]
    assert given(source, Bounds(at(0), at(1))) == [("0", 1)]
    assert given(source, Bounds(at(1, 1), until_us=1), start=at(1, 1).encode()) == [("1", 2), ("1", 1)]


def test_a_pipeline_over_a_stretch_ends_by_itself_once_all_is_durable() -> None:
    database, over = MemoryDatabase(), threading.Event()

    def end() -> None:
        over.set()
        pipeline.stop()

    source = Stretch(log(1, 3, 1, 1), Bounds(at(1), at(3)), MemoryPosition.decode, end)
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=Policy(heartbeat_s=0.0))
    pipeline.run()

    assert over.is_set()
    assert sorted(database.rows["shop.orders"]) == [(1,), (2,), (3,), (4,)]
    assert database.stored[""].position == at(3).encode()


def test_a_stretch_that_was_cut_goes_on_and_ends_where_it_would_have() -> None:
    source = log(1, 1, 1, 1, 1)

    assert given(source, Bounds(at(1), at(4)), start=at(3).encode()) == [("3", 1)]
    assert given(source, Bounds(at(1), at(4)), start=at(4).encode()) == []


def test_what_is_put_aside_comes_back_from_the_last_to_the_first() -> None:
    dice = random.Random(7)
    sizes = [0, 1, BLOCK - 8, BLOCK, BLOCK + 1, 3 * BLOCK, *(dice.randrange(3000) for _ in range(3000))]
    dice.shuffle(sizes)
    texts = [index.to_bytes(4, "big") + bytes(size) for index, size in enumerate(sizes)]

    with Spool() as spool:
        for text in texts:
            spool.put(text)
        got = list(spool.backwards())

    assert got == texts[::-1]


def test_nothing_put_aside_is_nothing_back() -> None:
    with Spool() as spool:
        assert list(spool.backwards()) == []


def test_a_folder_that_takes_no_temporary_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))

    with pytest.raises(Fatal, match="none") as caught:
        Spool()

    assert "TMPDIR" in caught.value.hint


def test_a_time_without_a_zone_is_utc() -> None:
    wanted = 1_795_514_400_000_000

    for text in ("2026-11-24T10:00:00Z", "2026-11-24 10:00", "2026-11-24T11:00:00+01:00"):
        assert is_moment(text)
        assert moment(text) == wanted
    assert [is_moment(text) for text in ("16/B374D848", "2026-11-24T", "mysql-bin.000003:4", "2026-11-2")] == [
        False
    ] * 4
    with pytest.raises(ValueError, match="not a time"):
        moment("2026-13-45")
