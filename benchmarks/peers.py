"""The peers: what the server itself can send, PostgreSQL's own subscription, Debezium Engine, mysql-replication; all without TLS."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from benchmarks.process import Contender, Usage
from cdcsync.testing.maven import cache

if TYPE_CHECKING:
    from cdcsync.testing.mysql_servers import MysqlServer
    from cdcsync.testing.servers import PostgresServer

HERE = Path(__file__).parent
PEER = HERE / "debezium" / "Peer.java"
ARRIVALS_MAX_S = 300.0


def make_slot(server: PostgresServer, slot: str) -> None:
    """Make a pgoutput slot that stands at the end of the log."""
    server.execute(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")


def drop_slot(server: PostgresServer, slot: str) -> None:
    """Drop it again, or the log is kept for nobody."""
    server.execute(f"select pg_drop_replication_slot('{slot}')")


def pg_recvlogical(server: PostgresServer, slot: str, end_lsn: int, log: Path) -> Usage:
    """Receive all up to `end_lsn` into /dev/null."""
    end = f"{end_lsn >> 32:X}/{end_lsn & 0xFFFFFFFF:X}"
    contender = Contender(
        [str(server.bin / "pg_recvlogical"), "-d", server.url(sslmode="disable"), "-S", slot, "--start", "-f", "/dev/null",
         "-o", "proto_version=1", "-o", "publication_names=peers", "-E", end, "-F", "0", "-s", "10"],
        log,
    )  # fmt: skip
    return contender.finish(stop=None)


class Subscription:
    """PostgreSQL's own subscription from one server to another."""

    def __init__(self, source: PostgresServer, target: PostgresServer) -> None:
        self._target = target
        make_slot(source, "peer_subscription")
        url = source.url(sslmode="disable")
        target.execute(
            f"create subscription peer connection '{url}' publication peers "
            "with (connect = false, slot_name = 'peer_subscription', enabled = false, create_slot = false)"
        )
        target.execute("alter subscription peer enable")
        target.execute("alter subscription peer refresh publication with (copy_data = false)")
        target.execute("alter subscription peer disable")

    def run_to(self, last_id: int) -> Arrivals:
        """Enable it until the row of that id is applied, then disable it."""
        arrivals = Arrivals(self._target, last_id)
        self._target.execute("alter subscription peer enable")
        arrivals.join()
        self._target.execute("alter subscription peer disable")
        return arrivals


