"""The entry point of MySQL and MariaDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.connectors import SQL_AGAIN, Connector, Log, Names, SinkSpec, SourceSpec, StoreSpec
from cdcsync.mysql import catalogue
from cdcsync.mysql.alter import plan
from cdcsync.mysql.check import check
from cdcsync.mysql.config import MysqlSink, MysqlSource, MysqlStore, from_url
from cdcsync.mysql.connection import connect
from cdcsync.mysql.dialect import DIALECT
from cdcsync.mysql.log import at_time, placed, reach
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.rebuild import obstacles
from cdcsync.mysql.retention import judge
from cdcsync.mysql.scan import sink_scanner, source_scanner
from cdcsync.mysql.sink import MysqlSink as Target
from cdcsync.mysql.sink import identity
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.mysql.start import stored
from cdcsync.mysql.store import MysqlStore as Store
from cdcsync.mysql.store import clear, look, put
from cdcsync.mysql.target_check import sink_check
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Table
    from cdcsync.ports import Sink, SinkContext, Source, SourceContext


def _source(config: MysqlSource, context: SourceContext) -> Source:
    return MysqlBinlog(config, context)


def _tail(config: MysqlSource, context: SourceContext) -> Source:
    return MysqlBinlog(config, context, tail=True)


def _identity(config: MysqlSource, context: SourceContext) -> str:
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        return connection.server.name


def _tables(config: MysqlSource, context: SourceContext) -> list[Table]:
    return _look_at(config, context)[1]


def _look_at(config: MysqlSource, context: SourceContext) -> tuple[str, list[Table]]:
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        return connection.server.name, catalogue.tables(connection, context.selection)


def _whole(config: MysqlSource, context: SourceContext) -> Callable[[Table], bool]:
    with connect(config, purpose=f"cdcsync {context.pipeline}") as connection:
        full = connection.server.variable("binlog_row_image", "FULL").upper() == "FULL"
    return lambda _table: full


def _drop(_config: MysqlSource, _context: SourceContext) -> list[str]:
    """Remove nothing: the server keeps its log for nobody in particular."""
    return []


def _sink(config: MysqlSink, context: SinkContext) -> Sink:
    return Target(config, context)


def _store(config: MysqlStore | MysqlSink, context: SinkContext) -> Store:
    return Store(config, context)


CONNECTOR = Connector(
    name="mysql",
    schemes=("mysql", "mariadb"),
    from_url=from_url,
    source=SourceSpec(
        config=MysqlSource,
        make=_source,
        decode=MysqlPosition.decode,
        identity=_identity,
        tables=_tables,
        check=check,
        drop=_drop,
        tail=_tail,
        scanner=source_scanner,
        look=_look_at,
        stored=stored,
        judge=judge,
        log=Log(_tail, reach, at_time, placed),
        dialect=DIALECT,
        moves=True,
        whole=_whole,
    ),
    sink=SinkSpec(
        config=MysqlSink,
        make=_sink,
        guarantee=lambda _config: Guarantee.EXACTLY_ONCE,
        identity=identity,
        check=sink_check,
        scanner=sink_scanner,
        names=Names(64, folds=True),
        again=SQL_AGAIN,
        plan=plan,
        obstacles=obstacles,
    ),
    store=StoreSpec(config=MysqlStore, make=_store, clear=clear, put=put, look=look),
)
