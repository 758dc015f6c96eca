"""The target's indexes: looks at what is there, makes what is missing, and says all that does not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.elastic import types
from cdcsync.elastic.client import named
from cdcsync.elastic.errors import error_of, verdict
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.rebuilding import NEW, beneath
from cdcsync.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cdcsync.change import Table
    from cdcsync.elastic.client import Client
    from cdcsync.elastic.config import ElasticSinkConfig

MARK: Final = "cdcsync"
"""The member of an index's `_meta` that says whose it is."""
GC_DELETES_S: Final = 60.0
"""Elasticsearch's own (index modules, `index.gc_deletes`)."""
FIELDS_MAX: Final = 1000
"""Elasticsearch's own limit of fields in one index."""
NAME_BYTES_MAX: Final = 255 - len(NEW)
"""A server takes 255: of an index that is built anew beside it, under a longer name, too."""
NUMBERS_MAX: Final = 1000
"""Indexes of one name that were made and left behind."""
METADATA: Final = frozenset(
    {"_id", "_index", "_source", "_routing", "_version", "_seq_no", "_primary_term", "_field_names", "_ignored",
     "_doc_count", "_feature", "_tier", "_nested_path", "_data_stream_timestamp", "_tsid", "_type"}
)  # fmt: skip
_UNKNOWN_TYPE: Final = re.compile(r"(?:mapper|handler for) type \[(\w+)\] declared on field \[([^\]]+)\]")
_ILLEGAL: Final = re.compile(r'[\\/*?"<>| ,#:A-Z]|^[-_+]|^\.{1,2}$|^$')
_REJECTED: Final = 400


@dataclass(frozen=True, slots=True)
class Mark:
    """What an index says of the pipeline that writes to it."""

    pipeline: str
    source: str = ""
    epoch: int = 0
    tables: tuple[str, ...] = ()
    """All indexes of the pipeline."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index, as it was found."""

    name: str
    """What requests name: an alias, or the index itself."""
    concrete: str
    uuid: str
    properties: Mapping[str, Any]
    dynamic: str
    gc_deletes_s: float
    mark: Mark | None
    meta: Mapping[str, Any] = field(repr=False)
    whole: bool = True
    """Whether the documents can be read back as they were sent."""
    refused: str = ""
    """Why nothing can be written to it."""

    @property
    def by_alias(self) -> bool:
        """Whether requests name an alias, so that no server makes the index anew by itself."""
        return self.name != self.concrete


