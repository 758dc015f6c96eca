"""`cdcsync snapshot` on a running pipeline: rows are read again beside its log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fix_command import stopped
from fix_job import ROWS, SHOP, Job, arrived, same
from fix_mysql_source import begun
from fix_postgres import Database, drop_database, make_database

from cdcsync.change import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_command import Command
    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

    from cdcsync.testing.servers import PostgresServer


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def job(command: Command, database: Database, target: Database) -> Job:
    """A pipeline of one table with a key and one without."""
    database.execute(SHOP)
    database.execute("CREATE TABLE log (x int); INSERT INTO log VALUES (1)")
    return Job(
        command, database, target, tables="['public.orders', {from: public.log, key: none}]", more="heartbeat: 1s"
    )


def status(job: Job) -> dict[str, Any]:
    got: dict[str, Any] = json.loads(job.command("status", "--json", job.path).stdout or "{}")
    return got


def test_a_damaged_target_is_mended_while_the_pipeline_runs(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))
    job.target.execute("UPDATE orders SET note = 'damaged'; DELETE FROM orders WHERE id = 7")

    got = job.command("snapshot", job.path, "public.orders", "--where", "id <= 10", "--json")
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["tables"] == ["public.orders"]
    assert len(job.target.query("SELECT id FROM orders WHERE note <> 'damaged'")) == 10
    job.source.execute("UPDATE orders SET note = 'meanwhile' WHERE id = 20")
    again = job.command("snapshot", job.path, "orders")

    assert again.returncode == 0, again.stderr
    arrived(process, lambda: same(job.source, job.target, ROWS))
    assert stopped(process)[0] == 0


def test_a_snapshot_is_paused_cancelled_and_gone_on_with(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))
    job.target.execute("UPDATE orders SET note = 'damaged'")

    for words in (["--pause"], ["public.orders", "--no-wait"]):
        assert job.command("snapshot", job.path, *words).returncode == 0
    arrived(process, lambda: status(job)["snapshot"].get("tables_left") == ["public.orders"])
    assert job.command("snapshot", job.path, "--cancel").returncode == 0
    arrived(process, lambda: not status(job)["snapshot"].get("tables_left"))
    assert job.target.query("SELECT count(*) FROM orders WHERE note = 'damaged'") == [(20,)]

    assert job.command("snapshot", job.path, "--resume").returncode == 0
    assert job.command("snapshot", job.path, "public.orders").returncode == 0
    arrived(process, lambda: same(job.source, job.target))
    assert stopped(process)[0] == 0


def test_what_cannot_be_read_again_is_refused_by_name(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))

    unknown = job.command("snapshot", job.path, "public.nothing")
    keyless = job.command("snapshot", job.path, "public.log")

    assert (unknown.returncode, keyless.returncode) == (1, 1)
    assert "no table public.nothing" in unknown.stderr
    assert "without a key" in keyless.stderr
    assert stopped(process)[0] == 0


def test_a_binlogs_source_is_opened_again_to_read_what_was_ordered(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
    run = begun(read(database))
    number = run.source.order("read", [f"{database.name}.t"], "id > 1")

    run.take(lambda run: bool(run.position and run.position.pending))
    database.execute("INSERT INTO t VALUES (4)")
    run.take(lambda run: bool(run.position and not run.position.pending) and len(run.changes) >= 3)

    assert run.source.figures()["orders"] == number
    were_read = [change.after for change in run.changes if change.operation is Operation.READ and change.after]
    logged = [change.after for change in run.changes if change.operation is Operation.INSERT and change.after]
    assert sorted(set(were_read + logged)) == [(2,), (3,), (4,)]
    assert logged == [(4,)]
