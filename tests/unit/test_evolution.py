"""What is different between two versions of a table, and what a target does of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import Batch, Change, Column, Operation, SchemaChange, Table, Transaction
from cdcsync.errors import Fatal
from cdcsync.evolution import (
    Alteration,
    Applied,
    Follows,
    Met,
    Mode,
    after,
    decode,
    encode,
    followed,
    met,
    steps,
    trimmed,
    widened,
)
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from cdcsync.change import Item

INT = Type(Kind.INTEGER, bits=32)
BIG = Type(Kind.INTEGER, bits=64)
TEXT = Type(Kind.TEXT)
ID = Column("id", INT, nullable=False)
NOTE = Column("note", TEXT)
PRICE = Column("price", Type(Kind.DECIMAL, precision=10, scale=2), nullable=False)
OLD = Table("shop", "orders", (ID, NOTE, PRICE), ("id",))
EVOLVE = Follows(Mode.EVOLVE)
LENIENT = Follows(Mode.LENIENT)


def told(follows: Follows, new: Table, renamed: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Return the steps as words."""
    found = followed(follows, OLD, new, renamed)
    return [f"{step.kind} {step.new.name if step.new else step.old.name if step.old else step.key}" for step in found]


def test_every_difference_is_a_step_and_drops_come_last() -> None:
    new = Table("shop", "orders", (replace(ID, type=BIG), replace(PRICE, nullable=True), Column("at", TEXT)), ("id",))

    assert told(EVOLVE, new) == ["add at", "type id", "nullable price", "drop note"]


def test_a_renamed_column_is_dropped_and_added_unless_the_statement_tells() -> None:
    new = replace(OLD, columns=(ID, replace(NOTE, name="remark"), PRICE))

    assert told(EVOLVE, new) == ["add remark", "drop note"]
    assert told(EVOLVE, new, (("note", "remark"),)) == ["rename remark"]


def test_a_renamed_key_column_is_no_other_key() -> None:
    new = Table("shop", "orders", (replace(ID, name="number"), NOTE, PRICE), ("number",))

    assert told(EVOLVE, new, (("id", "number"),)) == ["rename number"]


def test_columns_that_exchange_their_names_are_refused() -> None:
    new = replace(OLD, columns=(ID, PRICE, NOTE))

    with pytest.raises(Fatal, match="exchanged their names"):
        steps(OLD, new, (("note", "price"), ("price", "note")))


def test_another_key_is_followed_by_evolve_alone() -> None:
    new = replace(OLD, key=("id", "price"))

    assert told(EVOLVE, new) == ["key ('id', 'price')"]
    assert told(LENIENT, new) == []


def test_lenient_keeps_what_is_dropped_and_asks_nothing_of_it_any_more() -> None:
    new = Table("shop", "orders", (ID, Column("cost", PRICE.type)), ("id",))

    assert told(LENIENT, new, (("price", "cost"),)) == ["add cost", "nullable price"]


def test_lenient_widens_and_never_narrows() -> None:
    wider, narrower = (
        replace(OLD, columns=(replace(ID, type=BIG), NOTE, PRICE)),
        replace(OLD, columns=(replace(ID, type=Type(Kind.INTEGER, bits=16)), NOTE, PRICE)),
    )

    assert told(LENIENT, wider) == ["type id"]
    assert told(LENIENT, narrower) == []


@pytest.mark.parametrize("follows", [Follows(Mode.IGNORE), Follows(Mode.STOP), Follows(Mode.EVOLVE, frozenset())])
def test_who_ignores_a_kind_does_nothing_of_it(follows: Follows) -> None:
    assert told(follows, replace(OLD, columns=(ID, NOTE))) == []


def test_kinds_are_chosen_by_include_and_exclude() -> None:
    new = Table("shop", "orders", (ID, NOTE, Column("at", TEXT)), ("id",))

    assert told(Follows(Mode.EVOLVE, frozenset({Alteration.ADD})), new) == ["add at"]
    assert told(Follows(Mode.EVOLVE, None, frozenset({Alteration.ADD})), new) == ["drop price"]


@pytest.mark.parametrize(
    ("one", "other", "want"),
    [
        (INT, BIG, BIG),
        (replace(INT, unsigned=True), INT, BIG),
        (BIG, replace(BIG, unsigned=True), Type(Kind.DECIMAL, precision=20, scale=0)),
        (INT, TEXT, TEXT),
        (Type(Kind.TEXT, length=10), Type(Kind.TEXT, length=20), Type(Kind.TEXT, length=20)),
        (TEXT, Type(Kind.TEXT, length=20), TEXT),
        (
            Type(Kind.DECIMAL, precision=10, scale=2),
            Type(Kind.DECIMAL, precision=6, scale=4),
            Type(Kind.DECIMAL, precision=12, scale=4),
        ),
        (
            Type(Kind.TIMESTAMP, precision=6),
            Type(Kind.TIMESTAMP, precision=3),
            Type(Kind.TIMESTAMP, precision=6),
        ),
        (
            Type(Kind.ENUM, labels=("a", "b")),
            Type(Kind.ENUM, labels=("b", "c")),
            Type(Kind.ENUM, labels=("a", "b", "c")),
        ),
    ],
)
def test_the_wider_type_holds_the_values_of_both(one: Type, other: Type, want: Type) -> None:
    assert widened(one, other) == want
    assert widened(other, one).kind is want.kind


def test_the_target_after_the_steps_is_what_the_next_version_is_compared_with() -> None:
    new = Table("shop", "orders", (ID, replace(NOTE, name="remark"), Column("at", TEXT)), ("id",))

    evolved = after(OLD, new, followed(EVOLVE, OLD, new, (("note", "remark"),)))
    kept = after(OLD, new, followed(LENIENT, OLD, new, (("note", "remark"),)))

    assert followed(EVOLVE, evolved, new) == []
    assert [column.name for column in kept.columns] == ["id", "note", "price", "remark", "at"]
    assert followed(LENIENT, kept, new) == []


def test_rows_are_written_without_the_columns_that_are_not_followed() -> None:
    new = replace(OLD, columns=(*OLD.columns, Column("at", TEXT)))

    assert trimmed(new, OLD) == OLD
    assert trimmed(OLD, new) is OLD


def test_a_table_version_reads_back_as_it_was_written() -> None:
    element = Type(Kind.ENUM, labels=("x", "y"), name="shop.mood", system="postgres")
    table = Table(
        "s", "t", (ID, Column("a", Type(Kind.ARRAY, element=element)), Column("g", BIG, generated=True)), ("id",)
    )

    got = decode(encode(Applied(table, 7, "x")), 7)

    assert got == Applied(table, 7, "x")
    assert got.table.columns[1].type.element == element


def test_versions_are_met_where_they_first_come_up() -> None:
    new = replace(OLD, columns=(ID, replace(NOTE, name="remark"), PRICE))
    items: list[Item] = [
        Change(OLD, Operation.READ, None, (1, "a", "1.00")),
        SchemaChange(OLD, new, None, (("note", "remark"),)),
        Change(new, Operation.INSERT, None, (2, "b", "2.00")),
    ]
    position = MemoryPosition(0, 0, 0)
    batch = Batch((Transaction("1", 0, position, 7, items, (0, 1, 1)),), position, 3, 0)

    got = met(batch)

    assert list(got.values()) == [Met(OLD, 7, copied=True), Met(new, 7, renamed=(("note", "remark"),))]
