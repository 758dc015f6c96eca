"""Puts records together as batches: each record is a transaction of its own, those of one sender's version are one."""

from __future__ import annotations

import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from cdcsync.change import (
    EPOCH_BITS,
    PLACE_BITS,
    Batch,
    Change,
    SchemaChange,
    Table,
    Transaction,
    Unreadable,
    pack_version,
)
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.kafka.decoding import decoder_of
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record, table_of_topic
from cdcsync.kafka.position import KafkaPosition, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka import Message

    from cdcsync.change import Item
    from cdcsync.kafka.decoding import Reading
    from cdcsync.kafka.decoding.records import Decoder
    from cdcsync.ports import SourceContext

VERSION: Final = "version"
"""The header in which cdcsync writes the version of a change."""
PIPELINE: Final = "pipeline"
"""The header in which cdcsync writes which pipeline sent a change."""
_SLOTS: Final = 1 << 20
"""Partitions and topics told apart in an ordinal."""


class Batches:
    """Makes batches of one source's records, and knows where it stands."""

    def __init__(self, reading: Reading, context: SourceContext, here: KafkaPosition, versions: str = "auto") -> None:
        self._reading = reading
        self._context = context
        self._versions = versions
        self._here = here
        self._decoders: dict[str, Decoder] = {}
        self._known: set[tuple[str, str]] = set()
        self._stale = 0
        self._senders: dict[str, bytes | str] = {}
        self._log = structlog.get_logger().bind(pipeline=context.pipeline)

    @property
    def here(self) -> KafkaPosition:
        """After all that was taken."""
        return self._here

    def moved(self, topic: str, partition: int, offset: int) -> None:
        """Note that nothing lies before an offset: an aborted transaction, a record that compaction removed."""
        key = (topic, partition)
        place = self._here.places.get(key)
        if place is not None and place.offset < offset:
            self._here = self._at(self._here.epoch, {**self._here.places, key: Place(offset, place.version)})

    def take(self, messages: Iterable[Message]) -> Batch:
        """Return the batch of these records. Raises Fatal for what only a person can mend."""
        parts: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            parts.setdefault((message.topic() or "", message.partition() or 0), []).append(message)
        transactions: list[Transaction] = []
        size_bytes = 0
        for key, part in parts.items():
            if key in self._here.places:
                size_bytes += self._take_part(key, part, transactions)
        changes = sum(len(each.items) for each in transactions)
        return Batch(transactions, self._here, changes, size_bytes)

    def _take_part(self, key: tuple[str, int], messages: Sequence[Message], into: list[Transaction]) -> int:
        """Add the transactions of one partition's records; return their size."""
        topic, partition = key
        decoder = self._decoder(topic)
        run = _Run(self, key)
        slot = zlib.crc32(topic.encode()) % (_SLOTS >> 10) << 10 | partition % (1 << 10)
        place, size_bytes = self._here.places[key], 0
        for message in messages:
            offset = message.offset() or 0
            if offset < place.offset:
                continue
            value, name = message.value(), message.key()
            size_bytes += len(value or b"") + len(name or b"")
            version = self._version(key, message)
            if version >> PLACE_BITS < place.version >> PLACE_BITS:
                self._note_stale(topic, partition, offset)
                place = Place(offset + 1, place.version)
                continue
            place = Place(offset + 1, max(version, place.version))
            record = Record(topic, partition, offset, max(0, message.timestamp()[1]) * 1000, name, value)
            run.add(record, self._decoded(decoder, record), version, place, slot)
        run.end(into)
        self._here = self._at(self._here.epoch, {**self._here.places, key: place})
        return size_bytes

    def _decoded(self, decoder: Decoder, record: Record) -> Decoded:
        try:
            decoded = decoder.decode(record)
        except Malformed as error:
            return Decoded([_unreadable(record, str(error), self._reading.format)], record.time_us)
        except Transient as fault:
            raise Transient(fault.end, f"{record.place}: {fault}") from fault
        for item in decoded.items:
            if isinstance(item, Change):
                self._look_at(item.table, record)
        return decoded

    def _look_at(self, table: Table, record: Record) -> None:
        """Say once of a table that nobody wants it."""
        place = (table.schema, table.name)
        if place not in self._known:
            self._known.add(place)
            if self._context.selection.wants(*place) is None:
                self._log.warning("no entry takes this table", table=table.qualified, topic=record.topic)

    def _version(self, key: tuple[str, int], message: Message) -> int:
        """Return the sender's version, 0 where offsets are used. Raises Fatal where a topic has both."""
        topic = self._here.topics[key[0]]
        if topic.by_sender is False:
            return 0
        if self._versions == "offset":
            self._decide(key[0], by_sender=False)
            return 0
        headers = dict(message.headers() or ())
        sender = headers.get(PIPELINE)
        if sender is not None and sender != self._senders.get(key[0]):
            self._meet(key[0], sender, f"{key[0]}-{key[1]}@{message.offset()}")
        version = _number(headers.get(VERSION))
        if topic.by_sender is None:
            self._decide(key[0], by_sender=bool(version))
            return version
        if not version:
            where = f"{key[0]}-{key[1]}@{message.offset()}"
            msg = f"{where} has no header `{VERSION}`, which records before it have: the topic has several writers"
            raise Fatal(msg, hint="set `versions: offset` in the source's section", status=ExitStatus.DATA)
        return version

    def _meet(self, topic: str, sender: bytes | str, where: str) -> None:
        """Look at the first record of a sender. Raises Fatal for our own, and for a second one's versions."""
        name = sender if isinstance(sender, str) else sender.decode(errors="replace")
        if name == self._context.pipeline:
            msg = f"this pipeline would read what it writes: {where} was written by {name}"
            raise Fatal(msg, hint="write to other topics than those that are read", status=ExitStatus.CONFIG)
        if topic in self._senders:
            msg = f"topic {topic} has several senders, whose versions cannot be compared: {where} is {name}'s"
            raise Fatal(msg, hint="set `versions: offset` in the source's section", status=ExitStatus.CONFIG)
        self._senders[topic] = sender

    def _decide(self, name: str, *, by_sender: bool) -> None:
        topics = {**self._here.topics, name: self._here.topics[name]._replace(by_sender=by_sender)}
        self._here = KafkaPosition(self._here.epoch, topics, self._here.places)

    def version_at(self, offset: int) -> int:
        """Return the version of a record that has none of its sender's."""
        return pack_version(self._here.epoch, offset + 1)

    def adopt(self, version: int) -> None:
        """Take over the epoch of a sender's version."""
        epoch = version >> PLACE_BITS
        if epoch > self._here.epoch:
            self._here = KafkaPosition(epoch, self._here.topics, self._here.places)

    def place(self, key: tuple[str, int], place: Place) -> KafkaPosition:
        """Return the position after a record of a partition."""
        return KafkaPosition(self._here.epoch, self._here.topics, self._here.places, (key, place))

    def _at(self, epoch: int, places: dict[tuple[str, int], Place]) -> KafkaPosition:
        return KafkaPosition(epoch, self._here.topics, places)

    def _decoder(self, topic: str) -> Decoder:
        found = self._decoders.get(topic)
        if found is None:
            found = self._decoders[topic] = decoder_of(self._reading)
        return found

    def _note_stale(self, topic: str, partition: int, offset: int) -> None:
        """Say that a sender wrote that had been replaced; seldom, as there may be many."""
        if self._stale % 1000 == 0:
            self._log.warning("written in an older epoch, dropped", topic=topic, partition=partition, offset=offset)
        self._stale += 1


