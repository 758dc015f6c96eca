"""Replay from PostgreSQL: the pipeline goes back, or a stretch of its log goes to another sink, row by row."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fix_command import stopped
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_postgres import Database
    from fix_replay import Kept

    from cdcsync.testing.servers import PostgresServer

SHOP = """
CREATE TABLE t (id int PRIMARY KEY, note text);
CREATE TABLE u (id int PRIMARY KEY);
INSERT INTO t SELECT n, 'note ' || n FROM generate_series(1, 20) n;
"""


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


def rows(file: Path, table: str = "t") -> list[tuple[Any, ...]]:
    """Return a table of a SQLite file."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def ours(kept: Kept, table: str = "t") -> list[tuple[Any, ...]]:
    """Return the same of the source."""
    return kept.source.query(f"SELECT * FROM {table} ORDER BY 1")


def plan(kept: Kept, *words: str) -> dict[str, Any]:
    """Return what a dry run says."""
    got = kept.command("replay", kept.path, *words, "--dry-run", "--json")
    assert got.returncode == 0, got.stderr
    told: dict[str, Any] = json.loads(got.stdout)
    return told


def refused(kept: Kept, status: int, said: str, *words: str) -> None:
    """Run a command that has to be refused with one message and what to do."""
    got = kept.command(words[0], kept.path, *words[1:])
    assert (got.returncode, got.stderr.count("error: "), "Traceback" in got.stderr) == (status, 1, False), got.stderr
    assert said in got.stderr
    assert "\n  -> " in got.stderr


def slots(kept: Kept) -> list[tuple[Any, ...]]:
    """Return every slot of the database with where it stands."""
    return kept.source.query(
        "SELECT slot_name, confirmed_flush_lsn::text, temporary FROM pg_replication_slots "
        "WHERE database = current_database() ORDER BY 1"
    )


def traffic(kept: Kept) -> tuple[str, str]:
    """Change rows in transactions that are known; return where they begin and end."""
    start = kept.place()
    kept.source.execute("UPDATE t SET note = 'a' WHERE id <= 3")
    kept.source.execute("BEGIN; INSERT INTO t VALUES (100, 'b'), (101, 'c'); INSERT INTO u VALUES (1); COMMIT")
    kept.source.execute("DELETE FROM t WHERE id = 20")
    return start, kept.place()


