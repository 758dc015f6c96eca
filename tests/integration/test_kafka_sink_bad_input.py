"""What a Kafka sink meets that is wrong: each is named, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import Column, Table
from cdcsync.errors import ExitStatus, Fatal, Rejected, Transient
from cdcsync.kafka.config import KafkaSink as Config
from cdcsync.kafka.sink import LARGE, KafkaSink, PlainSink
from cdcsync.ports import SinkContext
from cdcsync.testing import certificates
from cdcsync.testing.conformance.samples import ORDERS, TEXT, batch, insert
from cdcsync.testing.kafka_servers import USERS, KafkaServer
from cdcsync.testing.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from fix_kafka import Topics

    from cdcsync.change import Batch


def made(kafka: KafkaServer, folder: Path, prefix: str, *tables: Table, **section: Any) -> KafkaSink:
    end = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "positions_topic": f"{prefix}.positions"}
    config = Config.model_validate({**end, **section})
    return KafkaSink(config, SinkContext(prefix, folder, tables or (ORDERS,), "memory:1"))


def opened(sink: KafkaSink) -> KafkaSink:
    sink.positions().open("")
    sink.open()
    return sink


def closed(sink: KafkaSink) -> None:
    sink.close()
    sink.positions().close()


def login(kafka: KafkaServer, user: str = "alice", password: str = "") -> dict[str, Any]:
    sasl = {"mechanism": "SCRAM-SHA-512", "username": user, "password": password or USERS[user]}
    return {"brokers": [f"{kafka.host}:{kafka.sasl_port}"], "sasl": sasl}


def keys(kafka: KafkaServer, topic: str) -> list[bytes]:
    return sorted(message.key() or b"" for message in kafka.consume(topic))


def test_a_broker_that_is_not_there_is_waited_for(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"

    with pytest.raises(Transient, match=nobody):
        opened(made(kafka, tmp_path, topics.name(), brokers=[nobody]))


def test_a_broker_that_goes_and_comes_back_gets_each_record_once(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(made(kafka, tmp_path, prefix))
    sink.write(batch(0, insert(ORDERS, 1, "a", None)))

    kafka.kill()
    kafka.start()
    sink.write(batch(1, insert(ORDERS, 2, "b", None)))

    closed(sink)
    assert keys(kafka, f"{prefix}.orders") == [b'{"id":1}', b'{"id":2}']


def test_a_topic_that_has_to_be_there_is_named_with_the_command(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    sink = made(kafka, tmp_path, topics.name(), create_topics=False)

    with pytest.raises(Fatal, match=r"there is no topic test\.\d+\.orders(?s:.*)kafka-topics --create") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.CONFIG


def test_a_topic_that_is_gone_under_a_stored_position_is_told(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(made(kafka, tmp_path, prefix))
    sink.write(batch(0, insert(ORDERS, 1, "a", None)))
    closed(sink)
    kafka.delete(f"{prefix}.orders")

    again = made(kafka, tmp_path, prefix)
    with pytest.raises(Fatal, match="orders is gone"):
        opened(again)

    closed(again)


def test_a_wrong_password_is_told_at_once(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    sink = made(kafka, tmp_path, topics.name(), **login(kafka, password="wrong"))

    with pytest.raises(Fatal, match="mend `sasl`") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.PERMISSION
    assert "wrong" not in str(caught.value)


def test_a_user_without_rights_is_told_which_acl(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    sink = made(kafka, tmp_path, topics.name(), **login(kafka))

    with pytest.raises(Fatal, match="kafka-acls --add") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.PERMISSION


def test_a_broker_whose_certificate_nobody_signed_is_refused_with_the_line_to_add(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    tls = {"mode": "verify-full", "ca": str(other_authority(tmp_path))}
    sink = made(kafka, tmp_path, topics.name(), brokers=[f"{kafka.host}:{kafka.tls_port}"], tls=tls)

    with pytest.raises(Fatal, match="set `tls`") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.CONFIG


def other_authority(folder: Path) -> Path:
    import trustme  # noqa: PLC0415  one test needs another authority than the harness's

    path = folder / "other.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return path


def test_a_certificate_logs_in(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    mine = certificates.issue(tmp_path)
    tls = {"ca": str(mine.authority), "cert": str(mine.chain), "key": str(mine.key)}
    sink = made(kafka, tmp_path, topics.name(), brokers=[f"{kafka.host}:{kafka.tls_port}"], tls=tls)

    with pytest.raises(Fatal, match="kafka-acls"):
        opened(sink)

    closed(sink)


@pytest.mark.parametrize("limit", ["client", "topic"])
def test_a_record_that_is_too_large_is_rejected_alone(
    kafka: KafkaServer, topics: Topics, tmp_path: Path, limit: str
) -> None:
    prefix = topics.name()
    config = {"max.message.bytes": "2000"} if limit == "topic" else {}
    client = {"message.max.bytes": 2000} if limit == "client" else {}
    sink = opened(made(kafka, tmp_path, prefix, topic_config=config, client=client, partitions=1))
    rows = [insert(ORDERS, 1, "a", None), insert(ORDERS, 2, "b", "x" * 3000), insert(ORDERS, 3, "c", None)]

    with pytest.raises(Rejected) as caught:
        sink.write(batch(0, *rows))
    sink.write(batch(0, rows[0], rows[2]))

    closed(sink)
    assert list(caught.value.reasons) == [(0, 1)]
    assert "max.bytes" in str(caught.value) or "max.message.bytes" in str(caught.value)
    assert keys(kafka, f"{prefix}.orders") == [b'{"id":1}', b'{"id":3}']


def test_a_record_refused_while_the_next_batch_is_encoded_is_named_when_it_comes_again(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    sink = opened(
        made(kafka, tmp_path, prefix, topic_config={"max.message.bytes": "9000"}, client={"batch.size": 5000})
    )
    small = [insert(ORDERS, at, "a", None) for at in range(1, LARGE)]
    first = batch(0, *small, insert(ORDERS, LARGE, "b", "x" * 10_000))
    second = batch(1, *[insert(ORDERS, LARGE + at, "a", None) for at in range(1, LARGE + 1)])

    assert sink.write(first) is None
    with pytest.raises(Transient, match="refused"):
        sink.write(second)
    closed(sink)
    opened(sink)
    with pytest.raises(Rejected) as caught:
        sink.write(first)
    without = batch(0, *small)
    assert sink.write(without) == without.position
    assert sink.write(second) is None
    assert sink.flush() == second.position

    closed(sink)
    assert list(caught.value.reasons) == [(0, LARGE - 1)]
    want = sorted(b'{"id":%d}' % at for at in range(1, 2 * LARGE + 1) if at != LARGE)
    assert keys(kafka, f"{prefix}.orders") == want


def test_what_is_under_way_when_a_newer_daemon_takes_over_is_there_once_and_nothing_follows(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    first = opened(made(kafka, tmp_path / "one", prefix))
    large = batch(0, *[insert(ORDERS, at, "a", None) for at in range(LARGE)])
    after = batch(1, *[insert(ORDERS, LARGE + at, "a", None) for at in range(LARGE)])
    assert first.write(large) is None
    assert first.arrived() == large.position

    second = opened(made(kafka, tmp_path / "two", prefix))
    with pytest.raises(Fatal, match="taken") as caught:
        raise_late(first, after)

    closed(first)
    closed(second)
    assert caught.value.status is ExitStatus.OWNERSHIP
    assert keys(kafka, f"{prefix}.orders") == sorted(b'{"id":%d}' % at for at in range(LARGE))


def raise_late(sink: KafkaSink, given: Batch) -> None:
    """Write, and wait for what is under way."""
    sink.write(given)
    sink.arrived()


def test_a_row_without_a_key_is_rejected_by_a_compacted_topic(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    bare = Table("", "bare", (Column("note", TEXT),))
    sink = opened(made(kafka, tmp_path, topics.name(), bare, topic_config={"cleanup.policy": "compact"}))

    with pytest.raises(Rejected, match="without a key"):
        sink.write(batch(0, insert(bare, "x")))

    closed(sink)


def test_more_replicas_than_brokers_are_refused_by_name(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    sink = made(kafka, tmp_path, topics.name(), replication=3)

    with pytest.raises(Fatal, match="fewer brokers than `replication`") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.CONFIG


def test_a_setting_that_the_client_does_not_know_is_named(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    sink = made(kafka, tmp_path, topics.name(), client={"linger.years": 5})

    with pytest.raises(Fatal, match=r"linger\.years") as caught:
        opened(sink)

    closed(sink)
    assert caught.value.status is ExitStatus.CONFIG


def test_without_transactions_records_are_there_when_write_returns(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.name()
    section = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "delivery": "idempotent"}
    sink = PlainSink(Config.model_validate(section), SinkContext(prefix, tmp_path, (ORDERS,)))
    sink.open()

    first = batch(0, insert(ORDERS, 1, "a", None))
    assert sink.write(first) == first.position

    assert keys(kafka, f"{prefix}.orders") == [b'{"id":1}']
    sink.close()
