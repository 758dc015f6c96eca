"""Bad input of every kind over real servers: one clear message, the right exit status, and nothing lost.

After the remedy that the message names the pipeline goes on, and the target is equal.
"""

from __future__ import annotations

import resource
import sqlite3
import struct
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from fix_command import stopped
from fix_job import ROWS, SHOP, SLOT, Job, arrived, judged, same
from fix_postgres import Database, drop_database, make_database

from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_command import Command


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


@pytest.fixture
def job(command: Command, database: Database, target: Database) -> Job:
    """A pipeline whose ends hold what they should."""
    database.execute(SHOP)
    return Job(command, database, target)


@contextmanager
def server_of(settings: dict[str, str]) -> Iterator[PostgresServer]:
    """Run a server with settings of its own."""
    server = PostgresServer(15, settings=settings).start()
    try:
        yield server
    finally:
        server.stop()


def test_a_wrong_password_is_said_without_the_password(job: Job) -> None:
    job.source_url = job.source.url.replace(job.source.server.password, "not-the-right-one")

    said = job.refused(77, "password authentication failed", "`password`")

    assert "not-the-right-one" not in said
    job.source_url = ""
    job.goes_on()


def test_a_certificate_that_does_not_verify_is_refused_with_the_line_to_add(job: Job) -> None:
    job.source_url = job.source.url + "?sslmode=verify-full"

    job.refused(77, "certificate", "tls: {mode: verify-full, ca:")

    job.source_url = f"{job.source.url}?sslmode=verify-full&sslrootcert={job.source.server.authority}"
    job.goes_on()


def test_a_server_without_logical_wal_is_refused_and_works_when_it_has_it(command: Command, target: Database) -> None:
    with server_of({"wal_level": "replica"}) as server:
        job = Job(command, make_database(server), target)
        job.source.execute(SHOP)

        job.refused(78, "wal_level", "ALTER SYSTEM SET wal_level = logical")
        checked = command("check", job.path)

        assert checked.returncode == 1
        assert "ALTER SYSTEM SET wal_level = logical;" in checked.stdout
        server.settings["wal_level"] = "logical"
        server.restart()
        job.goes_on()


def test_a_slot_that_another_reads_is_refused_until_it_is_free(job: Job) -> None:
    job.goes_on()
    job.source.execute("INSERT INTO orders VALUES (21, 'while taken', 1)")

    with reading(job.source):
        job.refused(76, SLOT, "stop it")

    job.goes_on()


@contextmanager
def reading(database: Database) -> Iterator[None]:
    """Read our slot as another program would, without ever confirming anything."""
    ended = threading.Event()
    with closing(psycopg.connect(database.url, autocommit=True, replication="database")) as connection:
        pgconn = connection.pgconn
        pgconn.send_query(
            f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names '{SLOT}')".encode()
        )
        while pgconn.is_busy():
            pgconn.consume_input()
        pgconn.get_result()

        def live() -> None:
            at_us = 0
            while not ended.wait(0.2):
                at_us += 1_000_000
                pgconn.put_copy_data(b"r" + struct.pack(">QQQqB", 0, 0, 0, at_us, 0))
                pgconn.flush()

        thread = threading.Thread(target=live)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_a_slot_dropped_while_down_is_refused_and_a_new_copy_mends_it(job: Job) -> None:
    job.goes_on()
    job.source.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
    job.source.execute("DELETE FROM orders WHERE id = 3")

    job.refused(65, SLOT, "does not exist", "cdcsync drop")

    copied_again(job)


def copied_again(job: Job, query: str = ROWS) -> None:
    """Follow the hint: drop, empty the target, run."""
    dropped = job.command("drop", job.path, "--yes")
    assert dropped.returncode == 0, dropped.stderr
    job.target.execute("TRUNCATE orders")
    job.goes_on(query)


@pytest.fixture(params=[15, 18], ids=["refused by 15", "skipped with a warning by 18"])
def by_both(request: pytest.FixtureRequest, command: Command, target: Database) -> Iterator[Job]:
    """A pipeline from a server of either kind: since 18 one goes on where a publication is missing."""
    made = make_database(request.getfixturevalue(f"postgres{request.param}"))
    made.execute(SHOP)
    yield Job(command, made, target)
    drop_database(made)


