"""The foreign keys of the target: in which order tables are written so that none is broken on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cdcsync.postgres.connection import Connection

_FOREIGN: Final = """
SELECT c.conrelid::int8, c.confrelid::int8, c.condeferrable, c.confdeltype::text, c.conname::text,
       c.conrelid::regclass::text
FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0
"""


_RESTRICT: Final = "r"
_ACTIONS: Final = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


class ForeignKey(NamedTuple):
    """One constraint; tables by OID."""

    child: int
    parent: int
    deferrable: bool
    on_delete: str
    """pg_constraint.confdeltype."""
    name: str
    child_name: str

    @property
    def acts(self) -> bool:
        """Whether a delete changes the child."""
        return self.on_delete in _ACTIONS

    @property
    def action(self) -> str:
        """In SQL's words."""
        return _ACTIONS.get(self.on_delete, "NO ACTION")


class ForeignKeys:
    """All foreign keys of the target database."""

    def __init__(self, connection: Connection, found: list[ForeignKey], *, deferrable: bool) -> None:
        self._connection = connection
        self._found = found
        self._ranks: dict[int, int] = {}
        self._ordering = [each for each in found if not each.deferrable or each.on_delete == _RESTRICT]
        """Those that hold at every moment: a deferred one does not care, but for ON DELETE RESTRICT."""
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
        return cls(connection, found, deferrable=row is not None and bool(row[0]))

    def renewed(self) -> ForeignKeys:
        """Read them again."""
        return self.read(self._connection)

    def referring(self, parents: set[int]) -> list[ForeignKey]:
        """Return the constraints by which other tables refer to these."""
        return [each for each in self._found if each.parent in parents and each.child not in parents]

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
        for each in self._ordering:
            above = self._ranks.get(each.parent, 0)
            if each.child != each.parent and self._ranks.get(each.child, 0) <= above < len(self._found):
                self._ranks[each.child] = above + 1
                moved = True
        return moved
