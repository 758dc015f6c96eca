"""The foreign keys of the target: in which order tables are written so that none is broken on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cdcsync.postgres.connection import Connection

_FOREIGN: Final = """
SELECT c.conrelid::int8, c.confrelid::int8, c.condeferrable, c.confdeltype IN ('c', 'n', 'd'), c.conname::text,
       c.conrelid::regclass::text
FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0
"""


class ForeignKey(NamedTuple):
    """One constraint; tables by OID."""

    child: int
    parent: int
    deferrable: bool
    acts: bool
    """ON DELETE does something to the child: CASCADE, SET NULL or SET DEFAULT."""
    name: str
    child_name: str


class ForeignKeys:
    """All foreign keys of the target database."""

    def __init__(self, found: list[ForeignKey], *, deferrable: bool) -> None:
        self._found = found
        self._ranks: dict[int, int] = {}
        for _ in range(len(found)):
            if not self._raise_children():
                break
        self.deferrable = deferrable
        """Whether there is any constraint to defer, unique ones included."""
        self._parents = {each.parent for each in found}
        self._acting = {each.parent for each in found if each.acts}

    @classmethod
    def read(cls, connection: Connection) -> ForeignKeys:
        """Read them."""
        row = connection.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable)").fetchone()
        found = [ForeignKey(*each) for each in connection.execute(_FOREIGN).fetchall()]
        return cls(found, deferrable=row is not None and bool(row[0]))

    def rank(self, oid: int) -> int:
        """Return a number that is lower for a parent than for its child, unless they form a circle."""
        return self._ranks.get(oid, 0)

    def is_parent(self, oid: int) -> bool:
        """Return whether another table refers to this one."""
        return oid in self._parents

    def acts(self, oid: int) -> bool:
        """Return whether a delete in this table changes rows of another."""
        return oid in self._acting

    def circular(self) -> list[ForeignKey]:
        """Return the constraints that no order satisfies and that cannot be deferred."""
        return [
            each
            for each in self._found
            if not each.deferrable and each.child != each.parent and self.rank(each.child) <= self.rank(each.parent)
        ]

    def _raise_children(self) -> bool:
        moved = False
        for each in self._found:
            above = self._ranks.get(each.parent, 0)
            if each.child != each.parent and self._ranks.get(each.child, 0) <= above < len(self._found):
                self._ranks[each.child] = above + 1
                moved = True
        return moved
