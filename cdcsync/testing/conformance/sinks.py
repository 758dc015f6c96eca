"""What holds for every sink that keeps rows; those that promise more are asked for more, by their `guarantee`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import UNCHANGED, Batch, Change, Column, CopyStart, Operation, Table
from cdcsync.errors import ExitStatus, Fatal, Rejected, Transient
from cdcsync.ports import Guarantee
from cdcsync.testing.conformance.samples import (
    HISTORY,
    INTEGER,
    KINDS,
    ODD,
    ORDERS,
    batch,
    delete,
    insert,
    read,
    truncate,
    update,
)
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Row
    from cdcsync.ports import PositionStore, Sink
    from cdcsync.types import Type


@dataclass(frozen=True)
class Target:
    """One empty target, as the suite uses it."""

    make: Callable[[Path, Sequence[Table]], tuple[Sink, PositionStore]]
    """A new sink over the target and the store that goes with it, of one pipeline; by state directory and tables."""
    rows: Callable[[Table], list[Row]]
    """All rows of a target table that others can see, as neutral values, in any order."""
    usurp: Callable[[], None] | None = None
    """Where the lock is the target's own and not the machine's: what breaks it."""
    refuses: Callable[[Type, Any], bool] = lambda _kind, _value: False
    """Whether the target has no exact form for a value: such a row is rejected, never changed."""
    signs_zero: bool = True
    """Whether the target tells -0.0 from 0.0, which SQL's equality does not."""


def opened(target: Target, state: Path, *tables: Table) -> tuple[Sink, PositionStore]:
    """Return a sink and its store, opened in a pipeline's order."""
    sink, store = target.make(state, tables)
    store.open("")
    sink.open()
    return sink, store


def closed(sink: Sink, store: PositionStore) -> None:
    """Close both, twice."""
    for _ in range(2):
        sink.close()
        store.close()


def delivered(sink: Sink, store: PositionStore, *batches: Batch) -> None:
    """Write, and save what is durable, as a pipeline does."""
    for each in batches:
        durable = sink.write(each) or sink.flush()
        if durable is not None:
            store.save(durable)


def text_of(rows: list[Row]) -> list[str]:
    """Return rows in one order, in a form in which NaN equals itself and -0.0 is not 0.0."""
    return sorted(map(repr, rows))


LAST = 2
"""The last part of the transaction in parts."""


