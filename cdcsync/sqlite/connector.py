"""SQLite, as the registry knows it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from cdcsync.connectors import SQL_AGAIN, Connector, Finding, Names, Severity, SinkSpec, StoreSpec
from cdcsync.errors import End
from cdcsync.ports import Guarantee, PositionStore, Sink, SinkContext
from cdcsync.sql import misfits
from cdcsync.sqlite.alter import plan
from cdcsync.sqlite.config import SqliteConfig, from_url
from cdcsync.sqlite.errors import translated
from cdcsync.sqlite.rebuild import obstacles
from cdcsync.sqlite.scan import sink_scanner
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.sqlite.store import SqliteStore, clear, look, put, table_there
from cdcsync.sqlite.types import fits

if TYPE_CHECKING:
    from collections.abc import Iterator


def _sink(config: SqliteConfig, context: SinkContext) -> Sink:
    return SqliteSink(config, context)


def _store(config: SqliteConfig, context: SinkContext) -> PositionStore:
    return SqliteStore(config, context)


def _guarantee(_config: SqliteConfig) -> Guarantee:
    return Guarantee.EXACTLY_ONCE


def _identity(config: SqliteConfig) -> str:
    return f"sqlite:{config.path.resolve()}"


def check(config: SqliteConfig, context: SinkContext) -> list[Finding]:
    """Look at the file and at every target table; changes nothing."""
    if not config.path.exists():
        if config.path.parent.is_dir():
            return [Finding(Severity.OK, f"SQLite {config.path}", "will be created, with its tables")]
        remedy = f"mkdir -p {config.path.parent}"
        return [Finding(Severity.ERROR, f"SQLite {config.path}", "its directory does not exist", remedy)]
    with translated(config.path, End.SINK):
        connection = sqlite3.connect(f"{config.path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return list(_look(connection, context))
        finally:
            connection.close()


def _look(connection: sqlite3.Connection, context: SinkContext) -> Iterator[Finding]:
    for table in context.tables:
        there = table_there(connection, table.name)
        subject = f"table {table.qualified}"
        if there is None:
            yield Finding(Severity.OK, subject, "will be created")
            continue
        found = misfits(table, there, fits)
        for misfit in found:
            yield Finding(Severity.ERROR, subject, misfit, "alter it, or map to another table with `to`")
        if not found:
            yield Finding(Severity.OK, subject, "fits")


CONNECTOR = Connector(
    name="sqlite",
    schemes=("sqlite",),
    from_url=from_url,
    sink=SinkSpec(
        config=SqliteConfig,
        make=_sink,
        guarantee=_guarantee,
        identity=_identity,
        check=check,
        scanner=sink_scanner,
        names=Names(1_000_000, folds=True),
        again=SQL_AGAIN,
        plan=plan,
        obstacles=obstacles,
    ),
    store=StoreSpec(config=SqliteConfig, make=_store, clear=clear, put=put, look=look),
)