def test_a_publication_dropped_while_down_is_refused(job: Job) -> None:
    job.goes_on()
    job.source.execute(f"DROP PUBLICATION {SLOT}")
    job.source.execute("DELETE FROM orders WHERE id = 1")

    job.refused(65, f"publication {SLOT} does not exist", "cdcsync drop")


def test_a_publication_dropped_and_made_again_while_down_is_no_silent_gap(by_both: Job) -> None:
    job = by_both
    job.goes_on()
    job.source.execute(f"DROP PUBLICATION {SLOT}")
    job.source.execute("DELETE FROM orders WHERE id = 1")
    job.source.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE orders")
    job.source.execute("DELETE FROM orders WHERE id = 2")

    job.refused(65, f'ublication "{SLOT}"', "cdcsync drop")

    copied_again(job)


def test_a_publication_dropped_under_a_running_pipeline_stops_it(by_both: Job) -> None:
    job = by_both
    process = job.command.start("run", job.path)
    arrived(process, lambda: same(job.source, job.target))

    job.source.execute(f"DROP PUBLICATION {SLOT}")
    job.source.execute("DELETE FROM orders WHERE id = 1")

    _, errors = process.communicate(timeout=30)
    assert process.returncode == 65, errors
    assert "cdcsync drop" in errors


