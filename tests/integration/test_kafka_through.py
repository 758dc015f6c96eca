"""Whole ways through Kafka: a database behind it, and the smallest program that reads, changes and writes."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fix_kafka_source import Running, until
from ruamel.yaml import YAML

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from pathlib import Path

    from fix_kafka import Topics
    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer

PROGRAM = """\
import cdcsync

cdcsync.each("kafka://{broker}/{words}?format=text",
             "kafka://{broker}/{shouts}?format=text",
             lambda row: row | {{"value": row["value"].upper()}})
"""
MYSQL = """
CREATE TABLE item (
    id BIGINT PRIMARY KEY, tiny TINYINT, small SMALLINT, whole INT, big BIGINT UNSIGNED, price DECIMAL(12, 3), ratio DOUBLE,
    name VARCHAR(40), note TEXT, raw VARBINARY(20), day DATE, at DATETIME(6), seen TIMESTAMP(3) NULL, clock TIME(2), doc JSON
)
"""
COLUMNS = "id, tiny, small, whole, big, price, ratio, name, note, raw, day, at"


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    with path.open("w") as file:
        YAML().dump({"name": name, "control": {"socket": str(folder / f"{name}.s")}, **content}, file)
    path.chmod(0o600)
    return path


def fill(mysql: MysqlDatabase, first: int, last: int) -> None:
    for number in range(first, last):
        mysql.execute(
            "INSERT INTO item VALUES (%s, -1, 300, 70000, 18446744073709551615, '12.340', 0.1, %s, NULL, %s,"
            " '2026-11-25', '2026-11-25 01:02:03.456789', '2026-11-25 01:02:03.5', '01:02:03.5', '{\"a\": 1}')",
            [number, f"naïve {number}", b"\x00\xff"],
        )


def of_mysql(mysql: MysqlDatabase) -> list[tuple[str | None, ...]]:
    query = f"SELECT {COLUMNS}, CONVERT_TZ(seen, @@session.time_zone, '+00:00'), TRIM(TRAILING '0' FROM CAST(clock AS CHAR)), CAST(doc AS CHAR) FROM item ORDER BY id"
    return [tuple(plain(cell) for cell in row) for row in mysql.query(query)]


def of_postgres(database: Database) -> list[tuple[str | None, ...]]:
    if not database.query("SELECT to_regclass('item')")[0][0]:
        return []
    query = f"SELECT {COLUMNS}, seen AT TIME ZONE 'UTC', clock::text, doc::text FROM item ORDER BY id"
    return [tuple(plain(cell) for cell in row) for row in database.query(query)]


def plain(cell: Any) -> str | None:
    """Return one text for both servers' forms of a value."""
    if cell is None:
        return None
    if hasattr(cell, "isoformat"):
        return str(cell.isoformat().removesuffix("+00:00"))
    return cell.hex() if isinstance(cell, bytes) else str(cell)


def test_mysql_by_way_of_kafka_is_equal_in_postgres(
    kafka: KafkaServer, topics: Topics, mysql_database: MysqlDatabase, database: Database, tmp_path: Path
) -> None:
    """Two daemons, one topic of three partitions, Debezium's envelope with its schema; every column of every row."""
    mysql, topic = mysql_database, topics.name()
    mysql.execute(MYSQL)
    fill(mysql, 0, 20)
    sending = {
        "brokers": [kafka.bootstrap],
        "topic": topic,
        "partitions": 3,
        "schemas": True,
        "bigint_unsigned_handling_mode": "precise",
    }
    ours = write(
        tmp_path, "sending", {"source": mysql.url, "sink": {"kafka": sending}, "tables": [f"{mysql.name}.item"]}
    )
    taking = {"kafka": {"brokers": [kafka.bootstrap], "topics": [f"{topic}*"]}}
    entry = {"from": f"{mysql.name}.item", "to": "item"}
    theirs = write(tmp_path, "taking", {"source": taking, "sink": database.url, "tables": [entry]})

    with Running(ours, tmp_path / "a"):
        until(lambda: topic in kafka.topics(), "the topic is not made")
        with Running(theirs, tmp_path / "b") as running:
            fill(mysql, 20, 40)
            mysql.execute("UPDATE item SET price = -0.001, note = 'changed', seen = NULL WHERE id % 3 = 0")
            mysql.execute("DELETE FROM item WHERE id % 5 = 0")
            mysql.execute("UPDATE item SET id = 1000 WHERE id = 1")
            until(
                lambda: of_postgres(database) == of_mysql(mysql),
                lambda: f"{running.fault} {of_postgres(database)[:2]} {of_mysql(mysql)[:2]}",
            )

    assert len(of_postgres(database)) == 32


def test_five_lines_of_python_read_change_and_write(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    words, shouts = topics.make(), topics.make()
    kafka.produce(words, (b"a", b"to be"), (None, b"or not"))
    text = PROGRAM.format(broker=kafka.bootstrap, words=words, shouts=shouts)
    assert len([line for line in text.splitlines() if line]) <= 5
    environ = {"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": "/usr/bin"}
    process = subprocess.Popen([sys.executable, "-c", text], env=environ)

    try:
        until(lambda: len(kafka.consume(shouts)) == 2, "nothing is written")
    finally:
        process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert [(each.key(), each.value()) for each in kafka.consume(shouts)] == [(b"a", b"TO BE"), (None, b"OR NOT")]


def test_the_same_in_yaml(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    words, shouts = topics.make(), topics.make()
    kafka.produce(words, (b"a", b"to be"), (None, b"or not"))
    schema, _, name = words.rpartition(".")
    end = {"brokers": [kafka.bootstrap], "format": "text"}
    content = {
        "source": {"kafka": {**end, "topic": words}},
        "sink": {"kafka": {**end, "topic": shouts}},
        "tables": [{"from": f"{schema}.{name}", "to": "shouts", "columns": {"value": "upper(value)"}}],
    }

    with Running(write(tmp_path, "shout", content), tmp_path / "state"):
        until(lambda: len(kafka.consume(shouts)) == 2, "nothing is written")

    assert [(each.key(), each.value()) for each in kafka.consume(shouts)] == [(b"a", b"TO BE"), (None, b"OR NOT")]


def test_a_pipeline_that_would_read_what_it_writes_is_refused(kafka: KafkaServer, topic: str, tmp_path: Path) -> None:
    end = {"brokers": [kafka.bootstrap], "format": "text", "topic": topic}
    content = {"source": {"kafka": end}, "sink": {"kafka": end}, "tables": ["/.*/"]}

    with pytest.raises(Fatal, match="source and target are the same table"):
        Running(write(tmp_path, "loop", content), tmp_path / "state").__enter__()
