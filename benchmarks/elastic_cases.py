"""Elasticsearch's benchmarks: from a database's log, beside the same documents sent from memory."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks import figures, traffic
from benchmarks.figures import PROVED, Bench, Result, folder
from benchmarks.mysql_traffic import last_rows as mysql_last_rows
from benchmarks.mysql_traffic import logged
from benchmarks.ours import Ours, mysql, past_lsn, past_offset, postgres
from benchmarks.postgres_cases import server
from benchmarks.process import Usage
from cdcsync.testing.elastic_servers import ElasticServer
from cdcsync.testing.jvm import lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.testing.servers import PostgresServer

HERE = Path(__file__).parent
SWEEP = list(itertools.product((500, 1000, 2000, 5000), (1, 2, 4)))
"""Actions of a request, and requests under way."""
SWEEP_ROWS = 40_000
MEMORY, OURS = TURNS = ("from memory", "cdcsync")
ASKED_EVERY_S = 0.005
DOCUMENTS = """
copy (
    select format('{{"index":{{"_id":"%s","version":1,"version_type":"external_gte"}}}}', id) || E'\\n' || json_build_object(
        'id', id, 'quantity', quantity, 'note', note, 'address', address, 'price', price::text,
        'at', to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'paid', {paid}, 'sku', sku)
    from bench where id between {first} and {last} order by id
) to stdout with (format csv, delimiter E'\\x01', quote E'\\x02')
"""


@contextmanager
def cluster() -> Iterator[ElasticServer]:
    """Yield an Elasticsearch 8."""
    with lease(1, "benchmarks"):
        started = ElasticServer(java=("-Xms1g", "-Xmx1g"))
        try:
            yield started.start()
        finally:
            started.stop()


def _sink(target: ElasticServer) -> dict[str, Any]:
    return {"elasticsearch": {"hosts": [target.url]}}


class Memory:
    """The documents of one source, sent from memory into an index that is like ours."""

    def __init__(self, target: ElasticServer, place: Path, *, paid: str = "paid") -> None:
        self._target = target
        self._place = place
        self._paid = paid
        """The boolean as the source has it."""
        self.best = (0.0, 0, 0)
        """Documents a second, and the setting."""
        self.sweep: dict[str, float] = {}

    def like_ours(self, index: str) -> None:
        """Make an index with the fields of ours."""
        ((_, ours),) = self._target.ask("GET", "/bench").items()
        fields = {key: ours["mappings"][key] for key in ("dynamic", "properties")}
        settings = {"gc_deletes": ours["settings"]["index"]["gc_deletes"]}
        self._target.ask("PUT", f"/{index}", {"mappings": fields, "settings": settings})

    def documents(self, source: PostgresServer, first: int, last: int) -> Path:
        """Write the requests' lines of these rows into a file."""
        query = DOCUMENTS.format(first=first, last=last, paid=self._paid)
        path = self._place / f"{first}-{last}.lines"
        with (
            psycopg.connect(source.url()) as connection,
            connection.cursor().copy(query.encode()) as rows,
            path.open("wb") as file,
        ):
            for chunk in rows:
                file.write(bytes(chunk).replace(b"\x02", b""))
        return path

    def find_best(self, source: PostgresServer, first: int) -> None:
        """Try all settings on some of the documents."""
        path = self.documents(source, first, first + SWEEP_ROWS - 1)
        for actions, threads in [SWEEP[-1], *SWEEP]:
            self.like_ours("sweep")
            seconds = self.send("sweep", path, actions, threads)
            self.sweep[f"{actions}_actions_{threads}_at_once"] = round(SWEEP_ROWS / seconds)
            self._target.ask("DELETE", "/sweep")
            self.best = max(self.best, (SWEEP_ROWS / seconds, actions, threads))

    def send(self, index: str, path: Path, actions: int, threads: int) -> float:
        """Send a file; return the seconds."""
        program = [sys.executable, str(HERE / "bulk_from_memory.py"), str(self._target.port), index, str(path)]
        done = subprocess.run([*program, str(actions), str(threads)], check=True, capture_output=True, text=True)
        return float(done.stdout)

    def run(self, path: Path) -> Usage:
        """Send a file at the best setting."""
        return Usage(self.send("memory", path, *self.best[1:]), 0.0, 0.0)


