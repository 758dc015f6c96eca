"""MySQL's benchmarks: every contender reads one log of MySQL 8.0 from its beginning, by turns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks import figures, peers
from benchmarks.figures import Bench, Result, folder, tail
from benchmarks.mysql_traffic import Log, last_rows, logged
from benchmarks.ours import COMPILED, INTERPRETED, Ours, mysql, past_offset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.process import Usage

MAPPED = ["bench.bench"]
NULL = {"jsonl": {"path": "/dev/null"}}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ours(name: str, place: Path, command: Path, log: Log, sink: dict[str, Any]) -> Usage:
    """Read the log with a pipeline that is new."""
    contender = Ours(name, place, command)
    contender.configure(mysql(log.server), sink, tables=MAPPED)
    return contender.run_until(past_offset(log.file, log.offset), log.server.password)


def _to_jsonl(name: str, rows: int, rounds: int, rows_per_transaction: int) -> Result:
    usages: dict[str, list[Usage]] = {}
    with logged(rows, rows_per_transaction) as log, folder() as place:
        want = last_rows(log.server)
        debezium, bare = peers.Debezium(place), peers.MysqlReplication(place)
        for number in range(rounds):
            compiled = _ours(f"compiled{number}", place, COMPILED, log, NULL)
            usages.setdefault("cdcsync", []).append(compiled)
            if INTERPRETED.exists():
                interpreted = _ours(f"interpreted{number}", place, INTERPRETED, log, NULL)
                usages.setdefault("cdcsync interpreted", []).append(interpreted)
            usage, last = debezium.run(peers.debezium_mysql(log.server), rows)
            usages.setdefault("Debezium Engine", []).append(usage)
            figures.prove([_of_debezium(row) for row in last], want)
        usage, last = bare.run(log.server)
        usages["mysql-replication, one round"] = [usage]
        figures.prove([_of_mysql_replication(row) for row in last], want)
        _ours("proof", place, COMPILED, log, {"jsonl": {"path": str(place / "proof.jsonl")}})
        figures.prove([of_ours(line["after"]) for line in tail(place / "proof.jsonl")], want)
    proved = f"last {figures.PROVED} rows of each contender, all columns"
    return Result(name, rows, figures=figures.figures(usages, rows), proved=proved)


def _text(row: dict[str, Any], moment: Callable[[Any], str]) -> tuple[str, ...]:
    plain = (str(row[name]) for name in ("id", "quantity", "note", "address", "price"))
    return (*plain, moment(row["at"]), str(int(row["paid"])), row["sku"])


def of_ours(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of our jsonl as the server writes it."""

    def moment(at: str) -> str:
        whole, _, fraction = at.removesuffix("Z").partition(".")
        return f"{whole}.{fraction:0<6}"

    return _text(row, moment)


def _of_debezium(row: dict[str, Any]) -> tuple[str, ...]:
    return of_ours(row)


def _of_mysql_replication(row: dict[str, Any]) -> tuple[str, ...]:
    return _text(row, lambda at: datetime.fromisoformat(at).strftime("%Y-%m-%dT%H:%M:%S.%f"))


def mysql_jsonl(rows: int, rounds: int) -> Result:
    """MySQL to jsonl on /dev/null, 1,000-row transactions, Debezium Engine, and mysql-replication's bare reading."""
    return _to_jsonl("mysql-jsonl", rows, rounds, 1000)


def mysql_jsonl_single(rows: int, rounds: int) -> Result:
    """MySQL to jsonl on /dev/null, one-row transactions, Debezium Engine, and mysql-replication's bare reading."""
    return _to_jsonl("mysql-jsonl-single", rows, rounds, 1)


def mysql_large_transaction(rows: int, rounds: int) -> Result:
    """Peak memory with everything in one transaction, to jsonl on /dev/null, compiled and interpreted."""
    usages: dict[str, list[Usage]] = {}
    commands = {"compiled": COMPILED, "interpreted": INTERPRETED}
    with logged(rows, rows) as log, folder() as place:
        for number in range(rounds):
            for name, command in commands.items():
                if command.exists():
                    usages.setdefault(name, []).append(_ours(f"{name}{number}", place, command, log, NULL))
        _ours("proof", place, COMPILED, log, {"jsonl": {"path": str(place / "proof.jsonl")}})
        figures.prove([of_ours(line["after"]) for line in tail(place / "proof.jsonl")], last_rows(log.server))
    proved = f"last {figures.PROVED} rows, all columns"
    return Result("mysql-large-transaction", rows, figures=figures.figures(usages, rows), proved=proved)


BENCHES = (
    Bench("mysql-jsonl", str(mysql_jsonl.__doc__), 1_000_000, mysql_jsonl),
    Bench("mysql-jsonl-single", str(mysql_jsonl_single.__doc__), 300_000, mysql_jsonl_single),
    Bench("mysql-large-transaction", str(mysql_large_transaction.__doc__), 2_000_000, mysql_large_transaction),
)
