"""Reads changes out of topics."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cdcsync.change import Batch
from cdcsync.errors import End, Fatal, Transient
from cdcsync.kafka import start, topics
from cdcsync.kafka.batches import Batches
from cdcsync.kafka.errors import Verdict, error_of, rule_of, verdict
from cdcsync.kafka.position import KafkaPosition
from cdcsync.kafka.start import Begin, Chosen
from cdcsync.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from confluent_kafka import Message

    from cdcsync.change import Position
    from cdcsync.kafka.position import Topic
    from cdcsync.kafka.source_config import KafkaSource
    from cdcsync.ports import SourceContext

    Partition = tuple[str, int]

RECORDS_MAX: Final = 2000
"""Of one batch."""
IDLE_S: Final = 1.0
"""Shortest time between two batches that only move the position, and between two tellings of the group."""
LOOK_S: Final = 5.0
"""How often the topics are looked at: for new ones, more partitions, another one of the same name."""


class Told(Protocol):
    """Takes offsets that are durable, for whoever looks at the group's lag; nothing is read from them but a doubt."""

    def __call__(self, offsets: list[TopicPartition]) -> None:
        """Note them; never blocks."""
        ...


class KafkaTopics:
    """The source. See `ports.Source`; one thread calls its methods.

    With a `lane` it reads that partition alone, and `tell` passes its offsets on to the member of the group. A `tail`
    is nobody's pipeline: it tells nothing.
    """

    def __init__(
        self,
        config: KafkaSource,
        context: SourceContext,
        *,
        lane: Partition | None = None,
        tell: Told | None = None,
        tail: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._context = context
        self._lane = lane
        self._tell = tell
        self._tail = tail
        self._clock = clock
        self._avro = config.avro()
        self._name = f"cdcsync-{context.pipeline}" + (f"-{lane[0]}-{lane[1]}" if lane else "")
        self._consumer: Consumer | None = None
        self._topics: Topics | None = None
        self._batches: Batches | None = None
        self._first: Batch | None = None
        """A position that is stored before anything is read."""
        self._ends: Mapping[Partition, int] = {}
        """Up to where the old partitions are read before those that were added."""
        self._looking: dict[str, Future[Any]] = {}
        self._looked_at = 0.0
        self._given_at = 0.0
        self._given = ""
        self._told_at = 0.0
        self._told: KafkaPosition | None = None
        self._down: KafkaError | None = None
        """No broker answers."""

    def open(self, start_at: str | None, epoch: int) -> None:
        """Stand at `start_at`; with None begin as the configuration says."""
        self.close()
        stored = KafkaPosition.decode(start_at) if start_at is not None else None
        self._topics = Topics(self._config, self._name)
        chosen = Chosen(self._topics.find(), self._lane)
        self._down = None
        consumer = self._consumer = self._connected()
        if stored is None:
            begin = self._begin(consumer, chosen, epoch)
        else:
            begin = start.again(consumer, self._config, stored, chosen, epoch)
            if not self._tail:
                group = self._config.group_of(self._context.pipeline)
                told = topics.told(consumer, list(begin.here.places), group)
                start.refuse_behind(told, begin.here, self._context.pipeline)
        self._stand(consumer, begin)

    def poll(self, timeout_s: float) -> Batch | None:
        """Return the records at hand, or a new position of idle topics."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        consumer, batches = self._consumer, self._batches
        if consumer is None or batches is None:
            msg = "the source is not open"
            raise RuntimeError(msg)
        self._look()
        records = self._records(consumer, timeout_s)
        now = self._clock()
        if records:
            self._given_at = now
            batch = batches.take(records)
            return self._grown(consumer, batches, batch) or batch
        grown = self._grown(consumer, batches, None)
        return grown or self._idle(batches, now)

    def acknowledge(self, position: Position | None) -> None:
        """Tell the group, now and then, how far all is stored."""
        if not isinstance(position, KafkaPosition) or self._tail:
            return
        self._told = position
        if self._clock() - self._told_at >= IDLE_S:
            self._tell_group()

    def close(self) -> None:
        """Disconnect, the group told."""
        self._first = None
        self._looking = {}
        if self._told is not None:
            self._tell_group()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        if self._topics is not None:
            self._topics.close()
            self._topics = None

    def _begin(self, consumer: Consumer, chosen: Chosen, epoch: int) -> Begin:
        if self._tail:
            bounds = topics.ends(consumer, chosen.partitions())
            return start.at_end(chosen, bounds, self._config)
        return start.first(consumer, self._config, self._context, chosen, epoch + 1)

    def _connected(self) -> Consumer:
        group = f"cdcsync-tail-{os.getpid()}" if self._tail else self._config.group_of(self._context.pipeline)
        settings = {**topics.reading(self._config, self._name, group), "error_cb": self._note}
        try:
            return Consumer(settings)
        except KafkaException as error:
            raise verdict(error_of(error), End.SOURCE, "making a consumer") from error

    def _note(self, error: KafkaError) -> None:
        """Take what the client says beside the records; it tries again itself what may pass."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN or rule_of(error).verdict is not Verdict.TRANSIENT:
            self._down = error

    def _stand(self, consumer: Consumer, begin: Begin) -> None:
        here = begin.here
        self._batches = Batches(self._config.reading(self._avro), self._context, here, self._config.versions.value)
        self._ends = begin.ends
        self._first = Batch((), here, 0, 0) if begin.fresh and not self._tail else None
        self._given = here.encode()
        self._looked_at = self._given_at = self._clock()
        self._told = None
        consumer.assign([TopicPartition(name, at, place.offset) for (name, at), place in here.places.items()])

    def _records(self, consumer: Consumer, timeout_s: float) -> list[Message]:
        """Return the records at hand; wait for the first alone."""
        first = consumer.poll(timeout_s)
        self._raise_fault()
        if first is None:
            return []
        found = [first, *consumer.consume(RECORDS_MAX - 1, 0)]
        return [message for message in found if message.error() is None or self._judged(message)]

    def _judged(self, message: Message) -> bool:
        """Take what is no record: the end of a partition, or a fault. Raises Transient and Fatal. Returns False."""
        error = message.error()
        name, number, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        if error is None or self._batches is None:
            return False
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._batches.moved(name, number, offset)
            return False
        if code in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise Transient(End.SOURCE, f"{name}-{number} has moved on under us")
        if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}:
            raise Transient(End.SOURCE, f"topic {name} has gone")
        fault = topics.refused(name, error)
        if isinstance(fault, Fatal):
            raise fault
        return False

    def _raise_fault(self) -> None:
        down, self._down = self._down, None
        if down is not None:
            raise verdict(down, End.SOURCE, f"reading from {self._config.where}")

    def _look(self) -> None:
        """Now and then see whether the topics are still the same; what is not is judged on opening again."""
        if self._looking and all(future.done() for future in self._looking.values()):
            self._compare()
        now = self._clock()
        if self._lane is None and self._topics is not None and not self._looking and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            assert self._batches is not None  # noqa: S101  it is open
            self._looking = self._topics.ask(self._batches.here.topics)

    def _compare(self) -> None:
        asked, self._looking = self._looking, {}
        assert self._batches is not None  # noqa: S101  it is open
        for name, topic in self._batches.here.topics.items():
            future = asked.get(name)
            if future is None or future.exception() is not None:
                continue
            found = topics.topic_of(future.result())
            if found.id != topic.id or (found.partitions != topic.partitions and not self._ends):
                raise Transient(End.SOURCE, f"topic {name} has changed: it is looked at again")

    def _grown(self, consumer: Consumer, batches: Batches, batch: Batch | None) -> Batch | None:
        """Once the old partitions are read up to their ends, go on with those that were added too."""
        places = batches.here.places
        if not self._ends or any(places[key].offset < end for key, end in self._ends.items() if key in places):
            return None
        assert self._topics is not None  # noqa: S101  it is open
        found: dict[str, Topic] = self._topics.described(batches.here.topics)
        here = start.grown(consumer, batches.here, found)
        structlog.get_logger().info("partitions were added", pipeline=self._context.pipeline, epoch=here.epoch)
        self._stand(consumer, Begin(here))
        if batch is None:
            return Batch((), here, 0, 0)
        return Batch(batch.transactions, here, batch.changes, batch.size_bytes)

    def _idle(self, batches: Batches, now: float) -> Batch | None:
        """Return a batch that only moves the position, when nothing that was read was for us."""
        if now - self._given_at < IDLE_S:
            return None
        self._given_at = now
        encoded = batches.here.encode()
        if encoded == self._given:
            return None
        self._given = encoded
        return Batch((), batches.here, 0, 0)

    def _tell_group(self) -> None:
        position, self._told = self._told, None
        self._told_at = self._clock()
        if position is None or self._consumer is None:
            return
        offsets = [
            TopicPartition(name, at, place.offset, metadata=str(position.epoch))
            for (name, at), place in position.all.items()
        ]
        if self._tell is not None:
            self._tell(offsets)
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            structlog.get_logger().warning("the group was not told", said=str(error_of(error).str()))