class SinkSuite:
    """Subclass it, and give `target`: a fixture that returns a `Target` over an empty database."""

    def run(self, target: Target, state: Path, tables: Sequence[Table], *batches: Batch) -> None:
        """Deliver with a sink of its own."""
        sink, store = opened(target, state, *tables)
        delivered(sink, store, *batches)
        closed(sink, store)

    def test_changes_arrive(self, target: Target, tmp_path: Path) -> None:
        """Inserts, updates and deletes."""
        first = batch(0, insert(ORDERS, 1, "new", "a"), insert(ORDERS, 2, "new", None))
        second = batch(1, update(ORDERS, 1, 1, "paid", "b"), delete(ORDERS, 2), insert(ORDERS, 3, "new", "c"))

        self.run(target, tmp_path, [ORDERS], first, second)

        assert text_of(target.rows(ORDERS)) == text_of([(1, "paid", "b"), (3, "new", "c")])

    def test_a_batch_written_twice_equals_once(self, target: Target, tmp_path: Path) -> None:
        """In one process, and by the next one."""
        again = batch(
            0, insert(ORDERS, 1, "a", None), update(ORDERS, 1, 2, "b", UNCHANGED), insert(ORDERS, 1, "c", "x")
        )

        self.run(target, tmp_path, [ORDERS], again, again)
        self.run(target, tmp_path, [ORDERS], again)

        assert text_of(target.rows(ORDERS)) == text_of([(1, "c", "x"), (2, "b", None)])

    def test_the_position_survives_a_close_without_flush(self, target: Target, tmp_path: Path) -> None:
        """What `write` called durable is there."""
        sink, store = opened(target, tmp_path, ORDERS)
        durable = sink.write(batch(0, insert(ORDERS, 1, "a", None)))
        if durable is not None:
            store.save(durable)
        closed(sink, store)

        sink, store = opened(target, tmp_path, ORDERS)
        stored = store.load()
        closed(sink, store)

        assert (stored is not None) == (durable is not None)
        assert len(target.rows(ORDERS)) == (durable is not None)

    def test_a_key_that_moves_leaves_no_ghost(self, target: Target, tmp_path: Path) -> None:
        """With the values that the log did not carry."""
        move = [update(ORDERS, 1, 2, UNCHANGED, "moved"), update(ORDERS, 2, 3, UNCHANGED, UNCHANGED)]

        self.run(target, tmp_path, [ORDERS], batch(0, insert(ORDERS, 1, "kept", "a")), batch(1, *move))

        assert target.rows(ORDERS) == [(3, "kept", "moved")]

    def test_rows_that_exchange_their_keys_do(self, target: Target, tmp_path: Path) -> None:
        """By a third key, as a source with a primary key has to."""
        rows = batch(0, insert(ORDERS, 1, "one", "x"), insert(ORDERS, 2, "two", "y"))
        swap = [update(ORDERS, a, b, UNCHANGED, UNCHANGED) for a, b in ((1, 9), (2, 1), (9, 2))]

        self.run(target, tmp_path, [ORDERS], rows, batch(1, *swap))

        assert text_of(target.rows(ORDERS)) == text_of([(2, "one", "x"), (1, "two", "y")])

    def test_a_value_that_was_not_logged_is_kept(self, target: Target, tmp_path: Path) -> None:
        """From the target, and from an earlier change of the batch."""
        rows = batch(0, insert(ORDERS, 1, "a", "toast"), insert(ORDERS, 2, "a", "toast"))
        changes = [update(ORDERS, 1, 1, "b", UNCHANGED), update(ORDERS, 2, 2, UNCHANGED, "new")]
        changes.append(update(ORDERS, 2, 2, "c", UNCHANGED))

        self.run(target, tmp_path, [ORDERS], rows, batch(1, *changes))

        assert text_of(target.rows(ORDERS)) == text_of([(1, "b", "toast"), (2, "c", "new")])

    def test_a_row_deleted_and_inserted_again_is_there(self, target: Target, tmp_path: Path) -> None:
        """Whole batches first, then within one."""
        again = [delete(ORDERS, 1), insert(ORDERS, 1, "b", "2")]

        self.run(target, tmp_path, [ORDERS], batch(0, insert(ORDERS, 1, "a", "1")), batch(1, *again))

        assert target.rows(ORDERS) == [(1, "b", "2")]

    def test_truncate_stands_in_its_place(self, target: Target, tmp_path: Path) -> None:
        """What came before it goes, what comes after stays."""
        changes = [insert(ORDERS, 1, "a", None), truncate(ORDERS), insert(ORDERS, 2, "b", None)]

        self.run(target, tmp_path, [ORDERS], batch(0, insert(ORDERS, 9, "z", None)), batch(1, *changes))

        assert target.rows(ORDERS) == [(2, "b", None)]

    def test_a_first_copy_needs_an_empty_target(self, target: Target, tmp_path: Path) -> None:
        """Rows that are not ours are never overwritten."""
        self.run(target, tmp_path, [ORDERS], batch(0, insert(ORDERS, 1, "theirs", None)))
        sink, store = opened(target, tmp_path, ORDERS)

        with pytest.raises(Fatal, match="not empty"):
            sink.write(batch(1, CopyStart(ORDERS, again=False)))

        closed(sink, store)
        assert target.rows(ORDERS) == [(1, "theirs", None)]

    def test_a_copy_begun_again_clears_what_the_first_left(self, target: Target, tmp_path: Path) -> None:
        """And takes the rows anew."""
        first = [
            batch(0, CopyStart(ORDERS, again=False)),
            batch(1, read(ORDERS, 1, "a", None), read(ORDERS, 2, "a", None)),
        ]
        second = [batch(2, CopyStart(ORDERS, again=True)), batch(3, read(ORDERS, 2, "b", None))]

        self.run(target, tmp_path, [ORDERS], *first)
        self.run(target, tmp_path, [ORDERS], *second)

        assert target.rows(ORDERS) == [(2, "b", None)]

    def test_a_copy_begun_again_by_one_process_is_no_old_batch(self, target: Target, tmp_path: Path) -> None:
        """The source was away: the sink was not closed, and the copy's positions count from the start again."""
        first = [batch(0, CopyStart(ORDERS, again=False)), batch(1, read(ORDERS, 1, "a", None))]
        second = [
            batch(0, CopyStart(ORDERS, again=True)),
            batch(1, read(ORDERS, 2, "b", None)),
            batch(2, read(ORDERS, 3, "c", None)),
        ]

        self.run(target, tmp_path, [ORDERS], *first, *second)

        assert text_of(target.rows(ORDERS)) == text_of([(2, "b", None), (3, "c", None)])

    def test_names_are_never_taken_for_sql(self, target: Target, tmp_path: Path) -> None:
        """Quotes and semicolons in names of tables and columns."""
        changes = [insert(ODD, 1, "a"), update(ODD, 1, 2, UNCHANGED), update(ODD, 2, 2, "b")]

        self.run(target, tmp_path, [ODD, ORDERS], batch(0, *changes))

        assert target.rows(ODD) == [(2, "b")]

    @pytest.mark.parametrize(("kind", "values"), KINDS, ids=[f"{kind.kind}-{at}" for at, (kind, _) in enumerate(KINDS)])
    def test_values_are_kept_to_the_byte(
        self, target: Target, tmp_path: Path, kind: Type, values: tuple[Any, ...]
    ) -> None:
        """Every kind at its edges, and null; what the target cannot hold as it is, is rejected by row."""
        table = Table("", "sample", (Column("id", INTEGER, nullable=False), Column("value", kind)), ("id",))
        rows = list(enumerate([*values, None]))
        wrong = {at for at, value in rows if value is not None and target.refuses(kind, value)}
        sink, store = opened(target, tmp_path, table)

        if wrong:
            with pytest.raises(Rejected) as caught:
                sink.write(batch(0, *[insert(table, *row) for row in rows]))
            assert {at for _, at in caught.value.reasons} == wrong
        kept = [row for row in rows if row[0] not in wrong]
        delivered(sink, store, batch(0, *[insert(table, *row) for row in kept]))
        closed(sink, store)

        if kind.kind is Kind.FLOAT and not target.signs_zero:
            kept = [(at, None if value is None else value + 0.0) for at, value in kept]
        assert text_of(target.rows(table)) == text_of(kept)

    def test_the_epoch_is_kept(self, target: Target, tmp_path: Path) -> None:
        """`open` returns the highest one written."""
        sink, store = opened(target, tmp_path, ORDERS)
        delivered(sink, store, batch(0, insert(ORDERS, 1, "a", None), epoch=5))
        closed(sink, store)
        sink, store = target.make(tmp_path, [ORDERS])
        store.open("")

        assert sink.open() in {5, None}
        closed(sink, store)


