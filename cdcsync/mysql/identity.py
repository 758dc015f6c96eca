"""Whether a stored position is of the server's own past, and how to read on from it: by file and offset, or by GTID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.errors import Fatal, Transient
from cdcsync.mysql import logs
from cdcsync.mysql.errors import LOST_HINT
from cdcsync.mysql.gtid import GtidList, Gtids, GtidSet, triples
from cdcsync.mysql.position import file_number
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.logs import Log
    from cdcsync.mysql.position import MysqlPosition

OTHER_HINT: Final = (
    "point `host` at the server that the position came from; or, if that one is lost, forget the position with "
    "`cdcsync positions clear`, empty the target tables and fill them anew"
)
SHOWN_MAX: Final = 300
"""Characters of a GTID set in a message."""


class Lost(Fatal):
    """What follows the stored position is not in the log any more."""


class Way(NamedTuple):
    """How to read on from a stored position."""

    by_gtid: bool
    """Whether the server is asked for what the position's GTIDs lack; else for a file and an offset."""
    moved: bool
    """Whether it is another server of the same history: the epoch rises, and file and offset are not its own."""


def judge(connection: Connection, stored: MysqlPosition) -> Way:
    """Return how to read on.

    Raises Fatal where that would leave a gap, Lost where only the log was kept too short, Transient at a replica that
    lags.
    """
    present = logs.files(connection)
    if not present:
        msg = f"{connection.server.title} writes no binlog"
        raise Fatal(msg, hint=logs.NO_LOG_HINT)
    if stored.file and stored.server == connection.server.uuid:
        return _same(connection, stored, present)
    _refuse_other(connection, stored)
    _check_gtids(connection, stored, present)
    return Way(by_gtid=True, moved=bool(stored.server) and stored.server != connection.server.uuid)


def check_born(stored: MysqlPosition, file: str, born: int) -> None:
    """Raise Fatal when the file of that name was begun at another time: its first event says so, once it is read."""
    if stored.file == file and stored.born and born and stored.born != born:
        msg = f"{file} is not the file of that name that the position is of: it was begun at another time"
        raise _reset(msg)


def check_gtids(connection: Connection, gtids: Gtids) -> None:
    """Raise Fatal unless the log can be read on after these transactions; for a start that names them."""
    present = logs.files(connection)
    own = GtidList if connection.server.flavor is Flavor.MARIADB else GtidSet
    if not connection.server.has_gtids or (gtids and not isinstance(gtids, own)):
        msg = f"{connection.server.title} has no GTIDs of this form: {_shown(gtids)}"
        raise Fatal(msg, hint="name a place as {file: .., offset: ..}; see SHOW BINARY LOGS")
    _check_executed(connection, gtids)
    _check_purged(connection, gtids, present)


def _same(connection: Connection, stored: MysqlPosition, present: Sequence[Log]) -> Way:
    sizes = {log.file: log.size for log in present}
    for prepared in stored.prepared:
        if prepared.file and prepared.file not in sizes:
            msg = f"the rows of the prepared XA transaction {prepared.xid} were in {prepared.file}, which was purged"
            raise Lost(msg, hint=LOST_HINT)
    if stored.gtids is not None and connection.server.has_gtids:
        _check_executed(connection, stored.gtids)
    if stored.file in sizes:
        if stored.offset > sizes[stored.file]:
            msg = f"{stored.file} ends at {sizes[stored.file]}, before the position {_place(stored)}"
            raise _reset(msg)
        return Way(by_gtid=False, moved=False)
    if file_number(stored.file) > file_number(present[-1].file):
        msg = f"the log ends with {present[-1].file}, before the position {_place(stored)}"
        raise _reset(msg)
    if stored.gtids is None or not connection.server.has_gtids:
        msg = (
            f"the position is {_place(stored)}, and the log begins with {present[0].file}: what was between was purged"
        )
        raise Lost(msg, hint=LOST_HINT)
    _check_purged(connection, stored.gtids, present)
    return Way(by_gtid=True, moved=False)