class _Run:
    """The transaction that is being put together."""

    __slots__ = ("_batches", "_items", "_key", "_made", "_ordinals", "_place", "_rest", "_version")

    def __init__(self, batches: Batches, key: tuple[str, int]) -> None:
        self._batches = batches
        self._key = key
        self._made: list[Transaction] = []
        self._items: list[Item] = []
        self._ordinals: list[int] = []
        self._version = 0
        self._place = Place(0)
        self._rest = ("", 0)
        """Identity and commit time."""

    def add(self, record: Record, decoded: Decoded, version: int, place: Place, slot: int) -> None:
        """Add a record; one with another version than that before it begins a transaction."""
        if not decoded.items:
            self._place = place
            return
        if not version or version != self._version:
            self._close()
            self._version = version or self._batches.version_at(record.offset)
            self._rest = (decoded.transaction if version else record.place, decoded.time_us)
            if version:
                self._batches.adopt(version)
        self._place = place
        first = (record.offset if version else 0) * _SLOTS + slot
        step = 0
        for item in decoded.items:
            self._items.append(item)
            self._ordinals.append(first + step * (_SLOTS << 21))
            if not isinstance(item, SchemaChange):
                step += 1

    def end(self, into: list[Transaction]) -> None:
        """Give all transactions."""
        self._close()
        into += self._made

    def _close(self) -> None:
        if not self._items:
            return
        identity, time_us = self._rest
        position = self._batches.place(self._key, self._place)
        name = identity or str(self._version)
        self._made.append(Transaction(name, time_us, position, self._version, self._items, self._ordinals))
        self._items, self._ordinals = [], []


def _number(raw: bytes | str | None) -> int:
    try:
        number = int(raw) if raw is not None else 0
    except ValueError:
        return 0
    return number if 0 < number < 1 << (EPOCH_BITS + PLACE_BITS) else 0


def _unreadable(record: Record, reason: str, format_: str) -> Unreadable:
    """Return the item that says what is wrong with a record, and keeps all of it."""

    def shown(raw: bytes | None) -> str | None:
        return None if raw is None else b64encode(raw).decode()

    whole: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time_us": record.time_us,
        "key_base64": shown(record.key),
        "value_base64": shown(record.value),
    }
    table = Table(*table_of_topic(record.topic), ())
    return Unreadable(table, f"{record.place} cannot be read as {format_}: {reason}", orjson.dumps(whole))
