"""Keeps a pipeline's position in an index: one document, each write on condition of the one before."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from cdcsync.elastic.client import OK, Client, named
from cdcsync.elastic.errors import verdict
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.ports import Stored
from cdcsync.positions import LockFile, fence_lost, holder, now, refuse_other_source

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.elastic.config import ElasticStoreConfig
    from cdcsync.ports import SinkContext

_CONFLICT: Final = 409
_KEYWORD: Final = {"type": "keyword"}
_STORED: Final = {"type": "keyword", "index": False, "doc_values": False}
_BODY: Final = {
    "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "translog.durability": "request"},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "pipeline": _KEYWORD,
            "lane": _KEYWORD,
            "epoch": {"type": "integer"},
            "fence": {"type": "long"},
            "position": _STORED,
            "source": _KEYWORD,
            "holder": _KEYWORD,
            "updated_at": {"type": "date"},
        },
    },
}


@dataclass(frozen=True, slots=True)
class Row:
    """What the document holds."""

    pipeline: str
    lane: str
    epoch: int = 0
    fence: int = 0
    position: str | None = None
    source: str = ""
    holder: str = ""
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A document, and what a write on condition of it has to name."""

    row: Row
    sequence: int
    term: int


class ElasticStore:
    """One pipeline's position. A process that another has replaced loses at its next write."""

    def __init__(self, config: ElasticStoreConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._lock: LockFile | None = None
        self._client: Client | None = None
        self._lane = context.lane
        self._fence: int | None = None
        self._seen: Seen | None = None

    def open(self, lane: str) -> None:
        """Take the lock of this machine and, once, the fence; afterwards check it."""
        self._lane = lane
        self._lock = self._lock or LockFile.at(self._context.state, self._context.pipeline, lane)
        self._lock.acquire()
        if self._client is None:
            self._client = Client(self._config, End.STORE)
        self._make_index()
        seen = self._read()
        if self._fence is not None:
            self._check(seen)
            return
        row = seen.row if seen else Row(self._context.pipeline, lane)
        if row.position is not None:
            refuse_other_source(self._context, row.source)
        taken = replace(row, fence=row.fence + 1, source=self._context.source or row.source)
        self._fence = taken.fence
        self._write(taken, seen)

    def load(self) -> Stored | None:
        """Return what is stored. Raises Fatal when the fence, once taken, is no longer ours."""
        seen = self._read()
        if self._fence is not None:
            self._check(seen)
        if seen is None or seen.row.position is None:
            return None
        return Stored(seen.row.position, seen.row.epoch)

    def save(self, position: Position) -> None:
        """Store on condition that nobody wrote since; durable when it is answered."""
        seen = self._seen
        if seen is None:
            msg = "the store is not open"
            raise RuntimeError(msg)
        self._write(replace(seen.row, position=position.encode(), epoch=position.epoch), seen)

    def clear(self) -> bool:
        """Forget the position, keep the epoch; return whether there was one."""
        seen = self._seen
        if seen is None or seen.row.position is None:
            return False
        self._write(replace(seen.row, position=None), seen)
        return True

    def look(self) -> Stored | None:
        """Return what is stored; takes no lock and makes nothing."""
        self._client = Client(self._config, End.STORE)
        try:
            return self.load()
        finally:
            self.close()

    def close(self) -> None:
        """Release the lock."""
        self._seen = None
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            self._lock.release()

    @property
    def _connected(self) -> Client:
        if self._client is None:
            msg = "the store is not open"
            raise RuntimeError(msg)
        return self._client

    @property
    def _path(self) -> str:
        document = f"{quote(self._context.pipeline, safe='')}@{quote(self._lane, safe='')}"
        return f"/{named(self._config.index)}/_doc/{quote(document, safe='')}"

    def _make_index(self) -> None:
        path = f"/{named(self._config.index)}"
        doing = f"looking at index {self._config.index}"
        if self._connected.ask("GET", f"{path}/_settings", doing=doing, missing=True) is not None:
            return
        doing = f"making index {self._config.index}"
        answer = self._connected.send("PUT", path, orjson.dumps(_BODY), doing)
        if answer.status >= OK and b"resource_already_exists_exception" not in answer.body:
            raise verdict(answer.status, answer.parsed(), End.STORE, doing)

    def _read(self) -> Seen | None:
        found = self._connected.ask("GET", self._path, doing="reading the position", missing=True)
        if found is None or not found.get("found"):
            return None
        return Seen(Row(**found["_source"]), found["_seq_no"], found["_primary_term"])

    def _write(self, row: Row, before: Seen | None) -> None:
        condition = "op_type=create" if before is None else f"if_seq_no={before.sequence}&if_primary_term={before.term}"
        document = {
            **asdict(row),
            "holder": holder(),
            "updated_at": now(),
        }
        doing = "storing the position"
        answer = self._connected.send("PUT", f"{self._path}?{condition}", orjson.dumps(document), doing)
        if answer.status == _CONFLICT:
            self._check(self._read())
            raise fence_lost(self._context.pipeline, None)
        said: Any = answer.parsed()
        if answer.status >= OK:
            raise verdict(answer.status, said, End.STORE, doing)
        self._seen = Seen(row, said["_seq_no"], said["_primary_term"])

    def _check(self, seen: Seen | None) -> None:
        """Take what is there as ours. Raises Fatal when it is another's."""
        if seen is None:
            msg = f"the position of pipeline {self._context.pipeline} is gone from index {self._config.index}"
            raise Fatal(
                msg, hint="who deletes it? bring it back, or copy everything again", status=ExitStatus.OWNERSHIP
            )
        if seen.row.fence != self._fence:
            raise fence_lost(self._context.pipeline, seen.row.holder)
        self._seen = seen


def clear(config: ElasticStoreConfig, context: SinkContext) -> bool:
    """Forget the pipeline's position, under the lock; return whether there was one."""
    store = ElasticStore(config, context)
    try:
        store.open(context.lane)
        return store.clear()
    finally:
        store.close()


def put(config: ElasticStoreConfig, context: SinkContext, position: Position) -> None:
    """Store this position with a new fence, under the lock. Raises Fatal while the pipeline runs."""
    store = ElasticStore(config, context)
    try:
        store.open(context.lane)
        store.save(position)
    finally:
        store.close()


def look(config: ElasticStoreConfig, context: SinkContext) -> Stored | None:
    """Return what is stored; takes no lock and makes nothing."""
    return ElasticStore(config, context).look()
