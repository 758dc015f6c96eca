"""The commands, as the operator runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped

if TYPE_CHECKING:
    from fix_command import Command

PIPELINE = """\
name: orders
source: {{counter: {{rows: 3, fault: "{fault}"}}}}
sink: {{jsonl: {{path: {path}}}}}
tables: [{table}]
"""


def pipeline(command: Command, fault: str = "", table: str = "shop.orders") -> str:
    """Write the pipeline's file."""
    return command.write(PIPELINE.format(fault=fault, table=table, path=command.folder / "out.jsonl"))


COMMANDS = [
    "run", "check", "status", "pause", "resume", "positions", "rejected", "verify", "tail", "drop", "connectors", "demo",
    "test", "preview",
]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: Command, name: str) -> None:
    got = command(name, "--help")

    assert got.returncode == 0
    assert f"cdcsync {name}" in got.stdout.partition("Usage:")[2].partition("\n")[2]


def test_the_help_names_every_command(command: Command) -> None:
    got = command("--help")

    assert got.returncode == 0
    assert [name for name in COMMANDS if name not in got.stdout] == []


def test_an_unknown_command_names_the_nearest(command: Command) -> None:
    got = command("stauts", "orders")

    assert got.returncode == 2
    assert "did you mean 'status'?" in got.stderr


def test_run_by_urls_works_and_saves_a_file_that_runs_the_same(command: Command) -> None:
    target = command.folder / "out.jsonl"
    words = ["--source", "counter:4", "--sink", f"jsonl:{target}", "--table", "shop.*", "--name", "orders"]
    first = command.start("run", *words, "--save", "saved.yaml")
    command.wait(lambda got: got.get("position") == "1:4:0")
    stopped(first)

    second = command.start("run", "./saved.yaml")
    command.wait(lambda got: got.get("position") == "1:4:0")

    assert stopped(second)[0] == 0
    assert len(target.read_text().splitlines()) == 4


def test_run_without_a_pipeline_says_what_it_needs(command: Command) -> None:
    got = command("run", "--source", "counter:4")

    assert got.returncode == 2
    assert "--sink" in got.stderr


def test_a_missing_file_is_a_configuration_error(command: Command) -> None:
    got = command("check", "./none.yaml")

    assert got.returncode == 78
    assert "none.yaml" in got.stderr


SIX_MISTAKES = """\
name: orders
sorce: x
source:
  counter: {rows: many, colour: red}
sink:
  jsonl: {paht: out.jsonl}
heartbeat: soon
tables:
  - from: shop.orders
    too: orders
"""


def test_six_mistakes_in_a_file_are_six_lines_each_with_its_place(command: Command) -> None:
    path = command.write(SIX_MISTAKES)

    got = command("check", path)

    assert got.returncode == 78
    assert "Traceback" not in got.stderr
    wrong = [(2, "sorce"), (4, "rows"), (4, "colour"), (6, "path"), (7, "heartbeat"), (10, "too")]
    for line, word in wrong:
        assert [said for said in got.stderr.splitlines() if f"orders.yaml:{line}:" in said and word in said], (
            line,
            word,
        )


def test_a_missing_secret_is_named_with_its_place(command: Command) -> None:
    path = command.write(
        "name: orders\nsource:\n  counter:\n    password: ${env:NO_SUCH}\nsink: 'stdout:'\ntables: [shop.orders]\n"
    )

    got = command("run", path)

    assert got.returncode == 78
    assert "orders.yaml:4:" in got.stderr
    assert "NO_SUCH" in got.stderr


def test_check_shows_findings_with_their_remedy_and_fails_only_on_errors(command: Command) -> None:
    warned = command("check", pipeline(command, fault="warning"))
    failed = command("check", pipeline(command, fault="error"))

    assert (warned.returncode, failed.returncode) == (0, 1)
    assert "COUNT AGAIN" in failed.stdout


def test_check_as_json_has_every_finding(command: Command) -> None:
    got = json.loads(command("check", pipeline(command), "--json").stdout)

    assert {"severity", "subject", "message", "remedy"} == set(got[0])
    assert "rows" in [finding["subject"] for finding in got]


def test_check_offline_asks_nobody(command: Command) -> None:
    got = command("check", pipeline(command, fault="error"), "--offline")

    assert got.returncode == 0
    assert "COUNT AGAIN" not in got.stdout


def test_check_warns_of_an_entry_that_takes_no_table(command: Command) -> None:
    got = command("check", pipeline(command, table="shop.ordres"))

    assert "no table shop.ordres" in got.stdout


@pytest.mark.parametrize("name", ["status", "pause", "resume"])
def test_asking_a_pipeline_that_does_not_run_says_so(command: Command, name: str) -> None:
    got = command(name, pipeline(command))

    assert got.returncode == 1
    assert "does not run" in got.stderr


def test_status_has_the_figures_for_people_and_for_scripts(command: Command) -> None:
    path = pipeline(command)
    process = command.start("run", path)
    command.wait(lambda got: got.get("changes") == 3)

    text, figures = command("status", path).stdout, json.loads(command("status", path, "--json").stdout)

    assert "running" in text
    want = {"state": "running", "changes": 3, "position": "1:3:0", "source": "counter", "guarantee": "exactly-once"}
    assert want.items() <= figures.items()
    stopped(process)


def test_positions_are_shown_set_and_cleared(command: Command) -> None:
    path = pipeline(command)
    assert command("positions", "show", path).stdout == "no position is stored\n"
    process = command.start("run", path)
    command.wait(lambda got: got.get("position") == "1:3:0")

    running = command("positions", "show", path).stdout
    refused = command("positions", "set", path, "1")
    stopped(process)
    moved = command("positions", "set", path, "1")
    shown = command("positions", "show", path).stdout
    cleared = command("positions", "clear", path, "--yes").stdout
    after = command("positions", "show", path).stdout

    assert running == "1:3:0\n"
    assert refused.returncode == 76
    assert (moved.returncode, shown) == (0, "2:1:0\n")
    assert (cleared, after) == ("cleared\n", "no position is stored\n")


def test_rejected_says_when_there_is_none(command: Command) -> None:
    path = pipeline(command)

    assert command("rejected", "list", path).stdout == "no dead letters\n"
    assert json.loads(command("rejected", "list", path, "--json").stdout) == []
    assert command("rejected", "show", path, "7").returncode == 65
    assert command("rejected", "drop", path).returncode == 2


def test_drop_says_what_it_removed_and_what_it_leaves(command: Command) -> None:
    path = pipeline(command)
    process = command.start("run", path)
    command.wait(lambda got: got.get("position") == "1:3:0")
    refused = command("drop", path, "--yes")
    stopped(process)

    got = command("drop", path, "--yes")

    assert refused.returncode == 76
    assert got.returncode == 0
    assert "slot counter" in got.stdout
    assert "removed: the stored position" in got.stdout
    assert "left: the target tables" in got.stdout


def test_tail_shows_changes_and_stores_nothing(command: Command) -> None:
    lines = command("tail", "counter:3", "--json", "--limit", "2").stdout.splitlines()
    text = command("tail", pipeline(command), "--limit", "3").stdout

    assert [json.loads(line)["after"]["id"] for line in lines] == [0, 1]
    assert "insert   shop.orders id=2" in text
    assert not (command.folder / "state").exists()


def test_connectors_are_listed_with_those_of_other_packages(command: Command) -> None:
    got = {row["name"]: row for row in json.loads(command("connectors", "--json").stdout)}

    assert got["counter"]["roles"] == ["source"]
    assert got["counter"]["package"] == "counter"
    assert {"postgres", "sqlite", "jsonl"} <= set(got)
