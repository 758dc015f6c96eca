"""Reads differing rows again until each agrees, is proved to differ, or patience ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cdcsync.verify.result import Difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cdcsync.change import Row

SAMPLES_MAX: Final = 64
"""Values of one hot source row remembered while it settles."""
STABLE_ROUNDS: Final = 3
PAUSE_S: Final = 0.05


class Rows(Protocol):
    """What settling needs of the two ends."""

    def agree(self, source: Row | None, held: Row | None) -> bool:
        """Return whether a row of the source, mapped, and one of the target are the same."""
        ...

    def now(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the source, mapped."""
        ...

    def held(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the target."""
        ...

    def stored(self) -> str:
        """Return the stored position; empty when there is none."""
        ...


class Settled(NamedTuple):
    """A key that does not agree, in its last state."""

    key: Row
    source: Row | None
    held: Row | None
    moves: bool
    """It was still moving, or the pipeline still on its way to it, when patience ended."""


class _Suspect:
    """What is known of one differing key while it settles."""

    def __init__(self) -> None:
        self.samples: deque[Row | None] = deque(maxlen=SAMPLES_MAX)
        """Values at the source, oldest first."""
        self.held: Row | None = None
        self.moves = False
        """A value moved between two rounds, at either end."""
        self._end: Callable[[str], bool] | None = None
        self._rounds = 0

    def sample(self, row: Row | None, end: Callable[[str], bool]) -> None:
        """Take the source's value and the log's end after it; when the value moved, the proof begins again."""
        if self._end is None or self.samples[-1] != row:
            self.moves = self._end is not None
            self._end = end
            self._rounds = 0
            self.samples.append(row)

    def hold(self, row: Row | None, *, first: bool) -> None:
        """Take the target's value."""
        self.moves = self.moves or (not first and row != self.held)
        self.held = row

    def is_proved(self, stored: str) -> bool:
        """Return whether the value stood still, in several rounds, while the target passed it."""
        if self._end is None or not self._end(stored):
            return False
        self._rounds += 1
        return self._rounds >= STABLE_ROUNDS


class Settling:
    """One round after another over keys that differed.

    A row agrees when both ends are the same now, or when the target's equals any value that the source had since
    the log's end was noted and all before that end is applied: hot rows never stand still long enough for one pair
    of reads. It differs when the source's value stood still since before an end that the target has passed, or,
    at the end of patience, when neither its values nor the stored position have moved at all.
    """

    def __init__(self, rows: Rows, end: Callable[[], Callable[[str], bool]], patience_s: float) -> None:
        self._rows = rows
        self._end = end
        self._patience_s = patience_s
        self._waiting = threading.Event()
        self.passed = True
        """False once patience ended before the stored position had passed the log's end."""

    def settle(self, keys: Iterable[Row]) -> Iterator[Settled]:
        """Give those that do not agree."""
        passed = self._end()
        left = {key: _Suspect() for key in keys}
        until = time.monotonic() + self._patience_s
        began_at: str | None = None
        while left:
            stored = self._look(left, first=began_at is None)
            began_at = stored if began_at is None else began_at
            has_passed = bool(stored) and passed(stored)
            late = time.monotonic() > until
            self.passed = self.passed and (has_passed or not late)
            on_its_way = not has_passed and stored != began_at
            for key, suspect in list(left.items()):
                if self._agrees(suspect, has_passed=has_passed):
                    del left[key]
                elif has_passed and suspect.is_proved(stored):
                    del left[key]
                    yield Settled(key, suspect.samples[-1], suspect.held, moves=False)
                elif late:
                    del left[key]
                    yield Settled(key, suspect.samples[-1], suspect.held, moves=suspect.moves or on_its_way)
            if left:
                self._waiting.wait(PAUSE_S / 10 if has_passed else PAUSE_S)

    def wait(self) -> None:
        """Return once the stored position has passed the log's end as it is now, or patience ended."""
        passed = self._end()
        until = time.monotonic() + self._patience_s
        while not ((stored := self._rows.stored()) and passed(stored)):
            if time.monotonic() > until:
                self.passed = False
                return
            self._waiting.wait(PAUSE_S)

    def _look(self, left: dict[Row, _Suspect], *, first: bool) -> str:
        """Read all once more: the source, its log's end, the stored position, the target."""
        sources = self._rows.now(left)
        end = self._end()
        for key, suspect in left.items():
            suspect.sample(sources.get(key), end)
        stored = self._rows.stored()
        held = self._rows.held(left)
        for key, suspect in left.items():
            suspect.hold(held.get(key), first=first)
        return stored

    def _agrees(self, suspect: _Suspect, *, has_passed: bool) -> bool:
        if self._rows.agree(suspect.samples[-1], suspect.held):
            return True
        return has_passed and any(self._rows.agree(sample, suspect.held) for sample in suspect.samples)


def described(settled: Settled, named: dict[str, object], columns: Iterable[str]) -> Difference:
    """Return the difference, for people."""
    if settled.moves:
        return Difference(named, "unsettled", tuple(columns))
    if settled.source is None:
        return Difference(named, "extra")
    if settled.held is None:
        return Difference(named, "missing")
    return Difference(named, "different", tuple(columns))
