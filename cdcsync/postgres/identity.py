"""Which history of which server this is: system identifier, timeline, and where timelines forked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg

from cdcsync.errors import End, Fatal
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import format_lsn, parse_lsn

if TYPE_CHECKING:
    from cdcsync.postgres.connection import Connection


class Identity(NamedTuple):
    """What IDENTIFY_SYSTEM says."""

    system: str
    """System identifier: given by initdb, shared by its standbys."""
    timeline: int
    flush_lsn: int
    database: str

    @property
    def name(self) -> str:
        """As sinks keep it beside a position and circles are found by it."""
        return f"postgres:{self.system}/{self.database}"


def identify(replication: Connection) -> Identity:
    """Ask on a replication connection. Raises Transient and Fatal."""
    try:
        row = replication.execute("IDENTIFY_SYSTEM").fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "identifying the server") from error
    if row is None:
        raise Fatal("the server does not identify itself", hint="connect to PostgreSQL itself, not through a pooler")
    return Identity(str(row[0]), int(row[1]), parse_lsn(str(row[2])), str(row[3]))


def identify_plainly(connection: Connection) -> str:
    """Return `Identity.name` by SQL alone, for a user who may not replicate."""
    try:
        row = connection.execute(
            "SELECT system_identifier::text, current_database() FROM pg_catalog.pg_control_system()"
        ).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "identifying the server") from error
    assert row is not None  # noqa: S101  a function without FROM rows gives one
    return f"postgres:{row[0]}/{row[1]}"


def fork_points(replication: Connection, timeline: int) -> dict[int, int]:
    """Return for each timeline before this one the LSN at which it was left."""
    if timeline == 1:
        return {}
    try:
        result = replication.execute(f"TIMELINE_HISTORY {timeline:d}".encode()).pgresult
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "reading the timeline's history") from error
    content = result.get_value(0, 1) if result is not None else None
    return parse_history(content or b"")


def parse_history(content: bytes) -> dict[int, int]:
    """Read a timeline history file: `timeline<TAB>LSN<TAB>reason` a line (timeline.c)."""
    forks: dict[int, int] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) >= 2:  # noqa: PLR2004  timeline and LSN
            forks[int(fields[0])] = parse_lsn(fields[1])
    return forks


def check_history(replication: Connection, now: Identity, system: str, timeline: int, lsn: int) -> None:
    """Raise Fatal unless `lsn` on that timeline of that system lies in the server's own past."""
    remedy = (
        "point `host` at the server that the position came from; or, if that one is lost, forget the position with "
        "`cdcsync positions clear` and copy everything again"
    )
    if system != now.system:
        msg = f"this is another server: its system identifier is {now.system}, the position's is {system}"
        raise Fatal(msg, hint=remedy)
    if timeline == now.timeline:
        return
    fork = fork_points(replication, now.timeline).get(timeline)
    if fork is None:
        msg = (
            f"the position is on timeline {timeline}, which the server's timeline {now.timeline} does not descend from"
        )
        raise Fatal(msg, hint=remedy)
    if lsn > fork:
        msg = (
            f"the position {format_lsn(lsn)} lies past {format_lsn(fork)}, where timeline {timeline} was left in a "
            f"failover: what was delivered beyond it never happened on timeline {now.timeline}"
        )
        raise Fatal(msg, hint=remedy)
