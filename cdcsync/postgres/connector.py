"""The entry point of the postgres system."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cdcsync.connectors import SQL_AGAIN, Connector, Log, Names, SinkSpec, SourceSpec, StoreSpec
from cdcsync.errors import CdcsyncError
from cdcsync.ports import Guarantee
from cdcsync.postgres.alter import plan
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.check import check
from cdcsync.postgres.config import PostgresSink, PostgresSource, PostgresStore, PublicationMode, from_url
from cdcsync.postgres.connection import connect
from cdcsync.postgres.dialect import DIALECT
from cdcsync.postgres.drop import drop, drop_publications
from cdcsync.postgres.identity import identify_plainly
from cdcsync.postgres.log import BesideWal, go_back, place, reach
from cdcsync.postgres.position import PostgresPosition
from cdcsync.postgres.publication import shown
from cdcsync.postgres.rebuild import obstacles
from cdcsync.postgres.scan import sink_scanner, source_scanner
from cdcsync.postgres.sink import PostgresSink as Target
from cdcsync.postgres.sink import identity
from cdcsync.postgres.source import PostgresWal
from cdcsync.postgres.store import PostgresStore as Store
from cdcsync.postgres.store import clear, look, put
from cdcsync.postgres.target_check import sink_check

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Table
    from cdcsync.ports import Sink, SinkContext, Source, SourceContext


def _source(config: PostgresSource, context: SourceContext) -> Source:
    return PostgresWal(config, context)


class _Tail(PostgresWal):
    """Reads through a temporary slot, and a publication of its own that goes when it is closed."""

    def __init__(self, config: PostgresSource, context: SourceContext) -> None:
        name = f"tail_{os.getpid()}_{secrets.token_hex(4)}"
        publication = config.publication
        if publication.mode is not PublicationMode.EXISTING:
            publication = publication.model_copy(update={"name": None})
        update = {"slot": f"cdcsync_{name}", "publication": publication, "retain": None}
        self._own = config.model_copy(update=update), replace(context, pipeline=name)
        super().__init__(*self._own, tail=True)

    def close(self) -> None:
        """Disconnect and remove the publication; one that cannot be removed is harmless."""
        opened = self._session is not None
        super().close()
        if not opened:
            return
        config, context = self._own
        with suppress(CdcsyncError), connect(config, application_name="cdcsync tail", read_write=True) as connection:
            drop_publications(connection, config, context)


def _identity(config: PostgresSource, context: SourceContext) -> str:
    with connect(config, application_name=f"cdcsync {context.pipeline}") as connection:
        return identify_plainly(connection)


def _tables(config: PostgresSource, context: SourceContext) -> list[Table]:
    return _look(config, context)[1]


def _look(config: PostgresSource, context: SourceContext) -> tuple[str, list[Table]]:
    with connect(config, application_name=f"cdcsync {context.pipeline}") as connection:
        published = shown(connection, config, context)
        types = Catalogue(connection).types({column.type for each in published for column in each.columns})
        return identify_plainly(connection), [each.table(types) for each in published]


def _whole(config: PostgresSource, context: SourceContext) -> Callable[[Table], bool]:
    with connect(config, application_name=f"cdcsync {context.pipeline}") as connection:
        published = shown(connection, config, context)
    infos = [each.info for each in published]
    found = {info.qualified for info in infos if all(part.identity == "f" for part in info.leaves or (info,))}
    return lambda table: table.qualified in found


def _sink(config: PostgresSink, context: SinkContext) -> Sink:
    return Target(config, context)


def _store(config: PostgresStore | PostgresSink, context: SinkContext) -> Store:
    return Store(config, context)


CONNECTOR = Connector(
    name="postgres",
    schemes=("postgres", "postgresql"),
    from_url=from_url,
    source=SourceSpec(
        config=PostgresSource,
        make=_source,
        decode=PostgresPosition.decode,
        identity=_identity,
        tables=_tables,
        check=check,
        drop=drop,
        tail=_Tail,
        scanner=source_scanner,
        look=_look,
        stored=place,
        log=Log(BesideWal, reach, go_back=go_back),
        dialect=DIALECT,
        whole=_whole,
    ),
    sink=SinkSpec(
        config=PostgresSink,
        make=_sink,
        guarantee=lambda _config: Guarantee.EXACTLY_ONCE,
        identity=identity,
        check=sink_check,
        scanner=sink_scanner,
        names=Names(63, in_bytes=True),
        again=SQL_AGAIN,
        plan=plan,
        obstacles=obstacles,
    ),
    store=StoreSpec(config=PostgresStore, make=_store, clear=clear, put=put, look=look),
)
