"""Kafka's benchmarks: both databases into a topic, beside what reads alone, what writes alone, and Debezium with Java's producer."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from confluent_kafka import Consumer, TopicPartition

from benchmarks import figures, mysql_traffic, peers, postgres_cases, traffic
from benchmarks.figures import Bench, Result, folder
from benchmarks.mysql_traffic import logged
from benchmarks.ours import Ours, mysql, past_lsn, past_offset, postgres
from benchmarks.process import Contender, Usage
from cdcsync.testing import jvm
from cdcsync.testing.kafka_servers import KafkaServer
from cdcsync.testing.trace import read_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 3
QUIET_S = 2.0
FROM_MEMORY = Path(__file__).with_name("from_memory.py")


@contextmanager
def broker() -> Iterator[KafkaServer]:
    """Yield a broker as it is meant to run, and the right to a second JVM."""
    with jvm.lease(2, "benchmark"):
        started = KafkaServer(java=("-XX:+UseSerialGC",)).start()
        try:
            yield started
        finally:
            started.stop()


def sink(kafka: KafkaServer, topic: str) -> dict[str, Any]:
    """Return our section: Debezium's JSON, three partitions, transactions."""
    end = {"brokers": [kafka.bootstrap], "topic": topic, "partitions": PARTITIONS}
    return {"kafka": {**end, "decimal_handling_mode": "string"}}


def newest(kafka: KafkaServer, topic: str) -> list[dict[str, Any]]:
    """Return the last rows of a topic, by id."""
    settings = kafka.client(group_id="bench", isolation_level="read_committed", enable_auto_commit=False)
    consumer = Consumer(settings)
    places = []
    for part in range(PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, part))
        places.append(TopicPartition(topic, part, max(low, high - figures.PROVED - 50)))
    consumer.assign(places)
    rows: dict[int, dict[str, Any]] = {}
    until = time.monotonic() + 20
    quiet = time.monotonic()
    while time.monotonic() < until and time.monotonic() - quiet < QUIET_S:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            row = orjson.loads(message.value() or b"")["after"]
            rows[row["id"]] = row
            quiet = time.monotonic()
    consumer.close()
    return [rows[key] for key in sorted(rows)[-figures.PROVED :]]


def size_of(kafka: KafkaServer, topic: str) -> int:
    """Return the bytes of a record's value."""
    return round(statistics.mean(len(orjson.dumps(row)) for row in newest(kafka, topic))) + 420


def from_memory(kafka: KafkaServer, rows: int, size: int, each: int, log: Path) -> Usage:
    """Write as many records of that size by confluent-kafka alone."""
    topic = f"memory.{time.monotonic_ns()}"
    kafka.create(topic, partitions=PARTITIONS)
    words = [sys.executable, str(FROM_MEMORY), kafka.bootstrap, topic, str(rows), str(size), str(each)]
    usage = Contender(words, log).finish(stop=None)
    kafka.delete(topic)
    return usage


def records_each(ours: Ours) -> int:
    """Return how many records our transactions have, the median."""
    counts = [step.changes for step in read_steps(ours.trace) if step.event == "durable" and step.changes]
    return round(statistics.median(counts))


def postgres_kafka(rows: int, rounds: int) -> Result:
    """PostgreSQL to Kafka in transactions, pg_recvlogical, confluent-kafka from memory, and Debezium with Java's producer."""
    usages: dict[str, list[Usage]] = {}
    with ExitStack() as stack:
        source, kafka = stack.enter_context(postgres_cases.server()), stack.enter_context(broker())
        place = stack.enter_context(folder())
        ours = Ours("ours", place)
        ours.configure(postgres(source), sink(kafka, "bench"))
        ours.take_position(source.password)
        kafka.create("debezium", partitions=PARTITIONS)
        debezium = peers.Debezium(place)
        for _ in range(rounds):
            peers.make_slot(source, "recv")
            peers.make_slot(source, "debezium")
            written = traffic.write(source, rows, 1000)
            end = written.end_lsn
            usages.setdefault("pg_recvlogical", []).append(
                peers.pg_recvlogical(source, "recv", end, place / "recv.log")
            )
            usages.setdefault("cdcsync", []).append(ours.run_until(past_lsn(written.last_lsn), source.password))
            memory = from_memory(kafka, rows, size_of(kafka, "bench"), records_each(ours), place / "memory.log")
            usages.setdefault("confluent-kafka from memory", []).append(memory)
            connector = peers.debezium_postgres(source, "debezium")
            usage, _ = debezium.run(connector, rows, kafka.bootstrap, "debezium")
            usages.setdefault("Debezium Engine and KafkaProducer", []).append(usage)
            for slot in ("recv", "debezium"):
                peers.drop_slot(source, slot)
        got = [str(row["id"]) for row in newest(kafka, "bench")]
        _prove_ids(got, [str(row[0]) for row in traffic.last_rows(source)])
        each = records_each(ours)
    return _result("postgres-kafka", rows, usages, each)


def mysql_kafka(rows: int, rounds: int) -> Result:
    """MySQL to Kafka in transactions, the raw binlog, confluent-kafka from memory, and Debezium with Java's producer."""
    usages: dict[str, list[Usage]] = {}
    with ExitStack() as stack:
        log, kafka = stack.enter_context(logged(rows, 1000)), stack.enter_context(broker())
        place = stack.enter_context(folder())
        kafka.create("debezium", partitions=PARTITIONS)
        debezium = peers.Debezium(place)
        each = 0
        for number in range(rounds):
            ours = Ours(f"ours{number}", place)
            ours.configure(mysql(log.server), sink(kafka, f"bench{number}"), tables=["bench.bench"])
            usages.setdefault("raw binlog", []).append(peers.raw_binlog(log.server, log.file, place))
            reached = past_offset(log.file, log.offset)
            usages.setdefault("cdcsync", []).append(ours.run_until(reached, log.server.password))
            each = records_each(ours)
            memory = from_memory(kafka, rows, size_of(kafka, f"bench{number}"), each, place / "memory.log")
            usages.setdefault("confluent-kafka from memory", []).append(memory)
            usage, _ = debezium.run(peers.debezium_mysql(log.server), rows, kafka.bootstrap, "debezium")
            usages.setdefault("Debezium Engine and KafkaProducer", []).append(usage)
        got = [str(row["id"]) for row in newest(kafka, f"bench{rounds - 1}")]
        _prove_ids(got, [str(row[0]) for row in mysql_traffic.last_rows(log.server)])
    return _result("mysql-kafka", rows, usages, each)


def _result(name: str, rows: int, usages: dict[str, list[Usage]], each: int) -> Result:
    result = Result(name, rows, figures=figures.figures(usages, rows), proved=f"last {figures.PROVED} rows, by id")
    result.values["records_per_transaction"] = each
    rates = {figure.contender: figure.rate for figure in result.figures}
    reader = next(iter(rates))
    lower = min(rates[reader], rates["confluent-kafka from memory"])
    result.values["share_of_the_lower_bound"] = round(rates["cdcsync"] / lower, 2)
    result.values["times_debezium"] = round(rates["cdcsync"] / rates["Debezium Engine and KafkaProducer"], 2)
    return result


def _prove_ids(got: list[str], want: list[str]) -> None:
    if got != want:
        msg = f"the last rows are others: {got[-3:]}, not {want[-3:]}"
        raise RuntimeError(msg)


BENCHES = (
    Bench("postgres-kafka", str(postgres_kafka.__doc__), 500_000, postgres_kafka),
    Bench("mysql-kafka", str(mysql_kafka.__doc__), 500_000, mysql_kafka),
)
