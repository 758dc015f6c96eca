"""Kafka's benchmarks: both databases into a topic, beside what reads alone, what writes alone, and Debezium with Java's producer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

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

    from cdcsync.testing.servers import PostgresServer

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
            usages.setdefault("raw binlog", []).append(peers.raw_binlog(log.server, place / "raw.log"))
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


def kafka_latency(rows: int, rounds: int) -> Result:
    """Commit at PostgreSQL to a read_committed consumer, at 1,000 transactions a second, with and without transactions."""
    result = Result("postgres-kafka-latency", rows, proved="every transaction, by commit timestamps")
    with ExitStack() as stack:
        source = stack.enter_context(postgres_cases.server(track_commit_timestamp="on"))
        kafka, place = stack.enter_context(broker()), stack.enter_context(folder())
        source.execute("create sequence bench_ids")
        for delivery in ("exactly_once", "idempotent"):
            latencies = _latencies(source, kafka, place, delivery, max(10, rows * rounds // 1000))
            for share in (50, 90, 99):
                result.values[f"{delivery}_p{share}_ms"] = round(latencies[len(latencies) * share // 100], 2)
    return result


def _latencies(source: PostgresServer, kafka: KafkaServer, place: Path, delivery: str, seconds: int) -> list[float]:
    section = sink(kafka, delivery)
    section["kafka"]["delivery"] = delivery
    ours = Ours(delivery, place)
    ours.configure(postgres(source), section)
    ours.take_position(source.password)
    contender = ours.start(source.password)
    arrivals = Arrivals(kafka, delivery)
    script = place / "one.sql"
    script.write_text("insert into bench select nextval('bench_ids'), 1, 'n', 'a', 1.5, now(), true, 's';\n")
    ((first,),) = source.query("select last_value from bench_ids")
    time.sleep(3)
    subprocess.run(
        [source.bin / "pgbench", "-n", "-f", script, "-R", "1000", "-c", "4", "-T", str(seconds), source.url()],
        check=True, capture_output=True,
    )  # fmt: skip
    query = f"select id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from bench where id > {first}"
    committed = dict(source.query(query))
    contender.wait_for(lambda: arrivals.count() >= len(committed), 60)
    contender.finish()
    seen = arrivals.stop()
    return sorted((seen[one] - at) / 1000 for one, at in committed.items())


class Arrivals:
    """Notes when a read_committed consumer sees each row."""

    def __init__(self, kafka: KafkaServer, topic: str) -> None:
        settings = kafka.client(
            group_id="arrivals", isolation_level="read_committed", enable_auto_commit=False, fetch_wait_max_ms=5
        )
        self._consumer = Consumer(settings)
        self._consumer.assign([TopicPartition(topic, part, OFFSET_END) for part in range(PARTITIONS)])
        self._seen: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def count(self) -> int:
        """Return how many rows were seen."""
        return len(self._seen)

    def stop(self) -> dict[int, int]:
        """Return when each was seen, microseconds since 1970."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        return self._seen

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, 0.005):
                if message.error() is None and message.key() is not None:
                    self._seen.setdefault(orjson.loads(message.key() or b"")["id"], time.time_ns() // 1000)


BENCHES = (
    Bench("postgres-kafka", str(postgres_kafka.__doc__), 500_000, postgres_kafka),
    Bench("postgres-kafka-latency", str(kafka_latency.__doc__), 10_000, kafka_latency),
    Bench("mysql-kafka", str(mysql_kafka.__doc__), 500_000, mysql_kafka),
)