def test_a_dry_run_counts_what_lies_between_and_changes_nothing(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute("INSERT INTO u VALUES (0)")
    first = kept.time()
    start, end = traffic(kept)
    last = kept.time()
    kept.source.execute("DELETE FROM t WHERE id = 1")
    kept.run()
    before = slots(kept), kept.command("positions", "show", kept.path).stdout

    told = plan(kept, "--from", start, "--to", end, "--sink", "stdout:")
    of_times = plan(kept, "--from", first, "--to", last, "--sink", "stdout:")
    of_one = plan(kept, "--from", start, "--to", end, "--sink", "stdout:", "--table", "public.u")
    back = plan(kept, "--from", start, "--rewind")

    assert told["transactions"] == of_times["transactions"] == 3
    wanted = {"public.t": {"update": 3, "insert": 2, "delete": 1}, "public.u": {"insert": 1}}
    assert told["tables"] == of_times["tables"] == wanted
    assert (of_one["transactions"], of_one["tables"]) == (1, {"public.u": {"insert": 1}})
    assert (back["transactions"], back["rows"]) == (4, 8)
    assert first < told["first_commit"] < told["last_commit"] < last
    assert f"slot cdcsync_{kept.name}_retain keeps the log" in told["log"]
    assert "passes through older states" in back["means"]
    assert (slots(kept), kept.command("positions", "show", kept.path).stdout) == before


def test_a_target_that_was_damaged_is_right_again_after_the_pipeline_went_back(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.source.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    kept.run()
    start, _ = traffic(kept)
    kept.run()
    file = kept.command.folder / "out.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            "UPDATE t SET note = 'spoilt' WHERE id <= 3; DELETE FROM t WHERE id = 100; DELETE FROM u"
        )
    before = json.loads(kept.command("positions", "show", kept.path).stdout)

    got = kept.command("replay", kept.path, "--from", start, "--rewind", "--yes")
    then = json.loads(kept.command("positions", "show", kept.path).stdout)
    kept.source.execute("INSERT INTO u VALUES (2)")
    kept.run()

    assert got.returncode == 0, got.stderr
    assert "was replaced by a copy of" in got.stdout
    assert (then["lsn"], then["epoch"]) == (start, before["epoch"])
    assert rows(file) == ours(kept)
    assert rows(file, "u") == ours(kept, "u") == [(1,), (2,)]


@pytest.mark.parametrize("system", ["sqlite", "postgres"])
def test_a_pipeline_killed_again_and_again_on_its_way_back_ends_equal(
    kept: Kept, target: Database, system: str
) -> None:
    kept.sink = "sqlite:out.db" if system == "sqlite" else target.url
    kept.source.execute(SHOP)
    kept.source.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    kept.run()
    start = kept.place()
    for at in range(300):
        kept.source.execute(
            f"INSERT INTO t VALUES ({1000 + at}, 'x'); UPDATE t SET note = note || '.' WHERE id % 20 = {at % 20};"
            f"UPDATE t SET id = id + 5000 WHERE id = {990 + at}; DELETE FROM u; INSERT INTO u VALUES ({at})"
        )
    kept.run()

    assert kept.command("replay", kept.path, "--from", start, "--rewind", "--yes").returncode == 0
    for wait_s in (0.6, 0.7, 0.8, 0.9, 1.0):
        process = kept.command.start("run", kept.path)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept.run()

    file = kept.command.folder / "out.db"
    for table in ("t", "u"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert (rows(file, table) if system == "sqlite" else target.query(query)) == ours(kept, table)


def test_a_target_table_that_is_gone_is_refused_after_going_back_too(kept: Kept, target: Database) -> None:
    kept.sink = target.url
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    kept.run()
    target.execute("DROP TABLE u")

    assert kept.command("replay", kept.path, "--from", start, "--rewind", "--yes").returncode == 0

    refused(kept, 65, "public.u is gone", "run")


def test_the_slot_that_went_back_keeps_being_synchronised(kept: Kept) -> None:
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    kept.run()

    assert kept.command("replay", kept.path, "--from", start, "--rewind", "--yes").returncode == 0

    failover = "SELECT coalesce((to_jsonb(s)->>'failover')::bool, false), temporary FROM pg_replication_slots s"
    assert kept.source.query(f"{failover} WHERE slot_name = 'cdcsync_{kept.name}'") == [
        (kept.source.server.version >= 17, False)
    ]


def test_going_back_cut_short_between_two_slots_is_done_again(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    kept.run()
    kept.source.execute(f"SELECT pg_drop_replication_slot('cdcsync_{kept.name}')")

    got = kept.command("replay", kept.path, "--from", start, "--rewind", "--yes")
    kept.run()

    assert got.returncode == 0, got.stderr
    assert rows(kept.command.folder / "out.db") == ours(kept)


def test_a_stretch_as_logged_goes_to_another_sink_through_the_mapping(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.tables = "[{from: public.t, to: things, exclude: [note]}, public.u]"
    kept.source.execute(SHOP)
    kept.run()
    start, end = traffic(kept)
    kept.source.execute("INSERT INTO t VALUES (500, 'later')")
    before = slots(kept), kept.command("positions", "show", kept.path).stdout
    other = kept.command.folder / "again.jsonl"

    got = kept.command("replay", kept.path, "--from", start, "--to", end, "--sink", f"jsonl:{other}", "--yes")

    assert got.returncode == 0, got.stderr
    lines = [json.loads(line) for line in other.read_text().splitlines()]
    assert [(line["table"], line["operation"], line["key"]["id"]) for line in lines] == [
        ("things", "update", 1),
        ("things", "update", 2),
        ("things", "update", 3),
        ("things", "insert", 100),
        ("things", "insert", 101),
        ("public.u", "insert", 1),
        ("things", "delete", 20),
    ]
    assert "note" not in lines[3]["after"]
    assert "delivered: 3 transactions, 7 changes" in got.stderr
    assert (slots(kept), kept.command("positions", "show", kept.path).stdout) == before


def test_a_replay_to_another_sink_goes_on_where_it_was_killed_and_repeats_nothing(kept: Kept) -> None:
    kept.source.execute(SHOP)
    kept.run()
    start = kept.place()
    for at in range(40):
        kept.source.execute(f"INSERT INTO u SELECT n FROM generate_series({at * 1000}, {at * 1000 + 999}) n")
    kept.source.execute("INSERT INTO u SELECT n FROM generate_series(100000, 149999) n")
    end, other = kept.place(), kept.command.folder / "again.jsonl"
    words = ("replay", kept.path, "--from", start, "--to", end, "--sink", f"jsonl:{other}", "--yes")

    killed = 0
    for _ in range(6):
        process = kept.command.start(*words)
        until, size = time.monotonic() + 20, other.stat().st_size if other.exists() else 0
        while process.poll() is None and time.monotonic() < until:
            if other.exists() and other.stat().st_size > size + 1_000_000:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
        process.communicate()
    got = kept.command(*words)

    assert got.returncode == 0, got.stderr
    assert killed >= 2
    ids = [json.loads(line)["key"]["id"] for line in other.read_text().splitlines()]
    assert ids == [*range(40_000), *range(100_000, 150_000)]


def test_an_interrupted_replay_ends_in_good_order_and_goes_on(kept: Kept) -> None:
    kept.source.execute(SHOP)
    kept.run()
    start = kept.place()
    kept.source.execute("INSERT INTO u SELECT n FROM generate_series(1, 100000) n")
    end, other = kept.place(), kept.command.folder / "again.jsonl"
    words = ("replay", kept.path, "--from", start, "--to", end, "--sink", f"jsonl:{other}", "--yes")

    process = kept.command.start(*words)
    until = time.monotonic() + 30
    while not (other.exists() and other.stat().st_size) and time.monotonic() < until:
        time.sleep(0.001)
    status, _, errors = stopped(process, signal.SIGINT)
    again = kept.command(*words)

    assert (status, "the same command goes on" in errors) == (130, True)
    assert again.returncode == 0, again.stderr
    assert "an interrupted replay goes on at" in again.stderr
    assert [json.loads(line)["key"]["id"] for line in other.read_text().splitlines()] == [*range(1, 100_001)]


def test_a_replay_into_a_database_is_the_rows_of_that_stretch_alone(kept: Kept) -> None:
    kept.source.execute(SHOP)
    kept.run()
    start, end = traffic(kept)
    other = kept.command.folder / "again.db"
    words = ("replay", kept.path, "--from", start, "--to", end, "--sink", f"sqlite:{other}", "--yes")

    first, second = kept.command(*words), kept.command(*words)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert rows(other) == [(1, "a"), (2, "a"), (3, "a"), (100, "b"), (101, "c")]


def test_the_log_may_be_read_while_the_pipeline_runs(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    process = kept.command.start("run", kept.path)
    kept.command.wait(lambda got: got.get("state") == "running", kept.name)
    start, end = traffic(kept)

    told = plan(kept, "--from", start, "--to", end, "--sink", "stdout:")
    tail = kept.command("tail", kept.path, "--from", start, "--to", end, "--json")

    assert told["rows"] == len(tail.stdout.splitlines()) == 7
    assert stopped(process)[0] == 0
    assert [name for name, _, _ in slots(kept)] == [f"cdcsync_{kept.name}", f"cdcsync_{kept.name}_retain"]


def test_replays_that_cannot_be_are_refused_by_name(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    kept.run()
    position = kept.command("positions", "show", kept.path).stdout.strip()
    other_server = position.replace('"system":"', '"system":"9')

    refused(kept, 78, "does not run", "replay", "--yes", "--from", start)
    refused(kept, 65, "no longer there from 0/100 on", "replay", "--yes", "--from", "0/100", "--rewind")
    refused(kept, 78, "lies in the future", "replay", "--yes", "--from", "FFFF/0", "--rewind")
    refused(kept, 65, "another server", "replay", "--yes", "--from", other_server, "--rewind")
    refused(kept, 78, "is not before the stored position", "replay", "--yes", "--from", position, "--rewind")
    refused(kept, 65, "or later", "replay", "--yes", "--from", "2100-01-01", "--sink", "stdout:")
    refused(kept, 65, "may no longer be there", "replay", "--yes", "--from", "2020-01-01T00:00Z", "--sink", "stdout:")
    refused(kept, 78, "is not after `--from`", "replay", "--yes", "--from", start, "--to", start, "--sink", "stdout:")
    refused(
        kept,
        78,
        "no table public.none",
        "replay",
        "--yes",
        "--from",
        start,
        "--sink",
        "stdout:",
        "--table",
        "public.none",
    )
    refused(kept, 78, "the pipeline's own target", "replay", "--yes", "--from", start, "--sink", "sqlite:out.db")
    refused(kept, 78, "the same table", "replay", "--yes", "--from", start, "--sink", kept.source.url)
    refused(kept, 78, "not a place in PostgreSQL's log", "replay", "--yes", "--from", "mysql-bin.1:4", "--rewind")
    asked = kept.command("replay", kept.path, "--from", start, "--rewind")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert kept.command("positions", "show", kept.path).stdout.strip() == position


def test_a_person_is_asked_and_a_no_changes_nothing(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    kept.run()
    before = slots(kept), kept.command("positions", "show", kept.path).stdout
    ours, theirs = os.openpty()

    with subprocess.Popen(
        [sys.executable, "-m", "cdcsync", "replay", kept.path, "--from", start, "--rewind"],
        cwd=kept.command.folder,
        env=kept.command.environ,
        stdin=theirs,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, b"n\n")
        _, errors = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 1
    assert "public.t      1 delete, 2 insert, 3 update" in errors
    assert "New fence, same epoch" in errors
    assert (slots(kept), kept.command("positions", "show", kept.path).stdout) == before


def test_a_running_pipeline_does_not_go_back_and_its_process_is_named(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    start, _ = traffic(kept)
    process = kept.command.start("run", kept.path)
    kept.command.wait(lambda got: got.get("changes") == 7, kept.name)
    kept.command.socket(kept.name).unlink()

    got = kept.command("replay", kept.path, "--from", start, "--rewind", "--yes")

    assert stopped(process)[0] == 0
    assert got.returncode == 76, got.stderr
    assert f"pid {process.pid}" in got.stderr


def test_a_position_is_set_by_a_time_and_by_what_lies_before_the_slot(kept: Kept) -> None:
    kept.sink = "sqlite:out.db"
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute("INSERT INTO u VALUES (0)")
    at = kept.time()
    traffic(kept)
    kept.run()
    before = json.loads(kept.command("positions", "show", kept.path).stdout)
    file = kept.command.folder / "out.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("DELETE FROM u; UPDATE t SET note = 'spoilt' WHERE id = 100")

    got = kept.command("positions", "set", kept.path, at)
    future = kept.command("positions", "set", kept.path, "FFFF/0")
    gone = kept.command("positions", "set", kept.path, "0/100")
    kept.run()

    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["epoch"] == before["epoch"] + 1
    assert (future.returncode, gone.returncode) == (78, 65)
    assert rows(file, "u") == [(1,)], "the row before that time is not read again"
    assert rows(file) == ours(kept)


def test_the_log_of_a_pipeline_without_slots_cannot_be_read_again(kept: Kept) -> None:
    kept.source.execute(SHOP)

    refused(kept, 78, "no slot holds the log", "tail", "--from", "earliest")


def test_what_waits_in_the_slot_is_shown_without_retain(kept: Kept) -> None:
    kept.source_more = ""
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute("INSERT INTO u VALUES (7); INSERT INTO u VALUES (8)")

    got = kept.command("tail", kept.path, "--from", "earliest", "--to", kept.place(), "--json")

    assert [json.loads(line)["key"]["id"] for line in got.stdout.splitlines()] == [7, 8]
