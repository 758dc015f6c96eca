"""Reads documents back: some by their `_id`, or all of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import orjson

from cdcsync.elastic.client import OK, named
from cdcsync.elastic.errors import verdict
from cdcsync.elastic.raw import elements, members
from cdcsync.errors import End, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.elastic.client import Client
    from cdcsync.elastic.target import Index

DOCUMENTS_MAX: Final = 500
"""Asked for at once."""
PAGE: Final = 2000
KEEP: Final = "5m"
"""How long a server keeps a scroll between two pages."""

Place: TypeAlias = tuple[str, str | None]
"""`_id` and routing."""


class Hit(NamedTuple):
    """One document of a scroll."""

    place: Place
    version: int


def documents_of(client: Client, index: Index, places: Sequence[Place]) -> dict[Place, dict[str, bytes]]:
    """Return the documents that are there now, not only those a search sees, each field as its text."""
    found: dict[Place, dict[str, bytes]] = {}
    for at in range(0, len(places), DOCUMENTS_MAX):
        some = places[at : at + DOCUMENTS_MAX]
        docs = [{"_id": each} if routing is None else {"_id": each, "routing": routing} for each, routing in some]
        doing = f"reading documents of index {index.name}"
        body = orjson.dumps({"docs": docs})
        answer = client.send("POST", f"/{named(index.name)}/_mget", body, doing)
        if answer.status >= OK:
            raise verdict(answer.status, answer.parsed(), End.SINK, doing)
        for place, text in zip(some, elements(members(answer.body)["docs"]), strict=True):
            document = members(text)
            if "error" in document:
                raise verdict(OK, orjson.loads(text), End.SINK, doing)
            if document.get("found") == b"true" and "_source" in document:
                found[place] = members(document["_source"])
    return found


def is_empty(client: Client, index: Index) -> bool:
    """Return whether an index has no document."""
    doing = f"counting the documents of index {index.name}"
    client.ask("POST", f"/{named(index.concrete)}/_refresh", doing=doing)
    return bool(client.ask("GET", f"/{named(index.concrete)}/_count", doing=doing)["count"] == 0)


def everything(client: Client, index: Index) -> Iterator[list[Hit]]:
    """Yield pages of all documents that are there when this begins."""
    doing = f"listing the documents of index {index.name}"
    client.ask("POST", f"/{named(index.concrete)}/_refresh", doing=doing)
    for page in scroll(client, index, {"_source": False, "version": True, "sort": ["_doc"]}, doing):
        yield [Hit((hit["_id"], hit.get("_routing")), hit["_version"]) for hit in orjson.loads(page)["hits"]["hits"]]


def scroll(client: Client, index: Index, search: dict[str, Any], doing: str) -> Iterator[bytes]:
    """Yield the answers of a search that goes on until nothing is left, as text. Raises Fatal for a part of it."""
    path = f"/{named(index.concrete)}/_search?scroll={KEEP}"
    body: dict[str, Any] = {"size": PAGE, **search}
    identity = ""
    try:
        while True:
            answer = client.send("POST", path, orjson.dumps(body), doing)
            if answer.status >= OK:
                raise verdict(answer.status, answer.parsed(), End.SINK, doing)
            outer = members(answer.body)
            identity = orjson.loads(outer["_scroll_id"])
            if orjson.loads(outer["_shards"])["failed"] or outer["timed_out"] == b"true":
                msg = f"{doing}: a shard did not answer"
                raise Fatal(msg, hint="look at the cluster's health, then run it again")
            if members(outer["hits"])["hits"].replace(b" ", b"") == b"[]":
                return
            yield answer.body
            path, body = "/_search/scroll", {"scroll": KEEP, "scroll_id": identity}
    finally:
        if identity:
            client.ask("DELETE", "/_search/scroll", {"scroll_id": identity}, doing=doing, missing=True)
