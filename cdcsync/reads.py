"""Rows that were read, of one table, as changes that are only made when somebody asks for them: a copy has many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, overload

from cdcsync.change import Change, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Row, Table

_READ = Operation.READ


class Reads(Sequence[Change]):
    """READ changes; what knows of them takes `table` and `rows`, which are whole."""

    __slots__ = ("rows", "table")

    def __init__(self, table: Table, rows: Sequence[Row]) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Change: ...

    @overload
    def __getitem__(self, at: slice) -> Reads: ...

    def __getitem__(self, at: int | slice) -> Change | Reads:
        if isinstance(at, slice):
            return Reads(self.table, self.rows[at])
        return Change(self.table, _READ, None, self.rows[at])

    def __iter__(self) -> Iterator[Change]:
        return map(Change, repeat(self.table), repeat(_READ), repeat(None), self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
