"""Tables that are added to a mapping, over real servers: their rows are copied while the log goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from fix_postgres_source import Run, held_by, read, state, streaming

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_postgres import Database


def test_a_table_with_rows_that_joins_is_copied_while_the_log_goes_on(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    run = make(database, start="initial").open().take(streaming)
    run.source.close()
    database.execute(
        "CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT n, 'old' FROM generate_series(1, 5000) n"
    )
    with psycopg.connect(database.url) as writing:
        writing.execute("UPDATE b SET v = 'new' WHERE id = 1")
        again = make(database, start="initial").open(run.encoded(), 1)
        again.take(lambda run: "idle in transaction" in held_by(run))
        assert read(again, "b") == []
        assert again.position is not None
        assert [each.table for each in again.position.pending] == ["public.b"]
        database.execute("INSERT INTO a VALUES (2); INSERT INTO b VALUES (5001, 'late')")
        again.take(lambda run: (2,) in state(run, "a"))
        writing.commit()

    again.take(lambda run: run.position is not None and not run.position.pending and (5001,) in state(run, "b"))

    assert sorted(state(again, "b").values()) == database.query("SELECT id, v FROM b ORDER BY id")


def test_a_join_that_was_interrupted_before_its_table_was_published_is_taken_up(
    database: Database, make: Callable[..., Run]
) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    run = make(database, start="initial").open().take(streaming)
    run.source.close()
    database.execute("CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2)")
    half = make(database, start="initial").open(run.encoded(), 1)
    half.take(lambda run: run.position is not None, acknowledge=False)
    half.source.close()

    again = make(database, start="initial").open(half.encoded(), 1)
    again.take(lambda run: run.position is not None and not run.position.pending)

    assert sorted(state(again, "b")) == [(1,), (2,)]
