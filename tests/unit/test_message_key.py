"""Claims about the key of a row's message, and about rows that name their own topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cdcsync import config
from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Table, Transaction
from cdcsync.errors import Fatal, Rejected
from cdcsync.mapping import Mapping, Rule, TableMapping
from cdcsync.mapping.examples import run
from cdcsync.mapping.plan import PLACES_MAX
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from pathlib import Path

    from cdcsync.change import Row

ID = Column("id", Type(Kind.INTEGER, bits=64), nullable=False)
OWNER = Column("owner", Type(Kind.TEXT))
BODY = Column("body", Type(Kind.TEXT))
NOTES = Table("app", "notes", (ID, OWNER, BODY), ("id",))
INSERT, UPDATE, DELETE = Operation.INSERT, Operation.UPDATE, Operation.DELETE
ANN: Row = (1, "Ann", "x")
BOB: Row = (1, "Bob", "x")
KEY_ONLY: Row = (1, UNCHANGED, UNCHANGED)


def mapping(**entry: Any) -> Mapping:
    """Return the mapping of one entry."""
    return Mapping([Rule(TableMapping.model_validate({"from": "app.notes", **entry}))])


def mapped(entry: Mapping, operation: Operation, before: Row | None, after: Row | None) -> list[Change]:
    """Return what becomes of one change."""
    at = MemoryPosition(0, 1)
    transaction = Transaction("77", 0, at, 1, [Change(NOTES, operation, before, after)], [0])
    made = entry.apply(Batch([transaction], at, 1, 0)).transactions[0].items
    return [item for item in made if isinstance(item, Change)]


def keys(change: Change) -> tuple[Any, Any]:
    """Return the message's key in the row before and after."""
    at = change.table.message_key_at
    sides = [None if row is None else tuple(row[index] for index in at) for row in (change.before, change.after)]
    return sides[0], sides[1]


def test_a_message_key_is_no_column_of_the_row() -> None:
    (target,) = mapping(message_key="lower(owner)", include=["id"]).tables([NOTES])

    assert target.message_key == ("_message_key",)
    assert target.key == ("id",)
    assert [column.name for column in target.columns] == ["id", "_message_key"]


def test_a_message_key_of_fields_has_each_by_its_name() -> None:
    entry = mapping(message_key={"who": "owner", "id": "id"})

    (got,) = mapped(entry, INSERT, None, ANN)

    assert got.table.message_key == ("_message_key.who", "_message_key.id")
    assert keys(got) == (None, ("Ann", 1))


@pytest.mark.parametrize(
    ("operation", "before", "after", "want"),
    [
        (INSERT, None, ANN, (None, ("ann",))),
        (UPDATE, ANN, BOB, (("ann",), ("bob",))),
        (UPDATE, ANN, (1, UNCHANGED, "y"), (("ann",), ("ann",))),
        (DELETE, BOB, None, (("bob",), None)),
    ],
)
def test_both_sides_of_a_change_have_their_message_key(
    operation: Operation, before: Row | None, after: Row | None, want: Any
) -> None:
    (got,) = mapped(mapping(message_key="lower(owner)"), operation, before, after)

    assert keys(got) == want


@pytest.mark.parametrize(("operation", "after"), [(DELETE, None), (UPDATE, BOB)])
def test_a_change_whose_old_message_key_was_not_logged_is_rejected(operation: Operation, after: Row | None) -> None:
    with pytest.raises(Rejected, match=r"does not carry the message_key column _message_key; .*REPLICA IDENTITY FULL"):
        mapped(mapping(message_key="owner"), operation, KEY_ONLY, after)


def test_where_nothing_is_deleted_the_old_message_key_does_not_count() -> None:
    entry = mapping(message_key="owner", delete="ignore")

    (got,) = mapped(entry, UPDATE, KEY_ONLY, BOB)

    assert keys(got) == (("Bob",), ("Bob",))
    assert mapped(entry, DELETE, KEY_ONLY, None) == []


