"""Avro by a schema registry: Confluent's own deserialiser reads it, and a table's change is checked before a record."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdcsync.change import Column, Table
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.kafka.config import KafkaSink as Config
from cdcsync.kafka.sink import KafkaSink
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import INTEGER, TEXT, batch, delete, insert, update
from cdcsync.testing.kafka_registry import SchemaRegistry
from cdcsync.testing.processes import free_port
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_kafka import Topics

    from cdcsync.testing.kafka_servers import KafkaServer

JVMS = 2
"""The broker and the registry."""
PAID = Column("paid", Type(Kind.DECIMAL, precision=10, scale=2))
USERS = Table("", "users", (Column("id", INTEGER, nullable=False), Column("name", TEXT), PAID), ("id",))


@pytest.fixture(scope="module")
def registry(jvms: None) -> Iterator[SchemaRegistry]:
    started = SchemaRegistry().start()
    started.be_backward()
    yield started
    started.stop()


class Ends:
    """A sink of one test."""

    def __init__(self, kafka: KafkaServer, url: str, prefix: str, folder: Path, **section: Any) -> None:
        end = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "positions_topic": f"{prefix}.positions"}
        config = Config.model_validate({**end, "registry": {"url": url}, **section})
        self._kafka = kafka
        self._prefix = prefix
        self.sink = KafkaSink(config, SinkContext("avro", folder, (USERS,), "postgres:1/shop"))

    def open(self) -> Ends:
        self.sink.positions().open("")
        self.sink.open()
        return self

    def close(self) -> None:
        self.sink.close()
        self.sink.positions().close()

    def read(self, registry: SchemaRegistry) -> list[tuple[Any, Any]]:
        """Return keys and values as Confluent's deserialiser gives them."""
        topic = f"{self._prefix}.users"
        parts = [SerializationContext(topic, field) for field in (MessageField.KEY, MessageField.VALUE)]
        with SchemaRegistryClient({"url": registry.url}) as client:
            read = AvroDeserializer(client)
            found = self._kafka.consume(topic)
            return [(read(each.key(), parts[0]), read(each.value(), parts[1])) for each in found]


def test_confluents_deserialiser_reads_the_envelope(
    kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    prefix = topics.name()
    ends = Ends(kafka, registry.url, prefix, tmp_path).open()

    ends.sink.write(batch(0, insert(USERS, 1, "ann", "12.50"), update(USERS, 1, 1, "bob", None), delete(USERS, 1)))
    ends.close()

    got = ends.read(registry)
    assert [key for key, _ in got] == [{"id": 1}] * 4
    values = [value for _, value in got]
    assert values[0]["after"] == {"id": 1, "name": "ann", "paid": Decimal("12.50")}
    assert (values[0]["before"], values[0]["op"], values[0]["source"]["db"]) == (None, "c", "shop")
    assert values[1]["after"] == {"id": 1, "name": "bob", "paid": None}
    assert (values[2]["op"], values[2]["after"], values[2]["before"]["id"]) == ("d", None, 1)
    assert values[3] is None
    assert {f"{prefix}.users-key", f"{prefix}.users-value"} <= set(registry.subjects())


def test_confluents_deserialiser_reads_flat_rows(
    kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    ends = Ends(kafka, registry.url, topics.name(), tmp_path, format="flat", add_fields=["op"]).open()

    ends.sink.write(batch(0, insert(USERS, 1, "ann", "12.50"), delete(USERS, 1)))
    ends.close()

    assert ends.read(registry) == [
        ({"id": 1}, {"id": 1, "name": "ann", "paid": Decimal("12.50"), "__op": "c"}),
        ({"id": 1}, None),
    ]


def test_a_new_column_is_a_new_version_that_older_records_are_read_by(
    kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    ends = Ends(kafka, registry.url, topics.name(), tmp_path).open()
    wider = Table("", "users", (*USERS.columns, Column("city", TEXT)), ("id",))

    ends.sink.write(batch(0, insert(USERS, 1, "ann", None)))
    ends.sink.write(batch(1, insert(wider, 2, "bob", None, "Bern")))
    ends.close()

    rows = [value["after"] for _, value in ends.read(registry)]
    assert rows == [{"id": 1, "name": "ann", "paid": None}, {"id": 2, "name": "bob", "paid": None, "city": "Bern"}]


def test_a_change_that_does_not_fit_stops_before_its_first_record(
    kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    ends = Ends(kafka, registry.url, topics.name(), tmp_path, format="flat").open()
    strict = Table("", "users", (*USERS.columns, Column("city", TEXT, nullable=False)), ("id",))
    ends.sink.write(batch(0, insert(USERS, 1, "ann", None)))

    with pytest.raises(Fatal, match=r"users-value does not fit(?s:.*)can be null") as caught:
        ends.sink.write(batch(1, insert(strict, 2, "bob", None, "Bern")))

    ends.close()
    assert caught.value.status is ExitStatus.DATA
    assert len(ends.read(registry)) == 1


def test_a_registry_that_is_not_there_is_waited_for(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    ends = Ends(kafka, f"http://127.0.0.1:{free_port()}", topics.name(), tmp_path)

    with pytest.raises(Transient, match="schema registry"):
        ends.open()

    ends.close()


def test_a_schema_that_has_to_be_there_is_named(
    kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    prefix = topics.name()
    section = {"registry": {"url": registry.url, "register_schemas": False}}
    ends = Ends(kafka, registry.url, prefix, tmp_path, **section)

    with pytest.raises(Fatal, match=f"{prefix}.users-value"):
        ends.open()

    ends.close()
