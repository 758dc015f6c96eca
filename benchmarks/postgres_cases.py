"""PostgreSQL's benchmarks, one function each: what is run by turns, and what is compared with what."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks import figures, peers, traffic
from benchmarks.figures import Bench, Result, folder
from benchmarks.ours import COMPILED, INTERPRETED, Ours, past_lsn, postgres
from benchmarks.process import Usage
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


SERVER = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "max_connections": "50"}


@contextmanager
def server(**settings: str) -> Iterator[PostgresServer]:
    """Yield a PostgreSQL 15 with the table."""
    started = PostgresServer(15, settings={**SERVER, **settings}).start()
    try:
        traffic.prepare(started)
        yield started
    finally:
        started.stop()


def postgres_jsonl(rows: int, rounds: int) -> Result:
    """PostgreSQL to jsonl on /dev/null, compiled and interpreted, pg_recvlogical, and Debezium Engine."""
    usages: dict[str, list[Usage]] = {}
    with server() as source, folder() as place:
        null = {"jsonl": {"path": "/dev/null"}}
        ours = {"cdcsync": Ours("compiled", place, COMPILED)}
        if INTERPRETED.exists():
            ours["cdcsync interpreted"] = Ours("interpreted", place, INTERPRETED)
        for each in ours.values():
            each.configure(postgres(source), null)
            each.take_position(source.password)
        proof = Ours("proof", place)
        proof.configure(postgres(source), {"jsonl": {"path": str(place / "proof.jsonl")}})
        debezium = peers.Debezium(place)
        last: list[dict[str, object]] = []
        for number in range(rounds):
            final = number == rounds - 1
            peers.make_slot(source, "recv")
            if final:
                proof.take_position(source.password)
                peers.make_slot(source, "debezium")
            written = traffic.write(source, rows, 1000)
            usages.setdefault("pg_recvlogical", []).append(
                peers.pg_recvlogical(source, "recv", written.end_lsn, place / "recv.log")
            )
            for name, each in ours.items():
                usages.setdefault(name, []).append(each.run_until(past_lsn(written.last_lsn), source.password))
            if final:
                proof.run_until(past_lsn(written.last_lsn), source.password)
                usage, last = debezium.run(peers.debezium_postgres(source, "debezium"), rows)
                usages["Debezium Engine, one round"] = [usage]
                peers.drop_slot(source, "debezium")
            peers.drop_slot(source, "recv")
        want = traffic.last_rows(source)
        figures.prove([textual(line["after"]) for line in figures.tail(place / "proof.jsonl")], want)
        if [int(str(row["id"])) for row in last] != [int(str(row[0])) for row in want]:
            msg = "Debezium's last rows are others"
            raise RuntimeError(msg)
    return Result(
        "postgres-jsonl", rows, figures=figures.figures(usages, rows), proved=f"last {figures.PROVED} rows, all columns"
    )


def textual(row: dict[str, Any]) -> tuple[object, ...]:
    """Return a row of our jsonl as the server writes it."""
    at = str(row["at"]).removesuffix("Z")
    at = at if "." in at else at + "."
    return (
        str(row["id"]), str(row["quantity"]), row["note"], row["address"], row["price"],
        at.ljust(26, "0"), str(row["paid"]).lower(), row["sku"],
    )  # fmt: skip


def _against_subscription(name: str, rows: int, rounds: int, rows_per_transaction: int) -> Result:
    usages: dict[str, list[Usage]] = {}
    starts: dict[str, list[float]] = {}

    def note(name: str, arrivals: peers.Arrivals, usage: Usage) -> None:
        starts.setdefault(name, []).append(arrivals.start_s)
        steady = replace(usage, wall_s=arrivals.wall_s, rows=arrivals.rows)
        usages.setdefault(name, []).append(steady)

    with server() as source, server() as native, server() as target, folder() as place:
        ours = Ours("ours", place)
        ours.configure(postgres(source), sink(target))
        ours.take_position(source.password)
        subscription = peers.Subscription(source, native)
        for number in range(rounds):
            written = traffic.write(source, rows, rows_per_transaction)

            def natively(last_id: int = written.last_id) -> None:
                note("subscription", subscription.run_to(last_id), Usage(0.0, 0.0, 0.0))

            def by_us(last_id: int = written.last_id, last_lsn: int = written.last_lsn) -> None:
                arrivals = peers.Arrivals(target, last_id)
                usage = ours.run_until(past_lsn(last_lsn), source.password)
                arrivals.join()
                note("cdcsync", arrivals, usage)

            for turn in (natively, by_us) if number % 2 == 0 else (by_us, natively):
                turn()
        want = traffic.last_rows(source)
        for applied in (native, target):
            figures.prove(traffic.last_rows(applied), want)
        usages = {"subscription": usages["subscription"], "cdcsync": usages["cdcsync"]}
    result = Result(name, rows, figures=figures.figures(usages, rows))
    result.proved = f"last {figures.PROVED} rows, all columns"
    for contender in usages:
        result.values[f"{contender}_first_row_s"] = round(statistics.median(starts[contender]), 2)
    return result


def sink(target: PostgresServer) -> dict[str, Any]:
    """Return the section of a server as the target."""
    return {
        "postgres": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "password": "${env:BENCH_PASSWORD}",
            "database": "postgres",
            "tls": {"mode": "disable"},
        }
    }


def postgres_postgres_single(rows: int, rounds: int) -> Result:
    """PostgreSQL to PostgreSQL, one-row transactions, against PostgreSQL's own subscription."""
    return _against_subscription("postgres-postgres-single", rows, rounds, 1)


