"""The package as a library: the examples of the README, run as they stand against a real server."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from contextlib import closing, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cdcsync

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

    from cdcsync.change import Batch

README = Path(__file__).parents[2] / "README.md"
ORDERS = "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders VALUES (1, 'first')"
WAIT_S = 20


def example(opening: str, database: Database) -> str:
    """Return the README's example that begins so, its address and user replaced by the test's."""
    found = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if opening in code]
    assert len(found) == 1
    server = database.server
    ours = {
        '"postgres://cdcsync@db1.example/shop"': repr(database.url),
        'host="db1.example"': f'host="{server.host}", port={server.port}',
        'user="cdcsync"': f'user="{server.user}"',
        'password="secret"': f'password="{server.password}"',
        'database="shop"': f'database="{database.name}"',
    }
    code: str = found[0]
    for theirs, text in ours.items():
        code = code.replace(theirs, text)
    return code


def within(reached: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < end, "never"
        time.sleep(0.05)


def slots(database: Database) -> list[tuple[Any, ...]]:
    """Return the slots of this database."""
    return database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")


def test_the_pipeline_of_the_readme_runs(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(ORDERS)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = compile(example("Pipeline(", database), str(README), "exec")
    thread = threading.Thread(target=exec, args=(code, names))

    def arrived() -> bool:
        with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
            try:
                return connection.execute("SELECT id, note FROM orders").fetchall() == [(1, "first"), (2, "second")]
            except sqlite3.OperationalError:
                return False

    thread.start()
    within(lambda: bool(slots(database)))
    database.execute("INSERT INTO orders VALUES (2, 'second')")
    within(arrived)
    names["pipeline"].stop()
    thread.join(WAIT_S)

    assert not thread.is_alive()


def test_the_stream_of_the_readme_shows_what_is_committed(database: Database) -> None:
    database.execute(ORDERS)
    code = example("cdcsync.stream(", database)
    got = StringIO()
    ending = "            raise SystemExit\n"

    def write() -> None:
        within(lambda: bool(slots(database)))
        time.sleep(0.2)
        database.execute("INSERT INTO orders VALUES (2, 'second')")

    thread = threading.Thread(target=write)
    thread.start()
    with redirect_stdout(got), suppress(SystemExit):
        exec(compile(code + ending, str(README), "exec"), {})
    thread.join(WAIT_S)

    assert "insert public.orders (2, 'second')" in got.getvalue()
    within(lambda: not slots(database))


def test_a_stream_that_is_closed_leaves_nothing_behind(database: Database) -> None:
    database.execute(ORDERS)
    batches = cdcsync.stream(database.url, tables=["public.orders"])
    got: list[Batch] = []
    thread = threading.Thread(target=lambda: got.append(next(batches)))

    thread.start()
    within(lambda: bool(slots(database)))
    time.sleep(0.2)
    database.execute("UPDATE orders SET note = 'changed'")
    thread.join(WAIT_S)
    batches.close()

    assert [transaction.items[0].after for transaction in got[0].transactions] == [(1, "changed")]  # type: ignore[union-attr]
    within(lambda: not slots(database))
    assert database.query("SELECT pubname FROM pg_publication") == []


def test_what_is_committed_in_mysql_or_mariadb_is_yielded_from_now_on(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    batches = cdcsync.stream(database.server.url(), tables=[f"{database.name}.t"])
    seen: list[Batch] = []
    reader = threading.Thread(target=lambda: seen.append(next(batches)))
    reader.start()
    readers = "SHOW SLAVE HOSTS"
    within(lambda: any("stream" in str(row[1]) for row in database.server.query(readers)))

    database.execute("INSERT INTO t VALUES (2)")
    reader.join(WAIT_S)
    batches.close()

    assert [item.after for item in seen[0].transactions[0].items] == [(2,)]  # type: ignore[union-attr]
