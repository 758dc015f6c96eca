"""The foreign keys of the target: in which order tables are written so that none is broken on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.mysql.connection import Connection

_FOREIGN: Final = """
SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA IN ({})
"""
_ACTIONS: Final = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})

Place: TypeAlias = tuple[str, str]
"""Database and name of a table, in small letters: some servers fold them."""


def place_of(database: str, name: str) -> Place:
    """Return a table's place."""
    return database.lower(), name.lower()


class ForeignKey(NamedTuple):
    """One constraint. The server checks it at every row; nothing is deferred."""

    child: Place
    parent: Place
    name: str
    action: str
    """What a delete of the parent does to the child, in SQL's words."""

    @property
    def acts(self) -> bool:
        """Whether a delete changes the child."""
        return self.action in _ACTIONS

    @property
    def child_name(self) -> str:
        """For messages."""
        return ".".join(self.child)


class ForeignKeys:
    """All foreign keys of some databases."""

    def __init__(self, found: list[ForeignKey]) -> None:
        self._found = found
        self._ranks: dict[Place, int] = {}
        for _ in range(len(found)):
            if not self._raise_children():
                break
        self._parents = {each.parent for each in found if each.child != each.parent}
        self._acting = {each.parent for each in found if each.acts}

    @classmethod
    def read(cls, connection: Connection, databases: Iterable[str]) -> ForeignKeys:
        """Read those of tables in these databases."""
        wanted = sorted(set(databases))
        if not wanted:
            return cls([])
        rows = connection.execute(_FOREIGN.format(", ".join(["%s"] * len(wanted))), wanted)
        return cls(
            [
                ForeignKey(place_of(child, table), place_of(parent or child, referred), name, action)
                for child, table, parent, referred, name, action in rows
            ]
        )

    def referring(self, parents: Iterable[Place]) -> list[ForeignKey]:
        """Return the constraints by which other tables refer to these."""
        here = set(parents)
        return [each for each in self._found if each.parent in here and each.child not in here]

    def rank(self, place: Place) -> int:
        """Return a number that is lower for a parent than for its child, unless they form a circle."""
        return self._ranks.get(place, 0)

    def is_parent(self, place: Place) -> bool:
        """Return whether another table refers to this one."""
        return place in self._parents

    def acts(self, place: Place) -> bool:
        """Return whether a delete in this table changes rows of another."""
        return place in self._acting

    def circular(self) -> list[ForeignKey]:
        """Return the constraints that no order satisfies."""
        return [
            each
            for each in self._found
            if each.child != each.parent and self.rank(each.child) <= self.rank(each.parent)
        ]

    def _raise_children(self) -> bool:
        moved = False
        for each in self._found:
            above = self._ranks.get(each.parent, 0)
            if each.child != each.parent and self._ranks.get(each.child, 0) <= above < len(self._found):
                self._ranks[each.child] = above + 1
                moved = True
        return moved
