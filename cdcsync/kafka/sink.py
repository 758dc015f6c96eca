"""Kafka as a sink: a batch is one transaction, the position among its records; or, without transactions, sent at once."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from cdcsync.change import Change, CopyStart, Message
from cdcsync.errors import End, ExitStatus, Fatal, Incomplete, Rejected
from cdcsync.kafka.blame import Blame
from cdcsync.kafka.completing import earlier
from cdcsync.kafka.copies import begin_copies
from cdcsync.kafka.encoding.debezium import message_event
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.outbox import Outbox
from cdcsync.kafka.encoding.records import Sender
from cdcsync.kafka.encoding.rows import Partial
from cdcsync.kafka.encoding.tables import encoder_of
from cdcsync.kafka.encoding.transactions import Counter
from cdcsync.kafka.positions import KafkaPositions
from cdcsync.kafka.producer import Channel, Fenced
from cdcsync.kafka.targets import Topics, topic_of
from cdcsync.ports import Guarantee, SinkContext
from cdcsync.positions import kept_elsewhere, refuse_gone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError

    from cdcsync.change import Batch, Position, Table, Transaction
    from cdcsync.kafka.config import KafkaSink as Config
    from cdcsync.kafka.encoding.records import Encoded, TableEncoder
    from cdcsync.kafka.producer import Headers

Where = tuple[int, int]


class Going(NamedTuple):
    """A batch on its way."""

    channel: Channel
    batch: Batch
    now_us: int


class Writer:
    """Turns batches into records of a channel; what both kinds of sink share."""

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._sender = Sender.of(context.pipeline, version("cdcsync"), context.source)
        self._encoders: dict[Table, tuple[str, TableEncoder]] = {}
        self._outboxes: dict[Table, Outbox] = {}
        self.counter = Counter() if config.transaction_topic is not None else None
        self._topics: Topics | None = None
        self._known: set[str] = set()
        """Topics that are there."""
        self._refused: dict[Where, str] = {}
        self._partial: dict[Where, str] = {}
        self._log = structlog.get_logger().bind(pipeline=context.pipeline)

    def prepare(self, stored: frozenset[str]) -> None:
        """Make or find the topics of the mapped tables; `stored` are the tables that a stored position knows.

        Raises Transient, Fatal.
        """
        self._known.clear()
        self._encoders.clear()
        self._outboxes.clear()
        self._topics = Topics(self._config, End.SINK)
        outbox = self._config.outbox
        tables = [table for table in self._context.tables if outbox is None or not outbox.is_of(table)]
        if self._config.transaction_topic is not None:
            self._ready(self._config.transaction_topic)
        if stored:
            gone = [table for table in tables if not self._topics.partitions(self.topic(table))]
            refuse_gone(self._context.pipeline, gone, stored)
        for table in tables:
            self._made(table)

    def begin_copies(self, batch: Batch) -> None:
        """Find the topics of first copies empty, or make them so when an interrupted copy begins again."""
        for transaction in batch.transactions:
            starts = [item for item in transaction.items if isinstance(item, CopyStart)]
            if starts:
                begin_copies(self._config, {self.topic(start.table): start.again for start in starts})

    def topic(self, table: Table) -> str:
        """Return the topic of a table."""
        return topic_of(self._config.topic, self._context.pipeline, table)

    def send(self, channel: Channel, batch: Batch) -> None:
        """Hand all records over. Raises Rejected, Incomplete, Transient, Fatal, Fenced."""
        self._refused.clear()
        self._partial.clear()
        going = Going(channel, batch, time.time_ns() // 1000)
        for at, transaction in enumerate(batch.transactions):
            headers = self._headers(transaction)
            counts = self.counter is not None and any(type(item) is Change for item in transaction.items)
            if counts:
                self._tell(going, transaction, headers, begins=True)
            for index, item in enumerate(transaction.items):
                if type(item) is Change:
                    self._send(going, (at, index), item, headers)
                elif isinstance(item, Message):
                    topic = f"{self._context.pipeline}.message"
                    self._ready(topic)
                    channel.send(topic, [message_event(item, self._sender, transaction, going.now_us)], headers)
            if counts:
                self._tell(going, transaction, headers, begins=False)
        self._judge()

    def _tell(self, going: Going, transaction: Transaction, headers: Headers, *, begins: bool) -> None:
        """Say in the topic of transactions that one begins or ends."""
        if self.counter is not None and self._config.transaction_topic is not None:
            told = self.counter.begin(transaction) if begins else self.counter.end(transaction)
            going.channel.send(self._config.transaction_topic, told, headers)

    def _send(self, going: Going, where: Where, change: Change, headers: Headers) -> None:
        found = self._encoders.get(change.table)
        if found is None:
            outbox = self._config.outbox
            if outbox is not None and outbox.is_of(change.table):
                self._route(going, where, change, headers)
                return
            found = self._made(change.table)
        topic, encoder = found
        try:
            records = encoder.encode(change, going.batch.transactions[where[0]], going.now_us)
        except Partial:
            if self.counter is not None:
                self.counter.undo(change.table)
            records = self._completed(encoder, going, where, change)
        except Unfit as unfit:
            self._refused[where] = str(unfit)
            return
        if going.channel.send(topic, records, headers) is not None:
            self._refused[where] = f"it is larger than message.max.bytes allows: {TOO_LARGE}"

    def _route(self, going: Going, where: Where, change: Change, headers: Headers) -> None:
        """Send the message that a row of the outbox is."""
        outbox = self._outboxes.get(change.table)
        if outbox is None and self._config.outbox is not None:
            outbox = self._outboxes[change.table] = Outbox(change.table, self._config.outbox)
        try:
            routed = outbox.route(change) if outbox is not None else None
        except Unfit as unfit:
            self._refused[where] = str(unfit)
            return
        if routed is not None:
            self._ready(routed.topic)
            if going.channel.send(routed.topic, [(routed.key, routed.value)], [*headers, *routed.headers]) is not None:
                self._refused[where] = f"it is larger than message.max.bytes allows: {TOO_LARGE}"

    def _completed(self, encoder: TableEncoder, going: Going, where: Where, change: Change) -> list[Encoded]:
        """Return the records of a change that takes what it lacks from an earlier one of its key in the batch."""
        try:
            whole = earlier(going.batch, where, change)
            return encoder.encode(whole, going.batch.transactions[where[0]], going.now_us)
        except Partial as partial:
            self._partial[where] = f"{partial}; ALTER TABLE .. REPLICA IDENTITY FULL has every change carry it"
        except Unfit as unfit:
            self._refused[where] = str(unfit)
        return []

    def _judge(self) -> None:
        if self._refused:
            raise Rejected(self._refused | self._partial)
        if self._partial:
            raise Incomplete(self._partial)

    def _made(self, table: Table) -> tuple[str, TableEncoder]:
        topic = self.topic(table)
        self._ready(topic)
        made = self._encoders[table] = (topic, encoder_of(table, self._config, self._sender, topic, self.counter))
        return made

    def _ready(self, topic: str) -> None:
        if topic in self._known or self._topics is None:
            return
        config = self._config
        if config.create_topics:
            settings = {name: _word(value) for name, value in config.topic_config.items()}
            if self._topics.ensure(topic, config.partitions, config.replication, settings):
                self._log.info("topic made", topic=topic)
        else:
            self._topics.require(topic)
        self._known.add(topic)

    def _headers(self, transaction: Transaction) -> Headers:
        return [("version", b"%d" % transaction.version), ("pipeline", self._context.pipeline)]

    def kept(self, batch: Batch) -> dict[str, Any] | None:
        """Return what the next part of a large transaction goes on from, None where there is nothing of it."""
        within = bool(batch.transactions) and not batch.transactions[-1].last
        return None if self.counter is None else self.counter.keep(within=within)

    def go_on(self, kept: dict[str, Any] | None) -> None:
        """Count on from what was committed last."""
        if self.counter is not None:
            self.counter.restore(kept)

    def blame(self, batch: Batch, error: KafkaError) -> Rejected:
        """Return which items the brokers refused. Raises Fatal where no single record is to blame."""
        if self._topics is None:
            raise kept_elsewhere(self._context.pipeline)
        return Blame(self._topics, self._records_of).of(batch, error)

    def _records_of(self, change: Change, transaction: Transaction) -> tuple[str, Sequence[Encoded]]:
        """Return the topic and the records of a change that was sent before."""
        outbox = self._outboxes.get(change.table)
        routed = outbox.route(change) if outbox is not None else None
        if change.table not in self._encoders:
            return (routed.topic, [(routed.key, routed.value)]) if routed is not None else ("", [])
        topic, encoder = self._encoders[change.table]
        return topic, encoder.encode(change, transaction, 0)


class KafkaSink:
    """Writes each batch in one transaction; a large source transaction is visible by its parts."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._pipeline = context.pipeline
        self._store = KafkaPositions(config, context, kept=True, partitioner=config.partitioner.value)
        self._writer = Writer(config, context)
        self._last: Position | None = None
        """Committed by this object since it was opened."""
        self._stored = ""
        """The position in the topic, encoded."""

    def positions(self) -> KafkaPositions:
        """Return the store that shares producer and fence."""
        return self._store

    def open(self) -> int:
        """Make or find the topics; return the epoch stored. The store is open."""
        if not self._store.is_open:
            raise kept_elsewhere(self._pipeline)
        self._last = None
        self._writer.prepare(self._store.known)
        stored = self._store.load()
        self._stored = stored.position if stored else ""
        self._writer.go_on(self._store.extra())
        return self._store.epoch()

    def write(self, batch: Batch) -> Position | None:
        """Write and commit with the position."""
        if self._is_written(batch):
            return batch.position
        self._writer.begin_copies(batch)
        channel = self._store.channel
        try:
            channel.begin()
            self._writer.send(channel, batch)
            self._store.put_in(batch.position, self._writer.kept(batch))
            refused = channel.commit()
        except Fenced as fenced:
            raise self._store.lost(fenced) from fenced
        except BaseException:
            channel.abort()
            self._writer.go_on(self._store.extra())
            raise
        if refused is not None:
            channel.abort()
            self._store.renew()
            rejected = self._writer.blame(batch, refused)
            self._writer.go_on(self._store.extra())
            raise rejected
        self._store.committed()
        self._last = batch.position
        return batch.position

    def _is_written(self, batch: Batch) -> bool:
        """Return whether the batch is committed already; a copy that begins never is."""
        if self._last is not None:
            written = self._last.covers(batch.position)
        else:
            written = self._stored == batch.position.encode()
        return written and not any(isinstance(item, CopyStart) for each in batch.transactions for item in each.items)

    def flush(self) -> Position | None:
        """Nothing waits: every write is durable on return."""
        return None

    def close(self) -> None:
        """Undo what is not committed; the store closes the producer."""
        if self._store.is_open:
            self._store.channel.abort()


class PlainSink:
    """Sends records without transactions: at less delay, and after a crash some may come again."""

    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._channel = Channel(config, f"cdcsync {context.pipeline}", partitioner=config.partitioner.value)
        self._writer = Writer(config, context)

    def open(self) -> None:
        """Connect, make or find the topics; no epoch is kept there."""
        self._channel.open()
        self._writer.prepare(frozenset())

    def write(self, batch: Batch) -> Position | None:
        """Send, and return once all is acknowledged."""
        try:
            self._channel.begin()
            self._writer.send(self._channel, batch)
            refused = self._channel.commit()
        except Fenced as fenced:
            raise Fatal(str(fenced), hint="see the broker's log", status=ExitStatus.OWNERSHIP) from fenced
        if refused is not None:
            self._channel.close()
            self._channel.open()
            raise self._writer.blame(batch, refused)
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits."""
        return None

    def close(self) -> None:
        """Give up what was not sent and disconnect."""
        self._channel.close()


TOO_LARGE = "raise it under `client` with the topic's max.message.bytes, or leave columns out"


def _word(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