class Spent:
    """The processor's time that the cluster takes for each contender."""

    def __init__(self, target: ElasticServer) -> None:
        self._target = target
        self._found: dict[str, list[float]] = {}

    @contextmanager
    def of(self, turn: str) -> Iterator[None]:
        """Add that of the block."""
        before = self._target.cpu_s()
        yield
        self._found.setdefault(turn, []).append(self._target.cpu_s() - before)

    def each(self, rows: int) -> dict[str, float]:
        """Return the median, a document."""
        return {
            f"cluster_cpu_us_a_document_{turn.replace(' ', '_')}": round(statistics.median(found) / rows * 1e6, 1)
            for turn, found in self._found.items()
        }


def _prove(target: ElasticServer, index: str, want: list[tuple[Any, ...]]) -> None:
    target.ask("POST", f"/{index}/_refresh")
    found = target.ask("POST", f"/{index}/_search", {"size": PROVED, "sort": [{"id": "desc"}]})["hits"]["hits"]
    figures.prove([_textual(hit["_source"]) for hit in reversed(found)], want)


def _textual(row: dict[str, Any]) -> tuple[object, ...]:
    whole, _, fraction = row["at"].removesuffix("Z").partition(".")
    plain = (str(row["id"]), str(row["quantity"]), row["note"], row["address"], row["price"], f"{whole}.{fraction:0<6}")
    return (*plain, str(row["paid"]).lower(), row["sku"])


def postgres_elasticsearch(rows: int, rounds: int) -> Result:
    """PostgreSQL to Elasticsearch, 1,000-row transactions, against the same documents sent from memory."""
    usages: dict[str, list[Usage]] = {turn: [] for turn in TURNS}
    with server() as source, cluster() as target, folder() as place:
        ours, memory, spent = Ours("ours", place), Memory(target, place), Spent(target)
        ours.configure(postgres(source), _sink(target))
        ours.take_position(source.password)
        warm = traffic.write(source, SWEEP_ROWS, 1000)
        ours.run_until(past_lsn(warm.last_lsn), source.password)
        memory.find_best(source, 1)
        memory.like_ours("memory")
        for number in range(rounds):
            written = traffic.write(source, rows, 1000)
            path = memory.documents(source, written.last_id - rows + 1, written.last_id)

            for turn in TURNS[:: 1 if number % 2 == 0 else -1]:
                with spent.of(turn):
                    usages[turn].append(
                        memory.run(path)
                        if turn == MEMORY
                        else ours.run_until(past_lsn(written.last_lsn), source.password)
                    )
            path.unlink()
        want = traffic.last_rows(source)
        for index in ("bench", "memory"):
            _prove(target, index, want)
    result = Result("postgres-elasticsearch", rows, figures=figures.figures(usages, rows))
    result.values = {**memory.sweep, **spent.each(rows)}
    result.proved = f"last {PROVED} documents, all fields"
    return result


def mysql_elasticsearch(rows: int, rounds: int) -> Result:
    """MySQL to Elasticsearch, 1,000-row transactions, against the same documents sent from memory."""
    usages: dict[str, list[Usage]] = {turn: [] for turn in TURNS}
    with logged(rows, 1000) as log, server() as shadow, cluster() as target, folder() as place:
        traffic.write(shadow, rows, 1000)
        memory, spent = Memory(target, place, paid="paid::int"), Spent(target)
        path = memory.documents(shadow, 1, rows)
        for number in range(-1, rounds):
            ours = Ours(f"ours{number}", place)
            ours.configure(mysql(log.server), _sink(target), tables=[{"from": "bench.bench", "to": "bench"}])
            if number < 0:
                ours.run_until(past_offset(log.file, log.offset), log.server.password)
                memory.find_best(shadow, 1)
            else:
                for turn in TURNS[:: 1 if number % 2 == 0 else -1]:
                    if turn == MEMORY:
                        memory.like_ours("memory")
                        with spent.of(turn):
                            usages[turn].append(memory.run(path))
                        target.ask("DELETE", "/memory")
                    else:
                        ((concrete, _),) = target.ask("GET", "/bench").items()
                        memory.like_ours("next")
                        target.ask("DELETE", f"/{concrete}")
                        with spent.of(turn):
                            usage = ours.run_until(past_offset(log.file, log.offset), log.server.password)
                        target.ask("DELETE", "/next")
                        usages[turn].append(usage)
        _prove(
            target,
            "bench",
            mysql_last_rows(log.server),
        )
    result = Result("mysql-elasticsearch", rows, figures=figures.figures(usages, rows))
    result.values = {**memory.sweep, **spent.each(rows)}
    result.proved = f"last {PROVED} documents, all fields"
    return result


