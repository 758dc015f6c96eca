"""A real Kafka broker (KRaft, one node), run unprivileged on loopback in a private directory, and gone when this process is."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from cryptography.hazmat.primitives import serialization

from cdcsync.testing import certificates, processes
from cdcsync.testing.kafka_builds import jars
from cdcsync.testing.processes import Process, ServerFault, low_port, private_directory, unprivileged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message

    from cdcsync.testing.certificates import Certificate

CLUSTER: Final = "4L6g3nShT-eMCtK--X86sw"
"""Every broker makes a cluster of its own under this identifier, unless another is given."""
JAVA: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""Quick to start; who measures gives its own."""
SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAIN",
    "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.segment.bytes": "67108864",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "ssl.client.auth": "requested",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "ssl.principal.mapping.rules": "RULE:.*O=([^,]+).*/$1/,DEFAULT",
}
"""What every broker starts with. Who comes without TLS and password is ANONYMOUS and may do everything; a user of
SASL and the holder of a certificate may do what an ACL lets them."""
USERS: Final[Mapping[str, str]] = {"admin": "admin-secret", "alice": "alice-secret"}
"""By every mechanism; `admin` is no super user either."""
ANSWER_MAX_S: Final = 10.0


class KafkaServer:
    """One broker; plain, TLS and SASL listeners are always there."""

    host: Final = "127.0.0.1"

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        java: Sequence[str] = JAVA,
        heap: str = "512m",
        cluster: str = CLUSTER,
    ) -> None:
        self.port, self._controller, self.tls_port, self.sasl_port = (low_port() for _ in range(4))
        self._java = [*java, f"-Xmx{heap}"]
        self._cluster = cluster
        self.directory = private_directory("kafka-")
        """Private: data, log, certificates."""
        self.certificate: Certificate = certificates.issue(self.directory, owner=unprivileged())
        """The broker's own, and the authority that it trusts and is verified against."""
        self.settings = {**SETTINGS, **self._places(), **_logins(), **(settings or {})}
        self._process = Process("Kafka", self.directory / "log", death="KILL")

    @property
    def bootstrap(self) -> str:
        """`host:port` of the plain listener."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """The broker's own messages."""
        return self._process.log

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.running

    def start(self) -> Self:
        """Format when new, start, and return once it answers. Raises ServerFault."""
        if not (self.directory / "data").exists():
            self._format()
        java = ["java", *self._java, *self._logging(), "-cp", f"{jars()}/*"]
        self._process.start([*java, "kafka.Kafka", str(self._properties)], self._answers)
        return self

    def stop(self) -> None:
        """Shut down and remove all; may be called twice."""
        self._process.end(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL it: a crash. `start` recovers."""
        self._process.kill()

    def restart(self) -> None:
        """Stop and start again, on the same ports."""
        self._process.end(signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """SIGSTOP it: it hangs, its connections stay."""
        self._process.pause()

    def resume(self) -> None:
        """End a `pause`."""
        self._process.resume()

    def client(self, **settings: Any) -> dict[str, Any]:
        """Return librdkafka's settings for the plain listener; an underscore stands for a dot."""
        given = {name.replace("_", "."): value for name, value in settings.items()}
        return {"bootstrap.servers": self.bootstrap, "broker.address.family": "v4", "log_level": 0, **given}

    def admin(self) -> AdminClient:
        """Return a client that may do everything."""
        return AdminClient(self.client())

    def create(self, topic: str, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and return once it has leaders."""
        admin = self.admin()
        admin.create_topics([NewTopic(topic, partitions, 1, config=dict(config or {}))])[topic].result(ANSWER_MAX_S)
        until = time.monotonic() + ANSWER_MAX_S
        while topic not in self.topics():
            if time.monotonic() > until:
                raise ServerFault(self._process.told(f"does not show topic {topic}"))
            time.sleep(0.05)

    def delete(self, *topics: str) -> None:
        """Delete topics and return once they are gone."""
        admin = self.admin()
        for made in admin.delete_topics(list(topics)).values():
            made.result(ANSWER_MAX_S)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Raise a topic's number of partitions."""
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(ANSWER_MAX_S)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Remove the records before an offset, as retention does."""
        admin = self.admin()
        asked = admin.delete_records([TopicPartition(topic, partition, offset)])
        for removed in asked.values():
            removed.result(ANSWER_MAX_S)

    def topics(self) -> dict[str, int]:
        """Return the number of partitions of each topic that has leaders, Kafka's own left out."""
        listed = self.admin().list_topics(timeout=ANSWER_MAX_S).topics
        return {
            name: len(topic.partitions)
            for name, topic in listed.items()
            if not name.startswith("__") and all(each.leader >= 0 for each in topic.partitions.values())
        }

    def produce(self, topic: str, *records: tuple[bytes | None, bytes | None], **settings: Any) -> None:
        """Write records of key and value, and return once they are acknowledged."""
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer(self.client(acks="all", **settings))
        for key, value in records:
            producer.produce(topic, key=key, value=value, on_delivery=delivered)
        producer.flush(ANSWER_MAX_S * 3)
        if failed or len(producer):
            raise ServerFault(self._process.told(f"does not take records of {topic}: {failed}"))

    def consume(self, topic: str, *, isolation: str = "read_committed") -> list[Message]:
        """Return all messages of a topic, by partition and offset, up to its end as it is now.

        A commit returns before its markers are written: what is not yet decided is waited for.
        """
        ends = self._ends(topic)
        consumer = Consumer(self._reading(isolation))
        try:
            consumer.assign([TopicPartition(topic, part, low) for part, (low, _) in ends.items()])
            return sorted(self._until(consumer, {part: high for part, (_, high) in ends.items()}), key=_place)
        finally:
            consumer.close()

    def settle(self, topic: str) -> None:
        """Return once all that is in a topic now is committed or aborted."""
        ends = self._ends(topic)
        until = time.monotonic() + 60
        while any(self._ends(topic, "read_committed")[part][1] < high for part, (_, high) in ends.items()):
            if time.monotonic() > until:
                raise ServerFault(self._process.told(f"keeps a transaction of {topic} open"))
            time.sleep(0.1)

    def _reading(self, isolation: str) -> dict[str, Any]:
        return self.client(
            group_id="harness", enable_auto_commit=False, isolation_level=isolation, enable_partition_eof=True,
            fetch_wait_max_ms=10, auto_offset_reset="error",
        )  # fmt: skip

    def _ends(self, topic: str, isolation: str = "read_uncommitted") -> dict[int, tuple[int, int]]:
        """Return the first offset and the end of each partition, open transactions included or not."""
        consumer = Consumer(self._reading(isolation))
        try:
            parts = consumer.list_topics(topic, timeout=ANSWER_MAX_S).topics[topic].partitions
            found = {part: consumer.get_watermark_offsets(TopicPartition(topic, part), ANSWER_MAX_S) for part in parts}
            return {part: (int(low), int(high)) for part, (low, high) in found.items()}
        finally:
            consumer.close()

    def _until(self, consumer: Consumer, ends: dict[int, int]) -> list[Message]:
        found = []
        left = set(ends)
        until = time.monotonic() + 60
        while left:
            if time.monotonic() > until:
                raise ServerFault(self._process.told("does not come to an end"))
            message = consumer.poll(1.0)
            if message is None:
                continue
            error, part = message.error(), int(message.partition() or 0)
            if error is None:
                found.append(message)
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  the client's public name for it
                raise KafkaException(error)
            elif int(message.offset() or 0) >= ends[part]:
                left.discard(part)
        return found

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _places(self) -> dict[str, str]:
        listeners = {"PLAIN": self.port, "TLS": self.tls_port, "SASL": self.sasl_port}
        shown = ",".join(f"{name}://{self.host}:{port}" for name, port in listeners.items())
        return {
            "listeners": f"{shown},CONTROLLER://{self.host}:{self._controller}",
            "advertised.listeners": shown,
            "controller.quorum.voters": f"1@{self.host}:{self._controller}",
            "log.dirs": str(self.directory / "data"),
            "ssl.keystore.location": str(self.directory / "keystore.pem"),
            "ssl.truststore.location": str(self.certificate.authority),
        }

    def _format(self) -> None:
        key = serialization.load_pem_private_key(self.certificate.key.read_bytes(), None)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self._write("keystore.pem", (key.private_bytes(*form) + self.certificate.chain.read_bytes()).decode())
        self._write("server.properties", "".join(f"{name}={value}\n" for name, value in self.settings.items()))
        self._write("log4j2.yaml", _LOGGING)
        scram = [
            f"{mechanism}=[name={user},password={password}]"
            for user, password in USERS.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]
        options = [part for each in scram for part in ("--add-scram", each)]
        tool = ["java", *self._java, *self._logging(), "-cp", f"{jars()}/*", "kafka.tools.StorageTool", "format"]
        processes.run([*tool, "-t", self._cluster, "-c", str(self._properties), *options])

    def _logging(self) -> list[str]:
        return [f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}"]

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        processes.give(path)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 1).close()
            return bool(self.admin().list_topics(timeout=2).brokers)
        except (OSError, KafkaException):
            return False


def _place(message: Message) -> tuple[int, int]:
    return int(message.partition() or 0), int(message.offset() or 0)


_LOGGING: Final = json.dumps(
    {
        "Configuration": {
            "Appenders": {"Console": {"name": "C", "PatternLayout": {"pattern": "%d %p %c: %m%n"}}},
            "Loggers": {"Root": {"level": "WARN", "AppenderRef": {"ref": "C"}}},
        }
    }
)
"""JSON is YAML: warnings and errors to the process's log."""


def _logins() -> dict[str, str]:
    """Return who may log in by which mechanism; a token of OAUTHBEARER is not signed."""
    module = "org.apache.kafka.common.security"
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    at = "listener.name.sasl"
    return {
        f"{at}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {users};",
        f"{at}.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{at}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{at}.oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
    }
