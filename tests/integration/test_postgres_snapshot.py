"""Rows read beside the log of real servers: what is visible, where it goes on, and every kind of key."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from fix_postgres import Database, drop_database, make_database
from fix_postgres_source import Run, held_by, read, state, streaming

from cdcsync import snapshot
from cdcsync.change import Change, CopyStart, Operation
from cdcsync.errors import Fatal, Finished, Transient
from cdcsync.postgres.position import PostgresPosition
from cdcsync.snapshot import Chunk
from cdcsync.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TWO = """
CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a');
CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT n, 'old' FROM generate_series(1, 3) n;
"""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is not acknowledged keeps its worker, however slow the machine is."""
    monkeypatch.setattr(snapshot, "STORED_WITHIN_S", 60.0)


@pytest.fixture
def waiting() -> Iterator[Database]:
    """A database whose server can be made to wait for a standby that does not exist."""
    server = PostgresServer(15).start()
    made = make_database(server)
    yield made
    server.execute("ALTER SYSTEM RESET synchronous_standby_names")
    server.execute("SELECT pg_reload_conf()")
    drop_database(made)
    server.stop()


def await_standby(database: Database, name: str) -> None:
    """Let commits wait for this standby; with no name for none."""
    database.server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    database.server.execute("SELECT pg_reload_conf()")
    for _ in range(100):
        if database.query("SHOW synchronous_standby_names") == [(name,)]:
            return
        time.sleep(0.05)
    raise AssertionError("the setting never came")


class Hanging:
    """A session whose commit is in the log, and not visible until its standby answers."""

    def __init__(self, database: Database, statement: str) -> None:
        self._thread = threading.Thread(target=self._run, args=(database.url, statement))
        self._thread.start()

    @staticmethod
    def _run(url: str, statement: str) -> None:
        with psycopg.connect(url, autocommit=True, application_name="hanging") as connection:
            connection.execute(statement.encode())

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def second_table_next(run: Run) -> Run:
    """Copy table a, and leave its rows unacknowledged, so that the one worker does not begin with b."""
    run.open().take(lambda run: run.position is not None and run.position.lsn > 0)
    return run.take(lambda run: len(read(run, "a")) == 1, acknowledge=False)


def test_a_row_that_the_log_changed_before_anybody_sees_it_is_not_overwritten(
    waiting: Database, make: Callable[..., Run]
) -> None:
    waiting.execute(TWO)
    run = second_table_next(make(waiting, start="initial", snapshot_parallel=1))
    await_standby(waiting, "nobody")
    session = Hanging(waiting, "UPDATE b SET v = 'new' WHERE id = 2")
    run.take(lambda run: bool(state(run, "b")), acknowledge=False)
    assert waiting.query("SELECT v FROM b WHERE id = 2") == [("old",)]

    run.source.acknowledge(run.position)
    run.take(lambda run: "(hanging)" in held_by(run))
    for _ in range(10):
        run.turn()
    assert read(run, "b") == []

    await_standby(waiting, "")
    session.end()
    run.take(streaming)

    assert sorted(state(run, "b").values()) == [(1, "old"), (2, "new"), (3, "old")]


def test_such_a_row_is_not_overwritten_by_a_source_that_was_opened_after_it(
    waiting: Database, make: Callable[..., Run]
) -> None:
    waiting.execute(TWO)
    run = second_table_next(make(waiting, start="initial", snapshot_parallel=1))
    await_standby(waiting, "nobody")
    session = Hanging(waiting, "UPDATE b SET v = 'new' WHERE id = 2")
    run.take(lambda run: bool(state(run, "b")), acknowledge=False)
    run.source.close()

    again = make(waiting, start="initial", snapshot_parallel=1).open(run.encoded(), 1)
    again.take(lambda run: "(hanging)" in held_by(run))
    assert again.changes == []
    await_standby(waiting, "")
    session.end()
    again.take(streaming)

    assert sorted(state(again, "b").values()) == [(1, "old"), (2, "new"), (3, "old")]


