"""The first copy beside its peers: the server's own COPY or dump, a plain client, Debezium's initial snapshot."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import figures, mysql_cases, mysql_traffic, peers, postgres_cases, traffic
from benchmarks.figures import Bench, Result, folder, tail
from benchmarks.ours import COMPILED, Ours, mysql, postgres
from benchmarks.process import Contender, Usage
from cdcsync.mysql.position import MysqlPosition
from cdcsync.postgres.position import PostgresPosition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.testing.mysql_servers import MysqlServer
    from cdcsync.testing.servers import PostgresServer

NULL = {"jsonl": {"path": "/dev/null"}}
HERE = Path(__file__).parent


@contextmanager
def _filled(rows: int) -> Iterator[PostgresServer]:
    with postgres_cases.server() as source:
        source.execute(traffic.ROWS.format(first=1, last=rows))
        source.execute("vacuum analyze bench")
        source.execute("checkpoint")
        yield source


def _copied(name: str, place: Path, source: PostgresServer, sink: dict[str, Any]) -> Usage:
    """Copy with a pipeline that is new, and drop its slot."""
    ours = Ours(name, place, COMPILED)
    section = postgres(source)
    section["postgres"]["start"] = "initial"
    ours.configure(section, sink)
    usage = ours.run_until(lambda text: PostgresPosition.decode(text).is_copied, source.password)
    peers.drop_slot(source, f"cdcsync_{name}")
    source.execute(f"drop publication cdcsync_{name}")
    return usage


def _by_id(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The servers gave them in the order of the identifiers' texts."""
    return sorted(rows, key=lambda row: int(row[0]))


def _copy_out(source: PostgresServer, log: Path) -> Usage:
    url = source.url(sslmode="disable")
    command = [str(source.bin / "psql"), "-X", "-o", "/dev/null", "-c", "copy (select * from bench) to stdout", url]
    return Contender(command, log).finish(stop=None)


def postgres_snapshot(rows: int, rounds: int) -> Result:
    """First copy of a table of PostgreSQL's to jsonl on /dev/null, COPY TO STDOUT, and Debezium's initial snapshot."""
    usages: dict[str, list[Usage]] = {}
    with _filled(rows) as source, folder() as place:
        for number in range(rounds):
            usages.setdefault("COPY TO STDOUT", []).append(_copy_out(source, place / "psql.log"))
            usages.setdefault("cdcsync", []).append(_copied(f"round{number}", place, source, NULL))
        proof = place / "proof.jsonl"
        _copied("proof", place, source, {"jsonl": {"path": str(proof)}})
        want = _by_id(traffic.last_rows(source))
        figures.prove([postgres_cases.textual(line["after"]) for line in tail(proof)], want)
        peers.make_slot(source, "debezium")
        connector = peers.debezium_postgres(source, "debezium") | {"snapshot.mode": "initial"}
        usage, last = peers.Debezium(place).run(connector, rows)
        usages["Debezium Engine, one round"] = [usage]
        if [str(row["id"]) for row in last] != [row[0] for row in want]:
            raise RuntimeError("Debezium's last rows are others")
    proved = f"last {figures.PROVED} rows, all columns"
    return Result("postgres-snapshot", rows, figures=figures.figures(usages, rows), proved=proved)


def postgres_snapshot_postgres(rows: int, rounds: int) -> Result:
    """First copy from PostgreSQL into PostgreSQL, and a COPY that psycopg passes through."""
    usages: dict[str, list[Usage]] = {}
    with _filled(rows) as source, postgres_cases.server() as target, folder() as place:
        for number in range(rounds):
            target.execute("truncate bench")
            script = [sys.executable, str(HERE / "copy_through.py"), source.url(sslmode="disable")]
            through = Contender([*script, target.url(sslmode="disable")], place / "through.log").finish(stop=None)
            usages.setdefault("COPY through psycopg", []).append(through)
            target.execute("truncate bench")
            copied = _copied(f"round{number}", place, source, postgres_cases.sink(target))
            usages.setdefault("cdcsync", []).append(copied)
        figures.prove(traffic.last_rows(target), traffic.last_rows(source))
        if target.query("select count(*) from bench") != [(rows,)]:
            raise RuntimeError("rows are missing at the target")
    proved = f"last {figures.PROVED} rows, all columns"
    return Result("postgres-snapshot-postgres", rows, figures=figures.figures(usages, rows), proved=proved)


def mysql_snapshot(rows: int, rounds: int) -> Result:
    """First copy of a table of MySQL's to jsonl on /dev/null, mariadb-dump, PyMySQL's SSCursor, and Debezium's."""
    usages: dict[str, list[Usage]] = {}
    with mysql_traffic.logged(rows, 1000) as log, folder() as place:
        server = log.server
        dump = ["mariadb-dump", "--host=127.0.0.1", f"--port={server.port}", f"--user={server.user}", "--skip-ssl"]
        dump += [f"--password={server.password}", "--quick", "--single-transaction", "--result-file=/dev/null"]
        reading = [sys.executable, str(HERE / "sscursor.py"), str(server.port)]
        environment = {"BENCH_PASSWORD": server.password}
        for number in range(rounds):
            usages.setdefault("mariadb-dump", []).append(
                Contender([*dump, "bench", "bench"], place / "dump.log").finish(stop=None)
            )
            bare = Contender(reading, place / "sscursor.log", environment).finish(stop=None)
            usages.setdefault("PyMySQL's SSCursor", []).append(bare)
            usages.setdefault("cdcsync", []).append(_copied_mysql(f"round{number}", place, server, NULL))
        proof = place / "proof.jsonl"
        _copied_mysql("proof", place, server, {"jsonl": {"path": str(proof)}})
        want = _by_id(mysql_traffic.last_rows(server))
        figures.prove([mysql_cases.of_ours(line["after"]) for line in tail(proof)], want)
        connector = peers.debezium_mysql(server) | {"snapshot.mode": "initial", "snapshot.locking.mode": "none"}
        usage, last = peers.Debezium(place).run(connector, rows)
        usages["Debezium Engine, one round"] = [usage]
        if [str(row["id"]) for row in last] != [row[0] for row in want]:
            raise RuntimeError("Debezium's last rows are others")
    proved = f"last {figures.PROVED} rows, all columns"
    return Result("mysql-snapshot", rows, figures=figures.figures(usages, rows), proved=proved)


def _copied_mysql(name: str, place: Path, server: MysqlServer, sink: dict[str, Any]) -> Usage:
    ours = Ours(name, place, COMPILED)
    section = mysql(server)
    section["mysql"]["start"] = "initial"
    ours.configure(section, sink, tables=mysql_cases.MAPPED)
    return ours.run_until(lambda text: MysqlPosition.decode(text).is_copied, server.password)


BENCHES = (
    Bench("postgres-snapshot", str(postgres_snapshot.__doc__), 1_000_000, postgres_snapshot),
    Bench("postgres-snapshot-postgres", str(postgres_snapshot_postgres.__doc__), 1_000_000, postgres_snapshot_postgres),
    Bench("mysql-snapshot", str(mysql_snapshot.__doc__), 1_000_000, mysql_snapshot),
)