class Target:
    """The indexes of one sink."""

    def __init__(self, client: Client, config: ElasticSinkConfig) -> None:
        self._client = client
        self._config = config
        self._choices = types.Choices.of(config)

    def look(self, name: str) -> Index | None:
        """Return the index of that name or alias, None when there is none. Raises Transient and Fatal."""
        path = f"/{named(name)}?expand_wildcards=all"
        found = self._client.ask("GET", path, doing=f"looking at index {name}", missing=True)
        if found is None:
            return None
        if len(found) > 1:
            msg = f"{name} is an alias of several indexes: {', '.join(sorted(found))}"
            hint = (
                "documents are written by key, so that an alias has to have one index: mend it, or name one with `to:`"
            )
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        ((concrete, there),) = found.items()
        return _index(name, concrete, there)

    def make(self, table: Table) -> Index:
        """Make the index of a table behind an alias of its name, and return it. Raises Transient and Fatal."""
        body = self.wanted(beneath(table))
        for number in range(1, NUMBERS_MAX):
            concrete = f"{beneath(table).name}-{number:06}"
            if self._create(concrete, body, table.name):
                break
        made = self.look(table.name)
        if made is None:
            msg = f"index {table.name} was made and is not there"
            raise Fatal(msg, hint="who removes it? the cluster's log says")
        return made

    def wanted(self, table: Table) -> dict[str, Any]:
        """Return what an index of a table is made with."""
        own = self._config.index(table.name)
        settings: dict[str, Any] = {"gc_deletes": f"{self._config.gc_deletes // timedelta(milliseconds=1)}ms"}
        if len(table.columns) > FIELDS_MAX // 3:
            settings["mapping.total_fields.limit"] = FIELDS_MAX + 3 * len(table.columns)
        settings |= self._config.settings | own.settings
        if self._config.mapping == "template":
            return {"settings": settings}
        properties = {**self.fields(table), **own.properties}
        mappings: dict[str, Any] = {"dynamic": self._config.dynamic, "properties": properties}
        if own.routing is not None:
            mappings["_routing"] = {"required": True}
        return {"settings": settings, "mappings": mappings}

    def fields(self, table: Table) -> dict[str, Any]:
        """Return the fields for a table's columns."""
        return {
            column.name: types.field(column.type, self._choices, in_key=column.name in table.key)
            for column in table.columns
        }

    def misfits(self, table: Table, index: Index) -> list[str]:
        """Return all that keeps every row of a table out of an index, each with what mends it."""
        if index.refused:
            return [index.refused]
        wanted = self.fields(table)
        missing = {
            column.name: orjson.dumps({"properties": {column.name: wanted[column.name]}}).decode()
            for column in table.columns
            if index.dynamic == "strict" and property_of(index.properties, column.name) is None
        }
        return [f"field {name} is missing: PUT /{index.concrete}/_mapping {body}" for name, body in missing.items()]

    def narrow(self, table: Table, index: Index) -> list[str]:
        """Return the fields that cannot take every value of their column."""
        found = []
        for column in table.columns:
            there = property_of(index.properties, column.name)
            reason = types.misfit(column.type, there) if there is not None else ""
            if reason:
                found.append(
                    f"field {column.name}: {reason}; a field's type cannot be changed, only another index made"
                )
        return found

    def adopt(self, index: Index, mark: Mark) -> Index:
        """Write into an index whose it is; return it as it is then."""
        return replace(self.note(index, {MARK: _marked(mark)}), mark=mark)

    def note(self, index: Index, said: Mapping[str, Any]) -> Index:
        """Write something into an index's `_meta`, beside what is there; return the index as it is then."""
        meta = {**index.meta, **said}
        doing = f"marking index {index.name}"
        self._client.ask("PUT", f"/{named(index.concrete)}/_mapping", {"_meta": meta}, doing=doing)
        return replace(index, meta=meta)

    def ours(self, pipeline: str) -> list[Index]:
        """Return all indexes behind an alias that say that they are a pipeline's."""
        path = f"/_all/_mapping?filter_path=*.mappings._meta.{MARK}.pipeline"
        try:
            found = self._client.ask("GET", path, doing="looking for the pipeline's indexes")
        except Fatal as fatal:
            if fatal.status is ExitStatus.PERMISSION:
                return []  # of those that we may not see, none is ours
            raise
        mine = [name for name, there in found.items() if there["mappings"]["_meta"][MARK]["pipeline"] == pipeline]
        made = []
        for concrete in sorted(mine):
            there = self._client.ask("GET", f"/{named(concrete)}", doing=f"looking at index {concrete}")[concrete]
            made += [_index(alias, concrete, there) for alias in there.get("aliases", {})]
        return made

    def extend(self, table: Table, index: Index, names: Sequence[str] | None = None) -> Index:
        """Give an index the fields that it lacks for a table, or for these columns; return it as it is then."""
        wanted = {**self.fields(table), **self._config.index(beneath(table).name).properties}
        missing = {
            name: wanted[name]
            for name in (table.at if names is None else names)
            if property_of(index.properties, name) is None
        }
        if not missing:
            return index
        doing = f"adding {', '.join(missing)} to index {index.name}"
        self._client.ask("PUT", f"/{named(index.concrete)}/_mapping", {"properties": missing}, doing=doing)
        return self.look(index.name) or index

    def uuids(self, indexes: Iterable[Index]) -> dict[str, str]:
        """Return the identity of each of these indexes that is there."""
        names = named(*[index.concrete for index in indexes])
        path = f"/{names}/_settings/index.uuid?ignore_unavailable=true"
        found = self._client.ask("GET", path, doing="looking at the indexes again")
        return {name: each["settings"]["index"]["uuid"] for name, each in found.items()}

    def _create(self, concrete: str, body: dict[str, Any], alias: str) -> bool:
        """Make one index; return False when its name is taken. Types that the server lacks are made as others."""
        doing = f"making index {concrete}"
        for _ in range(len(body.get("mappings", {}).get("properties", ())) + 1):
            text = orjson.dumps({**body, "aliases": {alias: {}}})
            answer = self._client.send("PUT", f"/{named(concrete)}", text, doing)
            if answer.status < _REJECTED:
                return True
            kind, reason = error_of(answer.parsed())
            if kind == "resource_already_exists_exception":
                return False
            unknown = _UNKNOWN_TYPE.search(reason)
            if kind != "mapper_parsing_exception" or unknown is None:
                raise verdict(answer.status, answer.parsed(), End.SINK, doing)
            body["mappings"]["properties"] = _without_type(body["mappings"]["properties"], unknown[1], concrete)
        return False


