"""Which PostgreSQL this is: system identifier, timeline, and where the timeline left its parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from cdcsync.errors import End, Fatal
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import PostgresPosition, format_lsn, parse_lsn

if TYPE_CHECKING:
    from cdcsync.postgres.connection import Connection


@dataclass(frozen=True, slots=True)
class Identity:
    """What IDENTIFY_SYSTEM says, and the history of its timeline."""

    system: str
    timeline: int
    flushed: int
    """LSN that the server has flushed."""
    forks: tuple[tuple[int, int], ...] = ()
    """(timeline, LSN at which it ended) of every ancestor."""

    @classmethod
    def of(cls, replication: Connection) -> Identity:
        """Ask over a replication connection. Raises Transient and Fatal."""
        try:
            row = replication.execute("IDENTIFY_SYSTEM").fetchone()
            if row is None:
                msg = "IDENTIFY_SYSTEM gave nothing"
                raise Fatal(msg, hint="is there a proxy between cdcsync and PostgreSQL? connect directly")
            system, timeline, flushed = str(row[0]), int(row[1]), parse_lsn(row[2])
            forks = _forks(replication, timeline) if timeline > 1 else ()
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "asking which server this is") from error
        return cls(system, timeline, flushed, forks)

    def refuse_foreign(self, position: PostgresPosition) -> None:
        """Raise Fatal when the position belongs to another history."""
        if position.system != self.system:
            msg = f"the stored position is of system {position.system}, this server is {self.system}"
            raise Fatal(msg, hint=_ANEW)
        if position.timeline == self.timeline:
            return
        fork = dict(self.forks).get(position.timeline)
        if fork is None:
            msg = f"the stored position is on timeline {position.timeline}, which this server's timeline {self.timeline} does not come from"
            raise Fatal(msg, hint=_ANEW)
        if position.lsn > fork:
            msg = (
                f"the stored position {format_lsn(position.lsn)} is past {format_lsn(fork)}, where timeline "
                f"{position.timeline} ended: this server never had what the target has"
            )
            raise Fatal(msg, hint=_ANEW)


_ANEW = (
    "connect to the server that the position belongs to, or forget it with `cdcsync drop` and copy everything again "
    "into an empty target"
)


def _forks(replication: Connection, timeline: int) -> tuple[tuple[int, int], ...]:
    row = replication.execute(b"TIMELINE_HISTORY %d" % timeline).fetchone()
    content = row[1] if row is not None else b""
    text = content.decode() if isinstance(content, bytes) else str(content)
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((int(parts[0]), parse_lsn(parts[1])) for parts in lines if parts)


def name_of(connection: Connection) -> str:
    """Return `postgres:SYSTEM_IDENTIFIER/DATABASE` over an ordinary connection."""
    try:
        row = connection.execute(
            "SELECT system_identifier::text, current_database() FROM pg_catalog.pg_control_system()"
        ).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "asking which server this is") from error
    return f"postgres:{row[0]}/{row[1]}" if row else ""
