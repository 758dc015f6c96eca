"""The position in a compacted topic, keyed by pipeline and lane: for any sink, or in the sink's own transaction.

A record is JSON with the columns of `cdcsync.positions.POSITIONS`. The transactional id is the lane's, so that to take
the lane fences every older producer, before the position is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.errors import CdcsyncError, End, Fatal, Transient
from cdcsync.kafka.producer import Channel, Fenced
from cdcsync.kafka.reading import Latest
from cdcsync.kafka.targets import Topics
from cdcsync.ports import SinkContext, Stored
from cdcsync.positions import LockFile, fence_lost, holder, now, refuse_other_source

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.kafka.config import KafkaStore

SETTINGS: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": "16777216",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
}
"""Of the topic: small segments, or what was superseded stays until a large one is full."""
PARTITIONS: Final = 8


class KafkaPositions:
    """Keeps one lane's position; with `kept`, a sink commits it and `save` has nothing left to do."""

    def __init__(self, config: KafkaStore, context: SinkContext, *, kept: bool = False, **settings: Any) -> None:
        self._config = config
        self._context = context
        self._kept = kept
        self._settings = settings
        self._lane = context.lane
        self._lock: LockFile | None = None
        self._fence: int | None = None
        self._latest = Latest(config, config.positions_topic)
        self._channel: Channel | None = None
        self._record: dict[str, Any] = {}
        """What the topic holds of this lane, as last read or written."""
        self._extra: dict[str, Any] | None = None
        self.known: frozenset[str] = frozenset()
        """The target tables that there were when a position was stored; empty when none is."""

    @property
    def channel(self) -> Channel:
        """The producer, which the sink shares."""
        if self._channel is None:
            msg = "the store is not open"
            raise RuntimeError(msg)
        return self._channel

    @property
    def is_open(self) -> bool:
        """Whether the producer is there."""
        return self._channel is not None and self._channel.is_open

    def open(self, lane: str) -> None:
        """Take the lock, and once the fence; afterwards check it."""
        self._lane = lane
        if not self._context.shared:
            self._lock = self._lock or LockFile.at(self._context.state, self._context.pipeline, lane)
            self._lock.acquire()
        if self.is_open:
            self._checked()
            return
        Topics(self._config, End.STORE).ensure(
            self._config.positions_topic, PARTITIONS, self._config.positions_replication, SETTINGS
        )
        if self._fence is not None:
            self._checked()
        name = transactional_id(self._context.pipeline, lane)
        self._channel = Channel(self._config, f"cdcsync {self._context.pipeline}", name, **self._settings)
        self._channel.open(End.STORE)
        record = self._read()
        if record.get("position") is not None:
            refuse_other_source(self._context, record.get("source", ""))
        if self._fence is None:
            self._take()
        else:
            self._checked()

    def _take(self) -> None:
        """Write the next fence, and who has it."""
        before = self._record
        if before.get("position") is not None:
            self.known = frozenset(before.get("tables", ()))
        tables = [table.qualified for table in self._context.tables]
        fence = int(before.get("fence", 0)) + 1
        self._write(
            {
                "pipeline": self._context.pipeline,
                "lane": self._lane,
                "epoch": before.get("epoch", 0),
                "fence": fence,
                "position": before.get("position"),
                "source": self._context.source or before.get("source", ""),
                "tables": tables or before.get("tables", []),
                "holder": holder(),
                **({"extra": before["extra"]} if before.get("extra") else {}),
            }
        )
        self._fence = fence

    def _write(self, record: dict[str, Any]) -> None:
        """Store a record in a transaction of its own."""
        try:
            self.channel.begin()
            self._send(record)
            self.channel.commit()
        except Fenced as fenced:
            raise self.lost(fenced) from fenced

    def _send(self, record: dict[str, Any]) -> None:
        self._record = record
        value = orjson.dumps({**record, "updated_at": now()})
        key = self._key()
        self.channel.put(self._config.positions_topic, self._latest.home(key), key, value)

    def _key(self) -> bytes:
        return orjson.dumps({"pipeline": self._context.pipeline, "lane": self._lane})

    def _read(self) -> dict[str, Any]:
        value = self._latest.read(self._key())
        self._record = orjson.loads(value) if value is not None else {}
        self._extra = self._record.get("extra")
        return self._record

    def _checked(self) -> dict[str, Any]:
        """Return the record. Raises Fatal when the fence is no longer ours."""
        record = self._read()
        if self._fence is not None and record.get("fence") != self._fence:
            raise fence_lost(self._context.pipeline, record.get("holder"))
        return record

    def lost(self, fenced: Fenced) -> CdcsyncError:
        """Return the verdict of a producer that was fenced: Fatal when another has the lane, else open again."""
        self.channel.close()
        try:
            self._checked()
        except Fatal as fatal:
            return fatal
        return Transient(End.SINK, f"{fenced}: the brokers ended a transaction that took too long")

    def renew(self) -> None:
        """Have a new producer: one whose records were refused has a gap in their numbers."""
        self.channel.close()
        self._checked()
        self.channel.open(End.STORE)

    def epoch(self) -> int:
        """Return the highest epoch stored, 0 when there is none."""
        return int(self._record.get("epoch", 0))

    def load(self) -> Stored | None:
        """Return what is stored. Raises Fatal when the fence, once taken, is no longer ours."""
        return stored_in(self._checked())

    def extra(self) -> dict[str, Any] | None:
        """Return what the sink committed beside the last position."""
        return self._extra

    def put_in(self, position: Position, extra: dict[str, Any] | None = None) -> None:
        """Store within the transaction that is open, with what the sink goes on from; it counts once committed."""
        record = {**self._record, "position": position.encode(), "epoch": position.epoch}
        record.pop("extra", None)
        self._send(record | ({"extra": extra} if extra else {}))

    def committed(self) -> None:
        """Note that what was put in is there."""
        self._extra = self._record.get("extra")

    def save(self, position: Position) -> None:
        """Store durably on condition of the fence; nothing to do where the sink did."""
        if not self._kept:
            self._write({**self._record, "position": position.encode(), "epoch": position.epoch})

    def clear(self) -> bool:
        """Forget the position, keep the epoch; return whether there was one. The store is open."""
        if self._record.get("position") is None:
            return False
        self._write({**self._record, "position": None, "extra": None})
        return True

    def look(self) -> Stored | None:
        """Return what is stored, changing nothing."""
        return stored_in(self._read())

    def close(self) -> None:
        """Undo what is not committed, disconnect and release the lock."""
        if self._channel is not None:
            self._channel.abort()
            self._channel.close()
            self._channel = None
        self._latest.close()
        if self._lock is not None:
            self._lock.release()


def stored_in(record: dict[str, Any]) -> Stored | None:
    """Return the position of a record, None where it has none."""
    position = record.get("position")
    return None if position is None else Stored(position, int(record.get("epoch", 0)))


def transactional_id(pipeline: str, lane: str) -> str:
    """Return the lane's name at the transaction coordinator."""
    return f"cdcsync-{pipeline}-{lane}" if lane else f"cdcsync-{pipeline}"


def clear(config: KafkaStore, context: SinkContext) -> bool:
    """Forget the pipeline's position, under the lock; return whether there was one."""
    store = KafkaPositions(config, context)
    try:
        store.open(context.lane)
        return store.clear()
    finally:
        store.close()


def look(config: KafkaStore, context: SinkContext) -> Stored | None:
    """Return what is stored; takes no lock and changes nothing."""
    store = KafkaPositions(config, context)
    try:
        return store.look()
    finally:
        store.close()


def put(config: KafkaStore, context: SinkContext, position: Position) -> None:
    """Store this position with a new fence, under the lock. Raises Fatal while the pipeline runs here."""
    store = KafkaPositions(config, context)
    try:
        store.open(context.lane)
        store.save(position)
    finally:
        store.close()
