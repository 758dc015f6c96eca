"""The daemon and the broker are killed under traffic: readers that are not ours find each change once."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fix_pgbench
import fix_sysbench
from fix_kafka_sink import Seen, by_console, by_kcat, latest

from cdcsync.errors import ExitStatus
from cdcsync.mysql.position import MysqlPosition
from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.faults import await_delivery, kill_at_random
from cdcsync.testing.trace import check_steps

if TYPE_CHECKING:
    from pathlib import Path

    from fix_kafka import Topics
    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

    from cdcsync.testing.faults import Victim
    from cdcsync.testing.kafka_servers import KafkaServer

JVMS = 2
"""The broker, and Kafka's own consumer."""


@dataclass(frozen=True, slots=True)
class Length:
    """How much of it."""

    seconds: float
    kills: int
    """Of the daemon, before each of the broker's and after the last."""
    broker_kills: int
    patience_s: float = 120


SHORT = Length(seconds=10, kills=2, broker_kills=1)
FULL = Length(seconds=90, kills=5, broker_kills=5)
LENGTH = FULL if os.environ.get("CDCSYNC_FULL") else SHORT

SCRIPT = f"""\\set aid random(1, {fix_pgbench.SMALL})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
INSERT INTO seen (delta) VALUES (:delta);
END;
"""


def section(kafka: KafkaServer, prefix: str, **more: Any) -> dict[str, Any]:
    end = {"brokers": [kafka.bootstrap], "topic": f"{prefix}.{{table}}", "positions_topic": f"{prefix}.positions"}
    return {"kafka": {**end, "partitions": 3, **more}}


def killed(daemon: Victim, trace: Path, kafka: KafkaServer, dice: random.Random) -> int:
    """Kill both in turn; return how often the daemon was."""
    kills = kill_at_random(daemon, trace, kills=LENGTH.kills, apart_s=0.5, dice=dice)
    for _ in range(LENGTH.broker_kills):
        kafka.kill()
        kafka.start()
        kills += kill_at_random(daemon, trace, kills=LENGTH.kills, apart_s=0.5, dice=dice)
    return len(kills)


def repeated(records: list[Seen]) -> list[Any]:
    """Return the changes that are there more than once."""
    return [change for change, count in Counter(each.change for each in records if each.value).items() if count > 1]


def test_each_change_of_postgres_is_in_the_topics_once(
    kafka: KafkaServer, topics: Topics, database: Database, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    prefix = topics.name()
    fix_pgbench.fill(database, 0)
    database.execute("CREATE TABLE seen (id bigserial PRIMARY KEY, delta int)")
    pipeline = fix_pgbench.Pipeline(database, tmp_path)
    pipeline.write(section(kafka, prefix), tables=[*fix_pgbench.TABLES, "seen"])
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_copied(daemon, LENGTH.patience_s)

        with fix_pgbench.traffic(database, LENGTH.seconds, scale=0, script=SCRIPT):
            kills = killed(daemon, pipeline.trace, kafka, random.Random(seed))
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    check_steps(pipeline.steps(), PostgresPosition.decode)
    assert kills == LENGTH.kills * (LENGTH.broker_kills + 1)
    want = [key for (key,) in database.query("SELECT id FROM seen ORDER BY id")]
    seen = by_kcat(kafka, f"{prefix}.seen")
    assert sorted(each.key["id"] for each in seen) == want
    assert sorted(key["id"] for key, _ in by_console(kafka, f"{prefix}.seen")) == want
    accounts = by_kcat(kafka, f"{prefix}.pgbench_accounts")
    assert repeated(accounts) == []
    got = {row["aid"]: row["abalance"] for row in latest(accounts).values()}
    assert got == dict(database.query("SELECT aid, abalance FROM pgbench_accounts"))


def test_each_change_of_mysql_is_in_the_topics_once(
    kafka: KafkaServer, topics: Topics, mysql_database: MysqlDatabase, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    prefix = topics.name()
    start = fix_sysbench.start_of(mysql_database.server)
    fix_sysbench.fill(mysql_database, 1000)
    pipeline = fix_sysbench.Pipeline(mysql_database, tmp_path)
    pipeline.write(section(kafka, prefix), source=start)
    with pipeline.victim() as daemon:
        daemon.start()
        pipeline.await_drained(daemon, LENGTH.patience_s)

        with fix_sysbench.traffic(mysql_database, LENGTH.seconds, size=1000):
            killed(daemon, pipeline.trace, kafka, random.Random(seed))
        pipeline.await_drained(daemon, LENGTH.patience_s)
        assert daemon.stop() == 0

    check_steps(pipeline.steps(), MysqlPosition.decode)
    for table in fix_sysbench.TABLES:
        records = by_kcat(kafka, f"{prefix}.{table}")
        assert repeated(records) == []
        got = sorted(tuple(row.values()) for row in latest(records).values())
        assert got == sorted(mysql_database.query(f"SELECT {fix_sysbench.COLUMNS} FROM {table}"))


def test_a_daemon_that_hung_and_was_replaced_writes_nothing_more(
    kafka: KafkaServer, topics: Topics, database: Database, tmp_path: Path
) -> None:
    prefix = topics.name()
    fix_pgbench.fill(database, 0)
    database.execute(f"ALTER DATABASE {database.name} SET wal_sender_timeout = '2s'")
    pipeline = fix_pgbench.Pipeline(database, tmp_path)
    pipeline.write(section(kafka, prefix), tables=["pgbench_accounts", "pgbench_history"])
    with pipeline.victim() as first, pipeline.victim("-other") as second:
        first.start()
        pipeline.await_copied(first, LENGTH.patience_s)
        with fix_pgbench.traffic(database, 4, scale=0):
            await_delivery(first, pipeline.trace, time.monotonic_ns())
            first.pause()
            second.start()
            pipeline.await_step(second, lambda _position: True, LENGTH.patience_s, "-other")

        first.resume()
        assert first.await_end() == ExitStatus.OWNERSHIP
        pipeline.await_drained(second, LENGTH.patience_s, who="-other")
        assert second.stop() == 0

    accounts = by_kcat(kafka, f"{prefix}.pgbench_accounts")
    assert repeated(accounts) == []
    got = {row["aid"]: row["abalance"] for row in latest(accounts).values()}
    assert got == dict(database.query("SELECT aid, abalance FROM pgbench_accounts"))
