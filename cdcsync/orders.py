"""Orders to a source that runs: which tables to read beside its log, from any thread to the log's own."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.snapshot import Pending

if TYPE_CHECKING:
    from collections.abc import Sequence


class Order(NamedTuple):
    """One order."""

    action: str
    tables: tuple[str, ...]
    where: str


class Orders:
    """Takes orders from any thread; one thread, the log's, carries them out."""

    def __init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._lock = threading.Lock()
        self._given = 0
        self.taken = 0
        """How many were carried out."""
        self.paused = False
        """Whether no further chunk is to be begun."""

    def __bool__(self) -> bool:
        """Return whether one waits."""
        return bool(self._waiting)

    def give(self, action: str, tables: Sequence[str], where: str) -> int:
        """Note an order; return its number. Raises Fatal for one that is not known."""
        if action in {"pause", "resume"}:
            self.paused = action == "pause"
        elif action not in {"read", "cancel"}:
            msg = f"a snapshot cannot {action}"
            raise Fatal(msg, hint="read, cancel, pause or resume", status=ExitStatus.CONFIG)
        with self._lock:
            self._given += 1
            self._waiting.append(Order(action, tuple(tables), where))
            return self._given

    def obey(self, pending: tuple[Pending, ...]) -> tuple[Pending, ...]:
        """Take all that waits; return what is to be read then."""
        while self._waiting:
            order = self._waiting.popleft()
            if order.action == "cancel":
                pending = tuple(each for each in pending if order.tables and each.table not in order.tables)
            elif order.action == "read":
                last = max((each.id for each in pending), default=0)
                pending += tuple(
                    Pending(last + number, table, (), where=order.where, first=False)
                    for number, table in enumerate(order.tables, 1)
                )
            self.taken += 1
        return pending
