"""A damaged target is mended by keys in a running pipeline's own stream: named, pruned, or those that the log names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fix_command import stopped
from fix_job import ROWS, SHOP, Job, arrived, same
from fix_mysql_source import begun
from fix_postgres import Database, drop_database, make_database

from cdcsync.change import UNCHANGED, Operation
from cdcsync.pending import Pending

if TYPE_CHECKING:
    import subprocess
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
    """A pipeline of two tables, whose log is retained."""
    database.execute(SHOP)
    database.execute(
        "CREATE TABLE pairs (a int, b text, n int, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, 'x', 1)"
    )
    made = Job(command, database, target, tables="['public.orders', 'public.pairs']", more="heartbeat: 1s")
    server = database.server
    made.source_section = (
        f"{{postgres: {{host: 127.0.0.1, port: {server.port}, user: postgres, password: {server.password}, "
        f"database: {database.name}, retain: {{time: 1h}}}}}}"
    )
    return made


def ran(got: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said that has to succeed."""
    assert got.returncode == 0, got.stderr
    return got.stdout


def test_named_keys_are_written_as_they_are_and_those_that_are_gone_are_deleted(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))
    job.target.execute("UPDATE orders SET note = 'damaged' WHERE id < 6; INSERT INTO orders VALUES (77, 'never', 1)")
    job.target.execute("INSERT INTO pairs VALUES (2, 'y,z', 2)")

    ran(job.command("snapshot", job.path, "public.orders", "--keys", "3,77", "--keys", "[4]"))
    ran(job.command("snapshot", job.path, "pairs", "--keys", '[[1, "x"], [2, "y,z"]]'))

    arrived(process, lambda: job.target.query("SELECT count(*) FROM orders WHERE note = 'damaged'") == [(3,)])
    assert job.target.query("SELECT id FROM orders WHERE note = 'damaged' ORDER BY id") == [(1,), (2,), (5,)]
    assert job.target.query("SELECT count(*) FROM orders WHERE id = 77") == [(0,)]
    assert job.target.query("SELECT a, b FROM pairs") == [(1, "x")]
    refused = job.command("snapshot", job.path, "pairs", "--keys", "1,2")
    assert (refused.returncode, "the key of public.pairs is a, b" in refused.stderr) == (1, True)
    assert stopped(process)[0] == 0


def test_prune_deletes_what_the_source_has_not(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))
    job.target.execute("INSERT INTO orders SELECT n, 'ghost', 0 FROM generate_series(100, 2300) n")
    job.target.execute("DELETE FROM orders WHERE id = 7; UPDATE orders SET note = 'damaged' WHERE id = 8")
    job.source.execute("INSERT INTO orders VALUES (100, 'real', 1)")

    told = json.loads(ran(job.command("snapshot", job.path, "public.orders", "--prune", "--json")))

    arrived(process, lambda: same(job.source, job.target, ROWS))
    assert told["pruned"]["keys"] >= 2_221
    assert stopped(process)[0] == 0