def postgres_postgres_bulk(rows: int, rounds: int) -> Result:
    """PostgreSQL to PostgreSQL, 1,000-row transactions, against PostgreSQL's own subscription."""
    return _against_subscription("postgres-postgres-bulk", rows, rounds, 1000)


def postgres_latency(rows: int, rounds: int) -> Result:
    """Commit at the source to commit at the target, at 1,000 transactions a second; both from commit timestamps."""
    seconds = max(10, rows // 1000)
    latencies: list[float] = []
    with (
        server(track_commit_timestamp="on") as source,
        server(track_commit_timestamp="on") as target,
        folder() as place,
    ):
        ours = Ours("ours", place)
        ours.configure(postgres(source), sink(target))
        ours.take_position(source.password)
        contender = ours.start(source.password)
        time.sleep(2)
        script = place / "one.sql"
        script.write_text("insert into bench select nextval('bench_ids'), 1, 'n', 'a', 1.5, now(), true, 's';\n")
        source.execute("create sequence bench_ids")
        for _ in range(rounds):
            subprocess.run(
                [source.bin / "pgbench", "-n", "-f", script, "-R", "1000", "-c", "4", "-T", str(seconds), source.url()],
                check=True, capture_output=True,
            )  # fmt: skip
        with psycopg.connect(source.url(), autocommit=True) as connection:
            at_source = _commits(connection)
        ours_target = lambda: len(_ids(target)) >= len(at_source)  # noqa: E731  one question, asked until it is so
        contender.wait_for(ours_target, 60)
        usage = contender.finish()
        with psycopg.connect(target.url(), autocommit=True) as connection:
            at_target = _commits(connection)
        latencies = sorted((at_target[one] - at_source[one]) / 1000 for one in at_source)
    result = Result("postgres-latency", len(latencies), proved="every transaction, by commit timestamps")
    for share in (50, 90, 99):
        result.values[f"p{share}_ms"] = round(latencies[len(latencies) * share // 100], 2)
    result.values["max_ms"] = round(latencies[-1], 2)
    result.values["transactions_per_s"] = round(len(latencies) / (seconds * rounds))
    result.values["peak_mb"] = round(usage.peak_mb, 1)
    return result


def _commits(connection: psycopg.Connection) -> dict[int, int]:
    query = "select id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from bench"
    return dict(connection.execute(query).fetchall())


def _ids(target: PostgresServer) -> list[tuple[Any, ...]]:
    return target.query("select id from bench")


def postgres_large_transaction(rows: int, rounds: int) -> Result:
    """Peak memory with everything in one transaction, to jsonl on /dev/null and into PostgreSQL."""
    result = Result("postgres-large-transaction", rows, unit="rows/s")
    usages: dict[str, list[Usage]] = {}
    with server() as source, server() as target, folder() as place:
        sinks = {"to jsonl": {"jsonl": {"path": "/dev/null"}}, "to postgres": sink(target)}
        ours = {name: Ours(name.replace(" ", "_"), place) for name in sinks}
        for name, each in ours.items():
            each.configure(postgres(source), sinks[name])
            each.take_position(source.password)
        for _ in range(rounds):
            written = traffic.write(source, rows, rows)
            for name, each in ours.items():
                usages.setdefault(name, []).append(each.run_until(past_lsn(written.last_lsn), source.password))
        figures.prove(traffic.last_rows(target), traffic.last_rows(source))
    result.figures = figures.figures(usages, rows)
    result.proved = f"last {figures.PROVED} rows at the target, all columns"
    return result


def start_up(rows: int, rounds: int) -> Result:
    """From the start of the process to its first change on standard output, a change waiting in the log."""
    result = Result("start-up", rows)
    with server() as source, folder() as place:
        times = [_first_change_s(Ours("first", place), source) for _ in range(max(rounds, 5))]
    result.values["first_change_s"] = round(statistics.median(times), 3)
    result.values["first_change_max_s"] = round(max(times), 3)
    return result


def _first_change_s(ours: Ours, source: PostgresServer) -> float:
    fifo = ours.folder / "out"
    fifo.unlink(missing_ok=True)
    ours.configure(postgres(source), {"jsonl": {"path": "-"}})
    if not ours.trace.exists():
        ours.take_position(source.password)
    written = traffic.write(source, 1, 1)
    (ours.folder / "first.log").write_bytes(b"")
    contender = ours.start(source.password)
    log = ours.folder / "first.log"
    contender.wait_for(lambda: b'"after":{' in log.read_bytes())
    seconds = (time.monotonic_ns() - contender.started_ns) / 1e9
    contender.wait_for(lambda: ours.reached(past_lsn(written.last_lsn)) is not None)
    contender.finish()
    return seconds


BENCHES = (
    Bench("postgres-jsonl", str(postgres_jsonl.__doc__), 2_000_000, postgres_jsonl),
    Bench("postgres-postgres-single", str(postgres_postgres_single.__doc__), 500_000, postgres_postgres_single),
    Bench("postgres-postgres-bulk", str(postgres_postgres_bulk.__doc__), 500_000, postgres_postgres_bulk),
    Bench("postgres-latency", str(postgres_latency.__doc__), 30_000, postgres_latency),
    Bench("postgres-large-transaction", str(postgres_large_transaction.__doc__), 5_000_000, postgres_large_transaction),
    Bench("start-up", str(start_up.__doc__), 1, start_up),
)
