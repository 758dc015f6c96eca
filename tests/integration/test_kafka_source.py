"""Topics as a source of a pipeline, against a real broker: what arrives, what is refused, and what nothing loses."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from fix_kafka_source import Running, flat, until
from ruamel.yaml import YAML

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.metrics import State
from cdcsync.rejected import DeadLetters

if TYPE_CHECKING:
    from pathlib import Path

    from fix_kafka import Topics
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer


@dataclass
class Desk:
    """A pipeline's file, and its target."""

    kafka: KafkaServer
    database: Database
    folder: Path

    def write(self, topic: str | list[str], source: dict[str, Any] | None = None, **rest: Any) -> Path:
        names = [topic] if isinstance(topic, str) else topic
        section = {"brokers": [self.kafka.bootstrap], "topics": names, "format": "flat", **(source or {})}
        path = self.folder / "carry.yaml"
        content = {
            "source": {"kafka": section},
            "sink": self.database.url,
            "tables": [{"from": "/.*/", "to": "rows"}],
            "control": {"socket": str(self.folder / "s")},
            **rest,
        }
        with path.open("w") as file:
            YAML().dump(content, file)
        path.chmod(0o600)
        return path

    def running(self) -> Running:
        return Running(self.folder / "carry.yaml", self.folder / "state")

    def rows(self) -> list[tuple[Any, ...]]:
        if not self.database.query("SELECT to_regclass('rows')")[0][0]:
            return []
        return self.database.query("SELECT * FROM rows ORDER BY 1")

    def await_rows(self, *want: tuple[Any, ...]) -> None:
        until(lambda: self.rows() == list(want), f"wanted {want}, got {self.rows()}")


@pytest.fixture
def desk(kafka: KafkaServer, database: Database, tmp_path: Path) -> Desk:
    return Desk(kafka, database, tmp_path)


def test_rows_arrive_are_updated_and_deleted(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"), flat(2, v="b"))

    with desk.running():
        desk.await_rows(("1", "a"), ("2", "b"))
        desk.kafka.produce(topic, flat(1, v="c"), (b'{"id": 2}', None))
        desk.await_rows(("1", "c"))


def test_a_pipeline_goes_on_where_its_target_stands(desk: Desk, three: str) -> None:
    desk.write(three)
    desk.kafka.produce(three, *[flat(at, v="a") for at in range(50)])
    with desk.running():
        until(lambda: len(desk.rows()) == 50, "the first rows do not come")
    desk.kafka.produce(three, *[flat(at, v="b") for at in range(50, 60)])
    desk.database.execute("DELETE FROM rows")

    with desk.running():
        until(lambda: len(desk.rows()) == 10, "the next rows do not come")

    assert {value for _, value in desk.rows()} == {"b"}


def test_what_was_not_committed_is_never_seen(desk: Desk, topic: str) -> None:
    desk.write(topic)
    producer = Producer(desk.kafka.client(transactional_id="t1"))
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, key=b'{"id": 1}', value=b'{"id": 1, "v": "aborted"}')
    producer.flush(20)
    producer.abort_transaction(20)
    producer.begin_transaction()
    producer.produce(topic, key=b'{"id": 2}', value=b'{"id": 2, "v": "kept"}')
    producer.commit_transaction(20)

    with desk.running():
        desk.await_rows(("2", "kept"))


