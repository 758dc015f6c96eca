"""A PostgreSQL damaged on purpose and mended by `tail --format undo-sql`, read by the server's own client."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from fix_postgres_types import COLUMNS, insert, prepare

if TYPE_CHECKING:
    from fix_replay import Kept

NAMES = ", ".join(f"c{at}" for at in range(len(COLUMNS)))


def script(kept: Kept, start: str, form: str, *more: str, status: int = 0) -> str:
    """Return what `tail` writes from a place to the end of the log."""
    got = kept.command("tail", kept.path, "--from", start, "--format", form, *more)
    assert got.returncode == status, got.stderr
    return got.stdout


def test_every_type_is_mended_and_done_again_to_the_byte(kept: Kept) -> None:
    prepare(kept.source)
    kept.source.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    for identity in (1, 3, 5):
        insert(kept.source, identity)
    kept.run()
    before, start = kept.rows(), kept.place()

    kept.source.execute("DELETE FROM t WHERE id IN (1, 2)")
    kept.source.execute("UPDATE t SET id = id + 100 WHERE id IN (3, 4)")
    kept.source.execute(f"UPDATE t SET ({NAMES}) = (SELECT {NAMES} FROM t WHERE id = 6) WHERE id = 5")
    insert(kept.source, 7)
    kept.source.execute("UPDATE t SET c12 = repeat('x', 9000) || E'\\'\\\\:x\\n' WHERE id = 103")
    after, undo, redo = kept.rows(), script(kept, start, "undo-sql"), script(kept, start, "sql", "--to", kept.place())
    kept.psql(undo)
    mended = kept.rows()
    kept.psql(redo)

    assert mended == before
    assert kept.rows() == after
    assert before != after


def test_keys_that_moved_in_a_chain_and_an_update_without_where_are_mended(kept: Kept) -> None:
    kept.source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, note text UNIQUE, price numeric); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t SELECT n, 'note ' || n, n * 1.50 FROM generate_series(1, 3000) n"
    )
    kept.run()
    before, start = kept.rows(), kept.place()

    kept.source.execute("UPDATE t SET id = id + 10000")
    kept.source.execute("UPDATE t SET price = 0")
    kept.source.execute(
        "DELETE FROM t WHERE id % 3 = 0; UPDATE t SET id = id - 9999; INSERT INTO t VALUES (1, 'new', 1)"
    )
    kept.psql(script(kept, start, "undo-sql"))

    assert kept.rows() == before


def test_one_of_several_equal_rows_of_a_table_without_a_key_is_mended(kept: Kept) -> None:
    kept.tables = "[{from: public.t, key: none}]"
    kept.source.execute(
        "CREATE TABLE t (a json, b float8, c char(4), d numeric); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t VALUES ('{\"x\": 1}', '-0', 'ab', 1.0), ('{\"x\": 1}', '-0', 'ab', 1.0), (NULL, 'NaN', NULL, 1.00)"
    )
    kept.run()
    before, start = kept.rows(order="1, 2, 3, 4"), kept.place()

    kept.source.execute("DELETE FROM t WHERE ctid = '(0,1)'")
    kept.source.execute("UPDATE t SET b = 0 WHERE c = 'ab'; UPDATE t SET d = d + 1 WHERE a IS NULL")
    kept.psql(script(kept, start, "undo-sql"))

    assert kept.rows(order="1, 2, 3, 4") == before


def test_rows_of_which_the_log_lacks_the_old_values_are_named_and_the_status_says_so(kept: Kept) -> None:
    kept.source.execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    kept.run()
    start = kept.place()

    kept.source.execute(
        "UPDATE t SET note = 'x' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'c')"
    )
    kept.source.execute("TRUNCATE t")
    got = kept.command("tail", kept.path, "--from", start, "--format", "undo-sql")

    assert got.returncode == 65
    assert "3 change(s) have no statement" in got.stderr
    lacking = [line for line in got.stdout.splitlines() if line.startswith("-- LACKING")]
    assert [line.split(":")[1] for line in lacking] == [
        " truncate of public.t",
        ' delete of public.t {"id"',
        ' update of public.t {"id"',
    ]
    assert 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL' in lacking[1]
    assert 'DELETE FROM "public"."t" WHERE "id" = 3;' in got.stdout


def test_what_cascaded_is_mended_where_the_script_keeps_foreign_keys_from_acting(kept: Kept) -> None:
    kept.source.execute(
        "CREATE TABLE p (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, s int GENERATED ALWAYS AS (id * 2) STORED);"
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE);"
        "ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO p (id) VALUES (1), (2); INSERT INTO t SELECT n, n % 2 + 1 FROM generate_series(1, 20) n"
    )
    kept.run()
    before, start = (kept.rows("p"), kept.rows("t")), kept.place()

    kept.source.execute("DELETE FROM p WHERE id = 1")
    undo = script(kept, start, "undo-sql")
    kept.psql(undo.replace("-- SET session_replication_role", "SET session_replication_role"))

    assert (kept.rows("p"), kept.rows("t")) == before
    assert len(before[1]) == 20


def test_only_the_tables_and_the_time_that_were_asked_for_are_undone(kept: Kept) -> None:
    kept.source.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    kept.run()
    kept.source.execute("INSERT INTO t VALUES (1)")
    start = kept.time()
    kept.source.execute("INSERT INTO t VALUES (2); INSERT INTO u VALUES (2)")
    end = kept.time()
    kept.source.execute("INSERT INTO t VALUES (3)")

    kept.psql(script(kept, start, "undo-sql", "--to", end, "--table", "public.t"))

    assert kept.rows() == [("1",), ("3",)]
    assert kept.rows("u") == [("2",)]


def test_undoing_a_huge_transaction_needs_the_memory_of_a_part(kept: Kept) -> None:
    kept.source.execute("CREATE TABLE t (id int PRIMARY KEY, note text); ALTER TABLE t REPLICA IDENTITY FULL")
    kept.run()
    start = kept.place()
    kept.source.execute("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 80000) n; DELETE FROM t")

    nothing, all_of_it = peak_kb(kept, kept.place()), peak_kb(kept, start)

    assert all_of_it - nothing < 60_000, "the 160,000 rows alone are more than 80 MB"


def peak_kb(kept: Kept, start: str) -> int:
    """Return the peak memory of undoing all from a place on."""
    words = [sys.executable, "-m", "cdcsync", "tail", kept.path, "--from", start, "--format", "undo-sql"]
    program = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=kept.command.environ,
        cwd=kept.command.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)
