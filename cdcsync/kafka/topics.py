"""What a cluster says of topics: which there are, their identifiers, and where their partitions begin and end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.kafka.errors import error_of, verdict
from cdcsync.kafka.position import Topic
from cdcsync.kafka.source_config import is_pattern, topic_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future
    from typing import Any

    from cdcsync.kafka.source_config import KafkaSource

    Partition = tuple[str, int]

SETTLE_S: Final = 0.1
_SETTLING: Final = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)
PATIENCE_S: Final = 10.0
"""For one answer; then the cluster is away."""
_INTERNAL: Final = "__"
_READING: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "queued.min.messages": 4_000,
    "queued.max.messages.kbytes": 4096,
    "fetch.queue.backoff.ms": 5,
    "fetch.max.bytes": 1 << 20,
    "fetch.message.max.bytes": 256 << 10,
    "fetch.wait.max.ms": 200,
    "log_level": 0,
}
"""librdkafka's settings of every reader: nothing uncommitted, no gap, and what waits is bounded in bytes.

A fetch is counted as it was compressed, and lies in memory many times as large: larger ones cost memory and no time.
"""


def reading(config: KafkaSource, client_id: str, group: str) -> dict[str, Any]:
    """Return the settings of a reader: the configuration's own win, which may be none that the promise needs."""
    return {**_READING, **config.settings(client_id), "group.id": group}


class Topics:
    """Asks a cluster. Every method raises Transient while it does not answer, and Fatal for what it refuses."""

    def __init__(self, config: KafkaSource, client_id: str) -> None:
        self._config = config
        self._client_id = client_id
        self._admin: AdminClient | None = None

    def identity(self) -> str:
        """Return `kafka:CLUSTER`."""
        return f"kafka:{self._listed().cluster_id}"

    def find(self) -> dict[str, Topic]:
        """Return the topics that are named, by name. Raises Fatal naming one that is not there."""
        exact = [name for name in self._config.names if not is_pattern(name)]
        patterns = [topic_pattern(name) for name in self._config.names if is_pattern(name)]
        if patterns:
            there = [name for name in self._listed().topics if not name.startswith(_INTERNAL)]
            exact += [name for name in there if any(each.match("", name) is not None for each in patterns)]
        return self.described(dict.fromkeys(exact))

    def described(self, names: Iterable[str]) -> dict[str, Topic]:
        """Return these topics. Raises Fatal naming one that is not there."""
        return {name: self._described(name, future) for name, future in self.ask(names).items()}

    def ask(self, names: Iterable[str]) -> dict[str, Future[Any]]:
        """Ask for these topics without waiting."""
        listed = list(names)
        if not listed:
            return {}
        return dict(self._client().describe_topics(TopicCollection(listed), request_timeout=PATIENCE_S))

    def _described(self, name: str, future: Future[Any]) -> Topic:
        try:
            found = future.result(PATIENCE_S + 1)
        except KafkaException as error:
            raise missing(name, error_of(error)) from error
        except TimeoutError as error:
            raise Transient(End.SOURCE, f"{self._config.where} does not answer") from error
        return topic_of(found)

    def _listed(self) -> Any:
        try:
            return self._client().list_topics(timeout=PATIENCE_S)
        except KafkaException as error:
            raise verdict(error_of(error), End.SOURCE, f"asking {self._config.where} for its topics") from error

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({**self._config.settings(self._client_id), "log_level": 0})
        return self._admin

    def close(self) -> None:
        """Disconnect."""
        self._admin = None


def topic_of(description: Any) -> Topic:
    """Return what the client's description of a topic says."""
    return Topic(str(description.topic_id), len(description.partitions))


def missing(name: str, error: KafkaError) -> Fatal | Transient:
    """Return what to raise for a topic that cannot be seen."""
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        hint = f"create it, or mend `topics`: `kafka-topics --create --topic {name}`"
        return Fatal(f"there is no topic {name}", hint=hint, status=ExitStatus.CONFIG)
    return refused(name, error)


def refused(name: str, error: KafkaError) -> Fatal | Transient:
    """Return what to raise for a topic that may not be read, naming the ACL."""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        msg = f"topic {name} may not be read"
        hint = f"allow it: kafka-acls --add --allow-principal User:NAME --operation Read --operation Describe --topic {name}"
        return Fatal(msg, hint=hint, status=ExitStatus.PERMISSION)
    return verdict(error, End.SOURCE, f"topic {name}")


def ends(consumer: Consumer, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
    """Return by partition the first offset that is there, and where what is committed ends."""
    found: dict[Partition, tuple[int, int]] = {}
    for name, number in partitions:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=PATIENCE_S)
        except KafkaException as error:
            raise refused(name, error_of(error)) from error
        found[name, number] = (low, high)
    return found


def at_time(consumer: Consumer, partitions: Sequence[Partition], time_ms: int) -> dict[Partition, int]:
    """Return by partition the offset of the first record of that time or later; -1 where there is none."""
    asked = [TopicPartition(name, number, time_ms) for name, number in partitions]
    try:
        answered = consumer.offsets_for_times(asked, timeout=PATIENCE_S)
    except KafkaException as error:
        raise verdict(error_of(error), End.SOURCE, "asking for the offsets of a time") from error
    for each in answered:
        if each.error is not None:
            raise refused(each.topic, each.error)
    return {(each.topic, each.partition): -1 if each.offset == OFFSET_END else each.offset for each in answered}


def told(consumer: Consumer, partitions: Sequence[Partition], group: str) -> dict[Partition, tuple[int, int]]:
    """Return by partition the offset that the group was told and the epoch beside it, where there is one."""
    asked = [TopicPartition(name, number) for name, number in partitions]
    answered = _committed(consumer, asked, f"asking for the offsets of group {group}")
    found: dict[Partition, tuple[int, int]] = {}
    for each in answered:
        if each.error is not None:
            raise verdict(each.error, End.SOURCE, f"asking for the offsets of group {group}")
        if each.offset >= 0:
            epoch = each.metadata or ""
            found[each.topic, each.partition] = (each.offset, int(epoch) if epoch.isdigit() else 0)
    return found


def _committed(consumer: Consumer, asked: list[TopicPartition], doing: str) -> list[TopicPartition]:
    """Ask for a group's offsets; a broker that has just become its coordinator is asked again."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return list(consumer.committed(asked, timeout=PATIENCE_S))
        except KafkaException as error:
            found = error_of(error)
            if found.code() not in _SETTLING or time.monotonic() > until:
                raise verdict(found, End.SOURCE, doing) from error
            consumer.poll(SETTLE_S)
