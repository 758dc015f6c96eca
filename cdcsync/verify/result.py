"""What a comparison found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same at both ends."""

    key: dict[str, Any]
    kind: str
    """missing (at the target), extra (at the target), different, or unsettled: it still moved when patience ended."""
    columns: tuple[str, ...] = ()
    """Names of the columns that differ."""


@dataclass(slots=True)
class TableResult:
    """What was found for one target table."""

    table: str
    rows: int = 0
    """Rows of the source that were compared, hashed ones too."""
    missing: int = 0
    extra: int = 0
    different: int = 0
    unsettled: int = 0
    """Rows that were still moving when patience ended: neither equal nor different."""
    rejected: int = 0
    """Rows of the source that the mapping rejects: what the target has of them is not known."""
    reread: int = 0
    """Keys that differed at first and were read again."""
    hashed: int = 0
    """Rows found equal by the hash of their range at both servers."""
    passed: bool = True
    """False: patience ended before the stored position had passed the end of the source's log."""
    differences: list[Difference] = field(default_factory=list)
    """The first of them by key."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs and nothing is left unsettled."""
        return not (self.missing or self.extra or self.different or self.unsettled or self.rejected)


@dataclass(slots=True)
class Result:
    """What was found for all tables."""

    tables: list[TableResult] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every table is equal."""
        return all(table.equal for table in self.tables)

    @property
    def status(self) -> int:
        """The exit status: 0 when equal, 1 when not, or when not settled."""
        return 0 if self.equal else 1

    def figures(self) -> dict[str, Any]:
        """Return all as JSON can carry it."""
        return {"equal": self.equal, "tables": [asdict(table) | {"equal": table.equal} for table in self.tables]}
