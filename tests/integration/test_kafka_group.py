"""Several processes of one consumer group carry the partitions of a topic into PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from fix_command import stopped
from fix_kafka_source import until
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_command import Command
    from fix_kafka import Topics
    from fix_postgres import Database

    from cdcsync.testing.kafka_servers import KafkaServer

FULL = os.environ.get("CDCSYNC_FULL") == "1"
PARTITIONS = 6
KEYS = 400


@dataclass
class Members:
    """Processes of one pipeline, each with a state directory of its own."""

    kafka: KafkaServer
    database: Database
    folder: Path
    topic: str
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    made: int = 0

    def write(self) -> None:
        section = {
            "brokers": [self.kafka.bootstrap],
            "topics": [self.topic],
            "format": "flat",
            "group": f"g-{self.topic}",
            "client": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000},
            "tables": {self.topic: {"columns": {"id": "bigint", "v": "bigint"}, "key": ["id"]}},
        }
        content = {
            "source": {"kafka": section},
            "sink": self.database.url,
            "tables": [{"from": "/.*/", "to": "rows"}],
        }
        path = self.folder / "carry.yaml"
        with path.open("w") as file:
            YAML().dump(content, file)
        path.chmod(0o600)

    def start(self) -> int:
        number = self.made
        self.made += 1
        state = self.folder / f"state{number}"
        environ = {**os.environ, "STATE_DIRECTORY": str(state)}
        command = [sys.executable, "-m", "cdcsync", "run", str(self.folder / "carry.yaml")]
        with (self.folder / f"log{number}").open("wb") as log:
            self.processes[number] = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        return number

    def kill(self, number: int) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def stop(self, number: int) -> int:
        process = self.processes.pop(number)
        process.terminate()
        return process.wait(30)

    def holders(self) -> set[str]:
        """Return which processes have a lane now, as the positions name them."""
        if not self.database.query("SELECT to_regclass('cdcsync_positions')")[0][0]:
            return set()
        return {row[0] for row in self.database.query("SELECT DISTINCT holder FROM cdcsync_positions")}

    def holds(self, number: int) -> bool:
        return any(f"pid {self.processes[number].pid} " in holder for holder in self.holders())

    def rows(self) -> dict[int, int]:
        return dict(self.database.query("SELECT id, v FROM rows"))

    def kept(self) -> set[int]:
        """Return the keys in the target."""
        there = self.database.query("SELECT to_regclass('rows')")[0][0]
        return set(self.rows()) if there else set()

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log*")))


def row(number: int) -> tuple[bytes, bytes]:
    return json.dumps({"id": number}).encode(), json.dumps({"id": number, "v": number}).encode()


class Traffic:
    """Rows whose values rise by key: what the target ends with is the last of each."""

    def __init__(self, kafka: KafkaServer, topic: str) -> None:
        self.topic = topic
        self.last: dict[int, int] = {}
        self._producer = Producer(kafka.client(acks="all", enable_idempotence=True))
        self._value = 0

    def send(self, count: int, dice: random.Random) -> None:
        for _ in range(count):
            key = dice.randrange(KEYS)
            self._value += 1
            name = json.dumps({"id": key}).encode()
            if dice.random() < 0.1 and key in self.last:
                del self.last[key]
                self._producer.produce(self.topic, key=name, value=None)
            else:
                self.last[key] = self._value
                row = json.dumps({"id": key, "v": self._value}).encode()
                self._producer.produce(self.topic, key=name, value=row)
            self._producer.poll(0)
        self._producer.flush(30)


@pytest.fixture
def members(kafka: KafkaServer, database: Database, topics: Topics, tmp_path: Path) -> Iterator[Members]:
    made = Members(kafka, database, tmp_path, topics.make(PARTITIONS))
    made.write()
    yield made
    for process in made.processes.values():
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def equal(members: Members, want: dict[int, int]) -> bool:
    return bool(members.database.query("SELECT to_regclass('rows')")[0][0]) and members.rows() == want


@pytest.mark.timeout(600)
def test_members_that_are_killed_and_added_under_load_leave_the_target_equal(members: Members) -> None:
    """Four of them, and more as they go: what one had delivered the next does not deliver again, and nothing is lost."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    traffic = Traffic(members.kafka, members.topic)
    for _ in range(4):
        members.start()
    until(lambda: len(members.holders()) >= 2, members.said)

    for step in range(20 if FULL else 4):
        traffic.send(500, dice)
        if step % 3 == 2:
            assert members.stop(min(members.processes)) == 0
        else:
            members.kill(dice.choice(sorted(members.processes)))
        members.start()
        traffic.send(200, dice)

    until(lambda: equal(members, traffic.last), members.said, 120)
    lanes = members.database.query("SELECT lane FROM cdcsync_positions ORDER BY lane")
    assert lanes == [(f"{members.topic}/{number}",) for number in range(PARTITIONS)]


