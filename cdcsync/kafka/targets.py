"""The topics that are written to: their names, and how they are made or found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.kafka.errors import error_of, verdict
from cdcsync.kafka.reach import reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Table
    from cdcsync.errors import End
    from cdcsync.kafka.client import KafkaClientConfig

ANSWER_S: Final = 15.0
NAME_MAX: Final = 249


def topic_of(template: str | None, pipeline: str, table: Table) -> str:
    """Return a table's topic; letters that no topic's name has become `_`."""
    text = table.qualified
    if template is not None:
        text = template.format(pipeline=pipeline, schema=table.schema, table=table.name).lstrip(".").replace("..", ".")
    return re.sub(r"[^a-zA-Z0-9._-]", "_", text)[:NAME_MAX]


class Topics:
    """Looks at topics and makes them, by a client of its own."""

    def __init__(self, config: KafkaClientConfig, end: End) -> None:
        self._admin, _ = reached(AdminClient, config.settings("cdcsync topics"), config.where, end)
        self._end = end
        self._where = config.where

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 when it is not there. Raises Transient, Fatal."""
        try:
            found = self._admin.list_topics(topic, timeout=ANSWER_S).topics[topic]
        except KafkaException as error:
            raise verdict(error_of(error), self._end, f"looking for topic {topic} at {self._where}") from error
        if found.error is not None and found.error.code() not in _MISSING:
            raise verdict(found.error, self._end, f"looking for topic {topic}")
        return len(found.partitions)

    def ensure(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Make the topic when it is not there; return whether it was made. Raises Transient, Fatal."""
        if self.partitions(topic):
            return False
        made = self._admin.create_topics([NewTopic(topic, partitions, replication, config=dict(config))])[topic]
        try:
            made.result(ANSWER_S)
        except KafkaException as error:
            if error_of(error).code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise verdict(error_of(error), self._end, f"making topic {topic}") from error
        return True

    def require(self, topic: str) -> None:
        """Raise Fatal when the topic is not there."""
        if not self.partitions(topic):
            msg = f"there is no topic {topic} at {self._where}"
            hint = f"make it: kafka-topics --create --topic {topic} --partitions N; or set `create_topics: true`"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)

    def config(self, topic: str) -> dict[str, Any]:
        """Return a topic's settings by name; nothing where we may not see them. Raises Transient."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        asked = self._admin.describe_configs([resource])[resource]
        try:
            return {name: entry.value for name, entry in asked.result(ANSWER_S).items()}
        except KafkaException as error:
            if error_of(error).code() in _HIDDEN:
                return {}
            raise verdict(error_of(error), self._end, f"looking at topic {topic}") from error


_MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE})
_HIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
