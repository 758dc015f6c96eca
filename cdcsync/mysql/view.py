"""Consistent views of a MySQL or a MariaDB server, and what of the log each is proved to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql.gtid import Gtids, GtidSet
from cdcsync.mysql.position import OFFSET_BITS, file_number
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cdcsync.mysql.connection import Connection

BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


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
        connection.execute(BEGIN)
        status: dict[str, str] = dict(connection.execute("SHOW SESSION STATUS LIKE 'Binlog_snapshot_%'"))
        at = place_of(str(status["Binlog_snapshot_file"]), int(status["Binlog_snapshot_position"]))
        return PlaceView(at, at)
    if server.has_gtids:
        ((executed,),) = connection.execute("SELECT @@GLOBAL.gtid_executed")
        connection.execute(BEGIN)
        return GtidView(GtidSet.parse(str(executed)), _end(connection))
    if "log_status" not in _performance(connection):
        msg = f"{server.title} has neither GTIDs nor performance_schema.log_status: no view of it can be placed in its log"
        raise Fatal(
            msg,
            hint="SET GLOBAL gtid_mode = ON (in steps, as the manual says), or copy from a replica that has it",
            status=ExitStatus.CONFIG,
        )
    ((local,),) = connection.execute("SELECT LOCAL FROM performance_schema.log_status")
    proved = orjson.loads(local)
    connection.execute(BEGIN)
    return PlaceView(place_of(proved["binary_log_file"], int(proved["binary_log_position"])), _end(connection))


def _end(connection: Connection) -> int:
    """Return where the log ends, which holds all that anybody sees."""
    row = connection.execute(connection.server.status_query)[0]
    return place_of(str(row[0]), int(row[1]))


def _performance(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'performance_schema' AND TABLE_NAME = 'log_status'"
    )
    return {str(name) for (name,) in rows}
