"""The first copy where no primary key tells rows apart, where the log was lost, and where views are hard to place."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import pytest
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_mysql_log import purge, rotate
from fix_mysql_source import MysqlRun, Tables
from integration.test_mysql_snapshot import NUMBERS, copied, state, were_read

from cdcsync.change import CopyStart, Operation
from cdcsync.errors import ExitStatus, Fatal, Finished, Transient
from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.ports import SourceContext, Wanted
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdcsync.change import Row


class Appended(Tables):
    """Wants tables whose names begin with `log` as rows to append."""

    def wants(self, schema: str, name: str) -> Wanted | None:
        wanted = super().wants(schema, name)
        return Wanted.APPENDED if wanted is not None and name.startswith("log") else wanted


@pytest.fixture
def append(tmp_path: Path) -> Iterator[Callable[..., MysqlRun]]:
    """Makes sources of such tables, which end with the test."""
    made: list[MysqlRun] = []

    def run(database: MysqlDatabase, **options: Any) -> MysqlRun:
        given = {**from_url(database.server.url()), "start": "initial", "heartbeat": 1, **options}
        config = MysqlSource.model_validate(given)
        made.append(MysqlRun(MysqlBinlog(config, SourceContext("p", Appended(database.name), tmp_path))))
        return made[-1]

    yield run
    for each in made:
        each.source.close()


class Traffic:
    """Writes statements into a database, each with the next number, until it is left."""

    def __init__(self, database: MysqlDatabase, *statements: str) -> None:
        self._database = database
        self._statements = statements
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()
        self._thread.join(20)

    def _write(self) -> None:
        with self._database.server.connect(self._database.name) as connection, connection.cursor() as cursor:
            while not self._ends.wait(0.002):
                self.count += 1
                for statement in self._statements:
                    cursor.execute(statement.format(n=100_000 + self.count))
                    connection.commit()


def lines(run: MysqlRun, table: str = "log") -> Counter[Row | None]:
    """Return the rows that were appended to a table."""
    return Counter(change.after for change in run.changes if change.table.name == table)


def test_rows_without_a_key_come_once_though_others_are_written_all_the_time(
    each_mysql_database: MysqlDatabase, append: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE log (n int, v varchar(20)); CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"INSERT INTO log SELECT n % 100, 'old' FROM {NUMBERS} x WHERE n <= 5000")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n <= 500")
    run = append(database)
    with Traffic(database, "INSERT INTO log VALUES ({n}, 'new'), (1, 'same')", "INSERT INTO t VALUES ({n})") as traffic:
        run.open().take(lambda run: copied(run) and traffic.count >= 200, within_s=60)
    want = Counter(database.query("SELECT n, v FROM log"))

    ids = sorted(database.query("SELECT id FROM t"))
    run.take(lambda run: lines(run).total() >= want.total() and sorted(state(run, "t")) == ids)

    assert lines(run) == want
    assert [item.again for item in run.items if isinstance(item, CopyStart)] == [False, False]
    assert sum(1 for each in were_read(run, "log")) >= 5000


def test_a_copy_of_rows_without_a_key_that_is_cut_short_begins_anew(
    each_mysql_database: MysqlDatabase, append: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE log (n int)")
    database.execute(f"INSERT INTO log SELECT n FROM {NUMBERS} x")
    first = append(database).open().take(lambda run: len(were_read(run, "log")) >= 4000)
    first.source.close()
    assert first.position is not None
    assert first.position.copying
    database.execute("INSERT INTO log VALUES (-1)")

    again = append(database).open(first.encoded(), 1).take(lambda run: lines(run).total() >= 10001 and copied(run))

    assert lines(again) == Counter(database.query("SELECT n FROM log"))
    assert [item.again for item in again.items if isinstance(item, CopyStart)] == [True]
    assert again.position is not None
    assert again.position.covers(first.position)
    assert not first.position.covers(again.position)


def test_a_copy_of_rows_without_a_key_that_nothing_follows_ends(
    mysql_database: MysqlDatabase, append: Callable[..., MysqlRun]
) -> None:
    mysql_database.execute("CREATE TABLE log (n int); INSERT INTO log VALUES (1), (1)")
    run = append(mysql_database, start="initial_only").open()

    with pytest.raises(Finished):
        run.take(lambda _run: False)

    assert lines(run) == Counter({(1,): 2})


def test_a_table_with_a_unique_index_and_no_primary_key_is_read_in_chunks_under_traffic(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (v int, a int NOT NULL, b varchar(9) NOT NULL, UNIQUE (b, a), UNIQUE (v))")
    database.execute(f"INSERT INTO t SELECT NULL, n, n % 7 FROM {NUMBERS} x")
    run = read(database, start="initial")
    with Traffic(
        database,
        "UPDATE t SET v = {n} WHERE a = {n} % 9973",
        "DELETE FROM t WHERE a = {n} % 9001",
        "UPDATE t SET a = {n} WHERE a = {n} % 9311",
        "INSERT INTO t VALUES (NULL, -{n}, 'x')",
    ):
        run.open().take(copied, within_s=60)
    want = {row[1:]: row for row in database.query("SELECT v, a, b FROM t")}

    def held() -> dict[Any, Any]:
        rows: dict[Any, Any] = {}
        for change in run.changes:
            if change.before is not None:
                rows.pop(change.before[1:], None)
            if change.after is not None:
                rows[change.after[1:]] = change.after
        return rows

    run.take(lambda _run: held() == want)
    assert len([each for each in run.transactions if each.id.startswith("read")]) >= 2


def test_keys_that_differ_in_case_alone_move_while_they_are_copied(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    """The server's order of keys holds texts equal that differ: no row may fall between two chunks."""
    database = each_mysql_database
    database.execute("CREATE TABLE t (k varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v int) CHARSET utf8mb4")
    database.execute(f"INSERT INTO t SELECT CONCAT('key', n), 0 FROM {NUMBERS} x")
    run = read(database, start="initial", rows_per_s_max=8000)
    with Traffic(database, "UPDATE t SET k = UPPER(k), v = v + 1 WHERE k = CONCAT('key', {n} % 10000)"):
        run.open().take(copied, within_s=60)
    want = dict(database.query("SELECT k, v FROM t"))

    run.take(lambda run: dict(state(run, "t").values()) == want)