def test_a_commit_that_the_view_does_not_see_wins_over_the_row_that_was_read(
    waiting: Database, make: Callable[..., Run]
) -> None:
    waiting.execute(TWO)
    run = second_table_next(make(waiting, start="initial", snapshot_parallel=1))
    run.source.acknowledge(run.position)
    await_standby(waiting, "nobody")
    sessions = [
        Hanging(waiting, "UPDATE b SET v = 'new' WHERE id = 2"),
        Hanging(waiting, "DELETE FROM b WHERE id = 3"),
        Hanging(waiting, "UPDATE b SET id = 7 WHERE id = 1"),
    ]
    run.take(lambda run: streaming(run) and len(state(run, "b")) >= 2)
    await_standby(waiting, "")
    for session in sessions:
        session.end()

    run.take(lambda run: set(state(run, "b")) == {(2,), (7,)})

    assert state(run, "b") == {(2,): (2, "new"), (7,): (7, "old")}


def test_without_the_rule_of_visibility_the_old_row_wins(
    waiting: Database, make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe itself is proved: our own code without the rule fails it."""
    monkeypatch.setattr(Chunk, "unseen_by", lambda _chunk, _view: [])
    waiting.execute(TWO)
    run = second_table_next(make(waiting, start="initial", snapshot_parallel=1))
    await_standby(waiting, "nobody")
    session = Hanging(waiting, "UPDATE b SET v = 'new' WHERE id = 2")
    run.take(lambda run: bool(state(run, "b")), acknowledge=False)
    run.source.acknowledge(run.position)
    run.take(streaming)
    await_standby(waiting, "")
    session.end()

    assert state(run, "b")[2,] == (2, "old")
    assert waiting.query("SELECT v FROM b WHERE id = 2") == [("new",)]


def test_an_interrupted_copy_goes_on_at_the_chunk(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    database.execute("INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 20000) i")
    first = make(database, start="initial").open()
    first.take(lambda run: len(run.changes) >= 2000)
    first.source.close()
    assert first.position is not None
    (pending,) = first.position.pending
    assert pending.after == (str(len(first.changes)),)

    again = make(database, start="initial").open(first.encoded(), 1).take(streaming)

    assert [type(item) for item in again.items if not isinstance(item, Change)] == []
    ids = [change.after[0] for change in first.changes + again.changes if change.after]
    assert ids == list(range(1, 20001))


KEYS = {
    "composite": ("a int, b text, v int, PRIMARY KEY (b, a)", "n % 7, 'k' || n / 7, n"),
    "text": ("a text PRIMARY KEY, v int", "chr(65 + n % 57) || n, n"),
    "bytea": ("a bytea PRIMARY KEY, v int", "sha256(n::text::bytea), n"),
    "uuid": ("a uuid PRIMARY KEY, v int", "md5(n::text)::uuid, n"),
    "char": ("a char(8) PRIMARY KEY, v int", "'c' || n, n"),
    "numeric": ("a numeric PRIMARY KEY, v int", "n / 3.0, n"),
    "float": (
        "a float8 PRIMARY KEY, v int",
        "CASE n WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE n / 7.0 END::float8, n",
    ),
    "timestamptz": ("a timestamptz PRIMARY KEY, v int", "now() + n * interval '1.000001 s', n"),
    "date": ("a date, b boolean, v int, PRIMARY KEY (a, b)", "current_date + n / 2, n % 2 = 0, n"),
    "skewed": ("a int, b int, v int, PRIMARY KEY (a, b)", "n / 2500, n, n"),
    "negative": ("a bigint PRIMARY KEY, v int", "-9223372036854775808 + n * 4611686018427::int8, n"),
    "enum": ("a mood, b int, v int, PRIMARY KEY (a, b)", "(enum_range(NULL::mood))[1 + n % 3], n, n"),
    "domain": ("a short PRIMARY KEY, v int", "n::text, n"),
    "collated": ('a text COLLATE "nocase" PRIMARY KEY, v int', "CASE n % 2 WHEN 0 THEN 'X' ELSE 'x' END || n, n"),
    "array": ("a int[] PRIMARY KEY, v int", "ARRAY[n % 5, n], n"),
    "unique": ("a int NOT NULL, v int, UNIQUE (a)", "n, n"),
    "none": ("a int, v int", "n, n"),
}
SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN short AS varchar(9);
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"""


@pytest.mark.parametrize("kind", KEYS)
def test_a_table_is_read_whole_by_any_key(database: Database, make: Callable[..., Run], kind: str) -> None:
    columns, values = KEYS[kind]
    database.execute(SETUP)
    database.execute(f"CREATE TABLE t ({columns})")
    database.execute(f"INSERT INTO t SELECT {values} FROM generate_series(1, 20000) n")
    if "PRIMARY" not in columns:
        database.execute("ALTER TABLE t REPLICA IDENTITY FULL")

    run = make(database, start="initial").open().take(streaming)

    numbers = [change.after[-1] for change in read(run, "t") if change.after]
    assert sorted(numbers) == list(range(1, 20001))
    assert run.source.figures().get("chunks_again", 0) == 0
    assert len({each.position.encode() for each in run.transactions}) > 3


def test_an_extensions_type_is_read_by_blocks(postgres15: PostgresServer, make: Callable[..., Run]) -> None:
    database = make_database(postgres15)
    database.execute("CREATE EXTENSION citext; CREATE TABLE t (a citext PRIMARY KEY, v int)")
    database.execute("INSERT INTO t SELECT chr(65 + n % 57) || n, n FROM generate_series(1, 6000) n")

    run = make(database, start="initial").open().take(streaming)

    assert sorted(change.after[1] for change in read(run, "t") if change.after) == list(range(1, 6001))
    run.source.close()
    drop_database(database)


def test_a_partitioned_table_is_read_by_its_root(each_database: Database, make: Callable[..., Run]) -> None:
    each_database.execute(
        "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (2500);"
        "CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (2500) TO (9999); INSERT INTO r SELECT generate_series(1, 6000)"
    )

    run = make(each_database, start="initial").open().take(streaming)

    assert sorted(change.after[0] for change in read(run, "r") if change.after) == list(range(1, 6001))
    assert {change.table.name for change in run.changes} == {"r"}


def test_empty_tables_and_wide_rows_end_as_well(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE nothing (id int PRIMARY KEY); CREATE TABLE wide (id int PRIMARY KEY, t text)")
    database.execute("INSERT INTO wide SELECT n, repeat(md5(n::text), 400) FROM generate_series(1, 3000) n")

    run = make(database, start="initial").open().take(streaming)

    assert read(run, "nothing") == []
    assert [change.after[0] for change in read(run, "wide") if change.after] == list(range(1, 3001))


def test_a_table_that_grows_while_it_is_read_is_whole(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9000, 3)")
    run = make(database, start="initial").open()
    added = iter(range(2, 30000, 3))

    def grown(run: Run) -> bool:
        if not streaming(run):
            database.execute("INSERT INTO t VALUES (%s)", [next(added)])
        return streaming(run) and len(state(run, "t")) == count()

    def count() -> int:
        return int(database.query("SELECT count(*) FROM t")[0][0])

    run.take(grown)

    assert sorted(state(run, "t")) == database.query("SELECT id FROM t ORDER BY id")


def test_rows_and_order_of_a_first_copy_are_as_configured(database: Database, make: Callable[..., Run]) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY);"
        "INSERT INTO a SELECT generate_series(1, 9); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)"
    )

    run = make(
        database,
        start="initial",
        snapshot_parallel=1,
        snapshot_order=("public.c",),
        snapshot_where={"public.a": "id % 3 = 0"},
    ).open()
    run.take(streaming)

    assert [(change.table.name, change.after) for change in run.changes] == [
        ("c", (1,)),
        ("a", (3,)),
        ("a", (6,)),
        ("a", (9,)),
        ("b", (1,)),
    ]