def test_a_damaged_target_is_mended_by_the_keys_that_the_log_names(job: Job) -> None:
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))
    ((start,),) = job.source.query("SELECT pg_current_wal_flush_lsn()::text")
    job.source.execute("UPDATE orders SET note = 'older' WHERE id IN (3, 4)")
    job.source.execute("DELETE FROM orders WHERE id = 5")
    job.source.execute("UPDATE orders SET id = 60 WHERE id = 6")
    ((end,),) = job.source.query("SELECT pg_current_wal_flush_lsn()::text")
    job.source.execute("UPDATE orders SET note = 'newer' WHERE id = 3")
    arrived(process, lambda: same(job.source, job.target))
    job.target.execute("UPDATE orders SET note = 'damaged'; INSERT INTO orders VALUES (5, 'back', 1), (6, 'back', 1)")
    job.target.execute(
        "CREATE TABLE seen (note text); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO seen VALUES (NEW.note); RETURN NEW; END $$; "
        "CREATE TRIGGER see AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION see()"
    )

    told: dict[str, Any] = json.loads(
        ran(job.command("replay", job.path, "--from", start, "--to", end, "--dry-run", "--json"))
    )
    assert told["tables"] == {"public.orders": {"update": 3, "delete": 1}}
    job.command("replay", job.path, "--from", start, "--to", end, "--yes")

    arrived(process, lambda: job.target.query("SELECT count(*) FROM orders WHERE note <> 'damaged'") == [(3,)])
    got = job.target.query("SELECT id, note FROM orders WHERE note <> 'damaged' ORDER BY id")
    assert got == [(3, "newer"), (4, "older"), (60, "note 6")]
    assert job.target.query("SELECT count(*) FROM orders WHERE id IN (5, 6)") == [(0,)]
    assert sorted(job.target.query("SELECT note FROM seen")) == [("newer",), ("note 6",), ("older",)]
    assert stopped(process)[0] == 0


def test_a_pipeline_that_does_not_run_is_named(job: Job) -> None:
    job.goes_on()
    ((start,),) = job.source.query("SELECT pg_current_wal_flush_lsn()::text")
    job.source.execute("UPDATE orders SET note = 'x' WHERE id = 3")

    got = job.command("replay", job.path, "--from", start, "--yes")

    assert (got.returncode, "does not run" in got.stderr, "cdcsync run orders" in got.stderr) == (78, True, True)


def test_a_binlogs_source_reads_by_keys(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int, b varbinary(4), n int, PRIMARY KEY (id, b))")
    database.execute("INSERT INTO t VALUES (1, x'00ff', 1), (2, 'b', 2), (3, 'c', 3)")
    run = begun(read(database))
    keys = ((1, b"\x00\xff"), (2, b"x"), (3, b"c"))
    run.source.order("read", [], "", [Pending(0, f"{database.name}.t", (), first=False, keys=keys)])

    run.take(lambda run: bool(run.position and not run.position.pending) and len(run.changes) >= 3)

    got = {(change.operation, change.before, change.after) for change in run.changes}
    assert got == {
        (Operation.DELETE, (2, b"x", UNCHANGED), None),
        (Operation.READ, None, (1, b"\x00\xff", 1)),
        (Operation.READ, None, (3, b"c", 3)),
    }


def test_a_table_that_fails_is_left_alone_and_brought_back(job: Job) -> None:
    job.source.execute(
        "CREATE TABLE bad (id int PRIMARY KEY, v int); INSERT INTO bad SELECT n, n FROM generate_series(1, 9) n"
    )
    job.source.execute("CREATE FUNCTION broken(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    job.tables = "['public.orders', 'public.bad']"
    job.source_section = job.source_section.replace(
        ", retain: {time: 1h}", ", on_table_error: isolate, snapshot_where: {public.bad: 'public.broken(id)'}"
    )
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))

    def failed() -> dict[str, str]:
        got: dict[str, str] = json.loads(ran(job.command("status", job.path, "--json")))["snapshot"].get("failed", {})
        return got

    arrived(process, lambda: "public.bad" in failed())
    assert "no" in failed()["public.bad"]
    shown = ran(job.command("status", job.path))
    assert "cdcsync rebuild orders public.bad" in shown
    job.source.execute("UPDATE bad SET v = 0 WHERE id = 1; INSERT INTO orders VALUES (50, 'on', 1)")
    arrived(process, lambda: same(job.source, job.target))
    assert job.target.query("SELECT count(*) FROM bad") == [(0,)]

    ran(job.command("rebuild", job.path, "public.bad"))

    job.source.execute("INSERT INTO bad VALUES (10, 10)")
    arrived(process, lambda: same(job.source, job.target, "SELECT id, v FROM bad ORDER BY id"))
    assert failed() == {}
    assert stopped(process)[0] == 0