@pytest.fixture
def lost(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    """A database whose server's log is the test's own."""
    server = MysqlServer("mariadb11").start()
    yield make_mysql_database(server)
    server.stop()


def test_where_the_log_was_lost_everything_is_copied_again_if_so_configured(
    lost: MysqlDatabase, append: Callable[..., MysqlRun]
) -> None:
    lost.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2); CREATE TABLE log (n int)")
    run = append(lost).open().take(copied)
    run.source.close()
    lost.execute("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1; INSERT INTO log VALUES (5)")
    rotate(lost.server)
    lost.execute("INSERT INTO t VALUES (4)")
    rotate(lost.server)
    purge(lost.server, lost.server.binlogs()[-1])

    with pytest.raises(Fatal, match="purged"):
        append(lost).open(run.encoded(), 1)
    again = append(lost, on_lost_position="snapshot").open(run.encoded(), 1).take(copied)

    assert [item.again for item in again.items if isinstance(item, CopyStart)] == [True, True]
    assert sorted(state(again, "t")) == [(2,), (3,), (4,)]
    assert lines(again) == Counter({(5,): 1})
    assert again.position is not None
    assert again.position.epoch == 2


@pytest.fixture
def unnumbered(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    """A database on a server without GTIDs; MySQL 5.7 has no log_status either."""
    server = MysqlServer(request.param, settings={"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"}).start()
    made = make_mysql_database(server)
    yield made
    drop_mysql_database(made)
    server.stop()


GRANTS = "REPLICATION SLAVE, REPLICATION CLIENT, SELECT"


def user(database: MysqlDatabase, rights: str) -> dict[str, Any]:
    """Make a user with these rights; return what a section says of it."""
    plugin = "IDENTIFIED WITH mysql_native_password BY 'secret'"
    database.execute(f"CREATE USER IF NOT EXISTS reader@'%' {plugin}; GRANT {rights} ON *.* TO reader@'%'")
    return {"user": "reader", "password": "secret"}


@pytest.mark.parametrize(
    ("unnumbered", "right", "words"),
    [("mysql57", "RELOAD", "FLUSH TABLES WITH READ LOCK"), ("mysql8", "BACKUP_ADMIN", "log_status")],
    indirect=["unnumbered"],
)
def test_without_gtids_a_view_is_placed_where_the_right_is_there_and_else_refused_by_its_name(
    unnumbered: MysqlDatabase, append: Callable[..., MysqlRun], right: str, words: str
) -> None:
    database = unnumbered
    database.execute("CREATE TABLE log (n int); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO log VALUES (0), (0)")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n <= 3000")

    with pytest.raises(Fatal, match=words) as refused:
        append(database, **user(database, GRANTS)).open().take(copied)
    assert refused.value.status is ExitStatus.PERMISSION
    assert f"GRANT {right} ON *.* TO 'reader'@'%'" in refused.value.hint

    run = append(database, **user(database, f"{GRANTS}, {right}"))
    with Traffic(database, "INSERT INTO log VALUES ({n})", "INSERT INTO t VALUES ({n})") as traffic:
        run.open().take(lambda run: copied(run) and traffic.count >= 50, within_s=60)
    want = Counter(database.query("SELECT n FROM log"))
    ids = sorted(database.query("SELECT id FROM t"))
    run.take(lambda run: lines(run).total() >= want.total() and sorted(state(run, "t")) == ids)

    assert lines(run) == want
    assert [change for change in run.changes if change.operation is Operation.UPDATE] == []
    run.source.close()


def test_a_chunk_that_takes_too_long_is_read_in_smaller_ones(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x WHERE n <= 300")
    slow = {f"{database.name}.t": "id + SLEEP(0.003) > 0"}

    run = read(database, start="initial", snapshot_timeout=0.5, snapshot_where=slow).open()
    again: list[int] = []
    while not copied(run):
        run.turn()
        again.append(int(run.source.figures().get("chunks_again", 0)))

    assert max(again) >= 2
    assert sorted(state(run, "t")) == [(n,) for n in range(1, 301)]


def test_a_key_that_changes_in_mid_copy_begins_the_table_anew(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL)")
    database.execute(f"INSERT INTO t SELECT n, 20000 - n FROM {NUMBERS} x")
    run = read(database, start="initial", rows_per_s_max=2000).open().take(lambda run: len(were_read(run)) >= 1000)
    database.execute("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (b)")

    with pytest.raises(Transient, match="altered while it was copied"):
        run.take(copied)
    run.source.close()
    again = read(database, start="initial").open(run.encoded(), 1).take(copied)

    assert sorted(change.after for change in were_read(again) if change.after) == sorted(
        database.query("SELECT a, b FROM t")
    )


def test_a_right_that_is_lost_in_mid_copy_is_named_and_the_copy_goes_on_with_it(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"INSERT INTO t SELECT n FROM {NUMBERS} x")
    who = user(database, "REPLICATION SLAVE, REPLICATION CLIENT")
    database.execute(f"GRANT SELECT ON {database.name}.* TO reader@'%'")
    options = {"start": "initial", **who}
    run = read(database, rows_per_s_max=2000, **options).open().take(lambda run: len(were_read(run)) >= 1000)
    run.source.close()
    database.execute(f"REVOKE SELECT ON {database.name}.* FROM reader@'%'")

    with pytest.raises(Fatal, match="a right was lost") as refused:
        read(database, **options).open(run.encoded(), 1)
    database.execute(f"GRANT SELECT ON {database.name}.* TO reader@'%'")
    again = read(database, **options).open(run.encoded(), 1).take(copied)
    database.execute("DROP USER reader@'%'")

    assert refused.value.status is ExitStatus.PERMISSION
    ids = [change.after[0] for change in were_read(run) + were_read(again) if change.after]
    assert ids == list(range(1, 10001))