class ExactlyOnceSuite(SinkSuite):
    """For a sink whose guarantee is exactly-once."""

    def test_the_guarantee_is_exactly_once(self, target: Target, tmp_path: Path) -> None:
        """As declared."""
        sink, _ = target.make(tmp_path, [ORDERS])

        assert sink.guarantee is Guarantee.EXACTLY_ONCE

    def test_rows_without_a_key_are_appended_once(self, target: Target, tmp_path: Path) -> None:
        """Also when the batch comes again in the next process."""
        rows = batch(0, insert(HISTORY, 1, "x"), insert(HISTORY, 1, "x"))

        self.run(target, tmp_path, [HISTORY], rows, rows)
        self.run(target, tmp_path, [HISTORY], rows)

        assert target.rows(HISTORY) == [(1, "x"), (1, "x")]

    def test_a_transaction_in_parts_begun_again_is_not_doubled(self, target: Target, tmp_path: Path) -> None:
        """The source was away in the middle of it; the sink was not closed."""
        parts = [batch(0, insert(HISTORY, at, "a"), part=at, last=at == 1) for at in range(2)]
        sink, store = opened(target, tmp_path, HISTORY)

        sink.write(parts[0])
        delivered(sink, store, *parts)
        closed(sink, store)

        assert text_of(target.rows(HISTORY)) == text_of([(0, "a"), (1, "a")])

    def test_an_empty_batch_moves_the_position(self, target: Target, tmp_path: Path) -> None:
        """As a heartbeat does."""
        place = batch(4).position

        self.run(target, tmp_path, [ORDERS], Batch((), place, 0, 0))

        sink, store = opened(target, tmp_path, ORDERS)
        stored = store.load()
        closed(sink, store)
        assert stored is not None
        assert stored.position == place.encode()

    def test_a_fenced_predecessor_writes_nothing(self, target: Target, tmp_path: Path) -> None:
        """A process that slept while another took over."""
        old, old_store = opened(target, tmp_path / "a", ORDERS)
        delivered(old, old_store, batch(0, insert(ORDERS, 1, "a", None)))
        if target.usurp is not None:
            target.usurp()
        new, new_store = opened(target, tmp_path / "b", ORDERS)

        with pytest.raises((Fatal, Transient)) as caught:
            old.write(batch(1, insert(ORDERS, 2, "late", None)))
        if isinstance(caught.value, Transient):
            with pytest.raises(Fatal) as caught:
                old_store.open("")
        closed(old, old_store)
        delivered(new, new_store, batch(1, insert(ORDERS, 2, "in time", None)))
        closed(new, new_store)

        assert isinstance(caught.value, Fatal)
        assert caught.value.status is ExitStatus.OWNERSHIP
        assert text_of(target.rows(ORDERS)) == text_of([(1, "a", None), (2, "in time", None)])


