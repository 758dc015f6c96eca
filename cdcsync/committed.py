"""How far a sink has come that commits the position with its rows: what is committed, and the transaction that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.change import CopyStart
from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from cdcsync.change import Batch, Position, Transaction
    from cdcsync.ports import Stored


class Committed:
    """What one opened sink knows of its own commits. A large transaction stays open until its last part."""

    def __init__(self) -> None:
        self._last: Position | None = None
        self._stored = ""
        self._within: tuple[str, int] | None = None
        """The large transaction that is open and the part that comes next."""

    def begin(self, stored: Stored | None) -> None:
        """The sink was opened: what is stored is committed, and nothing is open."""
        self._last = None
        self._stored = stored.position if stored else ""
        self._within = None

    @property
    def is_within(self) -> bool:
        """Whether a large transaction is open."""
        return self._within is not None

    def covers(self, batch: Batch) -> bool:
        """Return whether the batch is committed already; a copy that begins never is."""
        if self._last is not None:
            covered = self._last.covers(batch.position)
        else:
            covered = bool(self._stored) and batch.position.encode() == self._stored
        return covered and not any(isinstance(item, CopyStart) for each in batch.transactions for item in each.items)

    def is_cut_short_by(self, batch: Batch) -> bool:
        """Return whether a large transaction is open that this batch does not go on with: it has to be undone."""
        large = _large(batch)
        return self._within is not None and (large is None or self._within != (large.id, large.part))

    def wrote(self, batch: Batch) -> bool:
        """Note what is written; return whether it is whole, so that it is to be committed."""
        large = _large(batch)
        self._within = None if large is None or large.last else (large.id, large.part + 1)
        return self._within is None

    def left(self) -> None:
        """No transaction is open any more."""
        self._within = None

    def done(self, position: Position) -> None:
        """Note that all up to a position is committed."""
        self._last = position
        self._within = None


def is_whole(batch: Batch) -> bool:
    """Return whether a transaction ends with the batch."""
    large = _large(batch)
    return large is None or large.last


def _large(batch: Batch) -> Transaction | None:
    """Return the one transaction of a batch, of which it may be a part."""
    return batch.transactions[0] if len(batch.transactions) == 1 else None


class Reached:
    """What a process knows to be stored, or perhaps stored when a commit's answer was lost."""

    def __init__(self) -> None:
        self._encoded: set[str] | None = None

    def expect(self, encoded: str) -> None:
        """Note that a commit of this position is under way."""
        if self._encoded is not None:
            self._encoded.add(encoded)

    def reach(self, encoded: str) -> None:
        """Note that this position is committed."""
        self._encoded = {encoded}

    def found(self, stored: Stored | None, pipeline: str, replica: str) -> None:
        """Note what the store has. Raises Fatal when it is behind what it had; `replica` is the server's word."""
        encoded = stored.position if stored else ""
        if self._encoded is not None and encoded not in self._encoded:
            msg = f"the target of pipeline {pipeline} has lost what it had committed"
            raise Fatal(
                msg,
                hint=f"a {replica} that lagged was promoted, or a backup was restored: go back to the stored position "
                f"with `cdcsync positions set {pipeline}` if the source still has it, else forget it "
                f"with `cdcsync positions clear {pipeline}` and copy everything again",
            )
        self._encoded = {encoded}
