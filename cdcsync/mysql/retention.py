"""How long the server keeps its log, and how near to being removed the place is from which a pipeline reads on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import Fatal, Transient
from cdcsync.mysql import identity, logs
from cdcsync.mysql.connection import connect
from cdcsync.mysql.position import MysqlPosition, file_number
from cdcsync.mysql.search import SECOND_US, Search, shown_time

if TYPE_CHECKING:
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.server import Server
    from cdcsync.ports import SourceContext

DAY_S: Final = 86400.0
"""A log that is kept for less than a day is gone after one bad night."""
NEAR: Final = 0.5
"""Of what the log is kept, how old what comes next may be before that is said."""
SECONDS, DAYS = "binlog_expire_logs_seconds", "expire_logs_days"


class Age(NamedTuple):
    """Of the file that a position is in."""

    file: str
    ended_s: float
    """How long ago its last event was written, which is when it begins to grow old; 0: it is written now."""
    kept_s: float
    """How long the server keeps it then; 0: for ever."""

    @property
    def left_s(self) -> float:
        """Until it may be removed; below 0: it is there by chance."""
        return self.kept_s - self.ended_s

    @property
    def is_near(self) -> bool:
        """Whether a person should know."""
        return bool(self.kept_s) and self.ended_s > NEAR * self.kept_s

    @property
    def words(self) -> str:
        """What of it to say."""
        if not self.ended_s:
            return "the next thing to read is in the file that is written now"
        age = f"{self.file}, which comes next, was ended {_shown(self.ended_s)} ago"
        if not self.kept_s:
            return f"{age}; the log is kept for ever"
        if self.left_s < 0:
            return f"{age}, and the log is kept for {_shown(self.kept_s)}: the server removes it with the next file that it begins"
        return f"{age}; the log is kept for {_shown(self.kept_s)}: it may be removed in {_shown(self.left_s)}"


def kept_s(server: Server) -> float:
    """Return how long a file is kept after its end; 0: for ever, as far as time goes."""
    if server.variable("binlog_expire_logs_auto_purge", "ON").upper() == "OFF":
        return 0.0
    return float(server.variable(SECONDS, "0")) or DAY_S * float(server.variable(DAYS, "0"))


def findings(server: Server) -> list[Finding]:
    """Judge how long the log is kept, whatever a pipeline needs."""
    name, kept, found = _name(server), kept_s(server), []
    if not kept:
        found.append(Finding(Severity.OK, name, "the log is never removed: watch the disk"))
    elif kept < DAY_S:
        message = (
            f"the log is kept for {kept / 3600:.1f} hours: a pipeline that stands still for longer loses its place"
        )
        found.append(Finding(Severity.WARNING, name, message, longer(server)))
    else:
        found.append(Finding(Severity.OK, name, f"the log is kept for {kept / DAY_S:.1f} days"))
    for size in ("max_binlog_total_size", "binlog_space_limit"):
        if int(server.variable(size, "0")):
            message = f"the log is removed past {int(server.variable(size)) >> 20} MB, however young it is"
            found.append(Finding(Severity.WARNING, size, message, server.lasting(size, "0")))
    return found


def longer(server: Server, days: float = 7) -> str:
    """Return what keeps the log for so many days."""
    name = _name(server)
    return server.lasting(name, str(round(days * DAY_S) if name == SECONDS else math.ceil(days)))


def _name(server: Server) -> str:
    return SECONDS if SECONDS in server.variables else DAYS


def age(connection: Connection, config: MysqlSource, context: SourceContext, position: MysqlPosition) -> Age | None:
    """Return the age of the file that a position is in, of this server; None where that is not known any more.

    A server removes a file when its last write is too long ago, which was just before the next one was begun.
    """
    names = [log.file for log in logs.files(connection)]
    if position.file not in names:
        return None
    at = names.index(position.file)
    kept = kept_s(connection.server)
    if at == len(names) - 1:
        return Age(position.file, 0.0, kept)
    ((now,),) = connection.ask("looking at the server's clock", "SELECT UNIX_TIMESTAMP()")
    return Age(position.file, max(1.0, float(now) - Search(connection, config, context).begun(names[at + 1])), kept)


def judge(config: MysqlSource, context: SourceContext, encoded: str) -> list[Finding]:
    """Return what is found of a stored position: whether the server can be read on from there, and for how long."""
    position = MysqlPosition.decode(encoded)
    subject = "position"
    with connect(config, purpose=f"cdcsync check {context.pipeline}") as connection:
        try:
            way = identity.judge(connection, position)
        except Fatal as fatal:
            return [Finding(Severity.ERROR, subject, str(fatal.args[0]), fatal.hint)]
        except Transient as fault:
            return [Finding(Severity.WARNING, subject, str(fault))]
        search = Search(connection, config, context)
        if way.by_gtid and position.gtids is not None:
            found = search.after(position.gtids)
            position = MysqlPosition(position.epoch, connection.server.uuid, found.file, found.offset, found.gtids)
        oldest = logs.files(connection)[0].file
        since = shown_time(search.begun(oldest) * SECOND_US)
        where = f"{position.file}:{position.offset}; the log goes back to {oldest} of {since}"
        known = age(connection, config, context, position)
        if known is None:
            return [Finding(Severity.OK, subject, where)]
        if not known.is_near:
            return [Finding(Severity.OK, subject, f"{where}; {known.words}")]
        days = max(7.0, 2 * known.ended_s / DAY_S)
        return [Finding(Severity.WARNING, subject, f"{where}; {known.words}", longer(connection.server, days=days))]


def warn(connection: Connection, config: MysqlSource, context: SourceContext, position: MysqlPosition) -> None:
    """Log a warning where the log that comes next may be removed before it is read; for a start."""
    names = [log.file for log in logs.files(connection)]
    if not kept_s(connection.server) or file_number(position.file) >= file_number(names[-1]):
        return
    known = age(connection, config, context, position)
    if known is not None and known.is_near:
        structlog.get_logger().warning(
            "the log may be gone soon",
            pipeline=context.pipeline,
            position=f"{position.file}:{position.offset}",
            said=known.words,
            remedy=longer(connection.server, days=max(7.0, 2 * known.ended_s / DAY_S)),
        )


def _shown(seconds: float) -> str:
    if seconds < 7200:  # noqa: PLR2004  two hours
        return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"  # noqa: PLR2004  two minutes
    return f"{seconds / 3600:.1f} hours" if seconds < 2 * DAY_S else f"{seconds / DAY_S:.1f} days"
