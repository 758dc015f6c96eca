"""Tables change on their way to Kafka in Avro: by the registry, read by Confluent's deserialiser, also when killed between."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fix_evolution import Flow
from fix_schema_traffic import FULL, SOURCES, changed_under_traffic, database_of, flow, rows

from cdcsync.testing.faults import Proxy
from cdcsync.testing.kafka_registry import SchemaRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_kafka import Topics
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer

JVMS = 2
"""The broker and the registry."""
MODES = ("evolve", "lenient", "ignore")


@pytest.fixture(scope="module")
def registry(jvms: None) -> Iterator[SchemaRegistry]:
    started = SchemaRegistry().start()
    started.be_backward()
    yield started
    started.stop()


def section(kafka: KafkaServer, url: str, prefix: str, **more: Any) -> dict[str, Any]:
    end = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "positions_topic": f"{prefix}.positions"}
    return {"kafka": {**end, "registry": {"url": url}, **more}}


def records(kafka: KafkaServer, registry: SchemaRegistry, topic: str) -> list[tuple[Any, Any]]:
    """Return keys and values as Confluent's deserialiser gives them, in the order of the topic; none without a topic."""
    if topic not in kafka.topics():
        return []
    parts = [SerializationContext(topic, field) for field in (MessageField.KEY, MessageField.VALUE)]
    with SchemaRegistryClient({"url": registry.url}) as client:
        read = AvroDeserializer(client)
        found = kafka.consume(topic)
        return [
            (None if each.key() is None else read(each.key(), parts[0]), read(each.value(), parts[1])) for each in found
        ]


def latest(found: list[tuple[Any, Any]]) -> dict[int, dict[str, Any]]:
    """Return the row that each key has at the end."""
    there: dict[int, dict[str, Any]] = {}
    for key, value in found:
        if value is not None and value["op"] == "t":
            there.clear()
        elif value is None or value["after"] is None:
            there.pop(key["id"], None)
        else:
            there[key["id"]] = value["after"]
    return there


def versions(registry: SchemaRegistry, topic: str) -> list[int]:
    with SchemaRegistryClient({"url": registry.url}) as client:
        return list(client.get_versions(f"{topic}-value"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SOURCES if FULL else ["postgres15"])
def test_records_equal_rows(
    name: str,
    request: pytest.FixtureRequest,
    kafka: KafkaServer,
    topics: Topics,
    registry: SchemaRegistry,
    tmp_path: Path,
) -> None:
    prefix = topics.name()
    with database_of(request, name) as source, Proxy(registry.host, registry.port) as proxy:
        url = registry.url.replace(f":{registry.port}/", f":{proxy.port}/")
        carries = flow(tmp_path, source, section(kafka, url, prefix))

        def done(table: str) -> bool:
            return latest(records(kafka, registry, f"{prefix}.{table}")) == {
                row["id"]: row for row in rows(source, table)
            }

        def ready() -> bool:
            return bool(records(kafka, registry, f"{prefix}.sbtest3"))

        with carries.victim() as killed:
            changed_under_traffic(source, killed, ready=ready, done=done, proxy=(proxy, b'"id":'))
    assert len(versions(registry, f"{prefix}.sbtest1")) > 3


def test_records_follow_by_the_mode_of_their_entry(
    database: Database, kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    prefix = topics.name()
    for mode in MODES:
        database.execute(f"CREATE TABLE {mode} (id int PRIMARY KEY, a text, n bigint NOT NULL)")
        database.execute(f"INSERT INTO {mode} VALUES (1, 'one', 1)")
    entries = [{"from": f"public.{mode}", "to": mode, "schema_changes": mode} for mode in MODES]
    carries = Flow(tmp_path, database.url, section(kafka, registry.url, prefix), *entries)

    def last(mode: str) -> dict[str, Any]:
        return latest(records(kafka, registry, f"{prefix}.{mode}"))[1]

    with carries.running() as life:
        life.until(lambda: all(records(kafka, registry, f"{prefix}.{mode}") for mode in MODES))
        for mode in MODES:
            database.execute(f"ALTER TABLE {mode} DROP a, ADD c int NOT NULL DEFAULT 7, ALTER n TYPE int")
            database.execute(f"UPDATE {mode} SET n = 2")
        life.until(lambda: all(last(mode)["n"] == 2 for mode in MODES))
    with carries.running() as life:
        for mode in MODES:
            database.execute(f"UPDATE {mode} SET n = 3")
        life.until(lambda: all(last(mode)["n"] == 3 for mode in MODES))

    assert {mode: last(mode) for mode in MODES} == {
        "evolve": {"id": 1, "n": 3, "c": 7},
        "lenient": {"id": 1, "n": 3, "c": 7},
        "ignore": {"id": 1, "a": None, "n": 3},
    }
    assert [len(versions(registry, f"{prefix}.{mode}")) for mode in MODES] == [2, 2, 1]


def test_what_the_registry_refuses_stops_before_a_record(
    database: Database, kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    prefix = topics.name()
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
    carries = Flow(tmp_path, database.url, section(kafka, registry.url, prefix), {"from": "public.t", "to": "t"})
    with carries.running() as life:
        life.until(lambda: records(kafka, registry, f"{prefix}.t"))
    change = "ALTER TABLE t ALTER n TYPE text; INSERT INTO t VALUES (2, 'x')"
    said = carries.fails(lambda: database.execute(change))
    assert re.search(rf"subject {prefix}.t-value does not fit its latest version(?s:.*)compatibility", said)
    assert len(records(kafka, registry, f"{prefix}.t")) == 1


def test_stop_stops_before_a_record_of_the_change(
    database: Database, kafka: KafkaServer, topics: Topics, registry: SchemaRegistry, tmp_path: Path
) -> None:
    prefix = topics.name()
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
    entry = {"from": "public.t", "to": "t", "schema_changes": "stop"}
    stops = Flow(tmp_path, database.url, section(kafka, registry.url, prefix), entry)
    with stops.running() as life:
        life.until(lambda: records(kafka, registry, f"{prefix}.t"))

    def change() -> None:
        database.execute("UPDATE t SET n = 2; ALTER TABLE t ADD c int; INSERT INTO t VALUES (2, 2)")

    assert re.search(r"table public.t was changed at .*: column c is new", stops.fails(change))
