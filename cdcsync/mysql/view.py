"""Consistent views of a MySQL or a MariaDB server, and what of the log each is proved to see."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.mysql import logs
from cdcsync.mysql.errors import MysqlError, Verdict, rule_of, verdict
from cdcsync.mysql.gtid import Gtids, GtidSet
from cdcsync.mysql.position import FIRST_OFFSET, OFFSET_BITS, file_number
from cdcsync.mysql.search import Found
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.search import Search

BEGIN: Final = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
TRIES_MAX: Final = 50
EVENTS_MAX: Final = 20_000
LOCK_WAIT_S: Final = 3
"""How long everybody may wait for us while we wait for the lock."""
_MAPPED: Final = re.compile(r"\((.+?)\.(.+)\)")
"""What SHOW BINLOG EVENTS says of a table map: table_id: 85 (shop.orders)."""
_SILENT: Final = frozenset(
    {
        "Gtid", "Anonymous_Gtid", "Previous_gtids", "Format_desc", "Rotate", "Stop", "Xid", "Rows_query", "Heartbeat",
        "Write_rows", "Update_rows", "Delete_rows", "Write_rows_v1", "Update_rows_v1", "Delete_rows_v1",
        "Update_rows_partial", "Ignorable",
    }
)  # fmt: skip
"""Events that touch no table which no table map names."""


class Point(NamedTuple):
    """A place between transactions of the log; as a thing to be seen: all that lies before it."""

    at: int
    """The file's number above 33 bits of offset."""
    gtids: Gtids | None


class Logged(NamedTuple):
    """One transaction, as the log names it."""

    at: int
    """Where it begins."""
    gtid: str
    """`uuid:number`; without GTIDs anything."""


class LogView(Protocol):
    """A view: see `snapshot.View`."""

    def sees(self, transaction: Hashable) -> bool:
        """Return whether a Logged, or all before a Point, is proved to be in it."""
        ...

    def is_behind(self, place: Point) -> bool:
        """Return whether the log up to there has all that it sees."""
        ...


class PlaceView(NamedTuple):
    """All that was logged before a place is in it. MariaDB: nothing else is."""

    low: int
    end: int

    def sees(self, transaction: Hashable) -> bool:
        """Compare places."""
        if isinstance(transaction, Point):
            return transaction.at <= self.low
        assert isinstance(transaction, Logged)  # noqa: S101  the source makes no other
        return transaction.at < self.low

    def is_behind(self, place: Point) -> bool:
        """Compare places."""
        return place.at >= self.end


class GtidView(NamedTuple):
    """All of gtid_executed, read before the view was opened, is in it; of what came since nobody knows."""

    low: GtidSet
    end: int

    def sees(self, transaction: Hashable) -> bool:
        """Look among the GTIDs."""
        if isinstance(transaction, Point):
            return isinstance(transaction.gtids, GtidSet) and self.low.covers(transaction.gtids)
        assert isinstance(transaction, Logged)  # noqa: S101  the source makes no other
        uuid, _, number = transaction.gtid.rpartition(":")
        return number.isdigit() and (uuid, int(number)) in self.low

    def is_behind(self, place: Point) -> bool:
        """Compare places."""
        return place.at >= self.end


def place_of(file: str, offset: int) -> int:
    """Return a place as one number."""
    return file_number(file) << OFFSET_BITS | offset


def opened(connection: Connection) -> LogView:
    """Open a view in this session and return what it sees. Raises MysqlError, and Fatal where no view can be placed."""
    server = connection.server
    if server.flavor is Flavor.MARIADB:
        place = _begun_at(connection)
        at = place_of(*place)
        return PlaceView(at, at)
    if server.has_gtids:
        executed = _executed(connection)
        connection.execute(BEGIN)
        return GtidView(executed, place_of(*_end(connection)))
    if not _has_status(connection):
        at = place_of(*_locked(connection))
        return PlaceView(at, at)
    proved = _proved(connection)
    connection.execute(BEGIN)
    return PlaceView(place_of(*proved), place_of(*_end(connection)))