def test_wal_that_was_removed_is_refused_and_a_new_copy_mends_it(command: Command, target: Database) -> None:
    with server_of({"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}) as server:
        job = Job(command, make_database(server), target)
        job.source.execute(SHOP)
        job.goes_on()
        job.source.execute("UPDATE orders SET note = 'lost in the log' WHERE id = 7")
        for _ in range(6):
            job.source.execute("CREATE TABLE filler AS SELECT 1")
            job.source.execute("DROP TABLE filler")
            job.source.execute("SELECT pg_switch_wal()")
        job.source.execute("CHECKPOINT")

        job.refused(65, SLOT, "WAL", "max_slot_wal_keep_size")

        copied_again(job)


def test_no_stored_position_though_our_slot_exists_is_refused(job: Job) -> None:
    job.goes_on()
    job.target.execute("DROP TABLE orders, cdcsync_positions")

    job.refused(65, SLOT, "no position", "cdcsync drop orders")

    assert job.command("drop", job.path, "--yes").returncode == 0
    job.goes_on()


def test_a_target_table_that_is_gone_under_a_stored_position_is_refused(job: Job) -> None:
    job.goes_on()
    before = job.target.query("SELECT position FROM cdcsync_positions")
    job.target.execute("DROP TABLE orders")

    job.refused(65, "orders", "is gone")

    assert job.target.query("SELECT to_regclass('orders'), position FROM cdcsync_positions") == [(None, *before[0])]
    assert job.command("drop", job.path, "--yes").returncode == 0
    job.goes_on()


def test_a_sqlite_table_that_is_gone_under_a_stored_position_is_refused(job: Job) -> None:
    file = job.command.folder / "out.db"
    path = job.command.write(
        f"name: orders\nsource: '{job.source.url}'\nsink: 'sqlite:{file}'\ntables: {job.tables}\n", "sqlite.yaml"
    )
    process = job.command.start("run", path)
    arrived(process, lambda: in_sqlite(file) == [(20,)])
    stopped(process)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE orders")

    judged(job.command("run", path), 65, "orders", "is gone")


def in_sqlite(file: Path, query: str = "SELECT count(*) FROM orders") -> list[tuple[object, ...]]:
    """Return the rows of a query, none while there is no such table."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


def test_a_table_without_identity_is_refused_with_the_sql_that_mends_it(job: Job) -> None:
    job.source.execute("CREATE TABLE history (id int NOT NULL); INSERT INTO history VALUES (1)")
    job.tables = "[{from: public.history, key: [id]}]"

    job.refused(65, "history", 'ALTER TABLE "public"."history" REPLICA IDENTITY FULL')
    checked = job.command("check", job.path)

    assert (checked.returncode, "ALTER TABLE" in checked.stdout) == (1, True)
    job.source.execute("UPDATE history SET id = 2")
    job.source.execute("ALTER TABLE history REPLICA IDENTITY FULL")
    job.goes_on("SELECT id FROM history")


def test_a_target_column_too_narrow_is_refused_before_anything_is_written(job: Job) -> None:
    job.target.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note varchar(3), price numeric(4, 1))")

    job.refused(78, "note", "price", "varchar(3)".replace("varchar", "character varying"))

    assert job.source.query(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{SLOT}'") == []
    job.target.execute("ALTER TABLE orders ALTER note TYPE text, ALTER price TYPE numeric(10, 2)")
    job.goes_on()


def test_a_target_column_made_too_narrow_later_stops_at_the_row_and_loses_nothing(job: Job) -> None:
    job.goes_on()
    job.target.execute("ALTER TABLE orders ADD CONSTRAINT short CHECK (length(note) < 10)")
    job.source.execute("UPDATE orders SET note = 'a note that is too long' WHERE id = 5")

    said = job.refused(65, "orders", "short", "on_rejected")

    assert "too long" not in said
    job.target.execute("ALTER TABLE orders DROP CONSTRAINT short")
    job.goes_on()


def test_a_target_of_another_shape_is_refused_with_all_that_does_not_fit(job: Job) -> None:
    job.target.execute("CREATE TABLE orders (id bigint PRIMARY KEY, colour text NOT NULL)")

    job.refused(78, "note", "price", "colour")

    job.target.execute("DROP TABLE orders")
    job.goes_on()


NASTY = """
CREATE SCHEMA "s'; DROP SCHEMA public";
CREATE TABLE "s'; DROP SCHEMA public"."a""b" ("id" int PRIMARY KEY, "'; DROP TABLE x; --" text, "c""%s {d}" text);
INSERT INTO "s'; DROP SCHEMA public"."a""b" VALUES (1, '''; DROP TABLE y; --', '"');
"""
NASTY_ROWS = """SELECT * FROM "s'; DROP SCHEMA public"."a""b" ORDER BY id"""


def test_names_that_are_sql_are_only_names(job: Job) -> None:
    job.source.execute(NASTY)
    job.target.execute("""CREATE SCHEMA "s'; DROP SCHEMA public" """)
    job.tables = "['*.*']"

    checked = job.command("check", job.path)
    job.goes_on(NASTY_ROWS)
    job.source.execute("""UPDATE "s'; DROP SCHEMA public"."a""b" SET "c""%s {d}" = NULL, id = 2""")
    job.goes_on(NASTY_ROWS)
    verified = job.command("verify", job.path)

    assert (checked.returncode, verified.returncode) == (0, 0), checked.stdout + verified.stdout
    assert job.command("drop", job.path, "--yes").returncode == 0
    assert same(job.source, job.target)


def test_names_that_are_sql_are_only_names_in_sqlite_too(job: Job) -> None:
    job.source.execute(NASTY)
    file = job.command.folder / "out.db"
    path = job.command.write(
        f"name: orders\nsource: '{job.source.url}'\nsink: 'sqlite:{file}'\ntables: ['*.a*']\n", "sqlite.yaml"
    )

    process = job.command.start("run", path)
    arrived(process, lambda: in_sqlite(file, 'SELECT * FROM "a""b"') == job.source.query(NASTY_ROWS))

    assert stopped(process)[0] == 0


def test_text_that_the_target_cannot_hold_stops_there_or_becomes_a_dead_letter(job: Job) -> None:
    with encoded(job, "LATIN1") as latin:
        job.target = latin
        job.goes_on()
        job.source.execute("UPDATE orders SET note = '漢字' WHERE id = 5; UPDATE orders SET note = 'é' WHERE id = 6")

        said = job.refused(65, "orders", "on_rejected: dead_letter")
        job.more = "on_rejected: dead_letter\n"
        process = job.command.start("run", job.path)
        arrived(process, lambda: latin.query("SELECT note FROM orders WHERE id = 6") == [("é",)])
        stopped(process)
        listed = job.command("rejected", "list", job.path).stdout
        shown = job.command("rejected", "show", job.path, "1").stdout

        assert ("漢" in said, "update public.orders" in listed, "漢字" in shown) == (False, True, True)
        job.source.execute("UPDATE orders SET note = 'plain' WHERE id = 5")
        job.goes_on()
        assert job.command("rejected", "list", job.path).stdout == "no dead letters\n"


def test_a_nul_in_json_stops_there_and_loses_nothing(job: Job) -> None:
    job.source.execute("CREATE TABLE papers (id int PRIMARY KEY, body json)")
    job.target.execute("CREATE TABLE papers (id int PRIMARY KEY, body jsonb)")
    job.tables = "[public.papers]"
    papers = "SELECT id, body::jsonb FROM papers ORDER BY id"
    job.source.execute("""INSERT INTO papers VALUES (2, '{"a": 1}')""")
    job.goes_on(papers)
    job.source.execute("""INSERT INTO papers VALUES (1, '{"a": "\\u0000"}')""")

    job.refused(65, "papers", "on_rejected")

    job.source.execute("INSERT INTO papers VALUES (3, NULL)")
    job.more = "on_rejected: dead_letter\n"
    process = job.command.start("run", job.path)
    arrived(process, lambda: job.target.query("SELECT id FROM papers ORDER BY id") == [(2,), (3,)])
    job.source.execute("""UPDATE papers SET body = '{"a": 0}' WHERE id = 1""")
    arrived(process, lambda: same(job.source, job.target, papers))
    assert stopped(process)[0] == 0
    listed = [job.command("rejected", "list", job.path, *more).stdout for more in ([], ["--healed"])]
    dropped = job.command("rejected", "drop", job.path, "--all").stdout
    assert (listed[0], "(healed)" in listed[1], dropped) == ("no dead letters\n", True, "1 dropped\n")


def test_bytes_that_are_no_text_are_refused_by_name(job: Job) -> None:
    with encoded(job, "SQL_ASCII") as source:
        source.execute(SHOP)
        job.source = source
        count = "SELECT count(*), sum(id) FROM orders"
        job.goes_on(count)
        source.execute("SET client_encoding = SQL_ASCII; UPDATE orders SET note = E'\\xff' WHERE id = 5")

        job.refused(65, SLOT, "associated LSN", "UTF-8", "cdcsync drop")

        source.execute("UPDATE orders SET note = 'mended' WHERE id = 5")
        copied_again(job, count)


@contextmanager
def encoded(job: Job, encoding: str) -> Iterator[Database]:
    """Make a database of another encoding."""
    made = Database(job.source.server, f"{job.source.name}_{encoding.lower()}")
    made.server.execute(f"CREATE DATABASE {made.name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0")
    try:
        yield made
    finally:
        drop_database(made)


def test_a_full_disk_under_sqlite_is_waited_for_and_nothing_is_lost(job: Job) -> None:
    file = job.command.folder / "out.db"
    path = job.command.write(
        f"name: orders\nsource: '{job.source.url}'\nsink: 'sqlite:{file}'\ntables: {job.tables}\n", "sqlite.yaml"
    )
    process = job.command.start("run", path)
    arrived(process, lambda: in_sqlite(file) == [(20,)])
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))

    job.source.execute("INSERT INTO orders SELECT n, repeat('x', 500), 1 FROM generate_series(100, 2000) n")
    unready = job.command.wait(lambda got: got.get("state") == "unready")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    arrived(process, lambda: in_sqlite(file) == [(1921,)])

    assert "nothing is lost" in str(unready["fault"])
    assert stopped(process)[0] == 0


def test_source_and_target_being_the_same_table_is_refused(job: Job) -> None:
    job.target = job.source

    job.refused(78, "same table: public.orders", "`to:`")

    job.tables = "[{from: public.orders, to: orders_copy}]"
    process = job.command.start("run", job.path)
    copy = "SELECT count(*) FROM orders_copy"
    arrived(process, lambda: job.source.query("SELECT to_regclass('orders_copy')") != [(None,)])
    arrived(process, lambda: job.source.query(copy) == [(20,)])
    assert stopped(process)[0] == 0


def test_two_daemons_in_a_circle_are_refused(job: Job) -> None:
    job.goes_on()
    back = f"name: back\nsource: {job.target.url}\nsink: {job.source.url}\ntables: [public.orders]\n"

    judged(job.command("run", job.command.write(back, "back.yaml")), 78, "circle")

    job.source.execute("DELETE FROM orders WHERE id = 1")
    job.goes_on()
