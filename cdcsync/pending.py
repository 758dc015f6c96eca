"""What is still to be read beside a log, as a position carries it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Row

FILL: Final = "fill"
"""Its rows are read into the new table."""
FILLED: Final = "filled"
"""The new table has all rows: it takes the other's place before anything more of the log is written."""
KEPT: Final = "kept"
"""The new table has taken the other's place, which is kept current beside it."""
FAILED: Final = "failed"
"""Its rows could not be read: it is left alone, and its changes of the log with it, until it is built anew."""
_READ: Final = frozenset({"", FILL})

Key: TypeAlias = "tuple[str, ...]"
"""Values of the columns by which a table is cut, as the server writes and reads them."""


def written_keys(keys: Iterable[Row]) -> list[list[Any]]:
    """Return keys as JSON can carry them; bytes by their base64, within a list of their own."""
    return [[[b64encode(value).decode()] if isinstance(value, bytes) else value for value in key] for key in keys]


def read_keys(given: Iterable[Sequence[Any]]) -> tuple[Row, ...]:
    """Return the keys of that."""
    return tuple(tuple(b64decode(value[0]) if isinstance(value, list) else value for value in key) for key in given)


@dataclass(frozen=True, slots=True)
class Pending:
    """One table, or a part of it, that is still to be read. A value: it is stored in the position."""

    id: int
    table: str
    """`schema.name`."""
    by: tuple[str, ...]
    """By what it is cut into chunks; as the system says."""
    after: Key | None = None
    """The last key that was merged."""
    rows: int = 0
    """Merged so far."""
    where: str = ""
    """Only these rows, in the server's SQL."""
    first: bool = True
    """Part of the first copy."""
    stage: str = ""
    """Of a table that is built anew at the target: one of those below."""
    into: tuple[str, ...] = ()
    """Qualified names of the targets that are built anew."""
    error: str = ""
    """Of a table that failed."""
    only: bool = False
    """The target that is there is not kept current: it lacks rows."""

    keys: tuple[Row, ...] = ()
    """Only the rows of these keys; one that is not there is a delete."""
    gone: bool = False
    """Of these keys only those that are not there."""

    @property
    def is_read(self) -> bool:
        """Whether rows are still to be read."""
        return self.stage in _READ

    def encode(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON can carry it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        usual = {each.name: each.default for each in fields(self)}
        given = {name: value for name, value in values.items() if value != usual[name]}
        return {**given, "keys": written_keys(self.keys)} if self.keys else given

    @classmethod
    def decode(cls, given: dict[str, Any]) -> Pending:
        """Return the pending table of that; raises TypeError and KeyError."""
        after = given.get("after")
        into = tuple(given.get("into", ()))
        words = {**given, "by": tuple(given["by"]), "after": None if after is None else tuple(after), "into": into}
        return cls(**{**words, "keys": read_keys(given.get("keys", ()))})


class Place(Protocol):
    """A source's position, with what is still to be read; a frozen dataclass."""

    @property
    def reads(self) -> int:
        """How many batches of rows were read; only rises."""
        ...

    @property
    def pending(self) -> tuple[Pending, ...]:
        """What is left."""
        ...
