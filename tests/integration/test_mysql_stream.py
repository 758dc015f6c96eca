"""The MySQL source against real servers: every trap of the stream by name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fix_mysql import drop_mysql_database, make_mysql_database
from fix_mysql_source import begun, has_changes

from cdcsync.change import Change, Operation, SchemaChange
from cdcsync.errors import Fatal, Transient
from cdcsync.mysql import gtid

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

    from cdcsync.testing.mysql_servers import MysqlServer

NUMBERS = "(SELECT 1 + a.i + b.i * 10 + c.i * 100 + d.i * 1000 + e.i * 10000 AS n FROM d a, d b, d c, d d, d e)"


def make_numbers(database: MysqlDatabase) -> None:
    """Make a table that `NUMBERS` counts with."""
    database.execute("CREATE TABLE d (i int PRIMARY KEY)")
    database.execute("INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")


def whole(run: MysqlRun) -> bool:
    """Return whether a transaction in parts has come to its end."""
    return bool(run.transactions) and run.transactions[-1].last and run.transactions[-1].part > 0


@pytest.mark.pure
def test_inserts_updates_and_deletes_arrive_in_commit_order(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    run = begun(read(database))

    database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    database.execute("UPDATE t SET name = NULL WHERE id = 1")
    database.execute("UPDATE t SET id = 3 WHERE id = 2")
    database.execute("DELETE FROM t WHERE id = 1")
    run.take(has_changes(5))

    assert run.rows == [
        ("insert", None, (1, "a")),
        ("insert", None, (2, "b")),
        ("update", (1, "a"), (1, None)),
        ("update", (2, "b"), (3, "b")),
        ("delete", (1, None), None),
    ]
    versions = [transaction.version for transaction in run.transactions]
    assert versions == sorted(set(versions))
    assert run.changes[0].table.key == ("id",)
    assert abs(run.transactions[0].commit_time_us / 1e6 - time.time()) < 30


@pytest.mark.pure
def test_a_huge_transaction_comes_in_parts_and_resumes_inside(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    make_numbers(database)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n <= 30000 ORDER BY n")
    run.take(has_changes(8000))
    got = len(run.changes)
    assert run.position is not None
    assert run.position.within is not None
    assert run.position.within.delivered == got
    run.source.close()

    again = read(database).open(run.encoded(), 1).take(whole)

    numbers = [change.after[0] for change in run.changes + again.changes if change.after]
    assert numbers == list(range(1, 30001))
    transactions = [each for each in run.transactions + again.transactions if each.items]
    assert len({each.version for each in transactions}) == 1
    assert all(each.part > 0 for each in again.transactions)
    assert [ordinal for each in transactions for ordinal in each.ordinals] == list(range(30000))


def test_a_restart_after_each_batch_misses_no_event_and_no_table_map(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    make_numbers(mysql_database)
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE no_u (id int PRIMARY KEY)")
    run = begun(read(mysql_database))
    position = run.encoded()
    run.source.close()
    with mysql_database.server.connect(mysql_database.name) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for first in range(0, 9000, 1500):
            cursor.execute(
                f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n > {first} AND n <= {first + 1500} ORDER BY n"
            )
            cursor.execute(f"INSERT INTO no_u SELECT n FROM {NUMBERS} x WHERE n > {first} AND n <= {first + 500}")
        cursor.execute("COMMIT")
    numbers: list[int] = []

    for _ in range(20):
        one = read(mysql_database).open(position, 1)
        one.take(lambda run: run.position is not None)
        numbers += [change.after[0] for change in one.changes if change.after]
        position = one.encoded()
        one.source.close()
        if len(numbers) == 9000:
            break

    assert numbers == list(range(1, 9001))


def test_another_transaction_where_a_large_one_was_is_refused(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    make_numbers(mysql_database)
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(mysql_database))
    mysql_database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n <= 9000")
    run.take(has_changes(4000))
    run.source.close()
    forged = run.encoded().replace('"checksum":', '"checksum":1')

    with pytest.raises(Fatal, match="not the one that was delivered"):
        read(mysql_database).open(forged, 1).take(has_changes(1))


def test_a_restart_in_the_next_file_loses_nothing_and_repeats_nothing(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    for number in range(6):
        database.execute(f"INSERT INTO t VALUES ({number}); FLUSH BINARY LOGS")
        run.take(has_changes(number + 1))
        run.source.close()
        run.open(run.encoded(), 1)
    database.execute("INSERT INTO t VALUES (6)")
    run.take(has_changes(7))

    assert [change.after for change in run.changes] == [(number,) for number in range(7)]
    versions = [each.version for each in run.transactions if each.items]
    assert versions == sorted(set(versions))


def test_a_restart_after_a_statement_loses_nothing(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(mysql_database))
    mysql_database.execute("INSERT INTO t VALUES (1)")
    mysql_database.execute("CREATE TABLE no_u (id int)")
    run.take(has_changes(1))
    run.source.close()
    mysql_database.execute("INSERT INTO t VALUES (2)")

    again = read(mysql_database).open(run.encoded(), 1).take(has_changes(1))

    assert [change.after for change in again.changes] == [(2,)]


def test_an_idle_log_moves_the_position_with_its_server(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE no_t (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute("INSERT INTO no_t VALUES (1); FLUSH BINARY LOGS")
    want = database.server.position()

    run.take(lambda run: run.position is not None and (run.position.file, run.position.offset) >= want)

    assert not run.items


def test_other_layouts_after_an_alter_while_down_are_read_as_they_were(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    run = begun(read(database))
    position = run.encoded()
    run.source.close()
    database.execute("INSERT INTO t VALUES (1, 'a')")
    database.execute("ALTER TABLE t DROP name, ADD first int FIRST")
    database.execute("INSERT INTO t VALUES (7, 2)")

    again = read(database).open(position, 1).take(has_changes(2))

    first, change, second = again.items
    assert isinstance(first, Change)
    assert isinstance(second, Change)
    assert isinstance(change, SchemaChange)
    assert (first.after, second.after) == ((1, "a"), (7, 2))
    assert (change.old, change.new) == (first.table, second.table)
    assert change.statement == "ALTER TABLE t DROP name, ADD first int FIRST"
    assert [column.name for column in second.table.columns] == ["first", "id"]


def test_a_truncate_is_one_change(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE no_u (id int)")
    run = begun(read(database))
    database.execute("INSERT INTO t VALUES (1); TRUNCATE no_u; TRUNCATE TABLE t; INSERT INTO t VALUES (2)")

    run.take(has_changes(3))

    assert [change.operation for change in run.changes] == [Operation.INSERT, Operation.TRUNCATE, Operation.INSERT]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER TABLE t RENAME TO no_v", r"t was renamed to test_\d+.no_v"),
        ("RENAME TABLE no_t TO u", r"no_t was renamed to test_\d+.u: its rows until then"),
        ("ALTER TABLE p TRUNCATE PARTITION p0", "TRUNCATE PARTITION changed rows of"),
        ("SET SESSION binlog_format = STATEMENT; INSERT INTO t VALUES (1)", "may change rows of .*t is logged as such"),
        ("SET SESSION binlog_format = STATEMENT; UPDATE no_t SET id = (SELECT max(id) FROM t)", "may change rows of"),
    ],
)
def test_what_changes_wanted_rows_without_logging_them_stops_with_its_place(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], statement: str, said: str
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE no_t (id int)")
    mysql_database.execute("CREATE TABLE p (id int) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (9))")
    run = begun(read(mysql_database))
    mysql_database.execute(statement)

    with pytest.raises(Fatal, match=said) as raised:
        run.take(has_changes(1))

    assert "at binlog.0" in str(raised.value)
    assert "(1)" not in str(raised.value)


def test_statements_on_other_tables_pass(mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE no_t (id int)")
    run = begun(read(mysql_database))
    mysql_database.execute("SET SESSION binlog_format = STATEMENT; INSERT INTO no_t VALUES (1); DROP TABLE no_t")
    mysql_database.execute("CREATE VIEW v AS SELECT * FROM t; GRANT SELECT ON t TO root@'%'; DROP VIEW v")
    mysql_database.execute("INSERT INTO t VALUES (1)")

    run.take(has_changes(1))

    assert [change.after for change in run.changes] == [(1,)]


@pytest.mark.pure
@pytest.mark.parametrize("build", ["mariadb10", "mariadb11"])
def test_times_whose_length_only_a_dropped_table_told_do_not_stop_other_tables(
    request: pytest.FixtureRequest, build: str, read: Callable[..., MysqlRun]
) -> None:
    database = make_mysql_database(request.getfixturevalue(build))
    other = make_mysql_database(database.server)
    other.server.execute("SET GLOBAL mysql56_temporal_format = OFF")
    try:
        other.execute("CREATE TABLE old (id int PRIMARY KEY, a time(6), b datetime(3))")
    finally:
        other.server.execute("SET GLOBAL mysql56_temporal_format = ON")
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    file, offset = database.server.position()
    database.execute(
        f"BEGIN; INSERT INTO t VALUES (1); INSERT INTO {other.name}.old VALUES (1, '1:02:03.4', '2026-01-02'), "
        "(2, NULL, NULL); INSERT INTO t VALUES (2); COMMIT"
    )
    drop_mysql_database(other)

    run = read(database, start={"file": file, "offset": offset}).open()
    run.take(has_changes(2))

    assert [change.after for change in run.changes] == [(1,), (2,)]
    drop_mysql_database(database)


def test_savepoints_take_back_what_they_must(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    """A temporary table makes MariaDB log what is rolled back; elsewhere the server leaves it out."""
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE tt (i int)")
        for end in ("ROLLBACK", "COMMIT"):
            for statement in (
                "BEGIN", "INSERT INTO tt VALUES (1)", "INSERT INTO t VALUES (1)", "SAVEPOINT a",
                "INSERT INTO t VALUES (2)", "SAVEPOINT `B`", "INSERT INTO t VALUES (3)", "ROLLBACK TO b",
                "INSERT INTO t VALUES (4)", "ROLLBACK TO SAVEPOINT a", "INSERT INTO t VALUES (5)", end, "DELETE FROM tt",
            ):  # fmt: skip
                cursor.execute(statement)
        cursor.execute("INSERT INTO t VALUES (6)")
    run.take(has_changes(3))

    assert [change.after for change in run.changes] == [(1,), (5,), (6,)]


def test_a_server_that_hangs_is_found_deaf(mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(mysql_database, heartbeat="200ms", silence_max="1s"))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        run.turn()

    mysql_database.server.pause()
    try:
        with pytest.raises(Transient, match="was silent for"):
            run.take(has_changes(1))
    finally:
        mysql_database.server.resume()


def test_an_event_of_more_than_one_packet_is_joined(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, big longblob)")
    mysql_database.execute("SET GLOBAL max_allowed_packet = 67108864")
    run = begun(read(mysql_database))
    mysql_database.execute("INSERT INTO t VALUES (1, repeat('x', 40000000)), (2, 'y')")
    mysql_database.execute(f"INSERT INTO t VALUES (3, repeat('z', {(1 << 24) - 1}))")

    run.take(has_changes(3))

    sizes = [len(change.after[1]) for change in run.changes if change.after]
    assert sizes == [40000000, 1, (1 << 24) - 1]


def test_a_group_that_is_begun_in_the_middle_is_refused(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(mysql_database))
    assert run.position is not None
    offset = run.position.offset
    mysql_database.execute("INSERT INTO t VALUES (1)")
    events = mysql_database.query(f"SHOW BINLOG EVENTS IN '{run.position.file}' FROM {offset}")
    forged = run.encoded().replace(f'"offset":{offset}', f'"offset":{events[1][1]}')

    with pytest.raises(Fatal, match="belongs to no transaction"):
        read(mysql_database).open(forged, 1).take(has_changes(1))


def test_over_tls_every_record_arrives(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    database = each_mysql_database
    make_numbers(database)
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name varchar(200))")
    run = begun(read(database, tls={"mode": "verify-full", "ca": str(database.server.authority)}))
    database.execute(f"INSERT INTO t SELECT n, repeat('x', 200) FROM {NUMBERS} x WHERE n <= 10000")

    run.take(has_changes(10000))

    assert len(run.changes) == 10000


def test_a_reader_that_is_slower_than_the_servers_patience_is_not_thrown_out(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    server = mysql_database.server
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, big longtext)")
    server.execute("SET GLOBAL net_write_timeout = 1")
    try:
        run = begun(read(mysql_database))
        for _ in range(30):
            mysql_database.execute("INSERT INTO t (big) VALUES (repeat('x', 1000000))")
        time.sleep(4)

        run.take(has_changes(30))
    finally:
        server.execute("SET GLOBAL net_write_timeout = 60")

    assert [change.after[0] for change in run.changes if change.after] == list(range(1, 31))


def test_a_place_that_the_protocol_has_no_room_for_is_read_up_to(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets past 4 GB; here the room is made smaller."""
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY); FLUSH BINARY LOGS; INSERT INTO t VALUES (1)")
    run = begun(read(database))
    run.source.close()
    database.execute("INSERT INTO t VALUES (2)")
    monkeypatch.setattr("cdcsync.mysql.source.OFFSET_MAX", 10)
    position = run.encoded()
    monkeypatch.setattr("cdcsync.mysql.stream.OFFSET_MAX", 10)

    again = read(database).open(position, 1).take(has_changes(1))

    assert [change.after for change in again.changes] == [(2,)]


