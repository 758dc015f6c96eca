"""Changes as an iterator, for programs: no sink, and nothing left behind at the source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cdcsync import config, folders, sections
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mapping.transform import Mapping
from cdcsync.ports import SourceContext
from cdcsync.reader import Limits, Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pydantic import BaseModel

    from cdcsync.change import Batch
    from cdcsync.connectors import Connector
    from cdcsync.ports import Selection

WAIT_S: Final = 0.5
ALL_TABLES: Final = ("*.*",)


def stream(url: str, tables: Sequence[str] = ()) -> Generator[Batch, None, None]:
    """Yield what is committed from now on in these tables (all when none is named), as long as you ask.

    `tables` are as in a pipeline's file: `schema.name`, a glob, or a /regex/. A batch is acknowledged when the next
    is asked for. Raises Fatal, and Transient when the connection is lost: what came meanwhile cannot be had again.
    """
    scheme = sections.SCHEME.match(url)
    connector = sections.by_scheme(scheme[1]) if scheme else None
    if connector is None or connector.from_url is None or connector.source is None:
        raise Fatal("not the URL of a source", hint="write one such as postgres://me@db/shop", status=ExitStatus.CONFIG)
    section = connector.source.config.model_validate(connector.from_url(url))
    return _batches(connector, section, "stream", Mapping.of(tables or ALL_TABLES))


def of_pipeline(name_or_path: str, tables: Sequence[str] = ()) -> Generator[Batch, None, None]:
    """Yield as `stream` does from a pipeline's source; absent `tables`, those that its mapping takes."""
    loaded = config.load(name_or_path)
    selection = Mapping.of(tables) if tables else Mapping(loaded.rules)
    return _batches(loaded.source.connector, loaded.source.config, loaded.name, selection)


def _batches(connector: Connector, section: BaseModel, name: str, selection: Selection) -> Generator[Batch, None, None]:
    spec = connector.source
    if spec is None or spec.tail is None:
        msg = f"{connector.name} cannot be followed without leaving something behind"
        raise Fatal(msg, hint="run a pipeline with the jsonl sink", status=ExitStatus.CONFIG)
    source = spec.tail(section, SourceContext(name, selection, folders.state(name, os.environ, None)))
    reader = Reader(source, Limits())
    reader.start(None, 0)
    try:
        while True:
            batch = reader.take(WAIT_S)
            if batch is None:
                continue
            if batch.changes:
                yield batch
            reader.acknowledge(batch.position)
    finally:
        reader.stop()
