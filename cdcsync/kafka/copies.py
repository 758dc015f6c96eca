"""Where a first copy goes: an empty topic, or one whose records of an interrupted copy are deleted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.kafka.errors import error_of, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.kafka.client import KafkaClientConfig

ANSWER_S: Final = 10.0
LOOK_S: Final = 70.0
"""For open transactions to end."""
END: Final = -1
"""`OFFSET_END`, for a deletion of all records."""


def begin_copies(config: KafkaClientConfig, topics: Mapping[str, bool]) -> None:
    """Delete the records of topics whose copy begins again; raise Fatal for others that are not empty."""
    settings = {
        "log_level": 2,
        **config.settings("cdcsync copy"),
        "group.id": "cdcsync-copy",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    try:
        for topic, again in topics.items():
            parts = [TopicPartition(topic, each, 0) for each in _partitions(consumer, topic)]
            if again:
                _clear(config, topic, parts)
            elif not _is_empty(consumer, parts):
                msg = f"topic {topic} is not empty at the start of the first copy"
                hint = "delete it, name another under `topic`, or set `start: now` at the source"
                raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    except KafkaException as error:
        raise verdict(error_of(error), End.SINK, "beginning a copy") from error
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    found = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
    return list(found.partitions)


def _is_empty(consumer: Consumer, parts: list[TopicPartition]) -> bool:
    """Return whether no committed record is there; aborted ones are none."""
    for part in parts:
        part.offset = consumer.get_watermark_offsets(part, timeout=ANSWER_S)[0]
    consumer.assign(parts)
    left = {part.partition for part in parts}
    until = time.monotonic() + LOOK_S
    while left:
        if time.monotonic() > until:
            msg = f"topic {parts[0].topic} has a transaction that does not end"
            raise Transient(End.SINK, msg)
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is None:
            return False
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        left.discard(message.partition() or 0)
    return True


def _clear(config: KafkaClientConfig, topic: str, parts: list[TopicPartition]) -> None:
    """Delete all records. Raises Fatal where the topic's policy forbids that."""
    admin = AdminClient({"log_level": 2, **config.settings("cdcsync copy")})
    asked: dict[Any, Any] = admin.delete_records([TopicPartition(topic, part.partition, END) for part in parts])
    for made in asked.values():
        try:
            made.result(ANSWER_S)
        except KafkaException as error:
            if error_of(error).code() != KafkaError.POLICY_VIOLATION:
                raise
            msg = f"topic {topic} holds records of an interrupted copy, and its cleanup.policy lets none be deleted"
            raise Fatal(msg, hint="delete the topic and start again", status=ExitStatus.CONFIG) from error
