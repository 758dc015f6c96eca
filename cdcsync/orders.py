"""Orders to a source that runs: which tables to read beside its log, from any thread to the log's own."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from cdcsync.change import Batch, Rebuild, Step
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.pending import Pending, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Position


P = TypeVar("P", bound=Place)


class Order(NamedTuple):
    """One order."""

    action: str
    tables: tuple[str, ...]
    where: str
    pending: tuple[Pending, ...]
    """What is to be read, where that is more than tables."""


class Orders:
    """Takes orders from any thread; one thread, the log's, carries them out."""

    def __init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._lock = threading.Lock()
        self._given = 0
        self._taken = 0
        self.taken = 0
        """How many were carried out."""
        self.paused = False
        """Whether no further chunk is to be begun."""

    def __bool__(self) -> bool:
        """Return whether one waits."""
        return bool(self._waiting)

    def give(self, action: str, tables: Sequence[str], where: str, pending: Sequence[Pending] = ()) -> int:
        """Note an order; return its number. Raises Fatal for one that is not known."""
        if action in {"pause", "resume"}:
            self.paused = action == "pause"
        elif action not in {"read", "cancel", *Step}:
            msg = f"a snapshot cannot {action}"
            raise Fatal(msg, hint="read, cancel, pause or resume", status=ExitStatus.CONFIG)
        with self._lock:
            self._given += 1
            self._waiting.append(Order(action, tuple(tables), where, tuple(pending)))
            return self._given

    def obey(self, here: P) -> tuple[P, list[Batch]]:
        """Take all that waits; return the position with what is to be read then, and batches that say so, in order."""
        batches = []
        while self._waiting:
            order = self._waiting.popleft()
            pending = _after(order, here.pending)
            if pending != here.pending:
                rebuild = Rebuild(Step(order.action), order.tables) if order.action in set(Step) else None
                here = replace(here, reads=here.reads + 1, pending=pending)  # type: ignore[type-var]
                batches.append(Batch((), cast("Position", here), 0, 0, rebuild=rebuild))
            self._taken += 1
        return here, batches

    def carried_out(self) -> None:
        """Let it be seen that what was taken is under way."""
        self.taken = self._taken


def _after(order: Order, pending: tuple[Pending, ...]) -> tuple[Pending, ...]:
    """Return what is pending after an order."""
    if order.action == "cancel":
        return tuple(each for each in pending if not each.is_read or (order.tables and each.table not in order.tables))
    if order.action in {Step.BACK, Step.END}:
        return tuple(each for each in pending if not each.into)
    more = order.pending or tuple(Pending(0, table, (), where=order.where, first=False) for table in order.tables)
    if order.action == Step.BEGIN:
        anew = {each.table for each in more}
        pending = tuple(each for each in pending if not each.into and each.table not in anew)
    elif order.action != "read":
        return pending
    last = max((each.id for each in pending), default=0)
    return pending + tuple(replace(each, id=last + number) for number, each in enumerate(more, 1))