def opened_exactly(connection: Connection, search: Search, tables: Collection[tuple[str, str]]) -> Found:
    """Open a view in this session that shows of these tables what lies before a place of the log, and nothing else.

    Return the place. MySQL says of a view only what it is sure to see, and where the log ended when it was there: it
    is exact where the log between the two is not about these tables, else another is opened. Raises Transient where
    that never happens, MysqlError and Fatal as `opened` does.
    """
    server = connection.server
    if server.flavor is Flavor.MARIADB:
        file, offset = _begun_at(connection)
        return Found(file, offset, logs.before(connection, file, offset))
    if not server.has_gtids and not _has_status(connection):
        return Found(*_locked(connection), None)
    for _ in range(TRIES_MAX):
        low = _executed(connection) if server.has_gtids else None
        proved = ("", 0) if low is not None else _proved(connection)
        connection.execute(BEGIN)
        end = _end(connection)
        found = search.after(low) if low is not None else Found(*proved, None)
        if _is_silent(connection, (found.file, found.offset), end, {(one.lower(), two.lower()) for one, two in tables}):
            return found
        connection.execute("ROLLBACK")
    msg = "no moment was found at which nobody writes into the tables that have no key; it is tried again"
    raise Transient(connection.end, msg)


def _begun_at(connection: Connection) -> tuple[str, int]:
    """Open a view of MariaDB's, and return its place."""
    connection.execute(BEGIN)
    status: dict[str, str] = dict(connection.execute("SHOW SESSION STATUS LIKE 'Binlog_snapshot_%'"))
    return str(status["Binlog_snapshot_file"]), int(status["Binlog_snapshot_position"])


def _executed(connection: Connection) -> GtidSet:
    ((executed,),) = connection.execute("SELECT @@GLOBAL.gtid_executed")
    return GtidSet.parse(str(executed))


def _end(connection: Connection) -> tuple[str, int]:
    """Return where the log ends, which holds all that anybody sees."""
    row = connection.execute(connection.server.status_query)[0]
    return str(row[0]), int(row[1])


def _has_status(connection: Connection) -> bool:
    rows = connection.execute(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'performance_schema' AND TABLE_NAME = 'log_status'"
    )
    return bool(rows)


def _proved(connection: Connection) -> tuple[str, int]:
    """Return a place before which everything is visible now."""
    try:
        ((local,),) = connection.execute("SELECT LOCAL FROM performance_schema.log_status")
    except MysqlError as error:
        raise _unplaced(connection, error, "performance_schema.log_status", "BACKUP_ADMIN") from error
    proved = orjson.loads(local)
    return str(proved["binary_log_file"]), int(proved["binary_log_position"])


def _locked(connection: Connection) -> tuple[str, int]:
    """Open a view while nobody can commit, and return where the log ended then. Lets go of the lock at once."""
    connection.execute("SET SESSION lock_wait_timeout = %s", [LOCK_WAIT_S])
    try:
        connection.execute("FLUSH TABLES WITH READ LOCK")
    except MysqlError as error:
        raise _unplaced(connection, error, "FLUSH TABLES WITH READ LOCK", "RELOAD") from error
    try:
        connection.execute(BEGIN)
        return _end(connection)
    finally:
        connection.execute("UNLOCK TABLES")


def _unplaced(connection: Connection, error: MysqlError, what: str, right: str) -> Transient | Fatal:
    """Return what to raise where a view cannot be placed in the log."""
    if rule_of(error).verdict is not Verdict.PERMISSION:
        return verdict(error, connection.end, f"placing a view in the log by {what}")
    ((user,),) = connection.execute("SELECT CURRENT_USER()")
    name, _, host = str(user).rpartition("@")
    msg = f"{connection.server.title} has no GTIDs, and what a view sees can only be placed in its log by {what}"
    hint = f"GRANT {right} ON *.* TO '{name}'@'{host}'; or SET GLOBAL gtid_mode = ON, in steps, as the manual says"
    return Fatal(msg, hint=hint, status=ExitStatus.PERMISSION)


def _is_silent(
    connection: Connection, start: tuple[str, int], end: tuple[str, int], tables: Collection[tuple[str, str]]
) -> bool:
    """Return whether the log between two places is certainly not about these tables (SHOW BINLOG EVENTS)."""
    file, offset = start
    while place_of(file, offset) < place_of(*end):
        query = f"SHOW BINLOG EVENTS IN {logs.literal(file)} FROM {offset} LIMIT {EVENTS_MAX}"
        following = ""
        for _, at, kind, _, _, info in connection.execute(query):
            if place_of(file, int(at)) >= place_of(*end):
                return True
            offset = place_of(file, int(at)) & ((1 << OFFSET_BITS) - 1)
            if not _passes(str(kind), str(info), tables):
                return False
            following = str(info).partition(";")[0] if kind == "Rotate" else ""
        if not following:
            return False
        file, offset = following, FIRST_OFFSET
    return True


def _passes(kind: str, info: str, tables: Collection[tuple[str, str]]) -> bool:
    if kind == "Table_map":
        named = _MAPPED.search(info)
        return named is not None and (named[1].lower(), named[2].lower()) not in tables
    return kind in _SILENT or (kind == "Query" and info in {"BEGIN", "COMMIT"})