def test_a_message_that_is_not_of_its_format_stops_with_its_place(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"), (b'{"id": 2}', b"no json"), flat(3, v="c"))

    with desk.running() as running:
        fatal = running.ended()

    assert isinstance(fatal, Fatal)
    assert fatal.status is ExitStatus.DATA
    assert f"{topic}-0@1 cannot be read as flat: it is not JSON" in str(fatal)
    assert "no json" not in str(fatal)


def test_a_message_that_is_not_of_its_format_can_be_put_aside(desk: Desk, topic: str) -> None:
    desk.write(topic, on_rejected="dead_letter")
    desk.kafka.produce(topic, flat(1, v="a"), (b'{"id": 2}', b"no json"), flat(3, v="c"))

    with desk.running():
        desk.await_rows(("1", "a"), ("3", "c"))

    (letter,) = DeadLetters(desk.folder / "state", "carry").list()
    assert letter.operation == "unreadable"
    assert json.loads(letter.after or b"")["offset"] == 1


def test_a_topic_that_is_not_there_is_named(desk: Desk) -> None:
    desk.write("nowhere.at.all")

    with pytest.raises(Fatal, match=r"there is no topic nowhere\.at\.all") as caught:
        desk.running().__enter__()

    assert caught.value.status is ExitStatus.CONFIG


def test_records_that_retention_took_stop_the_pipeline(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"))
    with desk.running():
        desk.await_rows(("1", "a"))
    desk.kafka.produce(topic, *[flat(at, v="b") for at in range(2, 6)])
    desk.kafka.delete_before(topic, 0, 4)

    with desk.running() as running:
        fatal = running.ended()

    assert f"{topic}-0 begins at 4, and 1 would have come next" in str(fatal)
    desk.write(topic, {"on_lost_position": "earliest"})
    with desk.running():
        desk.await_rows(("1", "a"), ("5", "b"))


def test_a_topic_made_anew_is_another_one(desk: Desk, topics: Topics) -> None:
    topic = topics.make()
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"))
    with desk.running():
        desk.await_rows(("1", "a"))
    desk.kafka.delete(topic)
    desk.kafka.create(topic)
    desk.kafka.produce(topic, flat(2, v="b"), flat(3, v="b"))

    with desk.running() as running:
        fatal = running.ended()

    assert f"topic {topic} is another one" in str(fatal)
    desk.write(topic, {"on_lost_position": "earliest"})
    with desk.running():
        desk.await_rows(("1", "a"), ("2", "b"), ("3", "b"))
    stored = desk.database.query("SELECT epoch FROM cdcsync_positions")
    assert stored == [(2,)]


def test_partitions_that_are_added_are_read_after_the_old_ones(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"))
    with desk.running():
        desk.await_rows(("1", "a"))
        desk.kafka.add_partitions(topic, 3)
        desk.kafka.produce(topic, *[flat(at, v="b") for at in range(2, 30)])
        until(lambda: len(desk.rows()) == 29, "rows of the new partitions do not come")

    assert desk.database.query("SELECT epoch FROM cdcsync_positions") == [(2,)]


def test_a_position_that_is_lost_is_not_begun_anew_in_silence(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"))
    with desk.running():
        desk.await_rows(("1", "a"))
    desk.database.execute("DROP TABLE cdcsync_positions")

    with desk.running() as running:
        fatal = running.ended()

    assert "no position of pipeline carry is stored" in str(fatal)
    assert "cdcsync drop carry" in str(fatal)


def test_a_broker_that_is_down_is_waited_for(desk: Desk, topic: str) -> None:
    desk.write(topic)
    desk.kafka.produce(topic, flat(1, v="a"))
    with desk.running() as running:
        desk.await_rows(("1", "a"))
        desk.kafka.kill()
        assert running.pipeline is not None
        progress = running.pipeline.progress
        until(lambda: progress.state is State.UNREADY, "nothing is said of the broker")
        desk.kafka.start()
        desk.kafka.produce(topic, flat(2, v="b"))
        desk.await_rows(("1", "a"), ("2", "b"))


def test_columns_that_are_declared_have_their_types(desk: Desk, topic: str) -> None:
    columns = {"id": "bigint", "price": "decimal(10,2)", "at": "timestamptz"}
    desk.write(topic, {"tables": {topic: {"columns": columns, "key": ["id"]}}, "decimal_handling_mode": "string"})
    desk.kafka.produce(topic, (b"1", b'{"id":1,"price":"1.50","at":"2026-11-25T01:00:00Z"}'))

    with desk.running():
        until(lambda: len(desk.rows()) == 1, "the row does not come")

    kinds = desk.database.query("SELECT pg_typeof(id)::text, pg_typeof(price)::text, pg_typeof(at)::text FROM rows")
    assert kinds == [("bigint", "numeric", "timestamp with time zone")]


def test_changes_of_a_sender_have_its_versions_and_what_a_replaced_one_wrote_is_dropped(desk: Desk, topic: str) -> None:
    desk.write(topic, sink={"jsonl": {"path": str(desk.folder / "out.jsonl")}})
    producer = Producer(desk.kafka.client())
    version = 5 << 53
    for number, place in enumerate((10, 10, 20, 15, 10 - (1 << 53), 30)):
        headers: dict[str, str | bytes | None] = {"version": str(version + place)}
        key, value = flat(number, v=str(place))
        producer.produce(topic, key=key, value=value, headers=headers)
    producer.flush(20)
    out = desk.folder / "out.jsonl"

    with desk.running():
        until(lambda: out.exists() and len(out.read_text().splitlines()) == 5, "the lines do not come")

    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["version"] - version for line in lines] == [10, 10, 20, 15, 30]


def test_an_idle_topic_costs_nothing_and_its_end_is_stored(desk: Desk, topic: str) -> None:
    desk.write(topic, heartbeat="500ms")
    producer = Producer(desk.kafka.client(transactional_id="t2"))
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, key=b"1", value=b'{"id":1}')
    producer.flush(20)
    producer.abort_transaction(20)

    with desk.running() as running:
        assert running.pipeline is not None
        progress = running.pipeline.progress
        until(lambda: '"0":2' in progress.position, "the end after the aborted transaction is not stored")
        time.sleep(0.1)
        assert progress.changes == 0
