"""The source of topics passes the suite that every source passes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cdcsync.kafka.source import KafkaTopics
from cdcsync.kafka.source_config import KafkaSource
from cdcsync.mapping.transform import Mapping
from cdcsync.ports import SourceContext
from cdcsync.testing.conformance.sources import SourceSuite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fix_kafka import Topics

    from cdcsync.ports import Source
    from cdcsync.testing.kafka_servers import KafkaServer

ROWS = 30


class TestKafkaSource(SourceSuite):
    """Each record is a transaction of its own."""

    in_parts = False

    @pytest.fixture
    def source(self, kafka: KafkaServer, topics: Topics, tmp_path: Path) -> Callable[[], Source]:
        topic = topics.make()
        rows = [{"id": at, "name": f"row {at}"} for at in range(ROWS)]
        kafka.produce(topic, *[(json.dumps({"id": row["id"]}).encode(), json.dumps(row).encode()) for row in rows])
        config = KafkaSource.model_validate({"brokers": [kafka.bootstrap], "topic": topic, "format": "flat"})
        context = SourceContext(topic.replace(".", "-"), Mapping.of(["/.*/"]), tmp_path)
        return lambda: KafkaTopics(config, context)

    @pytest.fixture
    def changes(self) -> int:
        return ROWS
