"""What a Kafka sink sends beside rows, and where: outbox messages, transaction metadata, logical messages, several tables in one topic."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from fix_kafka_sink import by_kcat

from cdcsync.change import UNCHANGED, Batch, Column, Message, Table
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.kafka.config import KafkaSink as Config
from cdcsync.kafka.murmur2 import partition_of
from cdcsync.kafka.sink import KafkaSink
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import INTEGER, ORDERS, TEXT, batch, delete, insert, transaction, update

if TYPE_CHECKING:
    from pathlib import Path

    from fix_kafka import Topics

    from cdcsync.testing.kafka_servers import KafkaServer

LINES = Table("", "lines", (Column("id", INTEGER, nullable=False), Column("what", TEXT)), ("id",))
OUTBOX = Table(
    "",
    "outbox",
    (
        Column("id", INTEGER, nullable=False),
        Column("aggregatetype", TEXT),
        Column("aggregateid", TEXT),
        Column("type", TEXT),
        Column("payload", TEXT),
    ),
    ("id",),
)


def opened(kafka: KafkaServer, folder: Path, prefix: str, *tables: Table, **section: Any) -> KafkaSink:
    end = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "positions_topic": f"{prefix}.positions"}
    config = Config.model_validate({**end, "partitions": 1, **section})
    sink = KafkaSink(config, SinkContext(prefix, folder, tables, "memory:1"))
    sink.positions().open("")
    sink.open()
    return sink


def closed(sink: KafkaSink) -> None:
    sink.close()
    sink.positions().close()


def test_an_outbox_rows_insert_is_a_message_of_its_topic(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    prefix = topics.name()
    section = {"outbox": {"topic": f"{prefix}.event.{{value}}", "headers": {"eventType": "type"}}}
    sink = opened(kafka, tmp_path, prefix, OUTBOX, **section)

    rows = [
        insert(OUTBOX, 1, "order", "o-1", "OrderCreated", '{"total": 1.0}'),
        insert(OUTBOX, 2, "customer", "c-1", "CustomerMoved", "{}"),
    ]
    sink.write(batch(0, *rows, delete(OUTBOX, 1)))
    closed(sink)

    (order,) = kafka.consume(f"{prefix}.event.order")
    assert (order.key(), order.value()) == (b"o-1", b'{"total": 1.0}')
    headers = dict(order.headers() or [])
    assert (headers["id"], headers["eventType"]) == (b"1", b"OrderCreated")
    assert [message.key() for message in kafka.consume(f"{prefix}.event.customer")] == [b"c-1"]
    assert f"{prefix}.outbox" not in kafka.topics()


def test_an_update_of_the_outbox_is_rejected(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    sink = opened(kafka, tmp_path, topics.name(), OUTBOX, outbox={})

    with pytest.raises(Rejected, match="outbox was updated"):
        sink.write(batch(0, update(OUTBOX, 1, 1, "order", "o-1", "x", "y")))

    closed(sink)


def test_an_outbox_without_its_columns_is_named(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    bare = Table("", "outbox", (Column("id", INTEGER),), ("id",))
    sink = opened(kafka, tmp_path, topics.name(), bare, outbox={})

    with pytest.raises(Fatal, match="no column aggregateid, payload, aggregatetype") as caught:
        sink.write(batch(0, insert(bare, 1)))

    closed(sink)
    assert caught.value.status is ExitStatus.CONFIG


def test_transactions_have_their_begin_and_end_and_events_their_place(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    section = {"transaction_topic": f"{prefix}.transaction"}
    first = batch(0, insert(ORDERS, 1, "a", None), insert(LINES, 1, "x"), part=0, last=False)
    second = batch(0, insert(ORDERS, 2, "a", None), part=1)
    sink = opened(kafka, tmp_path, prefix, ORDERS, LINES, **section)
    sink.write(first)
    closed(sink)

    sink = opened(kafka, tmp_path, prefix, ORDERS, LINES, **section)
    sink.write(second)
    closed(sink)

    told = [orjson.loads(message.value() or b"") for message in kafka.consume(f"{prefix}.transaction")]
    assert [(each["status"], each["event_count"]) for each in told] == [("BEGIN", None), ("END", 3)]
    want = [{"data_collection": "orders", "event_count": 2}, {"data_collection": "lines", "event_count": 1}]
    assert told[1]["data_collections"] == want
    blocks = [orjson.loads(message.value() or b"")["transaction"] for message in kafka.consume(f"{prefix}.orders")]
    assert blocks == [
        {"id": "0", "total_order": 1, "data_collection_order": 1},
        {"id": "0", "total_order": 3, "data_collection_order": 2},
    ]


def test_several_tables_in_one_topic_are_in_the_order_of_their_commits(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(kafka, tmp_path, prefix, ORDERS, LINES, topic=f"{prefix}.all")

    transactions = [
        transaction(0, [insert(ORDERS, 1, "a", None), insert(LINES, 1, "x")]),
        transaction(1, [insert(LINES, 2, "y"), update(ORDERS, 1, 1, "b", None)]),
    ]
    sink.write(Batch(transactions, transactions[-1].position, 4, 4))
    closed(sink)

    seen = by_kcat(kafka, f"{prefix}.all")
    assert [(each.value["source"]["table"], each.value["op"]) for each in seen] == [
        ("orders", "c"),
        ("lines", "c"),
        ("lines", "c"),
        ("orders", "u"),
    ]
    assert [each.version for each in seen] == sorted(each.version for each in seen)


def test_a_logical_message_is_an_event_of_its_own(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    prefix = topics.name()
    sink = opened(kafka, tmp_path, prefix)

    sink.write(batch(0, Message("audit", b"hello", transactional=True)))
    closed(sink)

    (message,) = kafka.consume(f"{prefix}.message")
    value = orjson.loads(message.value() or b"")
    assert (message.key(), value["op"], value["message"]) == (
        b'{"prefix":"audit"}',
        "m",
        {"prefix": "audit", "content": "aGVsbG8="},
    )


def test_a_key_goes_to_the_partition_that_the_java_clients_choose(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(kafka, tmp_path, prefix, ORDERS, partitions=3)

    sink.write(batch(0, *[insert(ORDERS, at, "a", None) for at in range(40)]))
    closed(sink)

    got = {message.key(): message.partition() for message in kafka.consume(f"{prefix}.orders")}
    assert len(got) == 40
    assert got == {key: partition_of(key or b"", 3) for key in got}


def test_a_flat_row_takes_what_the_log_did_not_carry_from_earlier_in_the_batch(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(kafka, tmp_path, prefix, ORDERS, format="flat")

    sink.write(batch(0, insert(ORDERS, 1, "a", "long"), update(ORDERS, 1, 1, "b", UNCHANGED)))
    closed(sink)

    done = subprocess.run(
        ["kcat", "-C", "-q", "-e", "-b", kafka.bootstrap, "-t", f"{prefix}.orders", "-f", "%k %s\n"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.decode().splitlines() == [
        '{"id":1} {"id":1,"state":"a","note":"long"}',
        '{"id":1} {"id":1,"state":"b","note":"long"}',
    ]