def test_names_that_are_not_copied_are_refused(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with pytest.raises(Fatal, match=r"public\.x.*\n.*public\.a"):
        make(database, start="initial", snapshot_order=("public.x",)).open().turn()


def test_a_copy_that_nothing_follows_ends_and_leaves_no_slot(database: Database, make: Callable[..., Run]) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 3000)")
    run = make(database, start="initial_only").open()

    with pytest.raises(Finished):
        run.take(lambda _run: False)

    assert len(state(run, "a")) == 3000
    assert database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []
    with pytest.raises(Finished):
        make(database, start="initial_only").open(run.encoded(), 1)


def test_a_lost_position_has_everything_copied_again_where_that_is_wanted(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    run = make(database, start="initial").open().take(streaming)
    run.source.close()
    database.execute("SELECT pg_drop_replication_slot('cdcsync_p')")
    database.execute("INSERT INTO a VALUES (2)")
    with pytest.raises(Fatal, match="does not exist"):
        make(database, start="initial").open(run.encoded(), 1)

    again = make(database, start="initial", on_lost_position="snapshot").open(run.encoded(), 1).take(streaming)

    assert again.items[0] == CopyStart(again.changes[0].table, again=True)
    assert sorted(state(again, "a")) == [(1,), (2,)]
    assert again.position is not None
    assert again.position.epoch == 2


def test_the_slot_moves_and_no_transaction_stays_open_while_rows_are_read(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5000)")
    run = make(database, start="initial", rows_per_s_max=1000).open().take(lambda run: len(run.changes) >= 2000)
    places, longest = set(), 0.0

    def done(run: Run) -> bool:
        nonlocal longest
        database.execute("UPDATE t SET id = id WHERE id = 1")
        places.update(
            database.query("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdcsync_p'")
        )
        ((age,),) = database.query(
            "SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0)::float8 FROM pg_stat_activity "
            "WHERE application_name LIKE 'cdcsync p snapshot'"
        )
        longest = max(longest, age)
        return streaming(run)

    began = time.monotonic()
    run.take(done)

    assert time.monotonic() - began > 2
    assert len(places) > 5
    assert longest < 1


def test_a_table_altered_while_it_is_read_is_planned_anew(database: Database, make: Callable[..., Run]) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 5000) n"
    )
    run = make(database, start="initial", rows_per_s_max=2000).open().take(lambda run: len(run.changes) >= 2000)
    database.execute("ALTER TABLE t ADD COLUMN w int DEFAULT 7")

    with pytest.raises(Transient, match="altered while it was copied"):
        run.take(streaming)
    run.source.close()
    again = make(database, start="initial").open(run.encoded(), 1).take(streaming)

    ids = [change.after[0] for change in run.changes + again.changes if change.after]
    assert sorted(set(ids)) == list(range(1, 5001))
    assert [change.after for change in again.changes][-1] == (5000, 5000, 7)


