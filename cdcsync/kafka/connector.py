"""The entry point of the kafka system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.connectors import Connector, SinkSpec, StoreSpec
from cdcsync.kafka.client import from_url
from cdcsync.kafka.config import Delivery, KafkaSink, KafkaStore
from cdcsync.kafka.decoding.records import table_of_topic
from cdcsync.kafka.positions import KafkaPositions, clear, look, put
from cdcsync.kafka.sink import KafkaSink as Target
from cdcsync.kafka.sink import PlainSink
from cdcsync.kafka.source_spec import SOURCE
from cdcsync.kafka.target_check import identity, sink_check
from cdcsync.kafka.targets import topic_of
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from cdcsync.change import Table
    from cdcsync.ports import Sink, SinkContext


def _sink(config: KafkaSink, context: SinkContext) -> Sink:
    return Target(config, context) if config.delivery is Delivery.EXACTLY_ONCE else PlainSink(config, context)


def _guarantee(config: KafkaSink) -> Guarantee:
    return Guarantee.EXACTLY_ONCE if config.delivery is Delivery.EXACTLY_ONCE else Guarantee.AT_LEAST_ONCE


def _home(config: KafkaSink, pipeline: str, table: Table) -> tuple[str, str]:
    return table_of_topic(topic_of(config.topic, pipeline, table))


def _store(config: KafkaStore, context: SinkContext) -> KafkaPositions:
    return KafkaPositions(config, context)


CONNECTOR = Connector(
    name="kafka",
    schemes=("kafka",),
    from_url=from_url,
    source=SOURCE,
    sink=SinkSpec(
        config=KafkaSink,
        make=_sink,
        guarantee=_guarantee,
        identity=identity,
        check=sink_check,
        home=_home,
        messages=True,
        places=True,
        again="the records of these changes are written again, after those that are there, with the same key and version",
    ),
    store=StoreSpec(config=KafkaStore, make=_store, clear=clear, put=put, look=look),
)
