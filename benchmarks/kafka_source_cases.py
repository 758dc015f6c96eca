"""Kafka's benchmarks as a source: a topic of Debezium's JSON, three partitions, into PostgreSQL, by one process."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import figures, reading_alone
from benchmarks.figures import Bench, Result, folder
from benchmarks.ours import COMPILED, INTERPRETED, Ours
from benchmarks.postgres_cases import server
from benchmarks.process import Contender
from cdcsync.kafka.position import KafkaPosition
from cdcsync.testing import jvm
from cdcsync.testing.kafka_servers import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.ours import End
    from benchmarks.process import Usage
    from cdcsync.testing.servers import PostgresServer

PARTITIONS: Final = 3
WAITING_MAX: Final = 400_000
"""Records that the producer holds at once."""
ROWS_PER_TRANSACTION: Final = 1000
TOPIC: Final = "public.bench"
COLUMNS: Final = {
    "id": "bigint",
    "quantity": "integer",
    "note": "text",
    "address": "text",
    "price": "decimal(12,2)",
    "at": "timestamptz",
    "paid": "boolean",
    "sku": "varchar(20)",
}


@contextmanager
def broker() -> Iterator[KafkaServer]:
    """Yield a broker with the heap and the compiler of one in use."""
    with jvm.lease(1, "benchmark"):
        started = KafkaServer(java=("-XX:+UseG1GC",), heap="1g").start()
        try:
            yield started
        finally:
            started.stop()


def _row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "quantity": number % 1000,
        "note": f"note {number} of some length, as notes have",
        "address": f"{number % 977} Long Street, Springfield, apartment {number % 13}, and so on to the end",
        "price": f"{number % 100000}.{number % 100:02d}",
        "at": f"2026-11-{number % 28 + 1:02d}T10:{number % 60:02d}:00.{number % 1000:03d}Z",
        "paid": number % 2 == 0,
        "sku": f"SKU-{number % 99991:08d}",
    }


def _produce(kafka: KafkaServer, rows: int) -> None:
    """Write what a sender of cdcsync's would: Debezium's envelope without schema, a version per source transaction."""
    producer = Producer(
        kafka.client(acks="all", linger_ms=20, compression_type="lz4", queue_buffering_max_messages=500_000)
    )
    source = {"connector": "postgresql", "db": "postgres", "schema": "public", "table": "bench", "ts_ms": 1}
    for number in range(1, rows + 1):
        value = orjson.dumps({"before": None, "after": _row(number), "source": source, "op": "c", "ts_ms": 1})
        version = (1 << 53) + number // ROWS_PER_TRANSACTION + 1
        headers: dict[str, str | bytes | None] = {"version": str(version), "pipeline": "sender"}
        producer.produce(TOPIC, key=b'{"id":%d}' % number, value=value, headers=headers)
        if number % 1000 == 0:
            producer.poll(0.0 if len(producer) < WAITING_MAX else 1.0)
    producer.flush(120)


def _past(kafka: KafkaServer) -> End:
    """Return the end of the topic as it is now."""
    consumer = Consumer(kafka.client(group_id="ends"))
    ends = {at: consumer.get_watermark_offsets(TopicPartition(TOPIC, at))[1] for at in range(PARTITIONS)}
    consumer.close()

    def is_past(text: str) -> bool:
        places = KafkaPosition.decode(text).all
        return all(places[TOPIC, at].offset >= end for at, end in ends.items())

    return is_past


def _bare(place: Path, kafka: KafkaServer, rows: int) -> Usage:
    """Read all records with the client alone: what it can give."""
    command = [sys.executable, reading_alone.__file__, kafka.bootstrap, TOPIC, str(PARTITIONS), str(rows)]
    return Contender(command, place / "bare.log").finish(stop=None)


def _ours(name: str, place: Path, command: Path, kafka: KafkaServer, target: PostgresServer) -> Usage:
    """Carry the topic with a pipeline that is new into a table that is empty."""
    target.execute(
        "DROP TABLE IF EXISTS bench; DROP TABLE IF EXISTS cdcsync_positions; DROP TABLE IF EXISTS cdcsync_schemas"
    )
    contender = Ours(name, place, command)
    tables = {TOPIC: {"columns": COLUMNS, "key": ["id"]}}
    source = {
        "kafka": {"brokers": [kafka.bootstrap], "topic": TOPIC, "tables": tables, "decimal_handling_mode": "string"}
    }
    sink = {"host": target.host, "port": target.port, "user": target.user, "database": "postgres", "schema": "public"}
    contender.configure(source, {"postgres": {**sink, "password": "${env:BENCH_PASSWORD}", "tls": {"mode": "disable"}}})
    return contender.run_until(_past(kafka), target.password)


def kafka_postgres(rows: int, rounds: int) -> Result:
    """Debezium's JSON from three partitions to PostgreSQL, one process, beside the client that only reads."""
    usages: dict[str, list[Usage]] = {}
    with broker() as kafka, server() as target, folder() as place:
        kafka.create(TOPIC, partitions=PARTITIONS)
        _produce(kafka, rows)
        for number in range(rounds):
            usages.setdefault("cdcsync", []).append(_ours(f"compiled{number}", place, COMPILED, kafka, target))
            if INTERPRETED.exists():
                usages.setdefault("cdcsync interpreted", []).append(
                    _ours(f"interpreted{number}", place, INTERPRETED, kafka, target)
                )
            usages.setdefault("confluent-kafka, reading alone", []).append(_bare(place, kafka, rows))
        names = ", ".join(COLUMNS)
        last = target.query(f"SELECT {names} FROM bench ORDER BY id DESC LIMIT {figures.PROVED}")
        count = target.query("SELECT count(*) FROM bench")
        if count != [(rows,)]:
            msg = f"the target has {count} rows, not {rows}"
            raise RuntimeError(msg)
        figures.prove(
            [_plain(row) for row in reversed(last)], [_wanted(at) for at in range(rows - len(last) + 1, rows + 1)]
        )
    proved = f"the number of rows, and the last {figures.PROVED} of them in all columns"
    return Result("kafka-postgres", rows, figures=figures.figures(usages, rows), proved=proved)


def _plain(row: tuple[Any, ...]) -> tuple[object, ...]:
    moment = row[5].strftime("%Y-%m-%dT%H:%M:%S.") + f"{row[5].microsecond // 1000:03d}Z"
    return (*row[:4], str(row[4]), moment, *row[6:])


def _wanted(number: int) -> tuple[object, ...]:
    return tuple(_row(number).values())


BENCHES = (Bench("kafka-postgres", str(kafka_postgres.__doc__), 400_000, kafka_postgres),)