def test_a_table_dropped_while_it_is_read_leaves_the_others(database: Database, make: Callable[..., Run]) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 5000);"
        "CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)"
    )
    run = make(database, start="initial", rows_per_s_max=2000).open().take(lambda run: len(run.changes) >= 2000)
    database.execute("DROP TABLE a")

    with pytest.raises(Transient, match="altered"):
        run.take(streaming)
    run.source.close()
    again = make(database, start="initial").open(run.encoded(), 1).take(streaming)

    assert [change.after for change in read(again, "b")] == [(1,)]


def test_a_table_under_an_exclusive_lock_is_waited_for_while_the_log_goes_on(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute(TWO)
    run = second_table_next(make(database, start="initial", snapshot_parallel=1))
    with psycopg.connect(database.url) as locking:
        locking.execute("LOCK TABLE b")
        database.execute("INSERT INTO a VALUES (2, 'meanwhile')")
        run.take(lambda run: (2,) in state(run, "a"))
        run.take(lambda run: "locks public.b" in held_by(run))
        assert read(run, "b") == []
        locking.rollback()

    run.take(streaming)

    assert len(state(run, "b")) == 3


def test_values_read_are_those_that_the_log_gives(database: Database, make: Callable[..., Run]) -> None:
    database.execute(TWO)
    run = make(database, start="initial").open().take(streaming)
    before = {change.after: change.table for change in read(run, "b")}

    database.execute("UPDATE b SET v = v")
    run.take(lambda run: len([each for each in run.changes if each.operation is Operation.UPDATE]) == 3)

    after = {change.after: change.table for change in run.changes if change.operation is Operation.UPDATE}
    assert after == before


def test_a_position_says_what_is_left(database: Database, make: Callable[..., Run]) -> None:
    database.execute(TWO)
    run = make(database, start="initial").open().take(lambda run: run.position is not None and run.position.lsn > 0)

    assert isinstance(run.position, PostgresPosition)
    assert [each.table for each in run.position.pending] == ["public.a", "public.b"]
    assert not run.position.is_copied