def _refuse_other(connection: Connection, stored: MysqlPosition) -> None:
    """Refuse what says nothing on this server."""
    server = connection.server
    if stored.gtids is None:
        msg = f"the position {_place(stored)} is of the server {stored.server}, this is {server.uuid}: files and offsets differ"
        raise Fatal(msg, hint=OTHER_HINT)
    own = GtidList if server.flavor is Flavor.MARIADB else GtidSet
    if not isinstance(stored.gtids, own):
        msg = f"the position is of another kind of server than {server.title}: {_shown(stored.gtids)}"
        raise Fatal(msg, hint=OTHER_HINT)
    if not server.has_gtids:
        msg = f"the position is of the server {stored.server}, and this one, {server.uuid}, has gtid_mode off"
        raise Fatal(msg, hint=OTHER_HINT)


def _check_gtids(connection: Connection, stored: MysqlPosition, present: Sequence[Log]) -> None:
    assert stored.gtids is not None  # noqa: S101  refused before
    _check_executed(connection, stored.gtids)
    _check_purged(connection, stored.gtids, present)


def _check_executed(connection: Connection, gtids: Gtids) -> None:
    """Raise unless the server had all these transactions: Transient while a replica may still get them."""
    server = connection.server
    lacking = _lacking(server.variable("gtid_binlog_state"), server.executed, gtids)
    if not lacking:
        return
    msg = f"the server {server.uuid} never had these transactions, which were delivered: {_shown(lacking)}"
    if _replicates(connection):
        raise Transient(connection.end, f"{msg}; it is a replica and may still get them")
    hint = (
        "it was reset or restored from a backup, or they were lost in a failover, or never replicated (errant): "
        f"{OTHER_HINT}; or bring those transactions to this server"
    )
    raise Fatal(msg, hint=hint)


def _lacking(state: str, executed: Gtids, gtids: Gtids) -> Gtids:
    """Return those that the server's log never had."""
    if isinstance(gtids, GtidSet) and isinstance(executed, GtidSet):
        return gtids.subtract(executed)
    if isinstance(gtids, GtidList):
        # A number may be there that another server of the domain gave: the history is another then.
        known: dict[tuple[int, int], int] = {}
        for domain, server, number in triples(state):
            known[domain, server] = max(number, known.get((domain, server), -1))
        return GtidList(
            {
                domain: (server, number)
                for domain, (server, number) in gtids.domains().items()
                if number > known.get((domain, server), -1)
            }
        )
    return gtids


def _check_purged(connection: Connection, gtids: Gtids, present: Sequence[Log]) -> None:
    """Raise Fatal where transactions that are not among these are in the log no longer."""
    gone = logs.purged(connection, present)
    lost: Gtids = GtidSet()
    if isinstance(gone, GtidSet):
        lost = gone.subtract(gtids) if isinstance(gtids, GtidSet) else gone
    elif isinstance(gone, GtidList):
        lost = gone.subtract(gtids) if isinstance(gtids, GtidList) else gone
    if lost:
        msg = (
            f"the server {connection.server.uuid} has purged transactions that were not delivered: {_shown(lost)}; "
            f"its log begins with {present[0].file if present else 'nothing'}"
        )
        raise Lost(msg, hint=LOST_HINT)


def _replicates(connection: Connection) -> bool:
    """Return whether it gets transactions from another server now."""
    threads = {"slave_io_running", "replica_io_running", "slave_sql_running", "replica_sql_running"}
    rows = connection.named("looking whether the server is a replica", connection.server.replica_query)
    return any(
        str(value).lower() in {"yes", "connecting", "preparing"}
        for row in rows
        for name, value in row.items()
        if name.lower() in threads
    )


def _reset(msg: str) -> Fatal:
    return Fatal(msg, hint=f"the log was reset (RESET MASTER) or the server restored from a backup: {LOST_HINT}")


def _place(stored: MysqlPosition) -> str:
    return f"{stored.file}:{stored.offset}"


def _shown(gtids: Gtids) -> str:
    text = str(gtids)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}.. ({len(text)} characters)"
