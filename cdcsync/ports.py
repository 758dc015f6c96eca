"""The ports: what a system implements to be an end of a pipeline. At most four methods each."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cdcsync.evolution import Follows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Batch, Position, Row, Step, Table, Transaction


class Guarantee(enum.StrEnum):
    """What a sink promises; docs and the conformance suite are generated from this word."""

    EXACTLY_ONCE = "exactly-once"
    """The position is committed with the rows."""
    IDEMPOTENT = "idempotent"
    """A change may be written again; the state ends the same."""
    AT_LEAST_ONCE = "at-least-once"
    """After a failure some changes may be seen twice."""


class Source(Protocol):
    """Reads a log. One thread calls all four."""

    def open(self, start: str | None, epoch: int) -> None:
        """Connect and stand at `start`, an encoded position, or by the configuration when None.

        `epoch` is the highest that store and sink know (0: none); the source raises it when its own
        identity has changed or nothing was stored. Raises Transient and Fatal.
        """
        ...

    def poll(self, timeout_s: float) -> Batch | None:
        """Return what came within `timeout_s`, without waiting for more; None when nothing did."""
        ...

    def acknowledge(self, position: Position | None) -> None:
        """Tell the server that all before `position` is durable; None only says "alive". Never blocks long."""
        ...

    def close(self) -> None:
        """Send the last acknowledgement and disconnect. Never raises; may be called twice."""
        ...


class Sink(Protocol):
    """Writes batches. Writing one twice equals writing it once, unless the guarantee is at-least-once."""

    guarantee: Guarantee

    def open(self) -> int | None:
        """Connect, create or check the targets; return the highest epoch stored there.

        0 means that the target does not know this pipeline, None that this sink cannot keep an epoch.
        Raises Transient and Fatal.
        """
        ...

    def write(self, batch: Batch) -> Position | None:
        """Write; return the newest position that is durable now. Raises Transient, Rejected, Fatal."""
        ...

    def flush(self) -> Position | None:
        """Make durable what is written, but no incomplete transaction; return as `write` does."""
        ...

    def close(self) -> None:
        """Undo what is not committed and disconnect. Never raises; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A position as a store gives it back."""

    position: str
    epoch: int


class PositionStore(Protocol):
    """Keeps one lane's position, under a lock and a fence. `save` is durable on return."""

    def open(self, lane: str) -> None:
        """Take the lock, and the next fence the first time; later only check that the fence is still ours.

        Raises Fatal with OWNERSHIP, naming the holder, when another process has it.
        """
        ...

    def load(self) -> Stored | None:
        """Return what is stored, None when nothing is. Raises Fatal with OWNERSHIP when the fence is no longer ours."""
        ...

    def save(self, position: Position) -> None:
        """Store on condition of the fence. Raises Fatal with OWNERSHIP when the fence is no longer ours.

        A no-op where the sink committed the position with the rows.
        """
        ...

    def close(self) -> None:
        """Release the lock. Never raises; may be called twice."""
        ...


class Keeper(Protocol):
    """A sink that commits the position with the rows offers its store."""

    def positions(self) -> PositionStore:
        """Return the one store that shares the sink's fence."""
        ...


class Arriving(Protocol):
    """A sink that has several batches under way at once offers this: its `write` returns what is durable of them."""

    def arrived(self) -> Position | None:
        """Wait for all that was given; return as `write` does. The pipeline asks when nothing more has come."""
        ...


class Rebuilder(Protocol):
    """A sink that can build tables anew beside those that are there offers this; see `rebuilding` for the names.

    While one is built, its changes are written for the table NAME + `rebuilding.NEW` too, and after the swap for
    NAME + `rebuilding.OLD`, as for any other table.
    """

    def rebuild(self, step: Step, tables: Sequence[Table], position: Position) -> Position:
        """Do one step for all these targets together, and return when it is durable.

        All that was given before is durable; nothing more is written before this returns. A kill before the position
        is stored repeats the step: one that was done already then does nothing. Raises Transient and Fatal.

        - begin: drop what another rebuild has left, make an empty table NEW like the one that is there;
        - swap: the table that is there becomes OLD, NEW becomes the one that is there: readers see one or the other;
        - back: OLD becomes the one that is there again, the one that was is dropped;
        - end: drop NEW and OLD, as far as they are there.
        """
        ...


class Transform(Protocol):
    """Turns source tables into target tables. Pure."""

    def apply(self, batch: Batch) -> Batch:
        """Return the mapped batch: all its transactions, in order, with the items that are left.

        Raises Rejected (by indexes of the batch given) and Fatal.
        """
        ...

    def tables(self, tables: Sequence[Table]) -> list[Table]:
        """Return the target tables of these source tables. Raises Fatal naming every clash."""
        ...


class Wanted(enum.Enum):
    """How a pipeline wants a source table."""

    KEYED = "keyed"
    APPENDED = "appended"
    """Insert-only: `key: none` in the mapping."""


class Rereader(Protocol):
    """A source that can read rows by key, beside its log, offers this; the pipeline's main thread calls it."""

    def reread(self, table: Table, keys: Sequence[Row], transactions: Sequence[Transaction]) -> list[Row]:
        """Return the rows of these keys as they are when all of these transactions are visible; later is as good.

        A key that has no row then is left out. Raises Transient and Fatal.
        """
        ...


class Beside(Protocol):
    """A source that reads rows beside its log offers what is shown of that."""

    def figures(self) -> dict[str, Any]:
        """Return the figures by name, as JSON can carry them; empty when nothing is read. Any thread may ask."""
        ...


class Selection(Protocol):
    """Which source tables a pipeline's mapping names."""

    def wants(self, schema: str, name: str) -> Wanted | None:
        """Return how the table is wanted, None when it is not."""
        ...


class Group(Protocol):
    """Shares a source's lanes among the processes of a pipeline. One thread calls all four."""

    def join(self, gained: Callable[[Sequence[str]], None], lost: Callable[[Sequence[str]], None]) -> None:
        """Become a member: `poll` calls `gained` with lanes that are ours now, and `lost` with those that are to go.

        Another process has them once `lost` has returned. Raises Transient and Fatal.
        """
        ...

    def poll(self, timeout_s: float) -> None:
        """Stay a member, at least every few seconds. Raises Transient and Fatal."""
        ...

    def source(self, lane: str) -> Source:
        """Return a new source of that lane alone."""
        ...

    def leave(self) -> None:
        """Give all lanes back, calling nothing. Never raises; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source learns about its pipeline."""

    pipeline: str
    selection: Selection
    state: Path
    """The state directory."""
    sink: str = ""
    """The sink's identity where it is known, as `SinkSpec.identity` gives it: two pipelines in a circle are refused."""


def stays(_table: Table) -> Follows:
    """Say of every target that a change stops the pipeline."""
    return Follows()


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink or a store learns about its pipeline."""

    pipeline: str
    state: Path
    tables: tuple[Table, ...] = ()
    """The mapped tables known at start; more may come with the stream."""
    source: str = ""
    """The source's identity (PostgreSQL: `postgres:SYSTEM_IDENTIFIER/DATABASE`), kept beside the position."""
    moves: bool = False
    """Whether that identity is another after a failover: then the source alone judges whose a position is."""
    follows: Callable[[Table], Follows] = stays
    """How a target table follows its source table's changes; a sink that cannot alter targets does not ask."""
    lane: str = ""
    """Whose position a store is asked for beside the pipeline; a pipeline itself says it by `PositionStore.open`."""
    shared: bool = False
    """A group has given the lane to this process: who still holds its lock has lost it, and is put out."""
