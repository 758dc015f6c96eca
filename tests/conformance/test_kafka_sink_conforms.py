"""Kafka passes the suites: a topic's committed records, replayed in order, give the rows of the source."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import UNCHANGED, SchemaChange
from cdcsync.errors import Incomplete
from cdcsync.kafka.config import KafkaSink as SinkConfig
from cdcsync.kafka.config import KafkaStore as StoreConfig
from cdcsync.kafka.decoding import Reading, decoder_of
from cdcsync.kafka.decoding.records import Record
from cdcsync.kafka.positions import KafkaPositions
from cdcsync.kafka.sink import KafkaSink
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import ORDERS, batch, insert, update
from cdcsync.testing.conformance.sinks import ExactlyOnceSuite, Target, closed, opened
from cdcsync.testing.conformance.stores import StoreSuite
from cdcsync.testing.memory import MemoryDatabase, MemorySink
from cdcsync.types import BoundedArray, Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink
    from cdcsync.testing.kafka_servers import KafkaServer

NUMBERS = itertools.count(1)


def refuses(kind: Type, value: Any) -> bool:
    """Bytes of an unscaled number have no NaN, int64 has no sign to spare, arrays with a schema have one dimension."""
    if kind.kind is Kind.DECIMAL:
        return not value[-1].isdecimal()
    if kind.kind is Kind.INTEGER:
        return int(value) >= 1 << 63
    return type(value) is BoundedArray or (kind.kind is Kind.ARRAY and any(isinstance(each, tuple) for each in value))


class TestKafkaSink(ExactlyOnceSuite):
    @pytest.fixture
    def target(self, kafka: KafkaServer) -> Target:
        pipeline = f"conforms{next(NUMBERS)}"
        section: dict[str, Any] = {
            "brokers": [kafka.bootstrap],
            "topic": f"{pipeline}.{{table}}",
            "schemas": True,
            "partitions": 1,
        }
        section["interval_handling_mode"] = "string"
        config = SinkConfig.model_validate(section)

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = KafkaSink(config, SinkContext(pipeline, state, tuple(tables), "memory:1"))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            sink = KafkaSink(config, SinkContext(pipeline, kafka.directory))
            topic = sink._writer.topic(table)
            decoder = decoder_of(Reading())
            changes = []
            for message in kafka.consume(topic):
                record = Record(topic, 0, message.offset() or 0, 0, message.key(), message.value())
                changes += [item for item in decoder.decode(record).items if not isinstance(item, SchemaChange)]
            database = MemoryDatabase()
            replayed = MemorySink(database)
            replayed.positions().open("")
            replayed.write(batch(0, *changes))
            return [row for kept in (database.rows, database.appended) for each in kept.values() for row in _rows(each)]

        return Target(make, rows, None, refuses)

    def test_a_key_that_moves_leaves_no_ghost(self, target: Target, tmp_path: Path) -> None:
        sink, store = opened(target, tmp_path, ORDERS)
        sink.write(batch(0, insert(ORDERS, 1, "kept", "a")))

        with pytest.raises(Incomplete, match="did not carry state"):
            sink.write(batch(1, update(ORDERS, 1, 2, UNCHANGED, "moved")))
        sink.write(batch(1, update(ORDERS, 1, 2, "kept", "moved")))

        closed(sink, store)
        assert target.rows(ORDERS) == [(2, "kept", "moved")]

    def test_rows_that_exchange_their_keys_do(self, target: Target, tmp_path: Path) -> None:
        sink, store = opened(target, tmp_path, ORDERS)
        rows = [insert(ORDERS, 1, "one", "x"), insert(ORDERS, 2, "two", "y")]
        swap = [update(ORDERS, a, b, UNCHANGED, UNCHANGED) for a, b in ((1, 9), (2, 1), (9, 2))]

        sink.write(batch(0, *rows, *swap))

        closed(sink, store)
        assert sorted(target.rows(ORDERS)) == [(1, "two", "y"), (2, "one", "x")]


def _rows(kept: Any) -> list[Row]:
    return list(kept.values()) if isinstance(kept, dict) else list(kept)


class TestKafkaStore(StoreSuite):
    @pytest.fixture
    def store(self, kafka: KafkaServer) -> Callable[[Path], PositionStore]:
        config = StoreConfig.model_validate({"brokers": [kafka.bootstrap]})
        pipeline = f"store{next(NUMBERS)}"
        return lambda state: KafkaPositions(config, SinkContext(pipeline, state))
