"""The ends in memory pass the suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdcsync.testing.conformance.samples import HISTORY, ORDERS, insert, update
from cdcsync.testing.conformance.sources import SourceSuite
from cdcsync.testing.memory import MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.ports import Source


class TestMemorySource(SourceSuite):
    @pytest.fixture
    def changes(self) -> int:
        return 9

    @pytest.fixture
    def source(self) -> Callable[[], Source]:
        log = [
            [insert(ORDERS, 1, "a", None)],
            [insert(HISTORY, at, "x") for at in range(7)],
            [update(ORDERS, 1, 1, "b", None)],
        ]
        return lambda: MemorySource(log, part_max=3)
