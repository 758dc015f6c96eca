"""The entry point of MySQL and MariaDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.connectors import Connector, SinkSpec, StoreSpec
from cdcsync.mysql.config import MysqlSink, MysqlStore, from_url
from cdcsync.mysql.scan import sink_scanner
from cdcsync.mysql.sink import MysqlSink as Target
from cdcsync.mysql.sink import identity
from cdcsync.mysql.store import MysqlStore as Store
from cdcsync.mysql.store import clear, look, put
from cdcsync.mysql.target_check import sink_check
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from cdcsync.ports import Sink, SinkContext


def _sink(config: MysqlSink, context: SinkContext) -> Sink:
    return Target(config, context)


def _store(config: MysqlStore | MysqlSink, context: SinkContext) -> Store:
    return Store(config, context)


CONNECTOR = Connector(
    name="mysql",
    schemes=("mysql", "mariadb"),
    from_url=from_url,
    sink=SinkSpec(
        config=MysqlSink,
        make=_sink,
        guarantee=lambda _config: Guarantee.EXACTLY_ONCE,
        identity=identity,
        check=sink_check,
        scanner=sink_scanner,
    ),
    store=StoreSpec(config=MysqlStore, make=_store, clear=clear, put=put, look=look),
)
