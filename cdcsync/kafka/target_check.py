"""What `check` says of the cluster that is written to: brokers, topics, settings, each with what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import End
from cdcsync.kafka.config import Delivery
from cdcsync.kafka.errors import error_of, verdict
from cdcsync.kafka.producer import Channel
from cdcsync.kafka.targets import Topics, topic_of

if TYPE_CHECKING:
    from cdcsync.kafka.client import KafkaClientConfig
    from cdcsync.kafka.config import KafkaSink
    from cdcsync.ports import SinkContext


def identity(config: KafkaClientConfig, end: End = End.SINK) -> str:
    """Return `kafka:CLUSTER_ID`, comparable with a source's. Raises Transient, Fatal."""
    channel = Channel(config, "cdcsync check")
    try:
        channel.open(end)
        return f"kafka:{channel.producer.list_topics(timeout=10).cluster_id}"
    except KafkaException as error:
        raise verdict(error_of(error), end, f"connecting to {config.where}") from error
    finally:
        channel.close()


def sink_check(config: KafkaSink, context: SinkContext) -> list[Finding]:
    """Look at the cluster without changing it."""
    channel = Channel(config, f"cdcsync {context.pipeline}")
    try:
        channel.open()
        brokers = len(channel.producer.list_topics(timeout=10).brokers)
    except KafkaException as error:
        raise verdict(error_of(error), End.SINK, f"connecting to {config.where}") from error
    finally:
        channel.close()
    topics = Topics(config, End.SINK)
    exactly = config.delivery is Delivery.EXACTLY_ONCE
    said = "exactly once, for readers with read_committed" if exactly else "at least once: no transactions"
    found = [Finding(Severity.OK, "kafka", f"{brokers} broker(s) at {config.where}; {said}")]
    if exactly:
        found.append(_positions(topics, config))
    names = {topic_of(config.topic, context.pipeline, table): table for table in context.tables}
    return [*found, *[_topic(topics, config, name, keyed=bool(table.key)) for name, table in names.items()]]


def _positions(topics: Topics, config: KafkaSink) -> Finding:
    name = config.positions_topic
    if not topics.partitions(name):
        return Finding(Severity.OK, f"topic {name}", "will be made, compacted, for the positions")
    policy = str(topics.config(name).get("cleanup.policy") or "compact")
    if policy == "compact":
        return Finding(Severity.OK, f"topic {name}", "holds the positions")
    remedy = f"kafka-configs --alter --topic {name} --add-config cleanup.policy=compact"
    return Finding(Severity.ERROR, f"topic {name}", f"forgets positions: cleanup.policy is {policy}", remedy)


def _topic(topics: Topics, config: KafkaSink, name: str, *, keyed: bool) -> Finding:
    subject = f"topic {name}"
    partitions = topics.partitions(name)
    if not partitions:
        if config.create_topics:
            return Finding(Severity.OK, subject, "will be made")
        remedy = f"kafka-topics --create --topic {name} --partitions N; or `create_topics: true`"
        return Finding(Severity.ERROR, subject, "is not there", remedy)
    settings = topics.config(name)
    if "compact" in str(settings.get("cleanup.policy") or "") and not keyed:
        return Finding(Severity.ERROR, subject, "is compacted, and the table has no key", "map a `key`")
    return Finding(Severity.OK, subject, f"{partitions} partition(s)")