def test_a_null_message_key_rejects_the_row() -> None:
    with pytest.raises(Rejected, match="the message_key column _message_key is null"):
        mapped(mapping(message_key="owner"), INSERT, None, (1, None, "x"))


def test_a_history_has_the_message_key_of_each_version() -> None:
    (got,) = mapped(mapping(message_key="owner", history=True), UPDATE, KEY_ONLY, BOB)

    assert keys(got) == (None, ("Bob",))


def test_a_history_of_a_delete_without_its_message_key_is_rejected() -> None:
    with pytest.raises(Rejected, match="the message_key column _message_key is null"):
        mapped(mapping(message_key="owner", history=True), DELETE, KEY_ONLY, None)


def test_a_message_key_that_reads_more_than_the_row_is_a_mistake_where_rows_are_deleted() -> None:
    with pytest.raises(Fatal, match="message_key: reads more than the row"):
        mapping(message_key="_transaction").tables([NOTES])

    assert mapping(message_key="_transaction", delete="ignore").tables([NOTES])


def test_a_message_key_of_the_source_key_alone_is_mapped_by_the_fast_way() -> None:
    (plan,) = mapping(message_key="'note-' || id").plans(NOTES)

    assert plan.direct


def test_rows_name_their_own_targets() -> None:
    entry = mapping(to={"by": "'notes-' || lower(owner)"})

    (moved_from, moved_to) = mapped(entry, UPDATE, ANN, BOB)

    assert entry.tables([NOTES]) == []
    assert (moved_from.operation, moved_from.table.qualified) == (DELETE, "notes-ann")
    assert (moved_to.operation, moved_to.table.qualified) == (INSERT, "notes-bob")


@pytest.mark.parametrize("owner", [None, ""])
def test_a_row_that_names_no_target_is_rejected(owner: str | None) -> None:
    with pytest.raises(Rejected, match=r"`to\.by` is null, empty"):
        mapped(mapping(to={"by": "owner"}), INSERT, None, (1, owner, "x"))


def test_rows_do_not_name_targets_without_end() -> None:
    entry = mapping(to={"by": "owner"})
    for number in range(PLACES_MAX):
        mapped(entry, INSERT, None, (number, f"t{number}", "x"))

    with pytest.raises(Rejected, match="one name more than 1000"):
        mapped(entry, INSERT, None, (1, "one more", "x"))
    assert mapped(entry, INSERT, None, (1, "t7", "x"))


def test_a_truncate_stops_where_rows_name_their_targets() -> None:
    with pytest.raises(Fatal, match="was truncated"):
        mapped(mapping(to={"by": "owner"}), Operation.TRUNCATE, None, None)


def test_a_sink_without_messages_has_no_use_for_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "source: postgres://me@db/shop\nsink: {sqlite: {path: x.db}}\ntables:\n"
        "  - from: shop.a\n    message_key: id\n  - from: shop.b\n    to: {by: id}\n"
    )

    with pytest.raises(Fatal) as raised:
        config.load(file, environ={})

    assert "p.yaml:5:18: message_key: a sqlite sink sends no messages" in str(raised.value)
    assert "p.yaml:7:9: to: a sqlite sink has to know its tables" in str(raised.value)


def test_an_example_expects_a_message_key() -> None:
    examples = [
        {"given": {"after": {"id": 1, "owner": "Ann"}}, "expect": {"message_key": key}}
        for key in ({"who": "Ann", "id": 1}, {"who": "Bob"}, "Ann")
    ]
    rule = Rule(
        TableMapping.model_validate(
            {"from": "app.notes", "message_key": {"who": "owner", "id": "id"}, "examples": examples}
        )
    )

    right, wrong, other = run([rule])

    assert right.differences == ()
    assert right.got == [
        {
            "operation": "insert",
            "table": "app.notes",
            "after": {"id": 1, "owner": "Ann"},
            "message_key": {"who": "Ann", "id": 1},
        }
    ]
    assert wrong.differences == ("message_key.who: expected Bob, got Ann",)
    assert "no such column" in other.differences[0]
