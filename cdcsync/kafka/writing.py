"""A batch as records, encoded before the first of them is sent; what both kinds of sink share."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import structlog

from cdcsync.change import Change, CopyStart, Message
from cdcsync.errors import End, Incomplete, Rejected
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
from cdcsync.kafka.targets import Topics, topic_of
from cdcsync.positions import kept_elsewhere, refuse_gone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError

    from cdcsync.change import Batch, Table, Transaction
    from cdcsync.kafka.config import KafkaSink as Config
    from cdcsync.kafka.encoding.records import Encoded, RunEncoder, TableEncoder
    from cdcsync.kafka.producer import Channel, Headers
    from cdcsync.ports import SinkContext

Where = tuple[int, int]


class Parcel(NamedTuple):
    """Records for one topic, in order."""

    topic: str
    headers: Headers
    records: list[Encoded]
    where: Where
    """The first item that they are of; each record after it is the next item's, where there is more than one item."""
    items: int = 1


class Route(NamedTuple):
    """How a table's changes are written."""

    topic: str
    encoder: TableEncoder
    runs: RunEncoder | None


class Going(NamedTuple):
    """A batch that is being encoded."""

    batch: Batch
    now_us: int
    parcels: list[Parcel]


class Writer:
    """Turns batches into records of a channel."""

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._name = context.pipeline.encode()
        self._sender = Sender.of(context.pipeline, version("cdcsync"), context.source)
        self._routes: dict[Table, Route] = {}
        self._by_object: tuple[Table | None, Route | None] = (None, None)
        """The table object met last: to find one among equal ones costs more than to write its row."""
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
        self._routes.clear()
        self._by_object = (None, None)
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

    def encode(self, batch: Batch) -> list[Parcel]:
        """Return all records of a batch, in order. Raises Rejected, Incomplete, Transient, Fatal."""
        self._refused.clear()
        self._partial.clear()
        going = Going(batch, time.time_ns() // 1000, [])
        for at, transaction in enumerate(batch.transactions):
            headers = self._headers(transaction)
            counts = self.counter is not None and any(type(item) is Change for item in transaction.items)
            if counts:
                self._tell(going, at, headers, begins=True)
            self._transaction(going, at, headers)
            if counts:
                self._tell(going, at, headers, begins=False)
        if self._refused:
            raise Rejected(self._refused | self._partial)
        if self._partial:
            raise Incomplete(dict(self._partial))
        return going.parcels

    def send(self, channel: Channel, parcels: Sequence[Parcel]) -> None:
        """Hand all records over. Raises Rejected, Transient, Fatal, Fenced."""
        refused: dict[Where, str] = {}
        for parcel in parcels:
            start = 0
            while (large := channel.send(parcel.topic, parcel.records, parcel.headers, start)) is not None:
                refused[_owner(parcel, large)] = f"it is larger than message.max.bytes allows: {TOO_LARGE}"
                start = large + 1
        if refused:
            raise Rejected(refused)

    def _transaction(self, going: Going, at: int, headers: Headers) -> None:
        transaction = going.batch.transactions[at]
        items = transaction.items
        index = 0
        end = len(items)
        while index < end:
            item = items[index]
            if type(item) is Change:
                taken = self._run(going, (at, index), item.table, headers)
                if not taken:
                    self._change(going, (at, index), item, headers)
                index += taken or 1
                continue
            if isinstance(item, Message):
                topic = f"{self._context.pipeline}.message"
                self._ready(topic)
                event = message_event(item, self._sender, transaction, going.now_us)
                going.parcels.append(Parcel(topic, headers, [event], (at, index)))
            index += 1

    def _run(self, going: Going, where: Where, table: Table, headers: Headers) -> int:
        """Encode the changes that follow each other in one table; return how many, 0 when they go one by one."""
        route = self._route_of(table)
        if route is None or route.runs is None:
            return 0
        at, index = where
        transaction = going.batch.transactions[at]
        records: list[Encoded] = []
        taken = route.runs.encode_run(transaction.items, index, transaction, going.now_us, records) - index
        if taken:
            going.parcels.append(Parcel(route.topic, headers, records, where, taken))
        return taken

    def _tell(self, going: Going, at: int, headers: Headers, *, begins: bool) -> None:
        """Say in the topic of transactions that one begins or ends."""
        transaction = going.batch.transactions[at]
        if self.counter is not None and self._config.transaction_topic is not None:
            told = self.counter.begin(transaction) if begins else self.counter.end(transaction)
            going.parcels.append(Parcel(self._config.transaction_topic, headers, told, (at, 0)))

    def _route_of(self, table: Table) -> Route | None:
        """Return how a table is written; None for an outbox."""
        last, route = self._by_object
        if last is table:
            return route
        route = self._routes.get(table)
        if route is None and (self._config.outbox is None or not self._config.outbox.is_of(table)):
            route = self._made(table)
        self._by_object = (table, route)
        return route

    def _change(self, going: Going, where: Where, change: Change, headers: Headers) -> None:
        """Encode one change that may be other than one record."""
        route = self._route_of(change.table)
        if route is None:
            self._route(going, where, change, headers)
            return
        try:
            records = route.encoder.encode(change, going.batch.transactions[where[0]], going.now_us)
        except Partial:
            if self.counter is not None:
                self.counter.undo(change.table)
            records = self._completed(route.encoder, going, where, change)
        except Unfit as unfit:
            self._refused[where] = str(unfit)
            return
        going.parcels.append(Parcel(route.topic, headers, records, where))

    def _route(self, going: Going, where: Where, change: Change, headers: Headers) -> None:
        """Encode the message that a row of the outbox is."""
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
            message = (routed.key, routed.value)
            going.parcels.append(Parcel(routed.topic, [*headers, *routed.headers], [message], where))

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

    def _made(self, table: Table) -> Route:
        topic = self.topic(table)
        self._ready(topic)
        follows = self._context.follows(table)
        encoder = encoder_of(table, self._config, self._sender, topic, self.counter, follows)
        made = self._routes[table] = Route(topic, encoder, _runs(encoder))
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
        return [("version", b"%d" % transaction.version), ("pipeline", self._name)]

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
        if change.table not in self._routes:
            return (routed.topic, [(routed.key, routed.value)]) if routed is not None else ("", [])
        route = self._routes[change.table]
        return route.topic, route.encoder.encode(change, transaction, 0)


def _runs(encoder: TableEncoder) -> RunEncoder | None:
    return cast("RunEncoder", encoder) if hasattr(encoder, "encode_run") else None


def _owner(parcel: Parcel, number: int) -> Where:
    """Return which item a record of a parcel is of."""
    at, index = parcel.where
    return (at, index) if parcel.items == 1 else (at, index + number)


TOO_LARGE: Final = "raise it under `client` with the topic's max.message.bytes, or leave columns out"


def _word(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
