"""Reads the binlog again, beside the pipeline: as far back as the server has files."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cdcsync.connectors import Reach
from cdcsync.mysql import identity, logs, start
from cdcsync.mysql.config import FromTime
from cdcsync.mysql.connection import connect
from cdcsync.mysql.position import FIRST_OFFSET, MysqlPosition
from cdcsync.mysql.search import Search

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.ports import SourceContext

_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def reach(config: MysqlSource, context: SourceContext) -> Reach:
    """Return how far the server's files reach. Raises Transient and Fatal."""
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        server, end = connection.server.uuid, logs.end(connection)
        file = logs.files(connection)[0].file
        first = MysqlPosition(0, server, file, FIRST_OFFSET, logs.before(connection, file))
    last = MysqlPosition(0, server, end.file, end.offset, end.gtids)
    return Reach(first.encode(), last.encode(), f"the server has it from {file} on")


def at_time(config: MysqlSource, context: SourceContext, time_us: int) -> str:
    """Return the position before the first transaction committed then or later; the log's end when none was."""
    time = _ORIGIN + timedelta(microseconds=time_us)
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        return start.at(connection, config, context, FromTime(time=time)).encode()


def placed(config: MysqlSource, context: SourceContext, position: Position) -> str:
    """Return the place in this server's files of a position that is known by its GTIDs alone, or of another server."""
    assert isinstance(position, MysqlPosition)  # noqa: S101  this system's own
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        way = identity.judge(connection, position)
        if not way.by_gtid or position.gtids is None:
            return position.encode()
        found = Search(connection, config, context).after(position.gtids)
        server = connection.server.uuid
        here = position.elsewhere(server) if way.moved else replace(position, server=server, born=0)
        return replace(here, file=found.file, offset=found.offset, gtids=found.gtids, within=None).encode()
