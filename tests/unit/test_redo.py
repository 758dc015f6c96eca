"""Changes as SQL, without a server: what is quoted, what is lacking, and the order in which a script undoes."""

from __future__ import annotations

from typing import Any

import pytest

from cdcsync.change import UNCHANGED, Change, Column, Item, Operation, SchemaChange, Table, Transaction
from cdcsync.errors import Fatal
from cdcsync.postgres.dialect import DIALECT, string
from cdcsync.redo import Script, Statements
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

TABLE = Table(
    'sh"op',
    "t",
    (
        Column("id", Type(Kind.INTEGER, bits=64)),
        Column("a b", Type(Kind.TEXT)),
        Column("sum", Type(Kind.FLOAT, bits=64), generated=True),
    ),
    ("id",),
)
NAME = '"sh""op"."t"'


def update(before: tuple[Any, ...], after: tuple[Any, ...]) -> Change:
    return Change(TABLE, Operation.UPDATE, before, after)


def part(items: list[Item], *, number: int = 0, last: bool = True) -> Transaction:
    return Transaction("7\n8", 0, MemoryPosition(1, 1), 1, items, range(len(items)), number, last)


def test_an_update_names_the_row_by_the_key_it_has_then() -> None:
    statements = Statements(DIALECT)
    moved = update((1, "old", 0.5), (2, "new", 0.7))

    assert statements.redo(moved).text == f"""UPDATE {NAME} SET "id" = 2, "a b" = 'new' WHERE "id" = 1;"""
    assert statements.undo(moved).text == f"""UPDATE {NAME} SET "id" = 1, "a b" = 'old' WHERE "id" = 2;"""


def test_a_value_that_no_update_changed_is_not_set() -> None:
    statements = Statements(DIALECT)

    assert statements.redo(update((1, "same", 0.0), (1, "same", -0.0))).text == ""
    assert statements.undo(update((1, UNCHANGED, 0.0), (1, UNCHANGED, 0.0))).text == ""
    assert statements.redo(update((1, UNCHANGED, 0.0), (1, UNCHANGED, 0.0))).text == ""


def test_what_was_inserted_is_deleted_and_what_was_deleted_inserted_without_what_is_computed() -> None:
    statements = Statements(DIALECT)

    assert statements.undo(Change(TABLE, Operation.INSERT, None, (1, None, 1.5))).text == (
        f'DELETE FROM {NAME} WHERE "id" = 1;'
    )
    assert statements.undo(Change(TABLE, Operation.DELETE, (1, None, 1.5), None)).text == (
        f'INSERT INTO {NAME} ("id", "a b") OVERRIDING SYSTEM VALUE VALUES (1, NULL);'
    )


@pytest.mark.parametrize(
    "change",
    [
        update((1, UNCHANGED, UNCHANGED), (1, "new", 1.0)),
        Change(TABLE, Operation.DELETE, (1, UNCHANGED, UNCHANGED), None),
        Change(TABLE, Operation.TRUNCATE, None, None),
        SchemaChange(TABLE, TABLE, "ALTER TABLE t\nDROP x"),
    ],
)
def test_what_the_log_lacks_is_a_comment_of_one_line_and_counted(change: Item) -> None:
    script = Script(DIALECT)

    lines = list(script.undone(part([change])))

    assert script.lacking == 1
    assert lines[1].startswith("-- ")
    assert lines[1].count("\n") == 1
    with pytest.raises(Fatal, match="not whole: 1 change"):
        script.refuse_lacking()


def test_a_script_read_backwards_undoes_a_transaction_in_parts_within_one() -> None:
    script = Script(DIALECT)
    first = part([Change(TABLE, Operation.INSERT, None, (1, "x", 0.0))], last=False)
    second = part([Change(TABLE, Operation.INSERT, None, (2, "y", 0.0))], number=1)

    lines = [*script.undone(first), *script.undone(second)][::-1]

    title = "-- transaction 7 8, committed 1970-01-01T00:00:00.000000Z\nBEGIN;\n"
    deletes = [f'DELETE FROM {NAME} WHERE "id" = {number};\n' for number in (2, 1)]
    assert lines == [title, *deletes, "COMMIT;\n"]
    script.refuse_lacking()


def test_a_string_means_the_same_whatever_the_server_makes_of_backslashes() -> None:
    assert string("it's") == "'it''s'"
    assert string("a\\'b\n") == "E'a\\\\''b\n'"
