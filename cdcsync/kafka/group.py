"""A consumer group that shares the partitions of topics among the processes of a pipeline: a lane is a partition."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from cdcsync.errors import End, Fatal, Transient
from cdcsync.kafka import topics
from cdcsync.kafka.errors import Verdict, error_of, rule_of, verdict
from cdcsync.kafka.source import KafkaTopics
from cdcsync.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.kafka.position import Topic
    from cdcsync.kafka.source_config import KafkaSource
    from cdcsync.ports import Source, SourceContext

LOOK_S: Final = 5.0
"""How often the topics are looked at: for new ones, and for another one of the same name."""
_MEMBER: Final = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 2_000}
"""librdkafka's settings of a member: one that hangs is put out soon."""


class KafkaGroup:
    """The member. It reads nothing itself: each lane has a reader of its own, and tells its offsets through us."""

    def __init__(
        self, config: KafkaSource, context: SourceContext, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._context = context
        self._clock = clock
        self._consumer: Consumer | None = None
        self._topics = Topics(config, f"cdcsync-{context.pipeline}")
        self._found: dict[str, Topic] = {}
        self._looked_at = 0.0
        self._told: dict[tuple[str, int], TopicPartition] = {}
        """What lanes have said last."""
        self._fault: KafkaError | None = None
        self._gained: Callable[[Sequence[str]], None] = lambda _lanes: None
        self._lost: Callable[[Sequence[str]], None] = lambda _lanes: None

    def join(self, gained: Callable[[Sequence[str]], None], lost: Callable[[Sequence[str]], None]) -> None:
        """Subscribe; lanes come with `poll`."""
        self._gained, self._lost = gained, lost
        self._found = self._topics.find()
        group = self._config.group_of(self._context.pipeline)
        settings = {
            **_MEMBER,
            **topics.reading(self._config, f"cdcsync-{self._context.pipeline}-member", group),
            "partition.assignment.strategy": "cooperative-sticky",
            "error_cb": self._note,
        }
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise verdict(error_of(error), End.SOURCE, f"joining group {group}") from error
        self._subscribe()

    def poll(self, timeout_s: float) -> None:
        """Stay a member, and tell the group what lanes have said."""
        consumer = self._consumer
        if consumer is None:
            raise Transient(End.SOURCE, "not a member of the group")
        message = consumer.poll(timeout_s)
        fault = message.error() if message is not None else None
        noted, self._fault = self._fault, None
        for each in (fault, noted):
            if each is not None and rule_of(each).verdict is not Verdict.TRANSIENT:
                raise self._refused(each)
        if noted is not None:
            raise verdict(noted, End.SOURCE, f"staying in group {self._config.group_of(self._context.pipeline)}")
        self._tell(consumer)
        self._look()

    def source(self, lane: str) -> Source:
        """Return a reader of that partition."""
        topic, _, number = lane.rpartition("/")
        return KafkaTopics(self._config, self._context, lane=(topic, int(number)), tell=self._hear)

    def leave(self) -> None:
        """Leave, the group told."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._tell(consumer)
            self._gained = self._lost = lambda _lanes: None
            consumer.close()
        self._topics.close()

    def _hear(self, offsets: list[TopicPartition]) -> None:
        """Take what a lane has stored; any thread."""
        for each in offsets:
            self._told[each.topic, each.partition] = each

    def _tell(self, consumer: Consumer) -> None:
        if not self._told:
            return
        told, self._told = self._told, {}
        try:
            consumer.commit(offsets=list(told.values()), asynchronous=True)
        except KafkaException as error:
            structlog.get_logger().warning("the group was not told", said=str(error_of(error).str()))

    def _subscribe(self) -> None:
        assert self._consumer is not None  # noqa: S101  just made
        self._consumer.subscribe(
            list(self._found), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take partitions: paused, as their lanes read them themselves."""
        given = [TopicPartition(each.topic, each.partition, OFFSET_END) for each in partitions]
        consumer.incremental_assign(given)
        if given:
            consumer.pause(given)
            self._gained([f"{each.topic}/{each.partition}" for each in given])

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Let go of partitions once their lanes have ended."""
        self._lost([f"{each.topic}/{each.partition}" for each in partitions])
        self._tell(consumer)
        consumer.incremental_unassign(partitions)

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN or rule_of(error).verdict is not Verdict.TRANSIENT:
            self._fault = error

    def _refused(self, error: KafkaError) -> Fatal | Transient:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return verdict(error, End.SOURCE, f"group {self._config.group_of(self._context.pipeline)}")
        return topics.refused(", ".join(self._found), error)

    def _look(self) -> None:
        """Subscribe to topics that are new; a lane whose topic is another one now is judged by its reader."""
        now = self._clock()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        found = self._topics.find()
        changed = [name for name, topic in self._found.items() if name in found and found[name] != topic]
        if set(found) != set(self._found) or changed:
            self._found = found
            self._subscribe()
