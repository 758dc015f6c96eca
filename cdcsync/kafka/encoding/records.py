"""What every format is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Change, Item, Transaction

Encoded: TypeAlias = tuple[bytes | None, bytes | None]
"""A record's key and value."""

_CONNECTORS = {"postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who writes, as records say it."""

    pipeline: str
    version: str
    """Of cdcsync."""
    connector: str = ""
    """As Debezium names it: postgresql, mysql."""
    database: str = ""
    """PostgreSQL's; a MySQL table's is its schema."""

    @classmethod
    def of(cls, pipeline: str, version: str, source: str) -> Sender:
        """Return it for a source's identity: `postgres:SYSTEM/DATABASE`, `mysql:SERVER`."""
        system, _, rest = source.partition(":")
        database = rest.partition("/")[2] if system == "postgres" else ""
        return cls(pipeline, version, _CONNECTORS.get(system, system or "cdcsync"), database)


class TableEncoder(Protocol):
    """Writes the changes of one table version."""

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return the records of one change, in order. Raises Partial, Unfit."""
        ...


class RunEncoder(TableEncoder, Protocol):
    """One that writes many changes by one call."""

    def encode_run(
        self, changes: Sequence[Item], start: int, transaction: Transaction, now_us: int, into: list[Encoded]
    ) -> int:
        """Append one record for each change from `start` on, as far as that goes; return the index of the next item."""
        ...
