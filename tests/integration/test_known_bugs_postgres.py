"""Bugs that tools of this kind had with PostgreSQL, shown not to happen here; see docs/reference/known-bugs.md."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import psycopg
import pytest
from fix_postgres import Database, drop_database
from fix_postgres_source import Run, has, start, streaming

from cdcsync.change import Change, SchemaChange
from cdcsync.errors import End, Fatal, Transient
from cdcsync.postgres import source as postgres_source
from cdcsync.postgres.position import format_lsn
from cdcsync.testing.faults import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.testing.servers import PostgresServer


def confirmed(database: Database) -> str:
    ((lsn,),) = database.query(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdcsync_p'"
    )
    return str(lsn)


@pytest.fixture
def latin1(postgres: PostgresServer) -> Iterator[Database]:
    """A database that is not in UTF-8."""
    postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    made = Database(postgres, "latin")
    yield made
    drop_database(made)


def test_a_restart_after_a_transaction_without_rows_loses_nothing(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1))
    begun = run.position
    assert begun is not None
    database.execute("CREATE TABLE other (id int PRIMARY KEY)")
    database.execute("BEGIN; ANALYZE other; COMMIT")
    run.take(lambda run: run.position is not None and run.position.lsn > begun.lsn, within_s=40)
    run.source.close()
    database.execute("INSERT INTO t VALUES (2)")

    again = make(database).open(run.encoded(), 1).take(has(1))

    assert [change.after for change in again.changes] == [(2,)]


def test_rows_of_one_copy_statement_that_share_an_lsn_all_arrive_on_resume(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    with (
        psycopg.connect(database.url, autocommit=True) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY t FROM STDIN") as copy,
    ):
        copy.write("\n".join(map(str, range(20_000))) + "\n")
    run.take(has(6000))
    assert run.position is not None
    assert run.position.within is not None
    run.source.close()

    again = make(database).open(run.encoded(), 1).take(lambda run: bool(run.transactions) and run.transactions[-1].last)

    assert [change.after[0] for change in run.changes + again.changes if change.after] == list(range(20_000))


def test_the_slot_never_passes_what_was_acknowledged(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1), acknowledge=False)
    before = confirmed(database)
    for _ in range(15):
        run.turn(acknowledge=False)
        run.source.acknowledge(None)

    assert confirmed(database) == before
    assert run.position is not None
    assert before < format_lsn(run.position.lsn)


def test_a_run_of_a_moment_confirms_what_it_delivered(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1))
    assert run.position is not None
    run.source.close()

    until = time.monotonic() + 10
    while confirmed(database) != format_lsn(run.position.lsn):
        assert time.monotonic() < until, (confirmed(database), run.position)
        time.sleep(0.05)


def test_what_was_rolled_back_never_arrives(each_database: Database, make: Callable[..., Run]) -> None:
    each_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    run = start(make(each_database))
    each_database.execute("BEGIN; INSERT INTO t VALUES (1, 0); ROLLBACK")
    each_database.execute(
        "BEGIN; INSERT INTO t VALUES (2, 0); SAVEPOINT a; UPDATE t SET v = 1; INSERT INTO t VALUES (3, 0); "
        "SAVEPOINT b; DELETE FROM t; ROLLBACK TO a; CREATE TEMP TABLE gone (id int); INSERT INTO gone VALUES (1); "
        "UPDATE t SET v = 2; RELEASE a; COMMIT"
    )
    run.take(has(2))

    assert run.rows == [("insert", None, (2, 0)), ("update", run.rows[1][1], (2, 2))]


def test_a_prepared_transaction_arrives_at_its_commit_and_not_when_rolled_back(make: Callable[..., Run]) -> None:
    from cdcsync.testing.servers import PostgresServer  # noqa: PLC0415  a server of its own, for its setting

    server = PostgresServer(15, settings={"max_prepared_transactions": "4"}).start()
    try:
        database = Database(server, "postgres")
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        run = start(make(database))
        database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'a'")
        database.execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'b'")
        database.execute("INSERT INTO t VALUES (3)")
        run.take(has(1))
        position = run.encoded()
        run.source.close()
        database.execute("ROLLBACK PREPARED 'a'")
        database.execute("COMMIT PREPARED 'b'")

        again = make(database).open(position, 1).take(has(1))

        assert [change.after for change in run.changes] == [(3,)]
        assert [change.after for change in again.changes] == [(2,)]
        again.source.close()
    finally:
        server.stop()


def test_rows_from_before_an_alter_while_down_keep_their_own_columns(
    each_database: Database, make: Callable[..., Run]
) -> None:
    each_database.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    run = start(make(each_database))
    position = run.encoded()
    run.source.close()
    each_database.execute("INSERT INTO t VALUES (1, 'a', 'b')")
    each_database.execute("ALTER TABLE t DROP COLUMN a; ALTER TABLE t RENAME b TO c; ALTER TABLE t ADD d int DEFAULT 5")
    each_database.execute("INSERT INTO t VALUES (2, 'c', 6)")
    each_database.execute("ALTER TABLE t ALTER d TYPE text")
    each_database.execute("INSERT INTO t VALUES (3, 'c', 'x')")

    again = make(each_database).open(position, 1).take(has(3))

    assert [([column.name for column in change.table.columns], change.after) for change in again.changes] == [
        (["id", "a", "b"], (1, "a", "b")),
        (["id", "c", "d"], (2, "c", 6)),
        (["id", "c", "d"], (3, "c", "x")),
    ]
    assert [type(item) for item in again.items] == [Change, SchemaChange, Change, SchemaChange, Change]


def test_a_label_added_to_an_enum_arrives(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[])")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1, 'sad', '{sad}')")
    database.execute("ALTER TYPE mood ADD VALUE 'fine'")
    database.execute("INSERT INTO t VALUES (2, 'fine', '{fine,NULL}')")
    database.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    database.execute("INSERT INTO t VALUES (3, 'blue', '{}')")
    run.take(has(3))

    assert [change.after for change in run.changes] == [
        (1, "sad", ("sad",)),
        (2, "fine", ("fine", None)),
        (3, "blue", ()),
    ]


def test_a_database_in_latin1_is_copied_and_followed(latin1: Database, make: Callable[..., Run]) -> None:
    latin1.execute('CREATE TABLE t (id int PRIMARY KEY, "größe" text)')
    latin1.execute("INSERT INTO t VALUES (1, 'naïve Æther £')")
    run = make(latin1, start="initial").open().take(streaming)
    latin1.execute("INSERT INTO t VALUES (2, 'naïve Æther £')")
    run.take(has(2))

    assert [change.after for change in run.changes] == [(1, "naïve Æther £"), (2, "naïve Æther £")]
    assert run.changes[1].table.columns[1].name == "größe"


def test_the_zone_and_the_style_of_the_database_change_no_value(
    each_database: Database, make: Callable[..., Run]
) -> None:
    each_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a timestamptz, b date, c interval, d float8, e bytea, f timestamp)"
    )
    for setting in (
        "timezone = 'America/St_Johns'", "datestyle = 'German'", "intervalstyle = 'sql_standard'",
        "extra_float_digits = -10", "bytea_output = 'escape'",
    ):  # fmt: skip
        each_database.execute(f"ALTER DATABASE {each_database.name} SET {setting}")
    values = (
        "'2026-07-01 12:00:00+00', '2026-02-03', '-1 mon +2 days', 0.1 + 0.2::float8, '\\x00ff', '2026-07-01 12:00'"
    )
    each_database.execute(f"INSERT INTO t VALUES (1, {values})")
    run = make(each_database, start="initial").open().take(streaming)
    each_database.execute(f"INSERT INTO t VALUES (2, {values})")
    run.take(has(2))

    copied, logged = (change.after for change in run.changes)
    assert copied is not None
    assert logged is not None
    assert copied[1:] == logged[1:]
    assert copied[1:4] == ("2026-07-01T12:00:00Z", "2026-02-03", "P-1M2D")
    assert copied[4:] == (0.1 + 0.2, b"\x00\xff", "2026-07-01T12:00:00")


def test_a_huge_transaction_needs_the_memory_of_a_part(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    run = start(make(database))
    database.execute("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i")
    count, last = 0, False
    tracemalloc.start()
    while not last:
        batch = run.source.poll(20)
        if batch is None:
            continue
        count += sum(len(each.items) for each in batch.transactions)
        last = bool(batch.transactions) and batch.transactions[-1].last
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 60_000
    assert peak < 30 << 20


def test_changes_of_a_table_under_another_name_stop(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA far")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1))
    database.execute("ALTER TABLE t SET SCHEMA far")
    database.execute("INSERT INTO far.t VALUES (2)")

    with pytest.raises(
        Fatal, match=r"table public\.t of the mapping has changes in the log under its other name far\.t"
    ):
        run.take(has(2))


def test_a_table_swapped_in_by_two_renames_stops(
    database: Database, make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_source, "LOOK_S", 0.2)
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA aside; CREATE TABLE aside.t (id bigint CONSTRAINT k PRIMARY KEY)"
    )
    run = start(make(database))
    database.execute("BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE aside.t SET SCHEMA public; COMMIT")

    with pytest.raises(Fatal, match=r"no longer in publication cdcsync_p: public\.t"):
        run.take(has(1), within_s=5)


def test_a_table_taken_out_of_the_publication_stops(
    database: Database, make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_source, "LOOK_S", 0.2)
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("ALTER PUBLICATION cdcsync_p DROP TABLE t")

    with pytest.raises(Fatal, match=r"no longer in publication cdcsync_p: public\.t"):
        run.take(has(1), within_s=5)


def test_a_server_that_falls_silent_is_left(make: Callable[..., Run], database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"ALTER DATABASE {database.name} SET wal_sender_timeout = '2s'")
    with Proxy(database.server.host, database.server.port) as proxy:
        run = start(make(database, host=proxy.host, port=proxy.port))
        proxy.stall()

        with pytest.raises(Transient) as caught:
            run.take(has(1), within_s=15)

        assert caught.value.end is End.SOURCE
        proxy.cut()