class TransactionalSuite(ExactlyOnceSuite):
    """For an exactly-once sink that keeps rows, in transactions of its own."""

    def test_an_incomplete_row_that_nothing_completes_is_rejected(self, target: Target, tmp_path: Path) -> None:
        """All such rows are named, and nothing of the batch is written."""
        sink, store = opened(target, tmp_path, ORDERS)
        lost = [
            update(ORDERS, 7, 7, "b", UNCHANGED),
            insert(ORDERS, 1, "a", None),
            update(ORDERS, 8, 8, UNCHANGED, "c"),
        ]

        with pytest.raises(Rejected) as caught:
            sink.write(batch(0, *lost))

        assert set(caught.value.reasons) == {(0, 0), (0, 2)}
        assert target.rows(ORDERS) == []
        delivered(sink, store, batch(0, lost[1]))
        closed(sink, store)
        assert target.rows(ORDERS) == [(1, "a", None)]

    def test_an_update_of_a_table_without_a_key_is_rejected(self, target: Target, tmp_path: Path) -> None:
        """It is only appended to."""
        sink, store = opened(target, tmp_path, HISTORY)

        with pytest.raises(Rejected):
            sink.write(batch(0, Change(HISTORY, Operation.UPDATE, (1, "x"), (2, "x"))))

        closed(sink, store)

    def test_a_transaction_in_parts_is_seen_when_it_is_complete(self, target: Target, tmp_path: Path) -> None:
        """Neither `write` of a part nor `flush` shows it early; a close undoes it."""
        parts = [batch(0, insert(ORDERS, at, "a", None), part=at, last=at == LAST) for at in range(LAST + 1)]
        sink, store = opened(target, tmp_path, ORDERS)
        assert sink.write(parts[0]) is None
        assert sink.flush() is None
        assert target.rows(ORDERS) == []
        closed(sink, store)

        sink, store = opened(target, tmp_path, ORDERS)
        assert store.load() is None
        assert [sink.write(each) for each in parts] == [None, None, parts[2].position]
        closed(sink, store)
        assert len(target.rows(ORDERS)) == len(parts)

    def test_a_rejected_part_leaves_the_parts_before_it(self, target: Target, tmp_path: Path) -> None:
        """It is undone alone and may come again without the row."""
        sink, store = opened(target, tmp_path, ORDERS)
        sink.write(batch(0, insert(ORDERS, 1, "a", None), part=0, last=False))

        with pytest.raises(Rejected):
            sink.write(batch(0, insert(ORDERS, 2, "b", None), update(ORDERS, 9, 9, "c", UNCHANGED), part=1))
        delivered(sink, store, batch(0, insert(ORDERS, 2, "b", None), part=1))
        closed(sink, store)

        assert text_of(target.rows(ORDERS)) == text_of([(1, "a", None), (2, "b", None)])
