"""Rows read beside the binlog of real servers: what is visible, where it goes on, every kind of key, and every value."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database

from cdcsync.change import Change, CopyStart, Operation
from cdcsync.errors import Finished, Transient
from cdcsync.snapshot import Chunk
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql_source import MysqlRun

DIGITS = "(SELECT 0 i UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
NUMBERS = (
    f"(SELECT 1 + a.i + b.i * 10 + c.i * 100 + d.i * 1000 AS n FROM {DIGITS} a, {DIGITS} b, {DIGITS} c, {DIGITS} d)"
)


def state(run: MysqlRun, table: str, key: int = 1) -> dict[Any, tuple[Any, ...]]:
    """Return what a target would have of a table; `key` columns are its key."""
    rows: dict[Any, tuple[Any, ...]] = {}
    for change in run.changes:
        if change.table.name != table:
            continue
        if change.operation is Operation.TRUNCATE:
            rows.clear()
        if change.before is not None:
            rows.pop(change.before[:key], None)
        if change.after is not None:
            rows[change.after[:key]] = change.after
    return rows


def were_read(run: MysqlRun, table: str = "t") -> list[Change]:
    """Return the rows of a table that were read, not logged."""
    return [each for each in run.changes if each.operation is Operation.READ and each.table.name == table]


def copied(run: MysqlRun) -> bool:
    return run.position is not None and run.position.is_copied


def test_the_first_copy_then_the_log_holds_every_row(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    database.execute(f"INSERT INTO t SELECT n, CONCAT('x', n) FROM {NUMBERS} x WHERE n <= 9000")
    run = read(database, start="initial").open()

    database.execute("INSERT INTO t VALUES (0, 'during')")
    database.execute("UPDATE t SET id = 20000 WHERE id = 5; DELETE FROM t WHERE id = 8999")
    run.take(lambda run: copied(run) and (20000,) in state(run, "t") and (8999,) not in state(run, "t"))

    assert isinstance(run.items[0], CopyStart)
    assert sorted(state(run, "t").values()) == sorted(database.query("SELECT id, name FROM t"))


def test_an_interrupted_copy_goes_on_at_its_chunk(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x")
    first = read(database, start="initial").open().take(lambda run: len(were_read(run)) >= 2000)
    first.source.close()
    assert first.position is not None
    assert not first.position.is_copied

    again = read(database, start="initial").open(first.encoded(), 1).take(copied)

    ids = [change.after[0] for change in were_read(first) + were_read(again) if change.after]
    assert ids == list(range(1, 10001))


KEYS = {
    "composite": ("a int, b varchar(20), v int, PRIMARY KEY (b, a)", "n % 7, CONCAT('k', n DIV 7), n"),
    "unsigned": ("a bigint unsigned PRIMARY KEY, v int", "18446744073709551615 - n, n"),
    "negative": ("a bigint PRIMARY KEY, v int", "CAST(n AS SIGNED) * 1000003 - 5000000000, n"),
    "text": ("a varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v int", "CONCAT(IF(n % 2, 'a%', 'B'), n), n"),
    "latin": ("a varchar(20) CHARACTER SET latin1 PRIMARY KEY, v int", "CONCAT('é', n), n"),
    "binary": ("a binary(16) PRIMARY KEY, v int", "UNHEX(MD5(n)), n"),
    "decimal": ("a decimal(30, 10) PRIMARY KEY, v int", "12345678901234567890.0000000001 + n / 1000, n"),
    "double": ("a double PRIMARY KEY, v int", "n / 7e0, n"),
    "date": ("a date, b tinyint, v int, PRIMARY KEY (a, b)", "DATE('2020-01-01') + INTERVAL (n DIV 2) DAY, n % 2, n"),
    "timestamp": ("a timestamp(3) PRIMARY KEY, v int", "TIMESTAMP('2020-01-01') + INTERVAL n * 1001000 MICROSECOND, n"),
    "enum": ("a enum('z', 'm', 'a'), b int, v int, PRIMARY KEY (a, b)", "1 + n % 3, n, n"),
    "skewed": ("a int, b int, v int, PRIMARY KEY (a, b)", "n DIV 2500, n, n"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_table_is_read_whole_by_any_primary_key(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], kind: str
) -> None:
    columns, values = KEYS[kind]
    each_mysql_database.execute(f"CREATE TABLE t ({columns}) CHARACTER SET utf8mb4")
    each_mysql_database.execute(f"INSERT INTO t SELECT {values} FROM {NUMBERS} x WHERE n <= 6000")

    run = read(each_mysql_database, start="initial").open().take(copied)

    assert sorted(change.after[-1] for change in were_read(run) if change.after) == list(range(1, 6001))
    assert len([each for each in run.transactions if each.id.startswith("read")]) >= 2


def test_values_that_were_read_are_those_of_the_log(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a float, b decimal(20, 6), c datetime(6), d timestamp(3), e time(2), f year,"
        " g enum('x', 'y'), h set('p', 'q', 'r'), i bit(11), j json, k varbinary(20), l text CHARACTER SET latin1,"
        " m bigint unsigned, n binary(5), o date, p double, q tinyint(1)) CHARACTER SET utf8mb4"
    )
    database.execute(
        "INSERT INTO t VALUES (1, 0.1, 1234.5, '2020-02-03 04:05:06.789012', '2021-02-03 04:05:06.789', '-100:20:30.4', 1999,"
        " 'y', 'p,r', b'10110', '{\"b\": [1, 2.50, null], \"a\": \"é\"}', x'00ff00', 'é', 18446744073709551615, x'6100',"
        " '1000-01-01', 1e-7, 1), (2, NULL, NULL, NULL, '2021-02-03', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,"
        " NULL, NULL, NULL, NULL)"
    )
    run = read(database, start="initial").open().take(copied)
    before = [(change.table, change.after) for change in were_read(run)]

    database.execute("CREATE TABLE no_t LIKE t; INSERT INTO no_t SELECT * FROM t; DELETE FROM t")
    database.execute("INSERT INTO t SELECT * FROM no_t")
    run.take(lambda run: sum(1 for each in run.changes if each.operation is Operation.INSERT) == 2)

    after = [(change.table, change.after) for change in run.changes if change.operation is Operation.INSERT]
    assert len(before) == 2
    assert after == before


def test_rows_and_order_are_as_configured(mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    name = mysql_database.name
    mysql_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v varchar(9)); CREATE TABLE b (id int PRIMARY KEY);"
        "INSERT INTO a VALUES (1, 'x%y'), (2, 'z'), (3, 'x%'); INSERT INTO b VALUES (1)"
    )

    options = {"snapshot_parallel": 1, "snapshot_order": (f"{name}.b",), "snapshot_where": {f"{name}.a": "v LIKE 'x%'"}}
    run = read(mysql_database, start="initial", **options).open().take(copied)

    assert [(change.table.name, change.after[0]) for change in run.changes if change.after] == [
        ("b", 1),
        ("a", 1),
        ("a", 3),
    ]


def test_a_copy_that_nothing_follows_ends(each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]) -> None:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    run = read(each_mysql_database, start="initial_only").open()

    with pytest.raises(Finished):
        run.take(lambda _run: False)

    assert sorted(state(run, "t")) == [(1,), (2,)]
    with pytest.raises(Finished):
        read(each_mysql_database, start="initial_only").open(run.encoded(), 1)


def test_a_table_altered_while_it_is_copied_is_planned_anew(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    database.execute(f"INSERT INTO t SELECT n, n FROM {NUMBERS} x")
    run = read(database, start="initial", rows_per_s_max=2000).open().take(lambda run: len(were_read(run)) >= 1000)
    database.execute("ALTER TABLE t DROP COLUMN v")

    with pytest.raises(Transient, match="altered while it was copied"):
        run.take(copied)
    run.source.close()
    again = read(database, start="initial").open(run.encoded(), 1).take(copied)

    ids = [change.after[0] for change in were_read(run) + were_read(again) if change.after]
    assert sorted(set(ids)) == list(range(1, 10001))


@pytest.fixture
def waiting() -> Iterator[MysqlDatabase]:
    """A MariaDB whose commits wait for a replica that does not exist, once that is switched on."""
    server = MysqlServer("mariadb10").start()
    made = make_mysql_database(server)
    yield made
    semi_sync(made, on=False)
    drop_mysql_database(made)
    server.stop()


def semi_sync(database: MysqlDatabase, *, on: bool) -> None:
    """Let commits wait, after they are in the log and before they are visible."""
    database.server.execute("SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'")
    database.server.execute("SET GLOBAL rpl_semi_sync_master_timeout = 600000")
    database.server.execute(f"SET GLOBAL rpl_semi_sync_master_enabled = {int(on)}")


class Hanging:
    """A session whose commit is in the log, and not visible until its replica answers."""

    def __init__(self, database: MysqlDatabase, statement: str) -> None:
        self._thread = threading.Thread(target=database.execute, args=(statement,))
        self._thread.start()

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


TWO = """
CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT n FROM {numbers} x WHERE n <= 4000;
CREATE TABLE b (id int PRIMARY KEY, v varchar(9)); INSERT INTO b VALUES (1, 'old'), (2, 'old'), (3, 'old')
"""


def hung(database: MysqlDatabase, run: MysqlRun) -> Hanging:
    """Let a commit hang in the log while the first table is copied; return when the source has given it."""
    semi_sync(database, on=True)
    session = Hanging(database, "UPDATE b SET v = 'new' WHERE id = 2")
    run.take(lambda run: state(run, "b").get((2,)) == (2, "new"))
    assert database.query("SELECT v FROM b WHERE id = 2") == [("old",)]
    return session


def slow(waiting: MysqlDatabase, read: Callable[..., MysqlRun]) -> MysqlRun:
    """Begin a copy whose second table comes late."""
    waiting.execute(TWO.format(numbers=NUMBERS))
    run = read(waiting, start="initial", snapshot_parallel=1, rows_per_s_max=1000)
    return run.open().take(lambda run: len(were_read(run, "a")) >= 2000)


def test_a_row_that_the_log_changed_before_it_is_visible_is_not_overwritten(
    waiting: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    run = slow(waiting, read)
    session = hung(waiting, run)

    run.take(lambda run: "not visible" in str(run.source.figures().get("held_by")))
    assert re.search(r"session \d+ \(root\), Waiting for semi-sync ACK", str(run.source.figures()["held_by"]))
    assert were_read(run, "b") == []
    semi_sync(waiting, on=False)
    session.end()
    run.take(copied)

    assert sorted(state(run, "b").values()) == [(1, "old"), (2, "new"), (3, "old")]


def test_the_old_row_wins_without_the_rule_of_visibility(
    waiting: MysqlDatabase, read: Callable[..., MysqlRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe itself is proved: our own code without the rule fails it."""
    monkeypatch.setattr(Chunk, "unseen_by", lambda _chunk, _view: [])
    run = slow(waiting, read)
    session = hung(waiting, run)
    run.take(copied)
    semi_sync(waiting, on=False)
    session.end()

    assert state(run, "b")[2,] == (2, "old")


def test_without_gtids_a_view_is_placed_by_the_servers_own_word(
    request: pytest.FixtureRequest, read: Callable[..., MysqlRun]
) -> None:
    server = MysqlServer("mysql8", settings={"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"}).start()
    request.addfinalizer(server.stop)
    database = make_mysql_database(server)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x")
    run = read(database, start="initial").open()
    for number in range(20000, 20010):
        database.execute("INSERT INTO t VALUES (%s)", [number])
        time.sleep(0.02)

    run.take(lambda run: copied(run) and (20009,) in state(run, "t"))

    assert sorted(state(run, "t")) == sorted(database.query("SELECT id FROM t"))
    run.source.close()


def test_the_oldest_server_is_copied_too(
    mysql57: MysqlServer, request: pytest.FixtureRequest, read: Callable[..., MysqlRun]
) -> None:
    database = make_mysql_database(mysql57)
    request.addfinalizer(lambda: drop_mysql_database(database))
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    run = read(database, start="initial").open().take(copied)

    assert sorted(state(run, "t")) == [(1,)]
    run.source.close()
