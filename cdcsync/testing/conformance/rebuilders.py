"""What holds for every sink that builds tables anew beside those that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cdcsync.change import Step
from cdcsync.rebuilding import NEW, OLD, beside
from cdcsync.testing.conformance.samples import ORDERS, batch, delete, insert, read
from cdcsync.testing.conformance.sinks import closed, delivered, opened, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from cdcsync.ports import PositionStore, Rebuilder, Sink
    from cdcsync.testing.conformance.sinks import Target

FRESH, FORMER = beside(ORDERS, NEW), beside(ORDERS, OLD)


def taken(sink: Sink, store: PositionStore, step: Step, number: int) -> None:
    """Take a step, and save its position as a pipeline does."""
    store.save(cast("Rebuilder", sink).rebuild(step, [ORDERS], batch(number).position))


class RebuilderSuite:
    """Subclass it beside a suite of sinks, whose `target` it uses."""

    def swapped(self, target: Target, state: Path) -> tuple[Sink, PositionStore]:
        """Return a sink whose new table, of row 1, has taken the place of one of the rows 1 and 2."""
        sink, store = opened(target, state, ORDERS)
        delivered(sink, store, batch(0, insert(ORDERS, 1, "a", None), insert(ORDERS, 2, "b", None)))
        taken(sink, store, Step.BEGIN, 1)
        delivered(sink, store, batch(2, read(FRESH, 1, "new", None)))
        assert text_of(target.rows(ORDERS)) == text_of([(1, "a", None), (2, "b", None)])
        taken(sink, store, Step.SWAP, 3)
        return sink, store

    def test_a_new_table_takes_the_others_place(self, target: Target, tmp_path: Path) -> None:
        """The other is there still, and both are written."""
        sink, store = self.swapped(target, tmp_path)
        delivered(sink, store, batch(4, insert(ORDERS, 3, "c", None), insert(FORMER, 3, "c", None)))
        closed(sink, store)

        assert text_of(target.rows(ORDERS)) == text_of([(1, "new", None), (3, "c", None)])
        assert text_of(target.rows(FORMER)) == text_of([(1, "a", None), (2, "b", None), (3, "c", None)])

    def test_the_former_table_comes_back(self, target: Target, tmp_path: Path) -> None:
        """With what it was given meanwhile; the new one is gone, and another may be begun."""
        sink, store = self.swapped(target, tmp_path)
        delivered(sink, store, batch(4, delete(ORDERS, 1), delete(FORMER, 1)))

        taken(sink, store, Step.BACK, 5)
        delivered(sink, store, batch(6, insert(ORDERS, 4, "d", None)))
        taken(sink, store, Step.BEGIN, 7)
        closed(sink, store)

        assert text_of(target.rows(ORDERS)) == text_of([(2, "b", None), (4, "d", None)])
        assert target.rows(FRESH) == []

    def test_the_end_leaves_one_table(self, target: Target, tmp_path: Path) -> None:
        """After which all can begin again, and ends before the swap too."""
        sink, store = self.swapped(target, tmp_path)
        for number, step in enumerate([Step.END, Step.BEGIN, Step.END, Step.BEGIN, Step.SWAP], 4):
            taken(sink, store, step, number)
        closed(sink, store)

        assert target.rows(ORDERS) == []
        assert text_of(target.rows(FORMER)) == text_of([(1, "new", None)])

    def test_what_an_interrupted_one_has_left_is_dropped(self, target: Target, tmp_path: Path) -> None:
        """A new table begins empty."""
        sink, store = opened(target, tmp_path, ORDERS)
        taken(sink, store, Step.BEGIN, 0)
        delivered(sink, store, batch(1, insert(FRESH, 1, "left", None)))
        taken(sink, store, Step.BEGIN, 2)
        closed(sink, store)

        assert target.rows(FRESH) == []

    def test_a_step_taken_twice_is_taken_once(self, target: Target, tmp_path: Path) -> None:
        """By one process, and by the next, which was killed before it stored the position."""
        sink, store = self.swapped(target, tmp_path)
        taken(sink, store, Step.SWAP, 3)
        closed(sink, store)
        sink, store = opened(target, tmp_path, ORDERS)
        taken(sink, store, Step.SWAP, 3)
        assert text_of(target.rows(ORDERS)) == text_of([(1, "new", None)])

        taken(sink, store, Step.BACK, 4)
        taken(sink, store, Step.BACK, 4)
        closed(sink, store)

        assert text_of(target.rows(ORDERS)) == text_of([(1, "a", None), (2, "b", None)])
