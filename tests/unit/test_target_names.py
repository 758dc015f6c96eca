"""Claims about the target's names, and about where in the file a mistake is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import Column, Table
from cdcsync.connectors import Names
from cdcsync.document import parse
from cdcsync.errors import Fatal
from cdcsync.mapping import Mapping, Rule, TableMapping
from cdcsync.mapping.loading import entries
from cdcsync.mapping.remarks import remarks
from cdcsync.mapping.target_names import misnamed, places
from cdcsync.types import Kind, Type
from cdcsync.validation import Checked

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = Type(Kind.TEXT)
ID = Column("id", Type(Kind.INTEGER, bits=64), nullable=False)
PEOPLE = Table(
    "app",
    "people",
    (ID, Column("name", TEXT), Column("born", Type(Kind.DATE)), Column("doc", Type(Kind.JSON))),
    ("id",),
)
POSTGRES = Names(63, in_bytes=True)
MYSQL = Names(64, folds=True)


def of_file(text: str) -> Mapping:
    """Return the mapping of a file."""
    given = parse(text, "people.yaml")
    checked = Checked(given, set(), given.problems)
    rules = list(entries(checked, given.value["tables"], None))
    assert checked.problems == []
    return Mapping(rules, {})


def mapping(**entry: Any) -> Mapping:
    """Return the mapping of one entry."""
    return Mapping([Rule(TableMapping.model_validate({"from": "app.people", **entry}))], {})


@pytest.mark.parametrize(
    ("name", "names", "want"),
    [
        ("é" * 31, POSTGRES, ""),
        ("é" * 32, POSTGRES, "64 bytes long; the target takes 63"),
        ("x" * 63, POSTGRES, ""),
        ("é" * 64, MYSQL, ""),
        ("é" * 65, MYSQL, "65 characters long; the target takes 64"),
    ],
)
def test_a_name_that_is_too_long_for_the_target_is_told(name: str, names: Names, want: str) -> None:
    of_column = misnamed(mapping(columns={name: "1"}), [PEOPLE], names)
    of_table = misnamed(mapping(to=name), [PEOPLE], names)
    of_source = misnamed(mapping(), [replace(PEOPLE, schema=name)], names)

    assert [want in line for line in of_column] == ([True] if want else [])
    assert [want in line for line in of_table] == ([True] if want else [])
    assert of_source == []


def test_columns_that_differ_in_capitals_alone_are_one_where_those_do_not_count() -> None:
    entry = mapping(columns={"Name": "1"})

    assert misnamed(entry, [PEOPLE], POSTGRES) == []
    (line,) = misnamed(entry, [PEOPLE], MYSQL)
    assert "columns name and Name would be one" in line


def test_a_long_name_has_its_place_in_the_file() -> None:
    long = "n" * 70
    entry = of_file(f"tables:\n  - from: app.people\n    to: {long}\n    rename: {{name: {long}}}\n")

    lines = misnamed(entry, [PEOPLE], POSTGRES)

    assert [line[:20] for line in lines] == ["people.yaml:3:9: tab", "people.yaml:4:20: ta"]


MISTAKES = """\
tables:
  - from: app.people
    exclude: [bron]
    rename:
      name: born
      nmae: x
    nest: {who: [name, brn]}
    flatten: {born: {a: text}, doc: {a: tezt}}
    skip_unchanged: [nam]
    key: [idd]
    message_key: upper(born)
    where: name
    columns:
      a: name + 1 > born
      b: born::integer
"""


def test_all_mistakes_of_an_entry_are_told_at_once_each_in_its_place() -> None:
    with pytest.raises(Fatal) as caught:
        of_file(MISTAKES).tables([PEOPLE])

    lines = str(caught.value.args[0]).split("\n")
    got = [line.removeprefix("people.yaml:") for line in lines if line.startswith("people.yaml")]
    assert got == [
        "3:15: table app.people: exclude: there is no column bron; did you mean born?",
        "6:13: table app.people: rename: there is no column nmae; did you mean name?",
        "7:24: table app.people: nest: there is no column brn; did you mean born?",
        "8:21: table app.people: flatten: column born is no JSON",
        "8:41: table app.people: flatten.doc.a: there is no type tezt here; did you mean text?",
        "14:10: table app.people: columns.a: there is no text + integer",
        "15:10: table app.people: columns.b: there is no cast from date to integer",
        "11:18: table app.people: message_key: upper(date) is none of: upper(text) -> text",
        "12:12: table app.people: where: it is text, and has to be boolean",
        "10:11: table app.people: key: there is no column idd; did you mean id?",
        "9:22: table app.people: skip_unchanged: there is no target column nam; there are: id, who",
    ]


def test_a_finding_about_a_column_leads_to_the_line_that_makes_it() -> None:
    entry = of_file("tables:\n  - from: app.people\n    rename: {name: who}\n    columns:\n      age: '2026'\n")

    assert places(entry, [PEOPLE]) == {
        ("app.people", "who"): "people.yaml:3:20: ",
        ("app.people", "age"): "people.yaml:5:12: ",
    }


def test_what_a_cast_loses_is_a_note_with_its_place() -> None:
    entry = of_file("tables:\n  - from: app.people\n    columns:\n      short: upper(name::varchar(3))\n")

    assert [remark.text for remark in remarks(entry, [PEOPLE], None)] == [
        (
            "people.yaml:4:20: table app.people: columns.short: text becomes text of 3 characters: it is cut after 3 "
            "characters\n    upper(name::varchar(3))\n          ^^^^^^^^^^^^^^^^"
        )
    ]


ASKED = """\
tables:
  - from: app.people
    match: all
    to: {by: name, tables: [a, b]}
    where: born is not null
    message_key: "name || id"
  - from: app.people
    to: c
    key: [name, id]
  - from: app.people
"""
ASKS = [
    ("4:14", "to.by"),
    ("5:12", "where"),
    ("6:18", "message_key"),
    ("9:10", "key"),
]


@pytest.mark.parametrize(
    ("whole", "demanded"), [(None, []), (lambda _: True, None), (lambda _: False, ["to.by", "message_key", "key"])]
)
def test_what_an_entry_asks_of_the_log_is_an_error_where_the_log_is_known_not_to_have_it(
    whole: Callable[[Table], bool] | None, demanded: list[str] | None
) -> None:
    named = replace(PEOPLE.columns[1], nullable=False)

    found = remarks(of_file(ASKED), [replace(PEOPLE, columns=(ID, named, *PEOPLE.columns[2:]))], whole)

    told = sorted(remark.text for remark in found)
    assert [line.split("` reads ")[0] for line in told] == (
        [] if demanded is None else [f"people.yaml:{place}: table app.people: `{name}" for place, name in ASKS]
    )
    assert [name for remark in found if remark.wrong for _, name in ASKS if f"`{name}`" in remark.text] == (
        demanded or []
    )
