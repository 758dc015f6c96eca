"""What a topic holds, read by readers that are not ours: kcat and Kafka's own console consumer, both read_committed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from cdcsync.testing.kafka_builds import console_jars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.testing.kafka_servers import KafkaServer

READ_MAX_S = 120


@dataclass(frozen=True, slots=True)
class Seen:
    """One record, as kcat shows it."""

    partition: int
    offset: int
    version: int
    key: Any
    value: Any

    @property
    def change(self) -> tuple[Any, ...]:
        """What tells this change from any other, the time of its writing left out."""
        value = self.value
        if isinstance(value, dict) and "op" in value:
            value = (value["op"], orjson.dumps([value["before"], value["after"], value["source"]]))
        return self.version, orjson.dumps(self.key), value


def by_kcat(kafka: KafkaServer, topic: str, *settings: str) -> list[Seen]:
    """Return the committed records of a topic, in the order of each partition."""
    kafka.settle(topic)
    command = [
        "kcat",
        "-C",
        "-q",
        "-J",
        "-e",
        "-b",
        kafka.bootstrap,
        "-t",
        topic,
        "-X",
        "isolation.level=read_committed",
    ]
    for setting in settings:
        command += ["-X", setting]
    done = subprocess.run(command, capture_output=True, check=True, timeout=READ_MAX_S)
    found = []
    for line in done.stdout.splitlines():
        record = orjson.loads(line)
        headers = record.get("headers", [])
        named = dict(zip(headers[::2], headers[1::2], strict=True))
        key, payload = record.get("key"), record.get("payload")
        found.append(
            Seen(
                record["partition"],
                record["offset"],
                int(named.get("version", -1)),
                _json(key),
                _json(payload),
            )
        )
    return sorted(found, key=lambda each: (each.partition, each.offset))


def by_console(kafka: KafkaServer, topic: str) -> list[tuple[Any, Any]]:
    """Return keys and values of the committed records, as Kafka's own console consumer prints them."""
    kafka.settle(topic)
    command = [
        "java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", console_jars(),
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap, "--topic", topic,
        "--from-beginning", "--isolation-level", "read_committed", "--timeout-ms", "5000",
        "--formatter-property", "print.key=true",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, timeout=READ_MAX_S)
    lines = [line.partition(b"\t") for line in done.stdout.splitlines() if line.startswith(b"{")]
    return [(_json(key.decode()), _json(value.decode())) for key, _, value in lines]


def latest(records: Iterable[Seen]) -> dict[Any, Any]:
    """Return the row that each key has at the end."""
    rows: dict[Any, Any] = {}
    for each in records:
        if each.value is None or each.value["after"] is None:
            rows.pop(orjson.dumps(each.key), None)
        else:
            rows[orjson.dumps(each.key)] = each.value["after"]
    return rows


def _json(text: str | None) -> Any:
    return None if text is None or text == "null" else orjson.loads(text)
