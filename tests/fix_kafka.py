"""A Kafka broker per file of tests, started when first asked for, and topics of a test's own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.testing import jvm
from cdcsync.testing.kafka_servers import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def jvms(request: pytest.FixtureRequest) -> Iterator[None]:
    """The right to run JVMs, given back after the file; one that needs two says `JVMS = 2`."""
    count = getattr(request.module, "JVMS", 1)
    with jvm.lease(count, request.node.name):
        yield


@pytest.fixture(scope="module")
def kafka(jvms: None) -> Iterator[KafkaServer]:
    """A broker with all its listeners; a test that kills it starts it again."""
    server = KafkaServer()
    yield server.start()
    server.stop()


@dataclass(frozen=True, slots=True)
class Topics:
    """Names that no other test of this process uses."""

    server: KafkaServer

    def name(self) -> str:
        """Return a new name."""
        return f"test.{next(_NUMBERS)}"

    def make(self, partitions: int = 1, **config: Any) -> str:
        """Return a new topic; its settings have an underscore for a dot."""
        name = self.name()
        named = {key.replace("_", "."): str(value) for key, value in config.items()}
        self.server.create(name, partitions=partitions, config=named)
        return name


@pytest.fixture
def topics(kafka: KafkaServer) -> Topics:
    """What makes topics for this test."""
    return Topics(kafka)


@pytest.fixture
def topic(topics: Topics) -> str:
    """One topic with one partition."""
    return topics.make()


@pytest.fixture
def three(topics: Topics) -> str:
    """One topic with three partitions."""
    return topics.make(3)
