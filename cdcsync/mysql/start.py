"""Where to begin: the words of `start` and of `positions set`, each turned into a position that the server still has."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql import gtid, identity, logs
from cdcsync.mysql.config import FromFile, FromGtid, FromTime
from cdcsync.mysql.connection import connect
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.search import SECOND_US, Found, Search, shown_time
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from cdcsync.mysql.config import MysqlSource, Start
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.gtid import Gtids
    from cdcsync.ports import SourceContext

WORDS: Final = "write now, earliest, binlog.000123:456, a GTID set, or a time as 2026-11-24T08:00:00Z"
_PLACE: Final = re.compile(r"(.+\.\d+):(\d+)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]")
_BETWEEN: Final = frozenset(
    {
        "Format_desc",
        "Previous_gtids",
        "Gtid",
        "Anonymous_Gtid",
        "Rotate",
        "Stop",
        "Gtid_list",
        "Binlog_checkpoint",
        "Start_encryption",
        "Ignorable",
        "Heartbeat",
    }
)
"""Events that lie between transactions, or begin one, as SHOW BINLOG EVENTS names them."""
_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def first(connection: Connection, config: MysqlSource, context: SourceContext) -> MysqlPosition:
    """Return where a pipeline without a position begins, as its section says; of epoch 0. Raises Transient and Fatal."""
    position = at(connection, config, context, config.start)
    structlog.get_logger().info(
        "begins", pipeline=context.pipeline, file=position.file, offset=position.offset, gtids=str(position.gtids or "")
    )
    return position


def stored(config: MysqlSource, context: SourceContext, word: str) -> str:
    """Turn a word of `positions set`, or what `positions show` prints, into a position that can be read on from."""
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        if word.startswith("{"):
            given = MysqlPosition.decode(word)
            identity.judge(connection, given)
            return given.encode()
        return at(connection, config, context, word_of(word)).encode()


def word_of(word: str) -> Start:
    """Return what a word on the command line means. Raises Fatal with CONFIG."""
    if word in {"now", "earliest"}:
        return "now" if word == "now" else "earliest"
    placed = _PLACE.fullmatch(word)
    try:
        if placed is not None:
            return FromFile(file=placed[1], offset=int(placed[2]))
        if _TIME.match(word):
            return FromTime(time=datetime.fromisoformat(word))
        if gtid.parse(word):
            return FromGtid(gtid=word)
    except ValueError as error:
        raise _not_a_place(word) from error
    raise _not_a_place(word)


def at(connection: Connection, config: MysqlSource, context: SourceContext, start: Start) -> MysqlPosition:
    """Return the position that a start means at this server. Raises Transient and Fatal."""
    if isinstance(start, FromFile):
        return _at_place(connection, config, context, start)
    if isinstance(start, FromGtid):
        wanted = gtid.parse(start.gtid)
        one = gtid.single(wanted)
        if one is not None and connection.server.has_gtids:
            found = Search(connection, config, context).behind(*one)
            if found is not None:
                return MysqlPosition(0, connection.server.uuid, found.file, found.offset, found.gtids)
        identity.check_gtids(connection, wanted)
        return MysqlPosition(0, connection.server.uuid, "", 0, wanted)
    if isinstance(start, FromTime):
        return _at_time(connection, config, context, start.time)
    if start == "earliest":
        oldest = logs.files(connection)[0].file
        return MysqlPosition(0, connection.server.uuid, oldest, 4, logs.before(connection, oldest))
    end = logs.end(connection)
    return MysqlPosition(0, connection.server.uuid, end.file, end.offset, end.gtids)


def _at_place(connection: Connection, config: MysqlSource, context: SourceContext, start: FromFile) -> MysqlPosition:
    present = {log.file: log.size for log in logs.files(connection)}
    place = f"{start.file}:{start.offset}"
    if start.file not in present:
        names = list(present)
        msg = f"the server has no file {start.file}: its log goes from {names[0]} to {names[-1]}"
        raise Fatal(msg, hint="see the files with SHOW BINARY LOGS", status=ExitStatus.CONFIG)
    if start.offset > present[start.file]:
        msg = f"{place} lies in the future: the file ends at {present[start.file]}"
        raise Fatal(msg, hint="see the files with SHOW BINARY LOGS", status=ExitStatus.CONFIG)
    kind = logs.kind_at(connection, start.file, start.offset)
    if kind is not None and kind not in _BETWEEN:
        msg = f"{place} lies inside a transaction: an event of type {kind} begins there"
        hint = f"transactions begin at a Gtid or Anonymous_Gtid: SHOW BINLOG EVENTS IN '{start.file}'"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    gtids = gtids_at(connection, config, context, start.file, start.offset)
    return MysqlPosition(0, connection.server.uuid, start.file, start.offset, gtids)


def gtids_at(
    connection: Connection, config: MysqlSource, context: SourceContext, file: str, offset: int
) -> Gtids | None:
    """Return all that lie before a place where a transaction begins; None where the server gives none."""
    if connection.server.flavor is Flavor.MARIADB:
        return logs.before(connection, file, offset)
    if not connection.server.has_gtids:
        return None
    if logs.is_anonymous(connection, file):
        return logs.before(connection, file)
    return Search(connection, config, context).gtids_before(file, offset)


def _at_time(connection: Connection, config: MysqlSource, context: SourceContext, time: datetime) -> MysqlPosition:
    wanted_us = round((time - _ORIGIN).total_seconds() * SECOND_US)
    ((now,),) = connection.ask("looking at the server's clock", "SELECT UNIX_TIMESTAMP(NOW(6))")
    if wanted_us > float(now) * SECOND_US:
        msg = f"{shown_time(wanted_us)} lies in the future: the server's clock says {shown_time(round(float(now)) * SECOND_US)}"
        raise Fatal(msg, hint="start with `now`", status=ExitStatus.CONFIG)
    found = Search(connection, config, context).at_time(wanted_us)
    _tell(context, wanted_us, found)
    return MysqlPosition(0, connection.server.uuid, found.file, found.offset, found.gtids)


def _tell(context: SourceContext, wanted_us: int, found: Found) -> None:
    structlog.get_logger().info(
        "found the first transaction" if found.time_us else "no transaction yet",
        pipeline=context.pipeline,
        asked=shown_time(wanted_us),
        committed=shown_time(found.time_us) if found.time_us else "",
        file=found.file,
        offset=found.offset,
    )


def _not_a_place(word: str) -> Fatal:
    if word in {"initial", "initial_only"}:
        msg = f"{word} is no place: a first copy begins where no position is stored"
        return Fatal(msg, hint=WORDS, status=ExitStatus.CONFIG)
    return Fatal(f"not a place in a binlog: {word!r}", hint=WORDS, status=ExitStatus.CONFIG)
