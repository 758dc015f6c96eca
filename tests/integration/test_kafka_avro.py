"""Avro by a schema registry: Confluent's deserialiser and our source read it, and a table's change is checked first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fix_kafka_source import Running, until
from fix_postgres import drop_database, make_database
from ruamel.yaml import YAML

from cdcsync.change import Column, Table
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.kafka.config import KafkaSink as Config
from cdcsync.kafka.sink import KafkaSink
from cdcsync.ports import SinkContext
from cdcsync.rejected import DeadLetters
from cdcsync.testing.conformance.samples import INTEGER, TEXT, batch, delete, insert, update
from cdcsync.testing.faults import Proxy
from cdcsync.testing.kafka_registry import SchemaRegistry
from cdcsync.testing.processes import free_port
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_kafka import Topics
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer
    from cdcsync.testing.servers import PostgresServer

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


ITEM = """
CREATE TABLE item (
    id bigint PRIMARY KEY, small smallint, price numeric(10, 2), any_scale numeric, ratio double precision, name text NOT NULL,
    raw bytea, day date, at timestamp(6), seen timestamptz, clock time, code uuid, doc jsonb, numbers integer[], yes boolean
)
"""
FILLED = """
INSERT INTO item SELECT n, -n, n / 100.0, n / 1000.0, n / 3.0, 'naïve ' || n, '\\x00ff', '2026-11-25', '2026-11-25 01:02:03.456789',
    '2026-11-25 01:02:03.5+02', '01:02:03.5', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, 2]}', '{1,NULL,3}', n %% 2 = 0
FROM generate_series(%s::int, %s::int) n
"""


def carried(folder: Path, name: str, **content: Any) -> Running:
    """Return a pipeline of that name."""
    path = folder / f"{name}.yaml"
    with path.open("w") as file:
        YAML().dump({"name": name, "control": {"socket": str(folder / f"{name}.s")}, **content}, file)
    path.chmod(0o600)
    return Running(path, folder / name)


def items(database: Database) -> list[tuple[Any, ...]]:
    if not database.query("SELECT to_regclass('item')")[0][0]:
        return []
    return database.query("SELECT item::text FROM item ORDER BY id")


@pytest.mark.parametrize("form", ["debezium", "flat"])
def test_a_table_is_equal_behind_a_topic_in_avro_across_its_changes(
    form: str, kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, postgres15: PostgresServer, tmp_path: Path
) -> None:
    source, target = make_database(postgres15), make_database(postgres15)
    source.execute(ITEM)
    source.execute(FILLED, [1, 10])
    name = topics.name()
    end = {"brokers": [kafka.bootstrap], "format": form, "registry": {"url": registry.url}, "topic": f"{name}.item"}
    sending = carried(
        tmp_path, f"sending-{form}", source=source.url, sink={"kafka": {**end, "partitions": 3}}, tables=["public.item"]
    )
    taking = carried(
        tmp_path, "taking", source={"kafka": end}, sink=target.url, tables=[{"from": "/.*/", "to": "item"}]
    )

    with sending:
        until(lambda: f"{name}.item" in kafka.topics(), lambda: str(sending.fault))
        with taking:
            until(lambda: items(target) == items(source), lambda: f"{taking.fault} {items(target)[:1]}")
            source.execute("ALTER TABLE item ADD COLUMN city text, ALTER COLUMN small TYPE integer")
            source.execute("UPDATE item SET city = 'Bern', small = 100000, price = NULL WHERE id % 2 = 0")
            source.execute("DELETE FROM item WHERE id = 3")
            source.execute("INSERT INTO item (id, name, city) VALUES (11, 'new', 'Ulm')")
            until(lambda: items(target) == items(source), lambda: f"{taking.fault} {items(target)} {items(source)}")

    for database in (source, target):
        drop_database(database)


def test_what_confluents_serialiser_wrote_is_read(
    kafka: KafkaServer, topic: str, registry: SchemaRegistry, database: Database, tmp_path: Path
) -> None:
    """A key that is a text, a row with Avro's own logical types, and a deletion."""
    schema = {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [
            {"name": "id", "type": "string"},
            {
                "name": "paid",
                "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}],
            },
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ],
    }
    moment = datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC)
    context = SerializationContext(topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry.url}) as client:
        write = AvroSerializer(client, json.dumps(schema))
        rows = [{"id": key, "paid": Decimal("-1.50"), "at": moment} for key in ("a", "b")]
        kafka.produce(topic, *[(str(row["id"]).encode(), write(row, context)) for row in rows], (b"b", None))
    end = {"brokers": [kafka.bootstrap], "format": "flat", "registry": {"url": registry.url}, "topic": topic}
    tables = {"tables": {topic: {"key": ["id"]}}}
    taking = carried(
        tmp_path, "taking", source={"kafka": end | tables}, sink=database.url, tables=[{"from": "/.*/", "to": "orders"}]
    )

    with taking:
        until(
            lambda: (
                bool(database.query("SELECT to_regclass('orders')")[0][0])
                and database.query("SELECT id, paid, at FROM orders") == [("a", Decimal("-1.50"), moment)]
            ),
            lambda: str(taking.fault),
        )

    kinds = (
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0"
    )
    assert [row[0] for row in database.query(kinds)] == ["text", "numeric(10,2)", "timestamp(3) with time zone"]