def test_numbers_of_a_sequence_are_no_rows(mariadb11: MysqlServer, read: Callable[..., MysqlRun]) -> None:
    database = make_mysql_database(mariadb11)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    database.execute("CREATE SEQUENCE s; INSERT INTO t VALUES (NEXTVAL(s)), (NEXTVAL(s)); SELECT NEXTVAL(s)")
    database.execute("INSERT INTO t VALUES (3)")

    run.take(has_changes(3))

    assert [change.after for change in run.changes] == [(1,), (2,), (3,)]
    drop_mysql_database(database)


def test_a_server_that_crashes_and_comes_back_is_read_on(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    for number in range(0, 30, 3):
        database.execute(f"INSERT INTO t VALUES ({number}), ({number + 1}); INSERT INTO t VALUES ({number + 2})")
    run.take(has_changes(10))
    database.server.kill()
    with pytest.raises(Transient):
        run.take(has_changes(31))
    got = len(run.changes)
    position = run.encoded()
    database.server.start()
    database.execute("INSERT INTO t VALUES (30)")

    again = read(database).open(position, 1).take(has_changes(31 - got))

    assert [change.after for change in run.changes + again.changes] == [(number,) for number in range(31)]


def test_the_position_has_the_servers_own_gtids_of_every_domain(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(database))
    other = "SET gtid_domain_id = 5; " if database.server.build.name.startswith("mariadb") else ""
    database.execute(f"INSERT INTO t VALUES (1); {other}INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)")

    run.take(has_changes(3))

    assert run.position is not None
    assert run.position.gtids == gtid.parse(database.server.logged().replace("\n", ""))


def test_what_was_committed_before_a_fault_is_delivered_before_it(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    """Else going on behind the fault would lose it."""
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    run = begun(read(mysql_database))
    run.source.close()
    mysql_database.execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); RENAME TABLE t TO no_t")
    again = read(mysql_database).open(run.encoded(), 1)

    for _ in range(2):
        with pytest.raises(Fatal, match="t was renamed"):
            again.take(has_changes(3))

    assert [change.after for change in again.changes] == [(1,), (2,)]
