"""The harness's broker does what the tests of Kafka lean on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdcsync.testing.kafka_servers import USERS

if TYPE_CHECKING:
    from fix_kafka import Topics

    from cdcsync.testing.kafka_servers import KafkaServer


def login(kafka: KafkaServer, mechanism: str, password: str) -> AdminClient:
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"{kafka.host}:{kafka.sasl_port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": "alice",
        "sasl.password": password,
        "log_level": 0,
    }
    return AdminClient(settings)


def test_a_killed_broker_comes_back_with_its_records(kafka: KafkaServer, three: str) -> None:
    kafka.produce(three, *[(f"{at}".encode(), b"x") for at in range(100)])

    kafka.kill()
    kafka.start()

    assert len(kafka.consume(three)) == 100
    assert kafka.topics()[three] == 3


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_logs_in_by_password_and_by_no_other(kafka: KafkaServer, mechanism: str) -> None:
    assert login(kafka, mechanism, USERS["alice"]).list_topics(timeout=10).brokers

    with pytest.raises(KafkaException):
        login(kafka, mechanism, "wrong").list_topics(timeout=2)


def test_a_user_without_rights_sees_no_topic(kafka: KafkaServer, topics: Topics) -> None:
    name = topics.make()

    seen = login(kafka, "PLAIN", USERS["alice"]).list_topics(name, timeout=10).topics[name]

    assert seen.error is not None
