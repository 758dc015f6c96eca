"""The mapping files that lead to topics, run as they stand against a real broker and a real PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from fix_command import stopped
from fix_kafka_source import until

if TYPE_CHECKING:
    from fix_command import Command
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer

MAPPINGS = Path(__file__).parents[2] / "mappings"
OUTBOX = """
CREATE SCHEMA shop;
CREATE TABLE shop.outbox (id uuid PRIMARY KEY, aggregate text, aggregate_id text, type text, payload jsonb);
"""
PLANT = """
CREATE SCHEMA plant;
CREATE TABLE plant.machines (id bigint PRIMARY KEY, site text, temperature numeric(5, 2));
ALTER TABLE plant.machines REPLICA IDENTITY FULL;
INSERT INTO plant.machines VALUES (1, 'Ulm', 80), (2, 'Bonn', 20);
"""


def piped(command: Command, name: str, kafka: KafkaServer, database: Database | None = None) -> str:
    """Return the file of a shipped pipeline with these ends in the place of the example's."""
    text = (MAPPINGS / "pipelines" / f"{name}.yaml").read_text()
    for host in ("kafka1.example:9092", "kafka2.example:9092"):
        text = text.replace(host, kafka.bootstrap)
    if database is not None:
        server = database.server
        end = f"host: {server.host}, port: {server.port}, database: {database.name}, user: {server.user}"
        text = re.sub(r"host: db1.example, database: \w+, user: cdcsync", end, text)
        text = text.replace("${env:SOURCE_PASSWORD}", server.password)
    return command.write(text.replace("[../", f"[{MAPPINGS}/"), f"{name}.yaml")


def seen(kafka: KafkaServer, topic: str) -> list[tuple[Any, Any]]:
    """Return key and value of the committed records of a topic."""
    if topic not in kafka.topics():
        return []
    return [(read(message.key()), read(message.value())) for message in kafka.consume(topic)]


def read(data: str | bytes | None) -> Any:
    """Return a key or value: JSON, or else its text."""
    try:
        return None if data is None else orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode() if isinstance(data, bytes) else data


@pytest.mark.timeout(180)
def test_text_of_one_topic_is_transformed_into_another(command: Command, kafka: KafkaServer) -> None:
    kafka.create("lines")
    kafka.produce("lines", (None, b"hello"), (None, b""), (None, "größe".encode()))
    path = piped(command, "lines", kafka)

    daemon = command.start("run", path)
    until(lambda: len(seen(kafka, "loud_lines")) >= 2, "the lines")
    kafka.produce("lines", (b"k", b"last"))
    until(lambda: len(seen(kafka, "loud_lines")) >= 3, "the last line")
    assert stopped(daemon)[0] == 0

    assert seen(kafka, "loud_lines") == [(None, {"value": text}) for text in ("HELLO", "GRÖßE", "LAST")]


@pytest.mark.timeout(180)
def test_an_outbox_becomes_messages_by_aggregate(command: Command, kafka: KafkaServer, database: Database) -> None:
    database.execute(OUTBOX)
    path = piped(command, "outbox", kafka, database)
    checked = command("check", path)
    daemon = command.start("run", path)
    command.wait(lambda figures: figures.get("state") == "running", "outbox")
    for number, (aggregate, payload) in enumerate([("order", 1), ("payment", 2), ("order", 3), ("user", 4)]):
        database.execute(
            "INSERT INTO shop.outbox VALUES (gen_random_uuid(), %s, %s, 'paid', %s)",
            [aggregate, str(number % 2), orjson.dumps({"n": payload}).decode()],
        )
    database.execute("DELETE FROM shop.outbox")
    until(lambda: len(seen(kafka, "other_events")) >= 1, "the events")
    assert stopped(daemon)[0] == 0

    assert checked.returncode == 0, checked.stdout
    found = {topic: seen(kafka, topic) for topic in ("order_events", "payment_events", "other_events")}
    keys = {topic: [key for key, _ in records] for topic, records in found.items()}
    assert keys == {"order_events": ["order-0", "order-0"], "payment_events": ["payment-1"], "other_events": ["user-1"]}
    documents = [read(value["payload"]) for _, value in found["order_events"]]
    assert [(each["n"], each["type"]) for each in documents] == [(1, "paid"), (3, "paid")]


@pytest.mark.timeout(180)
def test_readings_that_cross_a_threshold_become_alarms(
    command: Command, kafka: KafkaServer, database: Database
) -> None:
    database.execute(PLANT)
    path = piped(command, "alarms", kafka, database)
    daemon = command.start("run", path)
    command.wait(lambda figures: figures.get("state") == "running", "alarms")
    for machine, temperature in [(1, 85), (1, 95.25), (1, 99), (2, 91), (1, 60), (1, 50)]:
        database.execute(f"UPDATE plant.machines SET temperature = {temperature} WHERE id = {machine}")
    until(lambda: len(seen(kafka, "plant.alarms")) >= 3, "the alarms")
    assert stopped(daemon)[0] == 0

    alarms = [(key, value["alarm"]) for key, value in seen(kafka, "plant.alarms")]
    assert sorted(alarms) == [("Bonn/2", "hot"), ("Ulm/1", "cool again"), ("Ulm/1", "hot")]
    assert [alarm for key, alarm in alarms if key == "Ulm/1"] == ["hot", "cool again"]
