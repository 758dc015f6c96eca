"""The nouns: what moves through a pipeline."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, TypeAlias, TypeVar, dataclass_transform

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.types import Type

_Class = TypeVar("_Class")

EPOCH_BITS: Final = 10
PLACE_BITS: Final = 53


@dataclass_transform(frozen_default=True)
def value(cls: type[_Class]) -> type[_Class]:
    """Make a class the dataclass of a value that there is one of per transaction.

    Frozen for the type checker alone: one that is frozen as it runs takes six times as long to make.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


class _Unchanged(enum.Enum):
    """A one-member enum, so that the marker pickles, copies and compares as itself."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = _Unchanged.UNCHANGED
"""A value that the log did not carry; never None, which is SQL NULL."""

Value: TypeAlias = Any
"""None, UNCHANGED, or the Python form that `types.Kind` names."""
Row: TypeAlias = tuple[Value, ...]
"""Values in the order of `Table.columns`."""


class Operation(enum.StrEnum):
    """What happened to a row, or to a table."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"
    READ = "read"
    """The row was read from the table, not from the log; a sink takes it as an upsert."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table version."""

    name: str
    type: Type
    nullable: bool = True
    """A hint from the catalogue."""
    generated: bool = False
    """A hint from the catalogue: the server computes it."""
    initial: Value = field(default=None, compare=False)
    """A hint from the catalogue: what rows have that were there before the column; None too where nobody knows."""


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a table, as the log shows it."""

    schema: str
    """The PostgreSQL schema or the MySQL database; empty where the system has none."""
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    """Names of the key columns, in key order; empty when the table has no key."""
    message_key: tuple[str, ...] = ()
    """Names of the columns that are no part of the row but the key of its message, for sinks that send messages:
    `_message_key` alone where it is one text, else `_message_key.FIELD` for each field."""
    at: dict[str, int] = field(init=False, repr=False, compare=False)
    """Index of each column by name."""
    key_at: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Indexes of the key columns."""
    message_key_at: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Indexes of the columns of the message's key."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive the indexes."""
        at = {column.name: index for index, column in enumerate(self.columns)}
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "key_at", tuple(at[name] for name in self.key))
        object.__setattr__(self, "message_key_at", tuple(at[name] for name in self.message_key))
        object.__setattr__(self, "_hash", hash((self.schema, self.name, self.columns, self.key)))

    def __hash__(self) -> int:
        """Return the hash computed once: tables are keys of the sinks' plans."""
        return self._hash

    @property
    def qualified(self) -> str:
        """`schema.name`, or the name alone."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


class Change(NamedTuple):
    """One row changed, or one table truncated (both rows None)."""

    table: Table
    operation: Operation
    before: Row | None
    """The row before; None only for an insert, a read or a truncate. Values not logged are UNCHANGED."""
    after: Row | None
    """The row after; None only for a delete or a truncate."""


class SchemaChange(NamedTuple):
    """A new table version, in its place among the changes."""

    old: Table | None
    new: Table | None
    statement: str | None
    """The DDL statement where the log carries it."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Old and new names of columns that the statement says were renamed."""


class Message(NamedTuple):
    """A logical message that the application wrote into the log (pg_logical_emit_message)."""

    prefix: str
    content: bytes
    transactional: bool


class CopyStart(NamedTuple):
    """The first copy of a table begins: its target has to be empty, or is cleared when begun `again`."""

    table: Table
    again: bool
    """An earlier attempt was interrupted: its rows are in the target and have to go."""


class Unreadable(NamedTuple):
    """What a source was given and cannot read as a change; no mapping takes it: it is rejected."""

    table: Table
    """What it was to be a change of, as far as that can be told."""
    reason: str
    """What is wrong with it and where it lies, without its values."""
    raw: bytes
    """All of it, as JSON."""


Item: TypeAlias = Change | SchemaChange | Message | CopyStart | Unreadable


class Position(Protocol):
    """Names the next thing to read. Opaque outside its source."""

    @property
    def epoch(self) -> int:
        """The epoch that versions after this position have."""
        ...

    def encode(self) -> str:
        """Return the text that is stored; the source's `open` takes it back."""
        ...

    def covers(self, other: Self) -> bool:
        """Return whether all before `other` lies before this position too."""
        ...


def in_epoch(position: Any, epoch: int) -> Any:
    """Return the same place in that epoch; a position that is no dataclass has none to change."""
    return replace(position, epoch=epoch) if is_dataclass(position) and not isinstance(position, type) else position


@value
class Transaction:
    """One committed transaction, or a part of a large one, in commit order."""

    id: str
    commit_time_us: int
    """Microseconds since 1970-01-01 UTC."""
    position: Position
    """Where to go on after this transaction (or part)."""
    version: int
    """See `pack_version`; follows commit order, shared by all changes of the transaction."""
    items: Sequence[Item]
    ordinals: Sequence[int]
    """For each item the ordinal of the raw change in its whole transaction, counted before any filter."""
    part: int = 0
    """0 for the first or only part."""
    last: bool = True
    """Whether the transaction ends with this part."""


class Step(enum.StrEnum):
    """One step of building a target's tables anew; see `ports.Rebuilder`."""

    BEGIN = "begin"
    SWAP = "swap"
    BACK = "back"
    END = "end"


class Rebuild(NamedTuple):
    """A step that the target takes between two transactions."""

    step: Step
    tables: tuple[str, ...]
    """Qualified names of the targets."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole transactions in commit order, or one part of a large one; of one lane."""

    transactions: Sequence[Transaction]
    position: Position
    """Safe to resume from once all of the batch is durable."""
    changes: int
    """Number of items in all transactions."""
    size_bytes: int
    """Size in the log, for bounds."""
    lane: str = ""
    rebuild: Rebuild | None = None
    """What the target does before anything that follows; such a batch is empty, and never merged with others."""


def pack_version(epoch: int, place: int) -> int:
    """Return the version: 10 bits of epoch above 53 bits of place in the log (PostgreSQL: the final LSN).

    Raises Fatal when either does not fit.
    """
    if not (0 <= epoch < 1 << EPOCH_BITS and 0 <= place < 1 << PLACE_BITS):
        msg = f"version overflow: epoch {epoch}, place {place}"
        raise Fatal(msg, hint="the target must be filled anew under a new pipeline name")
    return epoch << PLACE_BITS | place


def place_of(version: int) -> int:
    """Return the place in the log of a version, its epoch left out."""
    return version & (1 << PLACE_BITS) - 1


def is_complete(row: Row) -> bool:
    """Return whether the log carried every value of the row."""
    return not any(value is UNCHANGED for value in row)


def key_of(table: Table, row: Row) -> Row:
    """Return the key values of a row."""
    return tuple(row[index] for index in table.key_at)
