"""Reads documents beside the stream as rows, for `verify`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from cdcsync.change import UNCHANGED
from cdcsync.connectors import Scanner
from cdcsync.elastic.addressed import Addressed
from cdcsync.elastic.client import Client, named
from cdcsync.elastic.raw import elements, members
from cdcsync.elastic.reading import documents_of, scroll
from cdcsync.elastic.target import Target, property_of
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cdcsync.change import Row, Table
    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.ports import SinkContext

KEYS_MAX: Final = 500
"""Asked for at once."""
_ORDERED: Final = {Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.ENUM}
"""Kinds of key columns in whose order a search gives documents."""
_GEO: Final = {"geo_point", "geo_shape"}


def sink_scanner(config: ElasticSinkConfig, context: SinkContext) -> Scanner:  # noqa: ARG001  the signature of SinkSpec
    """Return the scanner of the target, which keeps no position."""
    rows = _Rows(config)
    return Scanner(rows.scan, rows.read, lambda: None, rows.close, by_value=_json_columns)


def _json_columns(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.type.kind is Kind.JSON]


class _Rows:
    def __init__(self, config: ElasticSinkConfig) -> None:
        self._config = config
        self._client = Client(config, End.SINK)
        self._target = Target(self._client, config)

    def scan(self, table: Table) -> Iterator[Row]:
        """All documents that were there when it began, by key."""
        place = self._place(table)
        doing = f"reading index {table.name}"
        self._client.ask("POST", f"/{named(place.index.concrete)}/_refresh", doing=doing)
        by_key = table.key and all(table.columns[at].type.kind in _ORDERED for at in table.key_at)
        sort = [{name: {"order": "asc"}} for name in table.key] if by_key else ["_doc"]
        for page in scroll(self._client, place.index, {"sort": sort}, doing):
            for hit in elements(members(members(page)["hits"])["hits"]):
                yield _row(place, members(members(hit)["_source"]))

    def read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        """The documents of these keys, as they are now."""
        place = self._place(table)
        rows: list[Row] = []
        left = iter(keys)
        while some := list(islice(left, KEYS_MAX)):
            if place.folded is table:
                found = [place.place(key if len(key) > 1 else key[0]) for key in some]
                rows += [_row(place, each) for each in documents_of(self._client, place.index, found).values()]
            else:
                rows += self._search(place, [place.plan.id(key) for key in some])
        return rows

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        self._client.close()

    def _search(self, place: Addressed, names: list[str]) -> Iterator[Row]:
        """Find documents whose shard is not known by their key."""
        doing = f"reading index {place.index.name}"
        self._client.ask("POST", f"/{named(place.index.concrete)}/_refresh", doing=doing)
        for page in scroll(self._client, place.index, {"query": {"ids": {"values": names}}, "sort": ["_doc"]}, doing):
            for hit in elements(members(members(page)["hits"])["hits"]):
                yield _row(place, members(members(hit)["_source"]))

    def _place(self, table: Table) -> Addressed:
        index = self._target.look(table.name)
        if index is None:
            msg = f"index {table.name} is not there"
            raise Fatal(msg, hint="start the pipeline: it makes what is missing", status=ExitStatus.CONFIG)
        own = self._config.index(table.name)
        if own.pipeline is not None or not index.whole:
            msg = f"the documents of index {table.name} are not kept as they were sent, so that they cannot be compared"
            raise Fatal(msg, hint="name the other tables", status=ExitStatus.CONFIG)
        shapes = [
            column.name
            for column in table.columns
            if column.type.kind is Kind.GEOMETRY
            and (property_of(index.properties, column.name) or {}).get("type") in _GEO
        ]
        if shapes:
            msg = f"index {table.name}: the text of {', '.join(shapes)} is not compared with the source's bytes"
            raise Fatal(msg, hint="name the other tables", status=ExitStatus.CONFIG)
        return Addressed(table, index, self._config, table)


def _row(place: Addressed, document: Mapping[str, bytes]) -> Row:
    """Return a document's row; a field that it lacks is null."""
    return tuple([None if value is UNCHANGED else value for value in place.plan.row(document)])