class Indexed(threading.Thread):
    """Asks an index all the time how many documents it has taken; the moments are microseconds since 1970."""

    def __init__(self, target: ElasticServer) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._over = threading.Event()
        self._before = self._count()
        self.seen: list[tuple[int, int]] = []
        """How many, and when that was known, as they rose."""
        self.start()

    def run(self) -> None:
        """Ask until stopped."""
        while not self._over.wait(ASKED_EVERY_S):
            count = self._count() - self._before
            if not self.seen or count > self.seen[-1][0]:
                self.seen.append((count, time.time_ns() // 1000))

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self.join()

    def at_us(self, count: int) -> int:
        """Return when so many were known to be there."""
        return self.seen[bisect_left(self.seen, (count, 0))][1]

    def _count(self) -> int:
        found = self._target.ask("GET", "/bench/_stats/indexing?filter_path=_all.primaries.indexing.index_total")
        return int(found["_all"]["primaries"]["indexing"]["index_total"])


def latency(rows: int, rounds: int) -> Result:
    """Commit at PostgreSQL to indexed, at 1,000 transactions a second: the n-th commit by the n-th document."""
    seconds = max(10, rows * rounds // 1000)
    with server(track_commit_timestamp="on") as source, cluster() as target, folder() as place:
        ours = Ours("ours", place)
        ours.configure(postgres(source), _sink(target))
        ours.take_position(source.password)
        warm = traffic.write(source, SWEEP_ROWS, 1000)
        ours.run_until(past_lsn(warm.last_lsn), source.password)
        contender = ours.start(source.password)
        source.execute(f"create sequence bench_ids start {warm.last_id + 1}")
        script = place / "one.sql"
        script.write_text("insert into bench select nextval('bench_ids'), 1, 'n', 'a', 1.5, now(), true, 's';\n")
        time.sleep(3)
        indexed = Indexed(target)
        subprocess.run(
            [source.bin / "pgbench", "-n", "-f", script, "-R", "1000", "-c", "4", "-T", str(seconds), source.url()],
            check=True, capture_output=True,
        )  # fmt: skip
        query = "select (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from bench where id > %s"
        commits = sorted(at for (at,) in source.query(query, [warm.last_id]))
        contender.wait_for(lambda: bool(indexed.seen) and indexed.seen[-1][0] >= len(commits), 60)
        indexed.stop()
        usage = contender.finish()
    latencies = sorted((indexed.at_us(at + 1) - commit) / 1000 for at, commit in enumerate(commits))
    result = Result("postgres-elasticsearch-latency", len(commits), proved="every transaction, by commit timestamps")
    for share in (50, 90, 99):
        result.values[f"p{share}_ms"] = round(latencies[len(latencies) * share // 100], 2)
    result.values["max_ms"] = round(latencies[-1], 2)
    result.values["transactions_per_s"] = round(len(commits) / seconds)
    result.values["peak_mb"] = round(usage.peak_mb, 1)
    return result


BENCHES = (
    Bench("postgres-elasticsearch", str(postgres_elasticsearch.__doc__), 400_000, postgres_elasticsearch),
    Bench("postgres-elasticsearch-latency", str(latency.__doc__), 20_000, latency),
    Bench("mysql-elasticsearch", str(mysql_elasticsearch.__doc__), 400_000, mysql_elasticsearch),
)
