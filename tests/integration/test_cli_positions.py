"""Positions as the operator handles them, the second interrupt, and a socket beside the file."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from fix_command import stopped

if TYPE_CHECKING:
    from fix_command import Command
    from fix_postgres import Database

ORDERS = "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders VALUES (1, 'first')"


def pipeline(command: Command, database: Database, url: str = "") -> str:
    """Write a pipeline into SQLite, its socket named relative to the file."""
    return command.write(
        f"name: orders\nsource: '{url or database.url}'\nsink: {{sqlite: {{path: out.db}}}}\n"
        "tables: [public.orders]\ncontrol: {socket: run/orders.sock}\n"
    )


def copied(command: Command, path: str) -> None:
    """Run until the log is followed, then stop."""
    process = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running" and '"lsn":"0/0"' not in str(got["position"]))
    assert (command.folder / "run" / "orders.sock").is_socket()
    assert stopped(process)[0] == 0


def test_a_position_is_shown_with_the_source_away_and_set_from_what_is_shown(
    command: Command, database: Database
) -> None:
    database.execute(ORDERS)
    path = pipeline(command, database)
    copied(command, path)
    before = command("positions", "show", path).stdout.strip()

    away = command("positions", "show", pipeline(command, database, "postgres://me@127.0.0.1:1/none"))
    moved = command("positions", "set", pipeline(command, database), before)
    after = command("positions", "show", path).stdout.strip()
    wrong = command("positions", "set", path, before.replace('"system":"', '"system":"9'))

    assert (away.returncode, away.stdout.strip()) == (0, before), away.stderr
    assert moved.returncode == 0, moved.stderr
    assert json.loads(after) == {**json.loads(before), "epoch": json.loads(before)["epoch"] + 1}
    assert (wrong.returncode, "another server" in wrong.stderr) == (65, True)
    copied(command, path)


def test_a_second_interrupt_ends_it_at_once_and_nothing_is_lost(command: Command, database: Database) -> None:
    database.execute(ORDERS)
    path = pipeline(command, database)
    process = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running")

    process.send_signal(signal.SIGINT)
    status, _, errors = stopped(process, signal.SIGINT)

    assert status in {0, 130}
    assert ("ended at once" in errors) == (status == 130)
    copied(command, path)


def test_a_table_that_the_source_does_not_have_is_named_by_check_and_run(command: Command, database: Database) -> None:
    database.execute(ORDERS)
    path = command.write(
        f"name: orders\nsource: '{database.url}'\nsink: 'stdout:'\ntables: [public.orders, public.ordres]\n"
    )

    checked, run = command("check", path), command("run", path)

    assert (checked.returncode, run.returncode) == (1, 78)
    assert "no table public.ordres" in checked.stdout
    assert "no table public.ordres" in run.stderr


def test_run_by_urls_saves_a_file_that_runs_the_same(command: Command, database: Database) -> None:
    database.execute(ORDERS)
    words = ["--source", database.url, "--sink", "sqlite:out.db", "--table", "public.*", "--name", "orders"]
    first = command.start("run", *words, "--save", "saved.yaml")
    command.wait(lambda got: got.get("state") == "running")
    assert stopped(first)[0] == 0

    second = command.start("run", "./saved.yaml")
    command.wait(lambda got: got.get("state") == "running")
    verified = command("verify", "./saved.yaml")

    assert stopped(second)[0] == 0
    assert (verified.returncode, "equal" in verified.stdout) == (0, True), verified.stderr