def _without_type(properties: Mapping[str, Any], missing: str, concrete: str) -> dict[str, Any]:
    """Return the fields with another type in the place of one that the server does not have."""
    if missing not in types.INSTEAD:
        names = [name for name, each in properties.items() if each.get("type") == missing]
        msg = f"making index {concrete}: this server has no type {missing}, wanted for {', '.join(names)}"
        hint = "give these fields another type under `indexes: {NAME: {properties: ..}}`"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    return {
        name: dict(types.INSTEAD[missing]) if each.get("type") == missing else each for name, each in properties.items()
    }


def _marked(mark: Mark) -> dict[str, Any]:
    return {"pipeline": mark.pipeline, "source": mark.source, "epoch": mark.epoch, "tables": list(mark.tables)}


def _index(name: str, concrete: str, there: Mapping[str, Any]) -> Index:
    mappings, settings = there.get("mappings", {}), there.get("settings", {}).get("index", {})
    meta = mappings.get("_meta", {})
    marked = meta.get(MARK)
    source = mappings.get("_source", {})
    mode = source.get("mode", settings.get("mapping", {}).get("source", {}).get("mode", "stored"))
    return Index(
        name=name,
        concrete=concrete,
        uuid=settings.get("uuid", ""),
        properties=mappings.get("properties", {}),
        dynamic=str(mappings.get("dynamic", "true")).lower(),
        gc_deletes_s=_seconds(settings.get("gc_deletes")),
        mark=None if marked is None else Mark(**{**marked, "tables": tuple(marked.get("tables", ()))}),
        meta=meta,
        whole=source.get("enabled", True) is not False and mode != "synthetic",
        refused=_refused(concrete, there, settings),
    )


def _refused(concrete: str, there: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if concrete.startswith(".ds-") or "data_stream" in there:
        stream = there.get("data_stream", concrete)
        return f"is the data stream {stream}, which only takes appended documents: name another with `to:`"
    if settings.get("verified_before_close") == "true":
        return f"is closed: POST /{concrete}/_open"
    if settings.get("translog", {}).get("durability", "request") == "async":
        return (
            "forgets in a crash what it has answered for (index.translog.durability: async): PUT "
            f'/{concrete}/_settings {{"index.translog.durability": "request"}}'
        )
    return ""


def _seconds(value: object) -> float:
    if value is None:
        return GC_DELETES_S
    try:
        found = duration(value)
    except ValueError:
        return GC_DELETES_S
    return found.total_seconds() if isinstance(found, timedelta) else GC_DELETES_S


def property_of(properties: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return the field of that name, None when there is none; a dot in a name leads into an object."""
    found: Any = properties.get(name)
    if found is None and "." in name:
        head, _, rest = name.partition(".")
        inner = properties.get(head)
        return property_of(inner.get("properties", {}), rest) if isinstance(inner, dict) else None
    return found if isinstance(found, dict) else None


def refuse_names(tables: Sequence[Table]) -> None:
    """Raise Fatal with every name that no index, or no field, can have, and every table without a key."""
    lines = []
    owners: dict[str, Table] = {}
    for table in tables:
        other = owners.setdefault(table.name, table)
        if other.schema != table.schema:
            lines.append(f"{table.qualified}: {other.qualified} goes there too, as an index has no schema")
        if _ILLEGAL.search(table.name) or len(table.name.encode()) > NAME_BYTES_MAX:
            lines.append(
                f"{table.qualified}: {table.name!r} cannot be an index's name, which is lower case, of {NAME_BYTES_MAX} bytes at most, without \\ / * ? \" < > | # : , or spaces"
            )
        if not table.key:
            lines.append(f"{table.qualified} has no key, and a document needs an _id")
        lines += [
            f"{table.qualified}: column {column.name!r} cannot be a field's name; rename it in the mapping"
            for column in table.columns
            if column.name in METADATA or not column.name.strip() or "" in column.name.split(".")
        ]
    if lines:
        hint = "name the index with `to:`, its key with `key:`, a field with `rename:`"
        raise Fatal("\n".join(lines), hint=hint, status=ExitStatus.CONFIG)
