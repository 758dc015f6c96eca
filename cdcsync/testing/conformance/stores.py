"""What holds for every position store."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.ports import Stored
from cdcsync.testing.conformance.samples import position

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdcsync.ports import PositionStore


class StoreSuite:
    """Subclass it, and give `store`: a fixture that returns a function from a state directory to a new store.

    All stores that it makes are of one pipeline and one database.
    """

    def test_nothing_is_stored_at_first(self, store: Callable[[Path], PositionStore], tmp_path: Path) -> None:
        """A new lane has no position."""
        one = store(tmp_path)
        one.open("")

        assert one.load() is None
        one.close()

    def test_what_is_saved_is_loaded_by_the_next(self, store: Callable[[Path], PositionStore], tmp_path: Path) -> None:
        """Position and epoch survive the process."""
        one = store(tmp_path)
        one.open("")
        one.save(position(3, epoch=2))
        one.close()

        other = store(tmp_path)
        other.open("")
        assert other.load() == Stored(position(3, epoch=2).encode(), 2)
        other.close()

    def test_a_lane_that_is_held_is_refused_and_its_holder_named(
        self, store: Callable[[Path], PositionStore], tmp_path: Path
    ) -> None:
        """Two processes never run one lane."""
        one = store(tmp_path)
        one.open("")

        with pytest.raises(Fatal) as caught:
            store(tmp_path).open("")

        assert caught.value.status is ExitStatus.OWNERSHIP
        one.close()

    def test_a_fenced_store_saves_nothing(self, store: Callable[[Path], PositionStore], tmp_path: Path) -> None:
        """A process that another has replaced without its lock changes nothing."""
        old = store(tmp_path / "a")
        old.open("")
        old.save(position(1))
        old.close()
        new = store(tmp_path / "b")
        new.open("")
        new.save(position(2))
        new.close()

        with pytest.raises(Fatal) as caught:
            old.open("")

        assert caught.value.status is ExitStatus.OWNERSHIP
        old.close()
        last = store(tmp_path / "b")
        last.open("")
        assert last.load() == Stored(position(2).encode(), 1)
        last.close()

    def test_a_store_that_was_replaced_while_open_loads_nothing(
        self, store: Callable[[Path], PositionStore], tmp_path: Path
    ) -> None:
        """A process that hung meanwhile learns that it was replaced, not where the other stands.

        A store whose lock keeps the other out has nothing to show here.
        """
        old = store(tmp_path / "a")
        old.open("")
        old.save(position(1))
        new = store(tmp_path / "b")
        with suppress(Fatal):
            new.open("")
            with pytest.raises(Fatal) as caught:
                old.load()
            assert caught.value.status is ExitStatus.OWNERSHIP
        new.close()
        old.close()

    def test_a_store_opens_again_with_its_own_fence(
        self, store: Callable[[Path], PositionStore], tmp_path: Path
    ) -> None:
        """After a Transient the same process goes on."""
        one = store(tmp_path)
        for index in range(3):
            one.open("")
            one.save(position(index))
            one.close()
            one.close()

        one.open("")
        assert one.load() == Stored(position(2).encode(), 1)
        one.close()
