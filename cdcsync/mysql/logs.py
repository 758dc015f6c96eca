"""The binlog files of a server: which there are, where they end, and what lies before a place in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql.gtid import GtidList, Gtids, GtidSet
from cdcsync.mysql.position import FIRST_OFFSET
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.mysql.connection import Answer, Connection

NO_LOG_HINT: Final = (
    "in the server's configuration: log_bin = binlog, server_id = 1, binlog_format = ROW; then restart the server"
)


@dataclass(frozen=True, slots=True)
class Log:
    """One file."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class End:
    """Where the log ends now."""

    file: str
    offset: int
    gtids: Gtids | None
    """All that lie before; None where the server gives none."""


def files(connection: Connection) -> Sequence[Log]:
    """Return the server's files, the oldest first. Raises Transient and Fatal."""
    return [Log(row[0], int(row[1])) for row in connection.ask("looking at the binlog's files", "SHOW BINARY LOGS")]


def end(connection: Connection) -> End:
    """Return where the log ends. Raises Transient, and Fatal where there is none."""
    server = connection.server
    rows = connection.ask("looking at the binlog's end", server.status_query)
    if not rows:
        msg = f"{server.title} writes no binlog"
        raise Fatal(msg, hint=NO_LOG_HINT, status=ExitStatus.CONFIG)
    file, offset = rows[0][0], int(rows[0][1])
    if server.flavor is Flavor.MARIADB:
        return End(file, offset, before(connection, file, offset))
    return End(file, offset, _set(rows[0]) if server.has_gtids else None)


def before(connection: Connection, file: str, offset: int = FIRST_OFFSET) -> Gtids | None:
    """Return what lies before a place: MariaDB knows at any event's begin, MySQL at the begin of a file alone."""
    server = connection.server
    doing = f"looking for the GTIDs before {file}:{offset}"
    if server.flavor is Flavor.MARIADB:
        ((found,),) = connection.ask(doing, "SELECT BINLOG_GTID_POS(%s, %s)", [file, offset])
        if found is None:
            msg = f"no event of the binlog begins at {file}:{offset}"
            raise Fatal(msg, hint="see the files with SHOW BINARY LOGS", status=ExitStatus.CONFIG)
        return GtidList.parse(found)
    if not server.has_gtids:
        return None
    for event in connection.ask(doing, f"SHOW BINLOG EVENTS IN {literal(file)} LIMIT 3"):
        if event[2] == "Previous_gtids":
            return GtidSet.parse(event[5])
    return GtidSet()


def is_anonymous(connection: Connection, file: str) -> bool:
    """Return whether MySQL wrote a file's transactions without GTIDs: each change of gtid_mode begins another file."""
    query = f"SHOW BINLOG EVENTS IN {literal(file)} LIMIT 4"
    kinds = [event[2] for event in connection.ask(f"looking at {file}", query)]
    return "Anonymous_Gtid" in kinds or not any(kind in kinds for kind in ("Gtid", "Gtid_tagged"))


def purged(connection: Connection, present: Sequence[Log]) -> Gtids | None:
    """Return what the log has no longer; None where the server gives no GTIDs."""
    if connection.server.flavor is Flavor.MYSQL:
        return connection.server.purged if connection.server.has_gtids else None
    return before(connection, present[0].file) if present else GtidList()


def kind_at(connection: Connection, file: str, offset: int) -> str | None:
    """Return what kind of event begins there, as SHOW BINLOG EVENTS names it; None at the end of the file.

    Raises Fatal where none begins.
    """
    query = f"SHOW BINLOG EVENTS IN {literal(file)} FROM {offset:d} LIMIT 1"
    rows = connection.ask(f"looking at {file}:{offset}", query)
    if rows and int(rows[0][1]) != offset:
        msg = f"no event of the binlog begins at {file}:{offset}"
        raise Fatal(msg, hint=f"the next one begins at {rows[0][1]}", status=ExitStatus.CONFIG)
    return rows[0][2] if rows else None


def _set(status: Answer) -> GtidSet:
    return GtidSet.parse(status[4])


def literal(file: str) -> str:
    """Return a file's name as SQL takes it where there are no values."""
    return "'" + file.replace("\\", "\\\\").replace("'", "''") + "'"