@pytest.mark.timeout(300)
def test_a_member_that_hangs_is_put_out_and_writes_nothing_when_it_wakes(members: Members) -> None:
    dice = random.Random(1)
    traffic = Traffic(members.kafka, members.topic)
    first = members.start()
    traffic.send(200, dice)
    until(lambda: equal(members, traffic.last), members.said)
    members.processes[first].send_signal(signal.SIGSTOP)
    second = members.start()
    traffic.send(200, dice)
    until(lambda: equal(members, traffic.last), members.said)
    fences = members.database.query("SELECT lane, fence FROM cdcsync_positions ORDER BY lane")

    members.processes[first].send_signal(signal.SIGCONT)
    time.sleep(3)
    traffic.send(200, dice)

    until(lambda: equal(members, traffic.last), members.said)
    assert members.processes[second].poll() is None
    assert members.processes[first].poll() is None
    after: list[tuple[Any, ...]] = members.database.query("SELECT lane, fence FROM cdcsync_positions ORDER BY lane")
    assert all(one[1] <= other[1] for one, other in zip(fences, after, strict=True))


def test_a_group_needs_positions_that_all_its_processes_see(members: Members) -> None:
    path = members.folder / "carry.yaml"
    text = path.read_text().replace(members.database.url, f"jsonl:{members.folder}/out.jsonl")
    path.write_text(text)

    number = members.start()

    assert members.processes[number].wait(30) == 78
    assert "has one writer, and a group has several" in members.said()


def test_commands_know_the_lanes_of_a_group(members: Members, command: Command) -> None:
    """Its position is shown as one, set for each lane, judged and forgotten."""
    path = str(members.folder / "carry.yaml")
    members.kafka.produce(members.topic, *[row(at) for at in range(20)])
    daemon = command.start("run", path)
    until(lambda: len(members.kept()) == 20, lambda: f"{members.kept()}")
    status = command("status", path).stdout
    assert all(f"lane {members.topic}/{number}  running" in status for number in range(PARTITIONS)), status
    first = command("positions", "show", path).stdout.strip()
    assert len(json.loads(first)["topics"][members.topic]["next"]) == PARTITIONS
    members.kafka.produce(members.topic, *[row(at) for at in range(20, 25)])
    until(lambda: len(members.kept()) == 25, lambda: f"{members.kept()}")
    assert stopped(daemon)[0] == 0
    members.database.execute("DELETE FROM rows")

    put = command("positions", "set", path, first)
    checked = command("check", path).stdout

    assert json.loads(put.stdout)["epoch"] == 2, put.stderr
    assert f"lanes: {PARTITIONS} lane(s) are shared by the group's processes; {PARTITIONS} of them" in checked
    assert f"position: 5 record(s) wait in {PARTITIONS} partition(s)" in checked
    daemon = command.start("run", path)
    until(lambda: members.kept() == {*range(20, 25)}, lambda: f"{members.kept()}")
    assert stopped(daemon)[0] == 0
    dropped = command("drop", "--yes", path).stdout
    assert "removed: the stored position" in dropped
    assert f"consumer group g-{members.topic}" in dropped
    assert command("positions", "show", path).stdout.strip() == "no position is stored"
    text = (members.folder / "carry.yaml").read_text()
    alone = command.write(text.replace(f"group: g-{members.topic}", "") + "name: carry\n", "alone.yaml")
    assert command("positions", "set", alone, first).returncode == 0
    refused = command("run", path)
    assert refused.returncode == 78
    assert "has the position of one process" in refused.stderr


def test_a_position_that_lacks_a_lane_is_refused(members: Members, command: Command) -> None:
    told = {"epoch": 1, "topics": {members.topic: {"id": "x", "partitions": 1, "next": {"0": 3}}}}

    put = command("positions", "set", str(members.folder / "carry.yaml"), json.dumps(told))

    assert put.returncode == 78
    assert f"the position says nothing of {members.topic}/1" in put.stderr
