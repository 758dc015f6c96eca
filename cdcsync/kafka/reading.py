"""The latest committed record of a key in a compacted topic, found from the end backwards."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cdcsync.errors import End, Transient
from cdcsync.kafka.errors import error_of, verdict
from cdcsync.kafka.murmur2 import partition_of

if TYPE_CHECKING:
    from confluent_kafka import Message

    from cdcsync.kafka.client import KafkaClientConfig

WINDOW: Final = 2000
"""Offsets looked at first; each step back is four times as many."""
ANSWER_S: Final = 10.0
OPEN_S: Final = 70.0
"""For another pipeline's open transaction to end: what is behind it cannot be read until then."""


_NEW: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
"""What a topic that was just made answers for a moment."""


class Latest:
    """Reads one topic. Not for several threads at once."""

    def __init__(self, config: KafkaClientConfig, topic: str) -> None:
        self._config = config
        self._topic = topic
        self._consumer: Consumer | None = None
        self._partitions = 0

    def home(self, key: bytes) -> int:
        """Return the partition in which records of this key are written; the topic is there."""
        if not self._partitions:
            self._partitions = self._count()
        return partition_of(key, self._partitions)

    def read(self, key: bytes) -> bytes | None:
        """Return the value of the last committed record of a key, None where there is none. Raises Transient, Fatal."""
        until = time.monotonic() + ANSWER_S
        while True:
            try:
                return self._found(key)
            except KafkaException as error:
                if error_of(error).code() not in _NEW or time.monotonic() > until:
                    raise verdict(error_of(error), End.STORE, f"reading {self._topic}") from error
                self._reader().poll(0.1)

    def _found(self, key: bytes) -> bytes | None:
        self._partitions = self._count()
        if not self._partitions:
            return None
        home = partition_of(key, self._partitions)
        others = (at for at in range(self._partitions) if at != home)
        return next((found.value() for at in (home, *others) if (found := self._last(at, key)) is not None), None)

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        if self._consumer is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.close()
            self._consumer = None

    def _settings(self, isolation: str) -> dict[str, Any]:
        return {
            "log_level": 2,
            **self._config.settings("cdcsync positions"),
            "group.id": "cdcsync-positions",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "auto.offset.reset": "earliest",
        }

    def _reader(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(self._settings("read_committed"))
        return self._consumer

    def _count(self) -> int:
        """Return the number of partitions, 0 when there is no topic."""
        listed = self._reader().list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
        if listed.error is not None and listed.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(listed.error)
        return len(listed.partitions)

    def _last(self, partition: int, key: bytes) -> Message | None:
        low, high = self._ends(partition)
        window, until = WINDOW, high
        while until > low:
            begin = max(low, until - window)
            found = self._scan(partition, begin, until, key)
            if found is not None:
                return found
            until, window = begin, window * 4
        return None

    def _ends(self, partition: int) -> tuple[int, int]:
        """Return the first offset and the end, open transactions included."""
        consumer = Consumer(self._settings("read_uncommitted"))
        try:
            return consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=ANSWER_S)
        finally:
            consumer.close()

    def _scan(self, partition: int, begin: int, end: int, key: bytes) -> Message | None:
        """Return the last record of the key from `begin` up to `end`, when all before `end` is decided."""
        consumer = self._reader()
        consumer.assign([TopicPartition(self._topic, partition, begin)])
        deadline = time.monotonic() + OPEN_S
        found: Message | None = None
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error, offset = message.error(), message.offset() or 0
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
            elif offset < end and message.key() == key:
                found = message
            if offset >= end - (error is None):
                consumer.unassign()
                return found
        raise Transient(End.STORE, f"{self._topic} partition {partition} has a transaction that does not end")
