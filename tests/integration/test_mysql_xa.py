"""XA transactions: their rows are those of the commit, and of nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from fix_mysql_source import begun, has_changes

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun


class Branch:
    """A session that works on XA transactions."""

    def __init__(self, database: MysqlDatabase) -> None:
        self.database = database
        self._connection = database.server.connect(database.name)
        self.prepared: list[str] = []

    def run(self, *statements: str) -> None:
        with self._connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def prepare(self, name: str, *statements: str) -> None:
        self.run(f"XA START '{name}','b'", *statements, f"XA END '{name}','b'", f"XA PREPARE '{name}','b'")
        self.prepared.append(name)
        self.close()

    def end(self, name: str, word: str) -> None:
        """Commit or roll back from a session of its own, as a coordinator does that was restarted."""
        self.database.execute(f"XA {word} '{name}','b'")
        self.prepared.remove(name)

    def close(self) -> None:
        self._connection.close()
        self._connection = self.database.server.connect(self.database.name)


@pytest.fixture
def branch(each_mysql_database: MysqlDatabase) -> Iterator[Branch]:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE no_u (id int PRIMARY KEY)")
    made = Branch(each_mysql_database)
    yield made
    for name in list(made.prepared):
        made.end(name, "ROLLBACK")
    made.close()


def afters(run: MysqlRun) -> list[Any]:
    return [change.after for change in run.changes]


@pytest.mark.pure
def test_rows_of_a_prepared_transaction_come_with_its_commit(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    branch.prepare("a", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    branch.database.execute("INSERT INTO t VALUES (3)")
    run.take(has_changes(1))
    assert afters(run) == [(3,)]
    assert run.position is not None
    assert [each.xid for each in run.position.prepared] == ["X'61',X'62',1"]

    branch.end("a", "COMMIT")
    run.take(has_changes(3))

    assert afters(run) == [(3,), (1,), (2,)]
    assert run.position.prepared == ()
    versions = [each.version for each in run.transactions]
    assert versions == sorted(set(versions))


def test_rows_of_a_transaction_that_is_rolled_back_are_forgotten(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    branch.prepare("a", "INSERT INTO t VALUES (1)")
    branch.end("a", "ROLLBACK")
    branch.database.execute("INSERT INTO t VALUES (2)")

    run.take(has_changes(1))

    assert afters(run) == [(2,)]
    assert run.position is not None
    assert run.position.prepared == ()


def test_a_prepared_transaction_outlives_restarts(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    branch.prepare("a", "INSERT INTO t VALUES (1)")
    branch.prepare("c", "INSERT INTO t VALUES (4)")
    branch.database.execute("INSERT INTO t VALUES (2); FLUSH BINARY LOGS")
    run.take(has_changes(1))
    run.source.close()
    branch.end("a", "COMMIT")
    branch.end("c", "ROLLBACK")

    again = read(branch.database).open(run.encoded(), 1).take(has_changes(1))

    assert afters(again) == [(1,)]


def test_a_large_one_comes_in_parts_and_resumes_inside(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    values = [f"({number})" for number in range(9000)]
    inserts = [f"INSERT INTO t VALUES {','.join(values[at : at + 1500])}" for at in range(0, 9000, 1500)]
    branch.prepare("a", *inserts, "INSERT INTO no_u VALUES (1)")
    branch.end("a", "COMMIT")
    branch.database.execute("INSERT INTO t VALUES (9000)")
    run.take(has_changes(4000))
    assert run.position is not None
    assert run.position.within is not None
    run.source.close()

    again = read(branch.database).open(run.encoded(), 1)
    again.take(lambda both: len(both.changes) + len(run.changes) >= 9001)

    assert afters(run) + afters(again) == [(number,) for number in range(9001)]


def test_a_commit_in_one_phase_is_a_commit(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    branch.run("XA START 'o'", "INSERT INTO t VALUES (1)", "XA END 'o'", "XA COMMIT 'o' ONE PHASE")

    run.take(has_changes(1))

    assert afters(run) == [(1,)]


def test_one_that_was_prepared_before_the_pipeline_began_is_found(
    branch: Branch, read: Callable[..., MysqlRun]
) -> None:
    branch.prepare("a", "INSERT INTO t VALUES (1)")
    branch.database.execute("FLUSH BINARY LOGS; INSERT INTO no_u VALUES (1)")
    run = begun(read(branch.database))
    branch.end("a", "COMMIT")

    run.take(has_changes(1))

    assert afters(run) == [(1,)]


def test_one_whose_rows_were_purged_stops(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    branch.prepare("a", "INSERT INTO t VALUES (1)")
    server = branch.database.server
    last = server.binlogs()[-1]
    branch.database.execute("FLUSH BINARY LOGS; INSERT INTO no_u VALUES (7); FLUSH BINARY LOGS")
    run = begun(read(branch.database))
    until = time.monotonic() + 20
    while last in server.binlogs():
        assert time.monotonic() < until, "the server keeps its log"
        server.execute(f"PURGE BINARY LOGS TO '{server.binlogs()[-1]}'")
    branch.end("a", "COMMIT")

    with pytest.raises(Fatal, match="the rows of the XA transaction X'61',X'62',1 cannot be read"):
        run.take(has_changes(1))


def test_one_that_changed_nothing_is_nothing(branch: Branch, read: Callable[..., MysqlRun]) -> None:
    run = begun(read(branch.database))
    branch.run("XA START 'e'", "XA END 'e'", "XA PREPARE 'e'", "XA COMMIT 'e'")
    branch.database.execute("INSERT INTO t VALUES (2)")

    run.take(has_changes(1))

    assert afters(run) == [(2,)]