class Arrivals(threading.Thread):
    """Watches rows arrive at a target, in the order of their ids, from a contender's start on; one look every 20 ms.

    The rate is that between the first look that finds a new row and the one that finds the last: PostgreSQL's launcher
    lets a subscription's worker wait for up to 5 s, a daemon of ours begins at once, and neither says how fast it is.
    """

    def __init__(self, target: PostgresServer, last_id: int) -> None:
        super().__init__(daemon=True)
        self._url = target.url()
        self._last_id = last_id
        self.start_s = self.wall_s = 0.0
        """Until the first rows were there; from then until all were."""
        self.rows = 0
        """How many came in `wall_s`."""
        self._before = self._newest()
        self._began = time.monotonic()
        self.start()

    def run(self) -> None:
        """Look until all rows are there, or nothing came for long: then `wall_s` stays 0."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            first, first_at = self._wait(connection, self._before + 1)
            last, last_at = self._wait(connection, self._last_id)
        self.start_s = first_at - self._began
        self.wall_s, self.rows = last_at - first_at, last - first

    def _wait(self, connection: psycopg.Connection, until: int) -> tuple[int, float]:
        end = time.monotonic() + ARRIVALS_MAX_S
        while (newest := _newest(connection)) < until:
            if time.monotonic() > end:
                msg = f"row {until} does not arrive"
                raise RuntimeError(msg)
            time.sleep(0.02)
        return newest, time.monotonic()

    def _newest(self) -> int:
        with psycopg.connect(self._url, autocommit=True) as connection:
            return _newest(connection)


def _newest(connection: psycopg.Connection) -> int:
    row = connection.execute("select coalesce(max(id), 0) from bench").fetchone()
    return int(row[0]) if row else 0


class Debezium:
    """Debezium Engine with JSON, in a JVM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        mark = hashlib.sha256((HERE / "debezium" / "pom.xml").read_bytes() + PEER.read_bytes()).hexdigest()[:12]
        self._classes = cache() / f"debezium-{mark}"
        self._jars = self._classes / "jars"
        if not (self._classes / "Peer.class").exists():
            self._classes.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["mvn", "-q", "-B", "-f", HERE / "debezium" / "pom.xml", "dependency:copy-dependencies",
                 f"-DoutputDirectory={self._jars}"],
                check=True,
            )  # fmt: skip
            subprocess.run(["javac", "-cp", f"{self._jars}/*", "-d", self._classes, PEER], check=True)

    def run(self, connector: dict[str, object], rows: int, *topic: str) -> tuple[Usage, list[dict[str, Any]]]:
        """Read that many rows; return the usage and the last rows as Debezium gave them.

        `topic`: a broker and a topic that they go to as well, by Java's own producer.
        """
        settings = {
            "name": "peer",
            "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
            "topic.prefix": "peer",
            "converter.schemas.enable": "false",
            "decimal.handling.mode": "string",
            "max.batch.size": 8192,
            "max.queue.size": 32768,
            **connector,
        }
        properties, out = self._folder / "debezium.properties", self._folder / "debezium.json"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        contender = Contender(
            ["java", "-cp", f"{self._classes}:{self._jars}/*", "Peer", str(properties), str(rows), str(out), *topic],
            self._folder / "debezium.log",
        )
        usage = contender.finish(stop=None)
        return usage, [orjson.loads(line)["after"] for line in out.read_bytes().splitlines()]


def debezium_postgres(server: PostgresServer, slot: str) -> dict[str, object]:
    """Return what Debezium's connector for PostgreSQL has to know."""
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        **_end(server),
        "database.dbname": "postgres",
        "database.sslmode": "disable",
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": "peers",
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.bench",
        "snapshot.mode": "no_data",
    }


def debezium_mysql(server: MysqlServer) -> dict[str, object]:
    """Return what Debezium's connector for MySQL has to know; it begins with the log, where its tables are made."""
    return {
        "connector.class": "io.debezium.connector.mysql.MySqlConnector",
        **_end(server),
        "database.server.id": 5401,
        "database.ssl.mode": "disabled",
        "database.include.list": "bench",
        "table.include.list": "bench.bench",
        "snapshot.mode": "never",
        "include.schema.changes": "false",
        "schema.history.internal": "io.debezium.relational.history.MemorySchemaHistory",
    }


def _end(server: PostgresServer | MysqlServer) -> dict[str, object]:
    return {
        "database.hostname": server.host,
        "database.port": server.port,
        "database.user": server.user,
        "database.password": server.password,
    }


class MysqlReplication:
    """mysql-replication's bare reading: every row decoded, and dropped but for the last thousand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, server: MysqlServer) -> tuple[Usage, list[dict[str, Any]]]:
        """Read the whole log; return the usage and the last rows."""
        out = self._folder / "mysql_replication.json"
        contender = Contender(
            [sys.executable, str(HERE / "mysql_replication.py"), str(server.port), str(out)],
            self._folder / "mysql_replication.log",
            {"BENCH_PASSWORD": server.password},
        )
        usage = contender.finish(stop=None)
        return usage, [orjson.loads(line) for line in out.read_bytes().splitlines()]


def raw_binlog(server: MysqlServer, log: Path) -> Usage:
    """Read the whole log over one connection, undecoded; MariaDB's own program does not speak to this MySQL."""
    words = [sys.executable, str(HERE / "raw_binlog.py"), server.host, str(server.port), server.user, server.password]
    usage = Contender(words, log).finish(stop=None)
    if not log.read_text().strip().isdigit():
        msg = f"the raw binlog did not come: {log.read_text()[-500:]}"
        raise RuntimeError(msg)
    log.unlink()
    return usage
