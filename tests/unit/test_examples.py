"""Claims about a mapping's own examples: what runs them, what they say, and what --update writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from click.testing import CliRunner

from cdcsync import config
from cdcsync.change import Batch, Change, Column, Operation, Table, Transaction
from cdcsync.cli import commands
from cdcsync.cli.preview import both
from cdcsync.mapping import Mapping, TableMapping
from cdcsync.mapping.examples import run
from cdcsync.mapping.loading import rules_of
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from click.testing import Result

    from cdcsync.document import Problem

MAPPINGS = Path(__file__).parents[2] / "mappings"

WRONG = """\
tables:
  - from: shop.orders
    where: status <> 'draft'
    columns:
      total: price * quantity  # what it costs
    examples:
      - given: {after: {id: 1, price: 2, quantity: 3, status: new}}
        expect: {operation: insert, after: {id: 1, total: 7, totle: 6}}
      - given: {after: {id: 2, status: draft}}
        expect: {operation: insert}
      - given: {after: {id: 3, status: new}}
"""


def cdcsync(*args: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(commands, [str(arg) for arg in args])


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_of_a_mapping_file_come_to_what_they_say(path: Path) -> None:
    problems: list[Problem] = []

    outcomes = list(run(rules_of(path, problems)))

    assert problems == []
    assert {outcome.place: outcome.differences for outcome in outcomes if outcome.differences} == {}
    assert outcomes


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mapping_file_has_a_pipeline_of_its_own_that_loads(path: Path) -> None:
    secrets = dict.fromkeys(("SOURCE_PASSWORD", "SINK_PASSWORD", "PII_KEY", "VISITORS_KEY"), "x")

    loaded = config.load(path.parent / "pipelines" / path.name, environ=secrets)

    assert [rule.document.file for rule in loaded.rules if rule.document is not None]
    assert len(loaded.rules) == len(list(rules_of(path, [])))
    assert config.dump(loaded)


def test_what_came_instead_is_told_by_place_and_column(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(WRONG)

    result = cdcsync("test", file)

    assert result.exit_code == 1
    assert result.output.replace(f"{tmp_path}/", "").split("\n") == [
        "shop.yaml:7:9: shop.orders, example 1",
        "    after.total: expected 7, got 6",
        "    after.totle: shop.orders has no such column; did you mean total?",
        "shop.yaml:9:9: shop.orders, example 2",
        "    expected 1 change(s), got nothing",
        "shop.yaml:11:9: shop.orders, example 3",
        "    nothing is expected yet: write `expect`, or let --update write it",
        "3 examples, 3 of them came to something else",
        "",
    ]


def test_update_writes_what_came_out_and_keeps_the_comments(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(WRONG)

    assert cdcsync("test", file, "--update").exit_code == 0

    assert cdcsync("test", file).output == "3 examples, 0 of them came to something else\n"
    assert "# what it costs" in file.read_text()
    assert "expect: nothing" in file.read_text()


@pytest.mark.parametrize(
    ("example", "want"),
    [
        ("{given: {after: {id: 1}, operatoin: insert}}", "given: unknown key operatoin; did you mean operation?"),
        ("{given: {operation: upsert, after: {id: 1}}}", "given: no operation is named upsert"),
        ("{given: {after: {id: 0}}, expect: {after: {share: 1}}}", "but the row is rejected: shop.a: column share"),
        ("{given: {after: {id: one}}, expect: nothing}", "column id is integer, and the example's value is none"),
        ("{given: {after: {id: 1}}, expect: {operation: update}}", "operation: expected update, got insert"),
        ("{given: {after: {id: 1}}, expect: {rejected: zero}}", "expected a rejected row, got insert shop.a"),
        ("{given: {after: {id: 1}}, expects: nothing}", "unknown key expects; did you mean expect?"),
    ],
)
def test_a_mistake_in_an_example_is_told(tmp_path: Path, example: str, want: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        f"tables:\n  - from: shop.a\n    columns: {{share: 1 / id}}\n    types: {{id: bigint}}\n    examples: [{example}]\n"
    )

    result = cdcsync("test", file)

    assert want in result.output + str(result.exception)


def test_a_row_that_is_rejected_can_be_what_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "tables:\n  - from: shop.a\n    columns: {share: 1 / id}\n"
        "    examples: [{given: {after: {id: 0}}, expect: {rejected: division by zero}}]\n"
    )

    assert cdcsync("test", file).exit_code == 0


def test_examples_run_against_the_tables_of_the_source_where_they_are_known(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "tables:\n  - from: shop.*\n    columns: {double: price * 2}\n"
        "    examples: [{given: {after: {id: 1, price: 1.5}}, expect: {after: {double: 3}}}]\n"
    )
    columns = (Column("id", Type(Kind.INTEGER, bits=64)), Column("price", Type(Kind.TEXT)))
    table = Table("shop", "a", columns, ("id",))

    (outcome,) = run(rules_of(file, []), [table])

    assert any("there is no text * integer" in line for line in outcome.differences)


def test_a_preview_shows_each_change_with_what_is_made_of_it() -> None:
    columns = (Column("id", Type(Kind.INTEGER, bits=64), nullable=False), Column("n", Type(Kind.INTEGER, bits=64)))
    table = Table("shop", "a", columns, ("id",))
    entry = {"from": "shop.a", "to": "b", "where": "n > 0", "columns": {"share": "10 / (n - 5)"}}
    mapping = Mapping.of([TableMapping.model_validate(entry)])
    at = MemoryPosition(0, 1)
    items = [Change(table, Operation.INSERT, None, (number, number)) for number in (0, 3, 5)]
    batch = Batch([Transaction("1", 0, at, 1, items, range(3))], at, 3, 0)

    got = list(both(mapping, batch))

    assert [each["given"]["after"]["n"] for each in got] == [0, 3, 5]
    assert [[line["after"]["share"] for line in each["made"]] for each in got] == [[], [-5], []]
    assert "division by zero" in got[2]["rejected"]
    assert orjson.dumps(got)