def test_a_message_that_its_registry_does_not_know_stops_or_is_put_aside(
    kafka: KafkaServer, topic: str, registry: SchemaRegistry, database: Database, tmp_path: Path
) -> None:
    kafka.produce(topic, (b'{"id": 1}', b"\0\x7f\xff\xff\xffsecret"), (b'{"id": 2}', b'{"id": 2}'))
    end = {"brokers": [kafka.bootstrap], "format": "flat", "registry": {"url": registry.url}, "topic": topic}
    content = {"source": {"kafka": end}, "sink": database.url, "tables": [{"from": "/.*/", "to": "rows"}]}

    with carried(tmp_path, "taking", **content) as running:
        fatal = running.ended()

    assert isinstance(fatal, Fatal)
    assert f"{topic}-0@0 cannot be read as flat: the registry has no schema 2147483647" in str(fatal)
    assert "secret" not in str(fatal)
    with carried(tmp_path, "taking", **content, on_rejected="dead_letter") as running:
        until(lambda: len(DeadLetters(tmp_path / "taking", "taking").list()) == 2, lambda: str(running.fault))
    reasons = {letter.reason for letter in DeadLetters(tmp_path / "taking", "taking").list()}
    assert any("@1 cannot be read as flat: it is not Avro" in reason for reason in reasons)


def test_a_registry_that_is_down_is_waited_for_by_the_source(
    kafka: KafkaServer, topic: str, registry: SchemaRegistry, database: Database, tmp_path: Path
) -> None:
    """Named with the record that needs it; what was read before it and after it arrives."""
    context = SerializationContext(topic, MessageField.VALUE)
    schema = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "long"}]}
    with SchemaRegistryClient({"url": registry.url}) as client:
        write = AvroSerializer(client, json.dumps(schema))
        kafka.produce(topic, *[(b'{"id":%d}' % at, write({"id": at}, context)) for at in range(3)])
    with Proxy(registry.host, registry.port) as way:
        way.refuse()
        url = registry.url.replace(str(registry.port), str(way.port))
        end = {"brokers": [kafka.bootstrap], "format": "flat", "registry": {"url": url}, "topic": topic}
        content = {"source": {"kafka": end}, "sink": database.url, "tables": [{"from": "/.*/", "to": "rows"}]}
        with carried(tmp_path, "taking", **content) as running:
            assert running.pipeline is not None
            progress = running.pipeline.progress
            until(lambda: f"{topic}-0@0: the schema registry {url}" in progress.fault, lambda: progress.fault)
            way.go()
            until(lambda: progress.changes == 3, lambda: progress.fault)

    assert database.query("SELECT id FROM rows ORDER BY 1") == [(0,), (1,), (2,)]


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
