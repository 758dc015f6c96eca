"""The PostgreSQL source against real servers: every trap of the stream by name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres_source import Run, has, start, streaming

from cdcsync.change import UNCHANGED, Change, CopyStart, Message, Operation, SchemaChange
from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_postgres import Database


def test_inserts_updates_and_deletes_arrive_in_commit_order(each_database: Database, make: Callable[..., Run]) -> None:
    each_database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    run = start(make(each_database))

    each_database.execute("INSERT INTO t VALUES (1, 'a')")
    each_database.execute("UPDATE t SET name = NULL")
    each_database.execute("UPDATE t SET id = 2")
    each_database.execute("DELETE FROM t")
    run.take(has(4))

    assert run.rows == [
        ("insert", None, (1, "a")),
        ("update", (1, UNCHANGED), (1, None)),
        ("update", (1, UNCHANGED), (2, None)),
        ("delete", (2, UNCHANGED), None),
    ]
    versions = [transaction.version for transaction in run.transactions]
    assert versions == sorted(set(versions))
    assert run.changes[0].table.key == ("id",)


def test_the_first_copy_then_the_log_holds_every_row_once(each_database: Database, make: Callable[..., Run]) -> None:
    each_database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    each_database.execute("INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 5000) i")
    run = make(each_database, start="initial").open()

    assert each_database.query("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [
        (0,)
    ]
    run.take(lambda run: len(run.transactions) == 1, acknowledge=False)
    assert [type(item) for item in run.items] == [CopyStart]
    assert run.turn() is None
    run.source.acknowledge(run.position)
    each_database.execute("INSERT INTO t VALUES (0, 'during')")
    run.take(lambda run: streaming(run) and len(run.changes) >= 5001)

    assert sorted(change.after[0] for change in run.changes if change.after) == list(range(5001))
    assert max(each.version for each in run.transactions[:-1]) <= run.transactions[-1].version


def test_an_interrupted_copy_of_rows_without_a_key_begins_again(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE log_t (id int, name text)")
    database.execute("INSERT INTO log_t SELECT i, 'x' || i FROM generate_series(1, 5000) i")
    first = make(database, start="initial").open()
    first.take(lambda run: len(run.changes) > 2000)
    first.source.close()

    again = make(database, start="initial").open(first.encoded(), 1).take(streaming)

    assert again.items[0] == CopyStart(again.changes[0].table, again=True)
    assert len(again.changes) == 5000


def test_a_begin_that_shares_its_lsn_with_the_first_insert_loses_nothing_on_resume(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1))
    position = run.encoded()
    run.source.close()
    database.execute("INSERT INTO t VALUES (2)")
    database.execute("INSERT INTO t SELECT generate_series(3, 12)")

    again = make(database).open(position, 1).take(has(11))

    assert [change.after for change in again.changes] == [(number,) for number in range(2, 13)]


def test_a_huge_transaction_comes_in_parts_and_resumes_inside(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t SELECT generate_series(1, 30000)")
    run.take(has(8000))
    got = len(run.changes)
    assert run.position is not None
    assert run.position.within is not None
    assert run.position.within.delivered == got
    run.source.close()

    again = make(database).open(run.encoded(), 1).take(lambda run: bool(run.transactions) and run.transactions[-1].last)

    numbers = [change.after[0] for change in run.changes + again.changes if change.after]
    assert numbers == list(range(1, 30001))
    assert {each.version for each in run.transactions + again.transactions if each.items} == {
        run.transactions[-1].version
    }
    assert all(each.part > 0 for each in again.transactions)
    ordinals = [ordinal for each in run.transactions + again.transactions for ordinal in each.ordinals]
    assert ordinals == list(range(30000))


def test_another_transaction_where_a_large_one_was_is_refused(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t SELECT generate_series(1, 9000)")
    run.take(has(4000))
    assert run.position is not None
    run.source.close()
    forged = run.encoded().replace('"checksum":', '"checksum":1')

    with pytest.raises(Fatal, match="not the one that was delivered"):
        make(database).open(forged, 1).take(has(1))


def test_a_transactional_message_in_a_resumed_transaction_loses_no_row(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database, messages=True))
    database.execute(
        "BEGIN; SELECT pg_logical_emit_message(true, 'p', 'one'); INSERT INTO t SELECT generate_series(1, 5000);"
        "SELECT pg_logical_emit_message(true, 'p', 'two'); INSERT INTO t SELECT generate_series(5001, 9000); COMMIT"
    )
    run.take(has(3999))
    run.source.close()
    again = make(database, messages=True).open(run.encoded(), 1)
    again.take(lambda run: bool(run.transactions) and run.transactions[-1].last)

    assert len(run.changes) + len(again.changes) == 9000
    messages = [item.content for item in run.items + again.items if isinstance(item, Message)]
    assert messages == [b"one", b"two"]


def test_a_message_of_no_transaction_is_delivered_once(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database, messages=True))
    database.execute("SELECT pg_logical_emit_message(false, 'p', 'alone')")
    database.execute("INSERT INTO t VALUES (1)")
    run.take(lambda run: any(isinstance(item, Message) for item in run.items), acknowledge=False)
    first = run.transactions[0].position.encode()
    run.source.close()

    again = make(database, messages=True).open(first, 1).take(has(1))

    assert not [item for item in again.items if isinstance(item, Message)]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX other"])
def test_a_value_out_of_line_that_did_not_change_is_unchanged_or_the_old_one(
    each_database: Database, make: Callable[..., Run], identity: str
) -> None:
    each_database.execute("CREATE TABLE t (id int PRIMARY KEY, code int NOT NULL, big text, small text)")
    each_database.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL; CREATE UNIQUE INDEX other ON t (code)")
    each_database.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    run = start(make(each_database))
    each_database.execute("INSERT INTO t VALUES (1, 7, repeat('x', 10000), 'a')")
    each_database.execute("UPDATE t SET small = 'b'")
    each_database.execute("UPDATE t SET code = 8")
    each_database.execute("DELETE FROM t")
    run.take(has(4))

    big = "x" * 10000
    full = identity == "FULL"
    keyed: tuple[Any, ...] = (UNCHANGED, 7) if "INDEX" in identity else (1, UNCHANGED)
    want = (1, 7, big, "a") if full else (*keyed, UNCHANGED, UNCHANGED)
    assert run.rows[1] == ("update", want, (1, 7, big if full else UNCHANGED, "b"))
    deleted: tuple[Any, ...] = (UNCHANGED, 8) if "INDEX" in identity else (1, UNCHANGED)
    assert run.rows[3][1] == ((1, 8, big, "b") if full else (*deleted, UNCHANGED, UNCHANGED))
    assert run.changes[0].table.key == (("code",) if "INDEX" in identity else ("id",))


def test_versions_follow_the_order_of_commits(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    with database.server.connect(database.name) as one, database.server.connect(database.name) as two:
        one.execute("BEGIN")
        one.execute("INSERT INTO t VALUES (1)")
        two.execute("BEGIN")
        two.execute("INSERT INTO t VALUES (2)")
        two.execute("COMMIT")
        one.execute("INSERT INTO t VALUES (3)")
        one.execute("COMMIT")
    run.take(has(3))

    assert [change.after for change in run.changes] == [(2,), (1,), (3,)]
    assert run.transactions[0].version < run.transactions[1].version


def test_a_truncate_of_several_tables_names_each(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a)")
    run = start(make(database))
    database.execute("TRUNCATE a, b")
    run.take(has(2))

    assert {(change.table.name, change.operation) for change in run.changes} == {
        ("a", Operation.TRUNCATE),
        ("b", Operation.TRUNCATE),
    }


@pytest.mark.parametrize(("partitions", "name"), [("root", "p"), ("leaf", "p1")])
def test_a_partitioned_table_comes_as_its_root_or_its_leaf(
    database: Database, make: Callable[..., Run], partitions: str, name: str
) -> None:
    database.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    run = start(make(database, partitions=partitions))
    database.execute("INSERT INTO p VALUES (1)")
    run.take(has(1))

    assert [(change.table.name, change.table.key, change.after) for change in run.changes] == [(name, ("id",), (1,))]


def test_a_new_column_is_a_schema_change_in_its_place(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    database.execute("ALTER TABLE t ADD name text NOT NULL DEFAULT 'd'")
    database.execute("INSERT INTO t VALUES (2, 'x')")
    run.take(has(2))

    kinds = [type(item) for item in run.items]
    assert kinds == [Change, SchemaChange, Change]
    change = run.items[1]
    assert isinstance(change, SchemaChange)
    assert change.old == run.changes[0].table
    assert change.new == run.changes[1].table
    assert [column.nullable for column in run.changes[1].table.columns] == [False, False]


def test_what_is_whole_before_a_fault_is_given_before_it_is_raised(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE SCHEMA other")
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    database.execute("INSERT INTO t VALUES (1)")
    database.execute("INSERT INTO t VALUES (2)")
    database.execute("ALTER TABLE t SET SCHEMA other")
    database.execute("INSERT INTO other.t VALUES (3)")
    ((end,),) = database.query("SELECT pg_current_wal_insert_lsn()::text")
    sent = (
        f"SELECT sent_lsn >= '{end}' FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid "
        "WHERE database = current_database()"
    )
    until = time.monotonic() + 20
    while database.query(sent) != [(True,)]:
        assert time.monotonic() < until
        time.sleep(0.05)

    with pytest.raises(Fatal, match=r"under its other name other\.t"):
        run.take(has(3))

    assert [change.after for change in run.changes] == [(1,), (2,)]


def test_column_lists_row_filters_and_generated_columns_are_the_publications(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int GENERATED ALWAYS AS (id * 2) STORED)")
    database.execute("CREATE PUBLICATION mine FOR TABLE t (id, a) WHERE (id > 1)")
    run = start(make(database, publication={"name": "mine", "mode": "existing"}))
    database.execute("INSERT INTO t VALUES (1, 'x', 'y'), (2, 'x', 'y')")
    run.take(has(1))

    assert run.rows == [("insert", None, (2, "x"))]


def test_an_idle_stream_moves_the_slot(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA far; CREATE TABLE far.noise (id int)")
    run = start(make(database))
    begun = run.position
    assert begun is not None
    database.execute("INSERT INTO far.noise SELECT generate_series(1, 1000)")
    run.take(lambda run: run.position is not None and run.position.lsn > begun.lsn + 50_000)

    assert run.items == []


def test_no_stored_position_though_the_slot_exists_is_refused(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    start(make(database)).source.close()

    with pytest.raises(Fatal, match="no position of pipeline"):
        make(database).open()


def test_a_slot_past_the_stored_position_is_refused_as_a_gap(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    position = run.encoded()
    database.execute("INSERT INTO t VALUES (1)")
    run.take(has(1))
    run.source.close()
    time.sleep(0.5)

    with pytest.raises(Fatal, match="past the pipeline's position"):
        make(database).open(position, 1)


def test_a_dropped_slot_is_refused(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = start(make(database))
    run.source.close()
    time.sleep(0.5)
    database.execute("SELECT pg_drop_replication_slot('cdcsync_p')")

    with pytest.raises(Fatal, match="does not exist"):
        make(database).open(run.encoded(), 1)
